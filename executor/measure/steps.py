"""A proxy trained for some steps, measured: what each rank did in each step, as the record of a run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import torch

from executor.measure.proxies import Proxy
from executor.phases import Work, events, phases, work
from executor.ranks import Ranks
from executor.spans import Recorder, recording
from planner.plan import plan_json
from planner.record import Event, Record, Step

WARM_UP = 3


@dataclass(frozen=True)
class RankSteps:
    """The timed steps of one rank: wall and CPU time [s], loss, work by phase, and the events of the median step."""

    wall: tuple[float, ...]
    cpu: tuple[float, ...]
    loss: tuple[float, ...]
    work: tuple[Work, ...]
    events: tuple[Event, ...]


def train(proxy: Proxy, steps: int, device: str) -> RankSteps:
    """Train on this rank of an initialised process group; the first steps are not timed."""
    from executor.trainer import Trainer  # noqa: PLC0415  the pool's parent reads this module without it

    plan = proxy.plan()
    setting = plan.setting
    trainer = Trainer(setting.model, plan.degrees, setting.choices, setting.workload, device=device, seed=0)
    generator = torch.Generator().manual_seed(0)
    shape = (setting.workload.global_batch, setting.workload.seq_len + 1)
    tokens = torch.randint(setting.model.vocab, shape, generator=generator)[list(trainer.rows)]
    wait = torch.cuda.synchronize if device == "cuda" else _nothing
    wall, cpu, loss, done, spans = [], [], [], [], []
    for _ in range(WARM_UP + steps):
        torch.distributed.barrier()
        with recording(Recorder(wait)) as recorder:
            started, used = time.perf_counter(), time.process_time()
            loss.append(trainer.step(tokens))
            wait()
            cpu.append(time.process_time() - used)
            wall.append(time.perf_counter() - started)
        done.append(work(recorder.spans, device))
        spans.append((started, tuple(recorder.spans)))
    timed = range(WARM_UP, WARM_UP + steps)
    middle = sorted(timed, key=lambda index: cpu[index])[steps // 2]
    drawn = events(torch.distributed.get_rank(), spans[middle][1], spans[middle][0])
    cut = slice(WARM_UP, None)
    return RankSteps(tuple(wall[cut]), tuple(cpu[cut]), tuple(loss[cut]), tuple(done[cut]), tuple(drawn))


def measure(proxy: Proxy, pool: Ranks, steps: int, device: str = "cpu") -> Record:
    """Train `proxy` on the ranks of a pool for `steps` timed steps."""
    ranks: list[RankSteps] = pool.run(train, proxy, steps, device, ranks=proxy.ranks)
    return record(proxy, ranks)


def record(proxy: Proxy, ranks: Sequence[RankSteps]) -> Record:
    """What the ranks report of the calmer half of the steps; a step takes as long as its slowest rank."""
    calm = calmer_half([rank.cpu for rank in ranks])
    steps = tuple(
        Step(i, ranks[0].loss[i], max(rank.wall[i] for rank in ranks), tuple(rank.cpu[i] for rank in ranks))
        for i in calm
    )
    return Record(
        "measured",
        plan_json(proxy.plan()),
        proxy.ranks,
        steps,
        phases([[rank.work[i] for i in calm] for rank in ranks], pipelined=int(proxy.degrees.pp) > 1),
        (),
        events=tuple(event for rank in ranks for event in rank.events),
    )


def calmer_half(cpu: Sequence[Sequence[float]]) -> list[int]:
    """The steps, in order, with the least CPU time of all ranks [rank][step]: what disturbs a step only adds to it."""
    total = [sum(rank[i] for rank in cpu) for i in range(len(cpu[0]))]
    ranked = sorted(range(len(total)), key=lambda i: total[i])
    return sorted(ranked[: max((len(total) + 1) // 2, 1)])


def spread(record: Record) -> float:
    """Interquartile range of the CPU time of the steps over its median."""
    sums = sorted(sum(step.cpu_s) for step in record.steps)
    return (sums[(3 * len(sums)) // 4] - sums[len(sums) // 4]) / median(sums)


def _nothing() -> None:
    """A CPU has no queue to wait for."""
