"""Folders for servers that tests start: in memory, where the machine has room there.

What is tested is the death of processes, which no write that was made outlives differently there; and a file system on
a disk takes more time to make and remove the files of a database than PostgreSQL itself.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

_MEMORY = Path("/dev/shm")
_ROOM = 4 << 30
"""What several processes of tests may need beside each other; a container often has no more than 64 MB there."""
_PREFIX = "banshee-tests-"


def folder(prefix: str) -> tempfile.TemporaryDirectory[str]:
    """An empty folder that goes with the block."""
    return tempfile.TemporaryDirectory(prefix=prefix, dir=_home())


@cache
def _home() -> Path | None:
    """All folders of this process; None: where temporary files are. What a process that was killed has left goes."""
    if not _MEMORY.is_dir() or shutil.disk_usage(_MEMORY).free < _ROOM:
        return None
    with suppress(OSError):
        turn = _lock(_MEMORY, fcntl.LOCK_EX)  # a home that is only just made is not locked yet
        try:
            return _made()
        finally:
            os.close(turn)
    return None


def _made() -> Path:
    for left in _MEMORY.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # somebody uses it
            os.close(_lock(left, fcntl.LOCK_EX | fcntl.LOCK_NB))
            shutil.rmtree(left, ignore_errors=True)
    home = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_MEMORY))
    _lock(home, fcntl.LOCK_EX)  # until this process ends, however it does
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    return home


def _lock(path: Path, how: int) -> int:
    opened = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(opened, how)
    except OSError:
        os.close(opened)
        raise
    return opened
