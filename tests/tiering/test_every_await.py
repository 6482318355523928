"""Interrupted at every place where it can be: a task at each of its awaits, a thread before and after each of its calls
to a socket. The next call has its own answer, and no connection stays behind."""

from __future__ import annotations

import asyncio
import gc
import select
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
import redis

from banshee_memory import AsyncMemoryPlugin, CustomEvent, Durability, EmotionalEventRecord, EmotionalState
from banshee_memory.hot import calls, wire
from banshee_memory.hot.aio import AsyncHotStore
from banshee_memory.hot.aio_tracking import AsyncCachedReads
from banshee_memory.hot.cache import Cache
from banshee_memory.hot.calls import Call
from banshee_memory.hot.client import HotStore
from banshee_memory.hot.feed import Subscription
from banshee_memory.hot.keys import agent_keys
from banshee_memory.hot.tracking import CachedReads
from tests.own_servers import own_redis
from tests.tiering.conftest import SETTINGS

KEYS = agent_keys(uuid4(), SETTINGS.shards)
BODY = wire.message_body(bytes(8), "user", "Hello", None, None, None, None)
MOST = 500
"""More awaits, or calls to sockets, than anything here has."""


def echo(word: str) -> Call[bytes]:
    return Call(("ECHO", word), bytes)


@pytest.fixture(scope="module")
def url(redis_url: str) -> Iterator[str]:
    """A server with an append-only file."""
    with own_redis(like=redis_url) as made:
        with redis.Redis.from_url(made) as server:
            server.config_set("appendonly", "yes")
        yield made


@pytest.fixture(scope="module")
def first(url: str) -> EmotionalEventRecord:
    """The first of two events in the feed."""
    store = HotStore(url, SETTINGS)
    store.run(calls.save_state(KEYS, EmotionalState()))
    body = wire.pack(wire.EventBody(bytes(8), CustomEvent(event_type="x", data=None)))
    events = [store.run(calls.save_event(KEYS, body, {}, "record", None)) for _ in range(2)]
    store.close()
    assert isinstance(events[0], wire.SettledEvent)
    return events[0].placed.record


@contextmanager
def nothing_left(url: str) -> Iterator[None]:
    """Afterwards the server has the clients that it had before."""
    with redis.Redis.from_url(url) as server:
        before = {one["id"] for one in server.client_list()}
        yield
        deadline = time.monotonic() + 10
        while left := {one["id"]: one["cmd"] for one in server.client_list() if one["id"] not in before}:
            assert time.monotonic() < deadline, f"connections were left: {left}"
            gc.collect()  # an exception holds what its frames hold


def check_can(url: str, name: str) -> None:
    with redis.Redis.from_url(url) as server:
        server.response_callbacks.pop("COMMAND", None)  # the driver's reading knows one of its forms only
        if "synced" in name and not server.execute_command("COMMAND", "LIST", "FILTERBY", "PATTERN", "waitaof"):
            pytest.skip("this server has no WAITAOF")


def without_library(url: str) -> None:
    with redis.Redis.from_url(url) as server:
        server.function_flush()


# --- tasks ---


class Cut:
    """Awaits something, and cancels its task at one of the awaits: as it begins to wait, or as the answer comes."""

    def __init__(self, awaited: Awaitable[Any], at: int, *, late: bool) -> None:
        self._awaited = awaited
        self._at = at
        self._late = late
        self.awaits = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._awaited.__await__()
        go_on = partial(next, steps)
        while True:
            try:
                waits = go_on()
            except StopIteration as stop:
                return stop.value
            self._cut(waits)
            try:
                go_on = partial(steps.send, (yield waits))
            except BaseException as exc:  # noqa: BLE001
                go_on = partial(steps.throw, exc)

    def _cut(self, waits: Any) -> None:
        self.awaits += 1
        task = asyncio.current_task()
        if self.awaits != self._at or task is None:
            return
        if self._late and waits is not None:
            waits.add_done_callback(lambda _: task.cancel())
        else:
            task.cancel()


async def cut(awaited: Coroutine[Any, Any, Any], at: int, *, late: bool) -> bool:
    """Whether it has so many awaits: then it was cancelled there."""
    cutting = Cut(_passing(awaited), at, late=late)
    task = asyncio.ensure_future(_awaiting(cutting))
    with suppress(asyncio.CancelledError):
        await task
    return cutting.awaits >= at


async def _awaiting(cutting: Cut) -> Any:
    return await cutting


async def _passing(awaited: Coroutine[Any, Any, Any]) -> Any:
    return await awaited


async def _subscribed(store: AsyncHotStore, first: EmotionalEventRecord) -> None:
    events: Any = store.subscribe(Subscription(SETTINGS, first.agent_id, first))
    try:
        assert (await anext(events)).id != first.id
    finally:
        await events.aclose()


async def _several(store: AsyncHotStore, _: EmotionalEventRecord) -> None:
    assert await store.run_all([echo("a"), echo("b")]) == [b"a", b"b"]


async def _closed(store: AsyncHotStore, _: EmotionalEventRecord) -> None:
    await store.run(echo("open"))
    await store.aclose()


async def _synced(store: AsyncHotStore, _: EmotionalEventRecord) -> None:
    await store.run_durably(calls.append_messages(KEYS, [(None, False, BODY)]), Durability.SYNCED)


async def _cached(store: AsyncHotStore, _: EmotionalEventRecord) -> None:
    store.cache = Cache(10, 10_000)
    reads = AsyncCachedReads(store, store.cache, 5.0)
    try:
        for _turn in range(2):
            await reads.run(calls.load_state(KEYS))
            await reads.run_all(calls.history_end(KEYS.messages, 5))
    finally:
        await reads.aclose()


