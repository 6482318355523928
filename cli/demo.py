"""`banshee demo`: an agent feels, talks and remembers in Redis, leaves for PostgreSQL, and comes back the same."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from importlib import resources
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID, uuid4

import click

from banshee_memory.cli.faults import FAILED
from banshee_memory.cli.operating import flushed
from banshee_memory.cli.target import Target, pass_target

if TYPE_CHECKING:
    from banshee_memory.emotions import EmotionalState, StoredState
    from banshee_memory.hot.client import HotStore
    from banshee_memory.hot.keys import AgentKeys
    from banshee_memory.plugin import MemoryPlugin
    from banshee_memory.records import MemoryRecord
    from banshee_memory.tiering.transfer import Line

_AWAY = 0.7
_HOT_READS = 200
_MISSES = 7
_ALL = 1_000
_PRECISION = 1e-9


class Stage(NamedTuple):
    """Who is on it, and how to look at her."""

    memory: MemoryPlugin
    hot: HotStore
    keys: AgentKeys

    @property
    def agent(self) -> UUID:
        """The agent's id."""
        return self.keys.agent

    def hot_keys(self) -> int:
        """How many keys of the agent are in Redis."""
        return sum(1 for _ in self.hot.keys(f"{self.keys.tag}*{self.agent}*"))

    def stored(self) -> StoredState | None:
        """What Redis has of her state: each intensity with the time when it was that."""
        from banshee_memory.hot import calls, wire

        fields = self.hot.run(calls.state_hash(self.keys))
        return wire.state_of(fields)


class Life(NamedTuple):
    """All that can be read of an agent."""

    state: EmotionalState
    stored: StoredState
    messages: list[Any]
    events: list[Any]
    memories: list[MemoryRecord | None]
    totals: Any


@click.command()
@pass_target
def demo(target: Target) -> None:
    """Watch an agent feel, talk and remember, leave Redis for PostgreSQL, and come back the same.

    Runs on the embedded servers, whatever REDIS_URL and DATABASE_URL say, each time with a new agent.
    """
    from banshee_memory.cli import screen
    from banshee_memory.hot.client import HotStore
    from banshee_memory.hot.keys import agent_keys
    from banshee_memory.plugin import MemoryPlugin

    started, settings = time.perf_counter(), target.settings()
    with (
        target.urls(heed_environment=False) as (redis_url, database_url),
        MemoryPlugin(database_url, redis_url, settings=settings) as memory,
        closing(HotStore(redis_url, settings)) as hot,
    ):
        stage = Stage(memory, hot, agent_keys(uuid4(), settings.shards))
        _servers(stage, time.perf_counter() - started)
        same = _play(stage)
    _outlook(stage, target)
    if not same:
        screen.show("Something came back different: see above.")
        raise click.exceptions.Exit(FAILED)


def _servers(stage: Stage, seconds: float) -> None:
    from banshee_memory.cli import screen

    health = stage.memory.health_check()
    screen.show(f"{health.redis_version} and PostgreSQL {health.postgres_version} were up after {seconds:.2f} s.", "")


def _play(stage: Stage) -> bool:
    _arrives(stage)
    before = _life(stage)
    _show(before)
    gone = _leaves(stage)
    time.sleep(_AWAY)  # long enough for the eye to see that decay went on
    _heading(3, "A read brings her back")
    same = _compare(stage, before, _life(stage))
    _latencies(stage)
    return gone and same


def example(agent: UUID) -> list[Line]:
    """The records of `examples/first-day.jsonl`, as those of this agent."""
    import msgspec

    from banshee_memory.tiering.transfer import parse

    text = resources.files("banshee_memory").joinpath("examples", "first-day.jsonl").read_bytes()
    return [msgspec.structs.replace(line, agent=str(agent)) for line in parse(text.splitlines())]


def _heading(number: int, text: str) -> None:
    from rich.text import Text

    from banshee_memory.cli import screen

    screen.show(Text(f"{number}. {text}", style="bold cyan"))


def _arrives(stage: Stage) -> None:
    from banshee_memory.cli import screen

    _heading(1, "Mira's first day, in Redis")
    report = stage.memory.import_(example(stage.agent))
    counts = f"{report.messages} messages, {report.events} emotional events and {report.memories} memories"
    screen.show(f"Agent {stage.agent}:", f"{counts}.", "")


def _life(stage: Stage) -> Life:
    memory, agent = stage.memory, stage.agent
    state, stored = memory.emotions.load_state(agent), stage.stored()
    assert state is not None
    assert stored is not None
    known = memory.memories.get_memories_by_type(agent, None, _ALL)
    return Life(
        state,
        stored,
        memory.conversations.get_history(agent, _ALL),
        memory.emotions.get_event_history(agent, _ALL),
        [memory.memories.get_memory(agent, record.memory_type, record.key) for record in known],
        memory.conversations.get_conversation_stats(agent),
    )


