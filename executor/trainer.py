"""Trains a model by a plan's strategy on the ranks of the default process group: what `plan run` steps.

trainer = Trainer(model, degrees, choices, workload, device="cpu", seed=0)
with recording(Recorder()) as times:  # executor.spans: what every action and collective took
    loss = trainer.step(tokens[list(trainer.rows)])
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import _init_optim_state

from executor.clip import clip, local, total_norm
from executor.copies import Copies, canonical, whole
from executor.evaluation import Evaluation, evaluate
from executor.layers.router import Router
from executor.mesh import build_meshes
from executor.objective import Batch, Objective, View, Work, objective_of, parts, refuse_objective
from executor.optimizers.base import adopt, portable
from executor.optimizers.build import build
from executor.optimizers.rounding import rounding
from executor.optimizers.settings import Update, plain
from executor.optimizers.whole import placed
from executor.parallel import Options, apply
from executor.parallel.collectives import all_reduce
from executor.parallel.context import order
from executor.parallel.data import timed_all_reduce
from executor.pipeline import Pipeline
from executor.refusal import DTYPES, refuse
from executor.spans import span
from executor.stages import Chunk, Content, contents, make
from planner.model import Model
from planner.strategy import Choices, Degrees, Workload


@dataclass
class Held:
    """A parameter of this rank: its canonical name, itself, the local piece that the optimizer updates.

    `counts`: it stands for all its copies in other chunks.
    """

    name: str
    parameter: nn.Parameter
    piece: nn.Parameter
    counts: bool


class Trainer:
    """The part of a training run that lives on this rank.

    `modules` its chunks of the model (names as in one process), `rows` its sequences of the global batch, `norm` the
    last gradient norm before clipping, `optimizer` one torch optimizer over the local pieces of its parameters.
    """

    def __init__(
        self,
        model: Model,
        degrees: Degrees,
        choices: Choices,
        workload: Workload,
        *,
        device: str | torch.device = "cpu",
        seed: int = 0,
        lr: float = 1e-3,
        update: Update | None = None,
        options: Options = Options(),  # noqa: B008 (frozen)
        objective: Objective | None = None,
        prepare: Callable[[nn.Module], None] = lambda module: None,
    ) -> None:
        """Build, cut and schedule this rank's chunks. Every rank must call it.

        `update` says how the optimizer of `choices` steps; without it `lr` does, "adam" then decays as AdamW. `options`
        are the ways to run a plan that the plan leaves open; `objective` is what is minimised, by default what the
        model predicts (executor.objective); `prepare` may change each chunk while its tensors are whole. Raises
        InputError for what is planned but not run.
        """
        refuse(model, degrees, choices)
        self.objective, self._count = objective or objective_of(model), 1.0
        refuse_objective(self.objective, model)
        self.model, self.degrees, self.choices, self.workload = model, degrees, choices, workload
        self.device, self.rule, self.norm = torch.device(device), update or plain(lr, choices.optimizer), float("nan")
        self.meshes = build_meshes(degrees, self.device.type, choices.order)
        self.rows, micro_batches = self._share()
        self._order = order(workload.seq_len, self.meshes.size("cp"), self.meshes.rank("cp"), options.context)
        self.view = self._view()
        pp, vpp = self.meshes.size("pp"), int(degrees.vpp)
        found = contents(model, workload.seq_len, pp, vpp)[self.meshes.rank("pp") :: pp]
        self.modules = [make(model, each, self.device, seed) for each in found]
        for module in self.modules:
            prepare(module)
        dtype = DTYPES[choices.precision]
        applied = [apply(each, self.meshes, choices, options, workload.seq_len, dtype) for each in self.modules]
        self._summed = [parameter for each in applied for parameter in each.partial()]
        self._copies = Copies(self.modules, self.meshes, tied=model.tied)
        self.held = list(self._pieces())
        self.optimizer = self._optimizer("adamw" if choices.optimizer == "adam" and not update else choices.optimizer)
        self._round = rounding(self.rule)
        self._routers = [module for each in self.modules for module in each.modules() if isinstance(module, Router)]
        for router in self._routers:
            router.aux_scale = 1.0 / workload.tokens_per_step
        self.pipeline = Pipeline(
            [Chunk(module, self._order.to(self.device)) for module in self.modules],
            [each.sync for each in applied],
            [self._boundary(each) for each in found],
            self.meshes.group("pp"),
            choices.schedule,
            micro_batches,
            self._loss,
        )

    def step(self, batch: Batch) -> float:
        """One optimizer step on this rank's `rows` of a global batch, as the objective takes it.

        By default token ids [len(rows), seq_len + 1], the last column only predicted. Returns the mean loss over the
        labels of the global batch, the same on every rank.
        """
        loss = self.forward_backward(batch)
        self.update()
        return loss

    def forward_backward(self, batch: Batch) -> float:
        """The gradients of one step, complete but not clipped, and the loss of `step`."""
        work = self._work(batch)
        self._count = work.count
        with timed_all_reduce():
            loss = self.pipeline.run(work.inputs, work.labels, work.extra)
        partial = [local(each.grad) for each in self._summed if each.grad is not None]
        if partial:
            _add_together(partial, self.meshes.group("tp"), "tensor")
        self._copies.sum_gradients()
        if self.meshes.rank("tp"):
            loss = torch.zeros_like(loss)  # the ranks of tp have all computed the same
        return float(all_reduce(loss, dist.group.WORLD, "data"))  # type: ignore[arg-type]

    def evaluate(self, batch: Batch) -> Evaluation:
        """What the model says to a batch, without training; any number of rows, not the same on all ranks.

        Every rank must call it. Dropout is off, running statistics stand in for those of the batch, nothing changes.
        """
        work = self._work(batch)
        return evaluate(work, self.objective, self.view, self.pipeline, self.meshes, int(self.degrees.micro_batch))

    def update(self) -> None:
        """Clip by the norm over all ranks, step the optimizer, balance the routers, drop the gradients."""
        with span("clip"):
            counted = [each.parameter.grad for each in self.held if each.counts]
            norm = total_norm((each for each in counted if each is not None), self.meshes.group("pp"))
            for each in self.held:
                each.piece.grad = None if each.parameter.grad is None else local(each.parameter.grad)
            clip((each.piece for each in self.held), norm, self.rule.clip)
        with span("optimizer"):
            self.optimizer.step()
            if self._round:
                self._round((each.name, each.piece.data, each.parameter.data) for each in self.held)
        self.norm = float(norm)
        self._balance()
        self.drop_gradients()

    def drop_gradients(self) -> None:
        """Forget the gradients of `forward_backward`."""
        for each in self.held:
            each.parameter.grad = each.piece.grad = None

    def gradients(self) -> dict[str, Tensor]:
        """Whole gradients by canonical name on rank 0, part of them elsewhere. Every rank must call it."""
        kept = {each.name: each.parameter.grad for each in self.held if each.counts}
        return whole({name: each for name, each in kept.items() if each is not None}, self.meshes.group("pp"))

    def parameters(self) -> dict[str, Tensor]:
        """Whole parameters by canonical name on rank 0, part of them elsewhere. Every rank must call it."""
        return whole({each.name: each.parameter.data for each in self.held if each.counts}, self.meshes.group("pp"))

    def state(self) -> dict[str, Any]:
        """Everything a checkpoint needs, by canonical name, as tensors that share memory with the trainer.

        `model.NAME` parameters and buffers, `optimizer.NAME.KEY` states; what is sharded is a DTensor, so that
        torch.distributed.checkpoint saves and loads in place on any layout.
        """
        if not self.optimizer.state:
            _init_optim_state(self.optimizer)
        found: dict[str, Any] = {}
        for module in self.modules:
            buffers = {name for name, _ in module.named_buffers()} & module.state_dict().keys()
            found |= {f"model.{name}": module.get_buffer(name) for name in buffers}
        for each in self.held:
            found[f"model.{each.name}"] = each.parameter.data
            for key, value in portable(self.optimizer, each.piece).items():
                found[f"optimizer.{each.name}.{key}"] = placed(value, each.parameter)
        return found | ({"rounding.step": self._round.step} if self._round else {})

    def restored(self, state: dict[str, Any]) -> None:
        """Take up what a checkpoint has read into `state`, where an optimizer keeps it in another form."""
        for each in self.held:
            prefix = f"optimizer.{each.name}."
            own = {key.removeprefix(prefix): local(value) for key, value in state.items() if key.startswith(prefix)}
            adopt(self.optimizer, each.piece, own)

    def _view(self) -> View:
        """How this rank sees a batch."""
        ahead = self.model.mtp_layers if self.model.mtp is not None else 0
        vocabulary = self.meshes.group("tp") if self.degrees.tp > 1 else None
        return View(self.workload, self._order, ahead, vocabulary, self._total)

    def _share(self) -> tuple[range, int]:
        """This rank's sequences of the global batch, and the micro-batches that they make."""
        each = self.workload.global_batch // self.meshes.size("dp")
        start = self.meshes.rank("dp") * each
        return range(start, start + each), each // int(self.degrees.micro_batch)

    def _boundary(self, content: Content) -> tuple[Tensor, Tensor]:
        """Empty tensors like what a chunk receives and sends for one micro-batch."""
        tokens = len(self._order) // (self.meshes.size("tp") if self.choices.sequence_parallel else 1)
        rows, dtype = int(self.degrees.micro_batch), DTYPES[self.choices.precision]
        received, sent = (
            torch.empty(rows * each, *(image or (tokens, self.model.hidden)), dtype=dtype, device=self.device)
            for each, image in ((content.rows_in, content.takes), (content.rows_out, content.gives))
        )
        return received, sent

    def _work(self, batch: Batch) -> Work:
        """The batch on this rank's device, as its pipeline takes it."""
        return self.objective.work([each.to(self.device) for each in parts(batch)], self.view)

    def _loss(self, output: Tensor, labels: Tensor) -> Tensor:
        """A micro-batch's share of the mean over the global batch."""
        return self.objective.loss(output, labels, self.view) / self._count

    def _total(self, x: Tensor) -> Tensor:
        """The sum of `x` over the ranks that have other sequences or other tokens of them."""
        for axis in ("cp", "dp"):
            if self.meshes.size(axis) > 1:
                x = all_reduce(x, self.meshes.group(axis), "data")
        return x

    def _pieces(self) -> Iterator[Held]:
        for chunk, module in enumerate(self.modules):
            for name, parameter in module.named_parameters():
                piece = nn.Parameter(local(parameter.data), requires_grad=parameter.requires_grad)
                counts = self._copies.counts(chunk, name)
                yield Held(canonical(name, tied=self.model.tied), parameter, piece, counts)

    def _optimizer(self, name: str) -> torch.optim.Optimizer:
        return build(name, [(each.name, each.parameter, each.piece) for each in self.held], self.rule)

    def _balance(self) -> None:
        """Shift the routers' corrections by the load over all ranks of the stage."""
        if not self._routers:
            return
        loads = torch.stack([router.load for router in self._routers])
        for axis in ("tp", "cp", "dp"):
            if self.meshes.size(axis) > 1:
                loads = all_reduce(loads, self.meshes.group(axis), "data")
        for router, load in zip(self._routers, loads, strict=True):
            router.load.copy_(load)
            router.update()


def _add_together(tensors: list[Tensor], group: dist.ProcessGroup, phase: str) -> None:
    """Sum tensors over a group in place, in one message."""
    total = all_reduce(torch.cat([each.flatten() for each in tensors]), group, phase)
    for each, part in zip(tensors, total.split([each.numel() for each in tensors]), strict=True):
        each.copy_(part.view_as(each))
