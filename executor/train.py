"""The training loop of one rank: steps, progress, checkpoints, and stops that lose nothing.

A checkpoint is written while the next step runs and waited for at its end, so a crash costs one interval at most.
All ranks act on the same step: after each they agree on whether somebody was asked to stop.
"""

from __future__ import annotations

import logging
import math
import os
import time
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d

from executor import memory
from executor.checkpoint import Checkpoints, finite, random_state, set_random_state
from executor.corpus import Corpus, load
from executor.device import device as find_device
from executor.failures import DivergedError, RankError, told
from executor.job import Done, Job, Report
from executor.parallel import Options
from executor.parallel.expert import slots_by_layer
from executor.phases import events, work
from executor.progress import Progress
from executor.signals import Stop, stopping
from executor.spans import Recorder, recording
from executor.trainer import Trainer
from planner.errors import Fault, InputError


def train(job: Job) -> Report:
    """Do this rank's part of `job` in the default process group; a RankError tells what went wrong."""
    logging.getLogger("torch.distributed.pipelining").setLevel(logging.CRITICAL)  # its errors are ours to tell
    with stopping() as stop:
        run = Run(job, stop)
        try:
            return run.report()
        except Exception as error:
            known = told(error, run.step, run.operation)
            if isinstance(error, RankError) or not isinstance(known, RankError):
                raise
            raise known from error


class Run:
    """One rank while it trains; `step` is the one under way (0: none yet)."""

    def __init__(self, job: Job, stop: Stop) -> None:
        """Nothing is built yet, so that what fails in building is told like what fails in a step."""
        self.job, self.stop, self.step = job, stop, 0
        self.recorder = Recorder()
        self.steps: list[Done] = []
        self.between = False

    @property
    def operation(self) -> str:
        """The collective that ran last."""
        if self.between:
            return "the agreement between two steps"
        calls = [span for span in self.recorder.spans if span.phase]
        return f"{calls[-1].kind} ({calls[-1].phase}, call {len(calls)})" if calls else "a collective"

    def report(self) -> Report:
        """Build, go on from the checkpoint, train, and tell."""
        self._build()
        first, drawn = self._resume()
        job, batch = self.job, self.job.plan.setting.workload.global_batch
        tokens = job.plan.setting.workload.tokens_per_step
        progress = Progress(first, job.steps, tokens, shown=job.progress and dist.get_rank() == 0)
        stopped, start = False, 0.0
        for self.step in range(first + 1, job.steps + 1):
            start = self._one(self.corpus, drawn)
            drawn += batch
            progress.step(self.step, self.steps[-1].loss)
            if self.checkpoints:
                self.checkpoints.finish()
            stopped = self._agree(self.stop.asked) and self.step < job.steps
            due = job.every and (self.step % job.every == 0 or self.step == job.steps)
            if self.checkpoints and (due or stopped):
                self._save(self.checkpoints, drawn)
            if stopped:
                break
        if self.checkpoints:
            self.checkpoints.finish()
        shown = events(dist.get_rank(), self.recorder.spans, start)
        return Report(
            rank=dist.get_rank(),
            steps=tuple(self.steps),
            events=tuple(shown),
            peak=memory.peak(torch, self.device.kind),
            held_out_loss=None if stopped else self._held_out(batch),
            stopped=stopped,
        )

    def _build(self) -> None:
        job, setting = self.job, self.job.plan.setting
        self.device = find_device(job.device)
        self.device.claim(int(os.environ.get("LOCAL_RANK", dist.get_rank())))
        self.recorder.synchronize = self.device.synchronize
        memory.reset_peak(torch, self.device.kind)
        torch.manual_seed(job.seed)
        limit = timedelta(seconds=job.timeout)  # of groups made from here on; those of meshes have no option for it
        vars(distributed_c10d).update(default_pg_timeout=limit, default_pg_nccl_timeout=limit)
        self.trainer = Trainer(
            setting.model,
            job.plan.degrees,
            setting.choices,
            setting.workload,
            device=self.device.kind,
            seed=job.seed,
            lr=job.learning_rate,
            options=Options(placement=slots_by_layer(job.placement)),
        )
        self.corpus = load(setting.workload.seq_len, job.seed)
        self.checkpoints = Checkpoints(job.folder, job.keep, job.timeout) if job.folder else None
        self.control = dist.new_group(backend="gloo", timeout=limit)

    def _resume(self) -> tuple[int, int]:
        """Read the checkpoint, if any; steps done and sequences drawn so far."""
        saved = self.job.resume
        if saved is None or self.checkpoints is None:
            return 0, 0
        if saved.manifest.get("corpus") != self.corpus.fingerprint:
            expected = "was trained on another text: the standard library of another version of Python"
            raise InputError(Fault(str(saved.path), expected))
        state = self.trainer.state() | self._random(saved.manifest)
        self.checkpoints.load(saved, state)
        set_random_state(state, self.device.kind)
        return saved.step, int(saved.manifest["sequences"])

    def _random(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """The generators, when as many ranks wrote them; else each rank keeps the one of its seed."""
        return random_state(self.device.kind) if manifest.get("ranks") == dist.get_world_size() else {}

    def _one(self, corpus: Corpus, drawn: int) -> float:
        """One step, timed; when it began [s]."""
        rows = self.trainer.rows
        tokens = torch.from_numpy(corpus.sequences(drawn + rows.start, drawn + rows.stop))
        self.recorder.spans.clear()
        start, cpu = time.perf_counter(), time.process_time()
        with recording(self.recorder):
            loss = self.trainer.step(tokens)
        self.device.synchronize()
        wall, used = time.perf_counter() - start, time.process_time() - cpu
        self.steps.append(Done(self.step, loss, wall, used, work(self.recorder.spans, self.device.kind)))
        if not math.isfinite(loss):
            raise DivergedError(f"the loss is {loss} in step {self.step}; try a lower --learning-rate")
        return start

    def _save(self, checkpoints: Checkpoints, drawn: int) -> None:
        """Begin the checkpoint of this step, unless the weights are no longer numbers."""
        state = self.trainer.state() | random_state(self.device.kind)
        if self._agree(not finite(state)):
            raise DivergedError(f"the weights are not finite after step {self.step}; try a lower --learning-rate")
        own = {
            "sequences": drawn,
            "seed": self.job.seed,
            "corpus": self.corpus.fingerprint,
            "ranks": dist.get_world_size(),
            "loss": self.steps[-1].loss,
        }
        checkpoints.save(self.step, state, {**self.job.manifest, **own})

    def _agree(self, own: bool) -> bool:  # noqa: FBT001 (a question with one answer)
        """Whether it is so on any rank."""
        flag = torch.tensor([int(own)])
        self.between = True
        dist.all_reduce(flag, dist.ReduceOp.MAX, group=self.control)
        self.between = False
        return bool(flag.item())

    def _held_out(self, batch: int) -> float | None:
        """The loss on text that no step has seen; the gradients of this pass are dropped."""
        tokens = torch.from_numpy(self.corpus.held_out_sequences(batch))
        if len(tokens) < batch:
            return None
        loss = self.trainer.forward_backward(tokens[self.trainer.rows.start : self.trainer.rows.stop])
        self.trainer.drop_gradients()
        return loss
