import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = ("planner", "executor", "hwprofiles", "reports")


def lint_imports(directory: Path) -> subprocess.CompletedProcess[str]:
    """Runs the import contracts of the pyproject.toml in `directory` on the packages beside it."""
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)


def test_every_import_goes_down_a_floor(root):
    """No package imports from above, torch and plotly stay in their rooms, every module has its floor."""
    result = lint_imports(root)
    assert result.returncode == 0, result.stdout
    assert "3 kept, 0 broken" in result.stdout


@pytest.mark.parametrize(
    ("module", "line", "verdict"),
    [
        ("hwprofiles/spec.py", "import planner", "hwprofiles is not allowed to import planner"),
        ("planner/formula.py", "import executor", "planner is not allowed to import executor"),
        ("reports/__init__.py", "import executor", "reports is not allowed to import executor"),
        ("planner/formula.py", "import torch", "planner is not allowed to import torch"),
        ("hwprofiles/spec.py", "import plotly", "hwprofiles is not allowed to import plotly"),
        ("planner/formula.py", "import planner.model", "planner.formula is not allowed to import planner.model"),
        ("planner/attic.py", '"""A module that no layer names."""', "planner.attic"),
    ],
)
def test_the_contract_sees_a_breach(root, tmp_path, module, line, verdict):
    """One import upwards, one stray torch or one module without a floor breaks the contract."""
    shutil.copy(root / "pyproject.toml", tmp_path)
    for package in PACKAGES:
        shutil.copytree(root / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "data"))
    with (tmp_path / module).open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    result = lint_imports(tmp_path)
    assert result.returncode == 1
    assert verdict in result.stdout
