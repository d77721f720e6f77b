"""`plan run`: the proxy of a plan trained for real, told as a record beside what a simulation would tell.

In --out: `proxy.toml` (the model), `proxy.json` (its plan, which every command reads), `record.json`, `checkpoints/`,
and `failure.txt` when ranks failed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from executor import launch, memory
from executor.corpus import load
from executor.job import Job, Report
from executor.phases import phases
from executor.proxy import Like, Proxy, proxy
from executor.ranks import Ranks
from executor.recovery import is_ours, newest, persist, together
from executor.saved import Saved
from executor.shrink import Size, source, toml
from planner.errors import Fault, InputError
from planner.files import write
from planner.place import read_slots
from planner.plan import Plan, plan_json, provenance, strategy_json
from planner.provenance import SCHEMA_VERSION, fingerprint, tool_version
from planner.record import Check, Record, Step

WARM_UP = 3  # steps that don't count for the phases, where there are twice as many
SHARE = 0.8  # of the free memory that the ranks may plan with
CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class Options:
    """How to run: `ranks` (under torchrun: its own), `steps` in all, and what `executor.job.Job` explains.

    `out` is the folder for everything written; `check` compares with one process first; `restarts` after a failure;
    `timeout` [s] of one collective; `placement` a placement.json of the proxy's experts.
    """

    ranks: int = 4
    steps: int = 20
    device: str = "cpu"
    seed: int = 0
    learning_rate: float = 3e-3
    size: Size = field(default_factory=Size)
    out: Path | None = None
    check: bool = False
    resume: bool = False
    every: int = 0
    keep: int = 3
    restarts: int = 0
    timeout: float = 60.0
    progress: bool = False
    placement: Path | None = None

    @property
    def folder(self) -> Path | None:
        """Where checkpoints are."""
        return self.out / CHECKPOINTS if self.out else None


@dataclass(frozen=True)
class Outcome:
    """The record of a run, the proxy it trained, and whether it was asked to stop before its last step."""

    record: Record
    proxy: Proxy
    stopped: bool


def small(plan: Plan, options: Options, saved: Saved | None = None) -> Proxy:
    """The proxy that these options train; that of the checkpoint `saved` where there is one."""
    ranks = launch.world() or options.ranks
    like = None
    if saved:
        kept = saved.manifest["proxy"]
        like = Like(kept["table"], kept["seq_len"], kept["global_batch"])
    room = SHARE * memory.available() / ranks if options.device == "cpu" else None
    return proxy(plan, ranks, device=options.device, size=options.size, memory=room, like=like)


def run(plan: Plan, options: Options, pool: Ranks | None = None) -> Outcome:
    """Train the proxy of `plan` on children of this process, those of `pool` if given, and tell.

    RunFailed when a rank failed, with the checkpoint to go on from; InputError when there is nothing to go on with.
    """
    job, made = _job(plan, options)
    own = pool or Ranks(options.ranks, timeout=options.timeout, backend=launch.BACKENDS[options.device])
    try:
        check = _check(made, job, own) if options.check else None
        job, reports = persist(job, options, own, options.ranks, options.restarts)
    finally:
        if pool is None:
            own.close()
    return _outcome(made, job, reports, check, options)


def run_joined(plan: Plan, options: Options) -> Outcome | None:
    """The same on the ranks that torchrun started, on one machine or many; the outcome on rank 0, else None."""
    made: list[Proxy] = []

    def make() -> Job:
        job, found_proxy = _job(plan, replace(options, resume=options.resume or is_ours(options)))
        made.append(found_proxy)
        return job

    from executor.rendezvous import joined  # noqa: PLC0415  needs torch

    with joined(launch.BACKENDS[options.device], options.timeout) as rank:
        job, reports = together(make, options)
    return None if rank else _outcome(made[0], job, reports, None, options)


def _job(plan: Plan, options: Options) -> tuple[Job, Proxy]:
    """What the ranks are told; writes the proxy's files."""
    saved = newest(options)
    if saved and saved.manifest["proxy"]["table"]["source"] != source(plan.setting.model):
        expected = f"the checkpoint's model is {saved.manifest['proxy']['table']['source']}"
        raise InputError(Fault("--resume", expected, plan.setting.model.name))
    made = small(plan, options, saved)
    if options.out:
        made = _written(made, options.out)
    setting, degrees = made.plan.setting, made.plan.degrees
    corpus = load(setting.workload.seq_len, options.seed)
    if saved and saved.manifest["corpus"] != corpus.fingerprint:
        expected = "was trained on another text: the standard library of another version of Python"
        raise InputError(Fault(str(saved.path), expected))
    kept = {"table": made.table, "seq_len": setting.workload.seq_len, "global_batch": setting.workload.global_batch}
    job = Job(
        plan=made.plan,
        steps=options.steps,
        seed=options.seed,
        device=options.device,
        learning_rate=options.learning_rate,
        folder=options.folder,
        every=options.every,
        keep=options.keep,
        resume=saved,
        manifest={
            "schema_version": SCHEMA_VERSION,
            "run_id": launch.run_id(),
            "strategy": strategy_json(setting, degrees),
            "proxy": kept,
        },
        timeout=options.timeout,
        progress=options.progress,
        placement=read_slots(options.placement, made.plan) if options.placement else (),
    )
    return job, made


