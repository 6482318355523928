"""A memory's name is text that PostgreSQL can hold; what is not is refused before anything is written."""

from __future__ import annotations

import random

import pytest

from banshee_memory import InvalidInput
from banshee_memory.hot.calls import Argument
from banshee_memory.hot.keys import AgentKeys
from tests.hot.raw import Server

NAMES = [
    "x",
    "ж",
    "日本",
    "🦊",
    "\x01\x7f",
    "\x80",
    "\u07ff",
    "\u0800",
    "\ud7ff",
    "\ue000",
    "\uffff",
    "\U0010ffff",
    "a b:c",
]
BROKEN = [
    *(b"\xff\xfe", b"\x80", b"a\xc3", b"\xc0\x80", b"\xc1\xbf", b"\xe0\x80\x80", b"\xe0\x9f\xbf", b"\xed\xa0\x80"),
    *(b"\xf0\x8f\xbf\xbf", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xe2\x82", b"\xc3\xa9\xa9", b"a\0", b"\0"),
]


def calls_with(keys: AgentKeys, member: bytes) -> list[tuple[str, list[str], tuple[Argument, ...]]]:
    memory = keys.memory("fact:x")
    return [
        ("store_memory", [memory, keys.memories, keys.log], (keys.agent.bytes, member, "", b"\x92\x01\x02", "blind")),
        ("retrieve_memory", [memory, keys.memories, keys.accesses], (keys.agent.bytes, member)),
        ("delete_memory", [memory, keys.memories, keys.log], (keys.agent.bytes, member)),
    ]


@pytest.mark.parametrize("name", NAMES)
def test_text_is_taken(server: Server, keys: AgentKeys, name: str) -> None:
    for function, at, words in calls_with(keys, f"fact:{name}".encode()):
        assert server.fcall(function, at, *words)


@pytest.mark.parametrize("broken", BROKEN)
def test_what_is_no_text_is_refused(server: Server, keys: AgentKeys, broken: bytes) -> None:
    before = server.content()
    for function, at, words in calls_with(keys, b"fact:" + broken):
        with pytest.raises(InvalidInput, match=r"^member"):
            server.fcall(function, at, *words)
    assert server.content() == before


def test_it_is_the_text_that_python_reads(server: Server, keys: AgentKeys) -> None:
    dice = random.Random(7)
    for _ in range(300):
        name = bytes(dice.choice(b"a\xc3\xa9\xe2\x82\xac\xf0\x9f\xa6\x8a\xed\xbf") for _ in range(dice.randrange(1, 6)))
        function, at, words = calls_with(keys, b"fact:" + name)[0]
        try:
            name.decode()
        except UnicodeDecodeError:
            with pytest.raises(InvalidInput):
                server.fcall(function, at, *words)
        else:
            assert server.fcall(function, at, *words)
