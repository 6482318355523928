"""The floor: a bare socket, or a bare asyncio Protocol, with hiredis, sending the commands that we send.

They are packed before; of replies that hold what a caller wants, the least is made that he can use: intensities that
have faded to now, messages as objects, the data of a memory. Nothing is checked, nothing is closed, nothing fails.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import UUID

import hiredis
import msgspec

from banshee_memory import Emotion, Settings
from banshee_memory.cli.workload import DATA, METADATA, TOKENS, WORDS
from banshee_memory.hot import calls, packed, wire
from banshee_memory.hot.keys import agent_keys
from banshee_memory.hot.replies import pack
from bench import world

_FELT = struct.Struct(">dd").unpack
_RATES = {e.value.encode(): 1.0 - e.rate for e in Emotion}
_BODY = struct.Struct(">H")


class BareSocket:
    """Sends bytes, gives a reply."""

    def __init__(self, url: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(unquote(urlsplit(url).path))
        self._buffer = bytearray(65_536)
        self._reader = hiredis.Reader()

    def ask(self, packed: bytes, replies: int = 1) -> Any:
        """The reply; to several commands all of them."""
        self._socket.sendall(packed)
        every: list[Any] = []
        while len(every) < replies:
            reply = self._reader.gets()
            if reply is False:
                self._reader.feed(self._buffer, 0, self._socket.recv_into(self._buffer))
            else:
                every.append(reply)
        return every if replies > 1 else every[0]

    def close(self) -> None:
        """Closes it."""
        self._socket.close()


class BareProtocol(asyncio.Protocol):
    """A queue of futures."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader()
        self._waiting: deque[list[Any]] = deque()
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            first = self._waiting[0]
            first[1].append(reply)
            if len(first[1]) == first[2]:
                self._waiting.popleft()
                first[0].set_result(first[1] if first[2] > 1 else first[1][0])

    def ask(self, packed: bytes, replies: int = 1) -> asyncio.Future[Any]:
        """The reply; to several commands all of them."""
        future = self._loop.create_future()
        self._waiting.append([future, [], replies])
        self.transport.write(packed)
        return future


def bare_protocol(url: str, loop: asyncio.AbstractEventLoop) -> BareProtocol:
    """Connected."""
    path = unquote(urlsplit(url).path)
    return loop.run_until_complete(loop.create_unix_connection(BareProtocol, path))[1]


# --- what is made of a reply ---


def loaded(replies: list[Any]) -> dict[bytes, float]:
    """Intensities at the time that is the first reply."""
    (seconds, microseconds), flat = replies
    return faded([int(seconds) * 1_000_000 + int(microseconds), *flat])


def faded(reply: list[Any]) -> dict[bytes, float]:
    """Intensities at the time that the reply begins with."""
    now, felt = reply[0], {}
    for name, value in zip(reply[1::2], reply[2::2], strict=True):
        if len(value) == 16 and name in _RATES:
            intensity, at = _FELT(value)
            felt[name] = intensity * _RATES[name] ** ((now - at) / 1e6)
    return felt


class Message(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What an element holds; its id as it is there."""

    id: bytes
    created_at: datetime
    role: str
    content: str
    metadata: Any = None
    emotional_context: dict[str, Any] | None = None
    tokens_used: int | None = None
    session_id: bytes | None = None


_messages = msgspec.msgpack.Decoder(list[Message]).decode


def messages(replies: list[Any]) -> list[Message]:
    """All of them, read in one go."""
    reply = replies[1]
    return _messages(b"\xdd" + len(reply).to_bytes(4, "big") + b"".join(reply))


_memory = msgspec.msgpack.Decoder(wire.MemoryBody).decode


def data(reply: bytes) -> Any:
    """A memory's."""
    return _memory(memoryview(reply)[49:]).data


# --- operations ---

Made = tuple[list[tuple[bytes, int]], Callable[[Any], Any]]


def _packed(commands: Sequence[calls.Call[Any]]) -> tuple[bytes, int]:
    return b"".join(pack(call.sent) for call in commands), sum(call.replies for call in commands)


def _same(reply: Any) -> Any:
    return reply


def operations() -> dict[str, Made]:
    """Of each operation: the packets for one agent after the other, and what is made of the last reply."""
    settings = Settings()

    def each(agents: list[UUID], plan: Callable[[Any], Sequence[calls.Call[Any]]]) -> list[tuple[bytes, int]]:
        return [_packed(plan(agent_keys(agent, settings.shards))) for agent in agents]

    readers, writers = world.READERS, world.WRITERS
    body = wire.message_body(os.urandom(8), "user", WORDS * 2, METADATA, None, TOKENS, None)
    memory = wire.pack(wire.MemoryBody(DATA, 0.75))
    return {
        "load_state": (each(readers, lambda keys: [packed.load_state(keys, calls.server_time())]), loaded),
        "update_emotions": (
            each(writers, lambda keys: [calls.update_emotions(keys, {Emotion.JOY: 0.01}, "add")]),
            faded,
        ),
        "get_history(50)": (each(readers, lambda keys: calls.history_end(keys.messages, 50)), messages),
        "save_message": (each(writers, lambda keys: [calls.append_messages(keys, [(None, False, body)])]), _same),
        "retrieve_memory": (each(readers, lambda keys: [calls.retrieve_memory(keys, "fact", "river")]), data),
        "store_memory": (each(writers, lambda keys: [calls.store_memory(keys, "fact", "river", memory, None)]), _same),
    }


def sync_calls(bare: BareSocket) -> dict[str, Callable[[], Any]]:
    """By operation, on a bare socket."""

    def call(made: Made) -> Callable[[], Any]:
        packets: Iterator[tuple[bytes, int]] = itertools.cycle(made[0])
        make, ask = made[1], bare.ask
        return lambda: make(ask(*next(packets)))

    return {name: call(made) for name, made in operations().items()}


def async_calls(bare: BareProtocol) -> dict[str, Callable[[], Awaitable[Any]]]:
    """By operation, on a bare Protocol."""

    def call(made: Made) -> Callable[[], Awaitable[Any]]:
        packets: Iterator[tuple[bytes, int]] = itertools.cycle(made[0])
        make, ask = made[1], bare.ask

        async def one() -> Any:
            return make(await ask(*next(packets)))

        return one

    return {name: call(made) for name, made in operations().items()}
