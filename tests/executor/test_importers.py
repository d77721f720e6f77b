"""Formats of others, with samples written by us: what they say becomes measurements or a run."""

import gzip
from pathlib import Path

import pytest

from executor import importers
from executor.measure import measurement
from executor.measure.measurement import Measurement
from planner.errors import InputError

SAMPLES = Path(__file__).parent / "samples"


def test_nccl_tests_text():
    """Size, type and out-of-place time of each row but the wrong one; ranks and hosts from the devices."""
    rows = importers.load(SAMPLES / "all_reduce.txt").rows
    assert [row["bytes"] for row in rows] == [2**20, 2**23]
    first = rows[0]
    assert (first.kind, first.dtype, first.clock, first.name) == ("all_reduce", "fp32", "device", "Imaginary H900")
    assert first.seconds == pytest.approx(41.2e-6)
    assert (first["ranks"], first["stride"], first["nodes"]) == (4, 1, 2)


def test_nccl_tests_json():
    """The same from the JSON report; the program's name tells the collective."""
    rows = importers.load(SAMPLES / "alltoall.json").rows
    assert [(row.kind, row.dtype, row["ranks"]) for row in rows] == [("all_to_all", "bf16", 2)] * 2
    assert rows[1].seconds == pytest.approx(60e-6)


def test_older_text_is_told_by_its_file_name(tmp_path):
    """Before the line that names the test there was only the name of the file."""
    text = (SAMPLES / "all_reduce.txt").read_text().replace("# Collective test starting: all_reduce_perf\n", "")
    named = tmp_path / "all_gather_8.txt"
    named.write_text(text)
    assert importers.load(named).rows[0].kind == "all_gather"
    (tmp_path / "out.txt").write_text(text)
    with pytest.raises(InputError, match="all_reduce_perf"):
        importers.load(tmp_path / "out.txt")


def test_a_profiler_trace():
    """Kernels count for the operator that launched them; repeats are one row; NCCL kernels are collectives."""
    rows = {row.kind: row for row in importers.load(SAMPLES / "trace.json").rows}
    assert set(rows) == {"matmul", "attention", "grouped_matmul", "all_gather"}
    multiply = rows["matmul"]
    assert dict(multiply.sizes) == {"rows": 4096, "columns": 8192, "inner": 2048}
    assert multiply.seconds == pytest.approx(210e-6)
    assert (multiply.repeats, multiply.dtype, multiply.clock) == (2, "bf16", "device")
    assert dict(rows["attention"].sizes) == {"batch": 2, "heads": 16, "seq_len": 1024, "head_dim": 128}
    assert dict(rows["all_gather"].sizes) == {"bytes": 2 * 4194304, "ranks": 4, "stride": 2}


def test_a_compressed_trace_is_read_too(tmp_path):
    """The profiler writes .json.gz."""
    packed = tmp_path / "trace.json.gz"
    packed.write_bytes(gzip.compress((SAMPLES / "trace.json").read_bytes()))
    assert importers.load(packed).rows == importers.load(SAMPLES / "trace.json").rows


def test_a_trace_without_shapes_says_what_to_do(tmp_path):
    """record_shapes=True is what it lacks."""
    empty = tmp_path / "trace.json"
    empty.write_text('{"traceEvents": [{"ph": "X", "cat": "cpu_op", "name": "aten::mm", "dur": 3, "args": {}}]}')
    with pytest.raises(InputError, match="record_shapes=True"):
        importers.load(empty)


def test_a_megatron_log():
    """Steps, losses, the slowest rank's timers by phase, the largest reserved memory, the printed arguments."""
    log = importers.load(SAMPLES / "megatron.log").log
    assert [step.seconds for step in log.steps] == [9.0, 1.5, 1.51, 1.49, 1.5]
    assert log.steps[1].loss == pytest.approx(10.8)
    assert log.phases == pytest.approx({"forward": 0.41, "backward": 0.85, "data": 0.06, "optimizer": 0.031})
    assert log.peak_memory_bytes == 33000 * 2**20
    assert log.arguments["tensor_model_parallel_size"] == "2"


def test_a_torchtitan_log():
    """Rates and memory behind the colours."""
    log = importers.load(SAMPLES / "torchtitan.log").log
    assert [step.step for step in log.steps] == [1, 10, 20, 30, 40]
    assert log.steps[2].tokens_per_s == 8192
    assert log.steps[2].loss == pytest.approx(7.9)
    assert log.peak_memory_bytes == pytest.approx(40.25 * 2**30)


def test_our_own_rows_come_back(tmp_path):
    """Rows written as JSON lines are the same when read."""
    rows = [
        Measurement("copy", {"bytes": 1e6}, "fp32", 1e-4, "cpu", 0.02, 9, "a core", "test"),
        Measurement("launch", {}, "fp32", 2e-6, "cpu"),
    ]
    measurement.save(rows, tmp_path / "rows.jsonl")
    assert importers.load(tmp_path / "rows.jsonl").rows == tuple(rows)


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ('{"kind": "copi", "sizes": {"bytes": 1}, "seconds": 1}', "did you mean 'copy'"),
        ('{"kind": "copy", "sizes": {}, "seconds": 1}', "sizes.bytes: expected a positive number"),
        ('{"kind": "copy", "sizes": {"bytes": 1}, "seconds": -1}', "seconds is -1: expected a positive number"),
        ('{"kind": "copy", "sizes": {"bytes": 1}, "seconds": 1, "clok": "cpu"}', "clok"),
        ('{"kind": "copy", "sizes": {"bytes": 1}, "seconds": 1, "clock": "sun"}', "one of wall, cpu, device"),
        ('{"kind": "copy", "sizes": {"bytes": 1}, "seconds": 1', "is not JSON"),
        ("[1]", "object of a measurement"),
    ],
)
def test_a_broken_row_is_one_sentence(line, word):
    """Each fault of our own rows names its line."""
    with pytest.raises(InputError, match="rows:2") as caught:
        measurement.load(f"\n{line}\n", "rows")
    assert word in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"hello", b"{}", b"\x1f\x8bbroken", b"\xff\xfe\x00"])
def test_what_is_none_of_these_is_refused(tmp_path, content):
    """One sentence, whatever the bytes."""
    path = tmp_path / "odd"
    path.write_bytes(content)
    with pytest.raises(InputError, match="odd"):
        importers.load(path)
    with pytest.raises(InputError, match="does not exist"):
        importers.load(tmp_path / "nothing")
    with pytest.raises(InputError, match="directory"):
        importers.load(tmp_path)
