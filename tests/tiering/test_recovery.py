"""The recovery of a server: without PostgreSQL, by many at once, dying anywhere; and what every new connection asks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from banshee_memory import (
    AsyncMemoryPlugin,
    ColdStoreUnavailable,
    ConfigurationError,
    Durability,
    DurabilityUnavailable,
    Emotion,
    EmotionalState,
    HotStoreFull,
    HotStoreUnavailable,
    MemoryPlugin,
    Receipt,
)
from banshee_memory.failpoints import armed
from banshee_memory.hot import calls, connection, failover
from banshee_memory.hot.calls import Call
from banshee_memory.hot.keys import ShardKeys, agent_keys, shard_keys
from tests.failpoints import failpoints
from tests.own_servers import own_database
from tests.redis_servers import Redises, RedisServer, free_port
from tests.tiering.another_redis import AWAY, SETTINGS, agent_in, live
from tests.tiering.lives import everything


@pytest.fixture
def database(database_url: str) -> Iterator[str]:
    with own_database(database_url, SETTINGS) as url:
        yield url


@pytest.fixture
def memory(servers: Redises, server: RedisServer, database: str) -> Iterator[MemoryPlugin]:
    with MemoryPlugin(database, servers.front.url, settings=SETTINGS) as plugin:
        yield plugin


def restart(server: RedisServer) -> None:
    server.kill()
    server.start()


def lives_of(memory: MemoryPlugin) -> list[UUID]:
    """Two agents, half flushed; one that is clean."""
    agents = [uuid4() for _ in range(3)]
    for agent in agents:
        live(memory, agent, "first")
    memory.flush()
    for agent in agents[1:]:
        live(memory, agent, "second")
    return agents


def test_without_postgres_what_is_left_is_read_and_nothing_is_written(
    memory: MemoryPlugin, servers: Redises, server: RedisServer
) -> None:
    clean, *dirty = lives_of(memory)
    known = {agent: everything(memory, agent) for agent in (clean, *dirty)}
    restart(server)
    patient = msgspec.structs.replace(SETTINGS, connect_timeout=1.0)
    with MemoryPlugin(AWAY, servers.front.url, settings=patient) as blind:
        for agent in dirty:
            state = blind.emotions.load_state(agent)
            assert state is not None
            assert state.emotions == known[agent]["state"][0]
        with pytest.raises(ColdStoreUnavailable):
            blind.emotions.load_state(clean)
        for _ in range(2):
            with pytest.raises(ColdStoreUnavailable, match="nothing is written"):
                blind.conversations.save_message(dirty[0], "user", "hello")
        assert blind.memories.retrieve_memory(dirty[0], "fact", "k") == "second"
    assert {agent: everything(memory, agent) for agent in known} == known | {
        dirty[0]: known[dirty[0]] | {"memories": memory.memories.get_memories_by_type(dirty[0], "fact")}
    }
    memory.conversations.save_message(dirty[0], "user", "hello")
    assert memory.conversations.get_history(dirty[0])[-1].content == "hello"
    memory.flush()
    assert memory.conversations.get_conversation_stats(dirty[0]).total_messages == 3


@pytest.mark.parametrize("place", [name for name in failpoints() if name.startswith("recover.")])
def test_whoever_dies_anywhere_another_goes_on(
    memory: MemoryPlugin, servers: Redises, server: RedisServer, database: str, place: str
) -> None:
    agents = lives_of(memory)
    known = {agent: everything(memory, agent) for agent in agents}
    restart(server)
    died = 0

    def die(name: str) -> None:
        nonlocal died
        if name == place and not died:
            died += 1
            raise KeyboardInterrupt

    with armed(die), pytest.raises(KeyboardInterrupt):
        memory.emotions.load_state(agents[0])
    assert died
    with MemoryPlugin(database, servers.front.url, settings=SETTINGS) as other:
        assert {agent: everything(other, agent) for agent in agents} == known
        for agent in agents:
            live(other, agent, "third")
        after = {agent: everything(other, agent) for agent in agents}
        assert {agent: everything(memory, agent) for agent in agents} == after
        assert other.flush().conflicts == 0
        for agent in agents:
            other.evict(agent)
        assert {agent: everything(other, agent) for agent in agents} == after


UNHELD = ("recover.parked", "recover.shed", "recover.met", "recover.survivors_flushed", "recover.recorded")
"""Where whoever recovers a server holds no rows that another recovery waits for."""


def few(places: Sequence[str], *kept: str) -> list[Any]:
    """The others are for a soak."""
    return [pytest.param(place, marks=[] if place in kept else pytest.mark.soak) for place in places]


@pytest.mark.parametrize("place", few(UNHELD, "recover.parked"))
def test_another_takes_its_place_meanwhile_and_is_recovered_by_another(
    memory: MemoryPlugin, servers: Redises, server: RedisServer, database: str, place: str
) -> None:
    """Whoever recovered the one before must not go on with it on this one, which is written to already."""
    agents = lives_of(memory)
    third = servers.new()
    third.follow(server)
    third.await_all_of(server)
    restart(server)
    known: dict[UUID, Any] = {}
    happened: list[str] = []
    with MemoryPlugin(database, servers.front.url, settings=SETTINGS) as other:

        def replace(name: str) -> None:
            if known and name.startswith("recover."):
                assert {agent: everything(other, agent) for agent in agents} == known
            elif name == place and not happened:
                happened.append(name)
                third.promote()
                server.kill()
                servers.front.lead_to(third)
                for agent in agents:
                    live(other, agent, "third")
                known.update({agent: everything(other, agent) for agent in agents})

        with armed(replace):
            memory.emotions.load_state(agents[0])
        assert {agent: everything(memory, agent) for agent in agents} == known
        assert memory.flush().conflicts == 0
        for agent in agents:
            memory.evict(agent)
        assert {agent: everything(memory, agent) for agent in agents} == known


@pytest.mark.parametrize(
    "place", few([name for name in failpoints() if name.startswith("recover.")], "recover.shed", "recover.seeded")
)
def test_another_takes_its_place_meanwhile(
    memory: MemoryPlugin, servers: Redises, server: RedisServer, place: str
) -> None:
    """What is said of the one before is not said of this one."""
    agents = lives_of(memory)
    known = {agent: everything(memory, agent) for agent in agents}
    restart(server)
    third = servers.new()
    third.follow(server)
    happened: list[str] = []

    def replace(name: str) -> None:
        if name == place and not happened:
            happened.append(name)
            third.await_all_of(server)
            third.promote()
            server.kill()
            servers.front.lead_to(third)

    with armed(replace):
        memory.emotions.load_state(agents[0])
    assert happened
    assert {agent: everything(memory, agent) for agent in agents} == known
    for agent in agents:
        live(memory, agent, "third")
    known = {agent: everything(memory, agent) for agent in agents}
    assert memory.flush().conflicts == 0
    for agent in agents:
        memory.evict(agent)
    assert {agent: everything(memory, agent) for agent in agents} == known


STEPS: dict[str, Callable[[ShardKeys, str], Call[Any]]] = {
    "park": failover.park,
    "shed": lambda keys, named: failover.shed(keys, named, b"a birth.", []),
    "clear": lambda keys, named: failover.clear(keys, named, []),
    "say that it is done": failover.mark_recovered,
    "seed": lambda keys, named: failover.seed(keys, 1, named),
    "name": lambda _, named: failover.name_server(named),
}


@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_names_another_server_does_nothing(memory: MemoryPlugin, server: RedisServer, step: str) -> None:
    memory.conversations.save_message(uuid4(), "user", "hello")
    hot, _ = memory._open()

    def held() -> dict[bytes, Any]:
        return {name: server.command("DUMP", name) for name in server.command("KEYS", "*")}

    before = held()
    for keys in map(shard_keys, range(SETTINGS.shards)):
        assert hot.run(STEPS[step](keys, "another.server")) is failover.CHANGED
    assert held() == before


def test_many_meet_it_at_once(memory: MemoryPlugin, servers: Redises, server: RedisServer, database: str) -> None:
    agents = lives_of(memory)
    known = {agent: everything(memory, agent) for agent in agents}
    for _ in range(3):
        restart(server)
        clients = [MemoryPlugin(database, servers.front.url, settings=SETTINGS) for _ in range(3)]
        with ThreadPoolExecutor(9) as pool:
            read = [pool.submit(everything, client, agent) for client in [*clients] for agent in agents]
            wrote = [
                pool.submit(client.conversations.save_message, uuid4(), "user", "hello")
                for client in (memory, *clients)
                for _ in range(2)
            ]
            assert [future.result() for future in read] == [known[agent] for agent in agents] * 3
            assert len({future.result() for future in wrote}) == 8
        assert memory.flush().duplicates == 0
        for client in clients:
            client.close()
    assert memory.stats().agents == 3 + 3 * 8


def test_a_replica_is_refused_until_it_is_promoted(
    memory: MemoryPlugin, servers: Redises, server: RedisServer, database: str
) -> None:
    agents = lives_of(memory)
    known = {agent: everything(memory, agent) for agent in agents}
    replica = servers.new()
    replica.follow(server)
    replica.await_all_of(server)
    servers.front.lead_to(replica)
    with MemoryPlugin(database, servers.front.url, settings=SETTINGS) as other:
        with pytest.raises(HotStoreUnavailable, match="replica"):
            other.emotions.load_state(agents[0])
        replica.promote()
        assert {agent: everything(other, agent) for agent in agents} == known


def test_a_server_that_was_demoted_under_a_client_is_left(
    memory: MemoryPlugin, servers: Redises, server: RedisServer
) -> None:
    """Its connections live on and can never write again."""
    agents = lives_of(memory)
    other = servers.new()
    other.follow(server)
    other.await_all_of(server)
    other.promote()
    server.follow(other)
    servers.front.lead_to(other)
    with pytest.raises(HotStoreUnavailable, match="read only replica"):
        memory.conversations.save_message(agents[0], "user", "refused")
    memory.conversations.save_message(agents[0], "user", "taken")
    texts = [m.content for m in memory.conversations.get_history(agents[0])]
    assert texts == ["first word", "taken"]


def demote_with_its_clients(servers: Redises, server: RedisServer, database: str, agent: UUID) -> None:
    """Another takes its place, and a message. The old one hears nothing of that, and keeps its connections."""
    other = servers.new()
    other.follow(server)
    other.await_all_of(server)
    other.promote()
    servers.front.lead_to(other)
    server.command("REPLICAOF", "127.0.0.1", free_port())
    with MemoryPlugin(database, servers.front.url, settings=SETTINGS) as late:
        late.conversations.save_message(agent, "user", "second")


def test_whoever_only_reads_leaves_a_server_that_was_demoted(
    memory: MemoryPlugin, servers: Redises, server: RedisServer, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = uuid4()
    memory.conversations.save_message(agent, "user", "first")
    assert len(memory.conversations.get_history(agent)) == 1, (
        "from now on it is served without a lease, which is a write"
    )
    demote_with_its_clients(servers, server, database, agent)
    assert [m.content for m in memory.conversations.get_history(agent)] == ["first"], (
        "it may be served this for a while"
    )
    monkeypatch.setattr(connection, "TRUSTED", 0.0)
    assert [m.content for m in memory.conversations.get_history(agent)] == ["first", "second"]


def test_tasks_that_only_read_leave_a_server_that_was_demoted(
    servers: Redises, server: RedisServer, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "TRUSTED", 0.01)

    async def read_on() -> None:
        agent = uuid4()
        async with AsyncMemoryPlugin(database, servers.front.url, settings=SETTINGS) as tasks:
            await tasks.conversations.save_message(agent, "user", "first")
            assert len(await tasks.conversations.get_history(agent)) == 1
            demote_with_its_clients(servers, server, database, agent)
            async with asyncio.timeout(30):
                while len(await tasks.conversations.get_history(agent)) < 2:
                    pass

    asyncio.run(read_on())


def test_a_connection_that_was_lost_before_it_is_asked_again_is_another(
    memory: MemoryPlugin, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = uuid4()
    memory.conversations.save_message(agent, "user", "first")
    monkeypatch.setattr(connection, "TRUSTED", 0.0)
    monkeypatch.setattr(connection, "_IDLE", 60.0)  # that it hung up is not looked for
    server.command("CLIENT", "KILL", "TYPE", "normal")
    assert len(memory.conversations.get_history(agent)) == 1


@pytest.mark.parametrize("leader", ["reached", "away"])
def test_a_server_that_was_demoted_is_not_read_by_whoever_comes_late(
    memory: MemoryPlugin, servers: Redises, server: RedisServer, database: str, leader: str
) -> None:
    """Its data names itself for as long as nobody met the one that it follows."""
    agents = lives_of(memory)
    other = servers.new()
    other.follow(server)
    other.await_all_of(server)
    other.promote()
    if leader == "away":
        other.kill()
        server.command("REPLICAOF", "127.0.0.1", other.port)
    else:
        server.follow(other)
    with (
        MemoryPlugin(database, servers.front.url, settings=SETTINGS) as late,
        pytest.raises(HotStoreUnavailable, match="replica"),
    ):
        late.emotions.load_state(agents[0])


def test_a_connection_that_was_not_greeted_is_closed(servers: Redises, server: RedisServer, database: str) -> None:
    """Also while somebody holds the error, and with it all that led to it."""
    server.command("ACL", "SETUSER", "blind", "on", "nopass", "~*", "+@all", "-info")
    url = servers.front.url.replace("unix://", "unix://blind:any@")
    with MemoryPlugin(database, url, settings=SETTINGS) as memory:
        with pytest.raises(ConfigurationError, match="refuses this user") as held:
            memory.emotions.load_state(uuid4())
        assert held.value.__traceback__
        connected = server.command("CLIENT LIST")
        assert not [client for client in connected if client["user"] == "blind"]


LEVELS = [Durability.SYNCED, Durability.COLD]


@pytest.mark.parametrize("level", LEVELS)
def test_a_write_is_not_confirmed_by_another_server(
    memory: MemoryPlugin, servers: Redises, server: RedisServer, database: str, level: Durability
) -> None:
    """What another server comes to hold, on its disk or in PostgreSQL, does not speak for what this one took."""
    if level is Durability.SYNCED and not server.can_sync:
        pytest.skip("this server has no WAITAOF")
    agent = uuid4()
    memory.conversations.save_message(agent, "user", "before", durability=level)
    rounds: Any = memory._open()[0]._rounds[level] if level is Durability.SYNCED else memory._rounds
    work = rounds._work
    memory._open()[0]._waiting = None  # a connection that waits is opened when it is first needed

    def replaced_first(shards: frozenset[int]) -> Any:
        server.kill()
        servers.front.lead_to(servers.new())
        return work(shards)

    rounds._work = replaced_first
    with pytest.raises(DurabilityUnavailable, match="replaced by another server") as unconfirmed:
        memory.conversations.save_message(agent, "user", "lost", durability=level)
    rounds._work = work
    assert unconfirmed.value.receipt is not None
    memory.conversations.save_message(agent, "user", "after", durability=level)
    with pytest.raises(DurabilityUnavailable, match="replaced by another server"):
        memory.wait_cold(unconfirmed.value.receipt)
    texts = [m.content for m in memory.conversations.get_history(agent)]
    assert texts == (["before", "after"] if level is Durability.COLD else ["after"])


@pytest.mark.parametrize("is_there", [True, False], ids=["", "without PostgreSQL"])
def test_a_full_server_is_read_and_drained(
    memory: MemoryPlugin, servers: Redises, server: RedisServer, database: str, is_there: bool
) -> None:
    """It was at its limit when it was restarted, and is so still."""
    clean, *dirty = lives_of(memory)
    known = {agent: everything(memory, agent) for agent in (clean, *dirty)}
    restart(server)
    server.command("CONFIG", "SET", "maxmemory", 1)
    with MemoryPlugin(database if is_there else AWAY, servers.front.url, settings=SETTINGS) as other:
        state = other.emotions.load_state(dirty[0])
        assert state is not None
        assert state.emotions == known[dirty[0]]["state"][0]
    assert {agent: everything(memory, agent) for agent in known} == known
    memory.flush()
    for agent in known:
        memory.evict(agent)
    assert {agent: everything(memory, agent) for agent in known} == known
    with pytest.raises(HotStoreFull):
        memory.conversations.save_message(clean, "user", "hello")
    server.command("CONFIG", "SET", "maxmemory", 0)
    memory.conversations.save_message(clean, "user", "hello")


def test_a_shard_of_which_nothing_can_be_carried_keeps_no_other(
    memory: MemoryPlugin, servers: Redises, server: RedisServer, database: str
) -> None:
    """Its dead letters would have nowhere to go. It keeps its log, and is carried once that is mended."""
    broken, other = agent_in(0), agent_in(1)
    for agent in (broken, other):
        live(memory, agent, "first")
    known = {agent: everything(memory, agent) for agent in (broken, other)}
    dead = shard_keys(0).dead
    server.command("SET", dead, "somebody else's")
    restart(server)
    with MemoryPlugin(database, servers.front.url, settings=SETTINGS) as client:
        assert {agent: everything(client, agent) for agent in known} == known
        for agent in (broken, other):
            client.conversations.save_message(agent, "user", "hello")
        known = {agent: everything(client, agent) for agent in known}
        with pytest.raises(ConfigurationError, match="shard 0"):
            client.flush()
        server.command("DEL", dead)
        client.flush()
        for agent in (broken, other):
            client.evict(agent)
        assert {agent: everything(client, agent) for agent in known} == known


@pytest.mark.parametrize("fate", ["restarted", "emptied"])
def test_forgetting_holds_no_row_that_a_recovery_needs(
    memory: MemoryPlugin, server: RedisServer, database: str, fate: str
) -> None:
    agent, other = lives_of(memory)[1:]
    known = everything(memory, other)
    happened: list[str] = []

    def lose(name: str) -> None:
        if name == "forget.locked" and not happened:
            happened.append(name)
            restart(server) if fate == "restarted" else server.command("FLUSHALL")

    with armed(lose):
        report = memory.forget(agent)
    assert report.left == 0
    assert report.totals >= 1
    assert memory.conversations.get_history(agent) == []
    assert memory.emotions.load_state(agent) is None
    if fate == "restarted":
        assert everything(memory, other) == known


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_write_on_a_server_that_lost_its_logs_has_the_receipt_of_its_own(
    memory: MemoryPlugin, servers: Redises, server: RedisServer, database: str, kind: str
) -> None:
    """It is asked for beside the write, which was refused and sent again."""
    agent = uuid4()
    memory.conversations.save_message(agent, "user", "before")
    call = calls.save_state(agent_keys(agent, SETTINGS.shards), EmotionalState({Emotion.JOY: 0.5}, {}))
    batch: list[Any] = [call, calls.receipt_beside(call)]

    async def write() -> Receipt:
        async with AsyncMemoryPlugin(database, servers.front.url, settings=SETTINGS) as other:
            await other.emotions.load_state(agent)
            hot, _ = await other._open()
            server.command("FLUSHALL")
            found: Receipt = (await hot.run_all(batch))[1]
            return found

    if kind == "sync":
        server.command("FLUSHALL")
        receipt = memory._open()[0].run_all(batch)[1]
    else:
        receipt = asyncio.run(write())
    assert receipt.stamp
    assert receipt.server == memory._open()[0].run(failover.named_server())


def test_a_task_is_not_confirmed_by_another_server(servers: Redises, server: RedisServer, database: str) -> None:
    if not server.can_sync:
        pytest.skip("this server has no WAITAOF")
    agent = uuid4()

    async def save() -> None:
        async with AsyncMemoryPlugin(database, servers.front.url, settings=SETTINGS) as memory:
            await memory.conversations.save_message(agent, "user", "before", durability=Durability.SYNCED)
            hot, _ = await memory._open()

            async def replaced_first(shards: frozenset[int]) -> Any:
                await asyncio.to_thread(restart, server)
                return await hot._round(Durability.SYNCED, shards)

            hot._rounds[Durability.SYNCED]._work = replaced_first
            with pytest.raises(DurabilityUnavailable):
                await memory.conversations.save_message(agent, "user", "unconfirmed", durability=Durability.SYNCED)

    asyncio.run(save())
