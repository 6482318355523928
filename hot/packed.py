"""The hottest calls, packed beforehand.

Reads are the same at each call, so who keeps one sends nothing but bytes. Of the writes what is the same at each call
of an agent waits on its keys: each sends the words of its namesake in `calls.py`, for the usual case, without an
idempotency key, with the time of the server. Of what the caller gave no more is read back than what the server made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any
from uuid import UUID

from banshee_memory.emotions import Emotion, EmotionalState
from banshee_memory.hot import wire
from banshee_memory.hot.calls import MISS, VERSION, Argument, Call, Miss
from banshee_memory.hot.keys import AgentKeys
from banshee_memory.records import MemoryRecord
from banshee_memory.stamps import entry_record_id

_MISS = b"MISS"
_MOST_PACKED = 100
"""Beginnings of calls that wait on an agent's keys."""
_AMOUNTS = {e: b"$%d\r\n%b\r\n$" % (len(e.value), e.value.encode()) for e in Emotion}
_HEADS = [b"*%d\r\n" % words for words in range(64)]


def _words(*words: str | bytes) -> bytes:
    raw = [word.encode() if isinstance(word, str) else word for word in words]
    return b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in raw)


def packed(*several: Call[Any], decode: Callable[[Any], Any] | None = None) -> Call[Any]:
    """The same call as bytes; of several, `decode` reads the list of all replies."""
    sent = [_HEADS[len(call.command)] + _words(*map(_word, call.command)) for call in several]
    return Call(b"".join(sent), decode or several[0].decode, len(several))


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


def update_emotions(keys: AgentKeys, changes: Mapping[Emotion, float], mode: str) -> Call[EmotionalState | Miss | None]:
    """Decays, applies, clamps, drops; gives what is now true."""
    begin = keys.packed.get(mode) or _waiting(
        keys, mode, lambda: _function("update_emotions", (keys.state, keys.log), keys.agent.bytes, mode)
    )
    parts = [_HEADS[7 + 2 * len(changes)], begin]
    for emotion, amount in changes.items():
        text = repr(amount)
        parts.append(b"%b%d\r\n%b\r\n" % (_AMOUNTS[emotion], len(text), text.encode()))
    return Call(b"".join(parts), wire.state_now)


# --- histories ---


def append_message(keys: AgentKeys, felt: bool, body: bytes, nonce: bytes) -> Call[UUID | Miss]:
    """Appends a message, with what is felt or not; gives its id. `nonce`: a fresh one, that of the body."""
    name = "felt" if felt else "said"
    begin = keys.packed.get(name) or _waiting(keys, name, lambda: _message_begin(keys, felt))
    return Call(b"%b%d\r\n%b\r\n" % (begin, len(body), body), partial(_appended, nonce))


def _appended(nonce: bytes, reply: Any) -> UUID | Miss:
    return MISS if reply == _MISS else entry_record_id(reply[0], nonce)


def _message_begin(keys: AgentKeys, felt: bool) -> bytes:
    at = (keys.messages, keys.log, keys.state)
    return _HEADS[10] + _function("append_messages", at, keys.agent.bytes, "", "1" if felt else "") + b"$"


# --- memories ---


def store_memory(
    keys: AgentKeys, memory_type: str, key: str, body: wire.MemoryBody, ttl: float | None
) -> Call[MemoryRecord | Miss]:
    """Stores or replaces; gives the memory. What the body holds is the memory's from now on."""
    member = f"{memory_type}:{key}"
    begin = keys.packed.get(member) or _waiting(keys, member, lambda: _memory_begin(keys, member))
    lasting = b"" if ttl is None else repr(ttl).encode()
    packed = wire.pack(body)
    words = (begin, len(lasting), lasting, len(packed), packed)
    decode = partial(_stored, keys.agent, memory_type, key, body)
    return Call(b"%b%d\r\n%b\r\n$%d\r\n%b\r\n$0\r\n\r\n" % words, decode)


def _stored(agent: UUID, memory_type: str, key: str, body: wire.MemoryBody, reply: Any) -> MemoryRecord | Miss:
    return MISS if reply == _MISS else wire.memory_of_body(agent, memory_type, key, body, reply)


def _memory_begin(keys: AgentKeys, member: str) -> bytes:
    at = (keys.memory(member), keys.memories, keys.log)
    return _HEADS[11] + _function("store_memory", at, keys.agent.bytes, member) + b"$"
