import copy
import json
import re

import pytest

from reports import theme
from reports.figures import FIGURES, scaling
from tests.reports import accuracy_fixtures, compression_fixtures, fixtures, training_fixtures

ARTEFACTS = {
    "plan": fixtures.plan,
    "search": fixtures.search,
    "comparison": fixtures.comparison,
    "compression": compression_fixtures.compression,
    "capacity": fixtures.capacity,
    "placement": fixtures.placement,
    "training": training_fixtures.training,
    "tuning": training_fixtures.tuning,
    "accuracy": accuracy_fixtures.accuracy,
}
HEX = re.compile(r"#[0-9a-fA-F]{6}\b")


@pytest.fixture(params=FIGURES, scope="module")
def drawn(request):
    """(name, artefact, figure) of each registered figure."""
    drawing = FIGURES[request.param]
    artefact = ARTEFACTS[drawing.artefact]()
    return request.param, artefact, drawing.draw(artefact)


def traces(name, artefact):
    """The traces of a figure by name."""
    return {trace.name: trace for trace in FIGURES[name].draw(artefact).data}


def test_a_figure_is_json_with_title_axes_and_units(drawn):
    """Each figure serialises, has data, a title and an x title; each numeric axis states what it shows."""
    _, _, figure = drawn
    spec = json.loads(figure.to_json())
    assert spec["data"]
    assert spec["layout"]["title"]["text"]
    assert spec["layout"]["xaxis"]["title"]["text"]
    assert "ticktext" in spec["layout"]["yaxis"] or spec["layout"]["yaxis"]["title"]["text"]


def test_a_figure_is_drawn_in_the_palette_only(drawn):
    """Each colour is one of the light scheme, so that the page can swap it for its dark twin."""
    _, _, figure = drawn
    assert set(HEX.findall(figure.to_json())) <= set(theme.LIGHT.values())


def test_a_figure_leaves_its_artefact_alone_and_repeats(drawn):
    """Drawing is pure: the artefact is as before and a second drawing is the same."""
    name, artefact, figure = drawn
    before = copy.deepcopy(artefact)
    assert FIGURES[name].draw(artefact).to_json() == figure.to_json()
    assert artefact == before


def test_a_figure_has_hover_text_on_what_it_shows(drawn):
    """Each trace either tells its values on hover or is decoration that says so."""
    _, _, figure = drawn
    assert all(trace.hovertemplate or trace.hoverinfo == "skip" for trace in figure.data)


def test_a_figure_is_read_in_one_sentence(drawn):
    """Each figure has a sentence that ends with a full stop and names a number."""
    name, artefact, _ = drawn
    sentence = FIGURES[name].read(artefact)
    assert sentence.endswith(".")
    assert re.search(r"\d", sentence)


def test_the_step_is_covered_without_gap_or_overlap():
    """The bars of step_time end to end are the step, each starting where the one before ends."""
    plan = fixtures.plan()
    bars = [
        (y, base, x)
        for trace in FIGURES["step_time"].draw(plan).data
        if trace.base
        for y, base, x in zip(trace.y, trace.base, trace.x, strict=True)
    ]
    clock = 0.0
    for _, base, length in sorted(bars):
        assert base == pytest.approx(clock)
        clock += length
    assert clock == pytest.approx(plan["estimate"]["step_time_s"])


def test_the_waterfall_ends_at_what_is_achieved():
    """The lowest loss bar starts at the achieved rate."""
    plan = fixtures.plan()
    lost = traces("waterfall", plan)["Lost"]
    assert lost.base[-1] == pytest.approx(plan["estimate"]["model_flops_per_s_per_gpu"] / 1e12)


def test_the_stack_of_a_stage_is_its_total():
    """The stacked parts of each stage sum to its total."""
    plan = fixtures.plan()
    stacks = FIGURES["memory_stages"].draw(plan).data
    for index, stage in enumerate(plan["stages"]):
        assert sum(trace.y[index] for trace in stacks) == pytest.approx(stage["total"] / fixtures.GIB)


def test_memory_over_capacity_is_said():
    """A stage that does not fit is told as over, not as free."""
    plan = fixtures.plan()
    plan["estimate"]["memory_capacity_bytes"] = 64 * fixtures.GIB
    assert "over on stage 0" in FIGURES["memory_stages"].draw(plan).layout.annotations[0].text


def test_active_parameters_sum_to_the_published_count():
    """The dots of parameters add up to the active parameters; MTP has a ring and no dot."""
    used = traces("parameters", fixtures.plan())["Used by one token"]
    assert sum(used.x) == pytest.approx(fixtures.PARAMETERS["active"])
    assert "multi-token prediction" not in [row[0] for row in used.customdata]


def test_the_tornado_has_its_widest_row_on_top():
    """Rows are sorted by the larger of their two changes."""
    shown = traces("sensitivity", fixtures.plan())
    widths = [
        max(abs(a), abs(b)) for a, b in zip(shown["Input 10 % lower"].x, shown["Input 10 % higher"].x, strict=True)
    ]
    assert widths == sorted(widths, reverse=True)


