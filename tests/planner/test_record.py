import copy
import json

import pytest

from planner.errors import InputError
from planner.record import Check, Event, Phases, Record, Step, read

RECORD = Record(
    origin="measured",
    plan={"schema_version": 1},
    ranks=2,
    steps=(Step(1, 5.5, 0.25, (0.2, 0.1)), Step(2, None, 0.25, (0.2, 0.1))),
    phases=Phases(0.1, 0.2, 0.01, {"data": 0.02}, 0.0),
    peak_memory_bytes=(1e8, 2e8),
    check=Check(0.0, 1e-7),
    events=(Event(0, "compute", "forward", 0.0, 0.1),),
    provenance={"device": "cpu"},
    proxy={"kept": ["pp"]},
)


def test_a_record_comes_back_from_its_file(tmp_path):
    """Written and read, with and without a check, it is the same record."""
    path = tmp_path / "record.json"
    path.write_text(json.dumps(RECORD.to_json()), encoding="utf-8")
    assert read(path) == RECORD
    data = RECORD.to_json() | {"check": None, "events": []}
    assert Record.from_json(json.loads(json.dumps(data))).check is None


def test_what_is_added_later_is_ignored():
    """A newer tool may write more fields, at the top and in each row."""
    data = json.loads(json.dumps(RECORD.to_json()))
    data["colour"] = "blue"
    data["steps"][0]["tokens"] = 7
    assert Record.from_json(data) == RECORD


@pytest.mark.parametrize(
    ("keys", "value", "told"),
    [
        (("schema_version",), 2, "schema_version is 2: expected 1"),
        (("origin",), "guessed", "origin is 'guessed': expected one of measured, simulated"),
        (("ranks",), 0, "ranks is 0: expected a whole number"),
        (("plan",), [], "plan is []: expected an object"),
        (("steps", 0, "wall_s"), "fast", "expected a list of objects with step, loss, wall_s, cpu_s"),
        (("steps", 0, "cpu_s"), 1.0, "steps is "),
        (("events", 0, "end"), None, "expected a list of objects with rank, stream, kind, start, end"),
        (("phases", "bubble"), -1.0, "expected an object with numbers from 0 under forward"),
        (("phases", "collectives"), {"data": "much"}, "expected an object with numbers from 0 under forward"),
        (("check", "loss_error"), True, "expected an object with numbers from 0 under loss_error"),
        (("peak_memory_bytes",), {}, "peak_memory_bytes is {}: expected one number for each rank"),
    ],
)
def test_a_wrong_value_is_named(keys, value, told):
    """Each fault names the file, the key, what is there and what is expected."""
    data = json.loads(json.dumps(RECORD.to_json()))
    place = data
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    with pytest.raises(InputError) as caught:
        Record.from_json(data, "r.json")
    assert told in str(caught.value)
    assert all(fault.where.startswith("r.json: ") for fault in caught.value.faults)


def test_all_faults_are_told_at_once(tmp_path):
    """Three wrong keys are three faults, and a file that is none is one sentence."""
    data = copy.deepcopy(RECORD.to_json()) | {"ranks": "two", "plan": 1, "origin": None}
    with pytest.raises(InputError) as caught:
        Record.from_json(data)
    assert len(caught.value.faults) == 3
    with pytest.raises(InputError, match="plan run --out"):
        read(tmp_path / "none.json")
