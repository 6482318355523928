"""Where there is a short cut, it leads to the same: for ids, for states, and for what counts as JSON."""

from __future__ import annotations

import enum
import gc
import math
import random
import struct
import weakref
from collections import OrderedDict
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4, uuid5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banshee_memory import validation
from banshee_memory.emotions import FLOOR, Emotion
from banshee_memory.errors import InvalidInput
from banshee_memory.hot import wire
from banshee_memory.hot.calls import Call
from banshee_memory.hot.keys import agent_keys
from banshee_memory.hot.replies import pack
from banshee_memory.operations import Hit, Operations
from banshee_memory.records import memory_id
from banshee_memory.settings import Settings
from banshee_memory.stamps import from_us, is_id_at, record_id, stamp_in_id, stamp_us, uuid_of
from banshee_memory.tiering import residency

SETTINGS = Settings(max_json_depth=4, max_json_bytes=2_000)


@given(st.binary(min_size=16, max_size=16))
def test_a_uuid_from_bytes(sixteen: bytes) -> None:
    assert uuid_of(sixteen) == UUID(bytes=sixteen)
    assert hash(uuid_of(sixteen)) == hash(UUID(bytes=sixteen))


@given(st.integers(0, 2**63 - 1), st.binary(min_size=8, max_size=8))
def test_the_stamp_of_a_record_without_a_time_of_its_own_is_in_its_id(stamp: int, nonce: bytes) -> None:
    usual = record_id(stamp, nonce, stamp_us(stamp))
    assert stamp_in_id(usual.bytes) == stamp
    assert usual.version == 7
    assert usual.variant == "specified in RFC 4122"
    assert is_id_at(usual, stamp)
    for bit in range(128):
        nonce_bit = bit < 58
        assert is_id_at(UUID(int=usual.int ^ 1 << bit), stamp) == nonce_bit
        assert bit > 63 or not is_id_at(usual, stamp ^ 1 << bit)


@given(st.uuids(), st.text(), st.text())
def test_the_id_of_a_memory_is_a_uuid5(agent: UUID, memory_type: str, key: str) -> None:
    try:
        usual = uuid5(agent, f"{memory_type}\0{key}")
    except UnicodeEncodeError:
        return
    assert memory_id(agent, memory_type, key) == usual


@given(
    st.dictionaries(st.sampled_from(Emotion), st.tuples(st.floats(0, 1), st.integers(0, 2**52))),
    st.dictionaries(st.sampled_from(Emotion), st.floats(0, 1), max_size=1),
    st.integers(0, 2**52),
)
def test_what_was_felt_when_a_message_was_said(
    felt: dict[Emotion, tuple[float, int]], rates: dict[Emotion, float], own: int
) -> None:
    fields = {e.value: struct.pack(">dd", intensity, since) for e, (intensity, since) in felt.items()}
    fields |= {f"{e.value}/rate": struct.pack(">d", rate) for e, rate in rates.items()}
    context = struct.pack(">dd", own + 5, own)
    for name, value in fields.items():
        context += bytes([len(name)]) + name.encode() + bytes([len(value)]) + value
    assert wire._felt_then(context) == {e.value: i for e, i in wire._snapshot(context).emotions.items()}


def test_a_state_that_is_decayed_while_it_is_read() -> None:
    chance = random.Random(7)
    now = 1_763_000_000_000_000
    for number in range(300):
        reply: list[Any] = [now]
        for emotion in chance.sample(list(Emotion), chance.randint(0, 22)):
            at = now - chance.choice([-5, 0, 1, 999, 10**6, 10**7, 10**9])
            reply += [emotion.value.encode(), struct.pack(">dd", chance.choice([FLOOR, 0.5, 1.0]), float(at))]
            if number % 3 == 0:
                reply += [f"{emotion}/rate".encode(), struct.pack(">d", chance.random())]
        if number % 5:
            reply += [b"meta", struct.pack(">Qd", number, float(now - 10**8))]
        if number % 7 == 0:
            reply += [b"absence", b"capped:3.0"]
        stored = wire.state_of(reply[1:])
        assert wire.state_now(reply) == (stored.at(now) if stored else None), number


