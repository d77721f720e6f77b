"""How the tests call `plan place`: the arguments for a small trace in a file, and for a made-up one."""

from planner.placement.base import Grid

GRID = Grid(4, 2)
SIZES = (
    *("--experts", "32", "--nodes", "4", "--gpus-per-node", "2", "--hidden", "256", "--expert-hidden", "128"),
    "--quiet",
)
FILE = ("place", "--routing", "trace.npz", *SIZES)
MADE = ("place", "--scenario", "zipf", "--topk", "2", "--tokens", "1024", "--layers", "1", *SIZES)


def other(*changed, base=FILE, drop=()):
    """The arguments with these added, and these options and their values left out."""
    words = list(base)
    for name in drop:
        at = words.index(name)
        del words[at : at + 2]
    return (*words, *changed)
