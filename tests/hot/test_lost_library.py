"""A server that lost the library gets it again by itself, in the middle of whatever a client does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest

from banshee_memory import Emotion, EmotionalState
from banshee_memory.hot import calls, library
from banshee_memory.hot.aio import AsyncHotStore
from banshee_memory.hot.calls import Call
from banshee_memory.hot.client import HotStore
from banshee_memory.hot.keys import agent_keys
from banshee_memory.settings import Durability, Settings
from tests.own_servers import own_redis

LOSE: Call[object] = Call(("FUNCTION", "FLUSH"), lambda reply: reply)
SETTINGS = Settings()


@pytest.fixture(scope="module")
def url(redis_url: str) -> Iterator[str]:
    with own_redis(like=redis_url) as url:
        yield url


@pytest.fixture
def hot(url: str) -> Iterator[HotStore]:
    store = HotStore(url, SETTINGS)
    store.run(calls.now())
    yield store
    store.close()


def saved(agent: UUID) -> list[Call[int | calls.Miss]]:
    state = EmotionalState({Emotion.JOY: 0.5}, {Emotion.JOY: 0.0})
    return [calls.save_state(agent_keys(agent, SETTINGS.shards), state)]


def test_a_single_call_loads_it(hot: HotStore) -> None:
    agent = uuid4()
    hot.run(LOSE)
    hot.run(saved(agent)[0])
    state = hot.run(calls.load_state(agent_keys(agent, SETTINGS.shards)))
    assert isinstance(state, EmotionalState)
    assert state.emotions == {Emotion.JOY: 0.5}


def test_a_round_trip_of_many_does_each_once(hot: HotStore) -> None:
    agent = uuid4()
    keys = agent_keys(agent, SETTINGS.shards)
    hot.run(saved(agent)[0])
    add = calls.update_emotions(keys, {Emotion.JOY: 0.0625}, "add")
    *_, state = hot.run_all([add, LOSE, add, add, calls.load_state(keys)])
    assert state.emotions == {Emotion.JOY: 0.5 + 3 * 0.0625}


def test_a_batch_of_attempts_loads_it_too(hot: HotStore) -> None:
    agent = uuid4()
    hot.run(LOSE)
    assert hot.try_all([*saved(agent), calls.load_state(agent_keys(agent, SETTINGS.shards))])[1].emotions


def test_a_connection_that_greets_finds_it_missing(url: str, hot: HotStore) -> None:
    hot.run(LOSE)
    late = HotStore(url, SETTINGS)
    assert late.run(calls.version()) == library.shipped_version()
    late.close()


def test_the_async_client_does_the_same(url: str, hot: HotStore) -> None:
    async def lose_and_go_on() -> None:
        store = AsyncHotStore(url, SETTINGS)
        agent = uuid4()
        keys = agent_keys(agent, SETTINGS.shards)
        await store.run(LOSE)
        await store.run(saved(agent)[0])
        add = calls.update_emotions(keys, {Emotion.JOY: 0.0625}, "add")
        await store.run_all([LOSE, add, add])
        state = await store.run(calls.load_state(keys))
        assert isinstance(state, EmotionalState)
        assert state.emotions == {Emotion.JOY: 0.5 + 2 * 0.0625}
        await store.aclose()

    asyncio.run(lose_and_go_on())


def test_an_older_library_is_replaced_and_a_newer_one_is_left(url: str) -> None:
    version = "VERSION = {{ {} }}"
    shipped = version.format(", ".join(map(str, library.shipped_version())))
    major, minor, patch = library.shipped_version()
    for planted, expected in (((0, 9, 9), library.shipped_version()), ((major, minor + 1, patch), None)):
        text = library.source().replace(shipped, version.format(", ".join(map(str, planted))))
        admin = HotStore(url, SETTINGS)
        admin.run(Call(("FUNCTION", "LOAD", "REPLACE", text), lambda reply: reply))
        admin.close()
        client = HotStore(url, SETTINGS)
        assert client.run(calls.version()) == (expected or planted)
        client.close()
    HotStore(url, SETTINGS).load_library()


def test_replicated_without_replicas_writes_nothing(hot: HotStore) -> None:
    from banshee_memory import DurabilityUnavailable

    agent = uuid4()
    with pytest.raises(DurabilityUnavailable):
        hot.run_durably(saved(agent)[0], Durability.REPLICATED)
    assert hot.run(calls.load_state(agent_keys(agent, SETTINGS.shards))) is calls.MISS


def test_two_majors_of_the_library_serve_side_by_side(hot: HotStore) -> None:
    """So that clients are upgraded one by one: what one major writes is what the other reads."""
    next_major = library.source().replace("banshee1", "banshee2")
    hot.run(Call(("FUNCTION", "LOAD", next_major), lambda reply: reply))
    agent = uuid4()
    hot.run(saved(agent)[0])
    load = calls.load_state(agent_keys(agent, SETTINGS.shards))
    feel = calls.update_emotions(agent_keys(agent, SETTINGS.shards), {Emotion.JOY: 0.25}, "add", None)
    command, name, *rest = feel.command
    theirs = Call((command, str(name).replace("banshee1", "banshee2"), *rest), feel.decode)
    hot.run(feel)
    hot.run(theirs)
    state = hot.run(load)
    assert isinstance(state, EmotionalState)
    assert state.emotions == {Emotion.JOY: 1.0}
