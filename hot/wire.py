"""The bytes in Redis, as described at the head of each file in `lua/`: what Python makes of them and puts into them."""

from __future__ import annotations

import enum
import struct
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime
from itertools import repeat
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from banshee_memory.emotions import (
    FLOOR,
    Before,
    Emotion,
    EmotionalState,
    Felt,
    StoredState,
    arousal_of,
    changed,
    faded,
    intensity_of,
    late_us,
    valence_of,
)
from banshee_memory.errors import BansheeError
from banshee_memory.hot.keys import member_parts
from banshee_memory.records import (
    ConversationMessage,
    EmotionalEvent,
    EmotionalEventRecord,
    EventMode,
    Json,
    MemoryRecord,
    Pace,
    Placed,
    StoredMemory,
    memory_id,
)
from banshee_memory.stamps import from_us, id_bytes, is_id_at, record_id, stamp_in_id, stamp_us, to_us, uuid_of

_DOUBLE = struct.Struct(">d")
_FELT = struct.Struct(">dd")
_felt_of = _FELT.unpack
_META = struct.Struct(">Qd")
_CLOCKS = struct.Struct(">dd")
_STAMP = struct.Struct(">Q")
_CONTEXT = struct.Struct(">H")
_HEAD = struct.Struct(">QBH")
"""Of an element without a time of its own: stamp, 0, length of the context."""
_ARRAY = struct.Struct(">B2s16sHQ")
"""Of a message's element that is MessagePack: array, id, time."""
_ARRAYS = range(0x94, 0x99)
"""What such an element begins with."""
_LAST_SECOND = 1 << 34
"""Of a MessagePack timestamp of 64 bits."""
_FROM = struct.Struct(">dQ")
_HEADER = struct.Struct(">cdQ12sQ")
_MEMORY = struct.Struct(">cQddddd")
_MEMORY_HEAD = _MEMORY.size
_LIVING = b"PT"
"""The marks of a memory that is there."""
_EMOTIONS = {e.value.encode(): e for e in Emotion}
_KEPT = {e.value.encode(): (e, 1.0 - e.rate) for e in Emotion}
"""What is left of an emotion after a second, unless the agent has a rate of its own."""
_FADES = {e.value.encode(): (e.value, e.rate) for e in Emotion}
"""Names and rates."""
_RATES = {e.value.encode() + b"/rate": e for e in Emotion}
_MODES: dict[bytes, EventMode] = {b"s": "set", b"a": "add", b"r": "record"}


class Miss(enum.Enum):
    """The key is not resident: PostgreSQL may know more."""

    MISS = "MISS"


MISS = Miss.MISS


class Undecodable(BansheeError, ValueError):
    """Bytes that are not what they should be; whoever reads skips and counts them, the flush makes a dead letter."""


_BROKEN = (
    msgspec.MsgspecError,
    struct.error,
    ValueError,
    OverflowError,
    IndexError,
    KeyError,
    RecursionError,
    StopIteration,
)


# --- states ---


def state_of(flat: Iterable[bytes]) -> StoredState | None:
    """A state from the fields and values of its hash; None where PostgreSQL knows none either."""
    try:
        return _state(flat)
    except _BROKEN as exc:
        raise Undecodable(f"state: {exc}") from exc


def state_now(reply: Any) -> EmotionalState | Miss | None:
    """What is felt now, from the time and the fields and values of a hash; or a miss."""
    if not len(reply) % 2:
        return _no_state(reply)
    pairs = iter(reply)
    now, whole, felt = next(pairs), False, {}
    try:
        for name, value in zip(pairs, pairs):  # noqa: B905  # of one iterator, whose length was looked at
            known = _KEPT.get(name)
            if known is not None:
                intensity, at = _felt_of(value)
                gap = now - at
                left = intensity * known[1] ** (gap / 1e6) if gap > 0 else _still(intensity, at)
                if left >= FLOOR:
                    felt[known[0]] = left
            elif name == b"meta":
                whole = True
            else:  # a temperament of its own, or a known absence
                return _state_now(reply[1:], now)
    except _BROKEN as exc:
        raise Undecodable(f"state: {exc}") from exc
    return EmotionalState(felt, {}, from_us(now)) if whole else None


