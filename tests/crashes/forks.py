"""Processes to be killed, many and soon: a process that has imported all forks one for each job.

The pytest process itself has threads and open connections, so it is not the one to fork.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Job = dict[str, Any]
_ROOT = Path(__file__).parents[2]


class Forks:
    """The forking process, as the tests see it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def start(self, job: Job) -> int:
        """Forks a process that does a job; its pid."""
        return self._ask({"start": job})

    def end_of(self, pid: int) -> int:
        """Waits for the end of a process; its exit code, negative: the signal that killed it."""
        return self._ask({"wait": pid})

    def stop(self, pid: int) -> int:
        """Asks a process to end, and waits for it."""
        os.kill(pid, signal.SIGTERM)
        return self.end_of(pid)

    def _ask(self, words: Job) -> int:
        assert self._process.stdin
        assert self._process.stdout
        print(json.dumps(words), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())


@contextmanager
def forks(module: str) -> Iterator[Forks]:
    """Forks of a module that calls `serve`; what is left of them ends with the block."""
    with subprocess.Popen(
        [sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_ROOT
    ) as process:
        yield Forks(process)
        assert process.stdin
        process.stdin.close()
        assert process.wait(30) == 0


def serve(do: Callable[[Job], None]) -> None:
    """The forking process: does as it is told until its standard input ends."""
    alive: set[int] = set()
    gc.freeze()  # the collector of a child would copy every page that it looks at
    for line in sys.stdin:
        words = json.loads(line)
        if "start" in words:
            alive.add(reply := _forked(do, words["start"]))
        else:
            alive.discard(words["wait"])
            reply = os.waitstatus_to_exitcode(os.waitpid(words["wait"], 0)[1])
        print(reply, flush=True)
    for pid in alive:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _forked(do: Callable[[Job], None], job: Job) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        do(job)
        status = 0
    except BaseException:  # noqa: BLE001 - told to whoever waits; above this is the parent's code
        Path(job["diary"]).with_suffix(".error").write_text(traceback.format_exc())
    os._exit(status)
