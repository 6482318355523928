"""What a process that is going to be killed had done: acknowledged for certain, and begun.

It tells both in a file, before and after each write; what is written to a file outlives the process. Every record is
numbered, so that its number says whether one is lost, doubled or out of order.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

from banshee_memory import Emotion, MemoryPlugin

STEP = 1 / 1_024
"""What each event adds to hope, and each change to joy: their sum is exact, and counts them."""


class Told(NamedTuple):
    """How many records of a kind were acknowledged, and how many begun."""

    done: int
    begun: int

    def allows(self, count: int) -> bool:
        """Whether so many may be there: all that were acknowledged, none that was not begun."""
        return self.done <= count <= self.begun


class Diary:
    """Written by the process that dies."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._numbers: Counter[str] = Counter()

    def write(self, kind: str, act: Callable[[int], object], count: int = 1) -> None:
        """Does what makes the next `count` records of a kind; `act` is given the number of the first."""
        first = self._numbers[kind]
        self._numbers[kind] += count
        self._tell("begun", kind, first + count)
        act(first)
        self._tell("done", kind, first + count)

    def _tell(self, what: str, kind: str, number: int) -> None:
        os.write(self._file, f"{what} {kind} {number}\n".encode())


def told(path: Path) -> dict[str, Told]:
    """A diary, by kind."""
    last: dict[tuple[str, str], int] = {}
    for line in path.read_text().splitlines():
        what, kind, number = line.split()
        last[what, kind] = int(number)
    return {kind: Told(last.get(("done", kind), 0), begun) for (what, kind), begun in last.items() if what == "begun"}


def everything(memory: MemoryPlugin, agent: UUID) -> dict[str, Any]:
    """All that the public methods say of an agent, but for times and counts of access."""
    state = memory.emotions.load_state(agent)
    return {
        "state": state and (state.emotions, state.decay_rates),
        "messages": memory.conversations.get_history(agent, 1_000),
        "events": memory.emotions.get_event_history(agent, 1_000),
        "totals": memory.conversations.get_conversation_stats(agent),
        "found": sorted(m.id for m in memory.conversations.search_messages(agent, "number", 1_000)),
        "memories": memory.memories.get_memories_by_type(agent, None, 1_000),
        "sessions": memory.sessions.get_sessions(agent),
    }


def assert_whole(seen: dict[str, Any], diary: dict[str, Told]) -> None:
    """Nothing acknowledged is lost, nothing is doubled, all is in order, and the totals are exact."""
    nothing = Told(0, 0)
    messages, events, totals = seen["messages"], seen["events"], seen["totals"]
    assert [m.content for m in messages] == [f"number {n}" for n in range(len(messages))]
    assert diary.get("message", nothing).allows(len(messages)), "messages"
    assert totals.total_messages == totals.total_tokens == len(messages)
    assert seen["found"] == sorted(m.id for m in messages)
    assert [e.event.data for e in events] == [{"n": n} for n in reversed(range(len(events)))]
    assert diary.get("event", nothing).allows(len(events)), "events"
    felt = seen["state"][0] if seen["state"] else {}
    assert felt.get(Emotion.HOPE, 0.0) / STEP == 32 + len(events)
    assert diary.get("change", nothing).allows(int(felt.get(Emotion.JOY, 0.0) / STEP) - 32), "changes"
    known = {m.key: m for m in seen["memories"]}
    if "memory" in diary:
        assert diary["memory"].allows(known["latest"].data["number"] + 1), "memories"
    if "access" in diary:
        assert diary["access"].allows(known["latest"].access_count), "accesses"
    if "deletion" in diary and diary["deletion"].done == diary["deletion"].begun == diary["mortal"].begun:
        assert "mortal" not in known
