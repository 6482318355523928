"""Commands that read and write the import format: import, export."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING
from uuid import UUID

import click

from banshee_memory.cli.agents import agent_argument
from banshee_memory.cli.faults import FAILED
from banshee_memory.cli.target import Target, json_option, pass_target

if TYPE_CHECKING:
    from banshee_memory.records import TakeOverReport
    from banshee_memory.tiering.transfer import Line

Advance = Callable[[str, int], None]


class LinesOf:
    """The records of a file, each time anew. Says how far it is: the first time it checks, the second it imports."""

    def __init__(self, path: Path, advance: Advance) -> None:
        self._path = path
        self._advance = advance
        self._passes = iter(("Checking", "Importing"))

    def __iter__(self) -> Iterator[Line]:
        from banshee_memory.tiering.transfer import parse

        return parse(self._bytes(next(self._passes, "Reading")))

    def _bytes(self, doing: str) -> Iterator[bytes]:
        with self._path.open("rb") as file:
            for line in file:
                self._advance(doing, len(line))
                yield line


@click.command("import")
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--from-postgres", metavar="URL", help="Take over a database of the original plugin, not a FILE.")
@click.option("--skip-expired", is_flag=True, help="Leave out what is beyond retention, instead of refusing all.")
@click.option(
    "--skip-unmappable", is_flag=True, help="With --from-postgres: leave out, and name, rows that fit nowhere."
)
@json_option
@pass_target
def import_(
    target: Target,
    file: Path | None,
    from_postgres: str | None,
    skip_expired: bool,
    skip_unmappable: bool,
    as_json: bool,
) -> None:
    """Put the records of a JSON Lines file in (- reads standard input), or of the original plugin's database.

    All of it is checked first: if a record cannot go in, none does. See docs/import-format.md. From a database it can
    be started again at any time; what is there already is compared, and is not put in twice.
    """
    from banshee_memory.cli import screen

    if (file is None) == (from_postgres is None):
        raise click.UsageError("Give either a FILE or --from-postgres URL.")
    if from_postgres is not None:
        _take_over(target, from_postgres, skip_expired, skip_unmappable, as_json)
        return
    assert file is not None
    with target.plugin() as memory, _lines(file) as lines:
        report = memory.import_(lines, skip_expired=skip_expired)
    if as_json:
        screen.emit(report)
        return
    counts = f"{report.messages:,} messages, {report.events:,} events, {report.states:,} states, "
    skipped = f"; {report.skipped:,} had expired" if report.skipped else ""
    click.echo(f"{counts}{report.memories:,} memories of {report.agents:,} agents went in{skipped}.")


def _take_over(target: Target, url: str, skip_expired: bool, skip_unmappable: bool, as_json: bool) -> None:
    from banshee_memory.cli import screen
    from banshee_memory.cold.original import KINDS, original
    from banshee_memory.tiering.takeover import TakeOver

    with target.tiers() as (settings, hot, cold), original(url, settings) as source:
        hot.load_library()
        with _progress(sum(map(source.count, KINDS))) as advance:
            take_over = TakeOver(settings, hot, cold, source, advance)
            report = take_over.run(skip_expired=skip_expired, skip_unmappable=skip_unmappable)
    if as_json:
        screen.emit(report)
    else:
        _show_taken_over(report)
    if any(table.different for table in report.tables.values()):
        sys.exit(FAILED)


def _show_taken_over(report: TakeOverReport) -> None:
    from banshee_memory.cli import screen

    columns = ("", "rows", "taken over", "left out", "checksum")
    rows = [
        (kind, f"{t.rows:,}", f"{t.taken:,}", f"{t.rows - t.taken:,}", t.checksum[:12])
        for kind, t in report.tables.items()
    ]
    screen.show(screen.listing("Taken over, and compared", columns, rows, right=columns[1:4]))
    for kind, t in report.tables.items():
        reasons = {"newer here": t.newer, "forgotten here": t.forgotten, "expired": t.expired, "skipped": t.skipped}
        left = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items() if count)
        if left:
            click.echo(f"Left out of the {kind}: {left}.")
    for line in (line for table in report.tables.values() for line in table.refused):
        click.echo(f"skipped: {screen.clean(line)}", err=True)
    for kind, table in report.tables.items():
        for line in table.different:
            click.echo(f"not as the original has it: {kind}: {screen.clean(line)}", err=True)
    if report.superseded_states:
        click.echo(f"{report.superseded_states:,} states were left out: their agents have newer ones.", err=True)


@contextmanager
def _lines(file: Path) -> Iterator[Iterable[Line]]:
    from banshee_memory.tiering.transfer import parse

    if str(file) == "-":
        yield parse(sys.stdin.buffer)
    elif not file.is_file():  # a pipe cannot be read twice
        with file.open("rb") as pipe:
            yield parse(pipe)
    else:
        with _progress(file.stat().st_size) as advance:
            yield LinesOf(file, advance)


@contextmanager
def _progress(size: int) -> Iterator[Advance]:
    """A bar for each pass over the file, on a terminal."""
    from rich.progress import Progress, TaskID

    from banshee_memory.cli import screen

    screen_ = screen.console(errors=True)
    tasks: dict[str, TaskID] = {}
    with Progress(console=screen_, disable=not screen_.is_terminal, transient=True) as progress:

        def advance(doing: str, count: int) -> None:
            if doing not in tasks:
                tasks[doing] = progress.add_task(doing, total=size)
            progress.advance(tasks[doing], count)

        yield advance


@click.command()
@agent_argument
@click.option("-o", "--output", type=click.File("wb"), default="-", help="Where to (default: standard output).")
@pass_target
def export(target: Target, agent: UUID, output: IO[bytes]) -> None:
    """Write all that is known of an agent as JSON Lines, which `banshee import` takes.

    It is flushed first.
    """
    from banshee_memory.tiering.transfer import dump

    with target.plugin() as memory:
        for line in memory.export(agent):
            output.write(dump(line) + b"\n")


COMMANDS = (import_, export)
