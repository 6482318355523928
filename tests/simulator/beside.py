"""What other processes do: one waits until all of an agent is cold, one recovers a server while another does."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

from banshee_memory.cold import reads
from banshee_memory.tiering.drain import Drain
from banshee_memory.tiering.recovery import Recoverer
from tests.simulator.deeds import ALL
from tests.simulator.failover import is_stored
from tests.simulator.life import Life, number_of
from tests.tiering.comparing import close

if TYPE_CHECKING:
    from tests.simulator.world import World

WITHOUT_ROWS = frozenset(
    f"recover.{place}" for place in ("parked", "shed", "met", "survivors_flushed", "recorded", "named")
)
"""Where a recovery holds no rows that another one would wait for."""


def flush(world: World, life: Life) -> None:
    """COLD: whatever was acknowledged before it is in PostgreSQL when it returns."""
    world.tell(f"all of {life.label} becomes cold")
    then, epoch = deepcopy(life), life.epoch
    Drain(world.settings, world.hot, world.cold).flush(life.id)
    if life.epoch == epoch and world.is_followed:
        with world.quiet():
            _assert_cold(world, life, then)


def _assert_cold(world: World, life: Life, then: Life) -> None:
    cold = {p.record.content: p.record for p in world.cold.fetch(reads.message_page(life.id, ALL)).placed}
    lasting = [said for said in then.model.messages if life.lasts(said)]
    missing = {said.content for said in lasting} - cold.keys()
    assert not missing, f"{missing} was said before a flush that ended, and is not cold"
    for said in lasting:
        since = life.contexts[said.content][len(then.contexts[said.content]) - 1 :]
        found = cold[said.content].emotional_context
        assert any(close(found or {}, context or {}) for context in since), (
            f"{said.content} says {found} where it is cold"
        )
    events = {number_of(placed.record) for placed in world.cold.fetch(reads.event_page(life.id, ALL)).placed}
    happened = {number_of(event) for event in then.model.events if life.lasts(event)}
    assert happened <= events, "an event is not cold after a flush that ended"
    state = world.cold.fetch(reads.state_of(life.id))
    since_then = life.states[len(then.states) - 1 :]
    assert any(is_stored(felt, state) for felt in since_then), f"{state} is cold, and older than a flush that ended"


def recover(world: World) -> None:
    """Another process recovers the same server from its beginning to its end, while one is in the middle of that."""
    world.tell("another process recovers it, too")
    Recoverer(world.settings, world.hot, world.cold).meet()
