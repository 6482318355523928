"""What comes between the statements of one page takes nothing from it and doubles nothing.

A page of a history that reaches further back than was guessed is asked for in two or three statements, which see the
database at different times. Here each guess is wrong, so that every page has them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from typing import Any
from uuid import UUID, uuid4

import pytest

from banshee_memory import NewMessage
from banshee_memory.cold import partitions
from banshee_memory.records import ConversationMessage
from banshee_memory.tiering.reach import Reach
from tests.tiering.test_forgetting import forget
from tests.tiers import Tiers, intruded, nothing

WEEK = timedelta(days=7)
NOW = datetime.now(UTC).replace(microsecond=0)
# As many as there are weeks between them, then some that only Redis has.
COLD, HOT = 12, 3
READS: dict[str, Callable[[Tiers, UUID, list[UUID]], list[ConversationMessage]]] = {
    "newest": lambda tiers, agent, _: tiers.conversations.get_history(agent, COLD + HOT),
    "some of them": lambda tiers, agent, _: tiers.conversations.get_history(agent, COLD),
    "before": lambda tiers, agent, ids: tiers.conversations.get_history(agent, COLD, before=ids[-1]),
}
SEEN = {"newest": slice(None), "some of them": slice(-COLD, None), "before": slice(-COLD - 1, -1)}
GUESSES = {"far too narrow": (1, True), "asked first": (1, False), "too narrow": (4 * 7 * 86_400_000_000, True)}
"""How far back this client takes pages to reach (µs), and whether it guesses."""


def live(tiers: Tiers, agent: UUID) -> list[UUID]:
    """A message a week, all cold; then some words of now."""
    old = [NewMessage(role="user", content=f"{n}", created_at=NOW - WEEK * (COLD - n)) for n in range(COLD)]
    ids = tiers.conversations.save_messages(agent, old)
    tiers.evict(agent)
    new = [NewMessage(role="user", content=f"{n}") for n in range(COLD, COLD + HOT)]
    return ids + tiers.conversations.save_messages(agent, new)


def read(tiers: Tiers, name: str, guess: str, agent: UUID, ids: list[UUID]) -> list[ConversationMessage]:
    reach: Reach = tiers._operations.residency.messages_reach
    reach.spans.clear()
    reach.width_us, reach.is_guessed = GUESSES[guess]
    return READS[name](tiers, agent, ids)


def interleaved(
    tiers: Tiers, name: str, guess: str, action: Callable[[UUID], object]
) -> Iterator[tuple[UUID, list[UUID], list[ConversationMessage]]]:
    """The page of an agent before each step of which, in turn, something happened."""
    for at in count():
        happened: list[Any] = []
        agent = uuid4()
        ids = live(tiers, agent)

        def act(agent: UUID = agent, happened: list[Any] = happened) -> None:
            happened.append(action(agent))

        tiers.between = partial(intruded, at=at, action=act)
        try:
            page = read(tiers, name, guess, agent, ids)
        finally:
            tiers.between = nothing
        if not happened:
            assert at >= 3
            return
        yield agent, ids, page


@pytest.mark.parametrize("guess", GUESSES)
@pytest.mark.parametrize("name", READS)
def test_a_flush_between_them(tiers: Tiers, intruder: Tiers, name: str, guess: str) -> None:
    for agent, ids, page in interleaved(tiers, name, guess, intruder.flush):
        assert [said.id for said in page] == ids[SEEN[name]]
        assert [said.id for said in read(tiers, name, guess, agent, ids)] == ids[SEEN[name]]


@pytest.mark.parametrize("guess", GUESSES)
@pytest.mark.parametrize("name", READS)
def test_a_late_message_and_a_flush_between_them(tiers: Tiers, intruder: Tiers, name: str, guess: str) -> None:
    """It may be in the page or not, as it came meanwhile; the others are."""

    def come_late(agent: UUID) -> None:
        late = NewMessage(role="user", content="late", created_at=NOW - WEEK * 6.5)
        intruder.conversations.save_messages(agent, [late])
        intruder.flush(agent)

    for agent, ids, page in interleaved(tiers, name, guess, come_late):
        old = [said.id for said in page if said.content != "late"]
        assert len(page) - len(old) <= 1
        assert old == ids[SEEN[name]][-len(old) :]
        assert len(page) == len(ids[SEEN[name]]) or name == "newest"
        after = [said.content for said in read(tiers, "newest", guess, agent, ids)]
        assert after.count("late") == 1


@pytest.mark.parametrize("guess", GUESSES)
@pytest.mark.parametrize("name", READS)
def test_an_amendment_and_a_flush_between_them(tiers: Tiers, intruder: Tiers, name: str, guess: str) -> None:
    def amend(agent: UUID) -> None:
        oldest = intruder.conversations.get_history(agent, COLD + HOT)[3]
        intruder.conversations.update_emotional_context(agent, oldest.id, {"mood": "changed"})
        intruder.flush(agent)

    for agent, ids, page in interleaved(tiers, name, guess, amend):
        assert [said.id for said in page] == ids[SEEN[name]]
        after = {said.id: said for said in read(tiers, "newest", guess, agent, ids)}
        assert list(after) == ids
        assert after[ids[3]].emotional_context == {"mood": "changed"}


@pytest.mark.parametrize("guess", GUESSES)
@pytest.mark.parametrize("name", READS)
def test_a_partition_that_is_dropped_between_them(tiers: Tiers, intruder: Tiers, name: str, guess: str) -> None:
    """What is gone afterwards may be in the page or not; nothing else is missing."""
    cutoff = NOW - WEEK * 8

    def drop(_: UUID) -> None:
        with intruder.cold.connection() as connection:
            partitions._drop_before(connection, partitions.MESSAGES, cutoff)

    for agent, ids, page in interleaved(tiers, name, guess, drop):
        seen = [said.id for said in page]
        assert seen == ids[SEEN[name]][-len(seen) :]
        left = [said.id for said in read(tiers, name, guess, agent, ids)]
        assert len(seen) >= len(left) >= min(8, len(ids[SEEN[name]]))


@pytest.mark.parametrize("guess", GUESSES)
@pytest.mark.parametrize("name", ["newest", "some of them"])
def test_an_agent_that_is_forgotten_between_them(tiers: Tiers, intruder: Tiers, name: str, guess: str) -> None:
    """The page is of before, or of after: what Redis had read by then, and nothing else."""
    for agent, ids, page in interleaved(tiers, name, guess, lambda agent: forget(intruder, agent)):
        seen = [said.id for said in page]
        assert seen in ([], ids[COLD:], ids[SEEN[name]])
        assert read(tiers, name, guess, agent, ids) == []


def test_a_session_that_is_flushed_while_it_is_counted(tiers: Tiers, intruder: Tiers) -> None:
    """Its totals are of one look at PostgreSQL's stamp: what is flushed after it counts as what Redis had."""
    for at in count():
        agent, flushed = uuid4(), list[Any]()

        def flush(agent: UUID = agent, flushed: list[Any] = flushed) -> None:
            flushed.append(intruder.flush(agent))

        session = tiers.sessions.start_session(agent)
        said = [NewMessage(role="user", content="word", tokens_used=2, session_id=session.id) for _ in range(3)]
        long_ago = NewMessage(
            role="user", content="late", created_at=NOW - WEEK * 9, session_id=session.id, tokens_used=2
        )
        tiers.conversations.save_messages(agent, said)
        tiers.evict(agent)
        # Outside of the times between which all lies that PostgreSQL has by now.
        tiers.conversations.save_messages(agent, [*said[:1], long_ago])
        tiers.between = partial(intruded, at=at, action=flush)
        try:
            ended = tiers.sessions.end_session(agent, session.id)
        finally:
            tiers.between = nothing
        assert (ended.total_messages, ended.total_tokens_used) == (5, 10), at
        if not flushed:
            assert at > 5
            return
