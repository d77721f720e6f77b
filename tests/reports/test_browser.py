"""The pages in a real headless browser, in light and dark, on a desk and on a phone."""

import json
import re
import subprocess
from typing import NamedTuple

import pytest

from reports.page import accuracy_page, capacity_page, placement_page, plan_page
from tests.reports import accuracy_fixtures, fixtures

# Runs at the end of the page and tells the frame around it what the reader sees.
PROBE = """<script>setTimeout(() => parent.postMessage(JSON.stringify({
  dark: matchMedia("(prefers-color-scheme: dark)").matches,
  overflow: document.documentElement.scrollWidth - innerWidth,
  width: innerWidth,
  ground: getComputedStyle(document.body).backgroundColor,
  tick: getComputedStyle(document.querySelector(".xtick text")).fill,
  drawn: [...document.querySelectorAll("figure")].map((f) => [f.id, f.querySelectorAll("svg.main-svg").length,
    f.querySelectorAll(".trace, .point, .hm").length]),
  spilled: [...document.querySelectorAll("figure")].flatMap((f) => {
    const edge = f.getBoundingClientRect();
    return [...f.querySelectorAll("svg text")].map((t) => [t.getBoundingClientRect(), t.textContent])
      .filter(([r]) => r.width && (r.left < edge.left || r.right > edge.right)).map(([, text]) => f.id + ": " + text);
  }),
}), "*"), 500)</script>"""
FRAME = """<!doctype html><meta name="color-scheme" content="light dark"><style>body{{margin:0}}
pre{{display:none}}iframe{{border:0;display:block;width:{width}px;height:1600px}}</style><pre></pre>
<script>onmessage = (event) => {{ document.querySelector("pre").textContent = event.data }}</script>
<iframe src="page.html"></iframe>"""
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--enable-logging=stderr", "--dump-dom",
    "--virtual-time-budget=8000",
)  # fmt: skip


class Look(NamedTuple):
    """A page as one reader sees it: which page, how wide, dark or light."""

    page: str
    width: int
    dark: bool


class Seen(NamedTuple):
    """What the probe told, the console's lines, the picture's bytes."""

    told: dict
    console: list[str]
    picture: bytes


LOOKS = (
    Look("plan", 1280, dark=False), Look("plan", 390, dark=True),
    Look("capacity", 1280, dark=True), Look("capacity", 390, dark=False),
    Look("placement", 1280, dark=False), Look("placement", 390, dark=True),
    Look("accuracy", 1280, dark=False), Look("accuracy", 390, dark=True),
)  # fmt: skip
PAGES = {
    "plan": lambda: plan_page(fixtures.plan(), fixtures.search()),
    "capacity": lambda: capacity_page(fixtures.capacity()),
    "placement": lambda: placement_page(fixtures.placement()),
    "accuracy": lambda: accuracy_page(accuracy_fixtures.accuracy()),
}


@pytest.fixture(
    scope="module", params=LOOKS, ids=lambda look: f"{look.page}-{look.width}-{'dark' if look.dark else 'light'}"
)
def seen(request, chromium, tmp_path_factory):
    """(look, what was seen) of each look; the page stands in a frame, as windows cannot be as narrow as a phone."""
    look, folder = request.param, tmp_path_factory.mktemp("browser")
    page = PAGES[look.page]()
    (folder / "page.html").write_text(page.replace("</body>", PROBE + "</body>"), encoding="utf-8")
    (folder / "frame.html").write_text(FRAME.format(width=look.width), encoding="utf-8")
    command = [
        str(chromium), *OPTIONS, f"--user-data-dir={folder / 'profile'}", f"--window-size={max(look.width, 500)},1600",
        f"--blink-settings=preferredColorScheme={0 if look.dark else 1}", f"--screenshot={folder / 'seen.png'}",
        (folder / "frame.html").as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    told = re.search(r"<pre>(\{.*\})</pre>", done.stdout)
    assert told, f"the page told nothing: {done.stderr[-2000:]}"
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    return look, Seen(
        json.loads(told[1].replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&")),
        console,
        (folder / "seen.png").read_bytes(),
    )


def test_the_console_is_silent(seen):
    """Loading and drawing write nothing to the console: no error, no refused load."""
    assert seen[1].console == []


def test_every_figure_is_drawn(seen):
    """Each figure of the page has its drawing with marks in it."""
    look, (told, _, _) = seen
    assert len(told["drawn"]) == {"plan": 8, "capacity": 6, "placement": 7, "accuracy": 4}[look.page]
    assert all(drawings > 0 and marks > 0 for _, drawings, marks in told["drawn"])


def test_the_page_is_as_wide_as_the_window(seen):
    """The page never scrolls sideways, and no text of a figure leaves its card."""
    look, (told, _, _) = seen
    assert told["width"] == look.width
    assert told["overflow"] <= 0
    assert told["spilled"] == []


def test_page_and_figures_follow_the_readers_scheme(seen):
    """In dark, ground is dark and ticks are light; in light, the reverse."""
    look, (told, _, picture) = seen
    ground, tick = (sum(int(n) for n in re.findall(r"\d+", told[key])[:3]) for key in ("ground", "tick"))
    assert told["dark"] is look.dark
    assert (ground < tick) is look.dark
    assert picture.startswith(b"\x89PNG")
