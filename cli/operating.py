"""Commands about the stores as a whole: flush, stats, doctor, migrate, daemon."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

import click

from banshee_memory.cli.agents import Agent
from banshee_memory.cli.faults import FAILED
from banshee_memory.cli.target import Target, json_option, pass_target

if TYPE_CHECKING:
    from rich.console import Group

    from banshee_memory.cold.migrate import Standing
    from banshee_memory.records import Backlog, FlushReport, Pace, Stats
    from banshee_memory.settings import Settings


@click.command()
@click.option("--agent", type=Agent(), help="Only what this agent's shard holds.")
@json_option
@pass_target
def flush(target: Target, agent: UUID | None, as_json: bool) -> None:
    """Carry everything that is only in Redis to PostgreSQL."""
    from banshee_memory.cli import screen

    with target.plugin() as memory, screen.busy("Flushing"):
        report = memory.flush(agent)
    if as_json:
        screen.emit(report)
        return
    screen.show(screen.pairs("Flushed", flushed(report)))


def flushed(report: FlushReport) -> dict[str, object]:
    """What a flush did, in words."""
    words: dict[str, object] = {
        "messages": f"{report.messages:,}",
        "events": f"{report.events:,}",
        "states": f"{report.states:,}",
        "memories": f"{report.memories:,}",
    }
    rare = {
        "there already": report.duplicates,
        "lost against newer ones": report.conflicts,
        "beyond retention": report.expired,
        "of forgotten agents": report.forgotten,
        "dead letters": report.poisoned,
    }
    words.update({name: f"{count:,}" for name, count in rare.items() if count})
    return words | {"in": f"{report.seconds * 1e3:,.1f} ms"}


@click.command()
@json_option
@pass_target
def stats(target: Target, as_json: bool) -> None:
    """Both tiers at a glance."""
    from banshee_memory.cli import screen

    with target.plugin() as memory:
        found = memory.stats()
    if as_json:
        screen.emit(found)
        return
    rows = ((name, f"{count:,}", found.partitions.get(name, 0)) for name, count in found.rows.items())
    tables = screen.listing("Tables", ("table", "rows (est.)", "partitions"), rows, right=("rows (est.)", "partitions"))
    screen.show(screen.pairs("Redis", _hot(found)), "", screen.pairs("PostgreSQL", _cold(found)), "", tables)


def _hot(found: Stats) -> dict[str, object]:
    age = found.backlog.oldest_age
    limit = f"of {_mib(found.redis_max_memory)}" if found.redis_max_memory else "(no limit is set)"
    return {
        "agents hot": f"about {found.agents_hot:,} (from {found.agents_hot_sample:,} sampled keys)",
        "backlog": f"{found.backlog.records:,} records, about {_mib(found.backlog.bytes)}",
        "oldest unflushed": "-" if age is None else f"{age:,.1f} s",
        **_limited(found.backlog),
        "dead letters": f"{found.dead_letters:,}",
        "memory": f"{_mib(found.redis_used_memory)} {limit}",
    }


def _limited(backlog: Backlog) -> dict[str, object]:
    """The limit, and when it will be reached."""
    words: dict[str, object] = {"backlog limit": "none"}
    if backlog.limit is not None:
        words["backlog limit"] = f"{backlog.limit:,} records, the fullest shard has used {backlog.fullest:.1%}"
    if backlog.pace is None:
        return words | {"pace": "unknown (no daemon has reported within three minutes)"}
    words["pace"] = f"{backlog.pace.records_in:,.1f} in, {backlog.pace.records_out:,.1f} out a second"
    if backlog.limit is not None:
        words["time left"] = "as much as you like" if backlog.pace.full_at is None else _left(backlog.pace)
    return words


def _left(pace: Pace) -> str:
    seconds = max((pace.full_at - datetime.now(UTC)).total_seconds(), 0.0) if pace.full_at else 0.0
    return f"{seconds:,.0f} s at this pace"


def _cold(found: Stats) -> dict[str, object]:
    rows: dict[str, object] = {"agents": f"{found.agents:,}", "database": _mib(found.database_bytes)}
    if found.recoveries:
        last = found.recoveries[0]
        rows["last recovery"] = f"{last.found_at:%Y-%m-%d %H:%M:%S} UTC: {last.said}"
    return rows


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"


@click.command()
@click.option("--load", is_flag=True, help="Load the Lua library first, whatever is there.")
@json_option
@pass_target
def doctor(target: Target, load: bool, as_json: bool) -> None:
    """Look both servers over; exits 1 if something is to be mended."""
    from banshee_memory.cli import screen
    from banshee_memory.tiering.doctor import examine

    with target.tiers() as (settings, hot, cold):
        if load:
            hot.load_library()
        checks = examine(settings, hot, cold)
    if as_json:
        screen.emit(checks)
    else:
        rows = ((check.level, check.name, check.said) for check in checks)
        screen.show(screen.listing("Doctor", ("", "what", "found"), rows))
    if any(check.level == "problem" for check in checks):
        raise click.exceptions.Exit(FAILED)


@click.command()
@click.option("--status", is_flag=True, help="Only say what was applied, and what is to be.")
@click.option("--index-words", is_flag=True, help="Also index the words of past weeks, where the daemon may not.")
@json_option
@pass_target
def migrate(target: Target, status: bool, index_words: bool, as_json: bool) -> None:
    """Bring the database up to the schema of this version.

    With --status, nothing is changed, and the exit code is 1 if the database is older or newer than this version.
    """
    from banshee_memory.cli import screen
    from banshee_memory.cold import migrate as migrations

    with target.urls() as (_, database_url):
        applied = [] if status else migrations.migrate(database_url, target.settings())
        every = migrations.status(database_url, target.settings())
        built = _words_indexed(database_url, target.settings()) if index_words and not status else None
    if as_json:
        screen.emit([{**m._asdict(), "now": m.name in applied} for m in every])
    else:
        screen.show(_migrations(every, applied, built))
    if any(m.state != "applied" for m in every):
        raise click.exceptions.Exit(FAILED)


def _migrations(every: Sequence[Standing], applied: Sequence[str], built: int | None) -> Group:
    from rich.console import Group

    from banshee_memory.cli import screen
    from banshee_memory.cold.schema import shipped

    at = [m.name for m in every if m.applied_at is not None]
    said = {"this version needs": shipped()[-1].name, "the database has": at[-1] if at else "nothing"}
    if built is not None:
        said["words indexed"] = f"{built:,} weeks"
    rows = ((m.name, m.state, "" if m.applied_at is None else screen.when(m.applied_at)) for m in every)
    listed = screen.listing(f"Migrations (applied now: {len(applied)})", ("migration", "state", "applied (UTC)"), rows)
    return Group(listed, screen.pairs("Schema", said))


def _words_indexed(database_url: str, settings: Settings) -> int:
    from banshee_memory.cli import screen
    from banshee_memory.cold.client import ColdStore

    store = ColdStore(database_url, settings)
    try:
        with screen.busy("Indexing words"):
            steps = store.index_words(datetime.now(UTC), threading.Event())
            return sum(step.startswith("CREATE INDEX") for step in steps)
    finally:
        store.close()


@click.command()
@click.option(
    "--listen",
    default="127.0.0.1:9707",
    show_default=True,
    envvar="BANSHEE_LISTEN",
    metavar="HOST:PORT",
    help="Answer /healthz, /readyz and /metrics there (else BANSHEE_LISTEN); port 0: any; `none`: nowhere.",
)
@pass_target
def daemon(target: Target, listen: str) -> None:
    """Carry records to PostgreSQL all the time, and keep its partitions in order.

    Runs until SIGTERM or SIGINT, then carries the rest, and exits 1 if something is left. Any number of daemons may
    run beside each other, on one machine each with a --listen of its own. Logs go to standard error: as JSON where
    that is no terminal.
    """
    from banshee_memory.operations import Operations
    from banshee_memory.tiering.daemon import Daemon, logger
    from banshee_memory.tiering.endpoints import answering
    from banshee_memory.tiering.steps import drive
    from banshee_memory.tiering.watch import Watch

    log, watch = logger(), Watch(target.settings())
    with answering(listen, watch, log), target.tiers() as (settings, hot, cold):
        operations = Operations(settings)

        def rehydrate_wanted() -> int:
            return drive(operations.rehydrate_wanted().steps, hot, cold)

        whole = Daemon(settings, hot, cold, log, rehydrate_wanted=rehydrate_wanted, watch=watch).run()
    if not whole:
        raise click.exceptions.Exit(FAILED)


COMMANDS = (flush, stats, migrate, doctor, daemon)