def state_at(now: int, flat: list[bytes]) -> EmotionalState | Miss | None:
    """The same, from the time and what HGETALL gave; a lease, and nothing, are misses."""
    state = state_now([now, *flat])
    return MISS if state is None and b"absent" not in flat[::2] else state


def _still(intensity: float, at: float) -> float:
    int(at)  # that it is a time is seen where it is used
    return intensity


def _no_state(reply: Any) -> Miss:
    if reply == b"MISS":
        return MISS
    raise Undecodable("state: a field without a value")


def _state_now(flat: list[bytes], now: int) -> EmotionalState | None:
    state = _state(flat)
    return None if state is None else state.at(now)


def _state(flat: Iterable[bytes]) -> StoredState | None:
    felt: dict[Emotion, Felt] = {}
    rates: dict[Emotion, float] = {}
    other: dict[bytes, bytes] = {}
    pairs = iter(flat)
    for name in pairs:
        value = next(pairs)
        emotion = _EMOTIONS.get(name)
        if emotion is not None:
            intensity, at = _FELT.unpack(value)
            felt[emotion] = Felt(intensity, int(at))
        elif name in _RATES:
            rates[_RATES[name]] = _DOUBLE.unpack(value)[0]
        else:
            other[name] = value
    if b"meta" not in other:
        return None
    stamp, updated = _META.unpack(other[b"meta"])
    return StoredState(felt, rates, int(updated), stamp, *_absence(other))


def _absence(other: Mapping[bytes, bytes]) -> tuple[str | None, int, int | None]:
    if len(other) == 1:  # the most usual: `wall`, never paused
        return "wall", 0, None
    absence = None if b"blind" in other else other.get(b"absence", b"wall").decode()
    paused, away = (_DOUBLE.unpack(other[n])[0] if n in other else None for n in (b"paused", b"away"))
    return absence, int(paused or 0), None if away is None else int(away)


def state_fields(state: StoredState | None) -> list[str | bytes]:
    """The fields and values of a state's hash, for an offer."""
    if state is None:
        return ["absent", "1"]
    fields: list[str | bytes] = ["meta", _META.pack(state.stamp, float(state.updated_us))]
    for emotion, felt in state.felt.items():
        fields += [emotion.value, _FELT.pack(felt.intensity, float(felt.at_us))]
    for emotion, rate in state.rates.items():
        fields += [f"{emotion.value}/rate", _DOUBLE.pack(rate)]
    if state.absence not in (None, "wall"):
        fields += ["absence", str(state.absence)]
    if state.paused_us:
        fields += ["paused", _DOUBLE.pack(float(state.paused_us))]
    if state.away_us is not None:
        fields += ["away", _DOUBLE.pack(float(state.away_us))]
    return fields


def is_resident(flat: list[bytes]) -> bool:
    """Whether the fields of a hash are a state (or its known absence), and not a lease or nothing."""
    return b"meta" in flat[::2] or b"absent" in flat[::2]


class _Snapshot(NamedTuple):
    """What was felt when a record was made, when that was, and what follows it in the context."""

    emotions: dict[Emotion, float]
    state: StoredState
    now_us: int
    rest: bytes


def _snapshot(context: bytes) -> _Snapshot:
    now, own = _CLOCKS.unpack_from(context)
    at, end = _CLOCKS.size, len(context)
    flat: list[bytes] = []
    while at < end and context[at]:
        value = at + 2 + context[at]
        after = value + context[value - 1]
        flat += context[at + 1 : value - 1], context[value:after]
        at = after
    if b"meta" not in flat[::2]:  # of a message, or there was no state before
        flat += [b"meta", _META.pack(0, now)]
    state = state_of(flat)
    assert state is not None
    return _Snapshot(state.by_own_clock(int(own)), state, int(now), context[at + 1 :])


