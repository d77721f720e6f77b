"""Predicted beside measured: phases, both clocks, intervals, traces, and the command around them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from executor.compare import compare, measured_log, measured_record, phase_times, side_by_side, worst
from executor.importers import Log, LogStep
from executor.measure.proxies import PROXIES
from planner.cli import main, plan
from planner.errors import InputError
from planner.plan import plan_json, prepare
from planner.record import Phases, Step
from planner.simulate.phases import simulated
from planner.strategy import Choices, Degrees, Workload

SAMPLES = Path(__file__).parent / "samples"
BY_NAME = {proxy.name: proxy for proxy in PROXIES}


@pytest.fixture(scope="module")
def piped():
    """A plan of two stages on this machine's profile."""
    return BY_NAME["2 pp, 1f1b"].plan()


@pytest.fixture
def files(tmp_path):
    """A catalogue model on two CPU ranks: plan.json, and the record of a run a tenth slower than predicted."""
    made = prepare("qwen3-0.6b", "cpu-loopback", 2, Workload(128, 4, 1e6), Choices(precision="fp32"), "torch-eager")
    made = replace(made, degrees=Degrees(2, pp=2))
    (tmp_path / "plan.json").write_text(json.dumps(plan_json(made)))
    (tmp_path / "record.json").write_text(json.dumps(slower(simulated(made), 1.1).to_json()))
    return tmp_path


def slower(record, factor):
    """The same step, measured, `factor` times as long in all it does."""
    phases = record.phases
    stretched = Phases(
        phases.forward * factor,
        phases.backward * factor,
        phases.optimizer * factor,
        {name: seconds * factor for name, seconds in phases.collectives.items()},
        phases.bubble * factor,
    )
    steps = tuple(replace(s, wall_s=s.wall_s * factor, cpu_s=tuple(c * factor for c in s.cpu_s)) for s in record.steps)
    return replace(record, origin="measured", steps=steps, phases=stretched)


def test_a_run_that_is_as_predicted_has_no_error(piped):
    """Every row and the step, by either clock."""
    found = simulated(piped)
    for clock in ("cpu", "wall"):
        data = compare(piped, measured_record(found, clock))
        assert data["step"]["error"] == pytest.approx(0.0)
        assert all(row["error"] == pytest.approx(0.0) for row in data["rows"])


def test_every_phase_tells_its_own_error(piped):
    """A run a quarter slower: each phase was predicted a fifth too low."""
    data = compare(piped, measured_record(slower(simulated(piped), 1.25), "cpu"))
    assert data["clock"] == "cpu"
    assert {row["phase"] for row in data["rows"]} >= {"forward", "backward", "pipeline", "optimizer", "bubble", "host"}
    assert all(row["error"] == pytest.approx(-0.2) for row in data["rows"])
    assert worst(data["rows"])["phase"] == "backward"


def test_phases_and_the_host_make_the_step(piped):
    """Without the bubble on the CPU clock, with it on the wall clock."""
    found = simulated(piped)
    times = measured_record(found, "cpu").phases
    assert sum(seconds for name, seconds in times.items() if name != "bubble") == pytest.approx(
        found.steps[0].cpu_s[0], rel=0.1
    )
    assert phase_times(found.phases, 0.0, "wall")["host"] == 0.0


def test_the_share_of_bubble_is_compared(piped):
    """A run that waits twice as long has the larger share; without a pipeline there is none."""
    base = simulated(piped)
    waiting = replace(base, phases=replace(base.phases, bubble=2 * base.phases.bubble))
    found = compare(piped, measured_record(waiting, "wall"))["bubble"]
    assert 0.0 < found["predicted"] < found["measured"] < 1.0
    assert found["difference"] == pytest.approx(found["predicted"] - found["measured"])
    alone = BY_NAME["1 dense"].plan()
    assert compare(alone, measured_record(simulated(alone), "cpu"))["bubble"] is None


def test_first_steps_do_not_count(piped):
    """Two of six are left out, and the median of the rest stands for the run."""
    base = simulated(piped)
    steps = tuple(Step(i, 1.0, wall, (wall, wall)) for i, wall in enumerate((90.0, 80.0, 1.0, 2.0, 3.0, 9.0)))
    assert measured_record(replace(base, steps=steps), "wall").step == 2.5
    with pytest.raises(InputError, match="at least one step"):
        measured_record(replace(base, steps=()), "cpu")


def test_the_interval_is_that_of_runs_the_fit_has_not_seen(piped):
    """A mean error of 5 % makes a 90 % interval of about 10 % on both sides."""
    data = compare(piped, measured_record(simulated(piped), "cpu"), residual=0.05)
    low, high = (edge / data["step"]["predicted_s"] for edge in data["step"]["interval_s"])
    assert (low, high) == (pytest.approx(0.897, abs=1e-3), pytest.approx(1.103, abs=1e-3))


