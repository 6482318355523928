"""Draws docs/performance.svg from bench/results/hot.json: `python bench/plot.py`.

For each operation a bar of microseconds (the median) for the floor, for this package and for each of the others, on a
scale of tens. Colours follow the reader's light or dark theme; each is legible on either.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import pages
from bench.targets import ASYNC, ASYNC_FLOOR, CACHED, FLOOR, SYNC

PLOT = pages.ROOT / "docs" / "performance.svg"
WIDTH, LEFT, RIGHT = 860, 250, 60
ROW, BAR, GAP, TOP = 17, 11, 26, 30
LOWEST = 1.0
KINDS = {FLOOR: "floor", ASYNC_FLOOR: "floor", SYNC: "ours", ASYNC: "ours", CACHED: "ours"}
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #1f2328 } .axis, .under { fill: #59636e; font-size: 11px }
.operation { font-weight: 600 } line { stroke: #d1d9e0 }
.floor { fill: #8c959f } .ours { fill: #0969da } .other { fill: #bf8700 }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc } .axis, .under { fill: #9198a1 } line { stroke: #3d444d }
.floor { fill: #818b98 } .ours { fill: #4493f8 } .other { fill: #d29922 } }
"""


class Scale:
    """Microseconds to pixels, by their logarithm."""

    def __init__(self, highest: float) -> None:
        self.ticks = [10.0**n for n in range(1, math.ceil(math.log10(highest)) + 1)]
        self._unit = (WIDTH - LEFT - RIGHT) / math.log10(self.ticks[-1] / LOWEST)

    def length(self, us: float) -> float:
        """Of a bar."""
        return math.log10(max(us, LOWEST) / LOWEST) * self._unit


def drawn(rows: Sequence[dict[str, Any]], under: str) -> str:
    """The whole picture."""
    scale, y, parts = Scale(max(row["p50"] for row in rows)), TOP, []
    for operation in dict.fromkeys(row["operation"] for row in rows):
        parts.append(f'<text class="operation" x="8" y="{y + 10}">{escape(operation)}</text>')
        y += ROW + 2
        for row in sorted((r for r in rows if r["operation"] == operation), key=lambda r: float(r["p50"])):
            parts += _bar(row, scale, y)
            y += ROW
        y += GAP - ROW
    height = y + 24
    grid = [_tick(scale.length(us) + LEFT, us, height) for us in scale.ticks]
    legend = f'<text class="under" x="8" y="{height - 6}">{escape(under)}</text>'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" role="img">'
    title = "<title>Microseconds of each operation, on a logarithmic scale</title>"
    return "\n".join([head, title, f"<style>{STYLE}</style>", *grid, *parts, legend, "</svg>", ""])


def _bar(row: dict[str, Any], scale: Scale, y: int) -> Iterator[str]:
    kind, length = KINDS.get(row["case"], "other"), scale.length(row["p50"])
    yield f'<text x="{LEFT - 6}" y="{y + 10}" text-anchor="end">{escape(row["case"])}</text>'
    yield f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{length:.1f}" height="{BAR}" rx="2"/>'
    yield f'<text class="axis" x="{LEFT + length + 5:.1f}" y="{y + 10}">{row["p50"]:,.1f}</text>'


def _tick(x: float, us: float, height: int) -> str:
    line = f'<line x1="{x:.1f}" x2="{x:.1f}" y1="20" y2="{height - 24}"/>'
    return f'{line}<text class="axis" x="{x:.1f}" y="14" text-anchor="middle">{us:,.0f} µs</text>'


def main() -> None:
    """Draws."""
    found = pages.kept("hot")
    PLOT.write_text(drawn(found["cases"], found["under"].split("; ")[0] + ", medians, logarithmic scale"), "utf-8")


if __name__ == "__main__":
    main()
