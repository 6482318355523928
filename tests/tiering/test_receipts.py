"""Receipts: what is waited for with them is in PostgreSQL, whatever became of Redis; and who waits, waits together."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import msgspec
import psycopg
import pytest
import redis

from banshee_memory import (
    AsyncMemoryPlugin,
    BansheeError,
    CustomEvent,
    Durability,
    DurabilityUnavailable,
    Emotion,
    EmotionalState,
    InvalidInput,
    MemoryPlugin,
    Receipt,
    Settings,
)
from banshee_memory.failpoints import armed
from banshee_memory.hot.aio_rounds import AsyncRounds
from banshee_memory.hot.keys import agent_keys, shard_of
from banshee_memory.hot.rounds import Rounds
from tests.clients import awaited
from tests.own_servers import own_database, own_redis
from tests.proxy import proxied

SETTINGS = Settings(shards=2, durability_timeout=60.0, flush_timeout=60.0)
HASTY = msgspec.structs.replace(SETTINGS, durability_timeout=0.05)
JOY = EmotionalState({Emotion.JOY: 0.5}, {Emotion.JOY: 0.0})


@pytest.fixture(scope="module")
def urls(redis_url: str, database_url: str) -> Iterator[tuple[str, str]]:
    with own_redis(like=redis_url) as own, own_database(database_url, SETTINGS) as database:
        yield database, own


@pytest.fixture(scope="module")
def flusher(urls: tuple[str, str]) -> Iterator[MemoryPlugin]:
    """Somebody else who flushes, as a daemon would."""
    with MemoryPlugin(*urls, settings=SETTINGS) as plugin:
        yield plugin


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
def memory(kind: str, urls: tuple[str, str], flusher: MemoryPlugin) -> Iterator[MemoryPlugin]:
    """Each client, with nothing waiting."""
    flusher.flush()
    with client(kind, urls) as plugin:
        yield plugin


@pytest.fixture
def agent() -> UUID:
    """An agent of shard 0."""
    return in_shard(0)


def in_shard(shard: int) -> UUID:
    return next(a for a in iter(uuid4, None) if shard_of(a, SETTINGS.shards) == shard)


def is_cold(memory: MemoryPlugin, receipt: Receipt) -> bool:
    """Whether a receipt is served, without waiting for it."""
    try:
        memory.wait_cold(receipt, timeout=0)
    except DurabilityUnavailable as exc:
        return (exc.applied, exc.receipt) != (True, receipt)
    return True


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.002)


# --- receipts ---


def test_a_receipt_is_served_when_postgresql_has_it(memory: MemoryPlugin, flusher: MemoryPlugin, agent: UUID) -> None:
    assert is_cold(memory, memory.receipt(agent))
    memory.conversations.save_message(agent, "user", "first")
    receipt = memory.receipt(agent)
    assert not is_cold(memory, receipt)
    flusher.flush()
    memory.conversations.save_message(agent, "user", "second")
    assert is_cold(memory, receipt)
    assert not is_cold(memory, memory.receipt(agent))


def test_waiting_ends_with_the_flush_of_another(memory: MemoryPlugin, flusher: MemoryPlugin, agent: UUID) -> None:
    memory.memories.store_memory(agent, "fact", "x", 1)
    receipt = memory.receipt(agent)
    flush = threading.Timer(0.05, flusher.flush)
    flush.start()
    memory.wait_cold(receipt)
    flush.join()
    assert is_cold(memory, receipt)


def test_it_can_be_handed_to_another_process(memory: MemoryPlugin, agent: UUID) -> None:
    memory.emotions.save_state(agent, JOY)
    receipt = memory.receipt(agent)
    assert msgspec.json.decode(msgspec.json.encode(receipt), type=Receipt) == receipt
    assert len(msgspec.msgpack.encode(receipt)) < 64


def test_a_dead_letter_serves_it_too(
    memory: MemoryPlugin, flusher: MemoryPlugin, urls: tuple[str, str], agent: UUID
) -> None:
    keys = agent_keys(agent, SETTINGS.shards)
    with redis.Redis.from_url(urls[1]) as foreign:
        foreign.fcall("banshee1_append_messages", 3, keys.messages, keys.log, keys.state, agent.bytes, "", "", b"\xc1")
    receipt = memory.receipt(agent)
    assert flusher.flush().poisoned == 1
    assert is_cold(memory, receipt)


def test_an_entry_below_the_watermark_is_not_cold(
    memory: MemoryPlugin, flusher: MemoryPlugin, urls: tuple[str, str], agent: UUID
) -> None:
    """As a promoted replica has them: PostgreSQL flushed later stamps of the shard, and this one nobody did."""
    memory.conversations.save_message(agent, "user", "survived")
    receipt = memory.receipt(agent)
    with psycopg.connect(urls[0], autocommit=True) as database:
        database.execute("UPDATE shards SET flushed_stamp = %s WHERE shard = 0", (receipt.stamp + 5,))
    assert not is_cold(memory, receipt)
    flusher.flush()
    assert is_cold(memory, receipt)


def test_what_was_lost_is_not_cold(kind: str, redis_url: str, urls: tuple[str, str], agent: UUID) -> None:
    with own_redis(like=redis_url) as other, client(kind, (urls[0], other)) as memory:
        memory.conversations.save_message(agent, "user", "lost")
        receipt = memory.receipt(agent)
        with redis.Redis.from_url(other) as server:
            server.flushall()
        assert not is_cold(memory, receipt)


def test_a_store_that_comes_back_in_time_is_waited_for(kind: str, urls: tuple[str, str], agent: UUID) -> None:
    with proxied(urls[0]) as proxy, client(kind, (proxy.url, urls[1])) as memory:
        memory.conversations.save_message(agent, "user", "x")
        receipt = memory.receipt(agent)
        memory.flush()
        proxy.go_down()
        with pytest.raises(DurabilityUnavailable, match="PostgreSQL") as late:
            memory.wait_cold(receipt, timeout=0.02)
        assert late.value.receipt == receipt
        back = threading.Timer(0.05, proxy.come_back)
        back.start()
        memory.wait_cold(receipt)
        back.join()


@pytest.mark.parametrize(
    ("receipt", "timeout", "field"),
    [
        ((0, 1), None, "receipt"),
        (Receipt(2, 1), None, "receipt"),
        (Receipt(-1, 1), None, "receipt"),
        (Receipt(0, 1), -1, "timeout"),
        (Receipt(0, 1), float("nan"), "timeout"),
        (Receipt(0, 1), "soon", "timeout"),
    ],
)
def test_a_bad_receipt_is_refused(memory: MemoryPlugin, receipt: Any, timeout: Any, field: str) -> None:
    with pytest.raises(InvalidInput, match=field):
        memory.wait_cold(receipt, timeout)


# --- COLD ---


def writes(memory: MemoryPlugin, agent: UUID, level: Durability) -> dict[str, Callable[[], object]]:
    """Every kind of write; each gives what its call would give."""
    said, talk = CustomEvent(event_type="x"), memory.conversations
    return {
        "update_emotions": lambda: memory.emotions.update_emotions(agent, {Emotion.JOY: 0.25}, durability=level),
        "save_event": lambda: memory.emotions.save_event(agent, said, {}, durability=level),
        "save_message": lambda: talk.save_message(agent, "user", "x", durability=level),
        "store_memory": lambda: memory.memories.store_memory(agent, "fact", "x", 1, durability=level),
        "delete_memory": lambda: memory.memories.delete_memory(agent, "fact", "x", durability=level),
        "start_session": lambda: memory.sessions.start_session(agent, durability=level),
    }


KINDS = {
    "update_emotions": EmotionalState,
    "save_event": "EmotionalEventRecord",
    "save_message": UUID,
    "store_memory": "MemoryRecord",
    "delete_memory": bool,
    "start_session": "AgentSession",
}


def unconfirmed(write: Callable[[], object]) -> DurabilityUnavailable:
    with pytest.raises(DurabilityUnavailable) as raised:
        write()
    assert raised.value.applied
    assert raised.value.receipt is not None
    return raised.value


def check_results(memory: MemoryPlugin, agent: UUID, level: Durability) -> list[Receipt]:
    """Every write is unconfirmed, has what its call would have given, and a receipt."""
    receipts = []
    for name, write in writes(memory, agent, level).items():
        error = unconfirmed(write)
        wanted = KINDS[name]
        assert isinstance(error.result, wanted) if isinstance(wanted, type) else type(error.result).__name__ == wanted
        assert isinstance(error.receipt, Receipt)
        receipts.append(error.receipt)
    assert [r.stamp for r in receipts] == sorted({r.stamp for r in receipts})
    return receipts


def test_a_cold_write_without_postgresql_is_applied_with_a_receipt(
    kind: str, urls: tuple[str, str], flusher: MemoryPlugin, agent: UUID
) -> None:
    flusher.emotions.save_state(agent, JOY)
    with proxied(urls[0]) as proxy, client(kind, (proxy.url, urls[1])) as memory:
        memory.memories.get_memory(agent, "fact", "x")
        proxy.go_down()
        receipts = check_results(memory, agent, Durability.COLD)
        proxy.come_back()
        assert not is_cold(memory, receipts[0])
        flusher.flush()
        for receipt in receipts:
            memory.wait_cold(receipt)
    assert len(flusher.conversations.get_history(agent)) == 1


def test_a_cold_write_whose_flush_is_not_done_in_time(kind: str, urls: tuple[str, str], agent: UUID) -> None:
    hasty = msgspec.structs.replace(SETTINGS, flush_timeout=0.2)
    with client(kind, urls, hasty) as memory, psycopg.connect(urls[0]) as holder:
        holder.execute("SELECT 1 FROM shards FOR UPDATE")
        error = unconfirmed(lambda: memory.emotions.save_state(agent, JOY, durability=Durability.COLD))
        holder.rollback()
        assert error.receipt is not None
        memory.flush()
        assert is_cold(memory, error.receipt)


def together(count: int, work: Callable[[int], object]) -> tuple[list[threading.Thread], list[BaseException]]:
    """So many threads at it, and what they raised."""
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as exc:  # noqa: BLE001 - the test looks at it
            errors.append(exc)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    return threads, errors


def logged(server: redis.Redis, agents: list[UUID]) -> int:
    logs = {agent_keys(a, SETTINGS.shards).log for a in agents}
    return sum(int(server.xlen(log)) for log in logs)


def test_cold_writers_are_flushed_together(urls: tuple[str, str], flusher: MemoryPlugin) -> None:
    """The first's flush waits for the shard; all that write meanwhile are carried by the one after it."""
    flusher.flush()
    agents = [in_shard(n % 2) for n in range(10)]
    reached: Counter[str] = Counter()
    with (
        redis.Redis.from_url(urls[1]) as server,
        psycopg.connect(urls[0]) as holder,
        client("sync", urls) as memory,
        armed(lambda name: reached.update([name])),
    ):
        holder.execute("SELECT 1 FROM shards FOR UPDATE")
        save = partial(memory.emotions.save_state, state=JOY, durability=Durability.COLD)
        threads, errors = together(10, lambda n: save(agents[n]))
        until(lambda: logged(server, agents) == 10 and reached["write.hot"] == 10)
        holder.rollback()
        for thread in threads:
            thread.join()
        assert errors == []
        assert logged(server, agents) == 0
    assert reached["flush.committed"] <= 3


