"""What a call costs the client besides its round trip, at its first run after the server had the core, and again:

    python bench/after_switch.py

Client and server share a core, as in `run.py`. The same code, run again before anybody else ran, finds the caches and
the branch predictors of the core as it left them; so this tells how much of what a cell falls short by is due to that.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from time import perf_counter_ns
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from banshee_memory import Emotion, MemoryPlugin
from banshee_memory.cli.workload import DATA, METADATA, TOKENS, WORDS, settle
from banshee_memory.embedded import start
from banshee_memory.operations import Operations
from bench import floors, pages, world
from bench.measuring import pin

ROUNDS, RUNS = 3_000, 3


def plans(operations: Operations) -> dict[str, Callable[[], object]]:
    """What each write does before it is sent."""
    agent, said = world.WRITERS[0], WORDS * 2
    return {
        "update_emotions": lambda: operations.update_emotions(agent, {Emotion.JOY: 0.01}, "add", None),
        "save_message": lambda: operations.save_message(agent, "user", said, METADATA, TOKENS, None, None, None),
        "store_memory": lambda: operations.store_memory(agent, "fact", "river", DATA, None, None, (), None),
    }


def spans(before: Callable[[], Any], plan: Callable[[], object]) -> list[float]:
    """Microseconds (medians) of one run after the other, the first right after that."""
    spent: list[list[int]] = [[] for _ in range(RUNS)]
    for _ in range(ROUNDS):
        before()
        for run in spent:
            began = perf_counter_ns()
            plan()
            run.append(perf_counter_ns() - began)
    return [statistics.median(run) / 1e3 for run in spent]


def main() -> None:
    """Prints the table."""
    pin()
    print(pages.conditions(), "", sep="\n")
    print("| before a write is sent | first run, µs | at once again | and again |\n|---|---:|---:|---:|")
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        start(Path(folder)) as servers,
        MemoryPlugin(servers.database_url, servers.redis_url) as memory,
        closing(floors.BareSocket(servers.redis_url)) as bare,
    ):
        memory.migrate()
        settle(memory, world.READERS + world.WRITERS)
        asked = floors.sync_calls(bare)
        for operation, plan in plans(memory._operations).items():
            print(f"| {operation} | {' | '.join(f'{us:.1f}' for us in spans(asked[operation], plan))} |")


if __name__ == "__main__":
    main()
