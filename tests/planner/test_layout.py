"""Layers on stages: every layer once, balanced, ragged pipelines included."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.layout import chain, cut, layer_kinds, layout, stack, stage_counts, weights
from tests.planner.models import KIMI_K2, LATENT, SMALL, model

SHAPES = (*SMALL, KIMI_K2)


@given(st.sampled_from(SHAPES), st.integers(1, 64), st.integers(1, 8))
def test_every_layer_stands_exactly_once(shape, pp, vpp):
    """The stages together hold the chain, and each chunk has a layer of its own."""
    whole = model(shape)
    columns = chain(whole)
    if pp * vpp > len(columns):
        return
    found = np.array(stage_counts(whole, 4096, pp, vpp))
    assert found.shape == (pp, len(layer_kinds(whole)))
    expected = Counter(columns)
    assert found.sum(axis=0).tolist() == [expected[kind] for kind in range(found.shape[1])]
    assert found.sum(axis=1).min() >= vpp


@given(st.sampled_from(SHAPES), st.integers(1, 16), st.integers(1, 4))
def test_shapes_stand_for_the_stages(shape, pp, vpp):
    """Each stage holds no more of any kind than some shape of the layout that stands no later; each shape is real."""
    whole = model(shape)
    if pp * vpp > len(chain(whole)):
        return
    stages = stage_counts(whole, 4096, pp, vpp)
    found = layout(whole, 4096, pp, vpp)
    shapes = list(zip(found.counts, found.stage, strict=True))
    assert all(stages.index(counts) == rank for counts, rank in shapes)
    for rank, counts in enumerate(stages):
        assert any(first <= rank and np.all(np.array(most) >= counts) for most, first in shapes)
    assert found.total == tuple(np.sum(stages, axis=0))


@given(st.lists(st.floats(0.1, 10.0), min_size=1, max_size=40), st.integers(1, 12))
def test_the_cut_is_contiguous_and_optimal(load, chunks):
    """Pieces are in order, none is empty, and the heaviest is as light as a contiguous cut allows."""
    chunks = min(chunks, len(load))
    ends = cut(load, chunks)
    assert len(ends) == chunks
    assert ends == sorted(set(ends))
    assert ends[-1] == len(load)
    pieces = [sum(load[a:b]) for a, b in zip([0, *ends[:-1]], ends, strict=True)]
    assert max(pieces) <= least_maximum(load, chunks) * (1 + 1e-9)


def least_maximum(load, chunks):
    """The least possible weight of the heaviest of `chunks` contiguous pieces, by dynamic programming."""
    total = np.concatenate(([0.0], np.cumsum(load)))
    best = total[1:].copy()
    for count in range(1, chunks):
        best = np.array(
            [
                min((max(best[j - 1], total[i + 1] - total[j]) for j in range(count, i + 1)), default=np.inf)
                for i in range(len(load))
            ]
        )
    return best[-1]


@pytest.mark.parametrize("pp", [1, 2, 4, 8, 16, 32, 61])
def test_equal_layers_balance_to_the_ceiling(pp):
    """61 equal items over pp stages: no stage holds more than ceil(61 / pp)."""
    ends = np.array([0, *cut([1.0] * 61, pp)])
    assert np.diff(ends).max() == -(-61 // pp)


def test_a_ragged_pipeline_spares_its_first_stage():
    """The remainder falls on the first stage, which holds the most micro-batches."""
    ends = np.array([0, *cut([1.0] * 61, 8)])
    assert np.diff(ends).tolist() == [5, *[8] * 7]


def test_prediction_modules_stand_before_the_head():
    """The chain is embedding, layers, MTP, head; MTP weighs the output matrix once more."""
    whole = model(LATENT)
    columns = chain(whole)
    names = [layer_kinds(whole)[column].name for column in columns]
    assert (names[0], names[-2:]) == ("embedding", ["mtp", "head"])
    weight = weights(whole, 4096)
    own = whole.mtp.linear_flops() + whole.mtp.attention_flops(4096, causal=True)
    assert weight[-1] == own + whole.head.linear_flops()


def test_a_batch_of_layouts_repeats_the_last_shape():
    """Padding repeats a stage shape, so maxima stay what they are."""
    whole = model(LATENT)
    every = [layout(whole, 4096, pp, 1) for pp in (1, 2, 3, 4)]
    found = stack(every, np.array([3, 0, 2, 1]))
    assert found.total == every[0].total
    for row, alone in enumerate((every[3], every[0], every[2], every[1])):
        shapes = {
            (tuple(int(column[row]) for column in counts), int(stage[row]))
            for counts, stage in zip(found.counts, found.stage, strict=True)
        }
        assert shapes == set(zip(alone.counts, alone.stage, strict=True))
