"""The parts of the pages of a training and of a search: tiles, scores, a classification's report, every trial."""

from __future__ import annotations

from reports.markup import Html, banner, table, tag, tile
from reports.words import Json

SCORES = ("loss", "perplexity", "accuracy", "precision", "recall", "f1")


def header(training: Json) -> Html:
    """What was trained on what, and how it ended."""
    model, strategy, data = training["model"], training["strategy"], training["data"]
    axes = ", ".join(f"{axis} {strategy[axis]}" for axis in ("tp", "pp", "cp", "ep", "dp") if strategy[axis] > 1)
    context = f"{training['ranks']} ranks ({axes or 'one process'}) · {strategy['optimizer']} · {data['objective']}"
    return banner(
        tag("p", "Training", class_="eyebrow"),
        tag("h1", str(model["name"])),
        tag("p", context, class_="context"),
        tag("p", _answer(training), class_="lead"),
        tag("dl", *_tiles(training), class_="tiles"),
    )


def scores(training: Json) -> Html:
    """Every score of each split at the end."""
    final = training.get("final") or {}
    shown = [key for key in SCORES if any(key in row for row in final.values())]
    rows = [[name, f"{row['samples']:,}", *(f"{row[key]:.4f}" for key in shown)] for name, row in final.items()]
    head = ("split", "samples", *shown)
    return table(head, rows, "Scores at the end", range(1, len(head))) if rows else Html("")


def report(training: Json) -> Html:
    """Precision, recall, F1 and support of each class, of the test split where there is one."""
    final = training.get("final") or {}
    found = (final.get("test") or final.get("validation") or {}).get("report")
    if not found:
        return Html("")
    keys = ("precision", "recall", "f1-score", "support")
    rows = [
        [name, *(f"{row[key]:.0f}" if key == "support" else f"{row[key]:.4f}" for key in keys)]
        for name, row in found.items()
        if isinstance(row, dict)
    ]
    return table(("class", *keys), rows, "Report of the classification", range(1, 5))


def forgetting(training: Json) -> Html:
    """Scores on the data that the first weights were trained on, before and after."""
    found = training.get("forgetting")
    if not found:
        return Html("")
    rows = [[key, f"{found['before'][key]:.4f}", f"{found['after'][key]:.4f}"] for key in found["before"]]
    return table(("score on the old data", "before", "after"), rows, "What was forgotten", range(1, 3))


def search_header(tuning: Json) -> Html:
    """What was searched and found."""
    best = tuning["best"]
    values = [tile(name.replace("_", " "), f"{value:g}", "of the best trial") for name, value in best["values"].items()]
    return banner(
        tag("p", "Search of hyper-parameters", class_="eyebrow"),
        tag("h1", f"{len({trial['number'] for trial in tuning['trials']})} trials by successive halving"),
        tag("p", f"The best reaches a validation loss of {best['loss']:.3f}.", class_="lead"),
        tag("dl", *values, class_="tiles"),
    )


def trials(tuning: Json) -> Html:
    """One row a trial and rung, the longest and best first."""
    names = list(tuning["searched"])
    ordered = sorted(tuning["trials"], key=lambda each: (-each["steps"], each["loss"] is None, each["loss"]))
    rows = [
        [
            str(trial["number"]),
            *(f"{trial['values'][name]:g}" for name in names),
            f"{trial['steps']:,}",
            "failed" if trial["loss"] is None else f"{trial['loss']:.4f}",
        ]
        for trial in ordered
    ]
    head = ("trial", *(name.replace("_", " ") for name in names), "steps", "validation loss")
    return table(head, rows, "Trials", range(len(head)))


def _answer(training: Json) -> str:
    if training["stopped"]:
        return f"Stopped by a signal after step {training['curve'][-1]['step']:,}; it can be resumed."
    name = "test" if "test" in training["final"] else "validation"
    if name not in training["final"]:
        return f"{len(training['curve']):,} steps are done; no sample was held out."
    row = training["final"][name]
    early = f" It stopped early and kept step {training['best']['step']:,}." if training["stopped_early"] else ""
    return f"A {name} loss of {row['loss']:.3f} and an accuracy of {100 * row['accuracy']:.1f} %.{early}"


def _tiles(training: Json) -> list[Html]:
    curve, data = training["curve"], training["data"]
    seconds = sum(row["wall_s"] for row in curve)
    return [
        tile("Parameters", f"{training['model']['parameters']:,}", f"{training['model']['active']:,} active"),
        tile("Samples", f"{data['train']:,}", f"{data['validation']:,} validation, {data['test']:,} test"),
        tile("Steps", f"{len(curve):,}", f"{seconds:.1f} s in steps"),
        tile("Last training loss", f"{curve[-1]['loss']:.3f}", f"from {curve[0]['loss']:.3f}"),
    ]
