"""Starting a server process so that it holds its lock, and ends when the supervisor does."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence

from banshee_memory.embedded.identity import become_in_namespace
from banshee_memory.embedded.locks import FileLock

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def spawn(
    command: Sequence[str | bytes | os.PathLike[str]],
    *,
    lock: FileLock,
    log: int,
    on_orphaned: signal.Signals,
    seen_as: tuple[int, int] | None = None,
    stdin: int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start a program that inherits `lock` and writes to `log`, away from the user's terminal.

    `seen_as`: run it in a user namespace in which this user is seen as that one.
    """
    return subprocess.Popen(
        command,
        stdin=stdin,
        stdout=log,
        stderr=log,
        cwd="/",
        env=_environment(),
        pass_fds=(lock.fileno(),),
        process_group=0,
        preexec_fn=_preparation(on_orphaned, seen_as),  # noqa: PLW1509 - the supervisor has one thread
    )


def _environment() -> dict[str, str]:
    # Nothing of PG*, no locale or time zone but these: the servers behave alike whoever came first.
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "TMPDIR") if name in os.environ}
    return {**kept, "LC_ALL": "C", "TZ": "UTC"}


def _preparation(on_orphaned: signal.Signals, seen_as: tuple[int, int] | None) -> Callable[[], None]:
    supervisor = os.getpid()

    def prepare() -> None:
        signal.signal(on_orphaned, signal.SIG_DFL)
        if seen_as is not None:
            become_in_namespace(seen_as)
        # Only now: a change of credentials clears it.
        if sys.platform == "linux" and _libc.prctl(_PR_SET_PDEATHSIG, int(on_orphaned), 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
        if os.getppid() != supervisor:  # it died before the kernel knew whom to watch
            os._exit(1)

    return prepare
