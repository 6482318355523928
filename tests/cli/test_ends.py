"""How commands end: exit codes, and words instead of tracebacks."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.banshee import COMMAND, environment, ran, ran_here, started

COMMANDS = {
    "flush": ("flush",),
    "stats": ("stats",),
    "doctor": ("doctor",),
    "migrate": ("migrate",),
    "dead-letters": ("dead-letters",),
    "show": ("show", "mira"),
    "trends": ("trends", "mira"),
    "why": ("why", "mira", "joy"),
    "search": ("search", "mira", "fox"),
    "export": ("export", "mira"),
    "evict": ("evict", "mira"),
    "rehydrate": ("rehydrate", "mira"),
    "forget": ("forget", "mira", "--yes"),
    "import": ("import", "-"),
    "bench": ("bench", "--yes"),
}
MESSAGE = '{"type": "message", "agent": "mira", "role": "user", "content": "hello"}'


@pytest.fixture
def nowhere(tmp_path: Path) -> tuple[str, str]:
    """URLs at which nobody answers."""
    return f"unix://{tmp_path}/r.sock", f"postgresql:///banshee?host={tmp_path}"


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_servers_that_are_down(words: tuple[str, ...], nowhere: tuple[str, str]) -> None:
    done = ran_here(*words, urls=nowhere, stdin=MESSAGE)
    assert done.exit_code == 1
    assert "Is it running" in " ".join(done.output.split())


@pytest.mark.parametrize("command", ["flush", "doctor", "show", "import", "bench"])
def test_a_process_whose_servers_are_down(command: str, nowhere: tuple[str, str]) -> None:
    done = ran(*COMMANDS[command], urls=nowhere, stdin=MESSAGE)
    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert "Traceback" not in said
    assert "Is it running" in " ".join(said.split())


def test_one_url_without_the_other() -> None:
    done = ran("--redis-url", "redis://127.0.0.1:1/0", "stats")
    assert done.returncode == 1
    assert done.stderr == (
        "banshee: REDIS_URL is set but DATABASE_URL is not: set both, or neither to use the embedded servers\n"
    )


WRONG = {
    "no such command": ("feel",),
    "no such option": ("stats", "--colour"),
    "no such file": ("import", "no such file.jsonl"),
    "a blank agent": ("show", " "),
    "a blank query": ("search", "mira", " "),
    "no number": ("show", "mira", "--messages", "many"),
    "too few": ("show", "mira", "--messages", "0"),
    "a folder and a URL": ("--data-dir", "x", "--redis-url", "redis://h", "stats"),
}


@pytest.mark.parametrize("words", WRONG.values(), ids=WRONG)
def test_wrong_use(words: tuple[str, ...], urls: tuple[str, str]) -> None:
    done = ran_here(*words, urls=urls)
    assert done.exit_code == 2
    assert done.stderr


@pytest.mark.parametrize("wrong", ["no such command", "a blank agent"])
def test_wrong_use_of_a_process(wrong: str, urls: tuple[str, str]) -> None:
    done = ran(*WRONG[wrong], urls=urls)
    assert done.returncode == 2
    assert done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_has_gone(urls: tuple[str, str]) -> None:
    ran("import", "-", urls=urls, stdin="\n".join([MESSAGE] * 2_000))
    with subprocess.Popen(
        [*COMMAND, "export", "mira"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(urls)
    ) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""


def test_interrupted(urls: tuple[str, str]) -> None:
    # It waits for the rest of its input.
    with subprocess.Popen(
        [*COMMAND, "import", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(urls),
    ) as process:
        assert process.stdin
        assert process.stderr
        wait_until_it_reads(process)
        process.send_signal(signal.SIGINT)
        said = process.stderr.read().decode()
    assert process.returncode == 130
    assert said == "banshee: interrupted\n"


def wait_until_it_reads(process: subprocess.Popen[bytes]) -> None:
    """Waits until the pipe to a process is empty again after something went in."""
    import fcntl
    import struct
    import termios

    assert process.stdin
    process.stdin.write(b"\n")
    process.stdin.flush()
    deadline = time.monotonic() + 30
    while struct.unpack("i", fcntl.ioctl(process.stdin, termios.FIONREAD, b"\0" * 4))[0]:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_daemon_s_help_needs_no_server() -> None:
    with started("daemon", "--help") as process:
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "Usage: banshee daemon" in out