def _written(made: Proxy, out: Path) -> Proxy:
    """Write model and plan of the proxy; the plan then knows its model by that file."""
    write(out / "proxy.toml", toml(made.table))
    plan = replace(made.plan, model_name=str(out / "proxy.toml"))
    write(out / "proxy.json", json.dumps(plan_json(plan), indent=2, ensure_ascii=False) + "\n")
    return replace(made, plan=plan)


def _check(made: Proxy, job: Job, pool: Ranks) -> Check:
    """Loss and gradients of one step against one process that trains the same."""
    from executor.check import check  # noqa: PLC0415  needs torch
    from executor.parallel import Options as Ways  # noqa: PLC0415  needs torch
    from executor.parallel.expert import slots_by_layer  # noqa: PLC0415  needs torch

    setting, ways = made.plan.setting, Ways(placement=slots_by_layer(job.placement))
    return check(pool, setting.model, made.plan.degrees, setting.choices, setting.workload, job.seed, ways)


def _outcome(made: Proxy, job: Job, reports: Sequence[Report], check: Check | None, options: Options) -> Outcome:
    """The record, written to --out."""
    record = _record(made, job, reports, check, options.placement)
    if options.out:
        write(options.out / "record.json", json.dumps(record.to_json(), indent=2, ensure_ascii=False) + "\n")
    return Outcome(record, made, any(report.stopped for report in reports))


def _record(made: Proxy, job: Job, reports: Sequence[Report], check: Check | None, placement: Path | None) -> Record:
    setting, degrees = made.plan.setting, made.plan.degrees
    steps = tuple(
        Step(
            step=rows[0].step,
            loss=rows[0].loss,
            wall_s=max(row.wall for row in rows),
            cpu_s=tuple(row.cpu for row in rows),
        )
        for rows in zip(*(report.steps for report in reports), strict=True)
    )
    placed = [fingerprint("placement", str(placement), job.placement)] if placement else []
    cold = WARM_UP if len(steps) > 2 * WARM_UP else 0
    corpus = load(setting.workload.seq_len, job.seed)
    text: dict[str, Any] = {
        "name": "Python standard library",
        "bytes": len(corpus.text),
        "sha256": corpus.fingerprint,
        "held_out_loss": reports[0].held_out_loss,
    }
    return Record(
        origin="measured",
        plan=plan_json(made.plan),
        ranks=len(reports),
        steps=steps,
        phases=phases([[row.work for row in report.steps[cold:]] for report in reports], pipelined=int(degrees.pp) > 1),
        peak_memory_bytes=tuple(report.peak for report in reports),
        check=check,
        events=tuple(event for report in reports for event in report.events),
        provenance={
            "tool_version": tool_version(),
            "inputs": [*provenance(made.large), *provenance(made.plan), *placed],
            "device": job.device,
            "seed": job.seed,
            "learning_rate": job.learning_rate,
            "resumed_from": job.resume.step if job.resume else None,
        },
        proxy={**made.to_json(), "text": text},
    )
