"""What a stage holds at its fullest moment: the loss, a layer at work or the update; and what software adds to it."""

from dataclasses import replace

import pytest

from planner.estimate import estimate, units
from planner.layers.base import Core, Linear, Pointwise
from planner.memory.activations import layer_activations, part_activations
from planner.sharding import held
from planner.strategy import Choices, Degrees, Workload
from tests.planner.models import DENSE, LATENT, LLAMA_405B, MOE, setting

SEQ = 2048
SELECTIVE = Choices(recompute="selective")


def with_stack(shape, gpus=8, choices=Choices(), **changes):  # noqa: B008  a frozen value
    """A setting of `shape` whose stack differs in `changes`."""
    where = setting(shape, gpus, choices, Workload(SEQ, 64, 1e9))
    return replace(where, stack=replace(where.stack, **changes))


def kept(shape, modules, kind=0):
    """Bytes a token in a layer of one kind without recompute, and with the selective one of `modules`."""
    where = with_stack(shape, choices=SELECTIVE, recomputed=modules)
    layer = where.model.kinds[kind]
    return tuple(layer_activations(layer, where, Degrees(8), how) / SEQ for how in ("none", "selective"))


def part(where, name, kind=0):
    """A part of a layer by its name."""
    return next(part for part in where.model.kinds[kind].parts if part.name == name)


def test_recomputed_norms_drop_their_outputs():
    """The inputs of attention and of the feed-forward block, two bytes a channel each."""
    plain, lean = kept(DENSE, ("layernorm",))
    assert plain - lean == 2 * 2 * DENSE.hidden


def test_recomputed_activations_drop_the_input_of_the_last_matrix():
    """Of a dense block by `mlp_act`, of experts by `moe_act`, each alone."""
    plain, lean = kept(DENSE, ("mlp_act",))
    assert plain - lean == 2 * DENSE.ffn
    plain, lean = kept(MOE, ("moe_act",), kind=1)
    assert plain - lean == pytest.approx(2 * MOE.topk * MOE.moe_ffn)
    assert len(set(kept(DENSE, ("moe_act",)))) == 1


def test_a_recomputed_block_keeps_its_input_alone():
    """`mlp`: activation inputs and output go; `moe`: everything behind the router's input."""
    plain, lean = kept(DENSE, ("mlp",))
    assert plain - lean == 2 * (2 + 1) * DENSE.ffn
    where = with_stack(MOE, choices=SELECTIVE, recomputed=("moe",))
    inner = [p for p in where.model.kinds[1].parts if getattr(p, "expert", False) or p.name == "router_scores"]
    assert inner
    assert all(part_activations(p, where, Degrees(8), selective=True) == 0 for p in inner)
    assert part_activations(part(where, "router", 1), where, Degrees(8), selective=True) > 0


def test_recomputed_up_projections_drop_queries_keys_and_values():
    """MLA keeps the latents before their norms, nothing that the up-projections read or make."""
    where = with_stack(LATENT, choices=SELECTIVE, recomputed=("mla_up_proj",))
    core = next(p for p in where.model.kinds[0].parts if isinstance(p, Core))
    assert part_activations(core, where, Degrees(8), selective=True) == 4 * core.heads * SEQ
    ups = [part(where, name) for name in ("q_up", "kv_up")]
    assert all(part_activations(up, where, Degrees(8), selective=True) == 0 for up in ups)


def test_op_level_recompute_keeps_every_second_multiply():
    """torchtitan's list by hand: layer input, q, v, attention output and its statistics, gate, down."""
    _, lean = kept(DENSE, ("matmuls",))
    head_dim = DENSE.hidden // DENSE.heads
    widths = 4 * DENSE.hidden + DENSE.kv_heads * head_dim + DENSE.ffn
    assert lean == 2 * widths + 4 * DENSE.heads


def test_a_checkpoint_policy_keeps_the_outputs_it_names():
    """The layer's input, then queries, keys and values, and what attention and the block hand on, cut as they are."""
    where = with_stack(DENSE, choices=SELECTIVE, kept_outputs=("qkv", "down"))
    heads = DENSE.hidden + 2 * DENSE.kv_heads * DENSE.hidden // DENSE.heads
    for tp in (1, 2):
        found = layer_activations(where.model.kinds[0], where, Degrees(8, tp=tp), "selective")
        assert found == 2 * SEQ * (2 * DENSE.hidden + heads) / tp


def test_low_precision_keeps_the_attention_output_twice():
    """The fused kernel needs it in bf16, the output matrix in fp8; in bf16 it is one tensor."""
    found = {}
    for precision in ("bf16", "fp8"):
        where = with_stack(DENSE, choices=Choices(precision=precision))
        core = next(p for p in where.model.kinds[0].parts if isinstance(p, Core))
        found[precision] = part_activations(core, where, Degrees(8), selective=False)
    assert found["fp8"] - found["bf16"] == 2 * DENSE.hidden * SEQ


def test_eager_gates_keep_the_activated_half_too():
    """One more tensor of the width of the block where the gate is not one kernel."""
    fused, eager = (with_stack(DENSE, fused_pointwise=fused) for fused in (True, False))
    sizes = [layer_activations(where.model.kinds[0], where, Degrees(8), "none") for where in (fused, eager)]
    assert sizes[1] - sizes[0] == 2 * DENSE.ffn * SEQ


def test_logits_are_counted_once():
    """A wider vocabulary adds to the logits what the stack says, and to the activations nothing."""
    small, large = (estimate(with_stack(replace(DENSE, vocab=v)), Degrees(8)).stages[0] for v in (4096, 8192))
    assert large.activations == small.activations
    assert large.logits - small.logits == with_stack(DENSE).stack.logit_bytes * SEQ * 4096


