"""Quantities: units, their limits, and the way back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwprofiles import quantity
from hwprofiles.faults import InputError

READ = [
    ("80 GB", "bytes", 80e9),
    ("80GiB", "bytes", 80 * 2**30),
    ("81559 MiB", "bytes", 81559 * 2**20),
    ("8 Gb", "bytes", 1e9),
    ("400 Gb/s", "bytes/s", 50e9),
    ("400Gbps", "bytes/s", 50e9),
    ("450 GB/s", "bytes/s", 450e9),
    ("989 TFLOP/s", "flop/s", 989e12),
    ("1.5 PFLOPS", "flop/s", 1.5e15),
    ("2.8 us", "seconds", 2.8e-6),
    ("2.8 µs", "seconds", 2.8e-6),
    ("2.8 \u03bcs", "seconds", 2.8e-6),
    ("90 d", "seconds", 90 * 86400),
    ("3 min", "seconds", 180),
    ("1.4 kW", "watts", 1400),
    ("2 MW", "watts", 2e6),
    ("$5.6M", "usd", 5.6e6),
    ("5.6M USD", "usd", 5.6e6),
    ("$ 2.5 /h", "usd/s", 2.5 / 3600),
    ("2.5 USD/h", "usd/s", 2.5 / 3600),
    ("15T", "count", 15e12),
    ("15T tokens", "count", 15e12),
    ("10k", "count", 10e3),
    ("671B", "count", 671e9),
    ("16384", "count", 16384),
]
REFUSED = [
    ("400Gb/s", "bytes", "rate"),
    ("80 GB", "bytes/s", "bytes"),
    ("80", "bytes", "a unit is needed"),
    ("-80 GB", "bytes", "negative"),
    ("-0 GB", "bytes", "negative"),
    ("nan GB", "bytes", "a number"),
    ("inf GB", "bytes", "a number"),
    ("1e999 GB", "bytes", "finite"),
    ("80 gb", "bytes", "not a unit"),
    ("80 Gib/s", "bytes", "rate"),
    ("989 TFLOP", "flop/s", "not a unit"),
    ("12 hours", "seconds", "not a unit"),
    ("$2.5", "usd/s", "usd"),
    ("$2.5/h", "usd", "rate"),
    ("2.5 USD/", "usd", "not a unit"),
    ("15X", "count", "not a unit"),
    ("", "bytes", "a number"),
    ("GB", "bytes", "a number"),
]


@pytest.mark.parametrize(("text", "dimension", "value"), READ)
def test_a_quantity_is_read_in_si(text, dimension, value):
    """Bits and bytes, decimal and binary prefixes, rates, time, power and money all become SI."""
    assert quantity.parse(text, dimension) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(("text", "dimension", "reason"), REFUSED)
def test_a_wrong_quantity_is_refused_in_one_sentence(text, dimension, reason):
    """The refusal names the place, says what is wrong, and gives an example of what is expected."""
    with pytest.raises(InputError) as caught:
        quantity.parse(text, dimension, "plan.toml:memory")
    (fault,) = caught.value.faults
    assert reason in str(fault)
    assert fault.where == "plan.toml:memory"
    assert "such as" in str(fault)
    assert "\n" not in str(fault)


def test_a_unit_in_wrong_capitals_gets_a_hint():
    """Units are case-sensitive, and a near miss is answered with a unit that exists."""
    with pytest.raises(InputError) as caught:
        quantity.parse("989 tflop/s", "flop/s")
    assert caught.value.faults[0].nearest == "TFLOP/s"


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (80e9, "B", "80.0 GB"),
        (989e12, "FLOP/s", "989 TFLOP/s"),
        (3.35e12, "B/s", "3.35 TB/s"),
        (999.7e9, "B", "1.0 TB"),
        (1.2, "s", "1.2 s"),
        (2.8e-6, "s", "2.8 µs"),
        (59.99, "s", "1.0 min"),
        (12.3 * 86400, "s", "12.3 d"),
        (5.6e6, "USD", "$5.6M"),
        (1.2e9, "USD", "$1.2B"),
        (2.95 / 3600, "USD/s", "$2.95/h"),
        (700.0, "W", "700 W"),
        (15e12, "", "15.0T"),
        (0.0, "B", "0 B"),
        (-1.2, "s", "-1.2 s"),
        (float("inf"), "s", "inf s"),
    ],
)
def test_a_quantity_is_written_for_people(value, unit, text):
    """Three digits, a prefix, and the unit."""
    assert quantity.format(value, unit) == text


UNITS = {"B": "bytes", "B/s": "bytes/s", "FLOP/s": "flop/s", "s": "seconds", "W": "watts", "USD": "usd"}


@given(st.sampled_from(sorted(UNITS)), st.floats(1e-3, 9.9e14))
def test_what_is_written_is_read_back(unit, value):
    """format, then parse, keeps a quantity to its three digits."""
    if unit == "W":
        value = min(value, 9e8)
    assert quantity.parse(quantity.format(value, unit), UNITS[unit]) == pytest.approx(value, rel=6e-3)


@given(st.text(max_size=12), st.sampled_from(sorted(quantity.EXAMPLES)))
def test_any_text_is_a_value_or_an_input_error(text, dimension):
    """No text makes the reader fall over: a non-negative finite value, or a refusal."""
    try:
        value = quantity.parse(text, dimension)
    except InputError:
        return
    assert 0 <= value < float("inf")
