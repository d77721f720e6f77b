"""The training loop of one rank: steps, progress, checkpoints, and stops that lose nothing.

A checkpoint is written while the next step runs and waited for at its end, so a crash costs one interval at most.
All ranks act on the same step: after each they agree on whether somebody was asked to stop. `Run` trains on the corpus
of `plan run`; `executor.training.loop` puts a recipe's data, evaluations and methods into the same loop.
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
from executor.corpus import load
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
    with stopping() as stop:
        return telling(Run(job, stop))


def telling(run: Run) -> Report:
    """The report of `run`; what goes wrong is told as a RankError where it is known."""
    logging.getLogger("torch.distributed.pipelining").setLevel(logging.CRITICAL)  # its errors are ours to tell
    try:
        return run.report()
    except Exception as error:
        known = told(error, run.step, run.operation)
        if isinstance(error, RankError) or not isinstance(known, RankError):
            raise
        raise known from error


class Run:
    """One rank while it trains; `step` is the one under way (0: none yet)."""

    rate = "--learning-rate"  # what to lower when a training diverges

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
        self._begin()
        self._build()
        self.checkpoints = Checkpoints(self.job.folder, self.job.keep, self.job.timeout) if self.job.folder else None
        self.control = dist.new_group(backend="gloo", timeout=timedelta(seconds=self.job.timeout))
        first, drawn = self._resume()
        stopped, start = self._steps(first, drawn)
        if self.checkpoints:
            self.checkpoints.finish()
        return self._told(start, stopped=stopped)

    def _steps(self, first: int, drawn: int) -> tuple[bool, float]:
        """All steps after `first`; whether somebody stopped them, and when the last one began [s]."""
        job, workload = self.job, self.job.plan.setting.workload
        shown = job.progress and dist.get_rank() == 0
        progress = Progress(first, job.steps, workload.tokens_per_step, shown=shown)
        stopped, start = False, 0.0
        for self.step in range(first + 1, job.steps + 1):
            start = self._one(drawn)
            drawn += workload.global_batch
            progress.step(self.step, self.steps[-1].loss)
            ended = self._after() or self.step == job.steps
            if self.checkpoints:
                self.checkpoints.finish()
            stopped = self._agree(self.stop.asked) and not ended
            due = job.every and (self.step % job.every == 0 or ended)
            if self.checkpoints and (due or stopped):
                self._save(self.checkpoints, drawn)
            if stopped or ended:
                break
        return stopped, start

    def _begin(self) -> None:
        """Device, time limits and seed of this rank."""
        self.device = find_device(self.job.device)
        self.device.claim(int(os.environ.get("LOCAL_RANK", dist.get_rank())))
        self.recorder.synchronize = self.device.synchronize
        memory.reset_peak(torch, self.device.kind)
        torch.manual_seed(self.job.seed)
        limit = timedelta(seconds=self.job.timeout)  # of groups made from here on; those of meshes have no option
        vars(distributed_c10d).update(default_pg_timeout=limit, default_pg_nccl_timeout=limit)

    def _build(self) -> None:
        """The trainer and what it is fed with."""
        job, setting = self.job, self.job.plan.setting
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

    @property
    def fingerprint(self) -> str:
        """Hash of what is trained on."""
        return self.corpus.fingerprint

    def _batch(self, start: int, stop: int) -> Any:
        """Samples number `start` to `stop` of the run, as the trainer takes them."""
        return torch.from_numpy(self.corpus.sequences(start, stop))

    def _after(self) -> bool:
        """What is done after each step; whether the training has reached its end early, the same on all ranks."""
        return False

    def _told(self, start: float, *, stopped: bool) -> Report:
        """The report, once all is trained; the last step began at `start` [s]."""
        return Report(
            rank=dist.get_rank(),
            steps=tuple(self.steps),
            events=tuple(events(dist.get_rank(), self.recorder.spans, start)),
            peak=memory.peak(torch, self.device.kind),
            held_out_loss=None if stopped else self._held_out(self.job.plan.setting.workload.global_batch),
            stopped=stopped,
        )

    def _resume(self) -> tuple[int, int]:
        """Read the checkpoint, if any; steps done and samples drawn so far."""
        saved = self.job.resume
        if saved is None or self.checkpoints is None:
            return 0, 0
        if saved.manifest.get("corpus") != self.fingerprint:
            expected = "was trained on another text: the standard library of another version of Python"
            raise InputError(Fault(str(saved.path), expected))
        state = self._state() | self._random(saved.manifest)
        self.checkpoints.load(saved, state)
        set_random_state(state, self.device.kind)
        self._resumed(state, saved.manifest)
        return saved.step, int(saved.manifest["sequences"])

    def _state(self) -> dict[str, Any]:
        """Every tensor of a checkpoint beside the generators."""
        return self.trainer.state()

    def _resumed(self, state: dict[str, Any], manifest: dict[str, Any]) -> None:
        """`state` has been read."""
        self.trainer.restored(state)

    def _manifest(self) -> dict[str, Any]:
        """What else a checkpoint must tell."""
        return {}

    def _random(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """The generators, when as many ranks wrote them; else each rank keeps the one of its seed."""
        return random_state(self.device.kind) if manifest.get("ranks") == dist.get_world_size() else {}

    def _one(self, drawn: int) -> float:
        """One step, timed; when it began [s]."""
        rows = self.trainer.rows
        batch = self._batch(drawn + rows.start, drawn + rows.stop)
        self.recorder.spans.clear()
        start, cpu = time.perf_counter(), time.process_time()
        with recording(self.recorder):
            loss = self.trainer.step(batch)
        self.device.synchronize()
        wall, used = time.perf_counter() - start, time.process_time() - cpu
        self.steps.append(Done(self.step, loss, wall, used, work(self.recorder.spans, self.device.kind)))
        if not math.isfinite(loss):
            raise DivergedError(f"the loss is {loss} in step {self.step}; try a lower {self.rate}")
        return start

    def _save(self, checkpoints: Checkpoints, drawn: int) -> None:
        """Begin the checkpoint of this step, unless the weights are no longer numbers."""
        state = self._state() | random_state(self.device.kind)
        if self._agree(not finite(state)):
            raise DivergedError(f"the weights are not finite after step {self.step}; try a lower {self.rate}")
        own = {
            "sequences": drawn,
            "seed": self.job.seed,
            "corpus": self.fingerprint,
            "ranks": dist.get_world_size(),
            "loss": self.steps[-1].loss,
        }
        checkpoints.save(self.step, state, {**self.job.manifest, **own, **self._manifest()})

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
