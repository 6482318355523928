"""The calls to Redis that bring in what PostgreSQL has: a lease first, then an offer. See `lua/leases.lua`.

Pure plans, like those of `calls.py`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import TypeVar

from banshee_memory.emotions import StoredState
from banshee_memory.hot import wire
from banshee_memory.hot.calls import Argument, Call, accepted, fcall
from banshee_memory.hot.keys import AgentKeys
from banshee_memory.records import StoredMemory

T = TypeVar("T")


class Resident(enum.Enum):
    """Somebody brought the key in meanwhile: read again."""

    RESIDENT = "RESIDENT"


RESIDENT = Resident.RESIDENT


def lease(key: str, kind: str, token: bytes, ttl: float) -> Call[bytes | Resident]:
    """The right to offer a state ('s'), a memory ('m') or, as long as nothing leaves it, a history ('h')."""
    decode = lambda reply: RESIDENT if reply == b"RESIDENT" else bytes(reply)  # noqa: E731
    return fcall("lease", (key,), (kind, token, int(ttl * 1000)), decode)


def offer_state(keys: AgentKeys, token: bytes, ttl: float, state: StoredState | None) -> Call[bool]:
    """What PostgreSQL said of a state; False: refused."""
    args: list[Argument] = [token, int(ttl * 1000), *wire.state_fields(state)]
    return fcall("offer_state", (keys.state,), args, accepted)


def offer_history(
    key: str, header: wire.Header, ttl: float, complete_from: tuple[float, int], elements: Sequence[bytes]
) -> Call[bool]:
    """What PostgreSQL said of a history, complete from that place on; False: refused."""
    from_us, from_stamp = complete_from
    place: list[Argument] = [f"{from_us:.0f}", from_stamp.to_bytes(8, "big")]
    args = [header.generation, int(ttl * 1000), *place, *elements]
    return fcall("offer_history", (key,), args, accepted)


def offer_memory(keys: AgentKeys, member: str, token: bytes, ttl: float, stored: StoredMemory | None) -> Call[bool]:
    """What PostgreSQL said of a memory; False: refused."""
    args = (token, int(ttl * 1000), member, wire.memory_bytes(stored), keys.agent.bytes)
    return fcall("offer_memory", (keys.memory(member), keys.memories, keys.forgotten), args, accepted)


def lease_memories(
    keys: AgentKeys, memory_type: str | None, token: bytes, ttl: float, empty: Sequence[str]
) -> Call[bytes]:
    """The right to offer a whole type (None: all that begin with no `_`). `empty`: members of the index that were found
    to have no value; those that have none now leave it."""
    at = (keys.memories, *map(keys.memory, empty))
    args: list[Argument] = [memory_type or "", token, int(ttl * 1000), *empty]
    return fcall("lease_memories", at, args, bytes)


def offer_memories(
    keys: AgentKeys,
    memory_type: str | None,
    token: bytes,
    ttl: float,
    values: Mapping[str, bytes],
    *,
    whole: bool,
) -> Call[int]:
    """What PostgreSQL said of a type, by member (`b""`: it was resident); `whole`: with those offered before, these are
    all that it has. Gives how many were not there; none, where the lease is over."""
    at = (keys.memories, *map(keys.memory, values))
    args: list[Argument] = [memory_type or "", token, int(ttl * 1000), "1" if whole else ""]
    args += [word for item in values.items() for word in item]
    return fcall("offer_memories", at, args, lambda reply: 0 if reply == b"REFUSED" else int(reply))
