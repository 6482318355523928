"""`banshee` as a process of its own, and in this one."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from click.testing import CliRunner, Result

from banshee_memory.cli import main

COMMAND = (sys.executable, "-W", "error", "-c", "from banshee_memory.cli import main; main(prog_name='banshee')")

_LONGEST = 120.0


def environment(urls: tuple[str, str] | None = None, **more: str) -> dict[str, str]:
    """This environment, with (redis_url, database_url) in it, or without either. Daemons beside each other listen
    nowhere, unless they are told where."""
    named = {name: value for name, value in os.environ.items() if name not in ("REDIS_URL", "DATABASE_URL")}
    named["BANSHEE_LISTEN"] = "none"
    if urls is not None:
        named["REDIS_URL"], named["DATABASE_URL"] = urls
    return named | more


def ran(*words: str, urls: tuple[str, str] | None = None, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """The command, when it has ended."""
    return subprocess.run(
        [*COMMAND, *words], input=stdin, capture_output=True, text=True, timeout=60, env=environment(urls), check=False
    )


def ran_here(*words: str, urls: tuple[str, str] | None = None, stdin: str = "") -> Result:
    """The same in this process, which takes a tenth of the time: where how a process begins and ends is not the point.
    What a process would tell in a traceback is raised."""
    unset = dict.fromkeys(("REDIS_URL", "DATABASE_URL"))
    done = CliRunner().invoke(main, words, prog_name="banshee", input=stdin, env=unset | environment(urls))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


@contextmanager
def started(*words: str, urls: tuple[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """The command, at work; killed at the end of the block if it still is, or when it takes minutes."""
    with subprocess.Popen(
        [*COMMAND, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(urls),
    ) as process:
        watchdog = threading.Timer(_LONGEST, process.kill)
        watchdog.start()
        try:
            yield process
        finally:
            watchdog.cancel()
            process.kill()