def test_a_shard_of_which_nothing_can_be_carried_fails_only_its_own(redis_url: str, database_url: str) -> None:
    agents = [in_shard(n % 2) for n in range(6)]
    with (
        own_redis(like=redis_url) as own,
        own_database(database_url, SETTINGS) as database,
        client("sync", (database, own)) as memory,
        redis.Redis.from_url(own) as server,
    ):
        server.set("banshee:{1}:dead", "of another type")
        save = partial(memory.emotions.save_state, state=JOY, durability=Durability.COLD)
        threads, errors = together(6, lambda n: save(agents[n]))
        for thread in threads:
            thread.join()
    shards = [e.receipt.shard for e in errors if isinstance(e, DurabilityUnavailable) and e.receipt and e.applied]
    assert shards == [1, 1, 1]
    assert len(errors) == 3


# --- REPLICATED and SYNCED ---


@pytest.fixture(scope="module")
def replica(redis_url: str, urls: tuple[str, str]) -> Iterator[int]:
    """The process of a replica of the server, in step with it."""
    with own_redis(like=redis_url) as own, redis.Redis.from_url(own) as replica, redis.Redis.from_url(urls[1]) as first:
        first.config_set("repl-diskless-sync-delay", 0)
        first.config_set("port", _free_port())
        replica.execute_command("REPLICAOF", "127.0.0.1", first.config_get("port")["port"])
        until(lambda: replica.info("replication")["master_link_status"] == "up")
        yield int(replica.info("server")["process_id"])


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def stopped(process: int) -> Iterator[None]:
    """A process that does nothing while the block runs."""
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


