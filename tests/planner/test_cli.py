import csv
import io
import json
import re
import subprocess
import sys

import pytest

from planner.cli import COMMANDS, main
from planner.provenance import tool_version

BASE = ("llama3.1-8b", "--cluster", "h100-superpod", "--gpus", "64")
HEAVY = {"numpy", "scipy", "networkx", "torch", "plotly", "rich"}
SEARCHED = {"plan.json", "plans.csv", "report.html"}


@pytest.fixture
def call(capsys):
    """Run `plan` with these arguments: exit code, stdout, stderr."""

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def plan_path(tmp_path_factory):
    """The plan.json of a legal strategy."""
    path = tmp_path_factory.mktemp("plans") / "plan.json"
    assert main(["estimate", *BASE, "--tp", "2", "--pp", "4", "--quiet", "--json", "--out", str(path)]) == 0
    return path


def fresh(code, **environment):
    """Python code in a new process of this interpreter."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PATH": "", **environment}
    )


def test_help_imports_nothing_that_computes():
    """`plan --help` loads neither numpy nor anything heavier."""
    result = fresh("import sys; from planner.cli import main; main(['--help']); print(*sys.modules, file=sys.stderr)")
    assert {name.split(".")[0] for name in result.stderr.split()} & HEAVY == set()


def test_help_lists_every_command(call):
    """The help of the group names each command, and says what the exit codes mean."""
    code, out, err = call("--help")
    assert (code, err) == (0, "")
    assert [name for name in COMMANDS if not re.search(rf"^  {name} ", out, flags=re.MULTILINE)] == []
    assert "130 interrupted" in " ".join(out.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_explains_itself(call, name):
    """`plan COMMAND --help` prints its usage and ends well."""
    code, out, err = call(name, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: plan {name}")


def test_version(call):
    """`plan --version` names the installed version."""
    code, out, _ = call("--version")
    assert code == 0
    assert tool_version() in out


@pytest.mark.parametrize(
    "arguments",
    [
        ("models",),
        ("models", "mixtral-8x7b"),
        ("hardware",),
        ("hardware", "h100-sxm"),
        ("hardware", "diff", "h100-sxm", "h200-sxm"),
        ("doctor",),
        ("search", *BASE),
        ("estimate", *BASE),
        ("capacity", *BASE[:-1], "32,64"),
        ("explain", "PLAN"),
        ("simulate", "PLAN"),
    ],
    ids=" ".join,
)
def test_json_is_all_that_stdout_carries(call, plan_path, arguments):
    """--json prints one object with its schema's version, and neither NaN nor a word of talk."""
    arguments = [plan_path if argument == "PLAN" else argument for argument in arguments]
    code, out, err = call(*arguments, "--json")
    assert code == 0
    assert json.loads(out, parse_constant=pytest.fail)["schema_version"] == 1
    assert "Traceback" not in err
    assert call(*arguments, "--format", "json", "--quiet")[2] == ""


def test_results_carry_where_their_inputs_come_from(call, plan_path):
    """Each result names its inputs with a content hash, and the tool's version."""
    for arguments in (("search", *BASE), ("estimate", *BASE), ("explain", plan_path), ("simulate", plan_path)):
        data = json.loads(call(*arguments, "--json", "--quiet")[1])
        assert data["tool_version"] == tool_version()
        assert [row["what"] for row in data["provenance"]] == ["model", "cluster", "stack"]
        assert all(re.fullmatch("[0-9a-f]{64}", row["sha256"]) for row in data["provenance"])


@pytest.mark.parametrize("command", ["search", "estimate"])
def test_csv_has_blocks_of_even_rows(call, command):
    """--format csv prints a header and rows as wide, tables apart by an empty line; the first holds the plans."""
    code, out, _ = call(command, *BASE, "--format", "csv", "--quiet")
    assert code == 0
    blocks = [list(csv.reader(io.StringIO(block))) for block in out.split("\n\n")]
    assert all(len(row) == len(block[0]) > 0 for block in blocks for row in block)
    assert blocks[0][0][:2] == ["plan", "step"]


@pytest.mark.parametrize("command", ["search", "estimate"])
def test_markdown_has_whole_tables(call, command):
    """--format md prints pipe tables whose rows have as many cells as the header, and no empty title or table."""
    code, out, _ = call(command, *BASE, "--format", "md", "--quiet")
    assert code == 0
    tables = [block.splitlines() for block in out.split("\n\n") if block.startswith("|")]
    assert len(tables) >= 3
    assert all(len({line.count("|") for line in table}) == 1 for table in tables)
    assert "****" not in out


