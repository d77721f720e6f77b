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
FRAGMENTED = 1.05  # reserved over allocated when every wholly free block is given back
DOUBLED = re.compile(r"schedule ZB-2p")


def predicted_peak(plan: Plan, row: Row) -> float:
    """Peak memory [B] as the row's source measures it, on stages cut as its framework cuts them."""
    switched = (row.get("extra") or {}).get("recipe") or {}
    shape = as_cut(
        plan,
        doubled=bool(DOUBLED.search(str(row.get("framework")))),
        offloaded=int(switched.get("cpu_offloading_num_layers") or 0),
    )
    setting = plan.setting
    stages = memories(units(setting, plan.degrees), shape, setting, plan.degrees)
    source = str(row.get("source"))
    shown = stages[:1] if FIRST_STAGE.search(source) else stages
    return max(printed(stage, plan, source) for stage in shown)


def printed(stage: Memory, plan: Plan, source: str) -> float:
    """Bytes of one stage in the kind of figure that `source` prints.

    torch's caching allocator frees unused blocks before an allocation fails (c10/cuda/CUDACachingAllocator.cpp), so
    that little but fragments remains of its slack where memory runs out.
    """
    gpu, outside = plan.setting.gpu, plan.setting.gpu.reserve + plan.setting.stack.libraries
    allocated = float(stage.total - stage.framework)
    if ALLOCATED.search(source):
        return allocated
    reserved = min(plan.setting.stack.allocator * allocated, max(gpu.hbm_capacity - outside, FRAGMENTED * allocated))
    return reserved if RESERVED.search(source) else reserved + outside
