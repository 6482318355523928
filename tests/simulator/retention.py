"""What retention makes of the agents: what is within it must be there, what is beyond it may be until the upkeep drops
the partition that it lies in.

What was cold when its partition was dropped is counted for ever, so before one goes it is taken down what is cold.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from banshee_memory.cold import partitions, reads
from banshee_memory.cold.partitions import EVENTS, MESSAGES
from banshee_memory.stamps import from_us, to_us
from tests.simulator.life import Life, number_of

if TYPE_CHECKING:
    from tests.simulator.world import World

MESSAGE_DAYS, EVENT_DAYS, HOURLY_DAYS = 7, 2, 8
"""Little more than a partition of each, so that some go while a seed lasts; and soon, hours of events become days."""
_DAY = 86_400_000_000
_KEPT = {MESSAGES: MESSAGE_DAYS * _DAY, EVENTS: EVENT_DAYS * _DAY}
_LEEWAY = partitions.LEEWAY // timedelta(microseconds=1)
_ALL = 1_000
_AROUND = (-_LEEWAY - 500_000, -2_000_000, -500_000, 1_000_000, 3 * 3_600_000_000)
_NEVER_DROPPED = "UPDATE banshee_store SET rolled_up_to = 'epoch'"


def begin(world: World, until_us: int) -> None:
    """A store that has dropped nothing yet and has no partitions before that time but those made ahead, whatever the
    seeds before this one left."""
    with world.cold.connection() as connection:
        over = from_us(until_us) + timedelta(days=MESSAGE_DAYS) + partitions.LEEWAY
        partitions.drop_expired(connection, over, world.settings)
        connection.execute(_NEVER_DROPPED)
    world.cold.prepare_partitions(from_us(world.now))


def outlive(world: World) -> bool:
    """The clock has moved on; whether something is beyond retention now that was within it."""
    since = world.latest - _KEPT[MESSAGES], world.latest - _KEPT[EVENTS]
    before = sum(map(_lasting, world.everyone))
    for life in world.everyone:
        life.outlive(*since)
    return sum(map(_lasting, world.everyone)) < before


def _lasting(life: Life) -> int:
    return sum(map(life.lasts, life.model.messages)) + sum(map(life.lasts, life.model.events))


def end_of_days(world: World, until_us: int) -> int | None:
    """About when a partition is over that something lies in; None: none is between now and then."""
    overs = {_over_at(MESSAGES, said.at) for life in world.lives for said in life.model.messages}
    overs |= {_over_at(EVENTS, happened.at) for life in world.lives for happened in life.model.events}
    ends = sorted(over for over in overs if world.latest < over < until_us)
    return max(world.random.choice(ends) + world.random.choice(_AROUND), world.now) if ends else None


def _over_at(table: str, at_us: int) -> int:
    """From when on the upkeep drops the partition that holds that time."""
    return to_us(partitions.span(table, from_us(at_us))[1]) + _KEPT[table] + _LEEWAY


def take_down(world: World, *, all_of_it: bool = False) -> None:
    """What is cold: all of it, or at least what may go with the next partition."""
    with world.quiet():
        for life in world.everyone:
            if all_of_it or life is world.thorns.life or _may_go(life):
                _take_down(world, life)


def _may_go(life: Life) -> bool:
    """Whether something is beyond retention of which it is not known that it was cold."""
    return any(not life.lasts(said) and said.content not in life.carried for said in life.model.messages) or any(
        not life.lasts(happened) and number_of(happened) not in life.carried_events for happened in life.model.events
    )


def _take_down(world: World, life: Life) -> None:
    life.carried |= {placed.record.content for placed in world.cold.fetch(reads.message_page(life.id, _ALL)).placed}
    known = {number_of(happened): happened for happened in life.model.events}
    for placed in world.cold.fetch(reads.event_page(life.id, _ALL)).placed:
        number = number_of(placed.record)
        life.carried_events[number] = known[number]


def settle(world: World) -> None:
    """The upkeep was carried through: what it had to drop is not in PostgreSQL, and what else is beyond retention is
    there if it is cold, and not if it is not."""
    for life in world.everyone:
        messages = world.cold.fetch(reads.message_page(life.id, _ALL)).placed
        events = world.cold.fetch(reads.event_page(life.id, _ALL)).placed
        for table, placed in ((MESSAGES, messages), (EVENTS, events)):
            over = [p.record for p in placed if _over_at(table, p.at_us) <= world.now]
            assert not over, f"{life.label}: {over} is in a partition that the upkeep should have dropped"
        texts, numbers = {p.record.content for p in messages}, {number_of(p.record) for p in events}
        life.model.messages = life.history(texts)
        life.model.events = life.event_history(numbers)
