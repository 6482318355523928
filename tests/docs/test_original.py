"""What `docs/from-the-original.md` says: that it is whole, that its tests exist, and what no other test shows."""

from __future__ import annotations

import ast
import re
import threading
from pathlib import Path
from uuid import UUID, uuid4

import msgspec
import psycopg
import pytest
import redis

import banshee_memory
from banshee_memory import (
    CustomEvent,
    Emotion,
    EmotionalState,
    Health,
    MemoryPlugin,
    MemoryPolicy,
    Settings,
    Stats,
    TaskCompleted,
)
from banshee_memory.emotions import arousal_of, valence_of
from banshee_memory.hot.keys import agent_keys
from banshee_memory.settings import settings_from, urls_from
from tests.docs.original import DEFECTS, ROWS
from tests.docs.reference import STORES, fields, methods
from tests.own_servers import own_redis

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
PAGE = (ROOT / "docs" / "from-the-original.md").read_text()
IMPORTANCE = {"goal": 0.8, "preference": 0.7, "personality": 0.7, "skill": 0.6, "fact": 0.55, "knowledge": 0.55} | {
    "temp": 0.3,
    "cache": 0.3,
}
Line = tuple[str, ...]


def tables() -> dict[str, list[Line]]:
    """The lines of each table, by the heading over it."""
    parts = re.split(r"^#{2,3} (.*)\n", PAGE, flags=re.MULTILINE)[1:]
    every = {
        title: re.findall(r"^\| (.*) \|$", text, re.MULTILINE)
        for title, text in zip(parts[::2], parts[1::2], strict=True)
    }
    cells = {
        title: [tuple(cell.replace("\\|", "|") for cell in re.split(r" (?<!\\)\| ", line)) for line in lines[1:]]
        for title, lines in every.items()
    }
    return {title: lines for title, lines in cells.items() if lines}


TABLES = tables()
LINES = [pytest.param(line, id=f"{title}: {line[0]}") for title, lines in TABLES.items() for line in lines]


def defined_in(path: Path) -> set[str]:
    """The tests that a file defines."""
    defined = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, defined)}


# --- the page ---


def test_every_row_of_the_original_has_a_line() -> None:
    told = {title: tuple(line[0].strip("`") for line in lines) for title, lines in TABLES.items()}
    assert told.pop("Its defects") == DEFECTS
    assert told == ROWS


@pytest.mark.parametrize("line", LINES)
def test_every_line_names_a_test_that_exists(line: Line) -> None:
    assert all(line)
    path, name = line[-1].strip("`").split("::")
    assert name.startswith("test_")
    assert name in defined_in(TESTS / path)


def test_columns_that_are_named_exist(urls: tuple[str, str]) -> None:
    with psycopg.connect(urls[1]) as database:
        known = database.execute("SELECT table_name, column_name FROM information_schema.columns").fetchall()
    names = {table for table, _ in known}
    named = [name for name in re.findall(r"`([a-z_]+)\.([a-z_]+)`", PAGE) if name[0] in names]
    assert len(named) > 40
    assert set(named) <= set(known)


def test_names_of_ours_exist() -> None:
    for store, name in re.findall(rf"`({'|'.join(STORES)})\.(\w+)`", PAGE):
        assert name in methods(STORES[store][0])
    for kind, name in re.findall(r"`([A-Z]\w+)\.(\w+)`", PAGE):
        assert hasattr(getattr(banshee_memory, kind), name)


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", page.read_text()):
        linked = page.parent / target if target else page
        assert linked.exists()
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_index_names_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    linked = re.findall(r"^- \[[^]]*\]\(([^)#]*)\) – ", index, re.MULTILINE)
    here = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert here <= set(linked)
    assert len(linked) == len(set(linked))


# --- what is not there: when it comes, the page has to say so ---


def test_what_is_said_not_to_be_there_is_not(urls: tuple[str, str]) -> None:
    with psycopg.connect(urls[1]) as database:
        columns = {name for (name,) in database.execute("SELECT column_name FROM information_schema.columns")}
        relations = {
            name for (name,) in database.execute("SELECT relname FROM pg_class UNION SELECT proname FROM pg_proc")
        }
    assert not columns & {"emotional_temperature", "is_frustrated", "is_confident", "appraisal_duration_ms"}
    assert not columns & {"personality_influence", "content_length", "word_count"}
    assert not relations & {"agent_emotional_summary", "recent_emotional_events", "conversation_stats"}
    assert not relations & {"get_agent_emotional_state", "cleanup_expired_memories"}
    measured = {field.name for kind in (Stats, Health) for field in fields(kind)}
    assert not [name for name in measured if "pool" in name or ("latency" in name and "_latency" not in name)]


