"""The click group `plan`: a table of strings. A command's module is imported when it is called."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

import click

from planner.errors import EXIT, CheckFailed, InputError, NoPlan, RunFailed, nearest

COMMANDS: dict[str, tuple[str, str]] = {
    "calibrate": ("executor.commands.calibrate", "Measure this machine and fit the planner's formulas to it."),
    "capacity": (
        "planner.commands.capacity",
        "Charts over cluster sizes: time and cost to train, MFU, memory, the knee.",
    ),
    "compare": ("executor.commands.compare", "Predicted beside measured, phase by phase."),
    "deploy": ("executor.commands.deploy", "Export a trained model for inference, compressed as asked."),
    "doctor": ("planner.commands.doctor", "What is installed, found and missing here."),
    "estimate": ("planner.commands.estimate", "Price one strategy of a model on a cluster."),
    "explain": ("planner.commands.explain", "Explain a plan: formulas, sources, waterfall, what matters."),
    "hardware": ("planner.commands.hardware", "Hardware profiles, each number with its source."),
    "infer": ("executor.commands.infer", "Predict on new samples with an exported model."),
    "models": ("planner.commands.models", "The model catalogue; parameters by part and FLOP per token."),
    "place": ("planner.commands.place", "Place the experts of a plan on its GPUs by a routing trace."),
    "report": ("planner.commands.report", "Write a plan as one self-contained HTML page."),
    "run": ("executor.commands.run", "Train a plan's proxy for real on the ranks here."),
    "search": ("planner.commands.search", "Find the best plans of a model on a cluster."),
    "simulate": ("planner.commands.simulate", "Replay a step of a plan event by event."),
    "train": ("executor.commands.train", "Train by a recipe: data, model, optimizer, compression, evaluation."),
    "validate": ("planner.commands.validate", "Predict published runs and compare with what was measured."),
}


class LazyGroup(click.Group):
    """A group whose help is the table and whose commands are imported on call."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the table, sorted."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command; None when the table has no such row."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(COMMANDS[cmd_name][0]).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the nearest name for an unknown one."""
        close = nearest(args[0], COMMANDS) if args[0] not in COMMANDS else None
        if close:
            ctx.fail(f"No such command {args[0]!r}. Did you mean {close!r}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The help of the group, without importing a command."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in sorted(COMMANDS.items())])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "PLAN"})
@click.version_option(package_name="myriad-planner", prog_name="plan")
def plan() -> None:
    """Plan the training of the largest models: parallelism, memory, time and money, with the source of each number.

    stdout is data, stderr is talk. Exit codes: 0 done, 2 usage, 3 an input is wrong, 4 no feasible plan, 5 a check
    failed, 6 a run failed, 130 interrupted.
    """


def main(arguments: Sequence[str] | None = None) -> int:  # noqa: PLR0911  one way out per exit code
    """Run `plan`; errors become one clear sentence each and an exit code."""
    try:
        result = plan.main(args=arguments, prog_name="plan", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (InputError, NoPlan, CheckFailed, RunFailed) as error:
        click.echo("\n".join(f"plan: {line}" for line in str(error).splitlines()), err=True)
        return EXIT[type(error)]
    except (click.Abort, KeyboardInterrupt):
        click.echo("plan: interrupted; nothing half-written was left", err=True)
        return 130
    except SystemExit:  # click's answer to a closed pipe, which is how `| head` ends
        return 0
    except BrokenPipeError:  # seen at the flush; what is left must go somewhere when the process ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        click.echo(f"plan: {error.filename or 'output'}: {error.strerror}; nothing was written there", err=True)
        return 3
    return result if isinstance(result, int) else 0