def _felt_then(context: bytes) -> dict[str, Json]:
    """What was felt when a message was said, by name. Where nothing but emotions is in its context, as mostly, that is
    worked out on the way."""
    own, felt = int(_DOUBLE.unpack_from(context, 8)[0]), {}
    at, end = _CLOCKS.size, len(context)
    while at < end:
        value = at + 2 + context[at]  # where the value begins, behind the byte of its length
        known = _FADES.get(context[at + 1 : value - 1])
        if known is None or context[value - 1] != _FELT.size:
            return {e.value: i for e, i in _snapshot(context).emotions.items()}
        name, rate = known
        intensity, since = _FELT.unpack_from(context, value)
        left = faded(intensity, rate, own - int(since))
        if left:
            felt[name] = left
        at = value + _FELT.size
    return felt


# --- histories ---


class Header(NamedTuple):
    """What a list says of itself: from which place on nothing is missing in it, and which list it is."""

    from_us: float
    from_stamp: int
    generation: bytes

    def covers(self, at_us: float, stamp: int) -> bool:
        """Whether all that lies at or after this place is in the list."""
        return (at_us, stamp) >= (self.from_us, self.from_stamp)


class History(NamedTuple):
    """The end of a list: its header, if the end reaches up to it, and elements in order of place."""

    header: Header | None
    elements: list[bytes]


def header_of(first: bytes) -> Header | None:
    """The header that an element is; None: it is none."""
    if first[:1] != b"\xff":
        return None
    _, from_us, from_stamp, generation, _ = _HEADER.unpack(first)
    return Header(from_us, from_stamp, generation)


def covers(header: bytes, element: bytes) -> bool:
    """`Header.covers` of an element's place, for who reads many lists."""
    from_us, from_stamp = _FROM.unpack_from(header, 1)
    at_us, stamp = place_of(element)
    return header[0] == 0xFF and (at_us > from_us or (at_us == from_us and stamp >= from_stamp))


def history_of(raw: list[bytes]) -> History:
    """What LRANGE gave."""
    if raw and raw[0][:1] == b"\xff":
        return History(header_of(raw[0]), raw[1:])
    return History(None, raw)


class MessageBody(msgspec.Struct, array_like=True, omit_defaults=True, frozen=True):
    """A message as the client packs it. `nonce`: 8 random bytes of its id, or 16: the whole id, brought along."""

    nonce: bytes
    role: str
    content: str
    metadata: Any = None
    emotional_context: dict[str, Any] | None = None
    tokens_used: int | None = None
    session_id: bytes | None = None


_whose: ContextVar[UUID] = ContextVar("banshee_memory_whose")
"""Whose messages are being read."""


class _Said(ConversationMessage, array_like=True, frozen=False, gc=False, kw_only=True):  # type: ignore[misc]
    """A message as its element has it, with the agent that it does not name: read in one go, in C, and a
    `ConversationMessage` from then on. To set an attribute of each from C it must not be frozen yet."""

    metadata: Any = None
    emotional_context: dict[str, Any] | None = None
    tokens_used: int | None = None
    session_id: UUID | None = None
    agent_id: UUID = msgspec.field(default_factory=_whose.get)


class EventBody(msgspec.Struct, array_like=True, omit_defaults=True, frozen=True):
    """An event as the client packs it; what it changed is in the entry's context."""

    nonce: bytes
    event: EmotionalEvent
    context_factors: Any = None
    session_id: bytes | None = None


class MemoryBody(msgspec.Struct, array_like=True, omit_defaults=True, frozen=True):
    """A memory as the client packs it; stamp, times and count stand before it."""

    data: Any
    importance: float
    tags: tuple[str, ...] = ()


_said = msgspec.msgpack.Decoder(_Said).decode
_all_said = msgspec.msgpack.Decoder(list[_Said]).decode
_message_body = msgspec.msgpack.Decoder(MessageBody)
_event_body = msgspec.msgpack.Decoder(EventBody)
_event_record = msgspec.msgpack.Decoder(EmotionalEventRecord)
_memory_body = msgspec.msgpack.Decoder(MemoryBody)
_body_of = _memory_body.decode
_pace = msgspec.msgpack.Decoder(Pace)
pack = msgspec.msgpack.Encoder().encode
number = msgspec.json.Encoder().encode
"""A number as text, the shortest that is read as the same."""


class _Entry(NamedTuple):
    stamp: int
    at_us: int
    context: bytes
    body: bytes


