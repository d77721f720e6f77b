"""Depth: a discrete-event replay of a step, and its trace."""
