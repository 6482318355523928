"""What the generators of this package share: settings, and how often Redis had the answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

from banshee_memory.errors import HotStoreFull, HotStoreUnavailable
from banshee_memory.failpoints import failpoint
from banshee_memory.hot import calls
from banshee_memory.hot.calls import MISS, Call
from banshee_memory.hot.keys import AgentKeys, agent_keys
from banshee_memory.hot.wire import Undecodable
from banshee_memory.settings import Durability, Settings
from banshee_memory.tiering.reach import Reach
from banshee_memory.tiering.steps import Steps, write

T = TypeVar("T")
_ATTEMPTS = 5


@dataclass(slots=True)
class Counters:
    """Of one client, since it was made. Not exact under threads: they are for people to look at."""

    hits: int = 0
    misses: int = 0
    undecodable: int = 0

    @property
    def hit_ratio(self) -> float | None:
        """The part of reads that Redis answered."""
        reads = self.hits + self.misses
        return self.hits / reads if reads else None


_MOST_WARM = 100_000
_MOST_KNOWN = 10_000
_MOST_ASKED = 100
_DAY_US = 86_400_000_000
_WEEK_US = 7 * _DAY_US


@dataclass(slots=True)
class Warmth:
    """When this client last started a key's TTL again, so that a read rarely has to: sliding it at each costs 30 %."""

    every: float
    since: dict[str, float] = field(default_factory=dict)

    def is_due(self, key: str) -> bool:
        """Whether it is time to start the key's TTL again; the caller then does."""
        now = time.monotonic()
        if len(self.since) > _MOST_WARM:
            self.since.clear()
        last = self.since.setdefault(key, now)
        if now - last < self.every:
            return False
        self.since[key] = now
        return True


@dataclass(frozen=True, slots=True)
class Residency:
    """Where agents live, and what it cost to find them."""

    settings: Settings
    counters: Counters = field(default_factory=Counters)
    warmth: Warmth = field(init=False)
    known: dict[int, AgentKeys] = field(default_factory=dict)
    members: dict[int, tuple[str, ...]] = field(default_factory=dict)
    """The memories that agents were last seen to have in Redis, unless those are many."""
    messages_reach: Reach = field(default_factory=lambda: Reach(_WEEK_US))
    events_reach: Reach = field(default_factory=lambda: Reach(_DAY_US))

    def __post_init__(self) -> None:
        object.__setattr__(self, "warmth", Warmth(self.settings.hot_ttl / 4))

    def hit(self, key: str) -> Call[bool] | None:
        """Counts an answer that Redis had. Now and then gives a call that keeps a key in use from going."""
        self.counters.hits += 1
        return calls.keep_warm(key, self.settings.hot_ttl) if self.warmth.is_due(key) else None

    def warm_until(self, key: str) -> float:
        """Until when a key need not be kept from going; 0 for one that was not met."""
        since = self.warmth.since.get(key)
        return 0.0 if since is None else since + self.warmth.every

    def keys(self, agent_id: UUID) -> AgentKeys:
        """The keys of an agent. Those of agents met lately are remembered: spelling an id costs as much as a GET."""
        known = self.known
        keys = known.get(agent_id.int)
        if keys is None:
            if len(known) >= _MOST_KNOWN:
                known.clear()
            keys = known[agent_id.int] = agent_keys(agent_id, self.settings.shards)
        return keys

    def members_of(self, keys: AgentKeys) -> tuple[str, ...] | None:
        """The memories that an agent was last seen to have in Redis: worth asking for before its index has said so.
        None: it was not seen, or has many."""
        return self.members.get(keys.agent.int)

    def saw_members(self, keys: AgentKeys, members: Sequence[str]) -> None:
        """Remembers them, unless they are many."""
        if len(self.members) >= _MOST_KNOWN:
            self.members.clear()
        if len(members) <= _MOST_ASKED:
            self.members[keys.agent.int] = tuple(members)
        else:
            self.members.pop(keys.agent.int, None)

    def readable(self, decode: Callable[[bytes], T], elements: Iterable[bytes]) -> list[T]:
        """What can be read of them; what cannot is counted and skipped, and becomes a dead letter with the flush."""
        result = []
        for element in elements:
            try:
                result.append(decode(element))
            except Undecodable:
                self.counters.undecodable += 1
        return result


def offered(offer: Call[bool]) -> Steps[None]:
    """Offers what PostgreSQL said. Refused, it is older than what Redis has; a full Redis goes without it."""
    with suppress(HotStoreFull):
        yield offer
    failpoint("rehydrate.offered")


def insist(call: Call[Any], rehydrate: Callable[[], Steps[Any]], level: Durability = Durability.HOT) -> Steps[Any]:
    """Makes a call that needs the key resident, rehydrating as often as Redis evicts it in between (which is: once)."""
    for _ in range(_ATTEMPTS):
        result = yield write(call, level)
        if result is not MISS:
            return result
        yield from rehydrate()
    raise HotStoreUnavailable(
        "Redis evicts keys as fast as they are rehydrated; give it more memory (maxmemory) or lower Settings.hot_ttl."
    )
