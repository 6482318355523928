"""Where the instructions of one operation go, by function, beside those of its floor: what a cell that falls short is
looked into with. On a quiet machine or not, the numbers are the same.

    python bench/hotspots.py [--write]: every operation in a line
    python bench/hotspots.py OPERATION [--top N] [--flame FILE]

Needs valgrind. Functions are those of C: Python's own loop is `_PyEval_EvalFrameDefault`. `--flame` draws instead, by
py-spy (run it with .venv-peers/bin/python), in which functions of Python ten seconds of such calls were spent.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from time import monotonic

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import flame, instructions, pages
from bench.instructions import CALLS
from bench.measuring import pin

SECONDS = 10
FLOOR, HERE = "floor", "here"
PLACES = ("ceval.c", "the interpreter", "msgspec", "hiredis", "libc")
_LINE = re.compile(r"^\s*([\d,]+)\s+\([^)]*\)\s+(\S*?):([^\s\[']+)\S*(?:\s+\[(.*)\])?$")
Function = tuple[str, str]
"""A function, and where it is."""


def by_function(dump: Path) -> Counter[Function]:
    """Instructions of a call in each function itself, without those that it calls."""
    words = ["callgrind_annotate", "--threshold=100", "--show-percs=yes", str(dump)]
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    found: Counter[Function] = Counter()
    for count, source, function, library in (row.groups() for row in map(_LINE.match, told.splitlines()) if row):
        found[function, _where(source, library or "")] += int(count.replace(",", "")) // CALLS
    return found


def _where(source: str, library: str) -> str:
    """`ceval.c` is the loop that runs Python's own instructions, and what is inlined into it."""
    if "/Python-" in source or "libpython" in library:
        return "ceval.c" if source.endswith("/ceval.c") else "the interpreter"
    name = Path(library).name.split(".")[0] or "libc"
    return "msgspec" if name == "_core" else name


def table(floor: Mapping[Function, int], ours: Mapping[Function, int], top: int) -> Iterator[str]:
    """What most of the difference is, as Markdown; then by where it is, and in all."""
    yield "| function | in | floor | here | more |"
    yield "|---|---|---:|---:|---:|"
    more = {name: ours.get(name, 0) - floor.get(name, 0) for name in {*ours, *floor}}
    for name in sorted(more, key=lambda each: -abs(more[each]))[:top]:
        yield _row(f"`{name[0]}` | {name[1]}", ours.get(name, 0), floor.get(name, 0))
    for where in sorted({name[1] for name in more}):
        sums = [sum(count for name, count in side.items() if name[1] == where) for side in (ours, floor)]
        yield _row(f"all | {where}", *sums)
    yield _row("all | everywhere", sum(ours.values()), sum(floor.values()))


def summary(found: Mapping[str, Counter[Function]]) -> Iterator[str]:
    """Every operation in a line: instructions of its floor, of it, and where those that are more are, as Markdown."""
    yield f"| operation | floor | here | {' | '.join(PLACES)} | elsewhere |"
    yield f"|---|---:|---:|{'---:|' * (len(PLACES) + 1)}"
    for operation in [name.partition(" ")[2] for name in found if name.startswith(FLOOR)]:
        floor, here = found[f"{FLOOR} {operation}"], found[f"{HERE} {operation}"]
        more = Counter[str]()
        for side, sign in ((here, 1), (floor, -1)):
            for (_, where), count in side.items():
                more[where if where in PLACES else "elsewhere"] += sign * count
        parts = " | ".join(f"{more[where]:+,}" for where in (*PLACES, "elsewhere"))
        yield f"| {operation} | {floor.total():,} | {here.total():,} | {parts} |"


def _row(name: str, ours: int, floor: int) -> str:
    return f"| {name} | {floor:,} | {ours:,} | {ours - floor:+,} |"


Sides = dict[str, Callable[[], object]]


def _sides(operation: str | None, redis_url: str, database_url: str, use: Callable[[Sides], None]) -> None:
    """Gives both ways to do it, or to do each, to whoever uses them."""
    from banshee_memory import MemoryPlugin
    from banshee_memory.cli.workload import calls, settle
    from bench import floors, world

    with MemoryPlugin(database_url, redis_url) as memory, closing(floors.BareSocket(redis_url)) as bare:
        readers, writers = world.READERS[:2], world.WRITERS[:2]
        settle(memory, world.READERS + world.WRITERS)
        memory.flush()
        settle(memory, readers + writers)
        sides = {FLOOR: floors.sync_calls(bare), HERE: calls(memory, readers, writers)}
        names = [operation] if operation else list(sides[FLOOR])
        use({f"{side} {name}": sides[side][name] for name in names for side in sides})


def _burn(made: Sides) -> None:
    pin()  # beside the server, unlike whoever watches
    end, call = monotonic() + SECONDS, next(call for name, call in made.items() if name.startswith(HERE))
    while monotonic() < end:
        call()


def _spent(stacks: Path, this: list[str]) -> flame.Frame:
    """In which functions such calls spend their time."""
    py_spy = Path(sys.executable).with_name("py-spy")
    watching = [
        py_spy,
        "record",
        "--rate",
        "700",
        "--nonblocking",
        "--format",
        "raw",
        "--output",
        str(stacks),
        "--",
        sys.executable,
    ]
    subprocess.run([*watching, *this, "--as", "burnt"], check=True, capture_output=True)
    return flame.collapsed(stacks.read_text(), _burn.__name__)


def _title(operation: str) -> str:
    return (
        f"{operation}: grey is sending, the server's work and waiting for it; the rest is what the client does besides"
    )


def main() -> None:
    """Counts, or draws."""
    from bench import floors

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("operation", nargs="?", choices=list(floors.operations()))
    parser.add_argument("--top", type=int, default=25)
    parser.add_argument("--flame", type=Path)
    parser.add_argument("--write", action="store_true", help="of every operation, into docs/performance.md")
    parser.add_argument("--as", dest="role", choices=("counted", "burnt"), help=argparse.SUPPRESS)
    parser.add_argument("--urls", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.role:
        _sides(asked.operation, *asked.urls, instructions.mark_each if asked.role == "counted" else _burn)
        return
    from banshee_memory import MemoryPlugin
    from banshee_memory.embedded import start

    everywhere = os.sched_getaffinity(0)
    pin()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, start(Path(folder)) as servers:
        os.sched_setaffinity(0, everywhere)
        MemoryPlugin(servers.database_url, servers.redis_url).migrate()
        this = [
            __file__,
            *([asked.operation] if asked.operation else ()),
            "--urls",
            servers.redis_url,
            servers.database_url,
        ]
        if asked.flame:
            asked.flame.write_text(flame.drawn(_spent(Path(folder) / "stacks", this), _title(asked.operation)))
            return
        dumps = instructions.under_callgrind(Path(folder), *this, "--as", "counted")
        found = {name: by_function(dump) for name, dump in dumps.items()}
    lines = list(table(*found.values(), asked.top) if asked.operation else summary(found))
    print("\n".join(lines))
    if asked.write:
        pages.put(pages.PERFORMANCE, "instructions", lines)


if __name__ == "__main__":
    main()
