"""What processes do when they are killed: at least one deed for every failpoint there is."""

from __future__ import annotations

import asyncio
import io
import json
import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import msgspec
import psycopg
from psycopg import sql

from banshee_memory import (
    AsyncMemoryPlugin,
    CustomEvent,
    Durability,
    Emotion,
    EmotionalState,
    MemoryPlugin,
    NewMessage,
    Settings,
    importing,
)
from banshee_memory.cold import partitions, words
from banshee_memory.cold.migrate import migrate
from banshee_memory.cold.original import original
from banshee_memory.failpoints import armed
from banshee_memory.hot import calls, erasing, wire
from banshee_memory.hot.calls import Call
from banshee_memory.hot.keys import STORE, agent_keys, shard_keys
from banshee_memory.settings import MemoryPolicy
from banshee_memory.stamps import from_us
from banshee_memory.tiering.daemon import Daemon, logger
from banshee_memory.tiering.takeover import TakeOver
from banshee_memory.tiering.transfer import EventLine, MessageLine
from tests import originals
from tests.crashes.diary import STEP, Diary
from tests.crashes.forks import Job, serve
from tests.tiering.lives import STEADY

SETTINGS = Settings(
    message_cap=3,
    event_cap=3,
    message_retention_days=None,
    event_retention_days=None,
    shards=4,
    flush_after=0.02,
    memory_policies={"scratch": MemoryPolicy(volatile=True)},
)
ROUNDS = 100
_LONG_AGO = datetime(1971, 1, 1, tzinfo=UTC)


class Life:
    """An agent and the process that leads its life."""

    def __init__(self, job: Job) -> None:
        self.redis_url, self.database_url = job["urls"]
        self.agent = UUID(job["agent"])
        self.ancestor = UUID(int=self.agent.int ^ 1 << 64)
        self.fresh_url: str = job.get("fresh", "")
        self.diary = Diary(Path(job["diary"]))
        self.memory = MemoryPlugin(self.database_url, self.redis_url, settings=SETTINGS)
        self.random = random.Random(self.agent.int)

    def begin(self) -> None:
        """It feels something, which does not fade."""
        felt = {Emotion.HOPE: 32 * STEP, Emotion.JOY: 32 * STEP}
        self.memory.emotions.save_state(self.agent, EmotionalState(felt, dict(STEADY)))
        self.live()

    def live(self) -> None:
        """One of each kind of record."""
        memories = self.memory.memories
        self.say()
        self.happen()
        self.diary.write("change", lambda n: self.memory.emotions.update_emotions(self.agent, {Emotion.JOY: STEP}))
        self.diary.write("memory", lambda n: memories.store_memory(self.agent, "fact", "latest", {"number": n}))
        self.diary.write("access", lambda n: memories.retrieve_memory(self.agent, "fact", "latest"))
        self.diary.write("mortal", lambda n: memories.store_memory(self.agent, "fact", "mortal", n))
        self.diary.write("deletion", lambda n: memories.delete_memory(self.agent, "fact", "mortal"))

    def say(self, durability: Durability = Durability.HOT) -> None:
        save = self.memory.conversations.save_message
        self.diary.write(
            "message", lambda n: save(self.agent, "user", f"number {n}", tokens_used=1, durability=durability)
        )

    def happen(self) -> None:
        save = self.memory.emotions.save_event
        self.diary.write("event", lambda n: save(self.agent, _happened(n), {Emotion.HOPE: STEP}, mode="add"))

    def command(self, *words: str | bytes | int) -> object:
        """A command to Redis."""
        return self.memory._open()[0].run(Call(words, lambda reply: reply))


def _happened(number: int) -> CustomEvent:
    return CustomEvent(event_type="happened", data={"n": number})


def flush(life: Life) -> None:
    life.live()
    life.memory.flush(life.agent)


def flush_poison(life: Life) -> None:
    """PostgreSQL refuses a NUL in JSON, and nothing before it does. Another agent's, of the same log."""
    life.live()
    keys = agent_keys(life.ancestor, SETTINGS.shards)
    body = wire.message_body(os.urandom(8), "user", "poison", {"text": "\0"}, None, 1, None)
    life.memory._open()[0].run(calls.append_messages(keys, [(None, False, body)]))
    life.memory.flush(life.agent)


def flush_old(life: Life) -> None:
    """Messages of weeks that have no partition yet, and those weeks beyond retention again."""
    life.live()
    week = timedelta(weeks=life.random.randrange(2_000))
    old = [NewMessage(role="user", content="old", created_at=_LONG_AGO + week + timedelta(weeks=n)) for n in range(3)]
    life.memory.conversations.save_messages(life.ancestor, old)
    life.memory.flush(life.ancestor)
    kept = msgspec.structs.replace(SETTINGS, message_retention_days=5_000)
    with life.memory._open()[1].connection() as connection:
        partitions.drop_expired(connection, datetime.now(UTC), kept)


