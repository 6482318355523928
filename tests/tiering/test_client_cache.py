"""Reads that are kept until Redis says that they have changed: what both clients promise of them."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from msgspec.structs import replace

from banshee_memory import (
    AsyncMemoryPlugin,
    ConfigurationError,
    CustomEvent,
    Emotion,
    EmotionalState,
    HotStoreUnavailable,
    MemoryPlugin,
)
from banshee_memory.hot import connection
from banshee_memory.hot.cache import Cache, Marked
from tests.clients import awaited
from tests.hot.proxy import threaded
from tests.own_servers import own_redis
from tests.tiering.conftest import SETTINGS

CACHED = replace(SETTINGS, client_cache_entries=1_000, message_cap=50)
Urls = tuple[str, str]
Read = Callable[[MemoryPlugin, UUID], Any]
READS: dict[str, Read] = {
    "load_state": lambda memory, agent: memory.emotions.load_state(agent),
    "get_history": lambda memory, agent: memory.conversations.get_history(agent, 5),
    "get_event_history": lambda memory, agent: memory.emotions.get_event_history(agent, 5),
    "get_memory": lambda memory, agent: memory.memories.get_memory(agent, "fact", "a"),
    "get_memories_by_type": lambda memory, agent: memory.memories.get_memories_by_type(agent, "fact"),
    "recall_turn": lambda memory, agent: memory.recall_turn(agent, messages=5),
}
EVENT = CustomEvent(event_type="happened", data={"n": 1})


class Client:
    """A client that keeps what it reads."""

    def __init__(self, urls: Urls, *, is_async: bool, chosen: Any = CACHED) -> None:
        redis_url, database_url = urls
        self._runner = asyncio.Runner() if is_async else None
        self._async = AsyncMemoryPlugin(database_url, redis_url, settings=chosen) if is_async else None
        self._sync = self._async._sync if self._async else MemoryPlugin(database_url, redis_url, settings=chosen)
        self.memory = awaited(self._async, self._runner) if self._async and self._runner else self._sync
        cache = self._sync._cache
        assert cache is not None
        self.cache: Cache = cache

    def hear(self) -> None:
        """Returns when it has heard of everything that was written before."""
        cached = (self._async or self._sync)._cached
        line: Any = cached[0]._line if cached else None
        if line is not None and self._runner is not None:
            self._runner.run(_pinged(line))
        elif line is not None and line.is_on:
            line.ask_all([("PING",)])

    def turn(self) -> None:
        """Lets its loop run."""
        if self._runner is not None:
            self._runner.run(asyncio.sleep(0.001))

    def close(self) -> None:
        """Closes it."""
        if self._async is not None and self._runner is not None:
            self._runner.run(self._async.aclose())
            self._runner.close()
        else:
            self._sync.close()


async def _pinged(line: Any) -> None:
    if line.is_on:
        await line.made.ask_all([("PING",)])


@pytest.fixture(scope="module", params=["sync", "async"])
def client(request: pytest.FixtureRequest, own_urls: Urls) -> Iterator[Client]:
    made = Client(own_urls, is_async=request.param == "async")
    yield made
    made.close()


@pytest.fixture(scope="module")
def other(own_urls: Urls) -> Iterator[MemoryPlugin]:
    """A client that keeps nothing."""
    redis_url, database_url = own_urls
    with MemoryPlugin(database_url, redis_url, settings=replace(CACHED, client_cache_entries=0)) as memory:
        yield memory


def fill(memory: MemoryPlugin, agent: UUID) -> None:
    """Something of each kind."""
    memory.emotions.save_state(agent, EmotionalState({Emotion.LOVE: 0.9}))
    memory.conversations.save_message(agent, "user", "hello", {"n": 1})
    memory.emotions.save_event(agent, EVENT, {Emotion.PRIDE: 0.5})
    memory.memories.store_memory(agent, "fact", "a", {"n": [1]})


def asked(url: str) -> int:
    """How many commands the server did so far."""
    with redis.Redis.from_url(url) as server:
        return int(server.info("stats")["total_commands_processed"])


def settled(client: Client, agent: UUID, read: Read, url: str) -> Any:
    """What a read gives once it asks nothing any more."""
    for _ in range(20):
        client.hear()
        read(client.memory, agent)
        first, before = asked(url), asked(url)
        found = read(client.memory, agent)
        if asked(url) - before == before - first:  # what asking that takes
            return found
    raise AssertionError("it always asks")


def until(client: Client, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        client.turn()
        time.sleep(0.001)


def alike(found: Any, expected: Any) -> bool:
    """Whether two reads say the same, but for the moment of them."""
    if isinstance(expected, EmotionalState):
        return found is not None and found.emotions == pytest.approx(expected.emotions, abs=0.02)
    if hasattr(expected, "messages"):
        return (
            alike(found.state, expected.state)
            and found.messages == expected.messages
            and (found.memories == expected.memories)
        )
    return bool(found == expected)


@pytest.mark.parametrize("read", READS)
def test_what_was_read_is_not_asked_for_again(
    read: str, client: Client, other: MemoryPlugin, own_urls: Urls, agent: UUID
) -> None:
    fill(client.memory, agent)
    assert alike(settled(client, agent, READS[read], own_urls[0]), READS[read](other, agent))


def test_it_fades_while_it_is_kept(client: Client, agent: UUID, own_urls: Urls) -> None:
    client.memory.emotions.save_state(agent, EmotionalState({Emotion.ANGER: 0.9}))
    first = settled(client, agent, READS["load_state"], own_urls[0])
    second = READS["load_state"](client.memory, agent)
    assert second.last_updated > first.last_updated
    assert second.emotions[Emotion.ANGER] < first.emotions[Emotion.ANGER]


def test_who_changes_what_was_read_changes_nothing_that_is_kept(client: Client, agent: UUID, own_urls: Urls) -> None:
    fill(client.memory, agent)
    for read in ("get_memory", "get_history", "load_state"):
        settled(client, agent, READS[read], own_urls[0])
    READS["get_memory"](client.memory, agent).data["n"].append("mine")
    READS["get_history"](client.memory, agent)[0].metadata["n"] = "mine"
    READS["load_state"](client.memory, agent).emotions.clear()
    assert READS["get_memory"](client.memory, agent).data == {"n": [1]}
    assert READS["get_history"](client.memory, agent)[0].metadata == {"n": 1}
    assert READS["load_state"](client.memory, agent).emotions


WRITES: dict[str, Callable[[MemoryPlugin, UUID, int], Any]] = {
    "update_emotions": lambda memory, agent, n: memory.emotions.update_emotions(
        agent, {Emotion.LOVE: (n % 10 + 1) / 20}, mode="set"
    ),
    "save_message": lambda memory, agent, n: memory.conversations.save_message(agent, "user", str(n)),
    "save_event": lambda memory, agent, n: memory.emotions.save_event(agent, EVENT, {Emotion.JOY: (n % 10 + 1) / 20}),
    "store_memory": lambda memory, agent, n: memory.memories.store_memory(agent, "fact", "ab"[n % 2], n),
    "retrieve_memory": lambda memory, agent, n: memory.memories.retrieve_memory(agent, "fact", "a"),
    "delete_memory": lambda memory, agent, n: memory.memories.delete_memory(agent, "fact", "ab"[n % 2]),
    "a memory that ends": lambda memory, agent, n: memory.memories.store_memory(agent, "fact", "a", n, 1_000),
    "set_temperament": lambda memory, agent, n: memory.emotions.set_temperament(
        agent, decay_rates={Emotion.LOVE: n % 2 / 1e6}
    ),
    "flush": lambda memory, agent, n: memory.flush(agent),
    "evict": lambda memory, agent, n: memory.evict(agent),
    "forget": lambda memory, agent, n: memory.forget(agent),
}


def test_own_writes_show_at_once(client: Client, other: MemoryPlugin, agent: UUID) -> None:
    fill(client.memory, agent)
    for turn in range(6):
        for name, write in WRITES.items():
            if name == "forget" and turn < 5:
                continue
            for read in READS.values():
                read(client.memory, agent)
            write(client.memory, agent, turn)
            for label, read in READS.items():
                assert alike(read(client.memory, agent), read(other, agent)), (turn, name, label)


def test_own_writes_of_one_thread_show_to_others_at_once(own_urls: Urls, agent: UUID) -> None:
    client = Client(own_urls, is_async=False)
    memory, written, wrong = client.memory, [0], []
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            before = written[0]
            found = memory.memories.get_memory(agent, "fact", "a")
            if found is not None and found.data < before:
                wrong.append((found.data, before))

    memory.memories.store_memory(agent, "fact", "a", 0)
    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(1, 300):
        memory.memories.store_memory(agent, "fact", "a", number)
        written[0] = number
    over.set()
    for reader in readers:
        reader.join()
    client.close()
    assert not wrong


@pytest.mark.parametrize("write", WRITES)
def test_another_s_write_shows_once_it_is_heard_of(
    write: str, client: Client, other: MemoryPlugin, own_urls: Urls, agent: UUID
) -> None:
    fill(other, agent)
    for turn in range(3):
        for read in READS.values():
            read(client.memory, agent)
        client.hear()
        for read in READS.values():
            read(client.memory, agent)
        WRITES[write](other, agent, turn)
        client.hear()
        for label, read in READS.items():
            assert alike(read(client.memory, agent), read(other, agent)), (turn, label)


def test_another_s_write_is_heard_of_while_nobody_asks(client: Client, other: MemoryPlugin, agent: UUID) -> None:
    fill(other, agent)
    READS["load_state"](client.memory, agent)
    other.emotions.save_state(agent, EmotionalState({Emotion.HATE: 0.7}))
    until(client, lambda: Emotion.HATE in READS["load_state"](client.memory, agent).emotions)


def test_an_emptied_server_empties_it(redis_url: str, own_urls: Urls, agent: UUID) -> None:
    with own_redis(like=redis_url) as url:
        client = Client((url, own_urls[1]), is_async=False)
        client.memory.memories.store_memory(agent, "fact", "a", 1)
        settled(client, agent, READS["get_memory"], url)
        with redis.Redis.from_url(url) as server:
            server.flushall()
        until(client, lambda: not len(client.cache))
        client.close()


def test_a_lost_connection_empties_it(client: Client, other: MemoryPlugin, own_urls: Urls, agent: UUID) -> None:
    fill(client.memory, agent)
    settled(client, agent, READS["load_state"], own_urls[0])
    assert len(client.cache)
    with redis.Redis.from_url(own_urls[0]) as server:
        server.client_kill_filter(_type="normal", skipme=True)
    until(client, lambda: not len(client.cache))
    other.emotions.save_state(agent, EmotionalState({Emotion.HATE: 0.7}))
    assert Emotion.HATE in READS["load_state"](client.memory, agent).emotions
    settled(client, agent, READS["load_state"], own_urls[0])


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_server_that_says_nothing_empties_it(
    is_async: bool, other: MemoryPlugin, own_urls: Urls, tmp_path: Path, agent: UUID
) -> None:
    with threaded(own_urls[0], tmp_path) as line:
        chosen = replace(CACHED, call_timeout=0.2)
        other.memories.store_memory(agent, "fact", "a", 1)
        client = Client((line.proxy.url, own_urls[1]), is_async=is_async, chosen=chosen)
        until(client, lambda: is_read(client, agent) and len(client.cache) > 0)
        line.do(line.proxy.held.clear)
        until(client, lambda: not len(client.cache))
        line.do(line.proxy.held.set)
        until(client, lambda: is_read(client, agent))
        client.close()


def is_read(client: Client, agent: UUID) -> bool:
    """Whether it is there, if an answer came within the time that this client waits for one, which is short."""
    try:
        return client.memory.memories.get_memory(agent, "fact", "a") is not None
    except HotStoreUnavailable:
        return False


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_server_that_was_demoted_empties_it(is_async: bool, redis_url: str, own_urls: Urls, agent: UUID) -> None:
    with own_redis(like=redis_url) as url:
        client = Client((url, own_urls[1]), is_async=is_async)
        fill(client.memory, agent)
        settled(client, agent, READS["load_state"], url)
        with redis.Redis.from_url(url) as server:
            server.replicaof("127.0.0.1", "1")
        with pytest.raises(HotStoreUnavailable):
            client.memory.conversations.save_message(agent, "user", "hello")
        assert not len(client.cache)
        with pytest.raises(HotStoreUnavailable, match="replica"):
            READS["load_state"](client.memory, agent)
        client.close()


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_server_that_was_demoted_empties_it_also_where_nobody_writes(
    is_async: bool, redis_url: str, own_urls: Urls, agent: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "TRUSTED", 0.05)
    with own_redis(like=redis_url) as url:
        client = Client((url, own_urls[1]), is_async=is_async)
        fill(client.memory, agent)
        READS["load_state"](client.memory, agent)
        with redis.Redis.from_url(url) as server:
            server.replicaof("127.0.0.1", "1")
        until(client, lambda: not len(client.cache))
        client.close()


class Late:
    """A client one of whose reads is answered only when it is let go: its reply stands at the proxy."""

    def __init__(self, urls: Urls, line: Any, agent: UUID) -> None:
        # Nobody gives up while the reply is held, however long that takes here.
        patient = replace(CACHED, call_timeout=600.0)
        self.client = Client((line.proxy.url, urls[1]), is_async=False, chosen=patient)
        self._line, self._agent = line, agent
        self.client.memory.memories.store_memory(agent, "fact", "a", "old")
        self._held = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def begin(self) -> None:
        """Asks, and returns when the reply has come as far as the proxy."""

        def mangle(replies: bytes) -> list[bytes]:
            if b"old" in replies:
                self._line.proxy.held.clear()
                # Word of the write never comes: what the client knows of it must do.
                self._line.proxy.mangle = lambda more: [] if b"invalidate" in more else [more]
                self._held.set()
            return [replies]

        self.client.memory.memories.get_memory(self._agent, "fact", "b")  # the connection is there
        self._line.proxy.mangle = mangle
        self._thread.start()
        assert self._held.wait(10)

    def _read(self) -> None:
        self.client.memory.memories.get_memory(self._agent, "fact", "a")

    def end(self) -> Any:
        """Lets the reply go; gives what a read after it says."""
        self._line.do(self._line.proxy.held.set)
        self._thread.join()
        found = self.client.memory.memories.get_memory(self._agent, "fact", "a")
        self.client.close()
        assert found is not None
        return found.data


def late_read(own_urls: Urls, folder: Path, agent: UUID, other: MemoryPlugin) -> Any:
    with threaded(own_urls[0], folder) as line:
        late = Late(own_urls, line, agent)
        late.begin()
        other.memories.store_memory(agent, "fact", "a", "new")
        # As if this client had written: it knows so before its late read is answered.
        late.client.cache.drop([next(iter(late.client.cache._marks))])
        return late.end()


def test_a_reply_that_comes_after_the_write_is_not_kept(
    own_urls: Urls, other: MemoryPlugin, agent: UUID, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert late_read(own_urls, tmp_path, agent, other) == "new"
    answer = Cache.answer

    def unguarded(self: Cache, marked: Marked, replies: Any) -> None:
        self._marks.update({one.key: mark for one, mark in zip(*marked, strict=True)})
        answer(self, marked, replies)

    monkeypatch.setattr(Cache, "answer", unguarded)
    (tmp_path / "again").mkdir()
    assert late_read(own_urls, tmp_path / "again", uuid4(), other) == "old", "without the marks it would be"


def test_it_keeps_no_more_than_it_may(own_urls: Urls) -> None:
    client = Client(own_urls, is_async=False, chosen=replace(CACHED, client_cache_entries=3))
    for _ in range(10):
        agent = uuid4()
        fill(client.memory, agent)
        for read in READS.values():
            read(client.memory, agent)
            read(client.memory, agent)
            assert len(client.cache) <= 3
    client.close()


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_user_whose_reads_may_not_be_tracked_is_told(is_async: bool, redis_url: str, own_urls: Urls) -> None:
    with own_redis(like=redis_url) as url:
        with redis.Redis.from_url(url) as server:
            server.execute_command("ACL", "SETUSER", "plain", "on", ">secret", "~*", "&*", "+@all", "-client|tracking")
        plain = url.replace("unix://", "unix://plain:secret@")
        client = Client((plain, own_urls[1]), is_async=is_async)
        with pytest.raises(ConfigurationError, match=r"client_cache_entries.*\+client\|tracking.*set it to 0"):
            READS["load_state"](client.memory, uuid4())
        client.close()


def test_closing_leaves_no_connection_and_no_thread(own_urls: Urls, agent: UUID) -> None:
    threads = set(threading.enumerate())
    with redis.Redis.from_url(own_urls[0]) as server:
        before = {one["id"] for one in server.client_list()}
        for is_async in (False, True):
            client = Client(own_urls, is_async=is_async)
            fill(client.memory, agent)
            READS["load_state"](client.memory, agent)
            client.close()
        until(client, lambda: {one["id"] for one in server.client_list()} <= before)
    assert not [thread for thread in set(threading.enumerate()) - threads if thread.name == "banshee-memory-cache"]


def test_a_forked_child_keeps_nothing_and_asks_by_itself(own_urls: Urls, agent: UUID) -> None:
    client = Client(own_urls, is_async=False)
    fill(client.memory, agent)
    settled(client, agent, READS["load_state"], own_urls[0])
    child = os.fork()
    if not child:
        kept = len(client.cache)
        found = READS["load_state"](client.memory, agent)
        os._exit(0 if not kept and found is not None and len(client.cache) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert len(client.cache)
    settled(client, agent, READS["load_state"], own_urls[0])
    client.close()


# --- against one that keeps nothing ---

agents = st.integers(0, 1)
writers = st.sampled_from(("sync", "async", "other"))
numbers = st.integers(0, 5)


class Machine(RuleBasedStateMachine):
    """Two clients that keep and one that does not, in any order. Who wrote knows at once, others when they heard."""

    urls: Urls
    clients: dict[str, Client]
    plain: MemoryPlugin

    def __init__(self) -> None:
        super().__init__()
        self.agents = [uuid4(), uuid4()]

    @rule(writer=writers, write=st.sampled_from(sorted(WRITES)), agent=agents, number=numbers)
    def write(self, writer: str, write: str, agent: int, number: int) -> None:
        memory = self.plain if writer == "other" else self.clients[writer].memory
        WRITES[write](memory, self.agents[agent], number)
        for name, client in self.clients.items():
            if name != writer:
                client.hear()
        self.compare(agent)

    @rule(reader=st.sampled_from(("sync", "async")), read=st.sampled_from(sorted(READS)), agent=agents)
    def read(self, reader: str, read: str, agent: int) -> None:
        READS[read](self.clients[reader].memory, self.agents[agent])

    def compare(self, agent: int) -> None:
        for label, read in READS.items():
            expected = read(self.plain, self.agents[agent])
            for name, client in self.clients.items():
                found = read(client.memory, self.agents[agent])
                assert alike(found, expected), (name, label, found, expected)


def test_clients_that_keep_and_one_that_does_not_read_the_same(own_urls: Urls, other: MemoryPlugin) -> None:
    Machine.urls, Machine.plain = own_urls, other
    Machine.clients = {name: Client(own_urls, is_async=name == "async") for name in ("sync", "async")}
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=12,
            stateful_step_count=15,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.generate],
        ),
    )
    for client in Machine.clients.values():
        client.close()
