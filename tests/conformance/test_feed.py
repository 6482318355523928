"""`emotions.subscribe`, on both clients, wherever the records are: what happens now, and what happened since."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from banshee_memory import CustomEvent, Emotion, EmotionalEventRecord, InvalidInput, MemoryPlugin
from banshee_memory.hot.calls import Call
from tests.clients import Placement, placed

EVENT = CustomEvent(event_type="x", data={"n": 1})


def happened(memory: MemoryPlugin, agent: UUID) -> EmotionalEventRecord:
    return memory.emotions.save_event(agent, EVENT, {Emotion.JOY: 0.25}, context_factors=["ü"])


def feed(memory: MemoryPlugin, agent: UUID | None = None, **after: Any) -> closing[Any]:
    return closing(cast("Any", memory.emotions.subscribe(agent, **after)))


@contextmanager
def things_happening(memory: MemoryPlugin, *agents: UUID) -> Iterator[list[EmotionalEventRecord]]:
    """Events of these agents, one after the other, until the block ends."""
    over, events = threading.Event(), list[EmotionalEventRecord]()

    def go_on() -> None:
        while not over.is_set():
            events.extend(happened(memory, agent) for agent in agents)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield events
    finally:
        over.set()
        thread.join()


def connections(memory: MemoryPlugin) -> set[bytes]:
    listed = memory._open()[0].run(Call(("CLIENT", "LIST"), bytes))
    return {line.split()[0] for line in listed.splitlines()}


@pytest.fixture
def teller(sync_client: MemoryPlugin, placement: Placement) -> MemoryPlugin:
    """Whoever saves the events, in a thread; the agents move as much as they do for the one who reads."""
    return placed(sync_client, placement)


def test_it_tells_what_happens_from_when_it_is_read(memory: MemoryPlugin, teller: MemoryPlugin, agent: UUID) -> None:
    before = happened(teller, agent)
    neighbour = UUID(int=uuid4().int >> 32 << 32 | agent.int & 0xFFFFFFFF)
    with feed(memory, agent) as events, things_happening(teller, agent, neighbour) as all_events:
        seen = [next(events) for _ in range(5)]
    own = [event for event in all_events if event.agent_id == agent]
    start = own.index(seen[0])
    assert seen == own[start : start + 5]
    assert before not in seen


def test_it_tells_of_all_agents(memory: MemoryPlugin, teller: MemoryPlugin) -> None:
    agents = {uuid4() for _ in range(3)}
    seen: list[EmotionalEventRecord] = []
    with feed(memory) as events, things_happening(teller, *agents) as all_events:
        while {event.agent_id for event in seen} != agents:
            seen.append(next(events))
    for agent in agents:
        told = [event for event in seen if event.agent_id == agent]
        own = [event for event in all_events if event.agent_id == agent]
        start = own.index(told[0])
        assert told == own[start : start + len(told)]


def test_it_goes_on_after_the_last_one_seen(memory: MemoryPlugin, agent: UUID) -> None:
    neighbour = UUID(int=uuid4().int >> 32 << 32 | agent.int & 0xFFFFFFFF)
    both = [happened(memory, one) for _ in range(6) for one in (neighbour, agent)]
    own = both[1::2]
    for seen in (0, 2):
        with feed(memory, agent, after=own[seen]) as events:
            assert [next(events) for _ in own[seen + 1 :]] == own[seen + 1 :]
    with feed(memory, after=own[-1]) as events:
        later = happened(memory, agent)
        assert next(events) == later
    with feed(memory, after=own[-2]) as events:
        assert [next(events) for _ in range(3)] == [*both[-2:], later]


def test_a_late_event_is_told_when_it_is_known(memory: MemoryPlugin, agent: UUID) -> None:
    first = happened(memory, agent)
    late = memory.emotions.save_event(agent, EVENT, {}, occurred_at=first.occurred_at - timedelta(days=3))
    with feed(memory, agent, after=first) as events:
        assert next(events) == late


def test_closing_it_leaves_no_connection(client: MemoryPlugin, sync_client: MemoryPlugin, agent: UUID) -> None:
    first, second = happened(client, agent), happened(client, agent)
    others = connections(sync_client)
    for _ in range(3):
        events = cast("Any", client.emotions.subscribe(agent, after=first))
        assert next(events) == second
        assert len(connections(sync_client) - others) == 1
        events.close()
        looks = iter(range(100_000))  # the server notices a moment later
        while connections(sync_client) - others:
            next(looks)
    unread = cast("Any", client.emotions.subscribe(agent))
    unread.close()
    assert not connections(sync_client) - others


def test_what_is_no_place_is_refused(client: MemoryPlugin) -> None:
    for agent, after in (("x", None), (None, "0-0"), (uuid4(), uuid4())):
        with pytest.raises(InvalidInput), feed(client, cast("Any", agent), after=after) as events:
            next(events)
