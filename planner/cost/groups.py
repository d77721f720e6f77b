"""The communication groups of a strategy: sizes and strides of each axis in the chosen rank order."""

from __future__ import annotations

from dataclasses import dataclass

from planner.collectives.base import Group
from planner.strategy import ORDERS, Choices, Degrees


@dataclass(frozen=True)
class Groups:
    """One group per axis; `data` is dp · cp (gradients of the dense part), `expert_data` is edp."""

    tp: Group
    cp: Group
    ep: Group
    etp: Group
    pp: Group
    data: Group
    expert_data: Group


def groups(degrees: Degrees, choices: Choices) -> Groups:
    """Groups under the rank order: pp outermost, or pp inside dp (then experts stay inside tp · cp)."""
    outer = choices.order == ORDERS[0]
    inner = degrees.tp * degrees.cp
    spread = 1 if outer else degrees.pp
    return Groups(
        tp=Group(degrees.tp, 1),
        cp=Group(degrees.cp, degrees.tp),
        ep=Group(degrees.ep, degrees.etp),
        etp=Group(degrees.etp, 1),
        pp=Group(degrees.pp, degrees.world // degrees.pp if outer else inner),
        data=Group(degrees.dp * degrees.cp, degrees.tp * spread),
        expert_data=Group(degrees.edp, degrees.ep * degrees.etp * spread),
    )