# --- what no other test shows ---


def test_the_original_s_example(urls: tuple[str, str], agent: UUID) -> None:
    with MemoryPlugin(urls[1], urls[0]) as memory:
        state = EmotionalState()
        state.update_emotion(Emotion.JOY, 0.8)
        memory.save_emotional_state(agent, state)
        loaded = memory.load_emotional_state(agent)
        assert loaded is not None
        assert re.fullmatch(r"joy 0\.\d\d \(valence \+1\.00, arousal 0\.80\)", loaded.summary())
        message = memory.save_conversation_message(agent, "user", "Hello, how are you feeling?", None)
        style = {"style": "friendly", "formality": "casual"}
        stored = memory.store_memory(agent, "preference", "communication_style", style, None)
        memory.evict(agent)
        assert [m.id for m in memory.get_conversation_history(agent)] == [message]
        assert memory.retrieve_memory(agent, "preference", "communication_style") == style
        assert stored.data == style
        assert memory.load_emotional_state(uuid4()) is None


def test_the_original_s_spelling_is_understood(memory: MemoryPlugin, agent: UUID) -> None:
    spelled = (
        *("Joy", "Distress", "Hope", "Fear", "Satisfaction", "Disappointment", "Relief", "FearConfirmed", "Pride"),
        *("Shame", "Admiration", "Reproach", "Gratification", "Remorse", "Gratitude", "Anger", "Love", "Hate"),
        *("HappyFor", "Resentment", "Gloating", "Pity"),
    )
    assert tuple(map(Emotion.parse, spelled)) == tuple(Emotion)
    state = memory.emotions.update_emotions(agent, {"HappyFor": 0.5, "joy": 0.5})  # type: ignore[dict-item]
    assert set(state.emotions) == {Emotion.HAPPY_FOR, Emotion.JOY}


def test_the_original_s_numbers_are_the_defaults() -> None:
    settings = Settings()
    assert (settings.hot_ttl, settings.message_cap) == (3600, 50)
    assert (settings.event_retention_days, settings.message_retention_days) == (30, 90)


def test_what_a_state_adds_up_to() -> None:
    state = EmotionalState({Emotion.JOY: 0.6, Emotion.FEAR: 0.2})
    assert state.overall_valence == valence_of(state.emotions) == pytest.approx(0.5)
    assert state.overall_arousal == arousal_of(state.emotions) == pytest.approx((0.6 * 0.8 + 0.2 * 0.9) / 0.8)
    assert state.dominant == (Emotion.JOY, 0.6)
    assert EmotionalState().dominant is None


def test_every_type_of_memory_is_known(memory: MemoryPlugin, agent: UUID) -> None:
    types = (*ROWS["Memory types"], "knowledge")
    for name in types:
        stored = memory.memories.store_memory(agent, name, "x", None)
        assert stored.importance == pytest.approx(IMPORTANCE.get(name, 0.5))
        assert stored.expires_at is None
    memory.evict(agent)
    assert {found.memory_type for found in memory.memories.get_memories_by_type(agent, None)} == set(types)


def test_policies_of_a_type(urls: tuple[str, str], agent: UUID) -> None:
    policies = {
        "mood": MemoryPolicy(ttl_seconds=60, importance=0.9),
        "cache": MemoryPolicy(volatile=True),
    }
    with MemoryPlugin(urls[1], urls[0], settings=Settings(memory_policies=policies)) as memory:
        stored = memory.memories.store_memory(agent, "mood", "x", 1)
        assert stored.expires_at is not None
        assert (stored.importance, (stored.expires_at - stored.created_at).total_seconds()) == (0.9, 60)
        memory.memories.store_memory(agent, "cache", "x", 1)
        assert memory.memories.retrieve_memory(agent, "cache", "x") == 1
        memory.evict(agent)
        assert memory.memories.retrieve_memory(agent, "cache", "x") is None
        assert memory.memories.retrieve_memory(agent, "mood", "x") == 1


