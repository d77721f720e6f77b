"""`plan infer`: an exported model predicts on new samples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hwprofiles.quantity import format as human
from planner.commands.options import Count, Finite
from planner.commands.output import Sheet, emit, format_options
from planner.errors import Fault, InputError
from planner.provenance import SCHEMA_VERSION, tool_version

if TYPE_CHECKING:
    from executor.exported import Deployed

MOST_BYTES = 64 * 1024  # that are continued in one call
SHOWN = 20  # predictions in the table; --json has all
PERCENT = 100.0


@click.command()
@click.argument("folder", metavar="MODEL_DIR", type=click.Path(path_type=Path))
@click.option("--text", help="The sample itself; a language model continues it.")
@click.option("--file", "file", metavar="FILE", type=click.Path(path_type=Path),
              help="Samples: a text, lines of text to classify, or images as .npy.")  # fmt: skip
@click.option("--tokens", type=Count(MOST_BYTES), default="64", show_default=True, help="Bytes to continue a text by.")
@click.option("--temperature", type=Finite(min=0.0, max=100.0), default=0.0, show_default=True,
              help="0 takes the likeliest byte, more draws.")  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of what is drawn.")
@format_options
def command(
    folder: Path,
    text: str | None,
    file: Path | None,
    tokens: int,
    temperature: float,
    seed: int,
    form: str,
    quiet: bool,  # noqa: FBT001
) -> None:
    """Load the exported model in MODEL_DIR and predict on --text or --file."""
    if (text is None) == (file is None):
        raise click.UsageError("give the sample by --text or by --file, one of both")
    from executor.exported import load  # noqa: PLC0415 (torch, which --help does without)

    deployed = load(folder)
    data: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "tool_version": tool_version(),
        "model": deployed.model.name,
        "task": deployed.facts.task,
        "form": deployed.manifest["form"],
        "stored_bytes": deployed.manifest["stored_bytes"],
    }
    if deployed.facts.task == "language-model":
        data |= _continued(deployed, _read(text, file), tokens, temperature, seed)
    else:
        data |= _classified(deployed, text, file)
    emit(form, data, lambda: [_sheet(data)])


def _continued(deployed: Deployed, text: bytes, tokens: int, temperature: float, seed: int) -> dict[str, Any]:
    """What a language model says."""
    from executor import infer  # noqa: PLC0415

    if not text:
        raise InputError(Fault("--text or --file", "expected at least one byte to continue"))
    made = infer.continuation(deployed, text, tokens, temperature, seed)
    window = text[-deployed.facts.shape[0] :]
    timed = infer.latency(lambda: infer.continuation(deployed, window, 1, temperature, seed), 1)
    return {
        "bytes": len(text),
        "perplexity": infer.perplexity(deployed, text),
        "continuation": made.decode("utf-8", "replace"),
        "tokens": tokens,
        "temperature": temperature,
        "seed": seed,
        "latency": {"of": "one token", "median_s": timed.seconds, "repeats": timed.repeats, "clock": "wall"},
    }


def _classified(deployed: Deployed, text: str | None, file: Path | None) -> dict[str, Any]:
    """What a classifier says to each sample."""
    from executor import infer  # noqa: PLC0415

    if deployed.facts.kind == "bytes":
        lines = (
            [_read(text, None)] if file is None else [each for each in _read(None, file).splitlines() if each.strip()]
        )
        if not lines:
            raise InputError(Fault("--file", "has no line to classify", str(file)))
        inputs, there = infer.texts(deployed, lines)
    elif file is None:
        raise InputError(Fault("--text", "this model classifies images; give them by --file IMAGES.npy"))
    else:
        inputs, there = infer.images(deployed, file), None
    likely = infer.classified(deployed, inputs, there)
    timed = infer.latency(lambda: infer.classified(deployed, inputs, there), len(inputs))
    names = deployed.facts.classes
    return {
        "samples": len(inputs),
        "predictions": [
            {"class": names[int(row.argmax())], "probability": float(row.max())} for row in likely
        ],
        "latency": {
            "of": f"{len(inputs)} samples", "median_s": timed.seconds, "repeats": timed.repeats, "clock": "wall",
        },
    }  # fmt: skip


def _read(text: str | None, file: Path | None) -> bytes:
    """The bytes of the sample."""
    from executor.infer import LARGEST  # noqa: PLC0415

    if file is None:
        return (text or "").encode()
    try:
        if file.stat().st_size > LARGEST:
            raise InputError(Fault(str(file), f"expected at most {LARGEST} bytes", file.stat().st_size))
        return file.read_bytes()
    except OSError as error:
        raise InputError(Fault(str(file), f"can't be read: {error.strerror}")) from None


def _sheet(data: dict[str, Any]) -> Sheet:
    timed = data["latency"]
    lines = [f"{data['model']} ({data['task']}, weights in {data['form']}, {human(data['stored_bytes'], 'B')})"]
    notes = (f"{timed['of']}: {human(timed['median_s'], 's')}, median of {timed['repeats']} by the wall clock",)
    if data["task"] == "language-model":
        if data["perplexity"] is not None:
            lines.append(f"Perplexity a byte of the {data['bytes']:,} bytes given: {data['perplexity']:.3f}")
        lines.append(f"Continued: {data['continuation']}")
        return Sheet("", (), [], tuple(lines), notes)
    found = data["predictions"]
    rows = [(str(i), each["class"], f"{PERCENT * each['probability']:.1f} %") for i, each in enumerate(found[:SHOWN])]
    more = (f"{len(found) - SHOWN} more with --json",) if len(found) > SHOWN else ()
    return Sheet("Predictions", ("sample", "class", "probability"), rows, tuple(lines), (*more, *notes))
