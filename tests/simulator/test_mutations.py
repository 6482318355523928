"""The simulation notices code that is broken on purpose: one that does not could say nothing of code that is whole."""

from __future__ import annotations

import pytest

from tests.own_servers import CLOCK
from tests.simulator.mutations import MUTATIONS
from tests.simulator.servers import servers
from tests.simulator.test_simulator import STEPS
from tests.simulator.world import SETTINGS, Broken, World, stores

MOST_SEEDS = 25


@pytest.mark.soak
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_code_that_is_broken_is_found_out(mutation: str) -> None:
    with MUTATIONS[mutation](), servers(SETTINGS) as pair, stores(pair, CLOCK) as (hot, cold):
        for seed in range(MOST_SEEDS):
            try:
                World(pair, hot, cold, seed, SETTINGS).run(STEPS)
            except Broken:
                return
    pytest.fail(f"{MOST_SEEDS} seeds did not notice: {mutation}")
