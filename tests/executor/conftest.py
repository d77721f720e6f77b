import pytest

from executor.ranks import Ranks


@pytest.fixture(scope="session")
def pool():
    """One pool of ranks for all tests that need no other; its processes start when they are needed."""
    with Ranks(8, timeout=30.0) as ranks:
        yield ranks
