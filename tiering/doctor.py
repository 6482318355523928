"""What is well and what is not with the two servers, in words for the person who runs them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Literal

import msgspec

from banshee_memory.cold import reads
from banshee_memory.cold.client import ColdStore
from banshee_memory.errors import BansheeError
from banshee_memory.hot import calls
from banshee_memory.hot.client import HotStore
from banshee_memory.hot.keys import shard_keys
from banshee_memory.hot.library import shipped_version
from banshee_memory.records import Backlog, Health
from banshee_memory.settings import Settings
from banshee_memory.tiering import report

_RECOVERIES = 10
_LATELY = timedelta(days=7)
_PATIENCE = 60.0
"""Records that are older than this were forgotten by the daemon, however busy it is."""
_INDEXED_WITHIN = timedelta(hours=8)
"""A week that has been over for longer was not met by the daemon, which looks for such every six hours."""
_ALMOST = 0.8
"""So full a shard is soon at its limit."""
_LARGE_HEAP = 2**29
"""From so many bytes on it shows that libc's allocator finds no room near by (docs/performance.md)."""
_TYPES = {
    **dict.fromkeys(("log", "dead", "feed"), "stream"),
    **dict.fromkeys(("accesses", "wanted"), "set"),
    **dict.fromkeys(("idem", "forgotten"), "hash"),
}


class Check(msgspec.Struct, frozen=True):
    """Something that was looked at. A `note` is worth knowing; a `problem` is to be mended."""

    name: str
    level: Literal["ok", "note", "problem"]
    said: str


def examine(settings: Settings, hot: HotStore, cold: ColdStore) -> list[Check]:
    """Every check that the servers can be asked for. A server that is down is one of them, not an error."""
    health = report.health(hot, cold)
    checks = list(_connections(health))
    if health.postgres_connected:
        checks += _recoveries(cold)
        checks.append(_words(settings, cold))
    if health.redis_connected:
        try:
            checks += _redis(settings, hot)
        except BansheeError as exc:
            checks.append(Check("Redis", "problem", str(exc)))
    return checks


def _connections(health: Health) -> Iterator[Check]:
    if health.redis_connected:
        yield Check("Redis", "ok", f"{health.redis_version}, {_milliseconds(health.redis_latency)} a round trip")
    if health.postgres_connected:
        said = f"PostgreSQL {health.postgres_version}, {_milliseconds(health.postgres_latency)} a round trip"
        yield Check("PostgreSQL", "ok", f"{said}; the schema is this version's")
    for problem in health.problems:
        yield Check("connection", "problem", problem)


def _recoveries(cold: ColdStore) -> Iterator[Check]:
    """What befell the stores lately. That a server was restarted is no news unless it lost something."""
    recent = datetime.now(UTC) - _LATELY
    for found in cold.fetch(reads.recoveries(_RECOVERIES)):
        if found.found_at > recent and found.behind_seconds != 0:
            yield Check("recovery", "note", f"{found.found_at:%Y-%m-%d %H:%M:%S} UTC: {found.said}")


def _words(settings: Settings, cold: ColdStore) -> Check:
    """Whether searches find words by an index in each week that is over."""
    name, now, kept = "words", datetime.now(UTC), settings.message_retention_days
    since = None if kept is None else now - timedelta(days=kept)
    try:
        weeks = cold.fetch(reads.weeks_without_words(settings.search_language, since, now - _INDEXED_WITHIN))
    except BansheeError as exc:
        return Check(name, "problem", str(exc))
    if not weeks:
        return Check(name, "ok", "each week that is over is indexed, or small")
    named = ", ".join(f"{week:%Y-%m-%d}" for week in weeks[-3:])
    more = f" and {len(weeks) - 3} before" if len(weeks) > 3 else ""
    said = f"no index in {settings.search_language!r} of the weeks from {named}{more}, though they are over: searches"
    return Check(name, "note", f"{said} read all that was said. Run `banshee migrate --index-words` as their owner")


def _milliseconds(seconds: float | None) -> str:
    return f"{(seconds or 0.0) * 1e3:.2f} ms"


def _redis(settings: Settings, hot: HotStore) -> Iterator[Check]:
    info = hot.info()
    yield _library(hot)
    yield Check("shards", "ok", f"{settings.shards}, as both stores were first used with")
    yield _keys(settings, hot)
    yield _memory(info)
    yield _allocator(info)
    yield _append_only(info, hot)
    yield from _backlog(settings, hot)
    yield _dead_letters(settings, hot)