def test_a_replica_that_is_silent_leaves_a_receipt(
    kind: str, urls: tuple[str, str], flusher: MemoryPlugin, replica: int, agent: UUID
) -> None:
    flusher.emotions.save_state(agent, JOY)
    with client(kind, urls, HASTY) as memory:
        memory.memories.get_memory(agent, "fact", "x")
        with stopped(replica):
            receipts = check_results(memory, agent, Durability.REPLICATED)
        flusher.flush()
        assert all(is_cold(memory, receipt) for receipt in receipts)
    assert len(flusher.conversations.get_history(agent)) == 1


def test_the_disk_that_is_silent_leaves_a_receipt(
    kind: str, redis_url: str, urls: tuple[str, str], agent: UUID
) -> None:
    with own_redis(like=redis_url) as own, redis.Redis.from_url(own) as server:
        if "waitaof" not in server.command():
            pytest.skip("this server has no WAITAOF")
        server.config_set("appendfsync", "no")
        server.config_set("appendonly", "yes")
        until(lambda: not server.info("persistence")["aof_rewrite_in_progress"])
        with client(kind, (urls[0], own), HASTY) as memory:
            error = unconfirmed(lambda: memory.emotions.save_state(agent, JOY, durability=Durability.SYNCED))
            assert error.receipt is not None
            memory.flush()
            assert is_cold(memory, error.receipt)


