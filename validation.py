"""The boundary: every argument of the public API is judged here, before any I/O. Limits are settings.

Each function returns its argument in the one form the rest of the package works with, or raises `InvalidInput`
with the name of the field, what is wrong, and the limit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Annotated, Any, get_args
from uuid import UUID

import msgspec

from banshee_memory.emotions import Absence, Capped, Emotion, EmotionalState
from banshee_memory.errors import InvalidInput, shown
from banshee_memory.records import ROLES, EmotionalEvent, Json
from banshee_memory.settings import Settings

_LOWEST, _HIGHEST = -(2**63), 2**63 - 1
_ROLES = frozenset[str](ROLES)
_TYPE_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_")
SKEW = timedelta(minutes=1)
"""How far ahead of ours the clock of whoever dates a record may be."""


def agent(agent_id: object) -> UUID:
    """An agent's id."""
    if not isinstance(agent_id, UUID):
        raise InvalidInput("agent_id", f"must be a uuid.UUID, not {type(agent_id).__name__}")
    return agent_id


def text(field: str, value: object, most_bytes: int, *, blank: bool = False) -> str:
    """Text that UTF-8 and PostgreSQL can hold: no NUL, no lone surrogate, not blank unless allowed."""
    if type(value) is str and value.isascii() and "\0" not in value and value[:1].isalnum() and len(value) < most_bytes:
        return value  # as it usually is; the rest is looked at piece by piece
    if not isinstance(value, str):
        raise InvalidInput(field, f"must be text, not {type(value).__name__}")
    if "\0" in value:
        raise InvalidInput(field, "must not contain NUL (U+0000)")
    try:
        size = len(value) if value.isascii() else len(value.encode())
    except UnicodeEncodeError:
        raise InvalidInput(field, "must be valid Unicode (it holds a lone surrogate)") from None
    if size > most_bytes:
        raise InvalidInput(field, f"is {size:,} bytes of UTF-8; the limit is {most_bytes:,}")
    if not blank and (not value or value.isspace()):
        raise InvalidInput(field, "must not be blank")
    return value if type(value) is str else str.__str__(value)  # of an enum its value


def role(value: object) -> str:
    """One of the five roles."""
    if type(value) is str and value in _ROLES:
        return value
    if value not in ROLES:
        raise InvalidInput("role", f"{shown(value)} is none of {', '.join(ROLES)}")
    return str(value)


