"""Calls about dead letters: entries of a shard's log that could not be flushed, with the reasons. Pure, as `calls`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from uuid import UUID

from banshee_memory.hot.calls import Call
from banshee_memory.hot.flushing import Entry, entries_of
from banshee_memory.hot.keys import ShardKeys, agent_keys, shard_of
from banshee_memory.records import DeadLetter
from banshee_memory.stamps import from_us, stamp_of, stamp_us

_KINDS = {"M": "message", "E": "event", "S": "state", "V": "memory", "A": "amendment"}
_AT_ONCE = 500


def page(keys: ShardKeys, after: str | None = None) -> Call[list[Entry]]:
    """The oldest dead letters of a shard, or those after that id; an empty page is the last."""
    return Call(("XRANGE", keys.dead, f"({after}" if after else "-", "+", "COUNT", _AT_ONCE), entries_of)


def one(keys: ShardKeys, entry_id: str) -> Call[list[Entry]]:
    """The dead letter with that id, if it is there."""
    return Call(("XRANGE", keys.dead, entry_id, entry_id), entries_of)


def retry(keys: ShardKeys, letter: DeadLetter, shards: int) -> Call[bool]:
    """Puts it back into the log, and into its list; False: it is not there any more, is an amendment, or its agent
    was forgotten lately."""
    return _about(letter, "retry", [keys.dead, keys.log, keys.forgotten, *_list_of(letter, shards)])


def drop(keys: ShardKeys, letter: DeadLetter, entry: Entry, shards: int) -> Call[bool]:
    """Gives it up, and the value that it left in Redis; False: it is not there any more."""
    return _about(letter, "drop", [keys.dead, *_value_of(letter, entry, shards)])


def letter_of(shard: int, entry: Entry) -> DeadLetter:
    """A dead letter from its entry, without its content."""
    fields = _fields(entry)
    head, logged = fields.get(b"k", b""), fields.get(b"id", b"")
    kind = _text(head[:1])
    at = None
    with suppress(ValueError, OverflowError):  # somebody else's entry
        at = from_us(stamp_us(stamp_of(logged)))
    return DeadLetter(
        id=f"{shard}:{entry.id.decode()}",
        shard=shard,
        buried_at=from_us(stamp_us(entry.stamp)),
        entry=_text(logged),
        at=at,
        kind=_KINDS.get(kind, kind) or None,
        agent_id=UUID(bytes=head[1:]) if len(head) == 17 else None,
        bytes=len(fields.get(b"p", b"")),
        reason=_text(fields.get(b"reason", b"")),
    )


def _about(letter: DeadLetter, what: str, keys: Sequence[str]) -> Call[bool]:
    return Call(("FCALL", f"banshee1_{what}_letter", len(keys), *keys, letter.id.partition(":")[2]), bool)


def _list_of(letter: DeadLetter, shards: int) -> list[str]:
    if letter.agent_id is None or shard_of(letter.agent_id, shards) != letter.shard:
        return []
    keys = agent_keys(letter.agent_id, shards)
    lists = {"message": keys.messages, "event": keys.events}
    return [lists[letter.kind]] if letter.kind in lists else []


def _value_of(letter: DeadLetter, entry: Entry, shards: int) -> list[str]:
    if letter.agent_id is None or shard_of(letter.agent_id, shards) != letter.shard:
        return []
    keys = agent_keys(letter.agent_id, shards)
    if letter.kind == "state":
        return [keys.state]
    if letter.kind == "memory":
        with suppress(UnicodeDecodeError):
            return [keys.memory(_fields(entry).get(b"p", b"").decode()), keys.memories]
    return []


def _fields(entry: Entry) -> dict[bytes, bytes]:
    return dict(zip(entry.raw[::2], entry.raw[1::2], strict=False))


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")
