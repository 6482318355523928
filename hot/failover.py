"""The calls to Redis that tell servers apart, and mend one that took another's place: see `lua/failover.lua`.

Pure plans, like those of `calls.py`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from banshee_memory.hot.calls import VERSION, Argument, Call, accepted, fcall, fcall_ro, same
from banshee_memory.hot.keys import PREFIX, STORE, OwnedKey, ShardKeys, shard_keys
from banshee_memory.stamps import entry_id_of, stamp_of

T = TypeVar("T")
QUESTIONS: tuple[tuple[Argument, ...], ...] = (("INFO", "server", "replication"), ("HGET", STORE, "server"))
"""What every new connection asks first."""


class Changed(enum.Enum):
    """It is another server again, or in the way of another mark; nothing was done."""

    CHANGED = "CHANGED"


CHANGED = Changed.CHANGED


def _or_changed(decode: Callable[[Any], T]) -> Callable[[Any], T | Changed]:
    return lambda reply: CHANGED if reply == b"CHANGED" else decode(reply)


def park(keys: ShardKeys, server: str) -> Call[bool | Changed]:
    """Keeps a shard from being written to; False: nothing was done, it was recovered for this server already."""
    return fcall("park", (keys.log, keys.parked, keys.stats), (server,), _or_changed(bool))


def mentioned(keys: ShardKeys, start: bytes, count: int) -> Call[tuple[bytes, list[tuple[bytes, bytes]]]]:
    """Of the parked log's entries: where to go on (`b""`: done), and agents with what they keep in their lists."""
    command = ("FCALL_RO", f"banshee{VERSION}_mentioned", 1, keys.parked, start, count)
    return Call(command, lambda reply: (reply[0], list(zip(reply[1::2], reply[2::2], strict=True))))


def shed(
    keys: ShardKeys, server: str, birth: bytes, items: Sequence[tuple[str, str, bytes]], start: int = 0
) -> Call[tuple[int, int] | Changed]:
    """Lets go of what may be stale: of each item (key, kind, what its list keeps), of the first from that element on.
    Gives how many items are done, and how many elements of the next one."""
    args: list[Argument] = [server, birth, start]
    for _, kind, kept in items:
        args += [kind, kept]
    return fcall("shed", (keys.parked, keys.stats, *(key for key, _, _ in items)), args, _or_changed(_done))


def _done(reply: Any) -> tuple[int, int]:
    _, items, elements = reply
    return int(items), int(elements)


def clear(keys: ShardKeys, server: str, items: Sequence[tuple[str, str]]) -> Call[int | Changed]:
    """Lets go of the rest that may be stale once what was parked is flushed: of each item (key, kind)."""
    at = (keys.log, keys.parked, *(key for key, _ in items))
    return fcall("clear", at, (server, *(kind for _, kind in items)), _or_changed(int))


def mark_recovered(keys: ShardKeys, server: str) -> Call[bool | Changed]:
    """Says that nothing stale is left in a shard of this server."""
    return fcall("mark", (keys.stats,), ("server", server), _or_changed(accepted))


def which_server() -> list[Call[Any]]:
    """What tells servers apart; read by `incarnation.incarnation_of`."""
    return [Call(question, same) for question in QUESTIONS]


def named_server() -> Call[str]:
    """The server that is written to."""
    return Call(("HGET", STORE, "server"), lambda reply: "" if reply is None else reply.decode(errors="replace"))


def name_server(server: str) -> Call[bool | Changed]:
    """Says that this server is the one that is written to."""
    return fcall("mark", (STORE,), ("server", server), _or_changed(accepted))


def parked_length(keys: ShardKeys) -> Call[int]:
    """How many entries wait in a parked log."""
    return Call(("XLEN", keys.parked), int)


def reached(keys: ShardKeys) -> Call[int | None]:
    """The last stamp that a shard's log had on this server (0: none), before it is seeded; None: the log is there."""
    return fcall_ro("reached", (keys.log, keys.parked), _stamp_or_none)


def flushed_mark(keys: ShardKeys) -> Call[int]:
    """Up to which stamp a shard was flushed, as Redis knows it."""
    return Call(("HGET", keys.stats, "flushed"), lambda reply: 0 if reply is None else stamp_of(reply))


def mark_flushed(keys: ShardKeys, stamp: int, before: int) -> Call[bool | Changed]:
    """Says up to which stamp a shard was flushed: less than it said before, where PostgreSQL went back."""
    args = ("flushed", entry_id_of(stamp), entry_id_of(before))
    return fcall("mark", (keys.stats,), args, _or_changed(accepted))


_AGAIN = {"state": "s", "memory": "m", "memories": "i", "messages": "M", "events": "E"}


def log_again(key: OwnedKey, stamp: int, start: int = 0) -> Call[tuple[int, int | None]]:
    """Logs what of a key is stamped after that, of a list from that element on; gives how many entries that were, and
    how many elements are done (None: all)."""
    shard, tag = shard_keys(key.shard), f"{PREFIX}{{{key.shard}}}:"
    index = f"{tag}memories:{key.agent}"
    member = key.name.removeprefix(f"{tag}memory:{key.agent}:") if key.kind == "memory" else ""
    args = (key.agent.bytes, _AGAIN[key.kind], stamp.to_bytes(8, "big"), member, start)
    decode = lambda reply: (int(reply[0]), int(reply[1]) if reply[1] else None)  # noqa: E731
    return fcall("log_again", (key.name, shard.log, shard.accesses, index), args, decode)


def kept_reply(keys: ShardKeys, field: bytes) -> Call[bytes | None]:
    """What a call with an idempotency key was answered."""
    return Call(("HGET", keys.idem, field), same)


def keep_reply(keys: ShardKeys, field: bytes, reply: bytes) -> Call[int]:
    """Tells again what a call was answered; what is there stays."""
    return Call(("HSETNX", keys.idem, field, reply), int)


def seed(keys: ShardKeys, stamp: int, server: str) -> Call[int | Changed | None]:
    """Makes a log that is not there, or brings the parked one back, with its next stamp after this one.

    Gives the last stamp that the log had on this server (0: there was none); None: the log is there.
    """
    at = (keys.log, keys.parked, keys.stats)
    return fcall("seed", at, (entry_id_of(stamp), server), _or_changed(_stamp_or_none))


def stamp_after(keys: ShardKeys, stamp: int) -> Call[bool]:
    """Makes the next stamps of a shard lie after one that PostgreSQL is about to have from elsewhere."""
    return fcall("stamp_after", (keys.log,), (entry_id_of(stamp),), accepted)


def _stamp_or_none(reply: Any) -> int | None:
    return None if reply is None else stamp_of(reply)
