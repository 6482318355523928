"""Many clients, daemons and agents over seeded schedules of steps and faults: no promise is broken.

`BANSHEE_SIMULATOR_SEED=n` replays one seed alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.own_servers import CLOCK
from tests.simulator.servers import Servers, servers
from tests.simulator.world import SETTINGS, World, stores

FEW, PIECE, MANY = 3, 50, 500
STEPS = 150
_ONE = os.environ.get("BANSHEE_SIMULATOR_SEED")


@pytest.fixture(scope="module")
def pair() -> Iterator[Servers]:
    with servers(SETTINGS) as running:
        yield running


def simulate(pair: Servers, seeds: range) -> None:
    with stores(pair, CLOCK) as (hot, cold):
        for seed in seeds:
            World(pair, hot, cold, seed, SETTINGS).run(STEPS)


def test_a_few_seeds(pair: Servers) -> None:
    simulate(pair, range(int(_ONE), int(_ONE) + 1) if _ONE else range(FEW))


@pytest.mark.soak
@pytest.mark.parametrize("first", range(0, MANY, PIECE))
def test_many_seeds(pair: Servers, first: int) -> None:
    simulate(pair, range(first, first + PIECE))
