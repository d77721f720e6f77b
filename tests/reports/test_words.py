import pytest

from reports import words


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (words.seconds(0.0683), "68.3 ms"),
        (words.seconds(2160000), "25.0 days"),
        (words.span(1.06, 1.24), "1.06 to 1.24 s"),
        (words.span(0.95, 1.05), "950 ms to 1.05 s"),
        (words.days(1234.5), "1,234 days"),
        (words.memory(80 * 2**30), "80.0 GiB"),
        (words.memory(3 * 2**40), "3.0 TiB"),
        (words.flops_rate(1.2e15), "1,200 TFLOP/s"),
        (words.flops_rate(-36.7e12), "−36.7 TFLOP/s"),
        (words.count(131072), "131,072"),
        (words.count(9.18e11), "918B"),
        (words.dollars(11.8e6), "$11.8M"),
        (words.percent(0.4301), "43.0 %"),
        (words.change(0.071), "+7.1 %"),
        (words.change(-0.07), "−7.0 %"),
        (words.change(-1e-5), "0.0 %"),
        (words.change(1e-5), "0.0 %"),
        (words.setting(value=True), "yes"),
        (words.setting(8192), "8,192"),
        (words.setting("interleaved"), "interleaved"),
        (words.sentence_case("bf16 peak"), "bf16 peak"),
        (words.sentence_case("pipeline bubble"), "Pipeline bubble"),
        (words.name_of("new_field", words.TIMES), "new field"),
    ],
)
def test_a_value_reads_as_a_person_writes_it(told, expected):
    """Three digits, the field's usual unit, a true minus, and names that no table knows still read well."""
    assert told == expected


def test_a_strategy_on_one_line_leaves_out_what_is_one():
    """Axes of degree one are not told; chunks stand with the pipeline; no axis at all is said in words."""
    assert (
        words.strategy_line({"tp": 4, "pp": 16, "vpp": 2, "cp": 1, "dp": 1024}) == "TP 4 · PP 16, 2 chunks · DP 1,024"
    )
    assert words.strategy_line({"tp": 1, "pp": 1, "dp": 1}) == "no parallel axis"
