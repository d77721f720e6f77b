import pytest

from reports.figures import FIGURES
from reports.page import placement_page
from tests.reports import fixtures


def traces(name, artefact):
    """The traces of a figure by name."""
    return {trace.name: trace for trace in FIGURES[name].draw(artefact).data}


def test_the_figures_of_one_node_have_no_traffic():
    """On a single node there is no traffic to draw, and all else is drawn."""
    artefact = fixtures.placement(nodes=1)
    drawn = {name for name, row in FIGURES.items() if row.artefact == "placement" and row.drawable(artefact)}
    assert drawn == {"expert_load", "gpu_load", "coactivation", "routing_drift", "migration", "replanning"}
    assert "stand on one node" in FIGURES["coactivation"].read(artefact)


def test_without_an_old_placement_nothing_moves():
    """The page has no section on moves when there was no placement in force."""
    artefact = fixtures.placement()
    assert 'id="moves"' in placement_page(artefact)
    artefact["statistics"]["migration"] = None
    del artefact["series"]
    assert not FIGURES["migration"].drawable(artefact)
    assert not FIGURES["replanning"].drawable(artefact)
    assert 'id="moves"' not in placement_page(artefact)


def test_replicas_are_dots_under_their_expert():
    """Experts stand heaviest first; those with replicas have a dot at their load over the replicas."""
    drawn = traces("expert_load", fixtures.placement())
    assert list(drawn["Expert"].y) == sorted(drawn["Expert"].y, reverse=True)
    assert list(drawn["One of its replicas"].y) == pytest.approx([2.4 / 3, 2.0 / 3])
    assert "2.4 times the mean" in FIGURES["expert_load"].read(fixtures.placement())


def test_without_replicas_there_are_no_dots():
    """And the sentence says so."""
    artefact = fixtures.placement()
    artefact["statistics"]["replicas"] = [1] * 12
    assert set(traces("expert_load", artefact)) == {"Expert"}
    assert "no expert has a replica" in FIGURES["expert_load"].read(artefact)


def test_loads_stand_fullest_first_with_the_floor():
    """Both placements are drawn in order, and a load below the floor is called what it is."""
    artefact = fixtures.placement()
    drawn = traces("gpu_load", artefact)
    assert list(drawn["This placement"].y) == sorted(drawn["This placement"].y, reverse=True)
    assert drawn["Placement in force"].y[0] == 1.3
    assert "can't tell that from even loads" in FIGURES["gpu_load"].read(artefact)
    artefact["statistics"]["noise_floor"] = 1.01
    assert "would reach 1.010 by chance" in FIGURES["gpu_load"].read(artefact)


def test_both_traffics_share_one_scale():
    """The matrices are in copies a token of the source, and dark means the same in both."""
    before, after = FIGURES["node_traffic"].draw(fixtures.placement()).data
    assert before.zmax == after.zmax == pytest.approx(900 * 4 / 4096)
    assert FIGURES["node_traffic"].read(fixtures.placement()).endswith("it is 2.64 (−33.3 %).")


def test_experts_are_parted_by_node():
    """Two lines for each border between nodes, and the sentence says what a node has together."""
    drawn = FIGURES["coactivation"].draw(fixtures.placement())
    assert len(drawn.layout.shapes) == 2 * 3
    assert drawn.layout.xaxis.ticktext == ("node 0", "node 1", "node 2", "node 3")
    assert "1.33 times as often as by chance" in FIGURES["coactivation"].read(fixtures.placement())


def test_loads_alone_show_no_co_activation():
    """A trace of one expert a token has no pairs to draw."""
    artefact = fixtures.placement()
    artefact["statistics"]["coactivation"]["lift"] = [[0.0] * 12] * 12
    assert not FIGURES["coactivation"].drawable(artefact)


@pytest.mark.parametrize(("drift", "words"), [(0.11, "a placement ages"), (0.05, "shows no drift")])
def test_drift_is_told_against_chance(drift, words):
    """Drift within half as much again as chance is none."""
    artefact = fixtures.placement()
    for row in artefact["statistics"]["layers"]:
        row["drift"] = drift
    assert words in FIGURES["routing_drift"].read(artefact)


def test_moves_are_summed_over_the_layers():
    """Of all slots of all layers."""
    read = FIGURES["migration"].read(fixtures.placement())
    assert read == "Of 48 slots in 3 layers 15 change hands, 6 of them between nodes."


def test_what_was_decided_stands_out():
    """At each later trace the placement that was taken is full and the other pale; the sentence counts and sums."""
    artefact = fixtures.placement()
    drawn = traces("replanning", artefact)
    assert drawn["New placement"].marker.opacity == (1.0, 0.4)
    assert drawn["Placement in force"].marker.opacity == (0.4, 1.0)
    assert list(drawn["New placement"].x) == ["2. step-200.npz", "3. step-300.npz"]
    assert FIGURES["replanning"].read(artefact) == (
        "It pays to re-plan at 1 of 2 later traces: that saves 25.0 % of a layer's time "
        "and moves 4.0 of 16 slots between nodes, 25.0 %."
    )
    artefact["series"] = artefact["series"][1:]
    assert "At none of the later traces (1)" in FIGURES["replanning"].read(artefact)


def test_the_page_says_what_was_gained():
    """Against the faster of EPLB's policies; where none is defined, that too is said."""
    artefact = fixtures.placement()
    page = placement_page(artefact)
    header = page[page.index("<header") : page.index("</header>")]
    assert "12 experts on 8 GPUs" in header
    assert "against 334 µs with EPLB" not in header  # the slower policy
    for layer in artefact["layers"]:
        layer["baseline"] = {}
    assert "EPLB has no policy for 16 slots" in placement_page(artefact)
