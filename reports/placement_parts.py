"""The parts of a placement's page: the gain in tiles, a table of the layers, what the numbers mean."""

from __future__ import annotations

from reports.markup import Html, banner, prose, table, tag, tile
from reports.words import Json, change, scaled, seconds

NAMES = {"eplb_global": "EPLB's global policy", "eplb_hierarchical": "EPLB's hierarchical policy"}


def header(placement: Json) -> Html:
    """What was placed where, the gain in one sentence, and four tiles."""
    gpus = placement["nodes"] * placement["gpus_per_node"]
    context = (
        f"{placement['nodes']} nodes of {placement['gpus_per_node']} GPUs · {placement['slots']:,} slots for "
        f"{placement['experts']:,} experts · {len(placement['layers'])} layers · {placement['algorithm']}"
    )
    return banner(
        tag("p", "Expert placement", class_="eyebrow"),
        tag("h1", f"{placement['experts']:,} experts on {gpus:,} GPUs"),
        tag("p", context, class_="context"),
        tag("p", _answer(placement), class_="lead"),
        tag("dl", *_tiles(placement), class_="tiles"),
    )


def _mean(placement: Json, key: str, baseline: str | None = None) -> float:
    """A metric of the placement, or of a baseline, over the layers."""
    metrics = [layer["baseline"][baseline] if baseline else layer["metrics"] for layer in placement["layers"]]
    return float(sum(each[key] for each in metrics) / len(metrics))


def _best(placement: Json) -> str | None:
    """The faster of EPLB's policies; None where none is defined."""
    known = placement["layers"][0]["baseline"]
    return min(known, key=lambda name: _mean(placement, "layer_s", name), default=None)


def _answer(placement: Json) -> str:
    ours, best = _mean(placement, "layer_s"), _best(placement)
    head = f"Experts of one layer take {seconds(ours)} for the held-out tokens"
    if best is None:
        return f"{head}; EPLB has no policy for {placement['slots']:,} slots on these GPUs."
    theirs = _mean(placement, "layer_s", best)
    return f"{head}, {change(ours / theirs - 1)} against {seconds(theirs)} with {NAMES[best]}."


def _tiles(placement: Json) -> list[Html]:
    best = _best(placement)

    def against(key: str) -> str:
        if best is None:
            return "no EPLB policy fits"
        return f"{change(_mean(placement, key) / _mean(placement, key, best) - 1)} against {NAMES[best]}"

    balance, nodes = (
        sum(layer["bounds"][key] for layer in placement["layers"]) / len(placement["layers"])
        for key in ("balance", "nodes_per_token")
    )
    return [
        tile("Time of a layer", seconds(_mean(placement, "layer_s")), against("layer_s")),
        tile("Balance", f"{_mean(placement, 'balance'):.3f}", f"at least {balance:.3f}; {against('balance')}"),
        tile("Nodes a token visits", f"{_mean(placement, 'nodes_per_token'):.2f}",
             f"at least {nodes:.2f}; {against('nodes_per_token')}"),
        tile("Busiest NIC, dispatch", scaled(_mean(placement, "nic_bytes"), "B"), against("nic_bytes")),
    ]  # fmt: skip


def shown(placement: Json) -> str:
    """Which layer the figures show."""
    number, tokens = placement["statistics"]["layer"], placement["statistics"]["tokens"]
    return f"Layer {number}, the one of median time, with {tokens:,} tokens that the placement was not planned with."


def layers(placement: Json) -> Html:
    """One row per layer: what is achieved beside its bound and beside EPLB."""
    best = _best(placement)
    rows = []
    for layer in placement["layers"]:
        found, bound = layer["metrics"], layer["bounds"]
        gain = change(found["layer_s"] / layer["baseline"][best]["layer_s"] - 1) if best else "–"
        rows.append(
            (layer["layer"], f"{found['balance']:.3f}", f"{bound['balance']:.3f}", f"{found['nodes_per_token']:.2f}",
             f"{bound['nodes_per_token']:.2f}", scaled(found["nic_bytes"], "B"), seconds(found["layer_s"]), gain,
             layer["moved_between_nodes"])
        )  # fmt: skip
    head = ("Layer", "Balance", "Bound", "Nodes a token", "Bound", "Busiest NIC", "Time", "Against EPLB", "Moves")
    return table(head, rows, "Every layer, held-out tokens", numeric=range(9))


def method(placement: Json) -> Html:
    """What is held out, what the bounds are, what the floor is."""
    sentences = (
        "The placement was planned on half of the trace's sequences; every number here is of the other half.",
        "Time of a layer is dispatch, expert GEMM of the fullest GPU and combine, from the busiest NIC and GPU.",
        "Balance is the fullest GPU's load over the mean. Its bound holds for any packing and any split of replicas.",
        "The bound of nodes a token visits holds for every placement with these numbers of replicas.",
        "The noise floor is the balance of equal expected loads: 1 + sqrt(2 ln P / choices per GPU) on P GPUs.",
        "Moves are experts that a GPU has to fetch from another node.",
    )
    return tag("div", prose(sentences), class_="card")
