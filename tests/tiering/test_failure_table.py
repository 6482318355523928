"""What is read and what is written while something fails: a test for each cell of the failure table.

A Redis that starts again empty, and one that was promoted, are in test_recovery.py and test_failover.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import msgspec
import psycopg
import pytest
import redis

from banshee_memory import (
    AsyncMemoryPlugin,
    ColdStoreUnavailable,
    CustomEvent,
    Durability,
    DurabilityUnavailable,
    Emotion,
    EmotionalState,
    HotStoreFull,
    HotStoreUnavailable,
    IncompatibleSchema,
    InvalidInput,
    MemoryPlugin,
    NewMessage,
    Settings,
)
from banshee_memory.cold.client import ColdStore
from banshee_memory.hot import calls, library
from banshee_memory.hot.calls import Call
from banshee_memory.hot.client import HotStore
from banshee_memory.hot.keys import agent_keys, shard_keys
from banshee_memory.tiering.doctor import examine
from tests.clients import awaited
from tests.hot.raw import Server
from tests.own_servers import CLOCK, own_database, own_redis
from tests.proxy import Cut, Proxy, proxied, proxied_redis

SETTINGS = Settings(shards=2, message_cap=5)
STEADY = EmotionalState({Emotion.LOVE: 0.5}, {Emotion.LOVE: 0.0})
HAPPENED = CustomEvent(event_type="x")
Calls = dict[str, Callable[[], object]]


class World(NamedTuple):
    """Both servers, and the ways to them that clients take."""

    redis: str
    database: str
    to_redis: Proxy
    to_database: Proxy

    @property
    def urls(self) -> tuple[str, str]:
        """As a client takes them."""
        return self.to_database.url, self.to_redis.url


@pytest.fixture(scope="module")
def world(redis_url: str, database_url: str) -> Iterator[World]:
    with ExitStack() as stack:
        own = stack.enter_context(own_redis(like=redis_url))
        database = stack.enter_context(own_database(database_url, SETTINGS))
        ways = stack.enter_context(proxied_redis(own)), stack.enter_context(proxied(database))
        yield World(own, database, *ways)


@pytest.fixture
def hot(world: World) -> Iterator[HotStore]:
    """A client of Redis that nothing fails for, with the build of the library whose clock tests set."""
    store = HotStore(world.redis, SETTINGS, clock=CLOCK)
    store.load_library()
    yield store
    store.close()


@pytest.fixture
def server(hot: HotStore) -> Server:
    """The server itself."""
    return Server(hot)


@contextmanager
def client(kind: str, urls: tuple[str, str], settings: Settings = SETTINGS) -> Iterator[MemoryPlugin]:
    """Either client, called alike."""
    if kind == "sync":
        with MemoryPlugin(*urls, settings=settings) as plugin:
            yield plugin
        return
    with asyncio.Runner() as runner:
        aplugin = AsyncMemoryPlugin(*urls, settings=settings)
        yield awaited(aplugin, runner)
        runner.run(aplugin.aclose())


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which client."""
    return str(request.param)


@pytest.fixture
def memory(kind: str, world: World, hot: HotStore) -> Iterator[MemoryPlugin]:
    """Each client, with nothing waiting."""
    with client(kind, world.urls) as plugin:
        plugin.flush()
        yield plugin


@pytest.fixture
def agent(memory: MemoryPlugin) -> UUID:
    """An agent that is resident and flushed."""
    return born(memory)


def born(memory: MemoryPlugin) -> UUID:
    agent = uuid4()
    memory.emotions.save_state(agent, STEADY)
    memory.conversations.save_messages(agent, [NewMessage(role="user", content=f"{n}") for n in range(3)])
    memory.emotions.save_event(agent, HAPPENED, {})
    memory.memories.store_memory(agent, "fact", "x", "data")
    memory.conversations.get_history(agent, 50)
    memory.emotions.get_event_history(agent, 100)
    memory.flush()
    return agent


@pytest.fixture
def gone(memory: MemoryPlugin) -> UUID:
    """An agent that is not resident."""
    agent = born(memory)
    memory.evict(agent)
    return agent


@contextmanager
def down(way: Proxy) -> Iterator[None]:
    """A server that cannot be reached."""
    way.go_down()
    try:
        yield
    finally:
        way.come_back()


def reads(memory: MemoryPlugin, agent: UUID) -> Calls:
    return {
        "load_state": lambda: memory.emotions.load_state(agent),
        "get_history": lambda: memory.conversations.get_history(agent),
        "get_event_history": lambda: memory.emotions.get_event_history(agent),
        "retrieve_memory": lambda: memory.memories.retrieve_memory(agent, "fact", "x"),
        "get_memory": lambda: memory.memories.get_memory(agent, "fact", "x"),
    }


