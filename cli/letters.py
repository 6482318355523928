"""`banshee dead-letters`: what PostgreSQL could not take; list, retry, drop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import click

from banshee_memory.cli.agents import Agent
from banshee_memory.cli.target import Target, json_option, pass_target

if TYPE_CHECKING:
    from banshee_memory.plugin import MemoryPlugin

F = TypeVar("F", bound=Callable[..., Any])
_AT_ONCE = 100_000


class _Letters(click.Group):
    """Without a command of its own: `list`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Reads the words after `dead-letters`."""
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group("dead-letters", cls=_Letters)
def dead_letters() -> None:
    """The records that PostgreSQL could not take, with the reasons; `list` if no command is given."""


def _narrowed(command: F) -> F:
    """`--agent` and `--shard`."""
    agent = click.option("--agent", type=Agent(), help="Only those of this agent.")
    shard = click.option("--shard", type=int, help="Only those of this shard.")
    return agent(shard(command))


def _chosen(command: F) -> F:
    """Which letters: by id, or those of an agent or a shard, or all."""
    every = click.option("--all", "every", is_flag=True, help="All of them, the oldest 100,000 at once.")
    return click.argument("ids", nargs=-1, metavar="[ID]...")(_narrowed(every(command)))


@dead_letters.command("list")
@_narrowed
@click.option("--limit", default=100, show_default=True, help="At most so many, the oldest first.")
@json_option
@pass_target
def list_letters(target: Target, agent: UUID | None, shard: int | None, limit: int, as_json: bool) -> None:
    """The oldest dead letters: what they were, since when, and why; without their content."""
    from banshee_memory.cli import screen

    with target.plugin() as memory:
        letters = memory.dead_letters.find(agent, shard=shard, limit=limit)
    if as_json:
        screen.emit(letters)
        return
    now = datetime.now(UTC)
    rows = ((x.id, x.kind or "-", x.agent_id or "-", screen.ago(x.at, now), x.bytes, x.reason) for x in letters)
    columns = ("id", "kind", "agent", "age", "bytes", "reason")
    screen.show(screen.listing(f"Dead letters: {len(letters)}", columns, rows, right=("age", "bytes")))


@dead_letters.command("retry")
@_chosen
@json_option
@pass_target
def retry_letters(
    target: Target, ids: Sequence[str], agent: UUID | None, shard: int | None, every: bool, as_json: bool
) -> None:
    """Put dead letters back into the log, once what was wrong is mended; the next flush carries them.

    Each goes once, in the order in which they were written, with its time and its id. One that still cannot be stored
    is a dead letter again. An amendment is not retried: amend the message again.
    """
    _judge(ids, agent, shard, every)
    with target.plugin() as memory:
        letters = _selected(memory, ids, agent, shard)
        done = memory.dead_letters.retry(letters)
    _tell(done, len(letters), "back in the log", as_json)


@dead_letters.command("drop")
@_chosen
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@pass_target
def drop_letters(
    target: Target, ids: Sequence[str], agent: UUID | None, shard: int | None, every: bool, yes: bool, as_json: bool
) -> None:
    """Give dead letters up, for good.

    With the letter of a state or memory goes its value in Redis, unless it was written again since.
    """
    _judge(ids, agent, shard, every)
    with target.plugin() as memory:
        letters = _selected(memory, ids, agent, shard)
        if letters and not yes:
            click.confirm(f"Give {len(letters):,} dead letters up for good?", abort=True, err=True)
        done = memory.dead_letters.drop(letters)
    _tell(done, len(letters), "given up", as_json)


def _judge(ids: Sequence[str], agent: UUID | None, shard: int | None, every: bool) -> None:
    is_narrowed = agent is not None or shard is not None
    if bool(ids) + is_narrowed + every != 1:
        raise click.UsageError("Say which: ids, or --agent or --shard, or --all.")


def _selected(memory: MemoryPlugin, ids: Sequence[str], agent: UUID | None, shard: int | None) -> Sequence[str]:
    if ids:
        return ids
    return [letter.id for letter in memory.dead_letters.find(agent, shard=shard, limit=_AT_ONCE)]


def _tell(done: int, of: int, became: str, as_json: bool) -> None:
    from banshee_memory.cli import screen

    if as_json:
        screen.emit({"done": done, "of": of})
    else:
        click.echo(f"{done:,} of {of:,} dead letters are {became}.")


COMMANDS = (dead_letters,)