def test_a_vocabulary_cut_by_tp_may_cost_more():
    """`cut_logit_bytes` a logit with tp, `logit_bytes` without."""
    where = with_stack(DENSE, logit_bytes=12.0, cut_logit_bytes=16.0)
    assert estimate(where, Degrees(8)).stages[0].logits == 12 * SEQ * DENSE.vocab
    assert estimate(where, Degrees(8, tp=2)).stages[0].logits == 16 * SEQ * DENSE.vocab / 2


@pytest.mark.parametrize(("gated", "tensors"), [(True, 3), (False, 2)])
def test_an_activation_at_work_holds_its_gradients(gated, tensors):
    """Of its output and of each input, in two bytes, cut by tp; without anything to recompute or exchange."""
    where = with_stack(replace(DENSE, gated=gated, vocab=8))
    for tp in (1, 2):
        stage = estimate(where, Degrees(8, tp=tp)).stages[0]
        gathered = 2 * 2 * SEQ * DENSE.hidden * (tp > 1)
        loss = where.stack.logit_bytes * SEQ * 8 / tp
        assert stage.workspace + loss == tensors * 2 * SEQ * DENSE.ffn / tp + gathered


def test_the_loss_and_a_layer_at_work_take_turns():
    """The workspace counts only what it needs beyond the logits; stages without a head need all of it."""
    where = with_stack(LLAMA_405B, 64, unfused_gradient=5.0)
    first, *_, last = estimate(where, Degrees(64, tp=8, pp=8)).stages
    work = first.workspace
    assert (first.logits, last.logits > 0) == (0, True)
    assert last.workspace == pytest.approx(max(work - last.logits, 0))


def test_an_unfused_gradient_is_one_matrix_more():
    """The largest matrix of a layer on the rank, gate and up together, five bytes a value."""
    plain, unfused = (with_stack(LLAMA_405B, 64, unfused_gradient=size) for size in (0.0, 5.0))
    found = [estimate(where, Degrees(64, tp=8, pp=8)).stages[0].workspace for where in (plain, unfused)]
    assert found[1] - found[0] == 5 * 2 * LLAMA_405B.hidden * LLAMA_405B.ffn / 8


def test_full_recompute_works_on_one_whole_layer():
    """Beside the kept inputs a layer's other activations exist once, and the gradients around its gate."""
    where = with_stack(DENSE, 16, Choices(recompute="full"))
    layer = where.model.kinds[0]
    none, full = (layer_activations(layer, where, Degrees(16), how) for how in ("none", "full"))
    stage = estimate(where, Degrees(16, pp=2)).stages[0]
    sends = 4 * 2 * SEQ * DENSE.hidden
    gradients = 3 * 2 * SEQ * DENSE.ffn
    assert stage.workspace == none - full + gradients + sends


def test_the_update_may_be_the_fullest_moment():
    """Then its temporaries count, a sharded parameter each, and no activations beside them."""
    where = with_stack(DENSE, update_bytes=1e6)
    degrees = Degrees(8)
    stage = estimate(where, degrees).stages[0]
    parameters = sum(held(layer, degrees).dense for layer in where.model.stack())
    states = (2 + where.stack.gradient_bytes + 12 / 8) * parameters
    assert stage.total - stage.framework == pytest.approx(states + 1e6 * parameters / 8)
    small = with_stack(DENSE, update_bytes=1e-6)
    assert estimate(small, degrees).stages[0] == estimate(with_stack(DENSE), degrees).stages[0]


def test_fsdp_under_a_pipeline_may_keep_what_it_gathered():
    """Two bytes of weight and four of gradient for each parameter that lives on other ranks."""
    lean, kept_ = (with_stack(DENSE, choices=Choices(zero=3), keeps_gathered=keeps) for keeps in (False, True))
    degrees = Degrees(8, pp=2)
    one, other = (estimate(where, degrees).stages[0] for where in (lean, kept_))
    away = one.parameters / 2 * (degrees.dp - 1)
    assert other.parameters - one.parameters == pytest.approx(2 * away)
    assert other.gradients - one.gradients == pytest.approx(4 * away)
    assert estimate(lean, Degrees(8)).peak == estimate(kept_, Degrees(8)).peak


def test_gradients_in_memory_may_differ_from_those_that_travel():
    """`held_gradient` counts all copies and leaves the step time alone."""
    plain, double = with_stack(DENSE), with_stack(DENSE, held_gradient=8.0)
    found = [estimate(where, Degrees(8)) for where in (plain, double)]
    assert found[1].stages[0].gradients / found[0].stages[0].gradients == 8 / plain.stack.gradient_bytes
    assert found[0].step == found[1].step


def test_every_extra_prediction_has_logits_of_its_own():
    """A multi-token-prediction module keeps as many logits as the head."""
    plain, more = (with_stack(replace(MOE, mtp_layers=layers)) for layers in (0, 1))
    one, two = (estimate(where, Degrees(8)).stages[0].logits for where in (plain, more))
    assert two == 2 * one


def test_embedding_and_head_are_never_recomputed():
    """Their columns keep the same bytes under every choice."""
    for how in ("selective", "full"):
        where = with_stack(DENSE, choices=Choices(recompute=how))
        plain = units(with_stack(DENSE), Degrees(8))
        for mine, theirs in list(zip(units(where, Degrees(8)), plain, strict=True))[1:3]:
            assert (mine.memory.saved, mine.memory.work) == (theirs.memory.saved, theirs.memory.work)
    assert any(isinstance(p, Linear | Pointwise) for p in where.model.head.parts)
