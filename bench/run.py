"""`make bench`: every hot operation beside the floor and beside what people use today; passes or falls short.

    python bench/run.py [--rounds N] [--only WORD] [--loop uvloop] [--json FILE]

The servers are private ones, in a temporary folder, on the core that this process is pinned to.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import by_hand, floors, ours, peers, world
from bench.measuring import Case, measure, pin
from bench.targets import ASYNC, ASYNC_BY_HAND, ASYNC_FLOOR, AT_ONCE, BY_HAND, FLOOR, SYNC, TARGETS, Target

TASKS = 32


def at_once(call: Callable[[], Any]) -> Callable[[], Any]:
    """So many tasks that each call it four times."""

    async def task() -> None:
        for _ in range(4):
            await call()

    async def together() -> None:
        await asyncio.gather(*[task() for _ in range(TASKS)])

    return together


class Bench:
    """Servers, clients and cases."""

    def __init__(self, stack: ExitStack, uses_uvloop: bool) -> None:
        self.core = pin()
        self.loop = self._loop(uses_uvloop)
        self.notes: list[str] = []
        self._stack = stack
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))
        self._start(Path(folder))

    def _loop(self, uses_uvloop: bool) -> asyncio.AbstractEventLoop:
        if not uses_uvloop:
            return asyncio.new_event_loop()
        import uvloop

        return uvloop.new_event_loop()

    def _start(self, folder: Path) -> None:
        import redis
        import redis.asyncio

        from banshee_memory import AsyncMemoryPlugin, MemoryPlugin
        from banshee_memory.embedded import start

        servers = self._stack.enter_context(start(folder))
        self.urls = servers.redis_url, servers.database_url
        self.memory = self._stack.enter_context(MemoryPlugin(servers.database_url, servers.redis_url))
        self.memory.migrate()
        self.async_memory = AsyncMemoryPlugin(servers.database_url, servers.redis_url)
        self._stack.callback(lambda: self.loop.run_until_complete(self.async_memory.aclose()))
        world.settle(self.memory, world.READERS + world.WRITERS)
        by_hand.settle(servers.redis_url)
        self.redis = self._stack.enter_context(redis.Redis.from_url(servers.redis_url))
        self.async_redis = redis.asyncio.Redis.from_url(servers.redis_url)
        self._stack.callback(lambda: self.loop.run_until_complete(self.async_redis.aclose()))
        self.bare = floors.BareSocket(servers.redis_url)
        self._stack.callback(self.bare.close)
        self.bare_protocol = floors.bare_protocol(servers.redis_url, self.loop)
        self._stack.callback(self.bare_protocol.transport.abort)

    def cases(self) -> Iterator[Case]:
        """All of them."""
        yield from self._each(FLOOR, floors.sync_calls(self.bare))
        yield from self._each(SYNC, ours.calls(self.memory))
        yield from self._each(BY_HAND, by_hand.sync_calls(self.redis))
        bare, mine = floors.async_calls(self.bare_protocol), ours.calls(self.async_memory)
        theirs = by_hand.async_calls(self.async_redis)
        yield from self._each(ASYNC_FLOOR, bare, is_async=True)
        yield from self._each(ASYNC, mine, is_async=True)
        yield from self._each(ASYNC_BY_HAND, theirs, is_async=True)
        for name, calls in (
            (ASYNC_FLOOR, bare),
            (ASYNC, mine),
            (ASYNC_BY_HAND, theirs),
        ):
            call = at_once(calls["load_state"])
            yield Case(AT_ONCE, name, call, many=TASKS * 4, calls=3, is_async=True)
        yield from peers.all_of(self.urls, self.loop, self._stack, self.notes.append)

    def _each(self, name: str, calls: dict[str, Callable[[], Any]], *, is_async: bool = False) -> Iterator[Case]:
        for operation, call in calls.items():
            yield Case(operation, name, call, is_async=is_async)


def by_name(cases: list[Case]) -> dict[tuple[str, str], Case]:
    """To look cases up by operation and name."""
    return {(case.operation, case.name): case for case in cases}


def table(cases: list[Case]) -> Iterator[str]:
    """All cases of each operation, as Markdown."""
    yield "| operation | case | p50 µs | p10 µs | p99 µs | × floor | × floor at p10 | noise |"
    yield "|---|---|---:|---:|---:|---:|---:|---:|"
    found = by_name(cases)
    for operation in dict.fromkeys(case.operation for case in cases):
        for case in cases:
            if case.operation == operation:
                floor = found.get((operation, ASYNC_FLOOR if case.is_async else FLOOR))
                ratios = f"{case.p50 / floor.p50:.2f} | {case.p10 / floor.p10:.2f}" if floor else " | "
                times = f"{case.p50:.1f} | {case.p10:.1f} | {case.p99:.0f}"
                yield f"| {operation} | {case.name} | {times} | {ratios} | {case.noise:.0%} |"


def verdicts(cases: list[Case]) -> Iterator[tuple[Target, tuple[float, float] | None]]:
    """Each target, and the ratios of medians and of lowest tenths (None: what it compares with is not there)."""
    found = by_name(cases)
    for target in TARGETS:
        mine, other = found.get((target.operation, target.mine)), found.get((target.operation, target.other))
        if mine is None or other is None:
            yield target, None
        else:
            median, quiet = mine.p50 / other.p50, mine.p10 / other.p10
            yield target, (median, quiet) if target.at_most else (1 / median, 1 / quiet)


def judged(cases: list[Case]) -> Iterator[str]:
    """The targets, as Markdown."""
    yield "| operation | target | median | | at p10 | |"
    yield "|---|---|---:|---|---:|---|"
    for target, ratios in verdicts(cases):
        if ratios is None:
            yield f"| {target.operation} | {target} | | not run | | |"
        else:
            words = " | ".join(f"{ratio:.2f} | {'pass' if target.met(ratio) else 'falls short'}" for ratio in ratios)
            yield f"| {target.operation} | {target} | {words} |"


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--only", default="", help="operations whose name holds this")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    parser.add_argument("--json", type=Path, help="write the numbers there as well")
    options = parser.parse_args()
    with ExitStack() as stack:
        bench = Bench(stack, options.loop == "uvloop")
        cases = [case for case in bench.cases() if options.only in case.operation]

        def between(words: str) -> None:
            print(words, end="\r", file=sys.stderr)
            world.stir(bench.memory, world.READERS)

        measure(cases, options.rounds, bench.loop, between)
        print(f"{platform.python_implementation()} {platform.python_version()}, {options.loop}, core {bench.core}, ")
        print(f"{options.rounds} rounds; unix socket; client and servers on one core\n")
        print("\n".join(table(cases)), end="\n\n")
        print("\n".join(judged(cases)), end="\n\n")
        print("\n".join(f"Not run: {note}" for note in bench.notes))
        if options.json:
            rows = [
                {
                    "operation": c.operation,
                    "case": c.name,
                    **{name: getattr(c, name) for name in ("p10", "p50", "p99", "noise")},
                }
                for c in cases
            ]
            options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