def intensity(field: str, value: object, *, low: float = 0.0) -> float:
    """A finite number in [low, 1]."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= 1.0:
        raise InvalidInput(field, f"{shown(value)} is not a number in [{low:g}, 1]")
    return float(value) + 0.0


def emotion(value: object) -> Emotion:
    """One of the 22, or its name."""
    if isinstance(value, Emotion):
        return value
    if isinstance(value, str):
        return Emotion.parse(value)
    raise InvalidInput("emotion", f"must be an Emotion, not {type(value).__name__}")


def changes(field: str, value: object, mode: str) -> dict[Emotion, float]:
    """Emotions and what to add ([-1, 1]) or to set ([0, 1])."""
    low = -1.0 if mode == "add" else 0.0
    if type(value) is dict:
        plain = {}
        for e, amount in value.items():
            if type(e) is not Emotion or type(amount) is not float or not low <= amount <= 1.0:
                break
            plain[e] = amount + 0.0
        else:
            return plain  # as it is usually given; the rest is looked at piece by piece
    if not isinstance(value, Mapping):
        raise InvalidInput(field, f"must map emotions to numbers, not be a {type(value).__name__}")
    return {emotion(e): intensity(f"{field}[{e}]", amount, low=low) for e, amount in value.items()}


def mode(value: object, allowed: tuple[str, ...]) -> str:
    """How changes apply."""
    if value not in allowed:
        raise InvalidInput("mode", f"{shown(value)} is none of {', '.join(allowed)}")
    return str(value)


def rates(value: object) -> dict[Emotion, float | None]:
    """Emotions and the part of them that is lost in a second ([0, 1]; None: the emotion's own)."""
    if not isinstance(value, Mapping):
        raise InvalidInput("decay_rates", f"must map emotions to rates, not be a {type(value).__name__}")
    return {emotion(e): None if rate is None else intensity(f"decay_rates[{e}]", rate) for e, rate in value.items()}


def half_lives(value: object) -> dict[Emotion, float | None]:
    """Emotions and the seconds in which they halve, as rates: 1 − 0.5^(1/seconds)."""
    if not isinstance(value, Mapping):
        raise InvalidInput("half_lives", f"must map emotions to seconds, not be a {type(value).__name__}")
    return {emotion(e): 1.0 - 0.5 ** (1.0 / _seconds(f"half_lives[{e}]", s)) for e, s in value.items()}


def absence(value: object) -> Absence:
    """One of the absence policies."""
    if isinstance(value, Capped):
        return Capped(_seconds("absence", value.seconds))
    if value not in ("wall", "active"):
        raise InvalidInput("absence", f"{shown(value)} is neither 'wall' nor 'active' nor Capped(seconds)")
    return value


def _seconds(field: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 1e-6 <= value <= 3_155_760_000:
        raise InvalidInput(field, f"{shown(value)} is not a number of seconds, from a millionth up to a hundred years")
    return float(value)


def state(value: object) -> EmotionalState:
    """A state whose numbers are intensities and rates in [0, 1]."""
    if not isinstance(value, EmotionalState):
        raise InvalidInput("state", f"must be an EmotionalState, not {type(value).__name__}")
    emotions = changes("state.emotions", value.emotions, "set")
    rates = changes("state.decay_rates", value.decay_rates, "set")
    return EmotionalState(emotions, rates, moment("state.last_updated", value.last_updated))


def event(value: object, settings: Settings) -> EmotionalEvent:
    """One of the events, with fields of their types."""
    if not isinstance(value, get_args(EmotionalEvent)):
        raise InvalidInput("event", f"must be one of the events, not a {type(value).__name__}")
    # As they are: msgspec would make text of bytes, and a list of a set.
    plain = json("event", {name: getattr(value, name) for name in value.__struct_fields__}, settings)
    try:
        checked = msgspec.convert({**plain, "type": value.__struct_config__.tag}, EmotionalEvent)
    except msgspec.ValidationError as exc:
        raise InvalidInput("event", str(exc)) from None
    text("event.event_type", checked.event_type, 256)
    return checked  # type: ignore[no-any-return]


def moment(field: str, value: object, *, oldest_days: int | None = None, now: datetime | None = None) -> datetime:
    """A timezone-aware time, as UTC: not in the future (`SKEW` apart), not beyond retention where that is given."""
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise InvalidInput(field, "must be a timezone-aware datetime")
    try:
        at = value.astimezone(UTC)
    except (OverflowError, ValueError):
        raise InvalidInput(field, f"{shown(value)} cannot be expressed in UTC") from None
    now = now or datetime.now(UTC)
    if at > now + SKEW:
        raise InvalidInput(field, f"{at.isoformat()} lies in the future")
    if at.year < 1970:
        raise InvalidInput(field, f"{at.isoformat()} is before 1970")
    if oldest_days is not None and at < now - timedelta(days=oldest_days):
        raise InvalidInput(field, f"{at.isoformat()} is beyond the retention of {oldest_days} days")
    return at


def count(field: str, value: object, *, low: int, high: int) -> int:
    """A whole number in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidInput(field, f"{shown(value)} is not a whole number in [{low:,}, {high:,}]")
    return value


def optional_id(field: str, value: object) -> UUID | None:
    """A UUID, or None."""
    if value is not None and not isinstance(value, UUID):
        raise InvalidInput(field, f"must be a uuid.UUID, not {type(value).__name__}")
    return value


def idempotency_key(value: object) -> str | None:
    """A text of at most 256 bytes, or None."""
    return None if value is None else text("idempotency_key", value, 256)


def memory_type(value: object) -> str:
    """A lower-case name of at most 64 letters, digits and underscores, not beginning with one: those are ours."""
    if (
        not isinstance(value, str)
        or not 0 < len(value) <= 64
        or not _TYPE_CHARACTERS.issuperset(value)
        or value[0] == "_"
    ):
        raise InvalidInput("memory_type", f"{shown(value)} is not a name of 1 to 64 of a-z, 0-9 and _ (not first)")
    return value


def idle(value: object) -> float:
    """Seconds, 0 or more."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise InvalidInput("idle", f"{shown(value)} is no number of seconds, 0 or more")
    return float(value)


def ttl(value: object) -> float | None:
    """Seconds to live: positive, at most a hundred years; None: for ever."""
    return None if value is None else _seconds("ttl_seconds", value)


def tags(value: object) -> tuple[str, ...]:
    """At most 64 short texts."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise InvalidInput("tags", "must be a sequence of texts")
    given = tuple(value)
    if len(given) > 64:
        raise InvalidInput("tags", f"are {len(given)}; the limit is 64")
    return tuple(text("tags", tag, 128) for tag in given)


def tokens(value: object) -> int | None:
    """A number of tokens that PostgreSQL's integer can hold, or None."""
    if value is None or (type(value) is int and 0 <= value <= MOST_TOKENS):
        return value
    return count("tokens_used", value, low=0, high=MOST_TOKENS)


def json(field: str, value: Json, settings: Settings) -> Json:
    """JSON that both tiers give back equal: finite numbers, 64-bit integers, text keys, bounded depth and size.

    It is a copy, so that what the caller does with his afterwards is nothing to us.
    """
    if value is None:
        return None
    copy = _copied(value, settings)
    if copy is not None:
        return copy
    plain = _plain(field, value, settings.max_json_depth, settings.max_json_bytes)
    size = len(_encode(plain))
    if size > settings.max_json_bytes:
        raise InvalidInput(field, f"is {size:,} bytes as JSON; the limit is {settings.max_json_bytes:,}")
    return plain


def optional_object(field: str, value: object, settings: Settings) -> dict[str, Any] | None:
    """A JSON object, or None."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise InvalidInput(field, f"must be an object, not {type(value).__name__}")
    return json(field, {str(k) if isinstance(k, Emotion) else k: v for k, v in value.items()}, settings)  # type: ignore[no-any-return]


_encode, _pack = msgspec.json.Encoder().encode, msgspec.msgpack.Encoder().encode
LEVELS = 4
"""So deep is `PLAIN`. One more takes twice as long to prepare."""
LARGEST = 8
"""No value is so many times longer as JSON than as MessagePack."""
NOT_PLAIN = (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError)
"""What a codec raises for what is not `PLAIN`."""


def _levels() -> list[Any]:
    """Types of JSON that is nested up to 0, 1, 2, ... levels, and of nothing else that MessagePack can hold."""
    whole = Annotated[int, msgspec.Meta(ge=_LOWEST, le=_HIGHEST)]
    finite = Annotated[float, msgspec.Meta(ge=-1e308, le=1e308)]
    levels: list[Any] = [str | whole | finite | bool | None]
    for _ in range(LEVELS):
        inner = levels[-1]
        levels.append(levels[0] | list.__class_getitem__(inner) | dict.__class_getitem__((str, inner)))
    return levels


_LEVELS = _levels()
PLAIN = _LEVELS[-1]
"""JSON that both tiers give back equal, but for a NUL in its texts."""


@cache
def _copier(levels: int) -> Callable[[bytes], Json]:
    """Reads JSON that is nested so deeply at most."""
    return msgspec.msgpack.Decoder(_LEVELS[min(levels, LEVELS)]).decode


def has_nul(value: Json) -> bool:
    """Whether what is `PLAIN` holds a NUL, or what looks like one as JSON."""
    return b"\\u0000" in _encode(value)


def _copied(value: Json, settings: Settings) -> Json:
    """A copy by a codec in C, of what is plain beyond doubt; None: it is to be looked at piece by piece."""
    try:
        packed = _pack(value)
        copy = _copier(settings.max_json_depth)(packed)
        if copy != value or (0 in packed and has_nul(value)):
            return None
    except NOT_PLAIN:
        return None
    most = settings.max_json_bytes
    return copy if LARGEST * len(packed) <= most or len(_encode(value)) <= most else None


def _plain(field: str, value: Json, depth: int, most: int) -> Json:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return text(field, value, most, blank=True)
    if isinstance(value, (int, float)):
        return _number(field, value)
    if depth == 0:
        raise InvalidInput(field, "is nested too deeply (Settings.max_json_depth)")
    if isinstance(value, Mapping):
        return {_key(field, k, most): _plain(f"{field}.{k}"[:80], v, depth - 1, most) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(f"{field}[]", v, depth - 1, most) for v in value]
    raise InvalidInput(field, f"holds a {type(value).__name__}, which JSON cannot say")


def _key(field: str, key: object, most: int) -> str:
    if not isinstance(key, str):
        raise InvalidInput(field, f"has the key {shown(key)}; keys of an object are text")
    return text(field, key, most, blank=True)


def _number(field: str, value: int | float) -> int | float:
    if isinstance(value, int):
        whole = int(value)  # of an IntEnum its value
        if not _LOWEST <= whole <= _HIGHEST:
            raise InvalidInput(field, f"holds an integer of {whole.bit_length()} bits; 64 can be stored")
        return whole
    if not math.isfinite(value):
        raise InvalidInput(field, f"holds {value}, which JSON cannot say")
    return float(value)


MOST_TOKENS = 2**31 - 1


def unstorable(role_name: str, content: str, tokens_used: int | None) -> str | None:
    """Why a message that another client put into Redis cannot go to PostgreSQL; None if it can."""
    try:
        role(role_name)
        text("content", content, 2**30, blank=True)
        tokens(tokens_used)
    except InvalidInput as exc:
        return str(exc)
    return None
