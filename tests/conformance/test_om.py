"""The redis-om models: read through the plugin wherever the agent is, never written, found by projections."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from datetime import UTC
from uuid import UUID, uuid4

import pytest

from banshee_memory import CustomEvent, Emotion, EmotionalState, InvalidInput, MemoryPlugin
from banshee_memory.errors import ConfigurationError
from banshee_memory.om import Models, ReadOnlyModel, SearchUnavailable, models

needs_om = pytest.mark.skipif(importlib.util.find_spec("redis_om") is None, reason="the extra om is not installed")
STEADY = dict.fromkeys(Emotion, 0.0)


@pytest.fixture
def om(sync_client: MemoryPlugin) -> Iterator[Models]:
    bound = models(sync_client)
    yield bound
    bound.close()


@pytest.fixture
def felt(sync_client: MemoryPlugin, agent: UUID) -> UUID:
    """An agent that feels and is in a session."""
    sync_client.emotions.save_state(agent, EmotionalState({Emotion.JOY: 0.5, Emotion.FEAR: 0.25}, STEADY))
    sync_client.sessions.start_session(agent, {"a": [1, None, "ü🦊"]})
    return agent


def test_without_the_extra_it_is_said_what_to_install(
    sync_client: MemoryPlugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "redis_om", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'banshee-memory\[om\]'"):
        models(sync_client)


@needs_om
@pytest.mark.parametrize("evicted", [False, True])
def test_a_state_is_what_the_agent_feels_now(om: Models, sync_client: MemoryPlugin, felt: UUID, evicted: bool) -> None:
    if evicted:
        sync_client.evict(felt)
    state = om.AgentState.get(felt)
    assert (state.agent_id, state.joy, state.fear, state.dominant) == (str(felt), 0.5, 0.25, "joy")
    assert {getattr(state, e) for e in Emotion if e not in (Emotion.JOY, Emotion.FEAR)} == {0.0}
    assert state.valence == pytest.approx(1 / 3)
    assert state.arousal == pytest.approx((0.5 * 0.8 + 0.25 * 0.9) / 0.75)
    assert state.last_updated.tzinfo is UTC
    assert om.AgentState.get(str(felt)).joy == 0.5
    assert isinstance(state, importlib.import_module("redis_om").HashModel)


@needs_om
def test_it_is_decayed(om: Models, sync_client: MemoryPlugin, agent: UUID) -> None:
    sync_client.emotions.save_state(agent, EmotionalState({Emotion.JOY: 0.5}, {Emotion.JOY: 1.0}))
    state = om.AgentState.get(agent)
    assert state.joy < 0.5


@needs_om
@pytest.mark.parametrize("evicted", [False, True])
def test_sessions_are_those_of_the_agent(om: Models, sync_client: MemoryPlugin, felt: UUID, evicted: bool) -> None:
    first = sync_client.sessions.get_sessions(felt)[0]
    sync_client.emotions.save_event(felt, CustomEvent(event_type="x"), {}, mode="record")
    sync_client.sessions.end_session(felt, first.id)
    sync_client.sessions.start_session(felt)
    expected = sync_client.sessions.get_sessions(felt)
    if evicted:
        sync_client.evict(felt)
    given = om.Session.of(felt)
    for name in expected[0].__struct_fields__:
        plain = [str(v) if isinstance(v, UUID) else v for v in (getattr(s, name) for s in expected)]
        assert [getattr(session, name) for session in given] == plain
    assert om.Session.get(felt, first.id) == given[1]
    assert om.Session.of(felt, 1) == given[:1]


@needs_om
def test_what_is_not_there_is_not_found(om: Models, agent: UUID, felt: UUID) -> None:
    missing = importlib.import_module("redis_om").NotFoundError
    with pytest.raises(missing):
        om.AgentState.get(uuid4())
    with pytest.raises(missing):
        om.Session.get(felt, uuid4())
    assert om.Session.of(uuid4()) == []
    with pytest.raises(InvalidInput, match="agent_id"):
        om.AgentState.get("nobody")


@needs_om
@pytest.mark.parametrize(
    "name", ["save", "update", "expire", "expire_field", "persist_field", "add", "delete", "delete_many"]
)
def test_nothing_is_written_through_them(om: Models, felt: UUID, name: str) -> None:
    for target in (om.AgentState, om.AgentState.get(felt), om.Session, om.Session.of(felt)[0]):
        with pytest.raises(ReadOnlyModel, match="log"):
            getattr(target, name)("x")
    assert om.AgentState.get(felt).joy == 0.5


@needs_om
def test_redis_om_has_no_other_way_to_write() -> None:
    """What a new redis-om adds to its models is looked at before it is let through."""
    hash_model = importlib.import_module("redis_om").HashModel
    pydantic = importlib.import_module("pydantic").BaseModel
    reading = {"all_pks", "check", "check_datetime_schema_compatibility", "db", "field_ttl", "find", "from_redis"}
    reading |= {"get", "get_annotations", "key", "make_key", "make_primary_key", "redisearch_schema"}
    reading |= {"schema_for_fields", "schema_for_type", "validate_primary_key", "validate_pk", "Meta", "pk"}
    writing = {"save", "update", "expire", "expire_field", "persist_field", "add", "delete", "delete_many"}
    own = {name for name in set(dir(hash_model)) - set(dir(pydantic)) if not name.startswith("_")}
    assert own <= reading | writing


@needs_om
def test_find_says_that_there_is_no_search_module(om: Models) -> None:
    for model in (om.AgentState, om.Session):
        with pytest.raises(SearchUnavailable, match=r"search_messages.*get_sessions.*SQL"):
            model.find()


@needs_om
def test_projections_are_hashes_that_redis_om_reads_and_that_expire(
    om: Models, sync_client: MemoryPlugin, felt: UUID
) -> None:
    session = om.Session.of(felt)[0]
    assert om.project([felt, uuid4()], ttl_seconds=100) == 2
    states, sessions = f"banshee-om:agentstate:{felt}", f"banshee-om:session:{session.id}"
    for key in (states, sessions):
        assert 90 < om._db.ttl(key) <= 100
    assert om._db.hgetall(states)["joy"] == "0.5"
    (state,) = om.AgentState.from_redis([1, states, flat(om._db.hgetall(states))])
    assert (state.joy, state.dominant, state.last_updated.tzinfo) == (0.5, "joy", UTC)
    assert om.Session.from_redis([1, sessions, flat(om._db.hgetall(sessions))]) == [session]
    assert not [line for line in sync_client.export(felt) if "banshee-om" in str(line)]


def flat(fields: dict[str, str]) -> list[str]:
    return [part for pair in fields.items() for part in pair]
