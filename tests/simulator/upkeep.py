"""What a daemon does once an hour: partitions are made ahead and dropped, what is over is swept, hours become days."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from banshee_memory.tiering.daemon import Daemon

if TYPE_CHECKING:
    from tests.simulator.world import World


class _Told:
    """A log whose lines become the simulation's."""

    def __init__(self, world: World) -> None:
        self._world = world

    def info(self, what: str, **said: Any) -> None:
        told = ", ".join(f"{name} {value}" for name, value in said.items() if value)
        self._world.tell(f"{what}: {told}")


def maintain(world: World) -> None:
    """Once. In the middle of a flush it may meet a partition that is in use."""
    world.tell("upkeep")
    world.troubles += not world.is_at_top
    daemon = Daemon(world.settings, world.hot, world.cold, _Told(world), rehydrate_wanted=lambda: 0)
    daemon.maintain()
    world.is_upkeep_due = False
