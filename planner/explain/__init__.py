"""Explanations of one plan: the formula tree, the waterfall, what binds, what matters, and the plan in words."""
