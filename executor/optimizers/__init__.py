"""The optimizers of a training over the local pieces of its parameters; sharded or not, the update is the same."""
