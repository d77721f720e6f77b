"""From a Hugging Face configuration to a shape, by its `model_type`."""

from __future__ import annotations

from typing import Any

from hwprofiles.faults import Fault, InputError, nearest
from planner.families import deepseek, dense, encoder, experts, gemma, gpt, llama4, resnet
from planner.families.reader import Config, Family, Reader
from planner.residual_network import ResidualNetwork
from planner.shape import Shape

ALL = (
    *dense.FAMILIES,
    *gemma.FAMILIES,
    *gpt.FAMILIES,
    *experts.FAMILIES,
    *deepseek.FAMILIES,
    *llama4.FAMILIES,
    *encoder.FAMILIES,
    *resnet.FAMILIES,
)
REGISTRY: dict[str, Family] = {model_type: family for family in ALL for model_type in family.model_types}
REFUSED = {
    "switch_transformers": "an encoder-decoder; only decoder-only models are planned",
    "t5": "an encoder-decoder; only decoder-only models are planned",
    "deepseek_v4": "its compressed attention and hyper-connections have no layer kind here",
    "deepseek_v32": "its sparse-attention indexer has no layer kind here",
    "qwen3_next": "its gated delta-rule attention has no layer kind here",
    "kimi_linear": "its delta attention has no layer kind here",
    "mamba2": "state-space layers have no layer kind here",
    "nemotron_h": "state-space layers have no layer kind here",
    "jamba": "state-space layers have no layer kind here",
}
"""Why a known `model_type` can't be counted."""


def shape_of_config(config: Config, where: str, name: str, assume: str | None = None) -> Shape | ResidualNetwork:
    """The hyper-parameters of a configuration; `assume` reads it as another `model_type`.

    Raises InputError with all faults. Of a multimodal configuration only the text decoder is counted.
    """
    text: Any = config.get("text_config")
    inner: dict[str, Any] = dict(text) if isinstance(text, dict) else dict(config)
    if inner.get("tie_word_embeddings") is None and config.get("tie_word_embeddings") is not None:
        inner["tie_word_embeddings"] = config["tie_word_embeddings"]
    found = inner.get("model_type", config.get("model_type"))
    family = _family(found, inner, where, assume)
    inner["model_type"] = assume or found
    reader = Reader(inner, where, name)
    shape = family.read(reader)
    reader.close()
    return shape


def _family(found: object, config: Config, where: str, assume: str | None) -> Family:
    wanted = assume or found
    if isinstance(wanted, str) and wanted in REGISTRY:
        return REGISTRY[wanted]
    place = "assume" if assume else f"{where}: model_type"
    close = nearest(wanted, REGISTRY) if isinstance(wanted, str) else None
    if isinstance(wanted, str) and wanted in REFUSED:
        raise InputError(Fault(place, REFUSED[wanted], wanted))
    if assume:
        raise InputError(Fault(place, f"expected one of {', '.join(sorted(REGISTRY))}", wanted, close))
    keys = ", ".join(sorted(config)[:40]) or "none"
    expected = f"no such family; assume one of {', '.join(sorted(REGISTRY))}. Keys found: {keys}"
    raise InputError(Fault(place, expected, wanted, close))