def evict(life: Life) -> None:
    life.live()
    life.memory.evict(life.agent)


def come_back(life: Life) -> None:
    """It was evicted; whoever reads brings it in."""
    life.memory.evict(life.agent)
    life.memory.conversations.get_history(life.agent, 100)
    life.memory.emotions.get_event_history(life.agent)
    life.live()


def be_wanted(life: Life) -> None:
    life.memory.evict(life.agent)
    keys = agent_keys(life.agent, SETTINGS.shards)
    life.command("FCALL", "banshee1_want", 1, shard_keys(keys.shard).wanted, life.agent.bytes)
    life.memory._run(life.memory._operations.rehydrate_wanted())


def meet(life: Life) -> None:
    """A session with a message in it."""
    memory, agent = life.memory, life.agent
    life.diary.write("session", lambda n: memory.sessions.start_session(agent, idempotency_key=f"session {n}"))
    session = memory.sessions.get_sessions(agent, 1)[0]
    life.say()
    memory.sessions.end_session(agent, session.id)


def lose_logs(life: Life) -> None:
    """Redis lost what was cold already, the logs with it."""
    life.memory.flush()
    life.command("DEL", STORE, *(shard_keys(shard).log for shard in range(SETTINGS.shards)))
    life.live()


def fail_over(life: Life) -> None:
    """Redis is another server than the one that its data names."""
    life.memory.flush(life.ancestor)
    life.live()
    life.command("HSET", STORE, "server", "another")
    for shard in range(SETTINGS.shards):
        life.command("HSET", shard_keys(shard).stats, "server", "another")
    with MemoryPlugin(life.database_url, life.redis_url, settings=SETTINGS) as other:
        other.emotions.load_state(life.agent)
    life.live()


def go_back(life: Life) -> None:
    """PostgreSQL says that it has less of a shard than it had."""
    life.live()
    life.memory.flush()
    with life.memory._open()[1].connection() as connection:
        connection.execute(
            "UPDATE shards SET flushed_stamp = 0 WHERE shard = %s", [agent_keys(life.agent, SETTINGS.shards).shard]
        )
    life.live()
    life.memory.flush(life.agent)


def lose_library(life: Life) -> None:
    life.command("FUNCTION", "FLUSH")
    life.live()


def write_cold(life: Life) -> None:
    life.say(Durability.COLD)


def write_cold_by_task(life: Life) -> None:
    """An asyncio client that has to load the library first."""

    async def say(number: int) -> None:
        async with AsyncMemoryPlugin(life.database_url, life.redis_url, settings=SETTINGS) as memory:
            await memory.conversations.save_message(
                life.agent, "user", f"number {number}", tokens_used=1, durability=Durability.COLD
            )

    life.command("FUNCTION", "FLUSH")
    life.diary.write("message", lambda n: asyncio.run(say(n)))


_NO_REPLICAS = msgspec.structs.replace(SETTINGS, replicas=0)
"""Under which any server gives REPLICATED."""


def write_durably(life: Life) -> None:
    def say(number: int) -> None:
        with MemoryPlugin(life.database_url, life.redis_url, settings=_NO_REPLICAS) as memory:
            memory.conversations.save_message(
                life.agent, "user", f"number {number}", tokens_used=1, durability=Durability.REPLICATED
            )

    life.diary.write("message", say)


def write_durably_by_task(life: Life) -> None:
    async def say(number: int) -> None:
        async with AsyncMemoryPlugin(life.database_url, life.redis_url, settings=_NO_REPLICAS) as memory:
            await memory.conversations.save_message(
                life.agent, "user", f"number {number}", tokens_used=1, durability=Durability.REPLICATED
            )

    life.diary.write("message", lambda n: asyncio.run(say(n)))


def import_lines(life: Life) -> None:
    importing._CHUNK_LINES, importing._FLUSH_EVERY = 2, 4
    name = str(life.agent)

    def put(first: int) -> None:
        numbers = range(first, first + 4)
        messages = [MessageLine(agent=name, role="user", content=f"number {n}", tokens=1) for n in numbers]
        felt = {"hope": STEP}
        events = [EventLine(agent=name, event=_happened(n), emotions=felt, mode="add") for n in numbers]
        life.memory.import_(line for pair in zip(messages, events, strict=True) for line in pair)

    life.diary.write("message", lambda n: life.diary.write("event", put, 4), 4)


