"""What the cold tier is measured among: so many messages in so many weeks of partitions, copied straight into those.

An agent says about a thousand of them. Three of four spoke until the end, one of four fell silent when three tenths of
the time were over, and one beside them, TALKER, said ten thousand. Some words are in each message, one of its words is
in one of 90, one in one of 1,000. Within a partition the messages of all agents lie mixed, in the order of time, as a
flush leaves them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from banshee_memory.cold import partitions
from banshee_memory.cold.client import ColdStore
from banshee_memory.cold.session import BoundedConnection
from banshee_memory.settings import Settings
from banshee_memory.stamps import from_us, to_us

SETTINGS = Settings(message_retention_days=None, call_timeout=600, flush_timeout=600)
WEEK_US = 7 * 86_400_000_000
END_US = to_us(partitions.span(partitions.MESSAGES, datetime.now(UTC))[0])
"""The partitions that are filled end here: the last is that of the week before this one."""
PER_AGENT, TALKED = 1_000, 10_000
TALKER = UUID(int=0xAAAA)
SENTENCES = (
    "The fox came back to the den before the rain, and said that it had seen the river rise over the stones.",
    "I would rather wait until tomorrow; the road is long and nobody has slept since the storm began.",
    "Do you remember the garden behind the old mill, where we counted the swallows every evening?",
    "It was not anger but disappointment, and it went away when somebody finally explained the reason.",
    "Please write down the name of the harbour, the number of the boat and the hour at which it leaves.",
    "She laughed so loudly that the whole train turned round, and then we both had to laugh as well.",
    "There is bread on the table and soup on the stove; eat something before you decide anything.",
)
_COPY = """COPY {partition} (agent_id, created_at, stamp, id, role, content, metadata, tokens_used) FROM STDIN"""
_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True)
class World:
    """The filled database, a bare connection to it, and the client."""

    rows: int
    weeks: int
    connection: BoundedConnection
    store: ColdStore

    def active(self) -> list[UUID]:
        """Agents that spoke until the end."""
        return [_agent(n) for n in range(max(self.rows // PER_AGENT, 4)) if n % 4]

    def idle(self) -> list[UUID]:
        """Agents that fell silent early."""
        return [_agent(n) for n in range(0, max(self.rows // PER_AGENT, 4), 4)]


def text(number: int) -> str:
    """What is said: two sentences, about 200 characters."""
    return f"{SENTENCES[number % 7]} {SENTENCES[number // 7 % 7]}"


def _agent(number: int) -> UUID:
    return UUID(int=1 << 64 | number * 7919)


def fill(world: World) -> None:
    """Fills the weeks before END_US."""
    connection, first = world.connection, END_US - world.weeks * WEEK_US
    partitions.ensure(connection, partitions.MESSAGES, range(first, END_US + 2 * WEEK_US, WEEK_US))
    everyone, active = [agent.hex for agent in world.active() + world.idle()], [a.hex for a in world.active()]
    for week in range(world.weeks):
        print(f"week {week + 1} of {world.weeks}", end="\r", file=sys.stderr)
        speaking = everyone if week < world.weeks * 0.3 else active
        _fill_week(world, first + week * WEEK_US, week, speaking)
    connection.execute(
        "INSERT INTO agents (agent_id, flushed_stamp, total_messages, user_messages, total_tokens, first_message,"
        " last_message) SELECT agent_id, max(stamp), count(*), count(*), sum(tokens_used), min(created_at),"
        " max(created_at) FROM conversation_messages GROUP BY agent_id"
    )
    connection.execute("VACUUM ANALYZE conversation_messages, agents")
    connection.execute("CHECKPOINT")


def _fill_week(world: World, lower_us: int, week: int, speaking: list[str]) -> None:
    partition = f"conversation_messages_{from_us(lower_us):%Y%m%d}"
    with world.connection.cursor().copy(_COPY.format(partition=partition).encode()) as sink:
        rows = _rows(lower_us, world.rows // world.weeks, week, speaking, max(TALKED // world.weeks, 1))
        while block := "".join(line for line, _ in zip(rows, range(_AT_ONCE), strict=False)):
            sink.write(block)


def _rows(lower_us: int, count: int, week: int, speaking: list[str], talked: int) -> Iterator[str]:
    """Lines of COPY, in the order of time; every so often one of TALKER."""
    step, base = WEEK_US // count, from_us(lower_us)
    every, said, talker = max(count // talked, 1), [text(number) for number in range(49)], TALKER.hex
    for number in range(count):
        at_us = lower_us + number * step
        is_talker = number % every == 0
        agent = talker if is_talker else speaking[(number + week * count) % len(speaking)]
        place = week * talked + number // every if is_talker else number
        at = base + timedelta(microseconds=number * step)
        yield (
            f"{agent}\t{at.isoformat()}\t{at_us // 1_000 << 16 | number & 0xFFFF}\t{number:016x}{at_us:016x}\tuser\t"
            f'{said[place % 49]} Case c{place % 997}, room r{place % 89}.\t{{"turn": {number % 7}}}\t12\n'
        )