def test_inputs_that_change_nothing_have_no_row():
    """An input that moves the step by less than is shown is left out, unless none moves it."""
    plan = fixtures.plan()
    still = {"input": "x", "label": "hop latency", "minus": -1e-5, "plus": 1e-5}
    rows = FIGURES["sensitivity"].draw({**plan, "sensitivity": [*plan["sensitivity"], still]}).layout.yaxis.ticktext
    assert rows == FIGURES["sensitivity"].draw(plan).layout.yaxis.ticktext
    assert "Hop latency" in FIGURES["sensitivity"].draw({**plan, "sensitivity": [still]}).layout.yaxis.ticktext[0]


def test_the_frontier_ends_at_twice_the_fastest_step():
    """A plan that pays memory with more than twice the time is counted in words and not drawn."""
    search = fixtures.search()
    slow = fixtures.estimate(mfu=0.05, used=0.2)
    search["frontier"].append(slow)
    assert slow["step_time_s"] not in traces("frontier", search)["Frontier"].y
    assert "1 that are more than twice as slow are not shown" in FIGURES["frontier"].read(search)


def test_the_chosen_plan_is_marked_on_the_frontier_chart():
    """The star stands at the first of the plans."""
    search = fixtures.search()
    assert traces("frontier", search)["Chosen plan"].y == (search["plans"][0]["step_time_s"],)


@pytest.mark.parametrize("name", [name for name, drawing in FIGURES.items() if drawing.artefact == "capacity"])
def test_capacity_rings_the_knee_and_crosses_what_does_not_fit(name):
    """Each cluster has its knee labelled at its size; each infeasible size is a cross with its reason."""
    capacity = fixtures.capacity()
    figure = FIGURES[name].draw(capacity)
    rings = {trace.x[0]: trace.text[0] for trace in figure.data if trace.text}
    assert rings == {16384: "<b>knee 16k</b>", 32768: "<b>knee 32k</b>"}
    crosses = [size for trace in figure.data if trace.name == "Does not fit" for size in trace.x]
    assert sorted(crosses) == [128, 128, 256, 256, 512]


def test_a_capacity_without_knee_or_feasible_size_is_drawn():
    """A cluster that nothing fits on is still drawn, and the sentence says so."""
    capacity = fixtures.capacity()
    for line in capacity["series"]:
        line["knee"] = None
        line["points"] = [point for point in line["points"] if not point["feasible"]]
    figure = FIGURES["days_to_train"].draw(capacity)
    assert {trace.name for trace in figure.data if trace.x} == {"Does not fit"}
    assert FIGURES["days_to_train"].read(capacity) == "No size fits on any cluster."
    assert FIGURES["cost_to_train"].read(capacity) == "No size fits on any cluster."


def test_clusters_without_a_common_size_are_compared_at_their_own_largest():
    """The sentence names the size of each cluster when they share none."""
    capacity = fixtures.capacity()
    for line, odd in zip(capacity["series"], (0, 1), strict=True):
        line["points"] = [point for index, point in enumerate(line["points"]) if index % 2 == odd]
    assert "At the largest size of each" in FIGURES["mfu"].read(capacity)


def test_goodput_is_left_out_where_no_point_states_it():
    """Without goodput in the data there is no goodput figure."""
    capacity = fixtures.capacity()
    assert FIGURES["goodput"].drawable(capacity)
    for line in capacity["series"]:
        for point in line["points"]:
            point.pop("goodput", None)
    assert not FIGURES["goodput"].drawable(capacity)


@pytest.mark.parametrize("powers", [range(10, 13), range(7, 18)])
def test_sizes_are_ticked_at_powers_of_two(powers):
    """Ticks stand at every power of two; many of them are named one in two."""
    ticks = scaling._powers([2**power for power in powers])
    assert ticks == [2**power for power in powers]
    assert sum(bool(label) for label in scaling._labels(ticks)) <= scaling.ROOM


def test_a_comparison_shows_three_values_for_each_phase_and_the_step():
    """Measured, predicted and uncalibrated stand in the row of their phase; what was not measured has no bar."""
    artefact = fixtures.comparison()
    drawn = traces("comparison", artefact)
    rows = len(artefact["rows"]) + 1
    assert len(drawn["Predicted"].x) == rows
    assert len(drawn["Measured"].x) == rows - 1
    assert len(drawn["Predicted without calibration"].x) == rows
    assert max(drawn["Predicted"].x) == artefact["step"]["predicted_s"]


def test_a_comparison_without_calibration_has_no_third_mark():
    """What nobody computed is not drawn."""
    artefact = fixtures.comparison()
    for row in (*artefact["rows"], artefact["step"]):
        del row["uncalibrated_s"]
    assert set(traces("comparison", artefact)) == {"Measured", "Predicted"}


def test_the_reading_of_a_comparison_names_the_phase_furthest_off():
    """In seconds, not in percent: the backward pass is the largest."""
    assert "furthest off is backward" in FIGURES["comparison"].read(fixtures.comparison())


def test_the_smallest_model_is_read_against_the_first():
    """The sentence names the smallest, how many times smaller it is, and both metrics; each model has a mark."""
    table = compression_fixtures.compression()
    assert FIGURES["before_after"].read(table) == (
        "The smallest, int8, is 3.8 times smaller than dense: accuracy 99.4 % against 99.4 %."
    )
    assert [float(each.x[0]) for each in traces("before_after", table).values()] == [300.0, 79.0, 160.0]
