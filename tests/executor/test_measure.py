"""Measuring for real, in a hurry: rows of every kind, agreed among ranks, and a calibration from start to end."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from click.testing import CliRunner  # noqa: E402

from executor import calibrate  # noqa: E402
from executor.measure import clock, machine, quiet, sweeps  # noqa: E402
from executor.measure.kernels import Sweep  # noqa: E402
from executor.measure.measurement import COLLECTIVES, SIZES  # noqa: E402
from executor.measure.proxies import PROXIES, QUICK, chosen  # noqa: E402
from executor.measure.steps import RankSteps, calmer_half, record, train  # noqa: E402
from executor.measure.work import collective_rows, kernel_rows  # noqa: E402
from executor.ranks import Ranks  # noqa: E402
from hwprofiles import calibration  # noqa: E402
from planner.cli import main, plan  # noqa: E402

SAMPLES = Path(__file__).parent / "samples"
TINY = Sweep(
    matmul=((32, 32, 32), (128, 128, 64)),
    grouped=((2, 16, 32, 32), (4, 32, 32, 32), (4, 64, 64, 32)),
    attention=((1, 2, 64, 32), (1, 2, 128, 32)),
    memory=(2**20, 2**22),
    budget=0.002,
)


@pytest.fixture(scope="module")
def pool():
    """Two ranks that serve all tests of this file."""
    with Ranks(2) as ranks:
        yield ranks


def tiny(name):
    """A training of the list, made so small that it takes milliseconds."""
    proxy = next(proxy for proxy in PROXIES if proxy.name == name)
    shape = replace(proxy.model, hidden=64, heads=4, ffn=96, vocab=64)
    return replace(proxy, model=shape, seq_len=16)


@pytest.fixture
def hurry(monkeypatch):
    """Three small trainings and a few kernels stand for the whole."""
    small = [tiny(name) for name in ("1 dense, micro-batch 2", "2 pp, 1f1b", "2 pp, gpipe")]
    monkeypatch.setattr(calibrate, "chosen", lambda ranks, *, quick: [p for p in small if p.ranks <= ranks])
    monkeypatch.setattr(calibrate, "sweep", lambda device, *, quick: TINY)
    monkeypatch.setattr(calibrate, "volumes", lambda device, *, quick: (2**10, 2**18))
    monkeypatch.setattr(calibrate, "STEPS_QUICK", 2)


def test_kernels_are_timed_with_their_sizes(pool):
    """Every kind of the sweep, by CPU time, with positive times and the sizes that its law needs."""
    rows = pool.run(kernel_rows, TINY, "fp32", "cpu", "a core", ranks=1)[0]
    assert {row.kind for row in rows} == {
        "peak", "matmul", "grouped_matmul", "attention", "attention_backward", "copy", "pointwise", "launch",
    }  # fmt: skip
    assert len(rows) == TINY.size + 3 * len(TINY.matmul) - len(TINY.matmul) + len(TINY.attention) + len(TINY.memory) + 1
    for row in rows:
        assert row.seconds > 0
        assert (row.clock, row.dtype, row.name) == ("cpu", "fp32", "a core")
        assert set(row.sizes) == set(SIZES[row.kind])


def test_collectives_are_timed_alike_on_all_ranks(pool):
    """Each rank has the same rows: the mean over ranks, for every collective and size."""
    first, second = pool.run(collective_rows, (2**10, 2**16), "cpu", "a core", ranks=2)
    assert first == second
    assert [row.kind for row in first] == [kind for _ in range(2) for kind in COLLECTIVES]
    assert {(row["ranks"], row["stride"]) for row in first} == {(2.0, 1.0)}


def test_the_least_counts_on_a_core_and_the_median_on_a_gpu():
    """A disturbance only adds to CPU time; a device's events scatter both ways."""
    samples = [3.0, 1.0, 2.0, 9.0, 2.5]
    assert clock.summary(samples, "cpu").seconds == 1.0
    device = clock.summary(samples, "cuda")
    assert (device.seconds, device.clock, device.repeats) == (2.5, "device", 5)
    assert device.spread == pytest.approx((3.0 - 2.0) / 2.5)


