"""What all tests share: steady hypothesis runs, the repository's files, a browser for the report."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("steady", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("steady")


@pytest.fixture(scope="session")
def root() -> Path:
    """The top of the repository."""
    return Path(__file__).parents[1]


@pytest.fixture(scope="session")
def files(root: Path) -> list[Path]:
    """All files of the repository, tracked or about to be (never what git ignores)."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("needs a git checkout")
    return [root / name for name in sorted(set(listed.stdout.split("\0"))) if name and (root / name).is_file()]


@pytest.fixture(scope="session")
def chromium() -> Path:
    """A headless-capable browser; without one the test is skipped, but never where CI=true."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return Path(found)
    reason = "no chromium on the PATH: the report is not rendered"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
