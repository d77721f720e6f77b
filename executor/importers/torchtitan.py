"""A torchtitan training log: steps, loss, tokens per second of a GPU, peak memory."""

from __future__ import annotations

import re

from executor.importers.base import Log, LogStep

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
STEP = re.compile(r"step:\s*(\d+)\s+loss:\s*([\d.naif+-]+)(.*)")
MEMORY = re.compile(r"memory:\s*([\d.]+)GiB")
RATE = re.compile(r"\b(?:tps|wps):\s*([\d,]+)")
GIBI = 2.0**30


def is_log(text: str) -> bool:
    """Whether the text has steps as torchtitan logs them."""
    return any(RATE.search(line) for line in text.splitlines() if STEP.search(line))


def read(text: str) -> Log:
    """The run in a log; colours are taken out. Its step time needs the tokens of a step, which the plan knows."""
    steps = []
    memory = []
    for line in COLOUR.sub("", text).splitlines():
        if found := STEP.search(line):
            rest = found.group(3)
            rate = RATE.search(rest)
            memory += [float(value) for value in MEMORY.findall(rest)]
            rated = float(rate.group(1).replace(",", "")) if rate else None
            steps.append(LogStep(int(found.group(1)), float(found.group(2)), None, rated))
    return Log("torchtitan", tuple(steps), {}, max(memory) * GIBI if memory else None)
