import json
import os
import signal
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from executor.commands.run import command
from executor.saved import found
from planner.cli import main
from planner.commands.output import to_json
from planner.errors import InputError
from planner.plan import plan_json
from planner.record import Record
from planner.strategy import Choices
from tests.executor.runs import plan

SMALL = ("--hidden", "32", "--layers", "2", "--seq-len", "32", "--ranks", "2")


@pytest.fixture
def plan_file(tmp_path):
    """The plan.json of a plan for 1,024 GPUs."""
    path = tmp_path / "plan.json"
    made = plan("kimi-k2", choices=Choices(schedule="interleaved"), pp=8, vpp=2, ep=8)
    path.write_text(to_json(plan_json(made)), encoding="utf-8")
    return path


def test_a_dry_run_shows_the_proxy_and_writes_nothing(plan_file, tmp_path, monkeypatch):
    """What is kept and given up, as a table and as JSON, without torch and without a file."""
    monkeypatch.setattr("executor.commands.run.available", lambda: False)
    shown = CliRunner().invoke(command, [str(plan_file), "--dry-run", "--out", str(tmp_path / "new")])
    assert shown.exit_code == 0
    assert "pp = 8 across the pod -> 2" in shown.output
    assert "precision bf16 -> fp32" in shown.output
    found_json = json.loads(CliRunner().invoke(command, [str(plan_file), "--dry-run", "--json"]).output)
    assert found_json["small"]["strategy"]["schedule"] == "interleaved"
    assert found_json["large"]["strategy"]["world"] == 1024
    assert {path.name for path in tmp_path.iterdir()} == {"plan.json"}


def test_without_torch_the_way_to_get_it_is_told(plan_file, monkeypatch):
    """One sentence, not a traceback."""
    monkeypatch.setattr("executor.commands.run.available", lambda: False)
    with pytest.raises(InputError, match=r"torch: is not installed: pip install 'myriad-planner\[executor\]'"):
        command.callback(**arguments(plan_file))


def arguments(plan_file, **given):
    """The command's arguments as click gives them, defaults where nothing is given."""
    context = command.make_context("run", [str(plan_file)])
    return {**context.params, **given}


@pytest.mark.parametrize(
    ("words", "environment", "told"),
    [
        (["--resume"], {}, "--resume: needs --out DIR"),
        (["--checkpoint-every", "5"], {}, "--checkpoint-every: needs --out DIR"),
        (["--checkpoint-every", "5", "--resume"], {}, "--resume: needs --out DIR"),
        (["--ranks", "3"], {}, "multiple of the node's 2 GPUs"),
        (["--device", "cuda"], {}, "no GPU that torch can use"),
        (["--ranks", "0"], {}, "--ranks is '0': expected a whole number"),
        (["--ranks", "5000"], {}, "--ranks is '5000'"),
        (["--check"], {"WORLD_SIZE": "2"}, "--check: needs a process of its own"),
        (["--max-restarts", "1"], {"WORLD_SIZE": "2"}, "--max-restarts: is torchrun's to do"),
    ],
)
def test_what_can_not_be_done_is_told_before_it_is_tried(plan_file, capsys, monkeypatch, words, environment, told):
    """Exit 3 with the option and what it needs."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
        for other in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
            monkeypatch.setenv(other, "0")
    assert main(["run", str(plan_file), *words]) == 3
    assert told in capsys.readouterr().err


def test_a_file_that_is_no_plan_is_told(tmp_path, capsys):
    """As for every command that reads a plan."""
    assert main(["run", str(tmp_path / "none.json")]) == 3
    assert "write one with `plan search --out DIR`" in capsys.readouterr().err


def test_the_whole_command(root, plan_file, tmp_path):
    """JSON on stdout is record.json; SIGTERM later saves and exits with 130."""
    out = tmp_path / "out"
    words = [sys.executable, "-m", "executor.commands.run", str(plan_file), *SMALL, "--out", str(out), "--json"]
    first = subprocess.run(
        [*words, "--steps", "6", "--checkpoint-every", "3"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    record = Record.from_json(json.loads(first.stdout))
    assert record == Record.from_json(json.loads((out / "record.json").read_text(encoding="utf-8")))
    assert first.stderr == f"wrote record.json, proxy.json and proxy.toml to {out}\n"
    more = [*words, "--steps", "100000", "--checkpoint-every", "3", "--resume"]
    with subprocess.Popen(more, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and found(out / "checkpoints")[0].step <= 6:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGTERM)
        printed, talk = process.communicate()
    last = json.loads(printed)["steps"][-1]["step"]
    assert process.returncode == 130
    assert f"stopped by a signal after step {last}" in talk
    assert found(out / "checkpoints")[0].step == last