@pytest.mark.parametrize("reply", [[5, b"joy"], [5, b"joy", b"short"], [5, b"joy", struct.pack(">dd", 1, math.nan)]])
def test_a_broken_state_is_undecodable(reply: list[Any]) -> None:
    with pytest.raises(wire.Undecodable):
        wire.state_now(reply)


class Colour(enum.StrEnum):
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


class Text(str):
    __slots__ = ()


ODD = [
    *(None, True, 0, -0.0, 1.5, "", "x", [], {}, (1, 2), {"a": (1,)}, OrderedDict(a=1), Colour.RED, {Colour.RED: 1}),
    *(Number.ONE, [Number.ONE], Text("t"), 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64, 10**18, "9" * 19, 2**200),
    *(
        math.nan,
        math.inf,
        -math.inf,
        [math.nan],
        1e308,
        1e22,
        123456789012345678901.0,
        "\0",
        "a\0b",
        "\\u0000",
        "\ud800",
    ),
    *({"\0": 1}, {"\ud800": 1}, {1: 2}, {None: 1}, {True: 1}, {1.5: 2}, {(1,): 2}, b"x", bytearray(b"x"), {1, 2}),
    *(
        Decimal(1),
        uuid4(),
        datetime.now(UTC),
        object(),
        [object()],
        [[[[1]]]],
        [[[[[1]]]]],
        [[[[]]]],
        [[[[[]]]]],
        "é" * 999,
    ),
    *("é" * 1_001, "x" * 1_998, "x" * 1_999, [[] for _ in range(9)], {"a": {"b": {"c": {"d": 1}}}}, {"a": "[[[[[[["}),
]


def outcome(value: Any, settings: Settings) -> Any:
    try:
        found = validation.json("field", value, settings)
    except InvalidInput as exc:
        return str(exc)
    return found


def plain(value: Any) -> bool:
    """Whether it is made of JSON's own types and nothing else."""
    if type(value) is dict:
        return all(type(k) is str and plain(v) for k, v in value.items())
    return all(map(plain, value)) if type(value) is list else type(value) in (type(None), bool, int, float, str)


@pytest.mark.parametrize("value", ODD, ids=range(len(ODD)))
def test_what_counts_as_json_is_the_same_with_and_without_the_codec(
    value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = outcome(value, SETTINGS)
    assert plain(short)

    def refuses(value: Any, settings: Settings) -> None:
        return None

    monkeypatch.setattr(validation, "_copied", refuses)
    long = outcome(value, SETTINGS)
    assert repr(short) == repr(long)


def test_the_copy_is_a_copy() -> None:
    inner: list[Any] = [1]
    given = {"a": inner}
    taken = validation.json("field", given, SETTINGS)
    inner.append(2)
    assert taken == {"a": [1]}


@given(st.text())
def test_blank_is_what_strip_leaves_nothing_of(text: str) -> None:
    if "\0" in text or any("\ud800" <= c <= "\udfff" for c in text):
        return
    if text.strip():
        assert validation.text("field", text, 10_000) == text
    else:
        with pytest.raises(InvalidInput, match="blank"):
            validation.text("field", text, 10_000)


def test_keys_are_remembered_for_some_agents_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(residency, "_MOST_KNOWN", 3)
    home = residency.Residency(Settings())
    for agent in [uuid4() for _ in range(10)] * 2:
        assert home.keys(agent) == agent_keys(agent, 64)
        assert len(home.known) <= 3


def test_a_read_that_is_kept_does_not_keep_who_keeps_it() -> None:
    operations, agent = Operations(Settings()), uuid4()
    for _ in range(2):
        operations.residency.warmth.is_due(operations.residency.keys(agent).state)
        read = operations.load_state(agent)
    assert isinstance(read, Hit)
    kept = weakref.ref(operations)
    del operations, read
    gc.collect()
    assert kept() is None


def test_a_time_in_microseconds() -> None:
    assert from_us(1_763_000_000_123_456) == datetime(2025, 11, 13, 2, 13, 20, 123456, UTC)


@given(st.lists(st.one_of(st.text(), st.binary(), st.integers()), min_size=1))
def test_the_words_of_a_call_that_was_packed_before(words: list[Any]) -> None:
    try:
        sent = pack(tuple(words))
    except UnicodeEncodeError:
        return
    assert pack(Call(sent, bool).command) == pack(sent) == sent