def test_a_busy_loop_takes_the_time_it_takes():
    """A call of known CPU time is timed within a factor that no machine breaks."""
    timing = clock.time_call(lambda: sum(range(20_000)), budget=0.01)
    assert 1e-5 < timing.seconds < 1e-1
    assert timing.repeats >= clock.LEAST


def test_a_trained_proxy_is_a_record(pool):
    """Steps with loss, wall and CPU time of each rank, phases of a pipeline, events on both ranks."""
    proxy = tiny("2 pp, 1f1b")
    ranks = pool.run(train, proxy, 3, "cpu")
    found = record(proxy, ranks)
    assert (found.origin, found.ranks, len(found.steps)) == ("measured", 2, 2)
    assert found.steps[-1].loss < found.steps[0].loss
    assert found.phases.forward > 0
    assert found.phases.collectives["pipeline"] > 0
    assert found.phases.bubble > 0
    assert {event.rank for event in found.events} == {0, 1}
    assert found.plan["estimate"]["strategy"]["schedule"] == "1f1b"


def test_the_calmer_half_of_the_steps_counts():
    """Steps in order, those with the least CPU time of all ranks together."""
    assert calmer_half([[5.0, 1.0, 2.0, 9.0], [1.0, 1.0, 1.0, 1.0]]) == [1, 2]
    steps = RankSteps((1.0,), (1.0,), (2.0,), (), ())
    assert calmer_half([steps.cpu]) == [0]


def test_patience_waits_for_quiet_and_has_an_end():
    """It looks until others are quiet or the time is up, and remembers what it then saw."""
    seen = iter([1.5, 1.0, 0.1])
    patient = quiet.Patience(60.0)
    patient.wait(lambda: next(seen))
    assert patient.seen == [0.1]
    hasty = quiet.Patience(0.6)
    hasty.wait(lambda: 2.0)
    hasty.wait(lambda: 1.0)
    assert hasty.seen == [2.0, 1.0]
    assert hasty.disturbance == 1.5


def test_cores_in_use_are_what_the_kernel_counts():
    """Seconds of CPU over seconds of the clock; nothing where the system has no count."""
    counts = iter([10.0, 10.0 + 3 * quiet.WINDOW])
    assert quiet.others(lambda: next(counts), lambda _: None) == pytest.approx(3.0)
    assert quiet.others(lambda: None, lambda _: None) == 0.0


def test_whole_families_are_held_out():
    """Half of the trainings is fitted, half is not; two schedules, a depth and pairs of axes are never seen."""
    fitted = [proxy for proxy in PROXIES if proxy.fitted]
    unseen = [proxy for proxy in PROXIES if not proxy.fitted]
    assert len(PROXIES) >= 24
    assert abs(len(fitted) - len(unseen)) <= 2
    assert {proxy.choices.schedule for proxy in fitted} == {"1f1b", "zb-h1"}
    assert {proxy.choices.schedule for proxy in unseen} >= {"gpipe", "interleaved"}
    assert not {proxy.model.name for proxy in fitted} & {"deep", "grouped", "many", "latent"}
    assert not any(int(proxy.degrees.pp) > 1 and proxy.ranks > int(proxy.degrees.pp) for proxy in fitted)
    for proxy in PROXIES:
        proxy.plan().check()
    assert {proxy.name for proxy in PROXIES} >= QUICK
    assert len(chosen(1, quick=False)) < len(chosen(2, quick=False)) < len(chosen(4, quick=False))