def maintain(life: Life) -> None:
    """Another's memories expire; calls are forgotten."""
    life.live()
    life.memory.memories.store_memory(life.ancestor, "fact", "brief", 1, ttl_seconds=60)
    life.memory.flush()
    hot, cold = life.memory._open()
    Daemon(SETTINGS, hot, cold, logger(io.StringIO()), rehydrate_wanted=lambda: 0).maintain()
    cold.sweep_memories(from_us(hot.run(calls.now())) + timedelta(hours=1))


def index(life: Life) -> None:
    """Two weeks of another's messages, in whose partition no other deed writes, are closed and get their indexes."""
    life.live()
    times = [_LONG_AGO + timedelta(weeks=2_500 + n) for n in range(2)]
    old = [NewMessage(role="user", content="old", created_at=at) for at in times]
    life.memory.conversations.save_messages(life.ancestor, old)
    life.memory.flush(life.ancestor)
    cold = life.memory._open()[1]
    cold.settings = msgspec.structs.replace(SETTINGS, message_retention_days=14)
    with cold.connection() as connection:
        for week, _ in (partitions.span(partitions.MESSAGES, at) for at in times):
            connection.execute(f"DROP INDEX IF EXISTS conversation_messages_{week:%Y%m%d}_words".encode())
    for _ in words.build(cold, times[1] + timedelta(weeks=1), threading.Event(), least=0):
        pass


def forget(life: Life) -> None:
    """Another agent of the same shard, half of whose life is not flushed, is forgotten."""
    memory = life.memory
    erasing.MOST_MEMBERS = 1
    for placed in (memory.flush, lambda: None):
        memory.conversations.save_message(life.ancestor, "user", "to be forgotten")
        memory.emotions.save_event(life.ancestor, _happened(0), {Emotion.HOPE: STEP})
        for key in ("one", "two", "three"):
            memory.memories.store_memory(life.ancestor, "fact", key, key)
        placed()
    life.live()
    memory.forget(life.ancestor)


def take_over(life: Life) -> None:
    """An original, in a schema beside ours, with what an ancestor said."""
    schema = f"original_{life.agent.hex}"
    with psycopg.connect(life.database_url, autocommit=True) as database:
        database.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
    url = psycopg.conninfo.make_conninfo(life.database_url, options=f"-c search_path={schema}")
    with psycopg.connect(url) as database:
        database.execute(originals.STARTED_UP.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS").encode())
        database.execute(
            "INSERT INTO conversation_messages (id, agent_id, role, content, created_at) "
            "VALUES (gen_random_uuid(), %s, 'user', 'old', now())",
            [life.ancestor],
        )
    hot, cold = life.memory._open()
    with original(url, SETTINGS) as source:
        TakeOver(SETTINGS, hot, cold, source, lambda *_: None).run(skip_expired=False, skip_unmappable=False)


def migrate_fresh(life: Life) -> None:
    migrate(life.fresh_url, SETTINGS)


def serve_as_daemon(life: Life) -> None:
    """A daemon beside all else, until it is told to end."""
    hot, cold = life.memory._open()

    def wanted() -> int:
        return life.memory._run(life.memory._operations.rehydrate_wanted())

    Daemon(SETTINGS, hot, cold, logger(io.StringIO()), rehydrate_wanted=wanted).run()


DEEDS: dict[str, Callable[[Life], None]] = {
    deed.__name__: deed
    for deed in (
        flush,
        flush_poison,
        flush_old,
        evict,
        come_back,
        be_wanted,
        meet,
        lose_logs,
        fail_over,
        go_back,
        lose_library,
        write_durably,
        write_durably_by_task,
        write_cold,
        write_cold_by_task,
        import_lines,
        maintain,
        index,
        forget,
        take_over,
        migrate_fresh,
    )
}


def do(job: Job) -> None:
    """A job: the deed again and again, until the process dies at the `nth` time that it reaches the `point`.

    Without a point the deed is done twice, and how often it reached each is written beside the diary.
    """
    life = Life(job)
    if job["deed"] == serve_as_daemon.__name__:
        serve_as_daemon(life)
        return
    deed, point, reached = DEEDS[job["deed"]], job.get("point"), Counter[str]()

    def reach(name: str) -> None:
        reached[name] += 1
        if name == point and reached[name] == job["nth"]:
            os.kill(os.getpid(), signal.SIGKILL)

    life.begin()
    with armed(reach):
        for _ in range(ROUNDS if point else 2):
            deed(life)
    life.memory.close()
    Path(job["diary"]).with_suffix(".reached").write_text(json.dumps(reached))


if __name__ == "__main__":
    serve(do)
