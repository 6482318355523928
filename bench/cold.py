"""The cold tier against the least that PostgreSQL can do the same with: `make bench-cold`, or

    python bench/cold.py [--rows N ...] [--partitions N ...] [--rounds N] [--only WORD]

For every number of rows with every number of partitions: a private PostgreSQL in a temporary folder (about a gigabyte
a million rows) is filled once, and every case measured in it. Client and server share one core; cases take turns.
Prints the table that docs/cold-store.md holds: medians, and the ratio of medians (in brackets that at the lowest
tenth, which other work on the machine disturbs least).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import cold_flush, cold_rehydrate, cold_search
from bench.cold_compared import Compared
from bench.cold_world import SETTINGS, World, fill
from bench.measuring import pin

CASES = (cold_flush.compared, cold_rehydrate.compared, cold_search.compared)
"""Each is given the world and the rounds, measures, and says what it compared."""


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--partitions", type=int, nargs="+", default=[30, 100])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--only", default="", help="cases whose module's name holds this")
    asked = parser.parse_args()
    pin()
    print("| messages | partitions | what | the least | here | ratio | promised |", flush=True)
    print("|---:|---:|---|---:|---:|---:|---:|", flush=True)
    for rows in asked.rows:
        for weeks in asked.partitions:
            for line in measured(rows, weeks, asked.rounds, asked.only):
                print(f"| {rows / 1e6:g} M | {weeks} {line}", flush=True)


def measured(rows: int, weeks: int, rounds: int, only: str) -> Iterator[Compared]:
    """All cases among so many rows in so many partitions."""
    from banshee_memory.cold.client import ColdStore
    from banshee_memory.cold.migrate import migrate
    from banshee_memory.cold.session import BoundedConnection, connection_arguments
    from banshee_memory.embedded import start

    with tempfile.TemporaryDirectory(prefix="bench-") as folder, start(Path(folder)) as servers:
        migrate(servers.database_url, SETTINGS)
        with BoundedConnection.connect(**connection_arguments(servers.database_url, SETTINGS)) as connection:
            connection.execute("SET statement_timeout = 0")
            store = ColdStore(servers.database_url, SETTINGS)
            world = World(rows, weeks, connection, store)
            fill(world)
            for compared in CASES:
                if only in compared.__module__:
                    yield from compared(world, rounds)
            store.close()


if __name__ == "__main__":
    main()
