"""Servers whose supervisor is gone, found by who listens on their sockets.

A number in a file may by now be another process'; the listener of a socket cannot be.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import sys
from contextlib import suppress
from pathlib import Path

_UCRED = struct.Struct("3i")
_SOL_LOCAL, _LOCAL_PEERPID = 0, 2  # macOS


def signal_listener(path: Path, number: signal.Signals) -> None:
    """Signal the process that listens on a socket, where there is one."""
    pid = listener(path)
    if pid is not None:
        with suppress(ProcessLookupError):  # gone meanwhile, which was the aim
            os.kill(pid, number)


def listener(path: Path) -> int | None:
    """The pid of the process that listens on a Unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
            pid = _peer(probe)
        except OSError:
            return None
    return pid if pid > 1 else None  # 0: a process of another container


def _peer(connection: socket.socket) -> int:
    if sys.platform == "linux":
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        return int(_UCRED.unpack(credentials)[0])
    return connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERPID)