def _entry(element: bytes) -> _Entry:
    stamp, flag, size = _HEAD.unpack_from(element)
    if flag == 0:
        start, at_us = 11, stamp_us(stamp)
    else:
        start, at_us = 19, int(_DOUBLE.unpack_from(element, 9)[0])
        size = _CONTEXT.unpack_from(element, 17)[0]
    body = start + size
    return _Entry(stamp, at_us, element[start:body], element[body:])


def _id(nonce: bytes, stamp: int, at_us: int) -> UUID:
    return record_id(stamp, nonce, at_us) if len(nonce) == 8 else uuid_of(nonce)


def place_of(element: bytes) -> tuple[int, int]:
    """`(at_us, stamp)` of an element."""
    if element[0] in _ARRAYS:
        stamp = stamp_in_id(element[3:19])
        return stamp_us(stamp), stamp
    entry = _entry(element)
    return entry.at_us, entry.stamp


def element_of(kind: str, stamp: int, payload: bytes) -> bytes:
    """The element of the list from the entry of the log, of that kind; the same as in `lua/histories.lua`."""
    ms = stamp >> 16
    usual = kind == "M" and payload[:3] == b"\0\0\0" and payload[4:6] == b"\xc4\x08" and len(payload) >= 14
    if not usual or payload[3] + 1 not in _ARRAYS or ms // 1_000 >= _LAST_SECOND:
        return _STAMP.pack(stamp) + payload
    sixteen = id_bytes(stamp, payload[6:14], ms * 1_000)
    at = (ms % 1_000 * 1_000_000) << 34 | ms // 1_000
    return _ARRAY.pack(payload[3] + 1, b"\xc4\x10", sixteen, 0xD7FF, at) + payload[14:]


def message_of(agent: UUID, element: bytes) -> Placed[ConversationMessage]:
    """A message from its element."""
    message = message_record(agent, element)
    return Placed(*place_of(element), message)


def message_record(agent: UUID, element: bytes) -> ConversationMessage:
    """The same without its place."""
    try:
        if element[0] not in _ARRAYS:
            return _unusual_message(agent, element)
        _whose.set(agent)
        message: ConversationMessage = _said(element)
    except _BROKEN as exc:
        raise Undecodable(f"message: {exc}") from exc
    message.__class__ = ConversationMessage
    return message


def message_records(agent: UUID, elements: Sequence[bytes]) -> list[ConversationMessage]:
    """Those of many elements; Undecodable if one of them cannot be read."""
    _whose.set(agent)
    try:
        return _read_together(elements)
    except _BROKEN as exc:
        usual = [element for element in elements if element and element[0] in _ARRAYS]
        if len(usual) == len(elements):
            raise Undecodable(f"messages: {exc}") from exc
    try:
        read = iter(_read_together(usual))
        return [next(read) if e[0] in _ARRAYS else _unusual_message(agent, e) for e in elements]
    except _BROKEN as exc:
        raise Undecodable(f"messages: {exc}") from exc


def _read_together(elements: Sequence[bytes]) -> list[ConversationMessage]:
    """Those of elements that are MessagePack."""
    messages: Any = _all_said(b"\xdd" + len(elements).to_bytes(4, "big") + b"".join(elements))
    deque(map(setattr, messages, repeat("__class__"), repeat(ConversationMessage)), 0)
    return messages  # type: ignore[no-any-return]


def _unusual_message(agent: UUID, element: bytes) -> ConversationMessage:
    """One with a time of its own, with what was felt, or with an id that it brought along."""
    stamp, at_us, felt, packed = _entry(element)
    body = _message_body.decode(packed)
    context = _felt_then(felt) if felt else body.emotional_context
    return ConversationMessage(
        id=_id(body.nonce, stamp, at_us),
        agent_id=agent,
        role=body.role,
        content=body.content,
        metadata=body.metadata,
        emotional_context=context,
        tokens_used=body.tokens_used,
        session_id=uuid_of(body.session_id) if body.session_id else None,
        created_at=from_us(at_us),
    )


class Amendment(msgspec.Struct, array_like=True, frozen=True):
    """Another emotional context for a message: its id (16 bytes), its time in microseconds."""

    id: bytes
    at_us: int
    emotional_context: dict[str, Any] | None


_amendment = msgspec.msgpack.Decoder(Amendment)