@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1", "FORCE_COLOR": "1"}], ids=["plain", "NO_COLOR"])
def test_no_color_off_a_terminal_or_on_demand(call, monkeypatch, environment):
    """Tables hold no colour when stdout is no terminal, nor when NO_COLOR asks for none."""
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    code, out, _ = call("models", "llama3.1-8b")
    assert code == 0
    assert "8,030,261,248" in out
    assert re.search(r"\x1b\[[0-9;]*(3|4|9)[0-9]", out) is None
    assert environment or "\x1b" not in out


def test_search_writes_three_files(call, tmp_path):
    """--out holds plan.json, plans.csv and report.html and nothing else; the talk about it goes to stderr."""
    code, out, err = call("search", *BASE, "--json", "--out", tmp_path / "new" / "folder")
    folder = tmp_path / "new" / "folder"
    assert code == 0
    assert {path.name for path in folder.iterdir()} == SEARCHED
    assert "wrote plan.json" in err
    best = json.loads(out)["plans"][0]
    assert json.loads((folder / "plan.json").read_text(encoding="utf-8"))["estimate"] == best
    rows = list(csv.DictReader(io.StringIO((folder / "plans.csv").read_text(encoding="utf-8"))))
    assert [row["plan"] for row in rows] == [str(number) for number in range(1, 11)]
    assert rows[0]["tp"] == str(best["strategy"]["tp"])


def test_the_same_inputs_give_the_same_bytes(call, tmp_path):
    """plan.json of a search is byte-identical in another process with another hash seed."""
    assert call("search", *BASE, "--quiet", "--out", tmp_path / "a")[0] == 0
    arguments = ["search", *BASE, "--quiet", "--out", str(tmp_path / "b")]
    fresh(f"from planner.cli import main; assert main({arguments!r}) == 0", PYTHONHASHSEED="7")
    assert (tmp_path / "a" / "plan.json").read_bytes() == (tmp_path / "b" / "plan.json").read_bytes()


def test_a_plan_goes_through_all_that_reads_one(call, plan_path, tmp_path):
    """The plan.json of an estimate is explained, replayed (with a trace) and reported."""
    assert call("explain", plan_path)[0] == 0
    assert call("simulate", plan_path, "--trace", tmp_path / "trace.json")[0] == 0
    assert len(json.loads((tmp_path / "trace.json").read_text(encoding="utf-8"))["traceEvents"]) > 100
    assert call("report", plan_path, "--out", tmp_path / "page" / "r.html")[0] == 0
    assert (tmp_path / "page" / "r.html").read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize("command", ["search", "estimate", "capacity"])
def test_dry_run_checks_and_writes_nothing(call, tmp_path, monkeypatch, command):
    """--dry-run says that the inputs are good, prints no data and writes no file."""
    monkeypatch.chdir(tmp_path)
    code, out, err = call(command, *BASE, "--dry-run", "--out", "out")
    assert (code, out) == (0, "")
    assert err.strip()
    assert list(tmp_path.iterdir()) == []
    assert call(command, "no-such-model", *BASE[1:], "--dry-run")[0] == 3


def test_dry_run_of_a_report_writes_nothing(call, plan_path, tmp_path, monkeypatch):
    """`plan report --dry-run` leaves no page."""
    monkeypatch.chdir(tmp_path)
    assert call("report", plan_path, "--dry-run")[:2] == (0, "")
    assert list(tmp_path.iterdir()) == []


def test_interrupted(call, tmp_path, monkeypatch):
    """Control-C ends with 130 and a sentence; nothing is printed and nothing half-written is left."""

    def stop(queries):
        raise KeyboardInterrupt

    monkeypatch.setattr("planner.commands.search.search_sizes", stop)
    code, out, err = call("search", *BASE, "--out", tmp_path / "out")
    assert (code, out) == (130, "")
    assert "interrupted" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["models", "--json"], ["hardware", "h100-sxm"], ["--help"]], ids=" ".join)
def test_a_reader_that_leaves_is_no_error(arguments):
    """A closed pipe (`plan models | head -1`) ends quietly."""
    shut = "import os, sys; r, w = os.pipe(); os.close(r); os.dup2(w, 1); "
    assert fresh(shut + f"from planner.cli import main; sys.exit(main({arguments!r}))").stderr == ""


def test_a_failed_write_leaves_the_old_file(call, plan_path, tmp_path, monkeypatch):
    """When writing breaks down midway, the file that was there stays whole and no other is left beside it."""
    target = tmp_path / "plan.json"
    target.write_text("old", encoding="utf-8")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("planner.files.Path.replace", full)
    code, out, err = call("estimate", *BASE, "--json", "--out", target)
    assert (code, out) == (3, "")
    assert "No space left on device" in err
    assert [(path.name, path.read_text(encoding="utf-8")) for path in tmp_path.iterdir()] == [("plan.json", "old")]
