"""The import: all or nothing before it begins, order, batches, and what it shares with the public calls."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

from banshee_memory import (
    ColdStoreUnavailable,
    CustomEvent,
    Emotion,
    FlushReport,
    ImportReport,
    InvalidInput,
    MemoryPlugin,
    Settings,
    importing,
)
from banshee_memory.tiering.transfer import EventLine, Line, MemoryLine, MessageLine, StateLine, agent_of, dump, parse
from tests.own_servers import own_database, own_redis

SETTINGS = Settings(shards=4)
HAPPENED = CustomEvent(event_type="happened")


@pytest.fixture(scope="module")
def memory(own_urls: tuple[str, str], database_url: str) -> Iterator[MemoryPlugin]:
    # Its own database: the other tests of this folder switched retention off in theirs. And a Redis of its own: beside
    # theirs it would look like theirs, restored to an earlier time.
    with (
        own_database(database_url, SETTINGS) as database,
        own_redis(own_urls[0]) as redis,
        MemoryPlugin(database, redis, settings=SETTINGS) as plugin,
    ):
        yield plugin
        plugin.flush()


def message(agent: UUID | str, content: str, **more: Any) -> MessageLine:
    return MessageLine(agent=str(agent), role="user", content=content, **more)


def event(agent: UUID | str, **more: Any) -> EventLine:
    fields: dict[str, Any] = {"agent": str(agent), "event": HAPPENED, "emotions": {"joy": 0.5}}
    return EventLine(**fields | more)


def said(memory: MemoryPlugin, agent: UUID) -> list[str]:
    return [m.content for m in memory.conversations.get_history(agent, 10_000)]


BAD: dict[str, dict[str, Any]] = {
    "role": {"role": "boss"},
    "blank": {"content": " "},
    "NUL": {"content": "a\0b"},
    "tokens": {"tokens": -1},
    "future": {"at": datetime.now(UTC) + timedelta(days=1)},
    "naive": {"at": datetime(2026, 1, 1)},  # noqa: DTZ001
    "two times": {"at": datetime.now(UTC), "ago": 1.0},
    "endless": {"ago": float("inf")},
    "retention": {"ago": 91 * 86_400.0},
    "agent": {"agent": ""},
    "surrogate": {"agent": "\ud800"},
}


@pytest.mark.parametrize("change", BAD.values(), ids=BAD)
def test_nothing_goes_in_if_the_last_cannot(memory: MemoryPlugin, agent: UUID, change: dict[str, Any]) -> None:
    lines = [message(agent, "good"), msgspec.structs.replace(message(agent, "bad"), **change)]
    with pytest.raises(InvalidInput, match=r"^record 2, "):
        memory.import_(lines)
    assert said(memory, agent) == []


@pytest.mark.parametrize(
    "line",
    [
        event("x", emotions={"glee": 0.5}),
        event("x", emotions={"joy": 1.5}),
        event("x", ago=31 * 86_400.0),
        StateLine(agent="x", emotions={"joy": 2.0}),
        MemoryLine(agent="x", memory_type="Fact", key="k", data=1),
        MemoryLine(agent="x", memory_type="_session", key="k", data=1),
        MemoryLine(agent="x", memory_type="fact", key="k", data=1, ttl_seconds=0),
    ],
)
def test_every_kind_is_judged(memory: MemoryPlugin, line: Line) -> None:
    with pytest.raises(InvalidInput, match=r"^record 1, "):
        memory.import_([line])


def test_the_expired_are_skipped_and_counted(memory: MemoryPlugin, agent: UUID) -> None:
    old: list[Line] = [message(agent, "old", ago=91 * 86_400), event(agent, ago=31 * 86_400)]
    lines = [*old, message(agent, "new", ago=60)]
    assert memory.import_(lines, skip_expired=True) == ImportReport(agents=1, messages=1, skipped=2)
    assert said(memory, agent) == ["new"]


def test_other_faults_are_not_skipped(memory: MemoryPlugin, agent: UUID) -> None:
    with pytest.raises(InvalidInput, match="role"):
        memory.import_([msgspec.structs.replace(message(agent, "x"), role="boss")], skip_expired=True)


def test_what_expires_while_the_import_runs_is_skipped(
    memory: MemoryPlugin, agent: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing.Importer, "_judge", lambda self, lines, skip: None)
    report = memory.import_([message(agent, "old", ago=91 * 86_400), message(agent, "new")])
    assert report == ImportReport(agents=1, messages=1, skipped=1)


def test_order_over_batches(memory: MemoryPlugin, agent: UUID) -> None:
    lines = [message(agent, f"{number}", ago=2_000 - number) for number in range(1_234)]
    assert memory.import_(iter(lines)).messages == 1_234
    expected = [line.content for line in lines]
    assert said(memory, agent) == expected
    memory.evict(agent)
    assert said(memory, agent) == expected


def test_those_of_one_moment_keep_the_order_of_the_file(memory: MemoryPlugin, agent: UUID) -> None:
    at = datetime.now(UTC) - timedelta(minutes=5)
    lines: list[Line] = []
    for number in range(20):
        lines += [message(agent, f"{number}", at=at), event(agent, at=at, context_factors=number)]
    memory.import_(lines)
    for _ in range(2):
        assert said(memory, agent) == [f"{number}" for number in range(20)]
        events = memory.emotions.get_event_history(agent)
        assert [e.context_factors for e in events] == list(range(19, -1, -1))
        memory.evict(agent)


def test_states_and_events_take_effect_in_their_order(memory: MemoryPlugin, agent: UUID) -> None:
    memory.import_(
        [
            event(agent, emotions={"love": 0.9}, mode="set"),
            StateLine(agent=str(agent), emotions={"Love": 0.25}, decay_rates={"love": 0.0}),
            event(agent, emotions={"love": 0.25}, mode="add"),
            event(agent, emotions={"hate": 0.5}),
        ]
    )
    state = memory.emotions.load_state(agent)
    assert state is not None
    assert state.emotions == pytest.approx({Emotion.LOVE: 0.5})


def test_agents_that_were_cold_go_on(memory: MemoryPlugin, agent: UUID) -> None:
    for number in range(3):
        memory.import_([message(agent, f"{number}"), event(agent, context_factors=number), fact(agent, number)])
        memory.evict(agent)
    assert said(memory, agent) == ["0", "1", "2"]
    assert [e.context_factors for e in memory.emotions.get_event_history(agent)] == [2, 1, 0]
    assert memory.memories.retrieve_memory(agent, "fact", "number") == 2


def fact(agent: UUID, number: int) -> MemoryLine:
    return MemoryLine(agent=str(agent), memory_type="fact", key="number", data=number, tags=("a",), importance=0.25)


def test_a_name_is_an_agent(memory: MemoryPlugin) -> None:
    memory.import_([message("somebody's name", "hello")])
    assert said(memory, agent_of("somebody's name"))[-1] == "hello"


def test_it_flushes_by_itself(memory: MemoryPlugin, agent: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[FlushReport] = []
    flush = memory.flush
    monkeypatch.setattr(importing, "_FLUSH_EVERY", 600)
    monkeypatch.setattr(memory, "flush", lambda agent_id=None: flushed.append(flush(agent_id)))
    memory.import_(message(agent, f"{number}", ago=5_000 - number) for number in range(1_700))
    assert [report.messages for report in flushed][1:] == [700]  # after chunks of 500, 500; 500, 200
    assert len(said(memory, agent)) == 1_700


def test_chunks_are_small_also_where_records_are_large() -> None:
    large = message("x", "a" * 1_000_000)
    assert [len(chunk) for chunk in importing._chunks([large] * 9, 500)] == [4, 4, 1]


def test_a_failure_in_the_middle_says_how_much_is_in(
    memory: MemoryPlugin, agent: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(agent_id: UUID | None = None) -> FlushReport:
        raise ColdStoreUnavailable("it is down")

    monkeypatch.setattr(importing, "_FLUSH_EVERY", 500)
    monkeypatch.setattr(memory, "flush", down)
    with pytest.raises(ColdStoreUnavailable) as caught:
        memory.import_(message(agent, f"{number}", ago=900 - number) for number in range(800))
    assert caught.value.__notes__ == ["The import stopped after 500 records, which are in."]
    monkeypatch.undo()
    assert len(said(memory, agent)) == 500


def test_an_export_holds_all_and_goes_in_elsewhere(memory: MemoryPlugin, agent: UUID) -> None:
    lines: list[Line] = [StateLine(agent=str(agent), emotions={"joy": 0.5}, decay_rates={"joy": 0.0}, ago=5)]
    lines += [message(agent, f"{n}", ago=3_000 - n, tokens=n, metadata={"n": n}) for n in range(1_100)]
    lines += [event(agent, ago=3_000 - n, context_factors={"n": n}) for n in range(1_100)]
    lines += [fact(agent, 7), MemoryLine(agent=str(agent), memory_type="goal", key="g", data="x", ttl_seconds=900)]
    memory.import_(lines)
    exported = list(memory.export(agent))
    assert [type(line) for line in exported] == [type(line) for line in lines]
    assert list(parse(dump(line) for line in exported)) == exported

    twin = agent_of(f"twin of {agent}")
    memory.import_(msgspec.structs.replace(line, agent=str(twin)) for line in exported)
    memory.evict(twin)
    history, twins = memory.conversations.get_history(agent, 2_000), memory.conversations.get_history(twin, 2_000)
    for ours, theirs in zip(history, twins, strict=True):
        assert msgspec.structs.replace(theirs, id=ours.id, agent_id=agent) == ours
    assert memory.conversations.get_conversation_stats(agent) == memory.conversations.get_conversation_stats(twin)
    for line, again in zip(exported, memory.export(twin), strict=True):
        if isinstance(line, MessageLine | EventLine):
            assert msgspec.structs.replace(again, agent=line.agent) == line
    state = memory.emotions.load_state(twin)
    assert state is not None
    assert (state.emotions, state.decay_rates) == ({Emotion.JOY: 0.5}, {Emotion.JOY: 0.0})


def test_an_export_leaves_out_what_is_deleted_or_not_a_memory(memory: MemoryPlugin, agent: UUID) -> None:
    memory.import_([fact(agent, 1), MemoryLine(agent=str(agent), memory_type="goal", key="g", data=2)])
    memory.memories.delete_memory(agent, "fact", "number")
    memory.sessions.start_session(agent)
    assert [line.key for line in memory.export(agent) if isinstance(line, MemoryLine)] == ["g"]


@pytest.mark.parametrize("no_line", ['{"type": "message"}', {"type": "message"}, None])
def test_what_is_no_line_is_refused(memory: MemoryPlugin, no_line: object) -> None:
    with pytest.raises(InvalidInput, match="record 1"):
        memory.import_([no_line])  # type: ignore[list-item]
