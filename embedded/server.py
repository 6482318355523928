"""What the two servers have in common: a lock, a process, a log, a way to tell that they are ready."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from banshee_memory.embedded.child import spawn
from banshee_memory.embedded.failure import StartError
from banshee_memory.embedded.folders import DataFolder
from banshee_memory.embedded.locks import FileLock
from banshee_memory.embedded.orphans import signal_listener

_POLL = 0.005
_READY_WITHIN = 60.0  # replaying a long log after a crash takes its time
_STOP_WITHIN = 20.0
_KILL_ORPHANS_AFTER = 10.0
_FREE_WITHIN = 15.0


class Server(ABC):
    """One server program on its folder. Everything that starts or writes does so under `locks/<name>`."""

    name: ClassVar[str]
    socket_name: ClassVar[str]
    url_name: ClassVar[str]
    stop_signal: ClassVar[signal.Signals]
    seen_as: tuple[int, int] | None = None
    """As whom the program sees itself, where it does not run as who we are."""

    def __init__(self, data: DataFolder) -> None:
        self.data = data
        self._lock: FileLock | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def prepare(self) -> None:
        """Make or check the folder, before every start."""

    @abstractmethod
    def command(self, sockets: Path) -> list[str]:
        """The command line that serves in the foreground."""

    @abstractmethod
    def url(self, sockets: Path) -> str:
        """How clients reach it."""

    @abstractmethod
    def answers(self, pid: int, sockets: Path) -> bool:
        """Whether the process takes clients now."""

    def acquire(self) -> None:
        """Wait until no process of an earlier server is left, and make the folder ours.

        Whoever calls this is the only supervisor; a server that still runs has lost its own and is on its way
        out. It is told once more, for platforms on which the kernel does not tell it.
        """
        self.release()
        self._lock = lock = FileLock(self.data.locks / self.name)
        begun, told, kill = time.monotonic(), False, False
        while not lock.try_acquire():
            waited = time.monotonic() - begun
            if waited > _FREE_WITHIN:
                raise StartError(
                    f"{self.name} of an earlier run is still busy in {self.data.path} after "
                    f"{_FREE_WITHIN:.0f} s. {self._log_end()}"
                )
            if not told or (waited > _KILL_ORPHANS_AFTER and not kill):
                kill, told = told, True
                self._tell_orphan(signal.SIGKILL if kill else self.stop_signal)
            time.sleep(_POLL)

    def release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def start(self, sockets: Path) -> None:
        """Start the process. It is not ready yet: see `wait`."""
        log = self.data.open_log(self.name)
        try:
            self._process = self._spawn(self.command(sockets), log)
        finally:
            os.close(log)

    def wait(self, sockets: Path) -> None:
        """Wait until the process takes clients."""
        process = self._started()
        deadline = time.monotonic() + _READY_WITHIN
        while not self.answers(process.pid, sockets):
            if process.poll() is not None:
                raise self.failed(f"ended with status {process.returncode} as it started")
            if time.monotonic() > deadline:
                raise self.failed(f"was not ready within {_READY_WITHIN:.0f} s")
            time.sleep(_POLL)

    def is_down(self) -> bool:
        """Whether a process that was started has ended."""
        return self._process is not None and self._process.poll() is not None

    def ask_to_stop(self) -> None:
        """Begin a clean shutdown; `finish` waits for its end."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(self.stop_signal)

    def finish(self) -> None:
        """Wait for the end of the process, and end it where it does not come; then let go of the folder."""
        if self._process is not None:
            try:
                self._process.wait(_STOP_WITHIN)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        self.release()

    def run(self, command: list[str], *, text: str | None = None) -> None:
        """Run a program to its end under the same lock and into the same log."""
        log = self.data.open_log(self.name)
        try:
            with self._spawn(command, log, stdin=subprocess.PIPE) as process:
                process.communicate(text.encode() if text else b"")
        finally:
            os.close(log)
        if process.returncode != 0:
            raise self.failed(f"could not be set up: {Path(command[0]).name} ended with {process.returncode}")

    def failed(self, what: str) -> StartError:
        """The error of this server, with the end of its log."""
        return StartError(f"{self.name} in {self.data.path} {what}. {self._log_end()}")

    def _log_end(self) -> str:
        return f"Its log, {self.data.log(self.name)}, ends with:\n{self.data.log_tail(self.name)}"

    def _spawn(self, command: list[str], log: int, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        assert self._lock is not None
        try:
            return spawn(
                command,
                lock=self._lock,
                log=log,
                on_orphaned=self.stop_signal,
                seen_as=self.seen_as,
                stdin=stdin,
            )
        except (OSError, subprocess.SubprocessError) as exc:
            raise StartError(f"{command[0]} cannot be run: {exc}") from exc

    def _started(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def _tell_orphan(self, number: signal.Signals) -> None:
        sockets = self.data.sockets()
        if sockets is not None:
            signal_listener(sockets / self.socket_name, number)
