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
"""What JSON says."""
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


def from_jsonb(sent: bytes | None) -> Json:
    """What a jsonb column says, as the binary protocol sends it: a byte for the version, and text; None for NULL."""
    return None if sent is None else json_said(sent[1:])
