"""What a training reads: samples in three splits, known by their number, in an order that a seed fixes.

load(data, seed) -> Dataset            the splits of a recipe's [data] table
Order(len(split), seed).numbers(a, b)  which samples are number a to b of the run, whatever the epochs between
"""

from executor.data.base import Dataset, Split
from executor.data.load import load
from executor.data.order import Order

__all__ = ["Dataset", "Order", "Split", "load"]
