"""A sweep of small models on one node, read from its CSV."""

import pytest

from planner.errors import InputError
from planner.validate.read import read
from planner.validate.score import validate
from planner.validate.translate import translate

SWEEP = "# GPUs,global batch,micro batch,hidden size,attention heads,# layers,sequence length,tensor parallelism,"
SWEEP += "data parallelism,pipeline parallelism,iteration time (ms)\n"


def test_a_sweep_on_one_node_is_read(tmp_path):
    """A line of the CSV is a run of a small GPT on A100s, with its measured step."""
    file = tmp_path / "sweep.csv"
    file.write_text(SWEEP + "8,32,4,1024,16,24,1024,2,2,2,219.7\n")
    (row,) = validate(file)["rows"]
    assert row["status"] == "ok"
    assert row["measured_step_s"] == pytest.approx(0.2197)
    assert row["regime"] == "ampere-small"
    plan = translate(read(file)[0])
    assert (plan.degrees.tp, plan.degrees.pp, plan.degrees.dp, plan.degrees.micro_batch) == (2, 2, 2, 4)
    assert plan.setting.model.total_parameters() == pytest.approx(24 * 12 * 1024**2 + 2 * 51_200 * 1024, rel=0.02)
    assert plan.setting.stack.name == "megatron-deepspeed-2023"


def test_a_bad_sweep_is_refused(tmp_path):
    """Missing columns are named; every bad line is."""
    file = tmp_path / "sweep.csv"
    file.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="needs the columns GPUs, global batch"):
        read(file)
    file.write_text(SWEEP + "8,32\n" + "8,x,4,1024,16,24,1024,2,2,2,219.7\n")
    with pytest.raises(InputError) as caught:
        read(file)
    assert [fault.where.rsplit(": ", 1)[1] for fault in caught.value.faults] == ["line 2", "line 3"]
