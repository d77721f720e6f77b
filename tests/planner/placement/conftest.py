import numpy as np
import pytest

from tests.planner.placement import toys
from tests.planner.placement.command import GRID


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder to work in, with a trace."""
    monkeypatch.chdir(tmp_path)
    trace = toys.trace(32, 2, GRID, 480, 2)
    np.savez("trace.npz", ids=trace.ids, src=trace.src, seq=trace.seq, layers=np.array([3, 7]))
    return tmp_path
