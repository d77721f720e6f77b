"""Fits of mechanisms on published runs: `python -m planner.fit RUNS.yaml planner/data`, and what each is worth."""
