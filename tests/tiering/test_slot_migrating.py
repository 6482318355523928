"""A slot that migrates: what cannot be done whole is not done, and is tried again; what can be loses nothing.

Two nodes of a cluster. While a slot migrates, its old node refuses a call one of whose keys is not there; and it would
refuse, half way, a function that drops a key and makes it again.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import pytest
import redis

from banshee_memory import (
    AsyncMemoryPlugin,
    CustomEvent,
    Emotion,
    EmotionalState,
    HotStoreUnavailable,
    MemoryPlugin,
    NewMessage,
    Settings,
)
from banshee_memory.hot.keys import agent_keys
from banshee_memory.tiering import steps
from tests.clients import awaited
from tests.own_servers import own_database
from tests.servers import program_of

SETTINGS = Settings(shards=1)
LOG = "banshee:{0}:log"
SLOT = 13_907
STEADY = EmotionalState({Emotion.LOVE: 0.5}, {Emotion.LOVE: 0.0})


class Nodes(NamedTuple):
    """Two of them; all slots are the first's."""

    first: redis.Redis
    second: redis.Redis
    url: str

    def begin(self) -> None:
        """The slot of all our keys begins to migrate."""
        ours, theirs = (ask(node, "CLUSTER", "MYID") for node in (self.first, self.second))
        ask(self.second, "CLUSTER", "SETSLOT", SLOT, "IMPORTING", ours)
        ask(self.first, "CLUSTER", "SETSLOT", SLOT, "MIGRATING", theirs)

    def end(self) -> None:
        """It stays where it is."""
        for node in (self.first, self.second):
            ask(node, "CLUSTER", "SETSLOT", SLOT, "STABLE")


def ask(node: redis.Redis, *words: str | int) -> Any:
    """What a node replies."""
    return node.execute_command(*words)  # type: ignore[no-untyped-call]


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@contextmanager
def node(program: Path) -> Iterator[int]:
    """The port of a node that has no slots."""
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="node-") as folder:
        words = f"--port {port} --bind 127.0.0.1 --dir {folder} --cluster-enabled yes --logfile log --save".split()
        process = subprocess.Popen([program, *words, ""], stdin=subprocess.DEVNULL)
        try:
            with redis.Redis(port=port) as client:
                until(lambda: _answers(client))
            yield port
        finally:
            process.kill()
            process.wait()