def test_without_a_calibration_the_interval_still_holds_the_prediction(piped):
    """The published runs' factors are taken of the time that is compared, not of the wall clock's."""
    data = compare(piped, measured_record(simulated(piped), "cpu"))
    low, high = data["step"]["interval_s"]
    assert low < data["step"]["predicted_s"] < high


def test_both_timelines_are_in_one_trace(piped):
    """Measured and predicted ranks alternate and carry their names."""
    found = simulated(piped)
    events = side_by_side(found, slower(found, 1.1))["traceEvents"]
    names = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert names == {0: "rank 0 measured", 1: "rank 0 predicted", 2: "rank 1 measured", 3: "rank 1 predicted"}
    assert sum(e["ph"] == "X" for e in events) == 2 * len(found.events)


def test_a_log_of_rates_needs_the_plans_tokens(piped):
    """Tokens of a step over tokens per second of all ranks."""
    each = piped.setting.workload.tokens_per_step / 2
    log = Log("torchtitan", (LogStep(1, 3.0, None, each / 0.5),), peak_memory_bytes=1e9)
    found = measured_log(log, piped)
    assert (found.step, found.clock, found.peak_memory_bytes) == (pytest.approx(0.5), "wall", 1e9)
    with pytest.raises(InputError, match="its time"):
        measured_log(Log("torchtitan", ()), piped)


def test_the_command_compares_a_record(files):
    """Rows, step, interval and clock as promised; the trace is written."""
    trace = files / "t.json"
    arguments = ["compare", str(files / "plan.json"), str(files / "record.json"), "--json", "--trace", str(trace)]
    result = CliRunner().invoke(plan, arguments)
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert data["step"]["error"] == pytest.approx(1 / 1.1 - 1)
    assert set(data["step"]) == {"predicted_s", "measured_s", "error", "interval_s"}
    assert data["calibration"] is None
    assert {"phase", "predicted_s", "measured_s", "error"} == set(data["rows"][0])
    assert json.loads(trace.read_text())["traceEvents"]


def test_over_the_tolerance_is_exit_5(files, capsys):
    """9.1 % off passes 10 %, fails 5 %."""
    arguments = ["compare", str(files / "plan.json"), str(files / "record.json"), "--quiet", "--tolerance"]
    assert main([*arguments, "10"]) == 0
    assert main([*arguments, "5"]) == 5
    assert "off by -9.1 %; allowed 5 %" in capsys.readouterr().err


def test_a_record_of_another_plan_is_refused(files, capsys):
    """What differs is named, so that nobody takes it for an error of the prediction."""
    record = json.loads((files / "record.json").read_text())
    record["plan"]["estimate"]["strategy"]["tp"] = 2
    (files / "record.json").write_text(json.dumps(record))
    assert main(["compare", str(files / "plan.json"), str(files / "record.json")]) == 3
    assert "the compared plan has 1" in capsys.readouterr().err


def test_a_calibration_stands_beside_the_profile(files):
    """Both predictions, and the name of the calibration."""
    (files / "lab.toml").write_text(
        'name = "lab"\ndate = "2026-11-24"\n[machine]\ngpu = "x86-core"\n[residuals]\n"step.held_out" = 0.04\n'
        '[gpu]\nhbm_efficiency = { value = 0.9, source = "measured: copies" }\n'
        '[stack]\nname = "torch-eager"\nkernel_gap = 1e-5\n'
    )
    arguments = ["compare", str(files / "plan.json"), str(files / "record.json"), "--json"]
    data = json.loads(CliRunner().invoke(plan, [*arguments, "--calibration", str(files / "lab.toml")]).stdout)
    assert data["calibration"] == "lab (2026-11-24)"
    assert data["step"]["uncalibrated_s"] != data["step"]["predicted_s"]
    assert all("uncalibrated_s" in row for row in data["rows"])


def test_the_command_reads_a_training_log(files):
    """A log of Megatron-LM has phases and memory but no timeline."""
    arguments = ["compare", str(files / "plan.json"), str(SAMPLES / "megatron.log"), "--json"]
    data = json.loads(CliRunner().invoke(plan, arguments).stdout)
    assert data["step"]["measured_s"] == pytest.approx(1.5)
    assert {row["phase"]: row["measured_s"] for row in data["rows"]}["optimizer"] == pytest.approx(0.031)
    assert data["memory"]["measured_bytes"] == 33000 * 2**20
    result = CliRunner().invoke(plan, [*arguments, "--trace", str(files / "t.json")])
    assert isinstance(result.exception, InputError)
