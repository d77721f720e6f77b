"""The optimizers of a training over the local pieces of its parameters; sharded or not, the update is the same."""

from executor.optimizers.build import build

__all__ = ["build"]