def appends(memory: MemoryPlugin, agent: UUID) -> Calls:
    """Appends and full replacements: they need nothing of what was."""
    return {
        "save_message": lambda: memory.conversations.save_message(agent, "user", "more"),
        "save_messages": lambda: memory.conversations.save_messages(agent, [NewMessage(role="user", content="m")] * 2),
        "save_state": lambda: memory.emotions.save_state(agent, STEADY),
        "store_memory": lambda: memory.memories.store_memory(agent, "fact", "y", "new"),
    }


def changes(memory: MemoryPlugin, agent: UUID) -> Calls:
    """Writes that need an old value."""
    talk = memory.conversations
    return {
        "update_emotions": lambda: memory.emotions.update_emotions(agent, {Emotion.LOVE: 0.1}),
        "save_event": lambda: memory.emotions.save_event(agent, HAPPENED, {Emotion.LOVE: 0.1}),
        "save_message with what is felt": lambda: talk.save_message(agent, "user", "x", emotional_context="current"),
        "delete_memory": lambda: memory.memories.delete_memory(agent, "fact", "x"),
    }


def each_raises(error: type[Exception], named: str, deeds: Calls) -> None:
    for deed in deeds.values():
        with pytest.raises(error, match=named):
            deed()


def logged(hot: HotStore) -> int:
    return sum(hot.run(calls.log_length(shard_keys(shard))) for shard in range(SETTINGS.shards))


def content(server: Server, agent: UUID) -> dict[bytes, tuple[bytes, int]]:
    """The logs, and what there is of an agent; leases of others end by themselves."""
    return {key: value for key, value in server.content().items() if b":log" in key or str(agent).encode() in key}


# --- PostgreSQL down ---


def test_postgresql_down_reads(memory: MemoryPlugin, world: World, agent: UUID, gone: UUID) -> None:
    with down(world.to_database):
        assert memory.emotions.load_state(agent).emotions == STEADY.emotions  # type: ignore[union-attr]
        assert [m.content for m in memory.conversations.get_history(agent)] == ["0", "1", "2"]
        assert len(memory.emotions.get_event_history(agent)) == 1
        assert memory.memories.retrieve_memory(agent, "fact", "x") == "data"
        each_raises(ColdStoreUnavailable, "PostgreSQL", reads(memory, gone))
        each_raises(
            ColdStoreUnavailable,
            "PostgreSQL",
            {
                "totals": lambda: memory.conversations.get_conversation_stats(agent),
                "search": lambda: memory.conversations.search_messages(agent, "1"),
            },
        )


def test_postgresql_down_writes(
    memory: MemoryPlugin, world: World, hot: HotStore, server: Server, agent: UUID, gone: UUID
) -> None:
    with down(world.to_database):
        for deed in [*appends(memory, agent).values(), *changes(memory, agent).values()]:
            deed()
        waits = logged(hot)
        for deed in appends(memory, gone).values():
            deed()
        assert logged(hot) == waits + 5
        memory.emotions.load_state(gone)  # what was replaced is resident
        stranger, before = uuid4(), server.content()
        each_raises(ColdStoreUnavailable, "PostgreSQL", changes(memory, stranger))
        assert logged(hot) == waits + 5
        assert server.content().keys() - before.keys() <= {  # leases, which end by themselves
            agent_keys(stranger, SETTINGS.shards).state.encode(),
            agent_keys(stranger, SETTINGS.shards).memory("fact:x").encode(),
        }
    memory.flush()
    said = [m.content for m in memory.conversations.get_history(gone)]
    assert said == ["0", "1", "2", "more", "m", "m"]
    assert memory.memories.retrieve_memory(gone, "fact", "y") == "new"


@pytest.mark.parametrize("overflow", ["refuse", "slow"])
def test_postgresql_down_writes_at_the_limit(kind: str, world: World, hot: HotStore, overflow: str) -> None:
    changed = {"backlog_limit": 2, "backlog_overflow": overflow, "backlog_wait": 0.05}
    settings = msgspec.structs.replace(SETTINGS, **changed)
    bound = HotStore(world.redis, settings, clock=CLOCK)
    with client(kind, world.urls, settings) as memory:
        memory.flush()
        bound.load_library()
        agent = uuid4()
        with down(world.to_database):
            memory.conversations.save_message(agent, "user", "first")
            waits = logged(hot)
            each_raises(HotStoreFull, "backlog_limit", appends(memory, agent))
            assert logged(hot) == waits
        memory.flush()
        memory.conversations.save_message(agent, "user", "second")
        assert [m.content for m in memory.conversations.get_history(agent)] == ["first", "second"]
        hot.load_library()
    bound.close()


