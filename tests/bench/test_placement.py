"""Placements beside EPLB's, on held-out tokens: `make bench-placement` prints the table.

Made-up traces always; real ones when PLACEMENT_TRACES names a folder of .npz files. Figures to read, beside the aims.
"""

import time
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest

from planner.placement.base import Expert, Grid, Metrics, Rates, Trace
from planner.placement.bounds import balance_bound
from planner.placement.evaluate import measure
from planner.placement.joint import Tokens, balanced, tokens_of
from planner.placement.portfolio import members, place
from planner.placement.replicas import bound_level
from planner.placement.scenario import SCENARIOS, Router, make
from planner.placement.series import follow
from planner.placement.split import least, poured, serve
from planner.placement.task import MOST_MOVES, Task
from tests.bench import traces

BOUNDS = {
    "nodes_per_token": "however replicas serve",
    "nodes_per_token_alike": "with replicas in turn and nodes no fuller",
}
SMALL, LARGE = Expert(2048, 1408), Expert(7168, 2048)
LINE = "{:<34} {:>7} {:>7} {:>9} {:>9} {:>9}   {}"
HEAD = LINE.format("case, held-out tokens", "balance", "nodes", "NIC MB", "a2a µs", "layer µs", "algorithm, aim")


class Case(NamedTuple):
    """A cluster with its slots, and what to reach there."""

    nodes: int
    gpus: int
    slots: int
    per_batch: bool
    aim: str


REAL = {
    64: (
        Case(8, 1, 64, per_batch=False, aim="nodes -22 %, NIC -17 %, layer -12 %, balance +0.02"),
        Case(8, 2, 96, per_batch=False, aim="nodes -22 %, NIC -17 %, layer -12 %, balance +0.02"),
        Case(8, 2, 96, per_batch=True, aim="NIC -22 %, layer -17 %, balance 1.005"),
        Case(4, 4, 96, per_batch=True, aim="NIC -22 %, layer -17 %, balance 1.005"),
    ),
    256: (Case(8, 4, 288, per_batch=False, aim="nodes < 0 %, balance < hierarchical, layer -9 %"),),
}


def say(text=""):
    """A line of the table."""
    print(text, flush=True)  # noqa: T201  the figure is the point


def mean(found: list[Metrics]) -> np.ndarray:
    """Balance, nodes, NIC [MB], all-to-all and layer [µs] over the layers."""
    rows = [(m.balance, m.nodes_per_token, m.nic_bytes / 1e6, m.all_to_all_s * 1e6, m.layer_s * 1e6) for m in found]
    return np.mean(rows, axis=0)


def compare(name: str, trace: Trace, task: Task, aim: str = "") -> float:
    """Print EPLB's policies, the placement, its bounds and its time; the change of the layer's time."""
    began = time.process_time()
    answers = place(trace, task)
    seconds = (time.process_time() - began) / len(answers)
    rows = {key: mean([answer.baseline[key] for answer in answers]) for key in answers[0].baseline}
    ours = mean([answer.metrics for answer in answers])
    for key, row in rows.items():
        say(LINE.format(f"{name}, {key}", *(f"{value:.3f}" for value in row[:2]), *(f"{v:.1f}" for v in row[2:]), ""))
    told = (*(f"{value:.3f}" for value in ours[:2]), *(f"{value:.1f}" for value in ours[2:]))
    say(LINE.format(f"{name}, placed", *told, answers[0].algorithm))
    for key, told in BOUNDS.items():
        found = [answer.bounds[key] for answer in answers if key in answer.bounds]
        if found:
            say(f"  nodes at least {np.mean(found):.3f} {told}: {100 * np.mean(found) / ours[1]:.1f} % of achieved")
    say(f"  {seconds:.2f} CPU s a layer, with the choice of the algorithm and the bounds")
    if not rows:
        return 0.0
    best = min(rows.values(), key=lambda row: row[4])
    gain = (ours[0] - best[0], *(ours[1:] / best[1:] - 1))
    shown = (f"{gain[0]:+.3f}", *(f"{100 * part:+.1f} %" for part in gain[1:]))
    say(LINE.format("  against the better of them", *shown, aim))
    if task.per_batch:
        _splits(trace, task, [answer.placement for answer in answers], best[4])
    return float(gain[4])


def _splits(trace: Trace, task: Task, placements: list, best: float) -> None:
    """The linear program with one planner for the batch, beside what each rank can do alone."""
    _, test = trace.halves(task.seed)
    for name, split, ranks in (("LP, one planner", least, 1), ("water-filling, each rank", poured, task.grid.gpus)):
        found = []
        for layer, placement in enumerate(placements):
            ids = test.ids[layer]
            quota = split(placement, np.bincount(ids.ravel(), minlength=task.experts).astype(float), task.grid.gpus)
            slots = serve(placement, ids, test.src, quota, task.grid.gpus_per_node, ranks)
            found.append(measure(slots, placement, test.src, task.grid, task.rates, task.expert))
        row = mean(found)
        say(f"  {name}: balance {row[0]:.3f}, layer {row[4]:.1f} µs ({100 * (row[4] / best - 1):+.1f} %)")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("groups", [1, 8], ids=["free", "groups"])
