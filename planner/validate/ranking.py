"""How well layouts are ranked: predicted against measured order among runs that differ in their layout alone."""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations
from typing import Any

import numpy as np
from scipy.stats import kendalltau

Json = dict[str, Any]
FEWEST = 5  # layouts of a group; fewer have hardly an order
CLEAR = 0.03  # measured times closer than this are in no order: repeated runs differ as much


def ranking(results: list[Json]) -> Json:
    """Kendall's tau and regret of each group of at least FEWEST layouts, their means, and by source.

    `pairs` counts the pairs of layouts of all groups, however small, and those of them predicted in the measured order;
    `clear_pairs` those whose measured times differ by more than CLEAR. Regret is the measured time of the layout that
    is predicted to be the fastest over that of the fastest, minus 1.
    """
    groups = [_layouts(rows) for rows in _groups(results)]
    ranked = [_ranked(rows) for rows in groups if len(rows) >= FEWEST]
    sources = sorted({group["source"] for group in ranked})
    return {
        **_mean(ranked),
        "pairs": _pairs(groups, 0.0),
        "clear_pairs": _pairs(groups, CLEAR),
        "by_source": {name: _mean([group for group in ranked if group["source"] == name]) for name in sources},
        "groups": ranked,
    }


def _groups(results: list[Json]) -> list[list[Json]]:
    """The predicted and measured rows by what they have in common, in the order of their names."""
    found = defaultdict(list)
    for row in results:
        if row["error"] is not None:
            found[row["ranking_group"]].append(row)
    return [found[name] for name in sorted(found)]


def _layouts(rows: list[Json]) -> list[Json]:
    """One row for each layout of a group, with the median of its measured times."""
    found = defaultdict(list)
    for row in rows:
        found[row["layout"]].append(row)
    medians = {name: float(np.median([row["measured_step_s"] for row in same])) for name, same in found.items()}
    return [{**same[0], "measured_step_s": medians[name]} for name, same in found.items()]


def _ranked(rows: list[Json]) -> Json:
    """Tau and regret of one group; tau is None where all are measured or predicted alike."""
    measured = np.array([row["measured_step_s"] for row in rows])
    predicted = np.array([row["predicted_step_s"] for row in rows])
    alike = np.ptp(measured) == 0.0 or np.ptp(predicted) == 0.0
    chosen, best = int(np.argmin(predicted)), int(np.argmin(measured))
    return {
        "name": rows[0]["ranking_group"],
        **{key: rows[0][key] for key in ("model", "gpu", "gpus", "global_batch")},
        "source": rows[0]["source"].split(" ")[0],
        "layouts": len(rows),
        "tau": None if alike else float(kendalltau(measured, predicted).statistic),
        "regret": float(measured[chosen] / measured[best] - 1.0),
        "chosen": rows[chosen]["layout"],
        "best": rows[best]["layout"],
    }


def _mean(ranked: list[Json]) -> Json:
    """Number of groups, mean tau and mean regret."""
    taus = [group["tau"] for group in ranked if group["tau"] is not None]
    return {
        "n": len(ranked),
        "mean_tau": float(np.mean(taus)) if taus else None,
        "mean_regret": float(np.mean([group["regret"] for group in ranked])) if ranked else None,
    }


def _pairs(groups: list[list[Json]], apart: float) -> Json:
    """How many pairs of layouts differ by more than `apart` in measured time, and how many are predicted in order."""
    found, right = 0, 0
    for rows in groups:
        for one, other in combinations(rows, 2):
            measured = np.log(one["measured_step_s"] / other["measured_step_s"])
            if abs(measured) > apart:
                found += 1
                right += bool(measured * np.log(one["predicted_step_s"] / other["predicted_step_s"]) > 0.0)
    return {"n": found, "in_order": right / found if found else None}
