"""What goes over a connection to Redis: commands as bytes, replies as hiredis reads them, and how it ends.

Nothing here does I/O, and nothing of redis-py is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import hiredis

from banshee_memory.hot.faults import ServerError


class _Incomplete:
    """No reply can look like it."""


INCOMPLETE: Final = _Incomplete()
"""What a reader gives while a reply is not whole."""

_packed: Callable[[tuple[Any, ...]], bytes] = hiredis.pack_command


def pack(command: tuple[Any, ...] | bytes) -> bytes:
    """A command, as a tuple of its words, in bytes; in bytes, it is that already."""
    return command if type(command) is bytes else _packed(command)  # type: ignore[arg-type]


def words_of(packed: bytes) -> tuple[Any, ...]:
    """The words of a command: as text those that are."""
    reader = hiredis.Reader()
    reader.feed(packed)
    return tuple(_text_of(word) for word in reader.gets())


def _text_of(word: bytes) -> str | bytes:
    try:
        return word.decode()
    except UnicodeDecodeError:
        return word


MORE = "more than was asked for"

LOSSES: Final = (OSError, hiredis.ProtocolError, IndexError, TypeError)
"""What sending and receiving raise: no connection, bytes that are no reply, a reply that nobody waits for, or a map one
of whose keys is a list."""


def new_reader() -> Any:
    """Takes bytes (`feed`), gives replies (`gets`). For one connection: what it has not read yet is that one's."""
    return hiredis.Reader(replyError=ServerError, notEnoughData=INCOMPLETE)


class Diverting:
    """A reader that hands on what the server says by itself, and gives the replies."""

    def __init__(self, reader: Any, heard: Callable[[Any], None]) -> None:
        self.feed = reader.feed
        self._gets = reader.gets
        self._heard = heard
        self._ahead: Any = INCOMPLETE

    def gets(self) -> Any:
        """The next reply, or `INCOMPLETE`."""
        reply, self._ahead = self._ahead, INCOMPLETE
        if reply is not INCOMPLETE:
            return reply
        while type(reply := self._gets()) is hiredis.PushNotification:
            self._heard(reply)
        return reply

    def has_data(self) -> bool:
        """Whether there is a reply more."""
        self._ahead = self.gets()
        return self._ahead is not INCOMPLETE
