import sys

import pytest

from executor.ranks import Ranks


@pytest.fixture(scope="session")
def pool():
    """One pool of ranks for all tests that need no other; its processes start when they are needed."""
    with Ranks(8, timeout=120.0) as ranks:
        yield ranks


@pytest.fixture(autouse=True)
def _same_numbers():
    """Random tensors of a test are the same in every run, whatever ran before."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
