"""From the folder of a finished `plan train` to an exported model: whole weights, compressed as asked, judged again."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict_loader import load as load_checkpoint

from executor.data import Dataset
from executor.data import load as load_data
from executor.export import TASKS, Facts, export
from executor.exported import load
from executor.judge import batches, scores
from executor.methods import experts
from executor.model import build
from executor.model_file import model_toml, text_of
from executor.saved import found as saved
from executor.training.plan import plan_of
from executor.training.recipe import Recipe, of_table
from executor.training.weights import FINAL
from planner.compression.quantize import GROUP
from planner.errors import Fault, InputError
from planner.model import Model

FORM_OF = {"2:4": "2:4", "unstructured": "sparse", "int8": "int8", "int4": "int4", "fp8": "fp8"}
"""The form that a recipe's pruning pattern or quantization was trained for."""
SCALE = {"digits": 16.0, "arrays": 255.0}  # whole-number images are divided by it, as the data module does
LOADS = 16  # batches on which experts are chosen


@dataclass(frozen=True)
class Trained:
    """What a training left: its recipe, data and model, and whole `state` by canonical name."""

    recipe: Recipe
    data: Dataset
    model: Model
    state: dict[str, Tensor]


def deploy(run: Path, out: Path, form: str | None = None, keep: int = 0, *, merge: bool = False) -> dict[str, Any]:
    """Export the training in `run` to `out` and return the manifest; InputError when something doesn't fit.

    `form` None: what the recipe's compression was for, else fp32. `keep` experts of each mixture stay (0: all), the
    others are dropped or with `merge` merged. The metrics in the manifest are of the exported model, on test data.
    """
    found = trained(run)
    task = found.data.objective
    if task not in TASKS:
        raise InputError(Fault(str(run), f"a model for {task} can't be deployed; expected {' or '.join(TASKS)}"))
    facts = Facts(
        task=task,
        kind="bytes" if found.data.vocabulary else "images",
        shape=found.data.shape,
        classes=found.data.classes,
        scale=SCALE.get(found.data.kind, 1.0),
        data=found.data.fingerprint,
        history=_history(run),
    )
    form = form or _form(found.recipe.compression)
    model, state, maps = _fewer(found, keep, merge=merge) if keep else (found.model, found.state, None)
    named = found.recipe.model
    text = model_toml(model) if keep and not merge else text_of(found.model, named.shape, named.name)
    module = experts.built(found.model if merge else model, state, maps)
    example = next(iter(batches(_judged(found, module, facts), found.data.train, 2)))
    group = found.recipe.compression.get("quantize", {}).get("group", GROUP)
    how: dict[str, Any] = {"form": form, "maps": maps, "group": int(group)}
    export(out, text, state, facts, **how)
    metrics = scores(load(out), found.data.test if len(found.data.test) else found.data.validation)
    traced = (module, example[0]) if not example[2] else None
    return export(out, text, state, replace(facts, metrics=metrics), program=traced, **how)


def trained(run: Path) -> Trained:
    """Read what is in the folder of a training; InputError when it isn't finished or its data is gone."""
    there = saved(run / FINAL)
    if not there:
        expected = f"has no trained weights ({FINAL}/): expected the out folder of a finished `plan train`"
        raise InputError(Fault(str(run), expected))
    kept = there[0].manifest["recipe"]
    table = {name: each for name, each in kept["table"].items() if name != "compression"}
    recipe = of_table(table, Path(kept["file"]))
    data = load_data(recipe.data, recipe.run.seed)
    model = plan_of(recipe, data).setting.model
    module = build(model)
    state = {
        f"model.{name}": value
        for name, value in module.state_dict().items()
        if name != "head.output.weight" or not model.tied
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that one process reads, which is the point
        load_checkpoint(state, checkpoint_id=there[0].path, no_dist=True)
    whole = {name.removeprefix("model."): value for name, value in state.items()}
    compression = kept["table"].get("compression", {})
    return Trained(replace(recipe, compression=compression), data, model, whole)


def _fewer(found: Trained, keep: int, *, merge: bool) -> tuple[Model, dict[str, Tensor], experts.Map | None]:
    """The model with fewer experts, chosen by what the training data is routed to."""
    module = experts.built(found.model, found.state)
    deployed = _judged(found, module, Facts(found.data.objective, "bytes", found.data.shape))
    inputs = [each for each, _, _ in batches(deployed, found.data.train, 64 * LOADS)]
    loads = experts.routed(module, inputs)
    if merge:
        return experts.merge(found.model, found.state, loads, keep)
    return *experts.drop(found.model, found.state, loads, keep), None


def _judged(found: Trained, module: nn.Module, facts: Facts) -> Any:
    from executor.exported import Deployed  # noqa: PLC0415

    return Deployed(Path(), found.model, module, facts, {})


def _form(compression: Mapping[str, Any]) -> str:
    """What the weights were trained for."""
    pattern = compression.get("prune", {}).get("pattern", "unstructured" if "prune" in compression else "")
    wanted = compression.get("quantize", {}).get("form", "int8" if "quantize" in compression else pattern)
    return FORM_OF.get(wanted, "fp32")


def _history(run: Path) -> dict[str, Any]:
    """What training.json says of ranks, layout and methods."""
    try:
        told = json.loads((run / "training.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return {key: told[key] for key in ("strategy", "ranks", "methods", "final") if key in told}
