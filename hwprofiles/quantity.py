"""Quantities between text and SI: the only place that knows what a giga, a gibi, an hour or a bit is.

`parse` is strict: "B" is a byte and "b" a bit, "G" is 1e9 and "Gi" 2**30, a rate is not a size, and a number without
a unit is refused where one is needed. `format` writes a value for people.
"""

from __future__ import annotations

import math
import re

from hwprofiles.faults import Fault, InputError, nearest

DECIMAL = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50}
SECONDS = {
    "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "\u03bcs": 1e-6, "ms": 1e-3,
    "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0,
}  # fmt: skip
PLENTY = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9, "T": 1e12}
BITS = 8.0

EXAMPLES = {
    "bytes": "80 GiB or 80 GB",
    "bytes/s": "400 Gb/s or 50 GB/s",
    "flop/s": "989 TFLOP/s",
    "seconds": "2.8 us or 12 h",
    "watts": "700 W",
    "usd": "$5.6M or 5.6M USD",
    "usd/s": "$2.5/h or 2.5 USD/h",
    "count": "15T or 16384",
}
_UNITS = {
    "bytes": ("B", "KB", "MB", "GB", "TB", "KiB", "MiB", "GiB", "TiB"),
    "bytes/s": ("B/s", "MB/s", "GB/s", "TB/s", "GiB/s", "Mb/s", "Gb/s", "Tb/s"),
    "flop/s": ("FLOP/s", "GFLOP/s", "TFLOP/s", "PFLOP/s", "TFLOPS", "PFLOPS"),
    "seconds": tuple(SECONDS),
    "watts": ("W", "kW", "MW"),
    "usd": ("USD", "$"),
    "usd/s": ("USD/h", "$/h", "USD/s"),
    "count": ("k", "M", "B", "T"),
}

_NUMBER = re.compile(r"(?P<lead>\$?)\s*(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(?P<unit>.*)")
_DATA = re.compile(r"(Ki|Mi|Gi|Ti|Pi|k|K|M|G|T|P|E)?(B|b)")
_FLOPS = re.compile(r"(k|K|M|G|T|P|E)?(?:FLOP/s|FLOPS)")
_WATTS = re.compile(r"(k|K|M|G)?W")
_MONEY = re.compile(r"(k|K|M|B|G|T)?(?:USD|\$)?")


def parse(text: str, dimension: str, where: str = "quantity") -> float:
    """The SI value of `text`, a quantity of `dimension` (a key of EXAMPLES).

    `where` names the place in the message. Raises InputError for another dimension, an unknown or missing unit, a
    negative number, NaN or infinity.
    """
    match = _NUMBER.fullmatch(text.strip())
    if match is None:
        raise _refused(text, dimension, where, "expected a number with a unit")
    money, unit = bool(match["lead"]), match["unit"].strip()
    found = _measure(unit, money=money, dimension=dimension)
    if found is None:
        hint = nearest(unit, _UNITS[dimension]) if unit else None
        reason = f"{unit!r} is not a unit known here" if unit else "a unit is needed"
        raise _refused(text, dimension, where, reason, hint)
    kind, factor = found
    if kind != dimension:
        rate = f"a rate ({kind})" if kind.endswith("/s") else f"a quantity of {kind}"
        raise _refused(text, dimension, where, f"that is {rate}")
    value = float(match["number"]) * factor
    if value < 0 or math.copysign(1.0, value) < 0:
        raise _refused(text, dimension, where, "it may not be negative")
    if not math.isfinite(value):
        raise _refused(text, dimension, where, "it must be finite")
    return value


def _refused(text: str, dimension: str, where: str, reason: str, hint: str | None = None) -> InputError:
    wanted = f"{reason}; {dimension} expected, such as {EXAMPLES[dimension]}"
    return InputError(Fault(where, wanted, text, hint))


def _measure(unit: str, *, money: bool, dimension: str) -> tuple[str, float] | None:
    """Dimension and SI factor of a unit; `money` says that a "$" stood before the number."""
    if money or "USD" in unit or "$" in unit:
        return _money(unit)
    if dimension == "count":
        word = unit.removesuffix("tokens").strip()
        if word in PLENTY:
            return "count", PLENTY[word]
    if unit in SECONDS:
        return "seconds", SECONDS[unit]
    if match := _WATTS.fullmatch(unit):
        return "watts", DECIMAL[match[1] or ""]
    if match := _FLOPS.fullmatch(unit):
        return "flop/s", DECIMAL[match[1] or ""]
    return _data(unit)


def _data(unit: str) -> tuple[str, float] | None:
    size = unit.removesuffix("/s") if unit.endswith("/s") else unit.removesuffix("ps")
    match = _DATA.fullmatch(size)
    if match is None:
        return None
    prefix = match[1] or ""
    factor = BINARY.get(prefix) or DECIMAL[prefix]
    return ("bytes" if size == unit else "bytes/s"), factor / (1.0 if match[2] == "B" else BITS)


def _money(unit: str) -> tuple[str, float] | None:
    amount, _, per = unit.replace(" ", "").partition("/")
    match = _MONEY.fullmatch(amount)
    if match is None or (per and per not in SECONDS) or ("/" in unit and not per):
        return None
    factor = PLENTY[match[1] or ""]
    return ("usd/s", factor / SECONDS[per]) if per else ("usd", factor)


def format(value: float, unit: str) -> str:  # noqa: A001  always read as quantity.format
    """`value` in SI `unit` (B, B/s, FLOP/s, FLOP, W, s, USD, USD/s, tokens/s, "") with three digits and a prefix.

    The unit "iB" shows bytes of memory with binary prefixes ("69.5 GiB").
    """
    if value < 0:
        return "-" + format(-value, unit)
    if not math.isfinite(value):
        return f"{value} {unit}".strip()
    if unit in {"s", "iB"}:
        return _time(value) if unit == "s" else _binary(value)
    if unit == "USD/s":
        return "$" + _digits(value * SECONDS["h"]) + "/h"
    if unit in {"USD", ""}:
        return ("$" if unit else "") + _scaled(value, ("", "k", "M", "G", "T"), "").replace("G", "B")
    return _scaled(value, ("", "k", "M", "G", "T", "P", "E"), " ") + unit


def _scaled(value: float, prefixes: tuple[str, ...], gap: str) -> str:
    step = 0
    while step < len(prefixes) - 1 and float(_digits(value)) >= DECIMAL["k"]:
        value, step = value / DECIMAL["k"], step + 1
    return _digits(value) + gap + prefixes[step]


def _binary(value: float) -> str:
    power = min(int(math.log2(value) // 10), 5) if value >= 1 else 0
    return f"{_digits(value / 1024**power)} {('', 'Ki', 'Mi', 'Gi', 'Ti', 'Pi')[power]}B"


def _time(value: float) -> str:
    for name, limit in (("µs", "ms"), ("ms", "s"), ("s", "min"), ("min", "h"), ("h", "d")):
        if float(_digits(value / SECONDS[name])) < SECONDS[limit] / SECONDS[name]:
            return f"{_digits(value / SECONDS[name])} {name}"
    return f"{_digits(value / SECONDS['d'])} d"


def _digits(value: float) -> str:
    """Three digits; small numbers lose their trailing zeros but one ("1.2", "80.0", "989", "0.012")."""
    if value == 0 or value >= 100:
        return f"{value:.0f}"
    places = 2 - math.floor(math.log10(value))
    text = f"{value:.{places}f}"
    whole, _, fraction = text.partition(".")
    return f"{whole}.{fraction.rstrip('0') or '0'}"
