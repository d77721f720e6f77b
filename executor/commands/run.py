"""`plan run`: train a plan's proxy for real, here or under torchrun on many machines."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import click

from executor import available, launch
from executor.proxy import Proxy
from executor.run import Options, Outcome, run, run_joined, small
from executor.shrink import Size
from hwprofiles.quantity import format as human
from planner.commands.options import COUNT, Count, Finite
from planner.commands.output import Sheet, emit, format_options, out_folder, talk
from planner.errors import CheckFailed, Fault, InputError
from planner.plan import read
from planner.provenance import SCHEMA_VERSION, tool_version
from planner.record import Record

TOLERANCE = 1e-5  # of loss and gradients against one process, in fp32
INTERRUPTED = 130
NONE = click.IntRange(min=0)
FILE = click.Path(path_type=Path, dir_okay=False)
RANKS = Count(1024)  # on one machine more tell nothing


@click.command()
@click.argument("plan_file", metavar="PLAN.json", type=click.Path(path_type=Path))
@click.option("--ranks", type=RANKS, default="4", show_default=True, help="Processes; under torchrun those it starts.")
@click.option("--steps", type=COUNT, default="20", show_default=True, help="Optimizer steps in all.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--seed", type=NONE, default=0, show_default=True, help="Of the weights and the order of the text.")
@click.option("--learning-rate", type=Finite(min=0.0), default=3e-3, show_default=True, help="Learning rate.")
@click.option("--hidden", type=COUNT, default="64", show_default=True, help="Channels of the proxy, if memory allows.")
@click.option("--seq-len", type=COUNT, default="64", show_default=True, help="Tokens per sequence of the proxy.")
@click.option("--layers", type=COUNT, default="4", show_default=True, help="Layers of the proxy; more if stages ask.")
@click.option("--check", is_flag=True, help="Compare loss and gradients with one process before training.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for record.json, the proxy and checkpoints.")
@click.option("--checkpoint-every", type=NONE, default=0, show_default=True, help="Steps between two; 0: none.")
@click.option("--keep", type=COUNT, default="3", show_default=True, help="Newest checkpoints to keep.")
@click.option("--resume", is_flag=True, help="Go on from the newest checkpoint in --out, on any number of ranks.")
@click.option("--max-restarts", type=NONE, default=0, show_default=True, help="Failures to recover from alone.")
@click.option(
    "--timeout", type=Finite(1.0, 86400.0), default=60.0, show_default=True, help="Seconds a rank may be late."
)
@click.option("--placement", type=FILE, help="placement.json of the proxy's experts; else they stay in order.")
@click.option("--dry-run", is_flag=True, help="Show the proxy, and train nothing.")
@format_options
def command(plan_file: Path, dry_run: bool, form: str, quiet: bool, **how: Any) -> int:  # noqa: FBT001
    """Train the proxy of PLAN.json with torch: the same axes, schedule and kinds of layers, small enough for here.

    On many machines: torchrun --nnodes N --nproc-per-node R ... -m executor.commands.run PLAN.json --out SHARED_FOLDER
    """
    options = _options(how, quiet=quiet)
    plan = read(plan_file)
    if dry_run:
        made = small(plan, options)
        emit(form, {**_head(), **made.to_json()}, lambda: _proxy_sheets(made))
        return 0
    if not available():
        raise InputError(Fault("torch", "is not installed: pip install 'myriad-planner[executor]'"))
    _refuse_device(options)
    outcome = run(plan, options) if launch.world() is None else run_joined(plan, options)
    if outcome is None:
        return 0
    if options.out:
        talk(f"wrote record.json, proxy.json and proxy.toml to {options.out}", quiet=quiet)
    emit(form, outcome.record.to_json(), lambda: _sheets(outcome))
    return _verdict(outcome, quiet=quiet)


def _head() -> dict[str, Any]:
    return {"schema_version": SCHEMA_VERSION, "tool_version": tool_version()}


def _options(how: dict[str, Any], *, quiet: bool) -> Options:
    """The options, with what can't go together refused all at once."""
    out = out_folder(how["out"])
    wrong = [
        Fault(name, "needs --out DIR, where the checkpoints are")
        for name, asked in (("--checkpoint-every", how["checkpoint_every"]), ("--resume", how["resume"]))
        if asked and out is None
    ]
    if how["check"] and launch.world() is not None:
        wrong.append(Fault("--check", "needs a process of its own beside the ranks: run it without torchrun"))
    if how["max_restarts"] and launch.world() is not None:
        wrong.append(Fault("--max-restarts", "is torchrun's to do: give it to torchrun"))
    if wrong:
        raise InputError(*wrong)
    return Options(
        ranks=how["ranks"],
        steps=how["steps"],
        device=how["device"],
        seed=how["seed"],
        learning_rate=how["learning_rate"],
        size=Size(hidden=how["hidden"], seq_len=how["seq_len"], layers=how["layers"]),
        out=out,
        check=how["check"],
        resume=how["resume"],
        every=how["checkpoint_every"],
        keep=how["keep"],
        restarts=how["max_restarts"],
        timeout=how["timeout"],
        placement=how["placement"],
        progress=not quiet and sys.stderr.isatty(),
    )


