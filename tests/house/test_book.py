import importlib
import pkgutil

import pytest

import planner
from planner.formula import BOOK


@pytest.fixture(scope="module")
def book():
    """The formula book with every module of the planner imported."""
    for module in pkgutil.walk_packages(planner.__path__, "planner."):
        importlib.import_module(module.name)
    return BOOK


def test_every_formula_has_unit_source_and_a_line(book):
    """A formula states the unit of its result, where it comes from, and what it is in one line."""
    assert len(book) > 20
    rows = [row.name for row in book.values() if not (row.unit.strip() and row.source.strip() and row.doc.strip())]
    assert rows == []


def test_units_have_one_spelling(book, root):
    """Each unit of the formula book stands in the table of units of the glossary."""
    glossary = (root / "docs" / "glossary.md").read_text(encoding="utf-8")
    table = glossary.split("## Units")[1].split("\n## ")[0]
    known = {line.split("|")[1].strip().strip("`") for line in table.splitlines() if line.startswith("| `")}
    assert "FLOP/s" in known
    assert {row.unit for row in book.values()} - known == set()