def amendment_of(payload: bytes) -> Amendment:
    """An amendment from its entry in the log."""
    try:
        return _amendment.decode(payload)
    except _BROKEN as exc:
        raise Undecodable(f"amendment: {exc}") from exc


def message_element(placed: Placed[ConversationMessage]) -> bytes:
    """The element of a message that came from PostgreSQL."""
    message, stamp = placed.record, placed.stamp
    sixteen, ms = message.id.bytes, stamp >> 16
    said = (
        message.role,
        message.content,
        message.metadata,
        message.emotional_context,
        message.tokens_used,
        message.session_id.bytes if message.session_id else None,
    )
    if placed.at_us != ms * 1_000 or not is_id_at(message.id, stamp):
        return _element(placed, pack(MessageBody(sixteen, *said)))
    if ms % 1_000 and ms // 1_000 < _LAST_SECOND:  # else its time is not packed in 64 bits
        return pack((sixteen, message.created_at, *said))
    return element_of("M", stamp, b"\0\0\0" + pack(MessageBody(sixteen[8:], *said)))


def _element(placed: Placed[Any], body: bytes) -> bytes:
    if placed.at_us == stamp_us(placed.stamp):
        return _STAMP.pack(placed.stamp) + b"\0\0\0" + body
    return _STAMP.pack(placed.stamp) + b"\1" + _DOUBLE.pack(float(placed.at_us)) + b"\0\0" + body


class SettledEvent(NamedTuple):
    """An event with what the agent felt after it, and the state before it."""

    placed: Placed[EmotionalEventRecord]
    after: dict[Emotion, float]
    before: Before | None


def event_of(agent: UUID, element: bytes) -> SettledEvent:
    """An event from its element. One that came from PostgreSQL has no context: its `after` is empty, `before` None."""
    try:
        entry = _entry(element)
        if entry.context:
            return _settle(agent, entry)
        record = _event_record.decode(entry.body)
    except _BROKEN as exc:
        raise Undecodable(f"event: {exc}") from exc
    return SettledEvent(Placed(entry.at_us, entry.stamp, record), {}, None)


def event_element(placed: Placed[EmotionalEventRecord]) -> bytes:
    """The element of an event that came from PostgreSQL."""
    return _element(placed, pack(placed.record))


def _changes(packed: bytes) -> dict[Emotion, float]:
    changes: dict[Emotion, float] = {}
    at = 0
    while at < len(packed):
        size = packed[at]
        name, at = packed[at + 1 : at + 1 + size], at + 1 + size
        changes[_EMOTIONS[name]] = _DOUBLE.unpack_from(packed, at)[0]
        at += 8
    return changes


def _settle(agent: UUID, entry: _Entry) -> SettledEvent:
    """Works out, from the state before an event, what it made of it."""
    before, state, now_us, rest = _snapshot(entry.context)
    mode, changes = _MODES[rest[:1]], _changes(rest[1:])
    body = _event_body.decode(entry.body)
    after = changed(before, state.rates, mode, changes, late_us(entry.at_us, entry.stamp, now_us))
    record = EmotionalEventRecord(
        id=_id(body.nonce, entry.stamp, entry.at_us),
        agent_id=agent,
        event_type=body.event.event_type,
        event=body.event,
        resulting_emotions=changes,
        context_factors=body.context_factors,
        occurred_at=from_us(entry.at_us),
        created_at=from_us(stamp_us(entry.stamp)),
        session_id=UUID(bytes=body.session_id) if body.session_id else None,
        mode=mode,
        **_feelings(before, after),
    )
    return SettledEvent(Placed(entry.at_us, entry.stamp, record), after, Before(now_us, state))


def _feelings(before: Mapping[Emotion, float], after: Mapping[Emotion, float]) -> dict[str, Any]:
    valence, arousal, intensity = valence_of(after), arousal_of(after), intensity_of(after)
    return {
        "valence": valence,
        "arousal": arousal,
        "intensity": intensity,
        "valence_delta": valence - valence_of(before),
        "arousal_delta": arousal - arousal_of(before),
        "intensity_delta": intensity - intensity_of(before),
    }


def pace_of(raw: bytes) -> Pace | None:
    """What a daemon measured; None where another version wrote it otherwise."""
    try:
        return _pace.decode(raw)
    except _BROKEN:
        return None