def _refuse_device(options: Options) -> None:
    """A device that is not here, or fewer of them than ranks, is told before any rank starts."""
    if options.device == "cpu":
        return
    from executor.device import device  # noqa: PLC0415  needs torch

    count = device(options.device).count
    if launch.world() is None and options.ranks > count:
        raise InputError(Fault("--ranks", f"this machine has {count} GPUs", options.ranks, str(count)))


def _verdict(outcome: Outcome, *, quiet: bool) -> int:
    """The exit code: interrupted, a failed check, or done."""
    check = outcome.record.check
    if outcome.stopped:
        done = outcome.record.steps[-1].step
        talk(f"stopped by a signal after step {done}; what is done is saved: go on with --resume", quiet=quiet)
        return INTERRUPTED
    if check and max(check.loss_error, check.gradient_error) > TOLERANCE:
        text = f"loss {check.loss_error:.1e}, gradients {check.gradient_error:.1e}"
        raise CheckFailed(f"the ranks differ from one process by more than {TOLERANCE:.0e}: {text}")
    return 0


def _proxy_sheets(made: Proxy) -> list[Sheet]:
    strategy = made.to_json()["small"]["strategy"]
    axes = ", ".join(f"{axis} {strategy[axis]}" for axis in ("tp", "cp", "ep", "etp", "dp", "pp", "vpp"))
    large, ranks = made.large, made.plan.degrees.world
    line = f"{large.setting.model.name} on {large.degrees.world:,} GPUs as a proxy on {ranks} ranks: {axes}"
    return [
        Sheet("Proxy", ("kept",), [(text,) for text in made.kept], (line,)),
        Sheet("", ("given up",), [(text,) for text in made.given_up]),
    ]


def _sheets(outcome: Outcome) -> list[Sheet]:
    record = outcome.record
    first, last = record.steps[0], record.steps[-1]
    rows = [
        ("forward", record.phases.forward),
        ("backward", record.phases.backward),
        ("optimizer", record.phases.optimizer),
        *record.phases.collectives.items(),
        ("bubble (wall)", record.phases.bubble),
    ]
    notes = [f"loss {first.loss:.4f} in step {first.step} -> {last.loss:.4f} in step {last.step}"]
    held_out = record.proxy["text"]["held_out_loss"]
    if held_out is not None:
        notes.append(f"loss on text held out: {held_out:.4f}")
    notes.append("peak memory: " + ", ".join(human(peak, "B") for peak in record.peak_memory_bytes) + " by rank")
    notes += _check_lines(record)
    phase_rows = [(name, human(seconds, "s")) for name, seconds in rows]
    return [
        *_proxy_sheets(outcome.proxy),
        Sheet("Step by phase, mean over ranks", ("phase", "time"), phase_rows, notes),
    ]


def _check_lines(record: Record) -> list[str]:
    if record.check is None:
        return []
    return [f"against one process: loss {record.check.loss_error:.1e}, gradients {record.check.gradient_error:.1e}"]


if __name__ == "__main__":
    from planner.cli import main

    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main(["run", *sys.argv[1:]]))
