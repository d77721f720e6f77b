"""The peak memory of a published run in the figure that its source prints."""

from __future__ import annotations

import re

from planner.estimate import memories, units
from planner.memory.stage import Memory
from planner.plan import Plan
from planner.validate.read import Row
from planner.validate.stages import as_cut

FIRST_STAGE = re.compile(r"MLCommons|bigscience")
"""Sources that print the peak of the first stage, where the embedding is; all others print the largest."""
ALLOCATED = re.compile(r"MLCommons|SimuMax|Zero Bubble")
RESERVED = re.compile(r"torchtitan|ml-engineering|nanotron")
"""Sources that print what torch has allocated or reserved; all others are taken to print what the driver reports."""
DOUBLED = re.compile(r"schedule ZB-2p")


def predicted_peak(plan: Plan, row: Row) -> float:
    """Peak memory [B] as the row's source measures it, on stages cut as its framework cuts them."""
    switched = (row.get("extra") or {}).get("recipe") or {}
    shape = as_cut(
        plan,
        doubled=bool(DOUBLED.search(str(row.get("framework")))),
        offloaded=int(switched.get("cpu_offloading_num_layers") or 0),
    )
    stages = memories(units(plan.setting, plan.degrees), shape, plan.setting, plan.degrees)
    source = str(row.get("source"))
    shown = stages[:1] if FIRST_STAGE.search(source) else stages
    return max(printed(stage, plan, source) for stage in shown)


def printed(stage: Memory, plan: Plan, source: str) -> float:
    """Bytes of one stage in the kind of figure that `source` prints."""
    if ALLOCATED.search(source):
        return float(stage.total - stage.framework)
    outside = plan.setting.gpu.reserve + plan.setting.stack.libraries
    return float(stage.total) - outside * bool(RESERVED.search(source))
