import ast
import re
from pathlib import Path

import pytest

PACKAGES = ("planner", "executor", "hwprofiles", "reports")
LONGEST_FILE = 300
LONGEST_FUNCTION = 60
TABLES: frozenset[str] = frozenset(
    {"tests/planner/test_catalog.py", "tests/planner/test_families.py"}
)  # files that are one long table, by path from the top

# The brackets keep this file from holding what it forbids.
UNFINISHED = re.compile(r"\b([T]ODO|[F]IXME|[X]XX|[H]ACK)\b")
MACHINE_PATH = re.compile(r"(?<![\w.])/([w]ork|[r]oot|[h]ome|[t]mp)/")


@pytest.fixture(scope="module")
def sources(root, files):
    """Path from the top -> parsed module, of all Python in the four packages."""
    paths = [path for path in files if path.suffix == ".py" and path.relative_to(root).parts[0] in PACKAGES]
    return {path.relative_to(root).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def text(path: Path) -> str:
    """The text of a file, empty when it is none."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def functions(tree: ast.Module):
    """Each function and method of a module, nested ones too."""
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def public(tree: ast.Module):
    """The public functions and classes of a module, and the public methods of those classes."""
    nodes = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]
    for node in nodes:
        if not node.name.startswith("_"):
            yield node
            yield from public(ast.Module(node.body, [])) if isinstance(node, ast.ClassDef) else ()


def test_a_file_is_one_idea(root, files):
    """No Python file is longer than 300 lines, but for the listed tables."""
    lengths = {
        path.relative_to(root).as_posix(): text(path).count("\n") for path in files if path.suffix in {".py", ".sh"}
    }
    assert lengths
    assert {name: n for name, n in lengths.items() if n > LONGEST_FILE and name not in TABLES} == {}
    assert lengths.keys() >= TABLES


def test_a_function_fits_on_a_screen(sources):
    """No function is longer than 60 lines."""
    lengths = {
        f"{name}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1
        for name, tree in sources.items()
        for node in functions(tree)
    }
    assert lengths
    assert {name: n for name, n in lengths.items() if n > LONGEST_FUNCTION} == {}


def test_what_is_public_is_documented(sources):
    """Every module with code, public class, function and method of the four packages has a docstring."""
    bare = [name for name, tree in sources.items() if tree.body and not ast.get_docstring(tree)]
    for name, tree in sources.items():
        bare += [f"{name}:{node.lineno} {node.name}" for node in public(tree) if not ast.get_docstring(node)]
    assert sources
    assert bare == []


@pytest.mark.parametrize("banned", [UNFINISHED, MACHINE_PATH], ids=["unfinished", "machine path"])
def test_nothing_is_left_lying_about(root, files, banned):
    """No file has a mark of unfinished work or a path of somebody's machine."""
    found = [
        f"{path.relative_to(root)}:{number}"
        for path in files
        for number, line in enumerate(text(path).splitlines(), 1)
        if banned.search(line)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("line", "banned"),
    [
        (f"# {'T'}ODO later", UNFINISHED),
        (f"open('/{'w'}ork/main/x')", MACHINE_PATH),
        (f"`/{'r'}oot/.cache`", MACHINE_PATH),
    ],
)
def test_the_search_finds_what_it_forbids(line, banned):
    """The patterns match the marks and paths they are for."""
    assert banned.search(line)