# --- Redis down (also test_degraded_reads.py) ---


def test_redis_down_reads(memory: MemoryPlugin, kind: str, world: World, agent: UUID) -> None:
    allowed = msgspec.structs.replace(SETTINGS, degraded_reads=True)
    with client(kind, world.urls, allowed) as other, down(world.to_redis):
        each_raises(HotStoreUnavailable, "Redis at", reads(memory, agent))
        state = other.emotions.load_state(agent)
        assert state is not None
        assert state.emotions == STEADY.emotions
        assert [m.content for m in other.conversations.get_history(agent)] == ["0", "1", "2"]


def test_redis_down_writes(memory: MemoryPlugin, world: World, server: Server, agent: UUID) -> None:
    before = content(server, agent)
    with down(world.to_redis):
        each_raises(HotStoreUnavailable, "Redis at", appends(memory, agent) | changes(memory, agent))
    assert content(server, agent) == before


# --- Redis out of memory (also tests/hot/test_full_server.py) ---


@contextmanager
def full(server: Server) -> Iterator[None]:
    server.command("CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "1")
    try:
        yield
    finally:
        server.command("CONFIG", "SET", "maxmemory", "0")


def test_redis_out_of_memory_reads(memory: MemoryPlugin, server: Server, agent: UUID, gone: UUID) -> None:
    with full(server):
        for who in (agent, gone):
            assert memory.memories.retrieve_memory(who, "fact", "x") == "data"
            assert len(memory.conversations.get_history(who)) == 3
            assert len(memory.emotions.get_event_history(who)) == 1
            assert memory.emotions.load_state(who) is not None
    for who in (agent, gone):
        record = memory.memories.get_memory(who, "fact", "x")
        assert record is not None
        assert record.access_count == 0


def test_redis_out_of_memory_writes(memory: MemoryPlugin, hot: HotStore, server: Server, agent: UUID) -> None:
    memory.conversations.save_message(agent, "user", "waits")
    refused = appends(memory, agent) | changes(memory, agent)
    del refused["delete_memory"]  # that makes room
    with full(server):
        before = content(server, agent)
        each_raises(HotStoreFull, "maxmemory", refused)
        assert content(server, agent) == before
        assert memory.memories.delete_memory(agent, "fact", "x")
        assert memory.flush().messages == 1
        assert logged(hot) == 0
        assert memory.evict(agent).kept == 0
    memory.conversations.save_message(agent, "user", "again")
    assert [m.content for m in memory.conversations.get_history(agent)][-2:] == ["waits", "again"]


# --- daemon dead ---


def test_daemon_dead(memory: MemoryPlugin, world: World, hot: HotStore, server: Server, agent: UUID) -> None:
    for deed in [*appends(memory, agent).values(), *reads(memory, agent).values()]:
        deed()
    cold = ColdStore(world.database, SETTINGS)
    server.set_clock((datetime.now(UTC) + timedelta(minutes=5)).timestamp() * 1e6)
    age = memory.stats().backlog.oldest_age
    (found,) = (check for check in examine(SETTINGS, hot, cold) if check.name == "unflushed")
    server.set_clock(None)
    cold.close()
    assert age is not None
    assert age >= 300
    assert found.level == "problem"
    assert "5 records, the oldest 30" in found.said
    assert "run `banshee daemon`" in found.said


# --- connection cut in the middle of a call ---


@pytest.mark.parametrize("cut", Cut)
def test_connection_cut_reads(memory: MemoryPlugin, world: World, agent: UUID, gone: UUID, cut: Cut) -> None:
    world.to_redis.call, world.to_redis.cut = b"LRANGE", cut
    with pytest.raises(HotStoreUnavailable, match="Redis at"):
        memory.conversations.get_history(agent)
    assert len(memory.conversations.get_history(agent)) == 3
    world.to_redis.call, world.to_redis.cut = b"banshee1_lease", cut
    with pytest.raises(HotStoreUnavailable, match="Redis at"):
        memory.emotions.load_state(gone)
    assert memory.emotions.load_state(gone) is not None


@pytest.mark.parametrize("cut", Cut)
def test_connection_cut_writes(memory: MemoryPlugin, world: World, agent: UUID, cut: Cut) -> None:
    add = {"changes": {Emotion.LOVE: 0.125}, "idempotency_key": "k"}
    writes: dict[bytes, Callable[[], object]] = {
        b"banshee1_append_messages": lambda: memory.conversations.save_message(
            agent, "user", "once", idempotency_key="k"
        ),
        b"banshee1_update_emotions": lambda: memory.emotions.update_emotions(agent, **add),  # type: ignore[arg-type]
    }
    for call, write in writes.items():
        world.to_redis.call, world.to_redis.cut = call, cut
        with pytest.raises(HotStoreUnavailable, match="Redis at"):
            write()
        assert world.to_redis.cut is None
        assert write() == write()
    memory.evict(agent)
    assert [m.content for m in memory.conversations.get_history(agent)] == ["0", "1", "2", "once"]
    state = memory.emotions.load_state(agent)
    assert state is not None
    assert state.emotions == {Emotion.LOVE: 0.625}


# --- schema or library older or newer than the code, or no right to load it ---


@contextmanager
def migrated_by(world: World, statement: str, undo: str) -> Iterator[None]:
    with psycopg.connect(world.database, autocommit=True) as database:
        database.execute(statement)
        try:
            yield
        finally:
            database.execute(undo)


NEWER = "INSERT INTO banshee_migrations (name) VALUES ('9999_of_tomorrow')"
NO_NEWER = "DELETE FROM banshee_migrations WHERE name = '9999_of_tomorrow'"
OLDER = "CREATE TABLE kept AS SELECT * FROM banshee_migrations; DELETE FROM banshee_migrations"
NO_OLDER = "INSERT INTO banshee_migrations SELECT * FROM kept; DROP TABLE kept"


@pytest.mark.parametrize(("change", "undo"), [(NEWER, NO_NEWER), (OLDER, NO_OLDER)], ids=["newer", "older"])
def test_another_schema_reads(kind: str, world: World, agent: UUID, gone: UUID, change: str, undo: str) -> None:
    with migrated_by(world, change, undo), client(kind, world.urls) as late:
        each_raises(IncompatibleSchema, "banshee", reads(late, gone))


@pytest.mark.parametrize(("change", "undo"), [(NEWER, NO_NEWER), (OLDER, NO_OLDER)], ids=["newer", "older"])
def test_another_schema_writes(
    kind: str, redis_url: str, world: World, hot: HotStore, agent: UUID, change: str, undo: str
) -> None:
    """A Redis that nobody used takes nothing; one that is in use takes what needs nothing of PostgreSQL."""
    with migrated_by(world, change, undo):
        with own_redis(like=redis_url) as empty, redis.Redis.from_url(empty) as new:
            new.flushall()
            with client(kind, (world.to_database.url, empty)) as late:
                each_raises(IncompatibleSchema, "banshee", appends(late, uuid4()) | changes(late, uuid4()))
            assert not list(new.scan_iter("*:log"))
        with client(kind, world.urls) as late:
            with pytest.raises(DurabilityUnavailable) as unconfirmed:
                late.conversations.save_message(agent, "user", "kept", durability=Durability.COLD)
            assert isinstance(unconfirmed.value.__cause__, IncompatibleSchema)
            with pytest.raises(IncompatibleSchema):
                late.flush()
        assert logged(hot) == 1


def test_a_library_that_cannot_be_loaded(kind: str, redis_url: str, world: World) -> None:
    with own_redis(like=redis_url) as own, redis.Redis.from_url(own) as admin:
        admin.execute_command("ACL", "SETUSER", "default", "-function")
        with client(kind, (world.to_database.url, own)) as memory:
            before = admin.dbsize()
            each_raises(IncompatibleSchema, "FUNCTION LOAD", reads(memory, uuid4()) | appends(memory, uuid4()))
            assert admin.dbsize() == before


def test_an_older_library_is_replaced_and_a_newer_one_used(kind: str, world: World, hot: HotStore) -> None:
    shipped = "VERSION = {{ {} }}".format(", ".join(map(str, library.shipped_version())))
    for version in ("0, 9, 0", "1, 99, 0"):
        text = library.source(CLOCK).replace(shipped, f"VERSION = {{ {version} }}")
        hot.run(calls.Call(("FUNCTION", "LOAD", "REPLACE", text), lambda reply: reply))
        with client(kind, world.urls) as memory:
            agent = born(memory)
            assert len(memory.conversations.get_history(agent)) == 3
        kept = version == "1, 99, 0"
        assert (hot.run(calls.version()) == (1, 99, 0)) == kept


# --- an element that cannot be read ---


def test_undecodable_element_reads(kind: str, world: World, hot: HotStore, agent: UUID) -> None:
    keys = agent_keys(agent, SETTINGS.shards)
    hot.run(Call(calls.append_messages(keys, [(None, False, b"\xc1")]).sent, len))
    with client(kind, world.urls) as memory:
        assert [m.content for m in memory.conversations.get_history(agent)] == ["0", "1", "2"]
        assert memory._operations.residency.counters.undecodable == 1
        memory.conversations.save_message(agent, "user", "3")
        report = memory.flush()
        assert (report.poisoned, report.messages) == (1, 1)
        assert [m.content for m in memory.conversations.get_history(agent)] == ["0", "1", "2", "3"]


# --- bad input (also tests/unit/test_hostile_input.py, tests/conformance/test_hostile.py) ---

NOWHERE = "postgresql://127.0.0.1:1/x", "redis://127.0.0.1:1"
DEEP: list[Any] = []
for _ in range(200):
    DEEP = [DEEP]

BAD: dict[str, tuple[str, Callable[[MemoryPlugin, UUID], object]]] = {
    "a role": ("role", lambda m, a: m.conversations.save_message(a, "boss", "x")),
    "blank content": ("content", lambda m, a: m.conversations.save_message(a, "user", "  ")),
    "NUL in text": ("content", lambda m, a: m.conversations.save_message(a, "user", "a\0b")),
    "10 MB": ("content", lambda m, a: m.conversations.save_message(a, "user", "x" * 10_000_000)),
    "deep JSON": ("metadata", lambda m, a: m.conversations.save_message(a, "user", "x", DEEP)),
    "NaN": ("changes", lambda m, a: m.emotions.update_emotions(a, {Emotion.JOY: float("nan")})),
    "an intensity over 1": ("changes", lambda m, a: m.emotions.update_emotions(a, {Emotion.JOY: 1.5})),
    "a bad key": ("key", lambda m, a: m.memories.store_memory(a, "fact", "", 1)),
    "tomorrow": (
        "occurred_at",
        lambda m, a: m.emotions.save_event(a, HAPPENED, {}, occurred_at=datetime.now(UTC) + timedelta(days=1)),
    ),
    "beyond retention": (
        "occurred_at",
        lambda m, a: m.emotions.save_event(a, HAPPENED, {}, occurred_at=datetime.now(UTC) - timedelta(days=400)),
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_writes(kind: str, name: str) -> None:
    """Before any I/O: there are no servers."""
    field, write = BAD[name]
    with client_of_nothing(kind) as memory, pytest.raises(InvalidInput, match=f"^{field}"):
        write(memory, uuid4())


@contextmanager
def client_of_nothing(kind: str) -> Iterator[MemoryPlugin]:
    if kind == "sync":
        plugin = MemoryPlugin(*NOWHERE, settings=SETTINGS)
        yield plugin
        plugin.close()
        return
    with asyncio.Runner() as runner:
        aplugin = AsyncMemoryPlugin(*NOWHERE, settings=SETTINGS)
        yield awaited(aplugin, runner)
        runner.run(aplugin.aclose())


def test_bad_input_by_fcall(memory: MemoryPlugin, hot: HotStore, server: Server, agent: UUID) -> None:
    keys, who = agent_keys(agent, SETTINGS.shards), agent.bytes
    state, said = [keys.state, keys.log], [keys.messages, keys.log, keys.state]
    memory_keys = [keys.memory("fact:x"), keys.memories, keys.log]
    before = content(server, agent)
    for function, at, args, field in (
        ("update_emotions", state, (who, "add", "joy", "nan"), "amount"),
        ("update_emotions", state, (who, "add", "joy", "1.5"), "amount"),
        ("update_emotions", state, (who, "add", "glee", "1"), "emotion"),
        ("append_messages", said, (who, "", "", b""), "body"),
        ("append_messages", said, (who, "tomorrow", "", b"x"), "time"),
        ("store_memory", memory_keys, (who, "fact", "", b"x", ""), "member"),
    ):
        with pytest.raises(InvalidInput, match=f"^{field}"):
            server.fcall(function, at, *args)
        assert content(server, agent) == before
    pack = msgspec.msgpack.encode
    for body in (
        pack([b"nonce678", "boss", "x"]),
        pack([b"nonce678", "user", "a\0b"]),
        pack([b"nonce678", "user", "x", DEEP]),
        b"\x93",
    ):
        server.fcall("append_messages", said, who, "", "", body)
    memory.conversations.save_message(agent, "user", "3")
    report = memory.flush()
    assert report.messages + report.poisoned == 5
    assert report.poisoned >= 3
    assert memory.conversations.get_history(agent, 1)[0].content == "3"