def _show(life: Life) -> None:
    from banshee_memory.cli import screen

    screen.show(screen.feelings(f"What she feels: {screen.mood(life.state)}", life.state.emotions), "")
    total = life.totals.total_messages
    screen.show(screen.conversation(f"What was said ({total} messages; the last 5)", life.messages[-5:]))
    screen.show(screen.knowledge("What she knows", filter(None, life.memories)))


def _leaves(stage: Stage) -> bool:
    from banshee_memory.cli import screen

    _heading(2, "She leaves for PostgreSQL")
    screen.show(screen.pairs("Flushed", flushed(stage.memory.flush(stage.agent))))
    before = stage.hot_keys()
    stage.memory.evict(stage.agent)
    after = stage.hot_keys()
    screen.show(f"Her keys in Redis: {before} before evict, {after} after.", "")
    return after == 0


def _compare(stage: Stage, before: Life, after: Life) -> bool:
    from banshee_memory.cli import screen

    screen.show(_decay(before, after))
    checks = list(_checks(before, after))
    for same, said in checks:
        screen.show(f"  {'equal    ' if same else 'DIFFERENT'}  {said}")
    screen.show(f"Her keys in Redis: {stage.hot_keys()} again.", "")
    return all(same for same, _ in checks)


def _decay(before: Life, after: Life) -> Any:
    from banshee_memory.cli import screen

    away = (after.state.last_updated - before.state.last_updated).total_seconds()
    rows = (
        (
            emotion.value,
            f"{intensity:.4f}",
            f"{after.state.emotions.get(emotion, 0.0):.4f}",
            screen.bar(after.state.emotions.get(emotion, 0.0)),
        )
        for emotion, intensity in sorted(before.state.emotions.items(), key=lambda pair: -pair[1])
    )
    columns = ("emotion", "before", "now", "")
    return screen.listing(f"Decay went on for the {away:.2f} s between:", columns, rows, right=columns[1:3])


def _checks(before: Life, after: Life) -> Iterator[tuple[bool, str]]:
    from banshee_memory.stamps import to_us

    yield before.stored == after.stored, "each intensity and the time when it was felt, as stored"
    due = before.stored.at(to_us(after.state.last_updated))
    yield _close(due, after.state), f"what is left of them now, to {_PRECISION:g} of what decay says"
    yield before.messages == after.messages, f"the history: {len(after.messages)} messages, oldest first"
    yield before.events == after.events, f"the emotional history: {len(after.events)} events, newest first"
    yield before.memories == after.memories, f"the memories: {len(after.memories)}, the worthiest first"
    tokens = f"{after.totals.total_messages} messages, {after.totals.total_tokens} tokens"
    yield before.totals == after.totals, f"the totals: {tokens}"


def _close(due: EmotionalState, found: EmotionalState) -> bool:
    return due.emotions.keys() == found.emotions.keys() and all(
        abs(intensity - found.emotions[emotion]) <= _PRECISION for emotion, intensity in due.emotions.items()
    )


def _latencies(stage: Stage) -> None:
    from banshee_memory.cli import screen

    _heading(4, "How long it takes")
    emotions, conversations = stage.memory.emotions, stage.memory.conversations
    reads: dict[str, Callable[[], object]] = {
        "what she feels": lambda: emotions.load_state(stage.agent),
        "what was said": lambda: conversations.get_history(stage.agent, 50),
    }
    hot = {name: median(_times(read, _HOT_READS)) for name, read in reads.items()}
    cold = {name: median(_missed(stage, read)) for name, read in reads.items()}
    rows = ((name, _milliseconds(hot[name]), _milliseconds(cold[name])) for name in reads)
    columns = ("read", "in Redis", "not in Redis")
    screen.show(screen.listing("Medians", columns, rows, right=columns[1:]))


def _times(read: Callable[[], object], count: int) -> Iterable[float]:
    for _ in range(count):
        began = time.perf_counter()
        read()
        yield time.perf_counter() - began


def _missed(stage: Stage, read: Callable[[], object]) -> Iterable[float]:
    for _ in range(_MISSES):
        stage.memory.evict(stage.agent)
        yield from _times(read, 1)


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.3f} ms"


def _outlook(stage: Stage, target: Target) -> None:
    import shlex

    from banshee_memory.cli import screen

    banshee = "banshee" if target.data_dir is None else f"banshee --data-dir {shlex.quote(str(target.data_dir))}"
    screen.show("Next, try:")
    for line in (f"show {stage.agent}", f'search {stage.agent} "rye"', "stats", "doctor"):
        click.echo(f"  {banshee} {line}")


COMMANDS = (demo,)
