"""The collectives of one rank, one by one: what the cost formulas add up, and what a real run must show call by call.

Forward in the order of execution; the backward pass mirrors each (a gather is answered by a scatter) in reverse order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.formula import Num
from planner.layers.base import Core, Cut, Linear, Part, Table
from planner.model import Layer
from planner.setting import Setting, tokens
from planner.sharding import Held, held
from planner.strategy import Degrees

MIRROR = {"all_gather": "reduce_scatter", "reduce_scatter": "all_gather", "all_to_all": "all_to_all"}


@dataclass(frozen=True)
class Message:
    """One collective: `op`, the `axis` of its group (tp, etp, ep, cp, data, expert_data) and its `volume` [B].

    The volume is that of the whole tensor: gathered, reduced, or (all_to_all, send) what this rank hands out.
    """

    op: str
    axis: str
    volume: Num


@dataclass(frozen=True)
class Boundary:
    """A tensor of `volume` [B] that enters (gathered) or leaves (scattered) what tp, or etp, cuts of a layer."""

    axis: str
    volume: Num
    enters: bool


def boundary(part: Part, setting: Setting, degrees: Degrees) -> Boundary | None:
    """Where `part` crosses its tensor-parallel group; None when it doesn't."""
    if isinstance(part, Table) and part.cut is Cut.COLUMN:
        return Boundary("tp", tokens(setting, degrees) * part.width * setting.value, enters=False)
    if not isinstance(part, Linear) or part.cut is Cut.NONE:
        return None
    width = part.outputs if part.cut is Cut.ROW else part.gathered
    if width == 0:
        return None
    rows = degrees.micro_batch * part.rows if part.rows else tokens(setting, degrees)
    if part.expert:
        rows = rows / degrees.tp * degrees.etp * part.active
    return Boundary("etp" if part.expert else "tp", rows * width * setting.value, enters=part.cut is Cut.COLUMN)


def exchange(part: Part, setting: Setting, degrees: Degrees) -> Num:
    """Bytes [B] of the copies that a rank's tokens send to the experts of `part`, or get back; none are merged yet."""
    if not isinstance(part, Linear) or not part.expert:
        return 0.0
    width = part.inputs if part.cut is Cut.COLUMN else part.outputs
    return tokens(setting, degrees) / degrees.tp * part.active * width * setting.value


def key_value(part: Core, setting: Setting, degrees: Degrees) -> Num:
    """Bytes [B] that a context rank passes to the next: keys and values, or the state of linear attention."""
    if part.linear:
        return setting.value * (degrees.micro_batch * part.heads / degrees.tp * part.qk_dim * part.v_dim)
    heads = np.maximum(part.kv_heads / degrees.tp, 1.0)
    return setting.value * (tokens(setting, degrees) * heads * (part.qk_dim + part.v_dim))


def forward_messages(layer: Layer, setting: Setting, degrees: Degrees) -> tuple[Message, ...]:
    """Collectives of one micro-batch forward through `layer` for one plan, without those of the data axes."""
    found: list[Message] = []
    for part in layer.parts:
        volume = exchange(part, setting, degrees) if degrees.ep > 1 else 0.0
        travels = [Message("all_to_all", "ep", volume)] if volume > 0 else []
        crossing = _ahead(part, setting, degrees)
        if isinstance(part, Core):
            found += [Message("send", "cp", key_value(part, setting, degrees))] * (int(degrees.cp) - 1)
        elif isinstance(part, Linear) and part.cut is Cut.COLUMN:
            found += [*travels, *crossing]
        else:
            found += [*crossing, *travels]
    return tuple(found)


def backward_messages(layer: Layer, setting: Setting, degrees: Degrees) -> tuple[Message, ...]:
    """The mirror of `forward_messages`; keys and values pass again, with their gradients."""
    if degrees.tp > 1 and not setting.choices.sequence_parallel:
        crossed = [boundary(part, setting, degrees) for part in layer.parts]
        reduced = [Message("all_reduce", "tp", x.volume) for x in crossed if x and x.axis == "tp" and x.enters]
        others = [each for each in forward_messages(layer, setting, degrees) if each.axis != "tp"]
        return (*reduced[::-1], *map(_mirrored, others[::-1]))
    return tuple(map(_mirrored, forward_messages(layer, setting, degrees)[::-1]))


def data_messages(layer: Layer, setting: Setting, degrees: Degrees) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    """What data parallelism moves for one layer: (parameters gathered, gradients reduced), once each.

    How often per step, and in how many calls, is a matter of ZeRO's stage (`planner.cost.data_parallel`).
    """
    has: Held = held(layer, degrees)
    sizes = {"data": (has.dense, degrees.dp * degrees.cp), "expert_data": (has.expert, degrees.edp)}
    moved = [(axis, size) for axis, (size, ways) in sizes.items() if size > 0 and ways > 1]
    zero = setting.choices.zero
    gathered = [Message("all_gather", axis, size * setting.value) for axis, size in moved] if zero else []
    op = "reduce_scatter" if zero else "all_reduce"
    reduced = [Message(op, axis, size * setting.stack.gradient_bytes) for axis, size in moved]
    return tuple(gathered), tuple(reduced)


def _ahead(part: Part, setting: Setting, degrees: Degrees) -> list[Message]:
    """The forward collective where `part` crosses; entering costs nothing where every rank has all tokens."""
    crossed = boundary(part, setting, degrees)
    if crossed is None or getattr(degrees, crossed.axis) == 1:
        return []
    if setting.choices.sequence_parallel or crossed.axis == "etp":
        return [Message("all_gather" if crossed.enters else "reduce_scatter", crossed.axis, crossed.volume)]
    return [] if crossed.enters else [Message("all_reduce", crossed.axis, crossed.volume)]


def _mirrored(message: Message) -> Message:
    if message.op == "send":
        return Message("send", message.axis, 2.0 * message.volume)
    return Message(MIRROR[message.op], message.axis, message.volume)
