"""What a published run says of its stack."""

import pytest

from planner import stack
from planner.validate.translate import translate
from tests.planner.test_validate import MIXTURE, changed


@pytest.mark.parametrize(
    ("release", "recipe", "graphed"),
    [
        ("26.04", None, 0.0),
        ("26.06", None, 0.97),
        ("26.04", {"cuda_graph_impl": "transformer_engine", "cuda_graph_scope": "['attn', 'moe_router']"}, 0.7),
        ("26.04", {"cuda_graph_impl": "transformer_engine", "cuda_graph_scope": "['moe_router']"}, 0.25),
        ("26.08", {"moe_flex_dispatcher_backend": "hybridep"}, 0.0),
    ],
)
def test_graphs_take_over_launches(release, recipe, graphed):
    """What the recipe captures is launched once; mixtures of late releases whose source is silent run whole graphs."""
    run = changed(
        model={"arch_class": "moe", "moe": MIXTURE},
        parallel={"ep": 8},
        framework=f"NeMo/Megatron-Bridge container {release}",
    )
    run["extra"] = {"recipe": recipe}
    used, usual = translate(run).setting.stack, stack.load("nemo")
    assert used.kernel_gap == pytest.approx(usual.kernel_gap * (1 - graphed))
    assert used.launch_cost == pytest.approx(usual.launch_cost * (1 - graphed))
    assert used.expert_gap == pytest.approx(usual.expert_gap * (1 - graphed * (graphed == 0.97)))


@pytest.mark.parametrize(("words", "merged"), [("NeMo 25.04", False), ("Megatron-Core dev, DeepEP", True)])
def test_the_dispatcher_decides_what_travels(words, merged):
    """DeepEP and HybridEP send a token once to a node; a plain all-to-all once to each expert, after a wait."""
    run = changed(model={"arch_class": "moe", "moe": MIXTURE}, parallel={"ep": 8}, framework=words)
    used = translate(run).setting.stack
    assert used.merged_dispatch is merged
    assert (used.dispatch_gap > 0) is not merged
