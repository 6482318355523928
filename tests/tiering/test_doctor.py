"""What the doctor says of a server that is not as the runbook wants it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import msgspec
import pytest
import redis

from banshee_memory import ConfigurationError, NewMessage, Settings
from banshee_memory.cold import partitions, words
from banshee_memory.tiering import doctor
from banshee_memory.tiering.doctor import Check, examine
from tests.hot.raw import Server
from tests.own_servers import own_database, own_redis
from tests.tiers import Tiers

SETTINGS = Settings(shards=2)
USUAL = {
    "appendonly": "no",
    "appendfsync": "everysec",
    "no-appendfsync-on-rewrite": "no",
    "maxmemory": "0",
    "maxmemory-policy": "noeviction",
}


@pytest.fixture(scope="module")
def urls(redis_url: str, database_url: str) -> Iterator[tuple[str, str]]:
    with own_redis(like=redis_url) as hot, own_database(database_url, SETTINGS) as cold:
        yield hot, cold


@pytest.fixture(scope="module")
def tiers(urls: tuple[str, str]) -> Iterator[Tiers]:
    client = Tiers(*urls, SETTINGS)
    yield client
    client.close()


@pytest.fixture
def own_tiers(urls: tuple[str, str], database_url: str) -> Iterator[Tiers]:
    """With a database of its own, that keeps what was said."""
    settings = msgspec.structs.replace(SETTINGS, message_retention_days=None)
    with own_database(database_url, settings) as cold, own_redis(like=urls[0]) as hot:
        client = Tiers(hot, cold, settings)
        yield client
        client.close()


@pytest.fixture
def server(tiers: Tiers) -> Iterator[Server]:
    server = Server(tiers.hot)
    yield server
    for name, value in USUAL.items():
        server.command("CONFIG", "SET", name, value)


def checks(tiers: Tiers) -> dict[str, Check]:
    return {check.name: check for check in examine(tiers.settings, tiers.hot, tiers.cold)}


@pytest.mark.parametrize(
    ("changed", "level", "said"),
    [
        ({}, "note", "a crash of Redis loses what is not in PostgreSQL yet"),
        ({"appendonly": "yes"}, "ok", "up to 2 s"),
        ({"appendonly": "yes", "appendfsync": "always"}, "ok", "loses nothing"),
        ({"appendonly": "yes", "appendfsync": "no"}, "ok", "up to 30 s"),
        ({"appendonly": "yes", "no-appendfsync-on-rewrite": "yes"}, "note", "up to 30 s"),
    ],
    ids=["off", "everysec", "always", "no", "not while it is rewritten"],
)
def test_what_a_crash_can_lose_is_told(
    tiers: Tiers, server: Server, changed: dict[str, str], level: str, said: str
) -> None:
    for name, value in changed.items():
        server.command("CONFIG", "SET", name, value)
    check = checks(tiers)["append-only file"]
    assert check.level == level
    assert said in check.said


def test_a_server_that_may_evict_anything_is_refused(
    tiers: Tiers, server: Server, urls: tuple[str, str], agent: UUID
) -> None:
    server.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    tiers.hot.close()  # who is connected has asked before
    with pytest.raises(ConfigurationError, match="allkeys-lru"):
        tiers.conversations.save_message(agent, "user", "x")
    check = checks(tiers)["connection"]
    assert check.level == "problem"
    assert "volatile-lru" in check.said
    with redis.Redis.from_url(urls[0]) as raw:
        raw.config_set("maxmemory-policy", "noeviction")


@pytest.mark.parametrize("large", [0, 2**60])
def test_an_allocator_that_slows_writes_in_a_large_heap_is_told(
    tiers: Tiers, server: Server, large: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_LARGE_HEAP", large)
    check, is_libc = checks(tiers)["allocator"], b"mem_allocator:libc" in server.command("INFO", "memory")
    assert check.level == ("note" if is_libc and not large else "ok")
    assert ("jemalloc" in check.said) == (check.level == "note" or not is_libc)


def test_what_nobody_flushes_is_a_problem_after_a_minute(tiers: Tiers, server: Server, agent: UUID) -> None:
    assert checks(tiers)["unflushed"].level == "ok"
    log = tiers.keys(agent).log
    last = server.command("TIME")
    server.command("DEL", log)
    server.command("XADD", log, f"{(int(last[0]) - 100) * 1_000}-1", "k", b"Z" + agent.bytes, "p", "")
    check = checks(tiers)["unflushed"]
    assert check.level == "problem"
    assert "banshee daemon" in check.said
    tiers.flush()
    found = checks(tiers)
    assert found["unflushed"].level == "ok"
    assert found["dead letters"].level == "note"
    assert "banshee dead-letters" in found["dead letters"].said


def test_a_library_of_another_version_is_told(tiers: Tiers, server: Server) -> None:
    source = tiers.hot._source.replace("VERSION = { 1, 0, 0 }", "VERSION = { 1, 7, 0 }")
    assert source != tiers.hot._source
    server.command("FUNCTION", "LOAD", "REPLACE", source)
    check = checks(tiers)["Lua library"]
    assert check == Check("Lua library", "note", "1.7.0 is loaded, this package ships 1.0.0")
    tiers.hot.load_library()


def test_weeks_that_are_over_without_an_index_of_words_are_named(own_tiers: Tiers) -> None:
    assert checks(own_tiers)["words"].level == "ok"
    now, agent = datetime.now(UTC), uuid4()
    for weeks in (0, 3, 4, 5, 6):
        said = [
            NewMessage(role="user", content=f"word {n} " * 40, created_at=now - timedelta(weeks=weeks))
            for n in range(900)
        ]
        own_tiers.conversations.save_messages(agent, said)
    own_tiers.flush()
    check = checks(own_tiers)["words"]
    assert check.level == "note"
    over = [partitions.span(partitions.MESSAGES, now - timedelta(weeks=weeks))[0] for weeks in (5, 4, 3)]
    assert ", ".join(f"{week:%Y-%m-%d}" for week in over) + " and 1 before" in check.said
    assert "banshee migrate --index-words" in check.said
    in_spanish = msgspec.structs.replace(own_tiers.settings, search_language="spanish")
    assert list(words.build(own_tiers.cold, now, threading.Event()))
    assert checks(own_tiers)["words"].level == "ok"
    (check,) = [c for c in examine(in_spanish, own_tiers.hot, own_tiers.cold) if c.name == "words"]
    assert "'spanish'" in check.said
    unknown = msgspec.structs.replace(own_tiers.settings, search_language="klingon")
    (check,) = [c for c in examine(unknown, own_tiers.hot, own_tiers.cold) if c.name == "words"]
    assert check.level == "problem"
