"""Read a TOML file and hold it against a schema: every fault of the file at once, each with file and key."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hwprofiles import quantity
from hwprofiles.faults import Fault, InputError, nearest
from hwprofiles.schema import SOURCE_KINDS, Field, Number, Table, Text

LARGEST_FILE = int(quantity.parse("10 MB", "bytes"))


@dataclass(frozen=True)
class Datum:
    """One number of a file: `value` in SI `unit`, the `text` it was read from and its `source`."""

    value: float
    unit: str
    text: str
    source: str


@dataclass
class Check:
    """One pass over a file: its `file` name, the known `sources`, and the faults found so far."""

    file: str
    sources: Collection[str]
    faults: list[Fault] = field(default_factory=list)

    def fault(self, key: str, expected: str, value: object = None, hint: str | None = None) -> None:
        """Note one fault at `key`."""
        self.faults.append(Fault(f"{self.file}:{key}" if key else self.file, expected, value, hint))

    def done(self) -> None:
        """Raise InputError with everything found, or pass."""
        if self.faults:
            raise InputError(*self.faults)

    def table(self, raw: object, fields: Mapping[str, Field], path: str = "") -> dict[str, Any]:
        """`raw` with each number as a Datum; unknown, missing and wrong entries become faults."""
        if not isinstance(raw, Mapping):
            self.fault(path, f"a table with the keys {', '.join(fields)} is expected", raw)
            return {}
        tree: dict[str, Any] = {}
        for key in raw:
            if key not in fields:
                self.fault(_join(path, key), "this key is not known", None, nearest(key, fields))
        for key, kind in fields.items():
            if key in raw:
                value = self._entry(raw[key], kind, _join(path, key))
                if value is not None:
                    tree[key] = value
            elif kind.required:
                self.fault(_join(path, key), "this key is missing")
        return tree

    def _entry(self, raw: object, kind: Field, path: str) -> Any:
        if isinstance(kind, Table):
            tree = self.table(raw, kind.fields, path)
            for key in kind.some:
                if isinstance(raw, Mapping) and key not in raw:
                    self.fault(_join(path, key), "this key is missing")
            return tree
        return self._text(raw, kind, path) if isinstance(kind, Text) else self._number(raw, kind, path)

    def _text(self, raw: object, kind: Text, path: str) -> str | None:
        if not isinstance(raw, str) or not raw.strip():
            self.fault(path, "a word in quotes is expected", raw)
        elif kind.choices and raw not in kind.choices:
            self.fault(path, f"one of {', '.join(kind.choices)} is expected", raw, nearest(raw, kind.choices))
        else:
            return raw
        return None

    def _number(self, raw: object, kind: Number, path: str) -> Datum | None:
        if not isinstance(raw, Mapping) or not {"value", "source"} <= raw.keys():
            lacking = "a source" if isinstance(raw, Mapping) and "value" in raw else "a value and a source"
            shown = None if isinstance(raw, Mapping) else raw
            self.fault(path, f'a number needs {lacking}: {{ value = …, source = "…" }}', shown)
            return None
        for key in raw.keys() - {"value", "source"}:
            self.fault(_join(path, key), "a number has a value and a source, nothing else")
        source = self._source(raw["source"], path)
        value = self._value(raw["value"], kind, path)
        fits = value is not None and self._bounded(value, raw["value"], kind, path)
        if value is None or source is None or not fits:
            return None
        return Datum(value, kind.si_unit, str(raw["value"]), source)

    def _value(self, raw: object, kind: Number, path: str) -> float | None:
        if kind.dimension == "plain":
            if isinstance(raw, int | float) and not isinstance(raw, bool) and math.isfinite(_float(raw)):
                return _float(raw)
            self.fault(path, f"a plain finite number ({kind.unit}) is expected", raw)
        elif kind.dimension == "count":
            if isinstance(raw, int) and not isinstance(raw, bool):
                return raw if math.isfinite(_float(raw)) else math.inf
            self.fault(path, f"a whole number ({kind.unit}) is expected", raw)
        elif isinstance(raw, str):
            try:
                return quantity.parse(raw, kind.dimension, f"{self.file}:{path}")
            except InputError as error:
                self.faults.extend(error.faults)
        else:
            self.fault(path, f'text with a unit is expected, such as "{quantity.EXAMPLES[kind.dimension]}"', raw)
        return None

    def _bounded(self, value: float, raw: object, kind: Number, path: str) -> bool:
        if not math.isfinite(value) or value < 0 or (value == 0 and not kind.zero):
            self.fault(path, f"a {'non-negative' if kind.zero else 'positive'} finite number is expected", raw)
        elif value > kind.maximum:
            self.fault(path, f"at most {kind.maximum:g} is expected ({kind.unit})", raw)
        else:
            return True
        return False

    def _source(self, raw: object, path: str) -> str | None:
        place = _join(path, "source")
        if not isinstance(raw, str) or not raw.strip():
            self.fault(place, "a source in quotes is expected", raw)
            return None
        head, _, remark = raw.partition(":")
        if head in self.sources or (head in SOURCE_KINDS and remark.strip()):
            return raw
        kinds = ", ".join(f'"{kind}: …"' for kind in SOURCE_KINDS)
        self.fault(place, f"a key of [sources] or one of {kinds} is expected", raw, nearest(head, self.sources))
        return None


def _float(number: float) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def flat(tree: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Datum]]:
    """The numbers of a checked file with their dotted keys."""
    for key, value in tree.items():
        if isinstance(value, Datum):
            yield _join(path, key), value
        elif isinstance(value, Mapping):
            yield from flat(value, _join(path, key))


def values(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A checked file with each Datum replaced by its value (counts are ints)."""
    plain: dict[str, Any] = {}
    for key, value in tree.items():
        kept = value.value if isinstance(value, Datum) else value
        plain[key] = values(kept) if isinstance(kept, Mapping) else kept
    return plain


def decode(data: bytes, file: str) -> dict[str, Any]:
    """The TOML document in `data`; InputError for an empty file, text that is not UTF-8, or broken TOML."""
    if not data.strip():
        raise InputError(Fault(file, "the file is empty; a TOML profile is expected"))
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(Fault(file, f"UTF-8 text is expected (byte {error.start} is not)")) from None
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, ValueError) else "nested too deeply"
        reason = reason.replace("at end of document", f"at the end, line {len(data.splitlines())}")
        raise InputError(Fault(file, f"this is not valid TOML: {reason}")) from None


def read(path: Path) -> dict[str, Any]:
    """The TOML document at `path`; InputError for a missing or unreadable file, a directory, or one over 10 MB."""
    file = str(path)
    try:
        if path.is_dir():
            raise InputError(Fault(file, "this is a directory; a TOML file is expected"))
        if path.stat().st_size > LARGEST_FILE:
            raise InputError(Fault(file, f"the file is larger than {quantity.format(LARGEST_FILE, 'B')}"))
        return decode(path.read_bytes(), file)
    except FileNotFoundError:
        raise InputError(Fault(file, "there is no such file")) from None
    except OSError as error:
        raise InputError(Fault(file, f"the file can't be read: {error.strerror or error}")) from None
    except ValueError as error:
        raise InputError(Fault(repr(file), f"this can't be a file name: {error}")) from None
