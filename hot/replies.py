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

pack: Callable[[tuple[Any, ...]], bytes] = hiredis.pack_command
"""A command, as a tuple of its words, in bytes."""

MORE = "more than was asked for"

LOSSES: Final = (OSError, hiredis.ProtocolError, IndexError)
"""What sending and receiving raise: no connection, bytes that are no reply, or a reply that nobody waits for."""


def new_reader() -> Any:
    """Takes bytes (`feed`), gives replies (`gets`). For one connection: what it has not read yet is that one's."""
    return hiredis.Reader(replyError=ServerError, notEnoughData=INCOMPLETE)