def test_replicated_writers_wait_together(urls: tuple[str, str], flusher: MemoryPlugin, replica: int) -> None:
    flusher.flush()
    agents = [in_shard(n % 2) for n in range(10)]
    with redis.Redis.from_url(urls[1]) as server, client("sync", urls) as memory:
        memory.health_check()
        with stopped(replica):
            server.config_resetstat()
            save = partial(memory.emotions.save_state, state=JOY, durability=Durability.REPLICATED)
            threads, errors = together(10, lambda n: save(agents[n]))
            until(lambda: logged(server, agents) == 10)
        for thread in threads:
            thread.join()
        assert errors == []
        assert server.info("commandstats")["cmdstat_wait"]["calls"] <= 3


def test_a_connection_that_is_cut_in_the_wait_is_unconfirmed(
    kind: str, urls: tuple[str, str], replica: int, agent: UUID
) -> None:
    def cut(server: redis.Redis) -> None:
        until(lambda: [c for c in server.client_list() if c["cmd"] == "wait"])
        for waiting in server.client_list():
            if waiting["cmd"] == "wait":
                server.client_kill_filter(_id=waiting["id"])

    with redis.Redis.from_url(urls[1]) as server, client(kind, urls) as memory:
        with stopped(replica):
            cutter = threading.Thread(target=cut, args=(server,))
            cutter.start()
            error = unconfirmed(lambda: memory.emotions.save_state(agent, JOY, durability=Durability.REPLICATED))
            cutter.join()
        assert isinstance(error.__cause__, BansheeError)
        memory.emotions.save_state(agent, JOY, durability=Durability.REPLICATED)


