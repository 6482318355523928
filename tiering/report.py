"""What both tiers look like from outside: health and statistics."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import islice
from typing import Any

from banshee_memory.cold import reads
from banshee_memory.cold.client import ColdStore
from banshee_memory.errors import BansheeError
from banshee_memory.hot import calls
from banshee_memory.hot.client import HotStore
from banshee_memory.hot.keys import PREFIX, shard_keys
from banshee_memory.records import Backlog, Health, Stats
from banshee_memory.settings import Settings
from banshee_memory.stamps import stamp_us
from banshee_memory.tiering import pace
from banshee_memory.tiering.residency import Counters
from banshee_memory.tiering.shards import ask
from banshee_memory.tiering.watch import HotSight

_SAMPLE = 1_000
_RECOVERIES = 10
_ENTRY_OVERHEAD = 60


def health(hot: HotStore, cold: ColdStore) -> Health:
    """Whether both stores answer, how fast, and what is wrong, in words."""
    redis, redis_problem = _try(lambda: _redis_ping(hot))
    postgres, postgres_problem = _try(cold.ping)
    return Health(
        redis_connected=redis is not None,
        redis_version=redis[0] if redis else None,
        redis_latency=redis[1] if redis else None,
        postgres_connected=postgres is not None,
        postgres_version=postgres.version if postgres else None,
        postgres_latency=postgres.seconds if postgres else None,
        problems=tuple(problem for problem in (redis_problem, postgres_problem) if problem),
    )


def _try(ask: Callable[[], Any]) -> tuple[Any, str | None]:
    try:
        return ask(), None
    except BansheeError as exc:
        return None, str(exc)


def _redis_ping(hot: HotStore) -> tuple[str, float]:
    info = hot.info()
    name = "Valkey " + info["valkey_version"] if "valkey_version" in info else "Redis " + info["redis_version"]
    return name, _round_trip(hot)


def _round_trip(hot: HotStore) -> float:
    started = time.perf_counter()
    hot.run(calls.now())
    return time.perf_counter() - started


def sight(settings: Settings, hot: HotStore) -> HotSight:
    """What Redis looks like now, for the daemon's watch."""
    info = hot.info()
    return HotSight(
        latency=_round_trip(hot),
        backlog=backlog(settings, hot),
        dead_letters=buried(settings, hot),
        used_memory=int(info.get("used_memory", 0)),
        max_memory=int(info.get("maxmemory", 0)),
        evicted_keys=int(info.get("evicted_keys", 0)),
    )


def buried(settings: Settings, hot: HotStore) -> int:
    """How many dead letters there are."""
    shards = range(settings.shards)
    return sum(count or 0 for count in ask(hot, [calls.dead_letters(shard_keys(shard)) for shard in shards]))


def stats(settings: Settings, hot: HotStore, cold: ColdStore, counters: Counters) -> Stats:
    """Both tiers at a glance."""
    info = hot.info()
    extent, overview = cold.fetch(reads.extent()), cold.fetch(reads.overview())
    hot_agents, sampled = _agents_hot(hot, int(_keyspace(info)))
    return Stats(
        agents_hot=hot_agents,
        agents_hot_sample=sampled,
        hit_ratio=counters.hit_ratio,
        backlog=backlog(settings, hot),
        dead_letters=buried(settings, hot),
        redis_used_memory=int(info.get("used_memory", 0)),
        redis_max_memory=int(info.get("maxmemory", 0)),
        agents=extent.agents,
        rows=overview.rows,
        partitions=overview.partitions,
        database_bytes=extent.database_bytes,
        recoveries=cold.fetch(reads.recoveries(_RECOVERIES)),
    )


def backlog(settings: Settings, hot: HotStore) -> Backlog:
    """What is only in Redis. Bytes are estimated from the entry that waits longest in each shard."""
    sizes = [size for size in pace.sizes(settings, hot) if size]
    waiting = [size for size in sizes if size.waiting]
    now_us = hot.run(calls.now())
    oldest = min((stamp_us(size.oldest) for size in waiting), default=None)
    return Backlog(
        records=sum(size.waiting for size in waiting),
        bytes=sum(size.waiting * (size.oldest_bytes + _ENTRY_OVERHEAD) for size in waiting),
        oldest_age=None if oldest is None else max(now_us - oldest, 0) / 1e6,
        limit=max((size.limit for size in sizes), default=0) * settings.shards or None,
        fullest=max((size.waiting / size.limit for size in sizes if size.limit), default=0.0),
        pace=pace.noted(hot, now_us),
    )


def _keyspace(info: dict[str, str]) -> str:
    # `db0:keys=12,expires=3,avg_ttl=0`
    return info.get("db0", "keys=0,").partition("keys=")[2].partition(",")[0]


def _agents_hot(hot: HotStore, keys: int) -> tuple[int, int]:
    """An estimate from a sample: the part of keys that are states, of all keys."""
    sample = list(islice(hot.keys(f"{PREFIX}*"), _SAMPLE))
    agents = {key.rpartition(b":")[2] for key in sample if b":state:" in key or b":messages:" in key}
    if len(sample) < _SAMPLE:
        return len(agents), len(sample)
    return round(len(agents) / len(sample) * keys), len(sample)
