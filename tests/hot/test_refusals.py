"""Every function judges its arguments before its first write: BANSHEE_INVALID, the argument, and nothing is changed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from banshee_memory import ConfigurationError, Emotion, EmotionalState, InvalidInput
from banshee_memory.hot import calls, wire
from banshee_memory.hot.calls import Argument
from banshee_memory.hot.client import HotStore
from banshee_memory.hot.keys import AgentKeys
from tests.hot.raw import Server

A = b"0123456789abcdef"
Case = tuple[str, Callable[[AgentKeys], list[str]], tuple[Argument, ...], str]


def _state(keys: AgentKeys) -> list[str]:
    return [keys.state, keys.log]


def _messages(keys: AgentKeys) -> list[str]:
    return [keys.messages, keys.log, keys.state]


def _events(keys: AgentKeys) -> list[str]:
    return [keys.events, keys.log, keys.state, keys.feed]


def _memory(keys: AgentKeys) -> list[str]:
    return [keys.memory("fact:x"), keys.memories, keys.log]


def _accesses(keys: AgentKeys) -> list[str]:
    return [keys.memory("fact:x"), keys.memories, keys.accesses]


def _clean(keys: AgentKeys) -> list[str]:
    return [keys.log, keys.tag + "dead", keys.accesses, keys.tag + "stats"]


def _one(keys: AgentKeys) -> list[str]:
    return [keys.state]


def _list(keys: AgentKeys) -> list[str]:
    return [keys.messages]


def _offered_memory(keys: AgentKeys) -> list[str]:
    return [keys.memory("fact:x"), keys.memories, keys.forgotten]


def _every(keys: AgentKeys) -> list[str]:
    return [*_kept(keys)[:4], keys.log, keys.accesses, keys.wanted, keys.forgotten]


def _kept(keys: AgentKeys) -> list[str]:
    return [keys.state, keys.messages, keys.events, keys.memories, keys.accesses]


CASES: list[Case] = [
    ("save_state", _state, (), "agent"),
    ("save_state", _state, (A[:15], ""), "agent"),
    ("save_state", _state, (A, "soon"), "time"),
    ("save_state", _state, (A, "-1"), "time"),
    ("save_state", _state, (A, "9007199254740992"), "time"),
    ("save_state", _state, (A, "", "joy"), "fields"),
    ("save_state", _state, (A, "", "glee", "0.5"), "emotion"),
    ("save_state", _state, (A, "", "joy/", "0.5"), "emotion"),
    ("save_state", _state, (A, "", "joy/rates", "0.5"), "emotion"),
    ("save_state", _state, (A, "", "", "0.5"), "emotion"),
    ("save_state", _state, (A, "", "joy", "1.1"), "value"),
    ("save_state", _state, (A, "", "joy", "nan"), "value"),
    ("save_state", _state, (A, "", "joy", ""), "value"),
    ("save_state", _state, (A, "", "joy/rate", "-0.1"), "value"),
    ("save_state", _state, (A, "", "joy", "0.5", "hope", "inf"), "value"),
    ("save_state", _state, (A, "", "joy", "0.5", "joy", "0.5"), "emotion"),
    ("update_emotions", _state, (), "agent"),
    ("update_emotions", _state, (A + b"0", "add"), "agent"),
    ("update_emotions", _state, (A,), "mode"),
    ("update_emotions", _state, (A, "record", "joy", "0.5"), "mode"),
    ("update_emotions", _state, (A, "add", "joy"), "changes"),
    ("update_emotions", _state, (A, "add", "Joy", "0.5"), "emotion"),
    ("update_emotions", _state, (A, "add", "joy", "-1.01"), "amount"),
    ("update_emotions", _state, (A, "set", "joy", "-0.5"), "amount"),
    ("update_emotions", _state, (A, "set", "joy", "0.5", "joy", "0.25"), "emotion"),
    ("append_messages", _messages, (A[1:], "", "", b"body"), "agent"),
    ("append_messages", _messages, (A,), "messages"),
    ("append_messages", _messages, (A, "", ""), "messages"),
    ("append_messages", _messages, (A, "", "", b"body", ""), "messages"),
    ("append_messages", _messages, (A, "today", "", b"body"), "time"),
    ("append_messages", _messages, (A, "", "", b""), "body"),
    ("append_messages", _messages, (A, "", "", b"body", "", "", b""), "body"),
    ("save_event", _events, ("x", "set", "", b"body"), "agent"),
    ("save_event", _events, (A, "sub", "", b"body"), "mode"),
    ("save_event", _events, (A, "set", "x", b"body"), "time"),
    ("save_event", _events, (A, "set", "", b""), "body"),
    ("save_event", _events, (A, "set", ""), "body"),
    ("save_event", _events, (A, "set", "", b"body", "joy"), "changes"),
    ("save_event", _events, (A, "set", "", b"body", "joy", "2"), "amount"),
    ("save_event", _events, (A, "record", "", b"body", "joy", "-0.5"), "amount"),
    ("store_memory", _memory, ("x", "fact:x", "", b"body", ""), "agent"),
    ("store_memory", _memory, (A, "fact", "", b"body", ""), "member"),
    ("store_memory", _memory, (A, "Fact:x", "", b"body", ""), "member"),
    ("store_memory", _memory, (A, "fact:", "", b"body", ""), "member"),
    ("store_memory", _memory, (A, "fact:x", "", b"", ""), "body"),
    ("store_memory", _memory, (A, "fact:x", "0", b"body", ""), "ttl"),
    ("store_memory", _memory, (A, "fact:x", "nan", b"body", ""), "ttl"),
    ("store_memory", _memory, (A, "fact:x", "1e300", b"body", ""), "ttl"),
    ("store_memory", _memory, (A, "fact:x", "", b"body", "volatile"), "ttl"),
    ("retrieve_memory", _accesses, ("x", "fact:x"), "agent"),
    ("delete_memory", _memory, ("x", "fact:x"), "agent"),
    ("lease", _one, ("s", b"short", 1000), "token"),
    ("lease", _one, ("x", b"12345678", 1000), "kind"),
    ("lease", _one, ("s", b"12345678", "soon"), "ttl"),
    ("lease", _one, ("s", b"12345678", "-1"), "ttl"),
    ("offer_state", _one, (b"12345678", "x", "absent", "1"), "ttl"),
    ("offer_state", _one, (b"12345678", "1000", "absent"), "fields"),
    ("offer_memory", _offered_memory, (b"12345678", "0", "fact:x", "A"), "ttl"),
    ("offer_memory", _offered_memory, (b"12345678", "1000"), "value"),
    ("offer_memory", _offered_memory, (b"12345678", "1000", "fact:x", "A", "x"), "agent"),
    ("offer_history", _list, (b"x" * 12, "x", "0", b"\0" * 8), "ttl"),
    ("offer_history", _list, (b"x" * 12, "1000", "x", b"\0" * 8), "from"),
    ("offer_history", _list, (b"x" * 12, "1000", "0", b"\0"), "from"),
    ("mark_clean", _clean, ("", "", "", "x", "0"), "ttl"),
    ("mark_clean", _clean, ("", "", "", "1000", "x"), "letters"),
    ("mark_clean", _clean, ("", "", "", "1000", "0", "z"), "item"),
    ("mark_clean", _clean, ("", "", "", "1000", "0", "s"), "item"),
    ("forget", _every, ("x", "1-0"), "agent"),
    ("forget", _every, (A, "1"), "stamp"),
    ("forget", _every, (A, "1-0", "fact:x"), "members"),
    ("erase_keys", _kept, ("x", "1-0", "0"), "agent"),
    ("erase_keys", _kept, (A, "", "0"), "stamp"),
    ("erase_keys", _kept, (A, "1-0", "x"), "moment"),
    ("erase_keys", _kept, (A, "1-0", "0", "fact:x"), "members"),
    ("erase_entries", _one, ("x", "1-0", "", "1", "1"), "agent"),
    ("erase_entries", _one, (A, "x", "", "1", "1"), "stamp"),
    ("erase_entries", _one, (A, "1-0", "", "0", "1"), "most"),
    ("want", _one, ("x",), "agent"),
]


@pytest.fixture
def lived(hot: HotStore, keys: AgentKeys) -> AgentKeys:
    """An agent with something under each of its keys."""
    hot.run(calls.save_state(keys, EmotionalState({Emotion.JOY: 0.5}, {Emotion.JOY: 0.0})))
    hot.run(
        calls.append_messages(keys, [(None, True, wire.message_body(b"12345678", "user", "x", None, None, None, None))])
    )
    Server(hot).fcall("store_memory", _memory(keys), keys.agent.bytes, "fact:x", "60", b"body", "blind")
    return keys


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]} {case[3]} {case[2]!r}")
@pytest.mark.parametrize("resident", [True, False], ids=["resident", "missing"])
def test_a_bad_argument_is_named_and_nothing_is_written(
    server: Server, keys: AgentKeys, case: Case, resident: bool, request: pytest.FixtureRequest
) -> None:
    if resident:
        request.getfixturevalue("lived")
    name, named, args, field = case
    before = server.content()
    with pytest.raises(InvalidInput) as refused:
        server.fcall(name, named(keys), *args)
    assert refused.value.field == field
    assert server.content() == before


def test_other_clients_see_a_code_of_ours(server: Server, own_url: str, keys: AgentKeys) -> None:
    with redis.Redis.from_url(own_url) as client, pytest.raises(redis.ResponseError, match=r"^BANSHEE_INVALID agent: "):
        client.fcall("banshee1_want", 1, keys.log, "x")


WRITES: dict[str, tuple[Callable[[AgentKeys], list[str]], tuple[Argument, ...]]] = {
    "save_state": (_state, (A, "", "joy", "0.5")),
    "update_emotions": (_state, (A, "add", "joy", "0.5")),
    "append_messages": (_messages, (A, "", "1", b"body")),
    "save_event": (_events, (A, "set", "", b"body", "joy", "0.5")),
}


@pytest.mark.parametrize(
    ("name", "broken"),
    [("save_state", 0), ("save_state", 1), ("update_emotions", 0), ("update_emotions", 1)]
    + [("append_messages", n) for n in range(3)]
    + [("save_event", n) for n in range(3)],
)
def test_a_key_of_another_type_stops_a_write_before_it_begins(
    server: Server, lived: AgentKeys, name: str, broken: int
) -> None:
    named, args = WRITES[name]
    at = named(lived)
    server.command("SET", at[broken], "somebody else's")
    before = server.content()
    with pytest.raises((ConfigurationError, InvalidInput)):
        server.fcall(name, at, *args)
    assert server.content() == before
