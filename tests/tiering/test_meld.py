"""Real conversations, the whole way: MELD's 11,098 utterances go in through the public API, leave for PostgreSQL, and
are read back, also where the daemon that carries them is killed at it. What they are compared with is worked out here,
from the CSV files alone."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid5

import psycopg
import pytest

from banshee_memory import ConversationStats, EmotionalEventRecord, FlushReport, ImportReport, MemoryPlugin, Settings
from banshee_memory.hot import calls
from banshee_memory.hot.client import HotStore
from banshee_memory.hot.keys import shard_keys
from banshee_memory.tiering.transfer import NAMES, parse
from tests.banshee import started
from tests.own_servers import own_database, own_redis

ROOT = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("BANSHEE_MELD") or ROOT.parent / "shared/data/meld")
FILES = ("dev_sent_emo.csv", "train_sent_emo.csv")
BASE = datetime.now(UTC) - timedelta(days=1)
SETTINGS = Settings()
FELT = {"joy": "joy", "sadness": "distress", "anger": "anger", "fear": "fear", "disgust": "reproach"}

pytestmark = pytest.mark.skipif(
    not all((FOLDER / name).is_file() for name in FILES),
    reason=f"no MELD: put {' and '.join(FILES)} into {FOLDER}, or set BANSHEE_MELD to their folder",
)


@dataclass
class Dialogue:
    """What is to be read back: (role, text, speaker, time) in order; (time, event type, emotions) in order."""

    first: str
    messages: list[tuple[str, str, str, datetime]] = field(default_factory=list)
    events: list[tuple[datetime, str, dict[str, float]]] = field(default_factory=list)

    def add(self, row: dict[str, str], at: datetime) -> None:
        role = "user" if row["Speaker"] == self.first else "assistant"
        self.messages.append((role, row["Utterance"], row["Speaker"], at))
        later = at + timedelta(seconds=1)
        if row["Emotion"] == "surprise":
            self.events.append((later, "unexpected_event", {}))
        elif row["Emotion"] != "neutral":
            self.events.append((later, "social_interaction", {FELT[row["Emotion"]]: 0.7}))

    @property
    def totals(self) -> ConversationStats:
        roles = Counter(role for role, *_ in self.messages)
        return ConversationStats(
            total_messages=len(self.messages),
            user_messages=roles["user"],
            assistant_messages=roles["assistant"],
            by_role={role: roles[role] for role in ("user", "assistant", "system", "function", "tool")},
            total_tokens=sum(len(text.split()) for _, text, _, _ in self.messages),
            first_message=self.messages[0][3],
            last_message=self.messages[-1][3],
        )


Model = dict[UUID, Dialogue]


@pytest.fixture(scope="module")
def model() -> Model:
    said: Model = {}
    at = BASE
    for name in FILES:
        with (FOLDER / name).open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                agent = uuid5(NAMES, f"meld-{name.partition('_')[0]}-{row['Dialogue_ID']}")
                said.setdefault(agent, Dialogue(row["Speaker"])).add(row, at)
                at += timedelta(seconds=2)
    assert sum(len(dialogue.messages) for dialogue in said.values()) == 11_098
    return said


@pytest.fixture(scope="module")
def jsonl() -> bytes:
    """What the script makes of it."""
    script = [sys.executable, str(ROOT / "bench/meld.py"), str(FOLDER), "--base", BASE.isoformat()]
    return subprocess.run(script, capture_output=True, check=True).stdout


@pytest.fixture
def urls(redis_url: str, database_url: str) -> Iterator[tuple[str, str]]:
    with own_redis(like=redis_url) as redis, own_database(database_url, SETTINGS) as database:
        yield redis, database


@pytest.fixture
def memory(urls: tuple[str, str]) -> Iterator[MemoryPlugin]:
    redis, database = urls
    with MemoryPlugin(database, redis, settings=SETTINGS) as plugin:
        yield plugin


@pytest.fixture
def hot(urls: tuple[str, str]) -> Iterator[HotStore]:
    store = HotStore(urls[0], SETTINGS)
    yield store
    store.close()


def put_in(memory: MemoryPlugin, model: Model, jsonl: bytes) -> int:
    """Imports all of it; gives how many records that were."""
    events = sum(len(dialogue.events) for dialogue in model.values())
    report = memory.import_(parse(jsonl.splitlines()))
    assert report == ImportReport(agents=len(model), messages=11_098, events=events)
    return report.messages + report.events


def assert_the_same(memory: MemoryPlugin, hot: HotStore, model: Model) -> None:
    """Everything is read back from PostgreSQL as it went in."""
    assert not waiting(hot)
    for agent in model:
        drop(memory, agent)
    assert not list(hot.keys("banshee:*:messages:*"))
    for agent, dialogue in model.items():
        history = memory.conversations.get_history(agent, 100)
        assert [(m.role, m.content, m.metadata["speaker"], m.created_at) for m in history] == dialogue.messages
        events = memory.emotions.get_event_history(agent)
        assert [told(event) for event in reversed(events)] == dialogue.events
        assert memory.conversations.get_conversation_stats(agent) == dialogue.totals


def drop(memory: MemoryPlugin, agent: UUID) -> None:
    """What Redis does by itself when it is short of memory. To flush each of a thousand agents first would say nothing
    more: nothing waits."""
    memory._run(memory._operations.evict(agent, FlushReport()))


def told(event: EmotionalEventRecord) -> tuple[datetime, str, dict[str, float]]:
    return event.occurred_at, event.event_type, {str(name): value for name, value in event.resulting_emotions.items()}


def waiting(hot: HotStore) -> int:
    """How many records are only in Redis."""
    return sum(hot.run_all([calls.log_length(shard_keys(shard)) for shard in range(SETTINGS.shards)]))


def carried(database: psycopg.Connection) -> int:
    """How many records are in PostgreSQL."""
    rows = database.execute("SELECT coalesce(sum(total_messages + total_events), 0)::bigint FROM agents").fetchall()
    return int(rows[0][0])


def kill_when_it_moves(daemon: subprocess.Popen[str], measure: Callable[[], int]) -> None:
    """SIGKILL at the first change of a measure."""
    before, deadline = measure(), time.monotonic() + 30
    while measure() == before:
        assert daemon.poll() is None, daemon.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.001)
    os.kill(daemon.pid, signal.SIGKILL)


def test_all_of_it_comes_back(memory: MemoryPlugin, hot: HotStore, model: Model, jsonl: bytes) -> None:
    records = put_in(memory, model, jsonl)
    assert waiting(hot) == records
    report = memory.flush()
    assert (report.messages, report.events) == (11_098, records - 11_098)
    assert not report.duplicates + report.expired + report.poisoned
    assert_the_same(memory, hot, model)


def test_a_daemon_that_is_killed_at_it_loses_nothing(
    memory: MemoryPlugin, hot: HotStore, urls: tuple[str, str], model: Model, jsonl: bytes
) -> None:
    records = put_in(memory, model, jsonl)
    with psycopg.connect(urls[1], autocommit=True) as database:
        # PostgreSQL moves with a commit, before Redis lets go of what it has; the log after that.
        moments = (lambda: carried(database), lambda: waiting(hot), lambda: carried(database))
        for moment in moments:
            with started("daemon", urls=urls) as daemon:
                kill_when_it_moves(daemon, moment)
        assert 0 < carried(database) < records
    assert waiting(hot)
    deadline = time.monotonic() + 60
    with started("daemon", urls=urls) as daemon:
        while waiting(hot):
            assert daemon.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        daemon.terminate()
        log = daemon.communicate(timeout=30)[1]
    assert daemon.returncode == 0, log
    assert json.loads(log.splitlines()[-1])["event"] == "stopped"
    assert_the_same(memory, hot, model)
