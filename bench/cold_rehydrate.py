"""The newest 50 messages of an agent, as a rehydration reads them, beside the best bare query: prepared, by a generic
plan, and told between which times the 50 of each agent lie, which a client cannot know.

Once by a client that read the agent before, and once by one that meets it for the first time. The bare query's rows are
made structs of, their JSON left as text: that is what the promise is measured against. What it takes to let Redis have
the messages again is not in it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

import msgspec

from banshee_memory.cold import reads
from banshee_memory.records import ConversationMessage, Placed
from banshee_memory.tiering import reach
from banshee_memory.tiering.steps import drive
from bench.cold_compared import Case, Compared, timed
from bench.cold_world import WEEK_US, World

TURNS = 60
_BEST = b"""SELECT id, role, content, metadata::text, emotional_context::text, tokens_used, session_id, created_at,
    stamp FROM conversation_messages WHERE agent_id = %s AND created_at BETWEEN %s AND %s
    ORDER BY created_at DESC, stamp DESC, id DESC LIMIT 50"""
_SPAN = b"""SELECT min(created_at), max(created_at)
    FROM (
    SELECT created_at FROM conversation_messages WHERE agent_id = %s
    ORDER BY created_at DESC, stamp DESC, id DESC LIMIT 50) AS newest"""


class Said(msgspec.Struct):
    """A row of the bare query."""

    id: UUID
    role: str
    content: str
    metadata: str | None
    emotional_context: str | None
    tokens_used: int | None
    session_id: UUID | None
    created_at: datetime
    stamp: int


def compared(world: World, rounds: int) -> Iterator[Compared]:
    """Of agents that spoke lately, and of agents that did not."""
    yield from _of(world, rounds, "agents that spoke lately", world.active())
    yield from _of(world, rounds, "agents long silent", world.idle())


def _of(world: World, rounds: int, whose: str, agents: list[UUID]) -> Iterator[Compared]:
    asked = agents[:: max(len(agents) // 500, 1)]
    took = timed(
        rounds * TURNS,
        {
            "bare": _bare(world, asked),
            "met before": _here(world, asked),
            "first met": _here(world, asked, forgets=True),
        },
    )
    for how in ("met before", "first met"):
        yield Compared(f"50 messages of {whose}, {how}, against the bare query", took["bare"], took[how], limit=1.3)


def _bare(world: World, agents: list[UUID]) -> Case:
    spans = [(agent, *world.connection.execute(_SPAN, (agent,)).fetchall()[0]) for agent in agents]
    following: Iterator[Any] = itertools.cycle(spans)

    def read(span: tuple[UUID, datetime, datetime]) -> list[Said]:
        rows = world.connection.execute(_BEST, span, prepare=True, binary=True).fetchall()
        return [Said(*row) for row in reversed(rows)]

    return lambda: partial(read, next(following))


def _here(world: World, agents: list[UUID], *, forgets: bool = False) -> Case:
    following, known = itertools.cycle(agents), reach.Reach(WEEK_US)
    no_redis: Any = None

    def read(agent: UUID) -> list[Placed[ConversationMessage]]:
        return drive(reach.newest(reads.message_page, reads.message_span, known, agent, 50), no_redis, world.store)

    for agent in agents:
        read(agent)

    def prepared() -> Callable[[], object]:
        if forgets:
            known.spans.clear()
        return partial(read, next(following))

    return prepared
