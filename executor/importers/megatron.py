"""A Megatron-LM training log: steps, loss, memory, the timers by phase, and the arguments that it prints."""

from __future__ import annotations

import re
from statistics import median

from executor.importers.base import Log, LogStep

STEP = re.compile(r"iteration\s+(\d+)\s*/\s*\d+ \|(.*)")
FIELD = re.compile(r"\s*([^|:]+?):\s*([^|]+?)\s*\|")
MEMORY = re.compile(r"memory \(MB\) \|.*?max allocated: ([\d.]+)")
RESERVED = re.compile(r"memory \(MB\) \|.*?max reserved: ([\d.]+)")
TIMER = re.compile(r"^\s+([a-z][a-z0-9-]+) \.+: (?:\(([\d.]+), ([\d.]+)\)|([\d.]+))\s*$")
ARGUMENT = re.compile(r"^\s{2,}([a-z]\w*) \.{2,} (.*?)\s*$")
PHASES = {
    "forward-compute": "forward",
    "backward-compute": "backward",
    "optimizer": "optimizer",
    "all-grads-sync": "data",
    "params-all-gather": "data",
}
MEBI, MILLI = 2.0**20, 1e-3


def is_log(text: str) -> bool:
    """Whether the text has iterations as Megatron-LM logs them."""
    return "elapsed time per iteration (ms):" in text


def read(text: str) -> Log:
    """The run in a log. Timers are the slowest rank's, the median over the logged steps."""
    steps: list[LogStep] = []
    timers: dict[str, list[float]] = {}
    arguments: dict[str, str] = {}
    for line in text.splitlines():
        if found := STEP.search(line):
            steps.append(_step(int(found.group(1)), dict(FIELD.findall(found.group(2)))))
        elif (timer := TIMER.match(line)) and timer.group(1) in PHASES and steps:
            timers.setdefault(timer.group(1), []).append(MILLI * float(timer.group(3) or timer.group(4)))
        elif argument := ARGUMENT.match(line):
            arguments[argument.group(1)] = argument.group(2)
    phases: dict[str, float] = {}
    for name, seconds in timers.items():
        phases[PHASES[name]] = phases.get(PHASES[name], 0.0) + median(seconds)
    memory = [float(x) for x in RESERVED.findall(text) or MEMORY.findall(text)]
    return Log("Megatron-LM", tuple(steps), phases, max(memory) * MEBI if memory else None, arguments)


def _step(number: int, fields: dict[str, str]) -> LogStep:
    loss = fields.get("lm loss")
    took = fields.get("elapsed time per iteration (ms)")
    return LogStep(number, float(loss) if loss else None, MILLI * float(took) if took else None, None)