# --- memories ---

MEMORY_FLUSHED = 33
"""The bytes of a present memory by which a flush knows it again: mark, stamp, expiry, access count, last access."""


def is_for_postgres(raw: bytes | None) -> bool:
    """Whether a memory's value is of those that are flushed: not a lease, not transient, not a mere known absence."""
    return raw is not None and raw[:1] in (b"P", b"A") and raw != memory_bytes(None)


def memory_of(agent: UUID, member: str, raw: bytes) -> StoredMemory:
    """A memory, or the stamp of its deletion, from its value."""
    try:
        if raw[:1] == b"A":
            return StoredMemory(_STAMP.unpack_from(raw, 1)[0], None)
        mark, stamp, expires, count, accessed, created, updated = _MEMORY.unpack_from(raw)
        if mark not in (b"P", b"T"):
            raise Undecodable(f"memory: mark {mark!r}")
        body = _memory_body.decode(memoryview(raw)[_MEMORY.size :])
        memory_type, key = member_parts(member)
        written = from_us(updated)
        record = MemoryRecord(
            id=memory_id(agent, memory_type, key),
            agent_id=agent,
            memory_type=memory_type,
            key=key,
            data=body.data,
            importance=body.importance,
            access_count=int(count),
            last_accessed=written if accessed == updated else from_us(accessed),
            created_at=written if created == updated else from_us(created),
            updated_at=written,
            expires_at=from_us(expires) if expires else None,
            tags=body.tags,
        )
    except _BROKEN as exc:
        raise Undecodable(f"memory: {exc}") from exc
    return StoredMemory(stamp, record)


def memory_of_body(agent: UUID, memory_type: str, key: str, body: MemoryBody, head: bytes) -> MemoryRecord:
    """A memory that was just stored with this body, whose data it holds, from the head that the server made."""
    try:
        _, _, expires, count, accessed, created, updated = _MEMORY.unpack(head)
        written = from_us(updated)
        began = written if created == updated else from_us(created)
        return MemoryRecord(
            id=memory_id(agent, memory_type, key),
            agent_id=agent,
            memory_type=memory_type,
            key=key,
            data=body.data,
            importance=body.importance,
            access_count=int(count),
            last_accessed=began if accessed == created else from_us(accessed),
            created_at=began,
            updated_at=written,
            expires_at=from_us(expires) if expires else None,
            tags=body.tags,
        )
    except _BROKEN as exc:
        raise Undecodable(f"memory: {exc}") from exc


def expires(raw: bytes) -> bool:
    """Whether a present memory ends by itself."""
    return raw[:1] != b"A" and (len(raw) < MEMORY_FLUSHED or _DOUBLE.unpack_from(raw, 9)[0] > 0)


def memory_data(raw: bytes) -> Any:
    """Only the data of a memory; None where it was deleted."""
    try:
        if raw[0] in _LIVING:
            return _body_of(raw[_MEMORY_HEAD:]).data
        if raw[:1] == b"A":
            return None
        raise Undecodable(f"memory: mark {raw[:1]!r}")
    except _BROKEN as exc:
        raise Undecodable(f"memory: {exc}") from exc


def memory_bytes(stored: StoredMemory | None) -> bytes:
    """The value of a memory that came from PostgreSQL."""
    if stored is None or stored.record is None:
        return b"A" + _STAMP.pack(stored.stamp if stored else 0)
    record = stored.record
    head = _MEMORY.pack(
        b"P",
        stored.stamp,
        _us(record.expires_at),
        float(record.access_count),
        _us(record.last_accessed),
        _us(record.created_at),
        _us(record.updated_at),
    )
    return head + pack(MemoryBody(record.data, record.importance, record.tags))


def _us(at: datetime | None) -> float:
    return float(to_us(at)) if at else 0.0


def message_body(
    nonce: bytes,
    role: str,
    content: str,
    metadata: Json,
    context: dict[str, Any] | None,
    tokens: int | None,
    session: UUID | None,
) -> bytes:
    """The body of a new message."""
    return pack(MessageBody(nonce, role, content, metadata, context, tokens, session.bytes if session else None))
