"""Measurements of a machine: kernels, attention, memory, the cost of a launch, collectives."""
