"""What an evaluation tells: loss, perplexity, accuracy, and of a classification precision, recall and F1 by class.

The last come from scikit-learn (macro averages), over the confusion matrix that all ranks have added up. No torch here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.errors import Fault, InputError


@dataclass(frozen=True)
class Scores:
    """Mean `loss` of `count` labels, how many of them the model guessed (`correct`).

    `confusion` [classes, classes] counts of (label, guess) of a classification, else None.
    """

    loss: float
    count: int
    correct: int
    confusion: NDArray[np.int64] | None = None

    def metrics(self) -> dict[str, float]:
        """Every metric that this evaluation has, by name; macro averages count each class the same."""
        found = {"loss": self.loss, "accuracy": self.correct / max(self.count, 1)}
        if self.confusion is None:
            return {**found, "perplexity": math.exp(min(self.loss, 700.0))}
        scores = self._sklearn().precision_recall_fscore_support(**self._pairs(), average="macro", zero_division=0.0)
        return {**found, **dict(zip(("precision", "recall", "f1"), map(float, scores[:3]), strict=True))}

    def report(self, classes: Sequence[str]) -> dict[str, Any]:
        """Precision, recall, F1 and support of each class, and their averages, as scikit-learn reports them."""
        labels = list(range(len(classes)))
        found: dict[str, Any] = self._sklearn().classification_report(
            **self._pairs(), labels=labels, target_names=list(classes), output_dict=True, zero_division=0.0
        )
        return {
            name: {key: float(value) for key, value in row.items()} if isinstance(row, dict) else float(row)
            for name, row in found.items()
        }

    def _pairs(self) -> dict[str, NDArray[np.int64]]:
        """(label, guess) of every cell of the matrix, weighted with its count."""
        confusion = np.zeros((0, 0), dtype=np.int64) if self.confusion is None else self.confusion
        labels, guesses = np.nonzero(confusion)
        return {"y_true": labels, "y_pred": guesses, "sample_weight": confusion[labels, guesses]}

    def _sklearn(self) -> Any:
        try:
            from sklearn import metrics  # noqa: PLC0415  optional
        except ModuleNotFoundError:
            expected = "a classification's report needs scikit-learn: pip install 'myriad-planner[training]'"
            raise InputError(Fault("evaluation", expected)) from None
        return metrics