TASKS: dict[str, Callable[[AsyncHotStore, EmotionalEventRecord], Coroutine[Any, Any, Any]]] = {
    "the first call": lambda store, _: store.run(echo("first")),
    "several calls": _several,
    "loading the library": lambda store, _: store.load_library(),
    "a write that is synced": _synced,
    "subscribing": _subscribed,
    "reads that are kept": _cached,
    "closing": _closed,
}


@pytest.mark.parametrize("late", [False, True], ids=["as it waits", "as the answer comes"])
@pytest.mark.parametrize("name", TASKS)
def test_a_task_that_is_cancelled_at_any_await(name: str, late: bool, url: str, first: EmotionalEventRecord) -> None:
    check_can(url, name)

    async def once(at: int) -> bool:
        without_library(url)
        store = AsyncHotStore(url, SETTINGS)
        is_there = await cut(TASKS[name](store, first), at, late=late)
        words = [f"{name}{at}{number}" for number in range(3)]
        for _ in range(2):
            found = await asyncio.gather(*(store.run(echo(word)) for word in words))
            assert found == [word.encode() for word in words]
        assert await store.run(calls.version()) is not None
        await store.aclose()
        return is_there

    _until_done(url, once)


def _until_done(url: str, once: Callable[[int], Coroutine[Any, Any, bool]]) -> None:
    at = 0
    is_there = True
    while is_there:
        at += 1
        assert at < MOST
        with nothing_left(url), asyncio.Runner() as runner:
            is_there = runner.run(once(at))
            runner.run(asyncio.sleep(0))
    assert at > 3, "it never waited"


def test_a_task_that_is_cancelled_while_the_server_is_recovered(own_urls: tuple[str, str]) -> None:
    async def once(at: int) -> bool:
        with redis.Redis.from_url(own_urls[0]) as server:
            server.hset("banshee:store", "server", f"another.{at}")
        memory = AsyncMemoryPlugin(own_urls[1], own_urls[0], settings=SETTINGS)
        agent = uuid4()
        is_there = await cut(memory.conversations.save_message(agent, "user", "hello"), at, late=False)
        mine = await memory.conversations.save_message(agent, "user", "hello again")
        assert (await memory.conversations.get_history(agent, 1))[0].id == mine
        await memory.aclose()
        return is_there

    _until_done(own_urls[0], once)


# --- threads ---

CALLS = {"connect", "send", "sendall", "recv", "recv_into", "poll", "setsockopt", "settimeout", "shutdown"}


class Struck(BaseException):
    """What Ctrl-C raises, under another name."""


def struck(work: Callable[[], Any], at: int) -> bool:
    """Does it, interrupted before (odd numbers) or after (even ones) one of its calls to a socket; whether there are so
    many."""
    seen = 0

    def watch(_: Any, event: str, called: Any) -> None:
        nonlocal seen
        if event not in ("c_call", "c_return") or getattr(called, "__name__", "") not in CALLS:
            return
        if isinstance(getattr(called, "__self__", None), (socket.socket, type(select.poll()))):
            seen += 1
            if seen == at:
                raise Struck

    sys.setprofile(watch)
    try:
        work()
    except Struck:
        pass
    finally:
        sys.setprofile(None)
    return seen >= at


def _synced_by_thread(store: HotStore, _: EmotionalEventRecord) -> None:
    store.run_durably(calls.append_messages(KEYS, [(None, False, BODY)]), Durability.SYNCED)


def _subscribed_by_thread(store: HotStore, first: EmotionalEventRecord) -> None:
    with closing(store.subscribe(Subscription(SETTINGS, first.agent_id, first))) as events:  # type: ignore[type-var]
        assert next(events).id != first.id


def _several_by_thread(store: HotStore, _: EmotionalEventRecord) -> None:
    assert store.run_all([echo("a"), echo("b")]) == [b"a", b"b"]
    assert store.try_all([echo("c")]) == [b"c"]


def _closed_by_thread(store: HotStore, _: EmotionalEventRecord) -> None:
    store.run(echo("open"))
    store.close()


def _cached_by_thread(store: HotStore, _: EmotionalEventRecord) -> None:
    store.cache = Cache(10, 10_000)
    with closing(CachedReads(store, store.cache, 0.2)) as reads:
        for _turn in range(2):
            reads.run(calls.load_state(KEYS))
            reads.run_all(calls.history_end(KEYS.messages, 5))


BY_THREAD: dict[str, Callable[[HotStore, EmotionalEventRecord], Any]] = {
    "the first call": lambda store, _: store.run(echo("first")),
    "several calls": _several_by_thread,
    "loading the library": lambda store, _: store.load_library(),
    "a write that is synced": _synced_by_thread,
    "subscribing": _subscribed_by_thread,
    "reads that are kept": _cached_by_thread,
    "closing": _closed_by_thread,
}


# redis-py leaves the socket that it was interrupted over to the garbage collector, which closes it and says so.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", BY_THREAD)
def test_a_thread_that_is_interrupted_at_any_call_to_a_socket(name: str, url: str, first: EmotionalEventRecord) -> None:
    check_can(url, name)
    at, is_there = 0, True
    while is_there:
        at += 1
        assert at < MOST
        with nothing_left(url):
            without_library(url)
            store = HotStore(url, SETTINGS)
            is_there = struck(lambda store=store: BY_THREAD[name](store, first), at)  # type: ignore[misc]
            for number in range(3):
                word = f"{name}{at}{number}"
                assert store.run(echo(word)) == word.encode()
            assert store.run(calls.version()) is not None
            store.close()
            del store
    assert at > 3, "it asked nothing"
