"""What was felt day by day: the means over all events that ever were cold, those included whose partitions are gone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from statistics import fmean
from typing import TYPE_CHECKING

import pytest

from banshee_memory import TrendPoint
from banshee_memory.emotions import arousal_of, valence_of
from banshee_memory.stamps import EPOCH, from_us
from tests.simulator.deeds import A_YEAR
from tests.simulator.life import Life
from tests.tiering.model import FLOOR, Happened

if TYPE_CHECKING:
    from tests.simulator.world import World

_DAY = timedelta(days=1)


def compare_trends(world: World, life: Life) -> None:
    """The same days, when all is flushed and taken down."""
    read = world.ask(lambda o: o.get_emotional_trends(life.id, A_YEAR, _DAY))
    days: dict[datetime, list[Happened]] = defaultdict(list)
    for happened in life.carried_events.values():
        days[EPOCH + (from_us(happened.at) - EPOCH) // _DAY * _DAY].append(happened)
    told = {point.at: point.events for point in read}
    assert told == {day: len(held) for day, held in days.items()}, "the trends are not of all events"
    for point in read:
        _check(point, days[point.at])


def _check(point: TrendPoint, held: Sequence[Happened]) -> None:
    """The same means; of what has all but faded, valence and arousal depend on which side of the floor it is."""

    def mean(measure: Callable[[Happened], float]) -> float:
        return fmean(measure(happened) for happened in held)

    assert point.intensity == pytest.approx(mean(lambda h: sum(h.after.values())), abs=2 * FLOOR)
    if all(sum(happened.after.values()) > 2 * FLOOR for happened in held):
        assert point.intensity == pytest.approx(mean(lambda h: sum(h.after.values())), abs=1e-6)
        assert point.valence == pytest.approx(mean(lambda h: valence_of(h.after)), abs=1e-6)
        assert point.arousal == pytest.approx(mean(lambda h: arousal_of(h.after)), abs=1e-6)
