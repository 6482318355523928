"""Recovery: what is done on a Redis that is not the one that was written to last, before it is used.

It was restarted and may lack the last writes; or it was a replica, may lack more, and hold what is no longer true;
or it is new and empty. In two steps, each done by any number of clients at once, dying anywhere and begun again:

1. *Meet*, for which Redis alone is needed. Each shard's log is parked, so that nothing can be written; then what may be
   stale goes: keys with a TTL (all of them are in PostgreSQL), and of other lists what no log holds.
2. *Admit*, under PostgreSQL's rows of the shards. What is parked is flushed: so PostgreSQL decides which of the values
   that survived are the newest. What is clean then goes once more: PostgreSQL may have a newer amendment, or value. The
   logs come back, with stamps after all that PostgreSQL has, and what the server is known to lack is recorded.

While PostgreSQL is away the first step has to do: what is resident is served, and nothing is written. The second is
then done by the first write, or flush, that reaches PostgreSQL.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

from banshee_memory.cold.client import ColdStore
from banshee_memory.cold.drain import Drain as Rows
from banshee_memory.errors import ColdStoreUnavailable, HotStoreFull
from banshee_memory.failpoints import failpoint
from banshee_memory.hot import calls, failover, greeting
from banshee_memory.hot.calls import Call
from banshee_memory.hot.client import HotStore
from banshee_memory.hot.faults import ServerChangedError
from banshee_memory.hot.incarnation import Incarnation, incarnation_of
from banshee_memory.hot.keys import PREFIX, OwnedKey, owned_key, shard_keys
from banshee_memory.settings import Settings
from banshee_memory.stamps import from_us, stamp_us
from banshee_memory.tiering.drain import Drain
from banshee_memory.tiering.shards import ask

T = TypeVar("T")
_ATTEMPTS = 3
_KEYS_AT_ONCE = 500
_ENTRIES_AT_ONCE = 200
_LETTERS = {"state": "s", "messages": "h", "events": "h", "memory": "m", "memories": "i"}
Kept = Mapping[tuple[int, bytes], Sequence[bytes]]


class Recoverer:
    """Recovers the server that a hot store leads to. One for a client; see `hot.incarnation.Recovers`."""

    def __init__(self, settings: Settings, hot: HotStore, cold: ColdStore) -> None:
        self._settings = settings
        self._hot = hot
        self._cold = cold

    def meet(self) -> None:
        """Before anything is read. While PostgreSQL is away, or Redis full, what is left of it may be read."""
        self._recover(_Recovery.meet)

    def admit(self) -> None:
        """Before anything is written; ColdStoreUnavailable where PostgreSQL cannot be asked."""
        try:
            self._recover(_Recovery.admit)
        except ColdStoreUnavailable as exc:
            raise ColdStoreUnavailable(
                "Redis is new, or not the server that was written to last: nothing is written to it before PostgreSQL "
                f"has been asked what it has. {exc}"
            ) from exc

    def _recover(self, step: Callable[[_Recovery], None]) -> None:
        """With a client that uses the server as it is; from the beginning where another took its place meanwhile."""
        for left in reversed(range(_ATTEMPTS)):
            hot = self._hot.sibling()
            try:
                step(_Recovery(self._settings, hot, self._cold))
                return
            except ServerChangedError:
                if not left:
                    raise
            finally:
                hot.close()


class _Recovery:
    """One recovery, by a client of Redis that uses the server as it is."""

    def __init__(self, settings: Settings, hot: HotStore, cold: ColdStore) -> None:
        self._settings = settings
        self._hot = hot
        self._cold = cold
        self._shards = [shard_keys(number) for number in range(settings.shards)]

    def meet(self) -> None:
        found = self._found()
        if found.is_known:
            return  # another client was faster
        self._check_shards()
        self._let_go_of_what_may_be_stale(found.identity)
        try:
            self._admit(found)
        except (ColdStoreUnavailable, HotStoreFull):
            self._name(found)

    def admit(self) -> None:
        found = self._found()
        if not found.is_known:
            self._check_shards()
            self._let_go_of_what_may_be_stale(found.identity)
        self._admit(found)

    def _found(self) -> Incarnation:
        return incarnation_of(self._hot.run_all(failover.which_server()))

    def _check_shards(self) -> None:
        """A client with another number of shards is refused before it touches anything, if PostgreSQL can tell."""
        try:
            self._cold.ping()
        except ColdStoreUnavailable:
            return

    # --- step one ---

    def _let_go_of_what_may_be_stale(self, server: str) -> None:
        # A key of ours that somebody broke (another type) must not keep the other shards.
        parked = self._ask_it([failover.park(keys, server) for keys in self._shards])
        failpoint("recover.parked")
        if not any(parked):
            return
        kept = self._kept()
        for keys in _pages(self._owned(), _KEYS_AT_ONCE):
            self._shed(keys, server, kept)
            failpoint("recover.shed")
        self._ask_it([failover.mark_recovered(keys, server) for keys in self._shards])
        failpoint("recover.met")

    def _owned(self) -> Iterator[OwnedKey]:
        for name in self._hot.keys(f"{PREFIX}{{*"):
            key = owned_key(name)
            if key is not None and key.shard < len(self._shards):
                yield key

    def _kept(self) -> Kept:
        """What entries of the parked logs keep in lists besides their own elements, by shard and agent."""
        kept: dict[tuple[int, bytes], list[bytes]] = defaultdict(list)
        for keys in self._shards:
            start = b"-"
            while start:
                (page,) = ask(self._hot, [failover.mentioned(keys, start, _ENTRIES_AT_ONCE)])
                start, mentions = page or (b"", [])
                for agent, what in mentions:
                    kept[keys.shard, agent].append(what)
        return kept

    def _shed(self, page: Sequence[OwnedKey], server: str, kept: Kept) -> None:
        by_shard: dict[int, list[tuple[str, str, bytes]]] = defaultdict(list)
        for key in page:
            by_shard[key.shard].append((key.name, _LETTERS[key.kind], _kept_in(key, kept)))
        birth, starts = os.urandom(8), dict.fromkeys(by_shard, 0)
        while by_shard:  # each call does some of it, so that each is short
            plans = [failover.shed(self._shards[n], server, birth, items, starts[n]) for n, items in by_shard.items()]
            for shard, done in zip(list(by_shard), self._ask_it(plans), strict=True):
                items, starts[shard] = done or (len(by_shard[shard]), 0)
                by_shard[shard] = by_shard[shard][items:]
                if not by_shard[shard]:
                    del by_shard[shard]

    # --- step two ---

    def _admit(self, found: Incarnation) -> None:
        if self._hot.run(calls.fixed_shards()) is None:
            self._hot.run(calls.fix_shards(self._settings.shards))
        greeting.check_shards(self._settings.shards, self._hot.run(calls.fixed_shards()))
        survivors = Drain(self._settings, self._hot, self._cold)
        # A shard of which nothing can be carried must not keep the others from coming back: it keeps its log.
        survivors.flush_shards(survivors.waiting())
        failpoint("recover.survivors_flushed")
        # Held, so that a flush that read its records from the server before this one is either stored or never will be.
        with self._cold.drain(range(self._settings.shards), wait=self._settings.flush_timeout) as rows:
            stamps = rows.stamps()
            self._let_go_of_what_is_cold(found.identity)
            failpoint("recover.cleared")
            self._tell_replies(rows)
            failpoint("recover.replies_told")
            lasts = self._seed(stamps, found.identity)
            failpoint("recover.seeded")
            if found.named is not None or any(lasts.values()) or any(stamps.values()):
                rows.keep_recovery(found.identity, "redis", *_lack(stamps, lasts))
        failpoint("recover.recorded")
        self._name(found)
        failpoint("recover.named")

    def _let_go_of_what_is_cold(self, server: str) -> None:
        """What survived is flushed, and may differ from what PostgreSQL has of it: a message was amended on the server
        before this one, or a flush from there stored a value last. Nobody writes meanwhile."""
        for page in _pages(self._owned(), _KEYS_AT_ONCE):
            by_shard: dict[int, list[tuple[str, str]]] = defaultdict(list)
            for key in page:
                by_shard[key.shard].append((key.name, _LETTERS[key.kind]))
            self._ask_it([failover.clear(self._shards[n], server, items) for n, items in by_shard.items()])

    def _tell_replies(self, rows: Rows) -> None:
        """What calls with an idempotency key were answered after this server's last stamp, and within the window."""
        now_us = self._hot.run(calls.now())
        oldest = max(int(now_us - self._settings.idempotency_window * 1e6), 0) // 1_000 << 16
        lasts = ask(self._hot, [failover.reached(keys) for keys in self._shards])
        for keys, last in zip(self._shards, lasts, strict=True):
            if last is not None:
                for page in rows.replies_after(keys.shard, max(last, oldest)):
                    told = [(row.agent_id.bytes + row.function.encode() + row.key, row.reply) for row in page]
                    self._hot.run_all([failover.keep_reply(keys, field, reply) for field, reply in told])

    def _seed(self, flushed: Mapping[int, int], server: str) -> dict[int, int]:
        """Makes the logs; gives, of those that were not there, the last stamps that the server had itself."""
        plans = [failover.seed(self._shards[shard], stamp, server) for shard, stamp in flushed.items()]
        lasts = zip(flushed, self._ask_it(plans), strict=True)
        return {shard: last for shard, last in lasts if last is not None}

    def _name(self, found: Incarnation) -> None:
        _of_it([self._hot.run(failover.name_server(found.identity))])

    def _ask_it(self, plans: Sequence[Call[Any]]) -> list[Any]:
        """As `ask`, of the server that is recovered and of no other."""
        return _of_it(ask(self._hot, plans))


