"""Forgetting an agent: nothing of it stays in either tier, and nothing that is on its way brings any of it back.

1. Hold the shard, so that nobody flushes it. Then write the agent's tombstone, in a transaction of its own: from here
   on PostgreSQL's readers see nothing of what it has.
2. Drop the agent from Redis, all at once. That moment is a stamp: what lies below it is of the life that ends, what
   lies above it of the next. The tombstone is moved up to it, and the shard let go of.
3. At leisure, and beside everybody: entries, dead letters, events of the feed and idempotency keys leave Redis, rows
   leave PostgreSQL. Whatever a flush meets of it meanwhile, or a replica brings back, it drops.
4. Look again, in all places, and remove what is found, until nothing is.
Whoever dies in 1 or 2 has done nothing, or has left a tombstone under which forgetting the agent again ends it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from uuid import UUID

from banshee_memory.cold.client import ColdStore
from banshee_memory.errors import HotStoreUnavailable
from banshee_memory.failpoints import failpoint
from banshee_memory.hot import erasing
from banshee_memory.hot.calls import Call
from banshee_memory.hot.client import HotStore
from banshee_memory.hot.erasing import Dropped, Page
from banshee_memory.hot.keys import AgentKeys, agent_keys, shard_keys
from banshee_memory.records import ErasureReport
from banshee_memory.settings import Settings
from banshee_memory.stamps import from_us

KINDS = (
    *("keys", "log_entries", "dead_letters", "feed_entries", "idempotency_keys"),
    *("states", "memories", "messages", "events", "rollups"),
)
_LOOKS = 5
_ROUNDS = 1_000
Advance = Callable[[str, int], None]


class Forgetting:
    """Forgets one agent. `advance` is told each kind of thing that goes, and how many of it."""

    def __init__(self, settings: Settings, hot: HotStore, cold: ColdStore, advance: Advance | None = None) -> None:
        self._settings = settings
        self._hot = hot
        self._cold = cold
        self._advance = advance

    def forget(self, agent_id: UUID) -> ErasureReport:
        """Does it; gives what went. Any number may forget the same agent at once.

        HotStoreUnavailable and ColdStoreUnavailable where a store is not there: calling it again ends it.
        """
        started, removed = time.monotonic(), Counter[str]()
        keys = agent_keys(agent_id, self._settings.shards)
        dropped = self._hot.recovering(lambda: self._end_life(keys, removed))
        found = removed
        for _ in range(_LOOKS):
            found = self._erase(keys, dropped)
            removed += found
            if not found:
                break
        return ErasureReport(
            agent_id=agent_id,
            forgotten_at=from_us(dropped.at_us),
            rechecked=tuple(kind for kind in KINDS if not found[kind]),
            left=found.total(),
            seconds=time.monotonic() - started,
            **removed,
        )

    # --- the moment between two lives ---

    def _end_life(self, keys: AgentKeys, removed: Counter[str]) -> Dropped:
        from banshee_memory.cold.erasure import bury

        # Before the shard is held: this walks along all of Redis.
        known = self._members(keys)
        with self._cold.drain([keys.shard], self._settings.flush_timeout) as transaction:
            failpoint("forget.locked")
            buried = bury(self._cold, keys.agent, keys.shard, transaction.held[keys.shard])
            removed.update(totals=buried.totals, states=buried.states)
            failpoint("forget.tombstoned")
            dropped = self._drop_keys(keys, buried.stamp, known)
            failpoint("forget.keys_dropped")
            assert dropped.through is not None
            transaction.raise_tombstone(keys.agent, dropped.through)
            failpoint("forget.tombstone_raised")
        failpoint("forget.life_ended")
        self._count("keys", dropped.gone, removed)
        return dropped

    def _drop_keys(self, keys: AgentKeys, tombstone: int, known: set[bytes]) -> Dropped:
        """All keys at one moment. Memories go before it, a bounded number at a time; what is written to one again then
        is named by the index, and goes with the next."""
        count = 0
        for _ in range(_ROUNDS):
            if not known:
                known = self._indexed(keys)
            members = [known.pop() for _ in range(min(len(known), erasing.MOST_MEMBERS))]
            dropped = self._hot.run(erasing.forget(keys, tombstone, members))
            count += dropped.gone
            if dropped.through is not None and not known:
                return dropped._replace(gone=count)
            failpoint("forget.memories_dropped")
        raise HotStoreUnavailable(
            "The agent's memories are written faster than they can be dropped. Stop whoever does, and forget it again."
        )

    # --- at leisure ---

    def _erase(self, keys: AgentKeys, dropped: Dropped) -> Counter[str]:
        """One look into every place; gives what was found there and removed."""
        from banshee_memory.cold.erasure import erase

        found = Counter[str]()
        for kind, count in self._erase_hot(keys, dropped):
            self._count(kind, count, found)
        assert dropped.through is not None
        for kind, count in erase(self._cold, keys.agent, dropped.through):
            self._count(kind, count, found)
            failpoint("forget.rows_erased")
        return +found

    def _erase_hot(self, keys: AgentKeys, dropped: Dropped) -> Iterator[tuple[str, int]]:
        assert dropped.through is not None
        # The log before the dead letters: a flush that read an entry moves it there only while the log has it.
        shard = shard_keys(keys.shard)
        for kind, stream in (("log_entries", shard.log), ("dead_letters", shard.dead), ("feed_entries", shard.feed)):
            for count in self._entries(keys, stream, dropped.through):
                yield kind, count
            failpoint("forget.entries_erased")
        for page in self._pages(lambda cursor: erasing.idempotency_fields(keys, cursor, dropped.at_us)):
            if page:
                yield "idempotency_keys", self._hot.run(erasing.drop_idempotency_fields(keys, page))
        failpoint("forget.idempotency_keys_erased")
        members = list(self._members(keys))
        for first in range(0, max(len(members), 1), erasing.MOST_MEMBERS):
            some = members[first : first + erasing.MOST_MEMBERS]
            again = True
            while again:
                call = erasing.erase_keys(keys, dropped.through, dropped.at_us, some)
                count, again = self._hot.run(call)
                yield "keys", 0 if again else count
        failpoint("forget.keys_erased")

    def _entries(self, keys: AgentKeys, stream: str, through: int) -> Iterator[int]:
        after = b""
        while True:
            after, count = self._hot.run(erasing.erase_entries(keys, stream, through, after))
            yield count
            if not after:
                return

    def _members(self, keys: AgentKeys) -> set[bytes]:
        """Memories of which a key is there, or that the index or an access names."""
        members = self._indexed(keys)
        for walk in (erasing.memory_keys, erasing.accessed_members):
            for page in self._pages(lambda cursor, walk=walk: walk(keys, cursor)):  # type: ignore[misc]
                members.update(page)
        return members

    def _indexed(self, keys: AgentKeys) -> set[bytes]:
        members = self._hot.run(erasing.indexed(keys))
        return set(members)

    def _pages(self, call: Callable[[bytes], Call[Page]]) -> Iterator[list[bytes]]:
        cursor = b"0"
        while cursor:
            cursor, found = self._hot.run(call(cursor))
            yield found

    def _count(self, kind: str, count: int, into: Counter[str]) -> None:
        into[kind] += count
        if self._advance is not None:
            self._advance(kind, count)
