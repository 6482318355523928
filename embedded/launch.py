"""Starting a supervisor that belongs to no terminal, session or parent, with this process as its first user."""

from __future__ import annotations

import select
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

from banshee_memory.embedded.binaries import Binaries
from banshee_memory.errors import ConfigurationError

_PROGRAM = Path(__file__).absolute().with_name("boot.py")


class Candidate:
    """A supervisor that was started, and may have to wait for, or give way to, another."""

    def __init__(self, data_dir: Path, binaries: Binaries) -> None:
        self.connection, theirs = socket.socketpair()
        # What it says before it opens its log, such as an import that fails.
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        try:
            with theirs:
                _launch(data_dir, binaries, theirs, self._said)
        except BaseException:
            self.close()
            raise

    def has_news(self, timeout: float) -> bool:
        """Whether it has greeted us or ended, waiting a little."""
        poll = select.poll()  # unlike select(), it takes descriptors of any number
        poll.register(self.connection, select.POLLIN)
        return bool(poll.poll(timeout * 1000))

    def take_connection(self) -> socket.socket:
        """The connection, which is the caller's to close from now on."""
        return self.connection.dup()

    def last_words(self) -> str:
        self._said.seek(0)
        return self._said.read().decode("utf-8", "replace").strip()

    def close(self) -> None:
        """Hang up: a supervisor that still waits for its turn ends."""
        self.connection.close()
        self._said.close()


def _launch(data_dir: Path, binaries: Binaries, theirs: socket.socket, output: IO[bytes]) -> None:
    command: list[str | Path] = [sys.executable, "-I", "-S", _PROGRAM, "--user", str(theirs.fileno())]
    command += ["--redis-server", binaries.redis_server.absolute()]
    command += ["--postgres-bin", binaries.postgres_bin.absolute(), data_dir]
    try:
        starter = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(theirs.fileno(),),
            start_new_session=True,  # Ctrl-C in the user's terminal is not for it
        )
    except OSError as exc:
        raise ConfigurationError(f"The supervisor of the embedded servers cannot be started: {exc}") from exc
    starter.wait()  # it forks at once, so that what stays is no child of ours
