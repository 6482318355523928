"""Commands about one agent: show, why, trends, search, rehydrate, evict, forget."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import click

from banshee_memory.cli.faults import FAILED
from banshee_memory.cli.target import Target, json_option, pass_target
from banshee_memory.errors import InvalidInput

_MESSAGES = 10
_MEMORIES = 10


if TYPE_CHECKING:
    from banshee_memory.records import ErasureReport

    _Parameter = click.ParamType[UUID]
    _Moment = click.ParamType[datetime]
else:  # older versions of click cannot be asked for a type of parameter
    _Parameter = _Moment = click.ParamType


class Agent(_Parameter):
    """A UUID, or a name."""

    name = "agent"

    def convert(self, value: str | UUID, param: click.Parameter | None, ctx: click.Context | None) -> UUID:
        """The agent's id."""
        from banshee_memory.tiering.transfer import agent_of

        if isinstance(value, UUID):
            return value
        try:
            return agent_of(value)
        except InvalidInput as exc:
            self.fail(exc.reason, param, ctx)


agent_argument = click.argument("agent", type=Agent(), metavar="AGENT")


class Moment(_Moment):
    """A time in ISO 8601; without an offset it is UTC."""

    name = "time"

    def convert(self, value: str | datetime, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """The time, in UTC."""
        if isinstance(value, datetime):
            return value
        try:
            at = datetime.fromisoformat(value)
            return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
        except (OverflowError, ValueError):
            self.fail(f"{value!r} is no time, such as 2026-11-22T09:30:00Z", param, ctx)


@click.command()
@agent_argument
@click.option("--messages", default=_MESSAGES, show_default=True, help="How many of the newest messages.")
@click.option("--memories", default=_MEMORIES, show_default=True, help="How many of the worthiest memories.")
@click.option("--at", type=Moment(), metavar="TIME", help="Only what it felt then (ISO 8601, UTC).")
@json_option
@pass_target
def show(target: Target, agent: UUID, messages: int, memories: int, at: datetime | None, as_json: bool) -> None:
    """What an agent feels now, its latest messages and its worthiest memories; or what it felt at a time."""
    from banshee_memory.cli import screen

    if at is not None:
        _show_past(target, agent, at, as_json)
        return
    with target.plugin() as memory:
        state = memory.emotions.load_state(agent)
        history = memory.conversations.get_history(agent, messages)
        known = memory.memories.get_memories_by_type(agent, None, memories)
        totals = memory.conversations.get_conversation_stats(agent)
    if as_json:
        screen.emit({"agent": agent, "state": state, "messages": history, "memories": known, "totals": totals})
        return
    if state is None and not totals.total_messages and not known:
        click.echo(f"Nothing is known of {agent}.")
        return
    felt = f"feels ({screen.mood(state)})" if state else "feels"
    screen.show(screen.feelings(f"{agent} {felt}", state.emotions if state else {}))
    tokens = f"{totals.total_tokens:,} tokens"
    screen.show(screen.conversation(f"{totals.total_messages:,} messages, {tokens}; the latest", history))
    screen.show(screen.knowledge("Memories, the worthiest first", known))


def _show_past(target: Target, agent: UUID, at: datetime, as_json: bool) -> None:
    from banshee_memory.cli import screen

    with target.plugin() as memory:
        state = memory.emotions.state_at(agent, at)
    if as_json:
        screen.emit({"agent": agent, "at": at, "state": state})
        return
    if state is None:
        click.echo(f"Nothing is known of what {agent} felt at {screen.when(at)} UTC.")
        return
    sure = "" if state.exact else ", as far as is known: something changed it that left no event"
    screen.show(screen.feelings(f"{agent} felt at {screen.when(at)} UTC ({screen.mood(state)}){sure}", state.emotions))


@click.command()
@agent_argument
@click.argument("emotion", required=False)
@click.option("--at", type=Moment(), metavar="TIME", help="What it was then (ISO 8601, UTC), not now.")
@json_option
@pass_target
def why(target: Target, agent: UUID, emotion: str | None, at: datetime | None, as_json: bool) -> None:
    """Which events made an agent feel what it feels, or felt: EMOTION, else what is strongest."""
    from banshee_memory.cli import screen
    from banshee_memory.emotions import Emotion

    with target.plugin() as memory:
        if emotion is None:
            state = memory.emotions.load_state(agent) if at is None else memory.emotions.state_at(agent, at)
            if state is None or state.dominant is None:
                raise click.UsageError("Nothing is felt; name an EMOTION to ask for it all the same.")
            emotion = state.dominant[0].value
        account = memory.emotions.why(agent, Emotion.parse(emotion), at)
    if as_json:
        screen.emit(account)
        return
    screen.show(screen.account(account))


@click.command()
@agent_argument
@click.option("--hours", default=24.0, show_default=True, help="How far back.")
@click.option("--bucket", type=float, metavar="MINUTES", help="Means over so many minutes, not each event.")
@json_option
@pass_target
def trends(target: Target, agent: UUID, hours: float, bucket: float | None, as_json: bool) -> None:
    """How an agent felt after each event of the last hours, oldest first."""
    from banshee_memory.cli import screen

    with target.plugin() as memory:
        points = memory.emotions.get_emotional_trends(agent, hours, bucket=_minutes(bucket))
    if as_json:
        screen.emit(points)
        return
    rows = (
        (screen.when(p.at), f"{p.valence:+.2f}", f"{p.arousal:.2f}", f"{p.intensity:.2f}", screen.bar(p.intensity, 12))
        for p in points
    )
    columns = ("time (UTC)", "valence", "arousal", "intensity", "")
    screen.show(screen.listing(f"{agent}, the last {hours:g} hours", columns, rows, right=columns[1:4]))


def _minutes(bucket: float | None) -> timedelta | None:
    try:
        return None if bucket is None else timedelta(minutes=bucket)
    except (OverflowError, ValueError):
        raise click.BadParameter(f"{bucket!r} is no number of minutes", param_hint="--bucket") from None


@click.command()
@agent_argument
@click.argument("query")
@click.option("--limit", default=20, show_default=True, help="At most so many messages.")
@json_option
@pass_target
def search(target: Target, agent: UUID, query: str, limit: int, as_json: bool) -> None:
    """An agent's messages that match, best first: words, "a phrase", or, -without."""
    from banshee_memory.cli import screen

    with target.plugin() as memory:
        found = memory.conversations.search_messages(agent, query, limit)
    if as_json:
        screen.emit(found)
        return
    screen.show(screen.conversation(f"Messages that match, best first: {len(found)}", found))


@click.command()
@agent_argument
@json_option
@pass_target
def rehydrate(target: Target, agent: UUID, as_json: bool) -> None:
    """Bring an agent into Redis: its state, the end of its histories, its worthiest memories."""
    from banshee_memory.cli import screen

    with target.plugin() as memory, screen.busy("Rehydrating"):
        report = memory.rehydrate(agent)
    if as_json:
        screen.emit(report)
        return
    state = "its state, " if report.state else ""
    counts = f"{report.messages} messages, {report.events} events and {report.memories} memories"
    click.echo(f"{agent}: {state}{counts} came back.")


@click.command()
@click.argument("agent", type=Agent(), metavar="[AGENT]", required=False)
@click.option("--idle", type=float, metavar="SECONDS", help="Whatever no agent used for so long; 0: all that is clean.")
@json_option
@pass_target
def evict(target: Target, agent: UUID | None, idle: float | None, as_json: bool) -> None:
    """Flush an agent and drop it from Redis, or all that is idle; what is not flushed stays."""
    from banshee_memory.cli import screen

    if (agent is None) == (idle is None):
        raise click.UsageError("Say whom: AGENT, or --idle SECONDS.")
    with target.plugin() as memory, screen.busy("Evicting"):
        report = memory.evict_idle(idle or 0.0) if agent is None else memory.evict(agent)
    if as_json:
        screen.emit(report)
        return
    kept = f"; {report.kept} became dirty meanwhile and stay" if report.kept else ""
    whose = f"idle for {idle:g} s" if agent is None else str(agent)
    click.echo(f"{whose}: {report.flushed.records} records were flushed, {report.dropped} keys dropped{kept}.")


@click.command()
@agent_argument
@click.option("--yes", is_flag=True, help="Do not ask whether that is meant.")
@json_option
@pass_target
def forget(target: Target, agent: UUID, yes: bool, as_json: bool) -> None:
    """Erase an agent from both servers, for good, and say what went.

    Backups, replicas and write-ahead logs are beyond it: see docs/forgetting.md.
    """
    from banshee_memory.cli import screen

    with target.plugin() as memory:
        totals = memory.conversations.get_conversation_stats(agent)
        if not yes:
            held = f"{totals.total_messages:,} messages and all else"
            click.confirm(f"Erase {agent} for good, {held} of it?", abort=True, err=True)
        with _erasing(totals.total_messages) as progress:
            report = memory.forget(agent, progress=progress)
    if as_json:
        screen.emit(report)
    else:
        screen.show(screen.pairs(f"{agent} is forgotten", _erased(report)))
    if report.left:
        raise click.exceptions.Exit(FAILED)


@contextmanager
def _erasing(messages: int) -> Iterator[Callable[[str, int], None]]:
    """A bar over the messages, on a terminal."""
    from rich.progress import Progress

    from banshee_memory.cli import screen

    screen_ = screen.console(errors=True)
    with Progress(console=screen_, disable=not screen_.is_terminal, transient=True) as bar:
        task = bar.add_task("Erasing", total=messages or None)
        yield lambda kind, count: bar.advance(task, count if kind == "messages" else 0)


def _erased(report: ErasureReport) -> dict[str, object]:
    kinds = [name for name in report.__struct_fields__ if type(getattr(report, name)) is int and name != "left"]
    words: dict[str, object] = {name.replace("_", " "): f"{getattr(report, name):,}" for name in kinds}
    looked = f"{report.left:,}" + ("" if report.left else " (looked again everywhere)")
    return words | {"left": looked, "in": f"{report.seconds:,.2f} s"}


COMMANDS = (show, why, trends, search, rehydrate, evict, forget)
