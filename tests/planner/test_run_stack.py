"""What a published run says of its stack."""

import tomllib
from dataclasses import replace
from importlib import resources

import pytest

from planner.estimate import estimate
from planner.recompute import MODULES
from planner.validate.translate import translate
from tests.planner.test_validate import MIXTURE, changed


@pytest.mark.parametrize(
    ("release", "recipe", "graphed"),
    [
        ("26.04", None, ()),
        ("26.06", None, ("all",)),
        ("26.04", {"cuda_graph_impl": "transformer_engine", "cuda_graph_scope": "['attn', 'moe_router']"}, None),
        ("26.04", {"cuda_graph_impl": "transformer_engine", "cuda_graph_scope": "['moe_router']"}, ("moe_router",)),
        ("26.04", {"cuda_graph_impl": "local"}, ("all",)),
        ("26.08", {"moe_flex_dispatcher_backend": "hybridep"}, ()),
    ],
)
def test_graphs_hold_what_the_recipe_names(release, recipe, graphed):
    """Scopes as stated; mixtures of late releases on GB200 whose source is silent run whole graphs."""
    run = mixture(f"NeMo/Megatron-Bridge container {release}")
    run["extra"] = {"recipe": recipe}
    run["hardware"] = {**run["hardware"], "gpu": "GB200", "gpus_per_node": 4}
    assert translate(run).setting.stack.graphed == (("attn", "moe_router") if graphed is None else graphed)


@pytest.mark.parametrize(
    ("words", "merged", "passes"),
    [("NeMo 25.04", False, 2.0), ("Megatron-Core dev, DeepEP", True, 1.0), ("Megatron-Core dev, HybridEP", True, 0.0)],
)
def test_the_dispatcher_decides_what_travels(words, merged, passes):
    """DeepEP and HybridEP send a token once to a node, HybridEP sorted; a plain all-to-all once to each expert."""
    used = translate(mixture(words)).setting.stack
    assert used.merged_dispatch is merged
    assert used.permute_traffic == passes


def test_a_plain_all_to_all_waits_for_counts():
    """The host waits for the counts of each expert layer, but not where experts have a fixed capacity."""
    known = translate(mixture("NeMo 25.04"))
    fixed = replace(known.setting, stack=replace(known.setting.stack, dispatch_gap=0.0))
    waits = estimate(known.setting, known.degrees).step.expert - estimate(fixed, known.degrees).step.expert
    assert waits > 0.0
    dropping = {**mixture("NeMo/Megatron-Bridge container 25.09"), "precision": "fp8"}
    dropping["model"] = {**dropping["model"], "name": "Qwen3-235B-A22B"}
    assert translate(dropping).setting.stack.dispatch_gap == 0.0


def test_a_published_recipe_speaks_for_a_silent_row():
    """DeepSeek-V3 of release 25.09 on H100 overlaps its all-to-all and recomputes what its recipe says."""
    run = mixture("NeMo/Megatron-Bridge container 25.09")
    run["model"] = {**run["model"], "name": "DeepSeek-V3-671B"}
    run["recompute"] = None
    found = translate(run).setting
    assert found.choices.recompute == "selective"
    assert found.stack.recomputed == ("mla_up_proj", "mlp")
    assert found.stack.expert_overlap > 0.0


def test_every_published_recipe_has_a_source():
    """Each entry says where it was read, what it matches, and names modules that recompute knows."""
    text = (resources.files("planner") / "data" / "recipes.toml").read_text(encoding="utf-8")
    entries = tomllib.loads(text)["recipes"]
    assert len(entries) > 10
    for entry in entries:
        assert {"source", "framework", "model", "gpu"} <= set(entry)
        assert set(entry.get("recompute_modules", ())) <= set(MODULES)


def mixture(framework):
    """A row of a mixture of experts on eight ranks of ep."""
    return changed(model={"arch_class": "moe", "moe": MIXTURE}, parallel={"ep": 8}, framework=framework)