def test_made_up_traces(name, groups):
    """256 experts, 8 a token, on 8 nodes of 4 GPUs with 288 slots: never slower than EPLB beyond noise."""
    grid = Grid(8, 4)
    trace = make(name, Router(256, 8, groups, max(groups // 2, 1)), grid, 2, 65_536)
    say(f"\n{HEAD}")
    gain = compare(f"{name} {groups} groups", trace, Task(288, grid, Rates(), LARGE, 256, groups))
    assert gain <= 0.01


@pytest.mark.timeout(1800)
@pytest.mark.skipif(not traces.FOLDER, reason="PLACEMENT_TRACES names no folder of real traces")
def test_real_traces():
    """Every case of the aims on the traces there are."""
    found = traces.real()
    say(f"\n{HEAD}")
    for name, series in found.items():
        trace = series[-1]
        groups = traces.router_groups(trace)
        for case in REAL.get(trace.experts, ()):
            grid, expert = Grid(case.nodes, case.gpus), SMALL if trace.experts == 64 else LARGE
            task = Task(case.slots, grid, Rates(), expert, trace.experts, groups, per_batch=case.per_batch)
            title = f"{name} {case.nodes}x{case.gpus} {case.slots}{' split' if case.per_batch else ''}"
            gain = compare(title, traces.dealt(trace, grid.gpus), task, case.aim)
            assert gain <= 0.005
    assert found


def follow_and_say(name: str, series: list[Trace], task: Task) -> None:
    """Print each step of a drifting series: to keep, to re-plan warm, to plan anew; and what each would move."""
    answers, steps = follow(series, task)
    say(f"\n{name}: {len(series)} traces, horizon {task.horizon:.0e} passes")
    say("trace   keep µs   warm µs   cold µs   share of the cold gain   slots moved between nodes")
    for number, (trace, step) in enumerate(zip(series[1:], steps, strict=True), start=1):
        cold = np.mean([answer.metrics.layer_s for answer in place(trace, task)])
        gain = (step.keep_s - step.replan_s) / (step.keep_s - cold) if step.keep_s > cold else 1.0
        say(f"{number:>5} {1e6 * step.keep_s:>9.1f} {1e6 * step.replan_s:>9.1f} {1e6 * cold:>9.1f} "
            f"{100 * gain:>18.0f} % {step.between_nodes:>15.0f} of {task.slots}"
            f"{'   re-planned' if step.replanned else '   kept'}")  # fmt: skip
    assert len(answers) == series[0].ids.shape[0]


@pytest.mark.timeout(900)
def test_along_a_drift():
    """Zipf and then its drifted successor: aims are a third of the slots at most, at nine tenths of the cold gain."""
    grid = Grid(8, 2)
    series = [make(name, Router(64, 6), grid, 2, 32_768) for name in ("zipf", "drift")]
    follow_and_say("drift", series, Task(96, grid, Rates(), SMALL, 64))


@pytest.mark.timeout(1800)
@pytest.mark.skipif(not traces.FOLDER, reason="PLACEMENT_TRACES names no folder of real traces")
def test_along_checkpoints():
    """The same along the checkpoints of a real training."""
    grid = Grid(8, 4)
    for name, series in traces.real().items():
        if len(series) > 1:
            groups = traces.router_groups(series[-1])
            task = Task(288, grid, Rates(), LARGE, series[0].experts, groups)
            follow_and_say(name, [traces.dealt(trace, grid.gpus) for trace in series], task)


@pytest.mark.parametrize(
    ("experts", "slots", "nodes", "gpus"),
    [(64, 64, 1, 8), (64, 96, 1, 8), (256, 288, 4, 8), (256, 320, 4, 8), (256, 288, 8, 32)],
)
def test_balance_of_the_plan(experts, slots, nodes, gpus):
    """Loads alone, log-normal: the plan's balance over its lower bound, aim 1.002 from 8 slots a GPU on."""
    grid, found = Grid(nodes, gpus), []
    for seed in range(8):
        load = np.random.default_rng(seed).lognormal(0.0, 0.7, experts)
        made = balanced(Tokens(np.zeros((1, 2), dtype=np.int64), load), slots, grid)
        fill = np.bincount(made.slot_gpu, weights=load[made.slot_expert] * made.share, minlength=grid.gpus)
        found.append(fill.max() / fill.mean() / balance_bound(load, slots, grid.gpus))
    title = f"{experts} experts, {slots} slots, {grid.gpus} GPUs"
    say(f"{title}: {np.mean(found):.4f} times the bound, {max(found):.4f} at most")
    assert min(found) >= 1.0 - 1e-9
    assert slots < 8 * grid.gpus or max(found) <= 1.002


@pytest.mark.timeout(600)
def test_speed():
    """60 layers of 384 experts on 768 slots and 384 GPUs: balance alone, then the search on one layer."""
    grid, rng = Grid(48, 8), np.random.default_rng(0)
    trace = make("zipf", Router(384, 8), grid, 1, 16_384)
    tokens = tokens_of(trace.ids[0], 384, 0)
    loads = [rng.lognormal(0.0, 0.5, 384) for _ in range(60)]
    began = time.process_time()
    made = [balanced(replace(tokens, load=load), 768, grid) for load in loads]
    seconds = time.process_time() - began
    over = [
        np.bincount(p.slot_gpu, weights=load[p.slot_expert] * p.share, minlength=384).max()
        / max(bound_level(load, 768), load.sum() / 384)
        for p, load in zip(made, loads, strict=True)
    ]
    say(f"\nbalance alone, 60 layers: {seconds:.2f} CPU s (aim 1 s), {np.mean(over):.3f} times the bound")
    task = Task(768, grid, Rates(), LARGE, 384)
    warm = replace(task, old=(made[0],))
    for name, asked, aim in (("joint 0/1", task, 3.0), ("warm 0/1", warm, 0.5)):
        members(tokens, asked, 0, 10)[name]()  # compiled before it is timed
        began = time.process_time()
        members(tokens, asked, 0, MOST_MOVES)[name]()
        say(f"{name}, one layer: {time.process_time() - began:.2f} CPU s (aim {aim} s)")
    assert len(made) == 60
