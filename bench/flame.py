"""Draws in which functions time was spent, as SVG: a bar each, as wide as its part, on those that called it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html import escape

WIDTH, ROW, TOP, LETTER = 1_000, 17, 24, 6.2
LEAST = 0.002
"""Of the whole: what takes less is not drawn."""
STYLE = """
text { font: 10.5px ui-monospace, monospace; fill: #1f2328 } .title { font: 12px system-ui, sans-serif }
rect { stroke: #fff; stroke-width: .6 } .waits { fill: #d1d9e0 } .works { fill: #ffb86b } .ours { fill: #7cc4ff }
@media (prefers-color-scheme: dark) { .title { fill: #f0f6fc } rect { stroke: #0d1117 } }
"""
_FRAME = re.compile(r"^(.*) \((?:.*/)?([^/]+?)(?::\d+)?\)$")
_WAITS = frozenset({"Connection.ask", "BareSocket.ask"})


@dataclass
class Frame:
    """A function at one place of the stacks: samples in it and in what it called."""

    name: str
    samples: int = 0
    calls: dict[str, Frame] = field(default_factory=dict)

    def add(self, stack: Iterable[str], samples: int) -> None:
        """Counts a stack, from the outermost function on."""
        self.samples += samples
        frame = self
        for name in stack:
            frame = frame.calls.setdefault(name, Frame(name))
            frame.samples += samples


def named(frame: str) -> str:
    """`function file`, without folders and lines."""
    found = _FRAME.match(frame)
    return f"{found[1]} {found[2]}" if found else frame


def collapsed(text: str, begin: str) -> Frame:
    """What is called by the function of this name, from lines of `outermost;...;innermost samples`."""
    root = Frame(begin)
    for line in text.splitlines():
        stack, _, samples = line.rpartition(" ")
        names = [named(frame) for frame in stack.split(";")]
        at = next((n for n, name in enumerate(names) if name.startswith(f"{begin} ")), None)
        if at is not None:
            root.add(names[at + 1 :], int(samples))
    return root


def drawn(root: Frame, title: str) -> str:
    """The picture."""
    bars = list(_bars(root, 0.0, 0, root.samples))
    height = TOP + ROW * (1 + max(depth for depth, _ in bars)) + 8
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" role="img">'
    words = f'<text class="title" x="4" y="15">{escape(title)}</text>'
    parts = [head, f"<title>{escape(title)}</title>", f"<style>{STYLE}</style>", words, *(bar for _, bar in bars)]
    return "\n".join([*parts, "</svg>", ""])


def _bars(frame: Frame, left: float, depth: int, whole: int) -> Iterator[tuple[int, str]]:
    for call in sorted(frame.calls.values(), key=lambda each: -each.samples):
        part = call.samples / whole
        if part >= LEAST:
            yield depth, _bar(call, left, depth, part)
            yield from _bars(call, left, depth + 1, whole)
        left += part


def _bar(frame: Frame, left: float, depth: int, part: float) -> str:
    x, width, y = left * WIDTH, part * WIDTH, TOP + depth * ROW
    function, _, file = frame.name.rpartition(" ")
    kind = "waits" if function in _WAITS and not frame.calls else "ours" if file.endswith(".py") else "works"
    shown = f"{function} {part:.1%}"[: max(int(width / LETTER), 0)]
    word = f'<text x="{x + 3:.1f}" y="{y + 12}">{escape(shown)}</text>' if len(shown) > 2 else ""
    told = f"<title>{escape(frame.name)}: {part:.1%}</title>"
    return f'<g>{told}<rect class="{kind}" x="{x:.1f}" y="{y}" width="{width:.1f}" height="{ROW - 1}"/>{word}</g>'
