"""Measures cases side by side: each in turn for a while, many rounds, so that what else the machine does hits all.

A ratio is between cases of one run, never between runs. Client and servers are pinned to one core: left to the
scheduler, a lone call takes 13 µs or 55 µs by where it puts them.
"""

from __future__ import annotations

import asyncio
import gc
import os
import statistics
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import Any

WARM = 200


def pin(core: int | None = None) -> int:
    """This process, and those that it starts, on one core."""
    chosen = max(os.sched_getaffinity(0)) if core is None else core
    os.sched_setaffinity(0, {chosen})
    return chosen


@dataclass
class Case:
    """One thing that is measured. `many`: how many operations a call is."""

    operation: str
    name: str
    call: Callable[[], Any]
    many: int = 1
    calls: int = 60
    is_async: bool = False
    rounds: list[list[float]] = field(default_factory=list)

    @property
    def p50(self) -> float:
        """Microseconds of an operation: the median of all calls."""
        return statistics.median(us for each in self.rounds for us in each)

    @property
    def p10(self) -> float:
        """Microseconds, when nothing else is at work: on a shared machine the median is mostly that of others' work."""
        every = sorted(us for each in self.rounds for us in each)
        return every[len(every) // 10]

    @property
    def p99(self) -> float:
        """Microseconds, of the slowest hundredth."""
        every = sorted(us for each in self.rounds for us in each)
        return every[int(len(every) * 0.99)]

    @property
    def noise(self) -> float:
        """How far the rounds' medians lie apart (interquartile range), as a part of the median."""
        medians = [statistics.median(each) for each in self.rounds]
        low, _, high = statistics.quantiles(medians, n=4)
        return (high - low) / self.p50


def measure(
    cases: Sequence[Case], rounds: int, loop: asyncio.AbstractEventLoop, between: Callable[[str], None]
) -> None:
    """Runs all cases in turn, that many times; `between` is told which round begins."""
    for case in cases:
        _round(case, loop, min(WARM, case.calls * 4))
    gc.collect()
    gc.freeze()
    for number in range(rounds):
        between(f"round {number + 1} of {rounds}")
        for case in cases if number % 2 else reversed(cases):
            case.rounds.append(_round(case, loop, case.calls))


def _round(case: Case, loop: asyncio.AbstractEventLoop, calls: int) -> list[float]:
    if case.is_async:
        return loop.run_until_complete(_awaited(case.call, calls, case.many))
    call, spans = case.call, []
    for _ in range(calls):
        began = perf_counter_ns()
        call()
        spans.append((perf_counter_ns() - began) / 1e3 / case.many)
    return spans


async def _awaited(call: Callable[[], Awaitable[Any]], calls: int, many: int) -> list[float]:
    spans = []
    for _ in range(calls):
        began = perf_counter_ns()
        await call()
        spans.append((perf_counter_ns() - began) / 1e3 / many)
    return spans
