"""Fits: each inverts a formula of the planner, by importing that very formula, and says how well it did."""
