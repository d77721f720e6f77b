from collections import Counter

import pytest

pytest.importorskip("torch")

from torch.distributed.pipelining.schedules import _ComputationType as Kind

from executor.copies import canonical
from executor.pipeline import actions
from executor.spans import Recorder, recording
from executor.stages import contents
from executor.trainer import Trainer
from planner import schedules
from planner.layout import stage_counts
from planner.schedules import SCHEDULES
from planner.shape import Shape, build
from tests.executor import grid
from tests.executor.grid import WORKLOAD, Row, model

LAYOUTS = [("1f1b", 3, 1, 5), ("gpipe", 2, 1, 4), ("interleaved", 2, 3, 4), ("zb-h1", 4, 1, 6)]
LETTER = {"forward": "F", "backward": "B", "weight gradient": "W"}


def timed(row):
    """The actions of one step of a rank in the order they ran: (letter, micro-batch, stage)."""
    trainer = Trainer(model(row.shape), row.degrees, row.chosen, WORKLOAD)
    tokens = grid.random_tokens(trainer.model, WORKLOAD, 0)[list(trainer.rows)]
    with recording(Recorder()) as recorder:
        trainer.step(tokens)
    spans = [span for span in recorder.spans if span.micro_batch >= 0]
    odd = [span for span in spans if not (0.0 <= span.thread <= span.cpu + 1e-6 and span.start < span.end)]
    assert not odd, f"a span's thread used more than its process: {odd}"
    messages = Counter((span.kind, span.bytes) for span in recorder.spans if span.phase == "pipeline" and span.bytes)
    return [(LETTER[span.kind], span.micro_batch, span.stage) for span in spans], messages


@pytest.mark.parametrize(("name", "pp", "vpp", "micro_batches"), LAYOUTS)
def test_actions_are_the_program(name, pp, vpp, micro_batches):
    """Each action of the planner's program is one of torch, at its virtual stage; B alone is the whole backward."""
    program = schedules.get(name).program(pp, vpp, micro_batches)
    lowered = actions(name, pp, vpp, micro_batches)
    backward = Kind.BACKWARD_INPUT if name == "zb-h1" else Kind.FULL_BACKWARD
    kinds = {"F": Kind.FORWARD, "B": backward, "W": Kind.BACKWARD_WEIGHT}
    for rank, row in enumerate(program):
        expected = [(step.chunk * pp + rank, kinds[step.kind], step.micro_batch) for step in row]
        assert [tuple(action[:3]) for action in lowered[rank]] == expected


def test_every_schedule_has_a_layout_here():
    """A new schedule of the planner is one to run too."""
    assert {name for name, *_ in LAYOUTS} == set(SCHEDULES)


@pytest.mark.parametrize(("name", "vpp"), [("1f1b", 1), ("gpipe", 1), ("interleaved", 2), ("zb-h1", 1)])
def test_ranks_run_the_program_in_order(pool, name, vpp):
    """What a rank did, by its spans, is its program; and it sent one message for each boundary and micro-batch."""
    row = Row(name, "dense", 2, {"pp": 2, "vpp": vpp, "micro_batch": 2}, {"schedule": name})
    program = schedules.get(name).program(2, vpp, 4)
    for rank, (found, messages) in enumerate(pool.run(timed, row, ranks=2)):
        assert found == [(step.kind, step.micro_batch, step.chunk * 2 + rank) for step in program[rank]]
        size = 2 * WORKLOAD.seq_len * 32 * 4
        boundaries = 2 * vpp - 1  # a rank sends forward over some, backward over the others
        assert messages["send", size] == 4 * boundaries
        assert messages["receive", size] == 4 * boundaries


@pytest.mark.parametrize("shape", ["dense", "latent", "tied"])
@pytest.mark.parametrize(("pp", "vpp"), [(1, 1), (2, 1), (3, 1), (2, 2)])
def test_contents_are_the_layout(shape, pp, vpp):
    """Chunks hold what the planner counts on each stage, each piece once."""
    found = contents(model(shape), WORKLOAD.seq_len, pp, vpp)
    assert [index for each in found for index in each.layers] == list(range(4))
    assert [each.embedding for each in found] == [True] + [False] * (pp * vpp - 1)
    assert [each.head for each in found] == [False] * (pp * vpp - 1) + [True]
    ahead = model(shape).mtp_layers
    assert sum(each.mtp for each in found) == (1 if ahead else 0)
    assert found[-1].rows_out == 1 + ahead
    counts = stage_counts(model(shape), WORKLOAD.seq_len, pp, vpp)
    kinds = len(model(shape).kinds)
    for stage, row in enumerate(counts):
        assert sum(row[:kinds]) == sum(len(each.layers) for each in found[stage::pp])


def test_prediction_modules_stay_together():
    """A layout that would cut between two prediction modules is refused."""
    shape = grid.SHAPES["latent"]
    deep = build(Shape(**{**vars(shape), "mtp_layers": 3}))
    with pytest.raises(ValueError, match="prediction modules would stand on two"):
        contents(deep, WORKLOAD.seq_len, 8, 1)


def test_a_tied_matrix_has_one_name():
    """Checkpoints and gradients know a tied output matrix as the embedding."""
    assert canonical("head.output.weight", tied=True) == "embedding.tokens.weight"
    assert canonical("head.output.weight", tied=False) == "head.output.weight"
