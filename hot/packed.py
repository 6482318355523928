"""The hottest calls, packed beforehand.

Reads are the same at each call, so who keeps one sends nothing but bytes. Of the writes what is the same at each call
of an agent waits on its keys: each sends the words of its namesake in `calls.py`, for the usual case, without an
idempotency key, with the time of the server. Of what the caller gave no more is read back than what the server made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any, TypeVar, cast
from uuid import UUID

from banshee_memory.emotions import Emotion, EmotionalState
from banshee_memory.hot import wire
from banshee_memory.hot.calls import MISS, VERSION, Argument, Call, Miss
from banshee_memory.hot.keys import AgentKeys
from banshee_memory.records import MemoryRecord
from banshee_memory.stamps import uuid_of

T = TypeVar("T")
_MISS = b"MISS"
_MOST_PACKED = 100
"""Beginnings of calls that wait on an agent's keys."""
_SIZES = [b"%d\r\n" % size for size in range(2_048)]
_AMOUNTS = {e: b"$%d\r\n%b\r\n$" % (len(e.value), e.value.encode()) for e in Emotion}
_HEADS = [b"*%d\r\n" % words for words in range(64)]


_FOR_EVER = b"0\r\n\r\n$"
"""A time to live that there is none of, and what the next word begins with."""
_NO_MORE = b"$0\r\n\r\n"
"""A last word that says nothing."""


def _sized(word: bytes) -> bytes:
    """A word after its `$`."""
    size = len(word)
    return (_SIZES[size] if size < len(_SIZES) else b"%d\r\n" % size) + word + b"\r\n"


def _words(*words: str | bytes) -> bytes:
    raw = [word.encode() if isinstance(word, str) else word for word in words]
    return b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in raw)


def packed(*several: Call[Any], decode: Callable[[Any], Any] | None = None) -> Call[Any]:
    """The same call as bytes; of several, `decode` reads the list of all replies."""
    sent = [_HEADS[len(call.command)] + _words(*map(_word, call.command)) for call in several]
    return Call(b"".join(sent), decode or several[0].decode, len(several))


def together(*several: Call[Any], decode: Callable[..., T]) -> Call[T | Miss]:
    """Several of these in one packet, each itself of several commands: what `decode` makes of their results, or a miss
    where one of them missed."""
    ends = list(accumulate(call.replies for call in several))
    parts = [(call.decode, end - call.replies, end) for call, end in zip(several, ends, strict=True)]

    def decoded(replies: Sequence[Any]) -> T | Miss:
        results = [read(replies[begin:end]) for read, begin, end in parts]
        return MISS if MISS in results else decode(*results)

    return Call(b"".join(cast("bytes", call.sent) for call in several), decoded, ends[-1])


def _word(argument: Argument) -> str | bytes:
    return argument if isinstance(argument, (str, bytes)) else str(argument)


def _function(name: str, keys: Sequence[str], *args: str | bytes) -> bytes:
    return _words("FCALL", f"banshee{VERSION}_{name}", str(len(keys)), *keys, *args)


def _waiting(keys: AgentKeys, name: str, made: Callable[[], bytes]) -> bytes:
    """What waits under that name; made now if it does not."""
    packed = keys.packed
    if len(packed) >= _MOST_PACKED:
        packed.clear()
    begin = packed[name] = made()
    return begin


# --- emotions ---


def load_state(keys: AgentKeys, clock: Call[int]) -> Call[EmotionalState | Miss | None]:
    """What it feels now. That command and HGETALL cost the server less than the function does. Also a miss where the
    reply is no state but an error: what follows a miss meets that again, and knows what to do about it."""
    felt = Call(("HGETALL", keys.state), wire.state_now)

    def decode(replies: Sequence[Any]) -> EmotionalState | Miss | None:
        time, flat = replies
        if type(flat) is not list or isinstance(time, Exception):
            return MISS
        return wire.state_at(clock.decode(time), flat)

    return packed(clock, felt, decode=decode)


def update_emotions(keys: AgentKeys, changes: Mapping[Emotion, float], mode: str) -> Call[EmotionalState | Miss | None]:
    """Decays, applies, clamps, drops; gives what is now true."""
    begin = keys.packed.get(mode) or _waiting(
        keys, mode, lambda: _function("update_emotions", (keys.state, keys.log), keys.agent.bytes, mode)
    )
    sent = _HEADS[7 + 2 * len(changes)] + begin
    for emotion, amount in changes.items():
        number = wire.number(amount)
        sent += _AMOUNTS[emotion] + _SIZES[len(number)] + number + b"\r\n"
    return Call(sent, wire.state_now)


# --- histories ---


def append_message(keys: AgentKeys, felt: bool, body: bytes) -> Call[UUID | Miss]:
    """Appends a message, with what is felt or not; gives its id."""
    name = "felt" if felt else "said"
    begin = keys.packed.get(name) or _waiting(keys, name, lambda: _message_begin(keys, felt))
    return Call(begin + _sized(body), _appended)


def _appended(reply: Any) -> UUID | Miss:
    return MISS if reply == _MISS else uuid_of(reply[0])


def _message_begin(keys: AgentKeys, felt: bool) -> bytes:
    at = (keys.messages, keys.log, keys.state)
    return _HEADS[10] + _function("append_messages", at, keys.agent.bytes, "", "1" if felt else "") + b"$"


# --- memories ---


def store_memory(
    keys: AgentKeys, memory_type: str, key: str, body: wire.MemoryBody, raw: bytes, ttl: float | None
) -> Call[MemoryRecord | Miss]:
    """Stores or replaces; gives the memory. What the body holds is the memory's from now on; `raw`: as it is packed."""
    member = f"{memory_type}:{key}"
    begin = keys.packed.get(member) or _waiting(keys, member, lambda: _memory_begin(keys, member))
    begin += _FOR_EVER if ttl is None else _sized(repr(ttl).encode()) + b"$"

    def stored(reply: Any) -> MemoryRecord | Miss:
        return MISS if reply == _MISS else wire.memory_of_body(keys.agent, memory_type, key, body, reply)

    return Call(begin + _sized(raw) + _NO_MORE, stored)


def _memory_begin(keys: AgentKeys, member: str) -> bytes:
    at = (keys.memory(member), keys.memories, keys.log)
    return _HEADS[11] + _function("store_memory", at, keys.agent.bytes, member) + b"$"