def test_the_environment_is_read() -> None:
    environ = {"DB_MAX_CONNECTIONS": "20", "DB_MIN_CONNECTIONS": "5", "REDIS_PASSWORD": "secret"}
    settings = settings_from(environ)
    assert (settings.db_max_connections, settings.db_min_connections, settings.redis_password) == (20, 5, "secret")
    assert (settings_from({}).db_max_connections, settings_from({}).db_min_connections) == (10, 1)
    urls = urls_from(None, None, {"REDIS_URL": "redis://r", "DATABASE_URL": "postgresql://p"})
    assert (urls.redis, urls.database) == ("redis://r", "postgresql://p")


def test_the_password_of_redis_is_used(urls: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    with own_redis(like=urls[0]) as url:
        with redis.Redis.from_url(url) as client:
            client.config_set("requirepass", "secret")
        with MemoryPlugin(urls[1], url) as memory:
            assert not memory.health_check().redis_connected
        monkeypatch.setenv("REDIS_PASSWORD", "secret")
        with MemoryPlugin(urls[1], url) as memory:
            assert memory.health_check().redis_connected


def test_sessions_are_seen_in_sql(memory: MemoryPlugin, agent: UUID, urls: tuple[str, str]) -> None:
    opened = memory.sessions.start_session(agent, {"channel": "chat"})
    memory.conversations.save_message(agent, "user", "hi", tokens_used=3)
    with psycopg.connect(urls[1], autocommit=True) as database:

        def seen() -> tuple[object, ...]:
            memory.flush(agent)
            columns = "id, session_end, session_metadata, total_messages, total_events, total_tokens_used"
            (row,) = database.execute(f"SELECT {columns} FROM agent_sessions WHERE agent_id = %s", [agent]).fetchall()
            return *row[:3], *(total or 0 for total in row[3:])

        assert seen() == (opened.id, None, {"channel": "chat"}, 0, 0, 0)
        ended = memory.sessions.end_session(agent, opened.id)
        assert seen() == (opened.id, ended.session_end, {"channel": "chat"}, 1, 0, 3)


def test_events_are_tagged_within(memory: MemoryPlugin, agent: UUID, urls: tuple[str, str]) -> None:
    event = TaskCompleted(success=True, difficulty=0.7, time_taken=120.0, expected_time=100.0)
    memory.emotions.save_event(agent, event, {})
    memory.flush(agent)
    with psycopg.connect(urls[1]) as database:
        (row,) = database.execute("SELECT event_type, event_data FROM emotional_events WHERE agent_id = %s", [agent])
    assert row == ("task_completed", msgspec.to_builtins(event))
    assert row[1]["type"] == "task_completed"


def test_keys_in_redis(memory: MemoryPlugin, agent: UUID, urls: tuple[str, str]) -> None:
    memory.emotions.save_event(agent, CustomEvent(event_type="x"), {})
    memory.conversations.save_message(agent, "user", "hi")
    memory.memories.store_memory(agent, "fact", "key", 1)
    keys = agent_keys(agent, Settings().shards)
    tag = f"banshee:{{{keys.shard}}}:"
    expected = {
        f"{tag}state:{agent}": b"hash",
        f"{tag}messages:{agent}": b"list",
        f"{tag}memory:{agent}:fact:key": b"string",
        f"{tag}events:{agent}": b"list",
        f"{tag}feed": b"stream",
    }
    with redis.Redis.from_url(urls[0]) as client:
        assert {key: client.type(key) for key in expected} == expected


def test_nothing_is_lost_between_two_writers(memory: MemoryPlugin, agent: UUID) -> None:
    memory.emotions.save_state(agent, EmotionalState({}, {Emotion.JOY: 0.0}))

    def write() -> None:
        for _ in range(32):
            memory.emotions.update_emotions(agent, {Emotion.JOY: 1 / 128})

    writers = [threading.Thread(target=write) for _ in range(4)]
    memory.emotions.update_emotions(agent, {Emotion.JOY: 1 / 64})  # above the floor
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    state = memory.emotions.load_state(agent)
    assert state is not None
    assert state.emotions == {Emotion.JOY: 1.0}


def test_there_is_something_to_measure_with() -> None:
    assert list((ROOT / "bench").glob("*.py"))