def _library(hot: HotStore) -> Check:
    loaded, shipped = hot.run(calls.version()), shipped_version()
    said = f"{_dotted(loaded)} is loaded"
    if loaded == shipped:
        return Check("Lua library", "ok", said)
    return Check("Lua library", "note", f"{said}, this package ships {_dotted(shipped)}")


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _keys(settings: Settings, hot: HotStore) -> Check:
    shards = [shard_keys(number) for number in range(settings.shards)]
    every = [(getattr(keys, name), meant) for keys in shards for name, meant in _TYPES.items()]
    types = hot.run_all([calls.type_of(key) for key, _ in every])
    foreign = [
        f"{key} is a {found}, not a {meant}"
        for (key, meant), found in zip(every, types, strict=True)
        if found not in (meant, "none")
    ]
    if not foreign:
        return Check("keys", "ok", "each shard's are of their types")
    more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
    said = f"{'; '.join(foreign[:3])}{more}. Somebody else wrote there, so the shard waits: rename or delete the key"
    return Check("keys", "problem", said)


def _memory(info: dict[str, str]) -> Check:
    policy, most = info.get("maxmemory_policy", "noeviction"), int(info.get("maxmemory", 0))
    used = f"{int(info.get('used_memory', 0)) / 2**20:,.1f} MiB"
    if not most:
        return Check("memory", "note", f"{used} used, {policy}; no maxmemory is set, so nothing bounds it")
    return Check("memory", "ok", f"{used} of {most / 2**20:,.1f} MiB used, {policy}")


def _allocator(info: dict[str, str]) -> Check:
    name, built = "allocator", info.get("mem_allocator", "unknown")
    if built != "libc" or int(info.get("used_memory", 0)) < _LARGE_HEAP:
        return Check(name, "ok", built)
    said = (
        "libc: among so much memory writes take longer. A Redis that is built with jemalloc, as most are, stays as fast"
    )
    return Check(name, "note", said)


def _append_only(info: dict[str, str], hot: HotStore) -> Check:
    name = "append-only file"
    if info.get("aof_enabled") != "1":
        return Check(name, "note", "off: a crash of Redis loses what is not in PostgreSQL yet")
    if info.get("aof_last_write_status", "ok") != "ok":
        return Check(name, "problem", "it cannot be written, so Redis takes no writes: make room on its disk")
    try:
        told = hot.run(calls.configuration("appendfsync", "no-appendfsync-on-rewrite"))
    except BansheeError:
        return Check(name, "note", "on; how often it is synced, this server does not tell")
    if told.get("no-appendfsync-on-rewrite") == "yes":
        return Check(name, "note", "on, not synced while it is rewritten: a crash can lose up to 30 s of writes")
    lost = {
        "always": "a crash loses nothing",
        "everysec": "a crash can lose up to 2 s of writes, and SYNCED may be told a second early",
    }
    policy = told.get("appendfsync", "")
    return Check(name, "ok", f"on, synced {policy}: {lost.get(policy, 'a crash can lose up to 30 s of writes')}")


def _backlog(settings: Settings, hot: HotStore) -> Iterator[Check]:
    backlog = report.backlog(settings, hot)
    yield _unflushed(settings, backlog)
    yield _limit(settings, backlog)


def _unflushed(settings: Settings, backlog: Backlog) -> Check:
    if backlog.oldest_age is None:
        return Check("unflushed", "ok", "nothing: all of it is in PostgreSQL")
    said = f"{backlog.records:,} records, the oldest {backlog.oldest_age:,.1f} s old"
    if backlog.oldest_age > _PATIENCE + settings.flush_after:
        return Check("unflushed", "problem", f"{said}: run `banshee daemon`, or `banshee flush` once")
    return Check("unflushed", "ok", said)


def _limit(settings: Settings, backlog: Backlog) -> Check:
    name = "backlog limit"
    if backlog.limit is None:
        return Check(
            name, "note", "none is loaded: while PostgreSQL is away, only Redis's own memory bounds what waits"
        )
    said = f"{backlog.limit:,} records, the fullest shard has used {backlog.fullest:.0%} of its share"
    pace = backlog.pace
    if pace is not None:
        said += f"; {pace.records_in:,.0f} in and {pace.records_out:,.0f} out a second"
        said += f", full at {pace.full_at:%Y-%m-%d %H:%M:%S} UTC" if pace.full_at else ""
    if backlog.fullest >= _ALMOST:
        return Check(name, "problem", f"{said}. Bring PostgreSQL back, or run another `banshee daemon`")
    if backlog.limit != settings.shard_backlog * settings.shards:
        return Check(name, "note", f"{said}. These settings say otherwise; what the daemon loaded counts")
    return Check(name, "ok", said)


def _dead_letters(settings: Settings, hot: HotStore) -> Check:
    count = report.buried(settings, hot)
    if not count:
        return Check("dead letters", "ok", "none")
    return Check("dead letters", "note", f"{count:,} (see `banshee dead-letters`)")