def test_sweeps_have_what_the_fits_need():
    """Quick and full, on both devices: enough shapes for each law, the step's type first."""
    for device in ("cpu", "cuda"):
        quick, full = sweeps.sweep(device, quick=True), sweeps.sweep(device, quick=False)
        assert 10 <= len(quick.matmul) < len(full.matmul)
        assert len(quick.grouped) >= 3
        assert len(quick.attention) >= 3
        assert len(quick.memory) >= 2
        assert sweeps.dtypes(device, quick=True)[0] == sweeps.dtypes(device, quick=False)[0]
        assert len(sweeps.volumes(device, quick=True)) < len(sweeps.volumes(device, quick=False))


@pytest.mark.usefixtures("hurry")
def test_the_command_measures_fits_checks_and_writes(tmp_path):
    """A calibration that loads, rows that load, and a check on a plan that the fit has not seen."""
    out, rows = tmp_path / "here.toml", tmp_path / "rows.jsonl"
    arguments = ["calibrate", "--ranks", "2", "--quick", "--device", "cpu", "--json", "--quiet", "--patience", "0"]
    result = CliRunner().invoke(plan, [*arguments, "--out", str(out), "--rows", str(rows)])
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    made = calibration.load(out)
    assert made.machine["gpu"] == "x86-core"
    assert made.machine["torch"] == torch.__version__
    assert made.stack_name == data["stack"]["name"] == "torch-eager"
    assert {"kernel_gap", "pointwise_traffic", "gradient_overlap", "scatter_by_reduce"} <= made.stack.keys()
    assert made.numbers["node.gpus"].value == machine.cores()
    assert {"matmul.fp32", "network.scale_up", "stack", "step.held_out"} <= made.residuals.keys()
    checks = {check["name"]: check for check in data["checks"]}
    assert [checks[name]["fitted"] for name in ("2 pp, 1f1b", "2 pp, gpipe")] == [True, False]
    assert {"predicted_s", "measured_s", "uncalibrated_s", "interval_s"} <= checks["2 pp, gpipe"]["step"].keys()
    assert data["summary"]["2"]["held_out"]["n"] == 1
    assert data["measurements"] == len(rows.read_text().splitlines())


def test_measurements_of_others_calibrate_a_cluster(tmp_path, capsys):
    """nccl-tests and a trace fit what they show; what they don't is named; torch is not needed."""
    out = tmp_path / "lab.toml"
    arguments = ["calibrate", "--cluster", "h100-superpod", "--out", str(out)]
    files = [
        word for name in ("all_reduce.txt", "alltoall.json", "trace.json") for word in ("--from", str(SAMPLES / name))
    ]
    assert main([*arguments, *files]) == 0
    told = capsys.readouterr()
    assert "left out: matmul.bf16: 1 rows, at least 4 are needed" in told.err
    assert "node.scale_up_bandwidth" in told.out
    assert calibration.load(out).machine == {"gpu": "h100-sxm", "measured on": "Imaginary H900"}


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--from", str(SAMPLES / "alltoall.json")], "--cluster"),
        (["--from", str(SAMPLES / "megatron.log"), "--cluster", "h100-node"], "training log"),
        (["--from", str(SAMPLES / "trace.json"), "--cluster", "h100-node"], "more rows are needed"),
        (["--cluster", "h100-nodee", "--dry-run"], "h100-node"),
        (["--ranks", "0"], "--ranks"),
    ],
)
def test_bad_input_is_one_sentence(arguments, word, capsys):
    """Exit 3, the place and what to do."""
    assert main(["calibrate", *arguments]) == 3
    assert word in capsys.readouterr().err


def test_without_torch_it_says_what_to_install(monkeypatch, capsys):
    """No traceback of an import."""
    monkeypatch.setattr("executor.commands.calibrate.available", lambda: False)
    assert main(["calibrate"]) == 3
    assert "pip install 'myriad-planner[executor]'" in capsys.readouterr().err


def test_a_dry_run_says_what_it_would_do(capsys):
    """And measures nothing."""
    assert main(["calibrate", "--dry-run", "--device", "cpu", "--ranks", "2", "--quick"]) == 0
    assert "16 trainings" in capsys.readouterr().err
