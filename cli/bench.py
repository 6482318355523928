"""`banshee bench`: what hot operations take on these servers, beside a bare PING over the same URL."""

from __future__ import annotations

import gc
import signal
import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import click
import msgspec

from banshee_memory.cli.faults import FAILED
from banshee_memory.cli.target import Target, json_option, pass_target

if TYPE_CHECKING:
    from banshee_memory.plugin import MemoryPlugin

BLOCK = 20
_WARM = 4
_BACKLOG, _MEMORY = 0.5, 0.9
"""How full a log and a server may be that are measured."""


class Timing(msgspec.Struct, frozen=True):
    """Microseconds of one operation; `floors`: how many times the median of a bare PING."""

    operation: str
    p50: float
    p99: float
    floors: float


@click.command()
@click.option("--rounds", type=click.IntRange(1, 10_000), default=25, show_default=True, help="Of 20 calls each.")
@click.option("--yes", is_flag=True, help="Do not ask whether these servers may be written to.")
@json_option
@pass_target
def bench(target: Target, rounds: int, yes: bool, as_json: bool) -> None:
    """What hot operations take on these servers, beside a bare PING over the same URL.

    Calls them in turn as an agent of its own, under a new id, which is forgotten at the end, also when that is
    interrupted or fails; of it stays what stays of any agent that is forgotten, a tombstone. Others wait a little
    longer meanwhile. Refuses servers with problems, and those that are nearly full.
    """
    from banshee_memory.cli import screen
    from banshee_memory.cli.floor import Floor
    from banshee_memory.plugin import MemoryPlugin

    settings = target.settings()
    with (
        target.urls() as (redis_url, database_url),
        MemoryPlugin(database_url, redis_url, settings=settings) as memory,
        _terminated_as_interrupted(),
    ):
        _refuse_unless_well(memory)
        if not yes and not target.is_embedded():
            click.confirm("Write to these servers, as an agent that is forgotten afterwards?", abort=True, err=True)
        with _passing(memory) as agent, closing(Floor(redis_url, settings)) as floor, screen.busy("Measuring"):
            found = measured(memory, floor, agent, rounds)
    if as_json:
        screen.emit(found)
        return
    rows = ((t.operation, f"{t.p50:,.1f}", f"{t.p99:,.1f}", f"{t.floors:.2f}") for t in found)
    columns = ("operation", "p50 µs", "p99 µs", "× PING")
    screen.show(screen.listing(f"{rounds * BLOCK} calls each, one at a time", columns, rows, right=columns[1:]))


def _refuse_unless_well(memory: MemoryPlugin) -> None:
    health = memory.health_check()
    reasons = list(health.problems)
    if health.ok:
        stats = memory.stats()
        if stats.backlog.fullest > _BACKLOG:
            reasons.append(f"the log of a shard is {stats.backlog.fullest:.0%} full of what waits for PostgreSQL")
        if stats.redis_max_memory and stats.redis_used_memory > _MEMORY * stats.redis_max_memory:
            reasons.append("Redis is over nine tenths of its memory limit")
    if reasons:
        raise click.ClickException(f"Nothing was written: {'; '.join(reasons)}.")


@contextmanager
def _passing(memory: MemoryPlugin) -> Iterator[UUID]:
    """A new agent, forgotten at the end of the block, however that comes."""
    agent = uuid4()
    memory.forget(agent)  # whoever may not erase it is told before it is there
    click.echo(f"As agent {agent}.", err=True)
    try:
        yield agent
    finally:
        try:
            left = memory.forget(agent).left
        except BaseException:
            click.echo(f"banshee: it may still be there: banshee forget {agent} --yes", err=True)
            raise
        if left:
            click.echo(f"banshee: of it {left} records are still there: banshee forget {agent} --yes", err=True)
            raise click.exceptions.Exit(FAILED)


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM lets what is under way be cleared away, as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def measured(memory: MemoryPlugin, floor: Any, agent: UUID, rounds: int) -> list[Timing]:
    """Each operation in turn, so many rounds; the floor first."""
    from banshee_memory.cli.workload import MESSAGES, WORDS, calls, settle

    settle(memory, [agent])
    history = (WORDS * 2).encode() * MESSAGES
    floors: dict[str, Callable[[], Any]] = {
        "PING, bare": floor.ping,
        f"ECHO of {len(history):,} bytes, bare": lambda: floor.echo(history),
    }
    spent = _spans(floors | calls(memory, [agent], [agent]), rounds)
    ping = statistics.median(spent["PING, bare"])
    return [
        Timing(name, statistics.median(us), sorted(us)[int(len(us) * 0.99)], statistics.median(us) / ping)
        for name, us in spent.items()
    ]


def _spans(made: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Microseconds of every call, but for the first of each block: caches are somebody else's then."""
    spent: dict[str, list[float]] = {name: [] for name in made}
    collects = gc.isenabled()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, call in made.items():
                spent[name] += [_span(call) for _ in range(_WARM + BLOCK)][_WARM:]
    finally:
        if collects:
            gc.enable()
    return spent


def _span(call: Callable[[], Any]) -> float:
    began = perf_counter_ns()
    call()
    return (perf_counter_ns() - began) / 1e3


COMMANDS = (bench,)
