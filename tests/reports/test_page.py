import copy
import re
from html.parser import HTMLParser

import pytest
from plotly.offline import get_plotlyjs

from planner.errors import InputError
from reports.cli import write_capacity, write_placement, write_plan
from reports.figures import FIGURES
from reports.markup import Html, tag
from reports.page import (
    accuracy_page,
    capacity_page,
    compression_page,
    placement_page,
    plan_page,
    training_page,
    tuning_page,
)
from tests.reports import accuracy_fixtures, compression_fixtures, fixtures, training_fixtures

HOSTILE = "<script>alert(1)</script>\"'&<a href=http://x>"
MEGABYTE = 1e6


class Reader(HTMLParser):
    """Collects the elements of a page, text outside scripts, and what is left open."""

    def __init__(self, page):
        """Read the whole page."""
        super().__init__()
        self.elements, self.open, self.text = [], [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, name, attributes):
        """Keep the element."""
        self.elements.append((name, dict(attributes)))
        if name not in {"meta", "br"}:
            self.open.append(name)

    def handle_endtag(self, name):
        """Close the innermost element, which must have this name."""
        assert self.open.pop() == name

    def handle_data(self, data):
        """Keep text that is shown."""
        if self.open and self.open[-1] not in {"script", "style"}:
            self.text.append(data)


@pytest.fixture(scope="module", params=["plan", "capacity", "placement", "accuracy"])
def page(request):
    """Each page of the fixtures."""
    made = {
        "plan": lambda: plan_page(fixtures.plan(), fixtures.search()),
        "capacity": lambda: capacity_page(fixtures.capacity()),
        "placement": lambda: placement_page(fixtures.placement()),
        "accuracy": lambda: accuracy_page(accuracy_fixtures.accuracy()),
    }
    return made[request.param]()


def spoiled(value):
    """The same artefact with each string that a user can choose made hostile."""
    if isinstance(value, dict):
        return {key: spoiled(item) for key, item in value.items()}
    if isinstance(value, list):
        return [spoiled(item) for item in value]
    return value + HOSTILE if isinstance(value, str) else value


def test_the_page_is_whole_and_small(page):
    """Elements are balanced, plotly.js is there once, the file is under 6 MB."""
    assert Reader(page).open == []
    assert page.count(get_plotlyjs()) == 1
    assert len(page.encode()) < 6 * MEGABYTE


def test_the_page_loads_nothing(page):
    """No element and no style fetches anything; links stay inside the page."""
    elements = Reader(page).elements
    assert not [name for name, _ in elements if name in {"link", "img", "iframe", "object", "embed", "base"}]
    assert [attributes["href"] for _, attributes in elements if not attributes.get("href", "#").startswith("#")] == []
    assert not [name for name, attributes in elements if "src" in attributes]
    own = page.replace(get_plotlyjs(), "")
    assert not re.search(r"https?://|url\(|@import", own)


def test_each_figure_is_labelled(page):
    """Each figure has a heading, a sentence and an accessible label that holds both."""
    labels = [attributes["aria-label"] for _, attributes in Reader(page).elements if attributes.get("role") == "img"]
    figures = [attributes for name, attributes in Reader(page).elements if name == "figure"]
    assert len(labels) == len(figures) > 0
    assert all(re.search(r"\w\. .+\.$", label) for label in labels)


def test_every_registered_figure_has_a_place():
    """The pages together show all figures of the registry, each once."""
    pages = plan_page(fixtures.plan(), fixtures.search(), fixtures.comparison()) + capacity_page(fixtures.capacity())
    pages += placement_page(fixtures.placement()) + compression_page(compression_fixtures.compression())
    pages += accuracy_page(accuracy_fixtures.accuracy())
    pages += training_page(training_fixtures.training()) + tuning_page(training_fixtures.tuning())
    assert sorted(re.findall(r'id="figure-(\w+)"', pages)) == sorted(FIGURES)


def test_the_answer_stands_first():
    """The header of a plan holds step time, interval, tokens/s, MFU, days, cost and memory."""
    page = plan_page(fixtures.plan())
    header = page[page.index("<header") : page.index("</header>")]
    for figure in ("1.14 s", "1.06 to 1.24 s", "25.0 days", "$11.8M", "14.7M", "43.0 %", "81.0 GiB"):
        assert figure in header


def test_a_plan_without_search_has_no_search_section():
    """What has no data is left out of page and menu."""
    assert 'id="search"' not in plan_page(fixtures.plan())
    assert 'href="#search"' not in plan_page(fixtures.plan())
    assert 'id="search"' in plan_page(fixtures.plan(), fixtures.search())


def test_a_plan_unlike_all_runs_says_so():
    """What no fitted run shows is named beside the interval."""
    plan = fixtures.plan()
    assert "No run that the planner was fitted on" not in plan_page(plan)
    plan["estimate"]["interval_new"] = ["generation", "size"]
    assert "fitted on shows this GPU generation or so many GPUs; the interval" in plan_page(plan)


def test_a_plan_that_does_not_fit_says_so():
    """The first sentence does not promise what memory refuses."""
    plan = fixtures.plan()
    plan["estimate"]["fits"] = False
    assert "but it does not fit in memory" in plan_page(plan)


@pytest.mark.parametrize("kind", ["plan", "capacity", "placement"])
def test_hostile_names_stay_text(kind):
    """Markup in any string of the artefacts is shown, never run: same elements as with plain names."""
    make = {
        "plan": lambda wrap: plan_page(wrap(fixtures.plan()), wrap(fixtures.search())),
        "capacity": lambda wrap: capacity_page(wrap(fixtures.capacity())),
        "placement": lambda wrap: placement_page(wrap(fixtures.placement())),
    }[kind]
    plain, hostile = Reader(make(copy.deepcopy)), Reader(make(spoiled))
    assert [name for name, _ in hostile.elements] == [name for name, _ in plain.elements]
    assert HOSTILE in "".join(hostile.text)


def test_markup_escapes_all_but_html():
    """Children and attributes are escaped unless they are Html."""
    assert tag("p", "<&", Html("<br>"), title='"x"') == '<p title="&quot;x&quot;">&lt;&amp;<br></p>'


def test_the_same_artefacts_give_the_same_bytes():
    """Nothing in a page depends on when or how often it is made."""
    assert plan_page(fixtures.plan(), fixtures.search()) == plan_page(fixtures.plan(), fixtures.search())


def test_a_page_is_written_whole(tmp_path):
    """The writers leave exactly the page, readable by all, and nothing beside it."""
    write_plan(fixtures.plan(), None, tmp_path / "plan.html")
    write_capacity(fixtures.capacity(), tmp_path / "capacity.html")
    write_placement(fixtures.placement(), tmp_path / "placement.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["capacity.html", "placement.html", "plan.html"]
    assert (tmp_path / "plan.html").read_text(encoding="utf-8") == plan_page(fixtures.plan())
    assert (tmp_path / "plan.html").stat().st_mode & 0o444 == 0o444


def test_a_failed_write_leaves_the_old_page(tmp_path, monkeypatch):
    """When the rename fails the old file stands and no temporary file is left."""
    target = tmp_path / "plan.html"
    target.write_text("old", encoding="utf-8")

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", refuse)
    with pytest.raises(InputError, match="No space left"):
        write_plan(fixtures.plan(), None, target)
    assert [path.read_text(encoding="utf-8") for path in tmp_path.iterdir()] == ["old"]
