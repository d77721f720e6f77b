"""Tiers in closed form against maximum flow over the graph, and their order."""

import itertools
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwprofiles import graph, load, topology
from hwprofiles.faults import InputError

SMALL_NODE = replace(load.node("dgx-h100"), gpus=2, scale_up_domain=2, nics=2)
SHARED_NIC = replace(SMALL_NODE, gpus=4, scale_up_domain=4, nics=2)
MANY_NICS = replace(SMALL_NODE, nics=4)
RACK_DOMAIN = replace(SMALL_NODE, gpus=2, scale_up_domain=4)


def fabric(kind, **parameters):
    """A small network of `kind`."""
    return replace(load.fabric("ib-ndr-rail"), kind=kind, parameters={"hop_latency": 1e-6, **parameters})


RAIL = fabric("rail", group_gpus=8, pod_gpus=16, leaf_oversubscription=1.0, spine_oversubscription=1.0)
RAIL_THIN = fabric("rail", group_gpus=8, pod_gpus=16, leaf_oversubscription=2.0, spine_oversubscription=3.0)
CLOS = fabric("clos", rack_gpus=8, pod_gpus=16, rack_oversubscription=1.0, pod_oversubscription=7.0)
PLANES = fabric("planes", group_gpus=8, planes=2)
LEAF_SPINE = fabric("leaf-spine", leaf_gpus=8, oversubscription=2.5)
CASES = [
    (node, net)
    for node in (SMALL_NODE, SHARED_NIC, MANY_NICS, RACK_DOMAIN)
    for net in (RAIL, RAIL_THIN, CLOS, PLANES, LEAF_SPINE)
]


@pytest.mark.parametrize(("node", "net"), CASES)
def test_each_tier_is_the_maximum_flow_between_its_halves(node, net):
    """Half of the GPUs of a domain sending to the other half reach the tier's bandwidth each, no more, no less."""
    gpus = 32
    tiers = topology.tiers(node, net, gpus)
    assert [tier.size for tier in tiers] == sorted({tier.size for tier in tiers})
    inside = graph.build(node, replace(net, kind="single"), tiers[0].size)
    whole = graph.build(node, net, gpus)
    for inner, tier in zip((1, *(t.size for t in tiers)), tiers, strict=False):
        half = tier.size // 2
        assert half % inner == 0
        network = inside if tier is tiers[0] else whole
        flow = graph.crossing(network, range(half), range(half, tier.size))
        assert flow / half == pytest.approx(tier.bandwidth, rel=1e-9), tier.name


def test_a_cube_of_a_torus_leaves_through_its_faces():
    """The bandwidth of the torus tier is what one cube can send to the rest, shared by its chips."""
    node = replace(load.node("tpu-v5p-host"), gpus=4, scale_up_domain=8)
    net = fabric("torus", cube_side=2)
    tiers = topology.tiers(node, net, 64)
    network = graph.build(node, net, 64)
    flow = graph.crossing(network, range(8), range(8, 64))
    assert flow / 8 == pytest.approx(tiers[1].bandwidth)


def test_planes_meet_only_inside_nodes():
    """In a multi-plane network no switch path joins two planes; a single-plane one with the same NICs does."""
    one = graph.build(SMALL_NODE, PLANES, 16)
    leaves = {vertex[2] for vertex in one if vertex[0] in {"leaf group", "planes"}}
    assert leaves == {0, 1}
    assert not any(a[2] != b[2] for a, b in one.edges if {a[0], b[0]} == {"leaf group", "planes"})
    joined = graph.build(SMALL_NODE, RAIL, 16)
    assert {vertex[2] for vertex in joined if vertex[0] == "pod"} == {-1}


@pytest.mark.parametrize("name", load.names("cluster"))
def test_tiers_only_narrow_outwards(name):
    """Sizes grow, bandwidth per GPU never does, latency never falls, and the last tier holds every GPU."""
    cluster = load.cluster(name)
    tiers = cluster.tiers
    assert tiers[0].size == min(cluster.node.scale_up_domain, cluster.gpus)
    assert tiers[-1].size == cluster.gpus
    for inner, outer in itertools.pairwise(tiers):
        assert outer.size > inner.size
        assert 0 < outer.bandwidth <= inner.bandwidth
        assert outer.oversubscription >= inner.oversubscription
    for inner, outer in itertools.pairwise(tiers[1:]):
        assert outer.latency > inner.latency
    assert all(0 < tier.efficiency <= 1 for tier in tiers)


@given(st.sampled_from(load.names("cluster")), st.integers(1, 16384))
def test_a_cluster_of_any_legal_size_has_tiers_that_end_at_it(name, nodes):
    """Cutting a cluster never widens a tier that is left, and its last tier is its size."""
    whole = load.cluster(name)
    gpus = nodes * whole.node.gpus
    try:
        cut = load.cluster(name, gpus)
    except InputError as error:
        assert "at most" in str(error)  # noqa: PT017  the only refusal a whole number of nodes may meet
        return
    assert cut.tiers[-1].size == gpus
    for mine, its in zip(cut.tiers[:-1], whole.tiers, strict=False):
        assert mine.bandwidth == its.bandwidth


def test_the_llama3_cluster_narrows_seven_to_one():
    """Full bandwidth within a pod of 3,072 GPUs, a seventh above."""
    pod, top = load.cluster("meta-24k-roce").tiers[-2:]
    assert (pod.size, pod.bandwidth) == (3072, pytest.approx(50e9))
    assert top.bandwidth == pytest.approx(50e9 / 7)
    assert top.oversubscription == 7


def test_an_nvl72_domain_spans_trays():
    """72 GPUs of 18 trays share one scale-up domain; 400 Gb/s per GPU leave it."""
    cluster = load.cluster("gb200-nvl72", 576)
    assert [tier.size for tier in cluster.tiers] == [72, 576]
    assert cluster.tiers[1].bandwidth == pytest.approx(50e9)


def test_nothing_leaves_a_node_without_a_network():
    """The single-node fabric refuses what needs a network."""
    with pytest.raises(InputError, match="at most 8 GPUs without a network"):
        topology.tiers(load.node("dgx-h100"), load.fabric("single-node"), 16)


def test_the_largest_cluster_takes_no_time():
    """Tiers of 131,072 GPUs come from a closed form."""
    start = time.process_time()
    tiers = load.cluster("h100-superpod", 131072).tiers
    assert time.process_time() - start < 1.0
    assert [tier.size for tier in tiers] == [8, 256, 2048, 131072]


def test_more_ranks_than_cores_share_time():
    """The ranks of one machine: those that run at once, then all of them in turns."""
    cluster = load.cluster("cpu-loopback", 8)
    assert [(tier.name, tier.size, tier.lockstep) for tier in cluster.tiers] == [
        ("scale-up", 2, False),
        ("time slices", 8, True),
    ]
