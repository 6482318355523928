"""Sessions that clients begin and end beside all else: their totals count exactly what was said while they were on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any
from uuid import UUID

from banshee_memory import AgentSession
from banshee_memory.operations import Operation, Operations
from banshee_memory.stamps import to_us
from tests.simulator.life import Life
from tests.tiering.model import Stretch

if TYPE_CHECKING:
    from tests.simulator.world import World

Steps = Callable[[], Any]
Made = tuple[str, Steps, dict[str, Callable[[Any], None]], Callable[[Any], None]]
"""A deed: its name, its operation, what functions that were carried out make of the model, what its end must say."""
ALL = 1_000


class Sessions:
    """What clients do with sessions, at random."""

    def __init__(self, operations: Operations, random: Random, clock: Callable[[], int]) -> None:
        self._operations = operations
        self._random = random
        self._clock = clock

    def start(self, life: Life) -> Made:
        """One more begins."""

        def carried_out(stored: Any) -> None:
            session = UUID(stored.record.key)
            if _of(life, session) is None:
                life.model.begin(session, None, self._clock())
                life.wrote()

        operation = lambda: self._operations.start_session(life.id, None, None, None)  # noqa: E731
        return "start session", operation, {"store_memory": carried_out}, lambda session: None

    def end(self, life: Life) -> Made:
        """One of them ends, or ended before."""
        if not life.model.sessions:
            return self.start(life)
        session = self._random.choice(life.model.sessions).id

        def carried_out(stored: Any) -> None:
            stretch = _of(life, session)
            if stored is not None and stretch is not None and stretch.end is None:
                life.model.finish(stretch, self._clock())
                life.wrote()

        def ended(read: AgentSession) -> None:
            stretch = _of(life, session)
            if stretch is not None:
                assert stretch.end is not None, "a session has ended that nobody ended"
                check(read, stretch)

        operation = lambda: self._operations.end_session(life.id, session, None, None)  # noqa: E731
        return "end session", operation, {"store_memory": carried_out}, ended


def _of(life: Life, session: UUID) -> Stretch | None:
    return next((stretch for stretch in life.model.sessions if stretch.id == session), None)


def check(read: AgentSession, stretch: Stretch) -> None:
    """The same session; what it felt at its ends was asked for a step before those."""
    assert (read.id, to_us(read.session_start)) == (stretch.id, stretch.start)
    assert (read.session_end and to_us(read.session_end)) == stretch.end, f"session {read.id} ended at another time"
    totals = read.total_messages, read.total_events, read.total_tokens_used
    assert totals == stretch.totals, f"session {read.id} had {totals} messages, events and tokens, not {stretch.totals}"


def compare_sessions(world: World, life: Life) -> None:
    """The same sessions, of those that the model still knows. One that somebody died in ending has its totals now."""
    models = {stretch.id: stretch for stretch in life.model.sessions}
    for stretch in models.values():
        if stretch.end is not None:
            world.ask(partial(_end_again, life, stretch))
    read = {
        session.id: session for session in world.ask(lambda o: o.get_sessions(life.id, ALL)) if session.id in models
    }
    assert read.keys() == models.keys(), f"{len(read)} sessions, not {len(models)}"
    for session, stretch in models.items():
        check(read[session], stretch)


def _end_again(life: Life, stretch: Stretch, operations: Operations) -> Operation[AgentSession]:
    return operations.end_session(life.id, stretch.id, None, None)


def follow_sessions(world: World, life: Life, surviving: Sequence[UUID]) -> None:
    """After a failover those must be there that had to survive. Of what was said before it, nobody knows any more what
    belongs to which; the model lets go of them, and is certain of those to come."""
    read = {session.id for session in world.ask(lambda o: o.get_sessions(life.id, ALL))}
    lost = set(surviving) - read
    assert not lost, f"{life.label} lost the sessions {lost}, which had to survive"
    life.model.sessions.clear()
