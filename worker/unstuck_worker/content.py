"""Message content as JSON bytes: fast for what we write, forgiving for what users display.

Values that JSON does not have follow jupyter_client: dates as ISO 8601, bytes as base64, NaN and
infinity as their names; what has no JSON form at all is an error that names its type.
"""

from __future__ import annotations

import json
import math
import numbers
from base64 import b64encode
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from typing import Any

import msgspec

_encoder = msgspec.json.Encoder()


def encode(content: object) -> bytes:
    """Encode content of ours: strings, integers, lists and dicts of them."""
    try:
        return _encoder.encode(content)
    except UnicodeEncodeError:
        return _dump(content)


def encode_bundle(content: Mapping[str, Any]) -> bytes:
    """Encode a display's content: ``data``, ``metadata`` and what stands beside them.

    Raises:
        TypeError: a value has no JSON form.
    """
    data = content.get("data")
    if isinstance(data, dict) and all(map(_is_text, data.values())) and not content.get("metadata"):
        try:
            return _encoder.encode(content)
        except (TypeError, ValueError, UnicodeEncodeError):
            pass
    return encode_user(content)


def _is_text(value: object) -> bool:
    return type(value) is str


def encode_user(content: object) -> bytes:
    """Encode what a user or a library made.

    Raises:
        TypeError: a value has no JSON form.
    """
    try:
        return _dump(content)
    except (TypeError, ValueError):
        return _dump(_clean(content))


def _dump(content: object) -> bytes:
    text = json.dumps(content, default=_replace, ensure_ascii=False, allow_nan=False)
    try:
        return text.encode()
    except UnicodeEncodeError:
        return mend(text).encode()


def mend(text: str) -> str:
    """Join surrogate pairs; replace halves, which no UTF-8 can carry."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _replace(value: object) -> object:
    """Give the JSON form of a value that JSON does not know."""
    match value:
        case datetime():
            form: object = _iso(value)
        case date():
            form = value.isoformat()
        case bytes() | bytearray() | memoryview():
            form = b64encode(value).decode("ascii")
        case numbers.Integral():
            form = int(value)
        case numbers.Real():
            form = _finite(float(value))
        case Mapping():
            form = dict(value)
        case Iterable():
            form = list(value)
        case _:
            kind = type(value)
            raise TypeError(f"{kind.__module__}.{kind.__qualname__} is not JSON serializable")
    return form


def _iso(moment: datetime) -> str:
    """Write a moment with its zone: the local one where it has none, Z where that is UTC."""
    aware = moment if moment.tzinfo else moment.astimezone()
    return aware.isoformat().replace("+00:00", "Z")


def _finite(value: float) -> float | str:
    return value if math.isfinite(value) else repr(value)


def _clean(value: object) -> object:
    """Copy nested content with JSON keys, and without the numbers that JSON does not have."""
    match value:
        case None | str() | bool():
            return value
        case float():
            return _finite(value)
        case int():
            return int(value)
        case Mapping():
            return {str(key): _clean(entry) for key, entry in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_clean(entry) for entry in value]
        case _:
            return _clean(_replace(value))
