"""What the commands draw. On a terminal in its width and in colours, elsewhere plain and 80 columns wide."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from typing import Any

import click
import msgspec
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from banshee_memory.emotions import Emotion, EmotionalState
from banshee_memory.records import ConversationMessage, Json, MemoryRecord
from banshee_memory.timeline import Explanation

_PLAIN_WIDTH = 80
_BAR = 24


def console(*, errors: bool = False) -> Console:
    """The console of this moment's standard output (or error output)."""
    stream = sys.stderr if errors else sys.stdout
    width = None if stream.isatty() else _PLAIN_WIDTH
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def show(*things: Any) -> None:
    """Prints what rich can draw."""
    screen = console()
    if screen.is_terminal:
        screen.print(*things, sep="\n")
        return
    with screen.capture() as drawn:
        screen.print(*things, sep="\n")
    click.echo("\n".join(line.rstrip() for line in drawn.get().splitlines()))


def emit(value: Any) -> None:
    """Prints JSON."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def clean(text: object) -> str:
    """Text that moves no cursor: what a terminal would obey is shown as a replacement character."""
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in str(text)).encode("utf-8", "replace").decode()


def when(at: datetime | None) -> str:
    """A time, to the second."""
    return "-" if at is None else f"{at:%Y-%m-%d %H:%M:%S}"


def ago(at: datetime | None, now: datetime) -> str:
    """How long ago, in the largest unit."""
    if at is None:
        return "-"
    seconds = max((now - at).total_seconds(), 0)
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


@contextmanager
def busy(doing: str) -> Iterator[None]:
    """Says on a terminal what takes its time."""
    screen = console(errors=True)
    if not screen.is_terminal:
        yield
        return
    with screen.status(doing):
        yield


def listing(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], right: Sequence[str] = ()) -> Group:
    """A table with a title; `right` names the columns of numbers."""
    table = Table(box=_box(), header_style="dim")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(clean(cell)) for cell in row))
    return _titled(title, table if table.row_count else Text("  none", style="dim"))


def pairs(title: str, values: Mapping[str, object]) -> Group:
    """Names and values."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in values.items():
        table.add_row(Text(name, style="dim"), Text(clean(value)))
    return _titled(title, table)


def _titled(title: str, drawn: RenderableType) -> Group:
    # A title of a table's own would be no wider than the table.
    return Group(Text(title, style="bold"), drawn)


@cache
def _box() -> Any:
    from rich import box

    return box.SIMPLE_HEAD


def bar(part: float, width: int = _BAR) -> str:
    """A bar for a number in [0, 1]."""
    full, empty = ("█", "·") if (sys.stdout.encoding or "").lower().startswith("utf") else ("#", ".")
    cells = round(min(max(part, 0.0), 1.0) * width)
    return full * cells + empty * (width - cells)


def feelings(title: str, emotions: Mapping[Emotion, float]) -> Group:
    """A bar for each emotion, the strongest first; pleasant ones green, the others red."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for emotion, intensity in sorted(emotions.items(), key=lambda pair: -pair[1]):
        style = "green" if emotion.valence > 0 else "red"
        table.add_row(Text(emotion.value), Text(bar(intensity), style=style), Text(f"{intensity:.3f}"))
    if not emotions:
        table.add_row(Text("calm: nothing is felt", style="dim"))
    return _titled(title, table)


def account(why: Explanation) -> Group:
    """What each event has to do with a feeling, one a row, and what no event explains."""
    title = f"{why.emotion} was {why.intensity:.3f} at {when(why.at)} UTC"
    title += "" if why.exact else ", as far as is known"
    rows = [
        (when(part.event.occurred_at), part.event.event_type, f"{part.change:+.3f}", f"{part.remaining:+.3f}")
        for part in why.contributions
    ]
    if why.unexplained:
        rows.append(("", "left no event", "", f"{why.unexplained:+.3f}"))
    return listing(title, ("time (UTC)", "event", "changed it by", "remains"), rows, right=("changed it by", "remains"))


def mood(state: EmotionalState) -> str:
    """Valence and arousal in a line."""
    return f"valence {state.overall_valence:+.2f}, arousal {state.overall_arousal:.2f}"


def conversation(title: str, messages: Iterable[ConversationMessage]) -> Group:
    """Messages, one a row."""
    rows = ((when(m.created_at), m.role, m.content) for m in messages)
    return listing(title, ("time (UTC)", "role", "said"), rows)


def knowledge(title: str, memories: Iterable[MemoryRecord]) -> Group:
    """Memories, one a row."""
    rows = ((m.memory_type, m.key, _in_a_line(m.data), f"{m.importance:.2f}", m.access_count) for m in memories)
    return listing(title, ("type", "key", "data", "worth", "read"), rows, right=("worth", "read"))


def _in_a_line(data: Json) -> str:
    return msgspec.json.format(msgspec.json.encode(data), indent=0).decode()
