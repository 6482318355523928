"""What was written is read back: every type exactly, every page in its order."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from banshee_memory.cold import reads
from banshee_memory.cold.client import AsyncColdStore, ColdStore
from banshee_memory.cold.drain import EventRow, StateRow
from banshee_memory.emotions import Emotion
from banshee_memory.errors import ColdStoreUnavailable, ConfigurationError
from banshee_memory.records import (
    ConversationMessage,
    CustomEvent,
    GoalProgress,
    MemoryRecall,
    Placed,
    SocialInteraction,
    TaskCompleted,
    ToolCallFailed,
    UnexpectedEvent,
    UserFeedback,
)
from banshee_memory.settings import Settings
from banshee_memory.stamps import from_us
from tests.cold.making import NOON, NOON_US, event, memory, memory_row, message, stamp, state, tombstone, write

BIG = {"list": [{"n": n, "s": "ü😀" * 50} for n in range(2_000)]}
JSON: list[Any] = [
    None,
    True,
    0,
    -(2**63),
    2**63 - 1,
    0.1 + 0.2,
    1e-300,
    5e-324,
    1e22,
    1e23,
    -1.7976931348623157e308,
    9007199254740993,
    "1e23",
    '😀 \\u0000 " \\ \n\t\x7f\u2028',
    [],
    {},
    [[1.0, 1], {"": "empty key", "a.b": None, "😀": [1e16, 10**16]}],
    BIG,
]


def same(left: Any, right: Any) -> bool:
    """Equal, and of the same types: 1e16 is not 10**16 here."""
    return repr(left) == repr(right) or (left == right and _types(left) == _types(right))


def _types(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _types(item) for key, item in value.items()}
    return [_types(item) for item in value] if isinstance(value, list) else type(value)


@pytest.mark.parametrize("value", JSON, ids=lambda value: repr(value)[:30])
def test_json_comes_back_as_it_went_in(store: ColdStore, agent: UUID, value: Any) -> None:
    said = message(agent, metadata=value, emotional_context={"note": value})
    happened = event(agent, event=CustomEvent(event_type="x", data=value), context_factors=value)
    kept = memory(agent, data=value)
    write(store, said, EventRow.of(happened, {}), memory_row(agent, kept))

    (found,) = store.fetch(reads.message_page(agent, 1)).placed
    assert found == said
    assert same(found.record.metadata, value)
    (felt,) = store.fetch(reads.event_page(agent, 1)).placed
    assert felt == happened
    remembered = store.fetch(reads.memory_of(agent, "fact", "colour", NOON_US))
    assert remembered == kept
    assert remembered.record is not None
    assert same(remembered.record.data, value)


@pytest.mark.parametrize(
    "content", ["😀𐍈", " ", "a\r\n\tb", "x" * 999_999, "\x01\x7f\u2028\ufeff", "'; DROP TABLE agents --"]
)
def test_text_comes_back_as_it_went_in(store: ColdStore, agent: UUID, content: str) -> None:
    said = message(agent, content=content, role="tool", tokens_used=2**40, session_id=uuid4())
    kept = memory(agent, key=content[:100], memory_type="fact", tags=(content[:100], "", "{a,b}", 'c"d'))
    write(store, said, memory_row(agent, kept))

    assert store.fetch(reads.message_page(agent, 1)).placed == [said]
    assert store.fetch(reads.memory_of(agent, "fact", content[:100], NOON_US)) == kept


EVENTS = [
    TaskCompleted(success=True, difficulty=0.1 + 0.2, time_taken=1e22, expected_time=1e-300),
    UserFeedback(sentiment=-1.0, specificity=0.0, is_constructive=False),
    ToolCallFailed(attempts=2**62, error_severity=1.0, is_critical=True),
    GoalProgress(progress_delta=-0.5, goal_importance=1e23, is_milestone=False),
    SocialInteraction(interaction_type="support", outcome=0.25, peer_status=1 / 3),
    UnexpectedEvent(surprise_level=1.0, positive_outcome=True, context="😀"),
    MemoryRecall(memory_relevance=0.5, emotional_content=-0.5, memory_age=1e9),
    CustomEvent(event_type="my own", data=[1, "two"]),
]


@pytest.mark.parametrize("happened", EVENTS, ids=lambda happened: happened.event_type)
def test_every_event_comes_back_as_it_went_in(store: ColdStore, agent: UUID, happened: Any) -> None:
    every = {emotion: 1 / (index + 3) for index, emotion in enumerate(Emotion)}
    placed = event(agent, event=happened, resulting_emotions=every, mode="record", session_id=uuid4())
    write(store, EventRow.of(placed, every))
    assert store.fetch(reads.event_page(agent, 5)).placed == [placed]


def test_a_state_comes_back_with_its_exact_pairs(store: ColdStore, agent: UUID) -> None:
    assert store.fetch(reads.state_of(agent)) is None
    felt = state(3, **{emotion.value: 1 / (index + 3) for index, emotion in enumerate(Emotion)})
    write(store, StateRow.of(agent, felt))
    assert store.fetch(reads.state_of(agent)) == felt


def test_pages_of_messages_join_without_gap_or_repetition(store: ColdStore, agent: UUID) -> None:
    # Three of them share a microsecond, and they span the turn of a week.
    said = [message(agent, n, at_us=NOON_US + n // 3 * 86_400_000_000) for n in range(30)]
    write(store, *random.Random(4).sample(said, len(said)), message(uuid4(), 5))

    assert store.fetch(reads.message_page(agent, 100)).placed == said
    pages: list[Placed[ConversationMessage]] = []
    before: reads.Place | None = None
    while page := store.fetch(reads.message_page(agent, 7, before)).placed:
        pages = [*page, *pages]
        before = (page[0].at_us, page[0].stamp)
    assert pages == said
    assert store.fetch(reads.message_page(agent, 100, since_us=said[27].at_us)).placed == said[27:]

    walked, after = [], None
    while page := store.fetch(reads.messages_after(agent, 7, after)):
        walked += page
        after = page[-1]
    assert walked == said


def test_pages_of_events_join_without_gap_or_repetition(store: ColdStore, agent: UUID) -> None:
    felt = [event(agent, n, at_us=NOON_US + n // 3 * 40_000_000_000) for n in range(30)]
    write(store, *(EventRow.of(placed, {}) for placed in felt))

    assert store.fetch(reads.event_page(agent, 100)).placed == felt
    assert store.fetch(reads.event_page(agent, 4, (felt[10].at_us, felt[10].stamp))).placed == felt[6:10]
    assert store.fetch(reads.event_page(agent, 100, None, felt[12].at_us)).placed == felt[12:]
    walked, after = [], None
    while page := store.fetch(reads.events_after(agent, 7, after)):
        walked += page
        after = page[-1]
    assert walked == felt


def test_a_message_is_found_by_its_id_whatever_its_version(store: ColdStore, agent: UUID) -> None:
    timed, foreign = message(agent, 1), message(agent, 2, id=uuid4())
    write(store, timed, foreign)
    assert store.fetch(reads.message_place(agent, timed.record.id)) == timed
    assert store.fetch(reads.message_place(agent, foreign.record.id)) == foreign
    assert store.fetch(reads.message_place(uuid4(), timed.record.id)) is None
    assert store.fetch(reads.message_place(agent, uuid4())) is None


def test_memories_come_by_worth_then_by_name(store: ColdStore, agent: UUID) -> None:
    def kept(key: str, importance: float, seconds: int, memory_type: str = "fact") -> Any:
        at = NOON + timedelta(seconds=seconds)
        return memory(agent, key=key, importance=importance, last_accessed=at, memory_type=memory_type)

    ordered = [
        kept("e", 0.9, 0),
        kept("d", 0.5, 9),
        kept("z", 0.5, 3, "alpha"),
        kept("a", 0.5, 3),
        kept("b", 0.5, 3),
        kept("c", 0.1, 99),
    ]
    expired = memory(agent, key="old", expires_at=from_us(NOON_US + 5))
    write(
        store, *(memory_row(agent, one) for one in reversed(ordered)), memory_row(agent, expired), tombstone(agent, 1)
    )

    now = NOON_US + 5
    assert store.fetch(reads.memory_page(agent, None, now, 10)) == ordered
    assert store.fetch(reads.memory_page(agent, "fact", now, 10)) == [ordered[i] for i in (0, 1, 3, 4, 5)]
    assert store.fetch(reads.memory_page(agent, "fact", now, 2, 1)) == [ordered[1], ordered[3]]
    assert store.fetch(reads.memory_page(agent, "goal", now, 2)) == []
    assert expired in store.fetch(reads.memory_page(agent, "fact", now - 1, 10))


def test_a_memory_is_known_unknown_deleted_or_expired(store: ColdStore, agent: UUID) -> None:
    kept = memory(agent, key="kept", expires_at=from_us(NOON_US + 5))
    write(store, memory_row(agent, kept), tombstone(agent, 7, key="gone"))

    assert store.fetch(reads.memory_of(agent, "fact", "kept", NOON_US + 4)) == kept
    expired = store.fetch(reads.memory_of(agent, "fact", "kept", NOON_US + 5))
    deleted = store.fetch(reads.memory_of(agent, "fact", "gone", NOON_US))
    assert expired is not None
    assert deleted is not None
    assert (expired.record, deleted.record, deleted.stamp) == (None, None, stamp(7))
    assert store.fetch(reads.memory_of(agent, "fact", "never", NOON_US)) is None


def test_search_follows_the_rules_of_the_language(store: ColdStore, agent: UUID) -> None:
    texts = ["The quick brown foxes", "a brown dog and a quick fox", "cats only", "fox fox fox"]
    said = [message(agent, n, text) for n, text in enumerate(texts)]
    write(store, *said, message(uuid4(), 9, "another's fox"))

    def found(query: str, unflushed: Any = (), language: str = "english", limit: int = 10) -> Any:
        hits = store.fetch(reads.search(agent, query, limit, language, unflushed)).hits
        assert all(placed is None or placed.record.id == hit for hit, placed in hits)
        return [placed.record.content if placed else dict(unflushed)[hit] for hit, placed in hits]

    assert found("fox") == ["fox fox fox", texts[1], texts[0]]
    assert found("fox", limit=1) == ["fox fox fox"]
    assert set(found('"brown fox"')) == {texts[0]}
    assert set(found("fox -dog")) == {texts[0], texts[3]}
    assert set(found("cat or dog")) == {texts[1], texts[2]}
    assert found("the") == found("") == found("-") == []
    assert found("fox", language="simple") == ["fox fox fox", texts[1]]
    assert found("' ) ; DROP TABLE agents") == []

    waiting = [(uuid4(), "older running foxes"), (uuid4(), "newer running foxes"), (said[2].record.id, "cats only")]
    assert found("run", waiting) == ["newer running foxes", "older running foxes"]
    assert found("cats", waiting) == ["cats only"]
    assert set(found("fox -dog", waiting)) == {texts[0], texts[3], waiting[0][1], waiting[1][1]}
    with pytest.raises(ConfigurationError, match="klingon"):
        found("fox", language="klingon")


def test_a_message_with_more_words_than_a_tsvector_holds_spoils_no_search(store: ColdStore, agent: UUID) -> None:
    vast = "fox " + " ".join(f"{n:05x}z" for n in range(140_000))
    assert len(vast) < 1_000_000
    said = message(agent, 1, vast)
    write(store, said, message(agent, 2, "a fox"))
    with pytest.raises(ColdStoreUnavailable, match="too long for tsvector"), store.connection() as connection:
        connection.execute("SELECT to_tsvector('english', content) FROM conversation_messages")
    hits = store.fetch(reads.search(agent, "foxes", 10, "english", [(uuid4(), vast)])).hits
    assert [placed.record.content[:5] if placed else None for _, placed in hits] == [None, "a fox", "fox 0"]


def test_agents_are_listed_by_id(fresh_url: str, settings: Settings) -> None:
    store = ColdStore(fresh_url, settings)
    some = sorted(uuid4() for _ in range(5))
    write(store, *(message(one) for one in some))
    assert store.fetch(reads.agents(None, 3)) == some[:3]
    assert store.fetch(reads.agents(some[2], 3)) == some[3:]
    assert store.fetch(reads.agent_known(some[0]))
    assert not store.fetch(reads.agent_known(uuid4()))
    assert store.fetch(reads.extent()).agents == 5
    overview = store.fetch(reads.overview())
    assert overview.partitions == {
        "agents": 0,
        "conversation_messages": 1,
        "emotional_events": 0,
        "emotional_rollups": 0,
        "emotional_states": 8,
        "memory_records": 8,
    }
    store.close()


def test_the_overview_estimates_rows(fresh_url: str, settings: Settings) -> None:
    store = ColdStore(fresh_url, msgspec.structs.replace(settings, db_min_connections=1, db_max_connections=1))
    write(store, *(message(uuid4(), n) for n in range(12)))
    with store.connection() as connection:
        # A session tells now and then what it wrote: after an ANALYZE that has seen it, it would count twice.
        connection.execute("SELECT pg_stat_force_next_flush()")
        connection.execute("ANALYZE")
    rows = store.fetch(reads.overview()).rows
    assert (rows["conversation_messages"], rows["agents"], rows["emotional_events"]) == (12, 12, 0)
    store.close()


def test_the_async_client_reads_the_same(store: ColdStore, url: str, settings: Settings, agent: UUID) -> None:
    said = [message(agent, n) for n in range(20)]
    write(store, *said)

    async def read() -> None:
        other = AsyncColdStore(url, settings)
        pages = await asyncio.gather(*(other.fetch(reads.message_page(agent, 50)) for _ in range(12)))
        assert [page.placed for page in pages] == [said] * 12
        assert await other.fetch(reads.totals_of(agent)) == store.fetch(reads.totals_of(agent))
        assert (await other.ping()).version == store.ping().version
        await other.aclose()
        await other.aclose()

    asyncio.run(read())
