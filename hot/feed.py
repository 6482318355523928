"""The live feed: what a subscriber has seen of each shard's stream, and what comes next. Pure; clients do the I/O.

A feed holds the latest events only. Who was away for longer reads the history for what is missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

from banshee_memory.hot import wire
from banshee_memory.hot.calls import Argument
from banshee_memory.hot.keys import shard_keys, shard_of
from banshee_memory.records import EmotionalEventRecord
from banshee_memory.settings import Settings
from banshee_memory.stamps import to_us

_BLOCK_MS = 1_000
_MARGIN_MS = 5_000
"""How much earlier a resumed feed begins to look for its position: the log's ids can be ahead of the feed's."""


class Subscription:
    """One subscriber's position in the feeds of one agent, or of all."""

    def __init__(self, settings: Settings, agent_id: UUID | None, after: EmotionalEventRecord | None) -> None:
        shards = range(settings.shards) if agent_id is None else [shard_of(agent_id, settings.shards)]
        self._agent = agent_id
        self._keys = [shard_keys(shard).feed for shard in shards]
        self._after = after
        self._seen: dict[str, Argument] = {}

    def begin(self) -> list[tuple[Argument, ...]]:
        """The commands to send first: where each feed ends now, or what it has since the position."""
        if self._after is None:
            return [("XREVRANGE", key, "+", "-", "COUNT", 1) for key in self._keys]
        since = max(to_us(self._after.created_at) // 1_000 - _MARGIN_MS, 0)
        return [("XRANGE", key, since, "+") for key in self._keys]

    def begun(self, replies: Sequence[Any]) -> list[EmotionalEventRecord]:
        """What the first commands found: with a position, the events after it."""
        missed = []
        for key, entries in zip(self._keys, replies, strict=True):
            newest = 0 if self._after is None else -1
            self._seen[key] = entries[newest][0] if entries else "0-0"
            if self._after is not None:
                missed += list(self._records(entries))
        return sorted(self._later(missed), key=lambda event: event.created_at)

    def _later(self, events: list[EmotionalEventRecord]) -> Iterator[EmotionalEventRecord]:
        after = self._after
        if after is None:
            return
        place = next((n for n, event in enumerate(events) if event.id == after.id), None)
        for n, event in enumerate(events):
            same_shard = place is not None and event.created_at == after.created_at
            if event.created_at > after.created_at or (same_shard and place is not None and n > place):
                yield event

    def wait(self) -> tuple[Argument, ...]:
        """The command that waits for more, for up to a second."""
        return ("XREAD", "BLOCK", _BLOCK_MS, "STREAMS", *self._seen, *self._seen.values())

    def came(self, reply: Any) -> Iterator[EmotionalEventRecord]:
        """What it brought."""
        for key, entries in reply or ():
            self._seen[key.decode()] = entries[-1][0]
            yield from self._records(entries)

    def _records(self, entries: Sequence[Any]) -> Iterator[EmotionalEventRecord]:
        for _, fields in entries:
            agent = UUID(bytes=fields[1])
            if self._agent in (None, agent):
                try:
                    yield wire.event_of(agent, fields[3]).placed.record
                except wire.Undecodable:
                    continue  # it is a dead letter by now
