"""Servers for tests that break, fill or slow down what they use: a Redis of their own, a database of their own."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import psycopg
import redis
from psycopg import sql

from banshee_memory.cold.migrate import migrate
from banshee_memory.embedded.binaries import bundled
from banshee_memory.settings import Settings

CLOCK = Path(__file__).with_name("clock.lua").read_text()
"""The clock of the test build of the Lua library: time stands at the key `CLOCK_KEY`, where that is set."""
CLOCK_KEY = "banshee:test:clock"


@contextmanager
def own_redis(like: str) -> Iterator[str]:
    """The URL of a new, empty server: the program that serves `like`, or the bundled one where that is elsewhere."""
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        socket = Path(folder, "s")
        settings: list[str | Path] = [
            "--port",
            "0",
            "--unixsocket",
            socket,
            "--dir",
            folder,
            "--save",
            "",
            "--logfile",
            "log",
        ]
        with subprocess.Popen([program_of(like), *settings], stdin=subprocess.DEVNULL) as process:
            try:
                url = f"unix://{quote(str(socket))}"
                wait_for(url)
                with redis.Redis.from_url(url) as client:
                    make_logs(client)
                yield url
            finally:
                process.kill()


def make_logs(client: redis.Redis) -> None:
    """What seeding does where PostgreSQL has nothing: an empty log for every shard there may be."""
    for shard in range(64):
        log = f"banshee:{{{shard}}}:log"
        client.xadd(log, {"k": ""}, id="0-1")
        client.xdel(log, "0-1")


def program_of(like: str) -> Path:
    """The program that serves that URL, or the bundled one where that is elsewhere."""
    with redis.Redis.from_url(like) as client:
        serving = Path(str(client.info("server").get("executable", "")))
    return serving if serving.is_file() else bundled().redis_server


def wait_for(url: str) -> None:
    """Waits until a server answers that was started just now."""
    deadline = time.monotonic() + 30
    with redis.Redis.from_url(url) as client:
        while True:
            try:
                client.ping()
                return
            except redis.ConnectionError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.005)


@contextmanager
def own_database(beside: str, settings: Settings) -> Iterator[str]:
    """The URL of a new, migrated database on the server of that URL."""
    with empty_database(beside) as url:
        migrate(url, settings)
        yield url


@contextmanager
def empty_database(beside: str) -> Iterator[str]:
    """The URL of a new database on the server of that URL, with nothing in it."""
    name = f"own_{uuid4().hex}"
    with psycopg.connect(beside, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        # Nobody pulls the plug of this one.
        connection.execute(sql.SQL("ALTER DATABASE {} SET synchronous_commit = off").format(sql.Identifier(name)))
        try:
            yield psycopg.conninfo.make_conninfo(beside, dbname=name)
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
