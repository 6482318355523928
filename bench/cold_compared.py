"""Two ways to do the same, and what is promised of their ratio: a line of the table."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter

Case = Callable[[], Callable[[], object]]
"""Prepares, and gives what is measured."""


@dataclass(frozen=True, slots=True)
class Spent:
    """The seconds that each run of a case took."""

    seconds: list[float]

    @property
    def p50(self) -> float:
        """The median."""
        return statistics.median(self.seconds)

    @property
    def p10(self) -> float:
        """The lowest tenth's upper end."""
        return sorted(self.seconds)[len(self.seconds) // 10]


def timed(rounds: int, cases: Mapping[str, Case]) -> dict[str, Spent]:
    """What each takes. They take turns, and the turns their order."""
    spent: dict[str, list[float]] = {name: [] for name in cases}
    gc.collect()
    gc.freeze()
    for number in range(rounds):
        for name in list(cases) if number % 2 else reversed(list(cases)):
            work = cases[name]()
            began = perf_counter()
            work()
            spent[name].append(perf_counter() - began)
    return {name: Spent(seconds) for name, seconds in spent.items()}


@dataclass(frozen=True, slots=True)
class Compared:
    """A line. `rows`: how many a run writes, if rates are told; else microseconds are. `limit`: what is promised."""

    what: str
    least: Spent
    here: Spent
    limit: float | None = None
    rows: int | None = None

    @property
    def ratios(self) -> tuple[float, float]:
        """Of the medians, and at the lowest tenth: times the least's rate, or its time."""
        return self._ratio(self.least.p50, self.here.p50), self._ratio(self.least.p10, self.here.p10)

    def __str__(self) -> str:
        ratios = self.ratios
        promised = "" if self.limit is None else f"{'≥' if self.rows else '≤'} {self.limit:g}"
        told = f"{self._told(self.least)} | {self._told(self.here)}"
        return f"| {self.what} | {told} | {ratios[0]:.2f} ({ratios[1]:.2f}) | {promised} |"

    def _ratio(self, least: float, here: float) -> float:
        return least / here if self.rows else here / least

    def _told(self, spent: Spent) -> str:
        return f"{self.rows / spent.p50:,.0f} rows/s" if self.rows else f"{spent.p50 * 1e6:,.0f} µs"
