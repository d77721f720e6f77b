"""`plan run`: the proxy of a plan trained for real, told as a record beside what a simulation would tell.

In --out: `proxy.toml` (the model), `proxy.json` (its plan, which every command reads), `record.json`, `checkpoints/`,
and `failure.txt` when ranks failed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from executor import launch, memory
from executor.corpus import load
from executor.job import Job, Report
from executor.phases import phases
from executor.proxy import Like, Proxy, proxy
from executor.ranks import RankFailed, Ranks
from executor.saved import Saved, found, sweep
from executor.shrink import Size, source, toml
from planner.errors import Fault, InputError, RunFailed
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
        job, reports = _persist(job, options, own)
    finally:
        if pool is None:
            own.close()
    return _outcome(made, job, reports, check, options)


def run_joined(plan: Plan, options: Options) -> Outcome | None:
    """The same on the ranks that torchrun started, on one machine or many; the outcome on rank 0, else None."""
    made: list[Proxy] = []

    def make() -> Job:
        job, found_proxy = _job(plan, replace(options, resume=options.resume or _is_ours(options)))
        made.append(found_proxy)
        return job

    from executor.rendezvous import joined  # noqa: PLC0415  needs torch

    with joined(launch.BACKENDS[options.device], options.timeout) as rank:
        try:
            job, reports = launch.together(make)
        except RunFailed as error:
            raise RunFailed(f"{error}{_left(options)}") from error
    return None if rank else _outcome(made[0], job, reports, None, options)


def _job(plan: Plan, options: Options) -> tuple[Job, Proxy]:
    """What the ranks are told; writes the proxy's files."""
    saved = _newest(options)
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


def _newest(options: Options) -> Saved | None:
    """The checkpoint to go on from; InputError when one is there and nobody asked, or nothing is left to do."""
    if options.folder is None:
        return None
    there = found(options.folder)
    if there and not options.resume:
        expected = f"has checkpoints up to step {there[0].step}: go on with --resume or name another folder"
        raise InputError(Fault("--out", expected, str(options.out)))
    if there and there[0].step >= options.steps:
        raise InputError(Fault("--steps", f"the checkpoint has done {there[0].step} steps already", options.steps))
    if there and there[0].manifest["seed"] != options.seed:
        raise InputError(Fault("--seed", f"the checkpoint has seed {there[0].manifest['seed']}", options.seed))
    sweep(options.folder)
    return there[0] if there else None


def _is_ours(options: Options) -> bool:
    """Whether the newest checkpoint is of this very job of torchrun, which started its ranks again."""
    there = found(options.folder) if options.folder else []
    return bool(there) and there[0].manifest.get("run_id") == launch.run_id() is not None


def _written(made: Proxy, out: Path) -> Proxy:
    """Write model and plan of the proxy; the plan then knows its model by that file."""
    write(out / "proxy.toml", toml(made.table))
    plan = replace(made.plan, model_name=str(out / "proxy.toml"))
    write(out / "proxy.json", json.dumps(plan_json(plan), indent=2, ensure_ascii=False) + "\n")
    return replace(made, plan=plan)


def _persist(job: Job, options: Options, pool: Ranks) -> tuple[Job, list[Report]]:
    """Run the job, again from the newest checkpoint after each of the failures that are allowed; the last attempt."""
    for left in range(options.restarts, -1, -1):
        try:
            return job, launch.spawn(job, pool, options.ranks)
        except RunFailed as error:
            _story(options, error)
            if not left:
                raise RunFailed(f"{error}{_left(options)}") from error
            job = replace(job, resume=_newest(replace(options, resume=True)))
    raise AssertionError("the last attempt returns or raises")


def _story(options: Options, error: RunFailed) -> None:
    """Keep what every rank said in `failure.txt`, where the disk still takes it."""
    if options.out and isinstance(error.__cause__, RankFailed):
        text = "\n".join(f"rank {rank}\n{text}" for rank, text in sorted(error.__cause__.failures.items()))
        with suppress(InputError):
            write(options.out / "failure.txt", text)


def _left(options: Options) -> str:
    """Where a failed run can be taken up again."""
    there = found(options.folder) if options.folder else []
    if there:
        return f"; the checkpoint of step {there[0].step} in {options.folder} is intact: go on with --resume"
    return "; no checkpoint was written (--checkpoint-every N with --out DIR keeps some)"


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
