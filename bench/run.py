"""`make bench`: every hot operation beside the floor and beside what people use today, the bytes of an agent, and both
ways between the tiers; what is promised of each, and whether that is so.

    python bench/run.py [--rounds N] [--only WORD] [--loop uvloop] [--cold-rows N] [--write]

Whatever of `bench/requirements.txt` is installed is measured, too (`make bench-peers`). `--write` puts the tables into
docs/performance.md and the numbers into bench/results/, and draws the plot of them.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from banshee_memory.cli.workload import feel
from bench import cold, footprint, pages, plot, world
from bench.hot import Bench
from bench.measuring import Case, measure, pin
from bench.targets import ASYNC_FLOOR, FLOOR, Cell, cells, judged

PARTITIONS = 30


def table(cases: Sequence[Case]) -> Iterator[str]:
    """All cases of each operation, as Markdown."""
    yield "| operation | | p50 µs | p10 µs | p99 µs | × floor | at p10 | ± |"
    yield "|---|---|---:|---:|---:|---:|---:|---:|"
    found = {(case.operation, case.name): case for case in cases}
    for case in cases:
        floor = found.get((case.operation, ASYNC_FLOOR if case.is_async else FLOOR))
        times = f"{case.p50:.1f} | {case.p10:.1f} | {case.p99:.0f}"
        ratio = case.times(floor) if floor is not None and floor is not case else None
        ratios = f"{ratio.median:.2f} | {ratio.quiet:.2f} | {ratio.noise:.0%}" if ratio else " | | "
        yield f"| {case.operation} | {case.name} | {times} | {ratios} |"


def hot(options: argparse.Namespace) -> tuple[list[Case], list[Cell], list[str], str]:
    """The hot cases, the bytes of an agent, what could not be run, and the servers' versions."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))
        loop = _loop(options.loop)
        stack.callback(loop.close)
        bench = Bench(stack, loop, Path(folder))
        cases = [case for case in bench.cases() if options.only in case.operation]

        def between(words: str) -> None:
            print(words, end="\r", file=sys.stderr)
            bench.memory.flush()  # as a daemon does all the time
            feel(bench.memory, world.READERS)

        bench.redis.config_set("auto-aof-rewrite-percentage", 0)  # a child that rewrites the file would share the core
        measure(cases, options.rounds, loop, between)
        return cases, list(footprint.cells(bench.memory, bench.redis)), bench.notes, bench.versions()


def _loop(kind: str) -> asyncio.AbstractEventLoop:
    if kind == "asyncio":
        return asyncio.new_event_loop()
    import uvloop

    return uvloop.new_event_loop()


def between_the_tiers(rows: int) -> Iterator[Cell]:
    """Flush and rehydrate, among so many messages."""
    for compared in cold.measured(rows, PARTITIONS, 25, "") if rows else ():
        if compared.limit is not None:
            what, _, against = compared.what.partition(", against ")
            promise = f"at {'least' if compared.rows else 'most'} {compared.limit:g} × {against}"
            yield Cell(what, promise, compared.limit, not compared.rows, *compared.ratios)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--only", default="", help="operations whose name holds this")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    parser.add_argument("--cold-rows", type=int, default=1_000_000, help="among so many messages; 0: leave that out")
    parser.add_argument("--write", action="store_true", help="into docs/performance.md and bench/results/")
    options = parser.parse_args()
    core, machine = pin(), pages.conditions()
    cases, sizes, notes, servers = hot(options)
    every = [*cells(cases), *between_the_tiers(options.cold_rows), *sizes]
    every = [cell for cell in every if options.only in cell.operation]
    rounds = f"{options.rounds} rounds of 60 calls (20 of peers)"
    under = "; ".join((machine, f"all on core {core}", servers, options.loop, "Unix socket", rounds)) + "."
    lines = list(table(cases)), list(judged(every))
    print(under, *(line for part in lines for line in ("", *part)), "", sep="\n")
    print("\n".join(f"Not run: {note}" for note in notes))
    if options.write:
        pages.put(pages.PERFORMANCE, "promises", lines[1])
        pages.put(pages.PERFORMANCE, "operations", [under, "", *lines[0]])
        pages.keep("hot", {"under": under, "cases": [_row(case) for case in cases]})
        plot.main()


def _row(case: Case) -> dict[str, Any]:
    numbers = {name: getattr(case, name) for name in ("p10", "p50", "p99", "noise")}
    return {"operation": case.operation, "case": case.name, **numbers}


if __name__ == "__main__":
    main()