def _free_port() -> int:
    """One whose cluster bus, 10,000 above it, is a port too."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port < 55_000:
            return port


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


@pytest.fixture(scope="module")
def nodes(redis_url: str) -> Iterator[Nodes]:
    program = program_of(redis_url)
    with ExitStack() as stack:
        ports = [stack.enter_context(node(program)) for _ in range(2)]
        first, second = (stack.enter_context(redis.Redis(port=port)) for port in ports)
        ask(first, "CLUSTER", "ADDSLOTSRANGE", 0, 16_383)
        ask(first, "CLUSTER", "MEET", "127.0.0.1", ports[1])
        for each in (first, second):
            until(partial(_is_whole, each))
        assert ask(first, "CLUSTER", "KEYSLOT", LOG) == SLOT
        yield Nodes(first, second, f"redis://127.0.0.1:{ports[0]}")


def _is_whole(node: redis.Redis) -> bool:
    info = ask(node, "CLUSTER", "INFO")
    return b"cluster_state:ok" in info and b"cluster_known_nodes:2" in info


@pytest.fixture(scope="module")
def database(database_url: str) -> Iterator[str]:
    with own_database(database_url, SETTINGS) as url:
        yield url


@pytest.fixture(params=["sync", "async"])
def memory(request: pytest.FixtureRequest, nodes: Nodes, database: str) -> Iterator[MemoryPlugin]:
    """Each client, on the first node."""
    # The store's own hash is in another slot, which stays.
    if request.param == "sync":
        with MemoryPlugin(database, nodes.url, settings=SETTINGS) as plugin:
            yield plugin
        return
    with asyncio.Runner() as runner:
        aplugin = AsyncMemoryPlugin(database, nodes.url, settings=SETTINGS)
        yield awaited(aplugin, runner)
        runner.run(aplugin.aclose())


@pytest.fixture
def agent(memory: MemoryPlugin) -> UUID:
    """An agent all of whose keys are there, and of whom nothing is in PostgreSQL."""
    agent = uuid4()
    memory.emotions.save_state(agent, EmotionalState({Emotion.LOVE: 0.5, Emotion.JOY: 0.5}, {Emotion.LOVE: 0.0}))
    memory.conversations.save_messages(agent, [NewMessage(role="user", content=f"{n}") for n in range(3)])
    memory.emotions.save_event(agent, CustomEvent(event_type="x"), {})
    memory.memories.store_memory(agent, "fact", "x", 1)
    memory.memories.retrieve_memory(agent, "fact", "x")
    return agent


@contextmanager
def migrating(nodes: Nodes) -> Iterator[None]:
    nodes.begin()
    try:
        yield
    finally:
        nodes.end()


def test_what_is_all_there_is_read_and_written(memory: MemoryPlugin, nodes: Nodes, agent: UUID) -> None:
    with migrating(nodes):
        memory.emotions.save_state(agent, STEADY)
        memory.emotions.update_emotions(agent, {Emotion.LOVE: 0.25})
        memory.emotions.set_temperament(agent, absence="active")
        memory.conversations.save_message(agent, "user", "3")
        memory.emotions.save_event(agent, CustomEvent(event_type="y"), {})
        memory.memories.store_memory(agent, "fact", "x", 2)
        assert memory.conversations.get_history(agent, 50)[-1].content == "3"  # offers PostgreSQL's, which has none
        assert memory.memories.retrieve_memory(agent, "fact", "x") == 2
        state = memory.emotions.load_state(agent)
    assert state is not None
    assert state.emotions == {Emotion.LOVE: 0.75}
    memory.evict(agent)
    after = memory.emotions.load_state(agent)
    assert after is not None
    assert after.emotions == {Emotion.LOVE: 0.75}
    assert [m.content for m in memory.conversations.get_history(agent)] == ["0", "1", "2", "3"]
    assert len(memory.emotions.get_event_history(agent)) == 2
    assert memory.memories.retrieve_memory(agent, "fact", "x") == 2


def test_what_is_not_all_there_is_not_done(
    memory: MemoryPlugin, nodes: Nodes, agent: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "_MIGRATION", (0.001,))
    stranger, waits = uuid4(), nodes.first.xlen(LOG)
    writes: list[Callable[[], object]] = [
        lambda: memory.emotions.save_state(stranger, STEADY),
        lambda: memory.conversations.save_message(stranger, "user", "x"),
        lambda: memory.conversations.save_messages(stranger, [NewMessage(role="user", content="x")] * 2),
        lambda: memory.memories.store_memory(agent, "fact", "new", 1),
    ]
    with migrating(nodes):
        for write in writes:
            with pytest.raises(HotStoreUnavailable, match="node"):
                write()
            assert nodes.first.xlen(LOG) == waits
    assert not nodes.first.exists(agent_keys(stranger, 1).messages)
    for write in writes:
        write()
    assert len(memory.conversations.get_history(stranger)) == 3


def test_it_is_tried_again_for_a_while(memory: MemoryPlugin, nodes: Nodes) -> None:
    stranger = uuid4()
    nodes.begin()
    ending = threading.Timer(0.05, nodes.end)
    ending.start()
    memory.conversations.save_message(stranger, "user", "in the end")
    ending.join()
    assert [m.content for m in memory.conversations.get_history(stranger)] == ["in the end"]


def test_a_slot_of_another_node_is_told(memory: MemoryPlugin, nodes: Nodes, agent: UUID) -> None:
    """A single connection finds no other node."""
    keys = agent_keys(agent, 1)
    port = nodes.second.connection_pool.connection_kwargs["port"]
    with migrating(nodes):
        ask(nodes.first, "MIGRATE", "127.0.0.1", port, keys.state, 0, 5000)
        with pytest.raises(HotStoreUnavailable, match="cluster"):
            memory.emotions.load_state(agent)
    nodes.second.flushall()
