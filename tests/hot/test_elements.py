"""The elements of a message list: made alike in Lua and in Python, and read in one go where they are MessagePack."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
import pytest

from banshee_memory import ConversationMessage, Emotion, EmotionalState
from banshee_memory.hot import calls, flushing, wire
from banshee_memory.hot.client import HotStore
from banshee_memory.hot.keys import AgentKeys, shard_keys
from banshee_memory.records import Placed
from banshee_memory.stamps import from_us, record_id, stamp_us
from tests.hot.raw import Server

NOW = 1_700_000_000_123_456
NONCE = b"\xff2345678"
SESSION = UUID("01890000-0000-7000-8000-000000000001")
ARRAY, OTHER = True, False
BODIES: dict[str, tuple[bool, int | str, str, Any]] = {
    "short": (ARRAY, "", "", [NONCE, "user", "hello"]),
    "all": (ARRAY, "", "", [NONCE, "user", "hello", {"a": [1]}, {"joy": 0.5}, 7, SESSION.bytes]),
    "dated": (OTHER, NOW - 5_000_000, "", [NONCE, "user", "hello"]),
    "with what is felt": (OTHER, "", "1", [NONCE, "user", "hello"]),
    "with an id of its own": (OTHER, "", "", [SESSION.bytes, "user", "hello"]),
    "longer": (OTHER, "", "", [NONCE, "user", "hello", None, None, 7, None, "more"]),
    "shorter": (OTHER, "", "", [NONCE, "user"]),
    "no array": (OTHER, "", "", NONCE),
}


@pytest.mark.parametrize("name", BODIES)
def test_an_element_is_made_of_its_entry_alike(name: str, server: Server, hot: HotStore, keys: AgentKeys) -> None:
    is_array, at, felt, body = BODIES[name]
    server.set_clock(NOW)
    hot.run(calls.save_state(keys, EmotionalState({Emotion.JOY: 0.5})))
    where = [keys.messages, keys.log, keys.state]
    replies = [
        server.fcall("append_messages", where, keys.agent.bytes, at, felt, wire.pack(body))
        for _ in range(40)  # with sequence numbers of more than four bits
    ]
    elements = hot.run(calls.whole_history(keys.messages)).elements
    entries = [entry for entry in hot.run(flushing.log_head(shard_keys(keys.shard), 50, 9_999)) if entry.kind == "M"]
    assert elements == [wire.element_of("M", entry.stamp, entry.payload) for entry in entries]
    assert {0x94 <= element[0] <= 0x98 for element in elements} == {is_array}
    if name not in ("no array", "shorter"):
        assert [reply[0] for reply in replies] == [wire.message_of(keys.agent, e).record.id.bytes for e in elements]
    own = NOW - 5_000_000 if at else None
    assert [wire.place_of(element) for element in elements] == [
        (own or stamp_us(entry.stamp), entry.stamp) for entry in entries
    ]


@pytest.mark.parametrize("array", [b"\x93", b"\xdc\0\x03", b"\xdd\0\0\0\x03"])
@pytest.mark.parametrize("nonce", [NONCE, SESSION.bytes])
def test_a_body_of_any_length_is_taken_and_answered_with_an_id_if_it_has_one(
    array: bytes, nonce: bytes, server: Server, hot: HotStore, keys: AgentKeys
) -> None:
    packed = array + wire.pack([nonce, "user", "hello"])[1:]
    bodies = [packed[:size] for size in range(1, len(packed) + 1)]
    where = [keys.messages, keys.log, keys.state]
    has_id = len(array) + 2 + len(nonce)
    for body in bodies:
        (found, _, _) = server.fcall("append_messages", where, keys.agent.bytes, "", "", body)
        is_known = len(body) >= has_id and array[:1] != b"\xdd"
        assert len(found) == (16 if is_known else 0), body
        assert not is_known or len(nonce) == 8 or found == nonce
    assert len(hot.run(calls.whole_history(keys.messages)).elements) == len(bodies)


@pytest.mark.parametrize("name", ["short", "all"])
def test_many_are_read_in_one_go_and_are_what_each_is(name: str, agent: UUID) -> None:
    _, _, _, body = BODIES[name]
    stamps = [(NOW // 1_000 << 16) + n for n in (0, 15, 16, 32_767, 65_535)]
    elements = [wire.element_of("M", stamp, b"\0\0\0" + wire.pack(body)) for stamp in stamps]
    messages = wire.message_records(agent, elements)
    assert messages == [wire.message_of(agent, element).record for element in elements]
    assert [message.id for message in messages] == [record_id(stamp, NONCE, stamp_us(stamp)) for stamp in stamps]
    for message, element, stamp in zip(messages, elements, stamps, strict=True):
        assert type(message) is ConversationMessage
        assert message.agent_id == agent
        assert message.created_at == from_us(stamp_us(stamp))
        assert msgspec.json.decode(msgspec.json.encode(message), type=ConversationMessage) == message
        again = wire.message_element(Placed(stamp_us(stamp), stamp, message))
        assert wire.message_of(agent, again) == wire.message_of(agent, element)
        assert (again[0], again[1:29]) == (0x98, element[1:29])
        with pytest.raises(AttributeError):
            message.role = "system"  # type: ignore[misc]


@pytest.mark.parametrize("second", [NOW // 1_000_000, 0, (1 << 34) - 1, 1 << 34])
@pytest.mark.parametrize("ms", [0, 1, 999])
def test_an_element_is_the_same_when_it_comes_back_from_postgres(second: int, ms: int, agent: UUID) -> None:
    for name in ("short", "all"):
        _, _, _, [_, *said] = BODIES[name]
        for seq in (0, 16, 65_535):
            stamp = second * 1_000 + ms << 16 | seq
            nonce = record_id(stamp, NONCE, stamp_us(stamp)).bytes[8:]
            body = wire.MessageBody(nonce, *said)
            element = wire.element_of("M", stamp, b"\0\0\0" + wire.pack(body))
            assert wire.message_element(wire.message_of(agent, element)) == element


def test_elements_of_another_layout_are_read_among_them(server: Server, hot: HotStore, keys: AgentKeys) -> None:
    server.set_clock(NOW)
    hot.run(calls.save_state(keys, EmotionalState({Emotion.JOY: 0.5, Emotion.FEAR: 0.25}, {Emotion.FEAR: 0.5})))
    where, bodies = (
        [keys.messages, keys.log, keys.state],
        [body for name, body in BODIES.items() if "array" not in name],
    )
    for _, at, felt, body in [*bodies, *reversed(bodies)]:
        if len(body) > 2:
            server.fcall("append_messages", where, keys.agent.bytes, at, felt, wire.pack(body))
    elements = hot.run(calls.whole_history(keys.messages)).elements
    assert len({element[0] in range(0x94, 0x99) for element in elements}) == 2
    read = wire.message_records(keys.agent, elements)
    assert read == [wire.message_of(keys.agent, element).record for element in elements]
    assert {"joy", "fear"} in [set(message.emotional_context or ()) for message in read]


def test_elements_one_of_which_cannot_be_read_are_for_who_reads_each(agent: UUID) -> None:
    plain = wire.element_of("M", 1 << 16, b"\0\0\0" + wire.pack([NONCE, "user", "hello"]))
    others = [
        wire.element_of("M", 1 << 16, b"\0\0\0" + wire.pack([SESSION.bytes, "user"])),
        wire.element_of("M", 1 << 16, b"\0\0\0" + wire.pack([SESSION.bytes, "user", 5])),
        wire.element_of("M", 1 << 16, b"\0\0\0" + wire.pack([NONCE, "user", 5])),
        plain[:-1],
        plain + b"\xc0",
        b"",
    ]
    for other in others:
        for elements in ([other, plain], [plain, other]):
            with pytest.raises(wire.Undecodable):
                wire.message_records(agent, elements)
    assert wire.message_records(agent, []) == []


def test_a_stamp_beyond_what_a_timestamp_says_is_kept_beside_the_entry(agent: UUID) -> None:
    last, first = ((1 << 34) * 1_000 - 1) << 16, (1 << 34) * 1_000 << 16
    body = b"\0\0\0" + wire.pack([NONCE, "user", "hello"])
    assert wire.element_of("M", last, body)[:1] == b"\x94"
    assert wire.element_of("M", first, body) == first.to_bytes(8, "big") + body
    for stamp in (last, first):
        message = wire.message_of(agent, wire.element_of("M", stamp, body))
        assert (message.stamp, message.record.created_at) == (stamp, from_us(stamp_us(stamp)))