# --- rounds ---


def test_who_joins_while_a_round_is_under_way_is_served_by_the_next() -> None:
    entered, go = threading.Semaphore(0), threading.Semaphore(0)
    worked: list[frozenset[int]] = []

    def work(shards: frozenset[int]) -> int:
        worked.append(shards)
        entered.release()
        go.acquire()
        return len(worked)

    rounds: Rounds[int] = Rounds(work)
    outcomes: dict[int, int | None] = {}
    threads, errors = together(1, lambda _: outcomes.update({0: rounds.wait(0)}))
    entered.acquire()
    later, _ = together(5, lambda n: outcomes.update({n + 1: rounds.wait(n + 1)}))
    until(lambda: rounds._next._round is not None and len(rounds._next._round.shards) == 5)
    go.release(2)
    for thread in threads + later:
        thread.join()
    assert worked == [{0}, {1, 2, 3, 4, 5}]
    assert outcomes == {0: 1, 1: 2, 2: 2, 3: 2, 4: 2, 5: 2}
    assert not errors


def test_a_round_that_is_interrupted_leaves_nobody_waiting() -> None:
    entered, go = threading.Event(), threading.Event()

    def work(shards: frozenset[int]) -> int:
        entered.set()
        go.wait()
        raise KeyboardInterrupt

    rounds: Rounds[int] = Rounds(work)
    outcomes: list[int | None] = []
    rounds._one_at_a_time.acquire()
    first, errors = together(1, lambda _: outcomes.append(rounds.wait(0)))
    until(lambda: rounds._next._round is not None)
    second, _ = together(1, lambda _: outcomes.append(rounds.wait(1)))
    until(lambda: len(rounds._next._round.shards) == 2)  # type: ignore[union-attr]
    rounds._one_at_a_time.release()
    go.set()
    for thread in first + second:
        thread.join()
    assert outcomes == [None]
    assert [type(error) for error in errors] == [KeyboardInterrupt]


def test_a_round_that_is_interrupted_before_it_begins_leaves_nobody_waiting() -> None:
    """Ctrl-C reaches the main thread also while that waits for the round before its own to end."""
    rounds: Rounds[str] = Rounds(lambda _: "done")
    outcomes: list[str | None] = []

    def interrupt(signum: int, frame: object) -> None:
        raise InterruptedError

    def join_and_interrupt(_: int) -> None:
        until(lambda: rounds._next._round is not None)
        [follower] = together(1, lambda _: outcomes.append(rounds.wait(1)))[0]
        until(lambda: rounds._next._round is None or len(rounds._next._round.shards) == 2)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
        follower.join(30)

    before = signal.signal(signal.SIGUSR1, interrupt)
    rounds._one_at_a_time.acquire()
    threads, errors = together(1, join_and_interrupt)
    try:
        with pytest.raises(InterruptedError):
            rounds.wait(0)
    finally:
        threads[0].join()
        signal.signal(signal.SIGUSR1, before)
    rounds._one_at_a_time.release()
    assert outcomes == [None]
    assert not errors
    assert rounds.wait(2) == "done"


def test_a_task_that_is_cancelled_leaves_the_others_their_round() -> None:
    async def run() -> None:
        began, go = asyncio.Event(), asyncio.Event()
        worked: list[frozenset[int]] = []

        async def work(shards: frozenset[int]) -> str:
            worked.append(shards)
            began.set()
            await go.wait()
            return "done"

        rounds: AsyncRounds[str] = AsyncRounds(work)
        first, second = (asyncio.create_task(rounds.wait(shard)) for shard in (0, 1))
        await began.wait()
        first.cancel()
        go.set()
        assert await second == "done"
        assert worked == [{0, 1}]
        assert first.cancelled()

    asyncio.run(run())
