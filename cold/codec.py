"""JSON as the `jsonb` columns take and give it, and since when PostgreSQL counts the microseconds of a time."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from banshee_memory.records import Json

POSTGRES_EPOCH_US = 946_684_800_000_000
"""2000-01-01, in µs since 1970."""
_encode = msgspec.json.Encoder().encode
json_said = msgspec.json.Decoder().decode
"""What text of a jsonb column says."""
_EXPONENT = re.compile(rb"\de\d")


def to_json(value: Any) -> bytes:
    """The value as JSON that comes back out of a jsonb column as it went in, floats as floats.

    jsonb keeps numbers as decimals: it would give 1e23 back as a whole number, which is not equal to it. Written out
    with a decimal point it stays what it was. UnicodeEncodeError for a lone surrogate, TypeError for what JSON lacks.
    """
    encoded = _encode(value)
    return _encode(_written_out(msgspec.to_builtins(value))) if _EXPONENT.search(encoded) else encoded


def _written_out(value: Json) -> Any:
    if isinstance(value, float):
        return msgspec.Raw(b"%.1f" % value) if abs(value) >= 1e16 else value
    if isinstance(value, dict):
        return {key: _written_out(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_written_out(item) for item in value]
    return value


def from_json(text: str | None) -> Json:
    """What a jsonb column, read as text, says; None for NULL."""
    return None if text is None else json_said(text)
