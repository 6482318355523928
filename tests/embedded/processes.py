"""Users of embedded servers in processes of their own, and a look at what runs on a data directory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

# Starts the servers, says how to reach them, and stays until its standard input is closed.
_USER = """
import json, sys
from pathlib import Path
from banshee_memory.embedded import start
with start(Path(sys.argv[1])) as servers:
    print(json.dumps([servers.redis_url, servers.database_url]), flush=True)
    sys.stdin.read()
"""


class User:
    """A process that uses the servers of a data directory."""

    def __init__(self, data_dir: Path, *, run_by: Sequence[str] = (), env: Mapping[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [*run_by, sys.executable, "-P", "-c", _USER, str(data_dir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **(env or {})},
            text=True,
            start_new_session=True,  # a terminal's worth of processes, to be interrupted as one
        )

    def urls(self) -> list[str]:
        """Both URLs; an AssertionError with what the process said, where it could not start."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(self.process.communicate()[1])
        return [str(url) for url in json.loads(line)]

    def leave(self) -> None:
        self.process.communicate(timeout=30)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()


def running(data_dir: Path, part: str = "") -> list[int]:
    """The pids of programs whose command line names the data directory, and `part`."""
    told = ["ps", "-ww", "-eo", "pid=,ppid=,stat=,args="]
    listed = subprocess.run(told, capture_output=True, text=True, check=True).stdout
    named = [line.split(maxsplit=3) for line in listed.splitlines() if str(data_dir) in line and part in line]
    parents = {int(pid): int(parent) for pid, parent, state, _ in named if not state.startswith("Z")}
    # What a server has only just forked goes by its parent's command line for a moment.
    return [pid for pid, parent in parents.items() if pid != os.getpid() and not (part and parent in parents)]


def supervisors(data_dir: Path) -> list[int]:
    return running(data_dir, "boot.py")


def redis_servers(data_dir: Path) -> list[int]:
    return running(data_dir, "--unixsocket")


def postmasters(data_dir: Path) -> list[int]:
    return running(data_dir, "listen_addresses")


def kill(pids: Sequence[int]) -> None:
    (pid,) = pids
    os.kill(pid, signal.SIGKILL)


def poll(condition: Callable[[], object], within: float = 10.0) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.02)


def stop(data_dir: Path) -> None:
    """Stop the servers without waiting for the supervisor to find itself alone."""
    for pid in supervisors(data_dir):
        with suppress(ProcessLookupError):  # it has found itself alone
            os.kill(pid, signal.SIGTERM)
    await_stop(data_dir)


def await_stop(data_dir: Path) -> None:
    """Wait until nothing runs on the data directory any more and its sockets are gone."""
    poll(lambda: not running(data_dir) and not (data_dir / "sockets").is_symlink())