def _of_it(replies: list[Any]) -> list[Any]:
    if failover.CHANGED in replies:
        raise ServerChangedError("Redis was replaced once more while it was recovered; try again")
    return replies


def _kept_in(key: OwnedKey, kept: Kept) -> bytes:
    if _LETTERS[key.kind] != "h":
        return b""
    return b"".join(bytes([len(what)]) + what for what in kept.get((key.shard, key.agent.bytes), ()))


def _lack(flushed: Mapping[int, int], lasts: Mapping[int, int]) -> tuple[float | None, str]:
    """How many seconds the server is known to be behind PostgreSQL (None: it has nothing), and what that means."""
    behind = [stamp_us(flushed[shard]) - stamp_us(last) for shard, last in lasts.items() if last < flushed[shard]]
    newest = max(lasts.values(), default=0)
    until = f"until {_time(newest)}" if newest else "of nothing"
    after = f"What was acknowledged after {_time(newest)}" if newest else "What was acknowledged"
    unless = f"{after} and was not yet in PostgreSQL when it changed is lost"
    if not behind:
        return 0.0, f"Redis is another server than before; it knows {until}, no less than PostgreSQL. {unless}."
    most = max(behind) / 1e6 if newest else None
    far = (
        f"{len(behind)} of {len(flushed)} shards are behind PostgreSQL, which has until {_time(max(flushed.values()))}"
    )
    return most, f"Redis is another server than before; it knows {until}: {far}. {unless}."


def _time(stamp: int) -> str:
    return from_us(stamp_us(stamp)).isoformat(timespec="milliseconds")


def _pages(items: Iterator[T], size: int) -> Iterator[list[T]]:
    while page := list(islice(items, size)):
        yield page
