"""The connections of the users to the supervisor, and the loop that waits on them."""

from __future__ import annotations

import json
import selectors
import signal
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from banshee_memory.embedded.folders import CONTROL_SOCKET
from banshee_memory.embedded.locks import FileLock

_LINGER = 0.5
_LOOK_EVERY = 5.0
_POLL = 0.01
_ENDING = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


def wait_for_turn(lock: FileLock, user: socket.socket) -> bool:
    """Wait for the supervisor's lock for as long as the user is there. False: the user hung up."""
    while not lock.try_acquire():
        if _hung_up(user):
            return False
        time.sleep(_POLL)
    return True


class Users:
    """Everyone who uses the servers, by an open connection each; and the signals to this process."""

    def __init__(self, first: socket.socket) -> None:
        self._connected = {first}
        self._greeting: bytes | None = None
        self._control: socket.socket | None = None
        self._selector = selectors.DefaultSelector()
        self._selector.register(first, selectors.EVENT_READ, self._leave)
        self._signals = _signal_socket()
        self._selector.register(self._signals, selectors.EVENT_READ, self._note_signals)
        self._died = self._ended = False

    def listen(self, sockets: Path) -> None:
        """Let others join. They are greeted once there is something to tell."""
        self._control = control = socket.socket(socket.AF_UNIX)
        control.bind(str(sockets / CONTROL_SOCKET))
        control.listen(128)
        control.setblocking(False)
        self._selector.register(control, selectors.EVENT_READ, self._join)

    def greet(self, news: Mapping[str, str]) -> None:
        """Tell all users, and each that comes, how to reach the servers, or why there are none."""
        self._greeting = json.dumps(news).encode() + b"\n"
        for user in list(self._connected):
            self._send(user)

    def wait(self) -> bool:
        """Return True when a child has ended; False when it is time to leave."""
        alone_since: float | None = None
        while not self._ended and not self._died:
            alone_since = None if self._connected else alone_since or time.monotonic()
            remaining = _LOOK_EVERY if alone_since is None else alone_since + _LINGER - time.monotonic()
            if remaining <= 0 or not self._can_be_reached():
                return False
            for key, _ in self._selector.select(remaining):
                key.data(key.fileobj)
        self._died = False
        return not self._ended

    def refuse_more(self) -> None:
        """Take no more connections. Who is not greeted by now sees the connection close, and starts anew."""
        if self._control is not None:
            Path(self._control.getsockname()).unlink(missing_ok=True)
            self._selector.unregister(self._control)
            self._control.close()
            self._control = None

    def fail(self, reason: str) -> None:
        """Tell the users that wait for a greeting, also those that have just connected, what went wrong."""
        if self._greeting is None:
            if self._control is not None:
                self._join(self._control)
            self.greet({"error": reason})

    def _can_be_reached(self) -> bool:
        # The runtime directory goes away when its user logs out; then nobody new would find these servers.
        return self._control is not None and Path(self._control.getsockname()).exists()

    def _join(self, control: socket.socket) -> None:
        with suppress(BlockingIOError):
            while True:
                user, _ = control.accept()
                self._connected.add(user)
                self._selector.register(user, selectors.EVENT_READ, self._leave)
                if self._greeting is not None:
                    self._send(user)

    def _send(self, user: socket.socket) -> None:
        try:
            user.sendall(self._greeting or b"")
        except OSError:
            self._drop(user)

    def _leave(self, user: socket.socket) -> None:
        if _hung_up(user):
            self._drop(user)

    def _drop(self, user: socket.socket) -> None:
        self._selector.unregister(user)
        self._connected.discard(user)
        user.close()

    def _note_signals(self, signals: socket.socket) -> None:
        for number in signals.recv(4096):
            self._died |= number == signal.SIGCHLD
            self._ended |= number in _ENDING


def _hung_up(user: socket.socket) -> bool:
    try:
        return user.recv(64, socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _signal_socket() -> socket.socket:
    """A socket that receives the number of each signal to this process: the loop can wait for both."""
    reading, writing = socket.socketpair()
    reading.setblocking(False)
    writing.setblocking(False)
    signal.set_wakeup_fd(writing.detach(), warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, *_ENDING):
        signal.signal(number, lambda *_: None)
    # A user's thread may have blocked them before it started us.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return reading
