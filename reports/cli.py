"""Writes the pages; the command line calls these functions."""

from __future__ import annotations

from pathlib import Path

from planner.files import write
from reports.page import (
    accuracy_page,
    capacity_page,
    compression_page,
    placement_page,
    plan_page,
    training_page,
    tuning_page,
)
from reports.words import Json


def write_plan(plan: Json, search: Json | None, path: Path, comparison: Json | None = None) -> None:
    """Write the page of a plan, with its search and its comparison, to `path`, whole or not at all."""
    write(path, plan_page(plan, search, comparison))


def write_capacity(capacity: Json, path: Path) -> None:
    """Write the capacity page to `path`, whole or not at all."""
    write(path, capacity_page(capacity))


def write_placement(placement: Json, path: Path) -> None:
    """Write the page of a placement with its statistics to `path`, whole or not at all."""
    write(path, placement_page(placement))


def write_compression(compared: Json, path: Path) -> None:
    """Write the page of compressed models to `path`, whole or not at all."""
    write(path, compression_page(compared))


def write_training(training: Json, path: Path) -> None:
    """Write the page of a training or of a search of its hyper-parameters to `path`, whole or not at all."""
    write(path, tuning_page(training) if "trials" in training else training_page(training))


def write_accuracy(accuracy: Json, path: Path) -> None:
    """Write the accuracy page of the JSON of `plan validate` to `path`, whole or not at all."""
    write(path, accuracy_page(accuracy))
