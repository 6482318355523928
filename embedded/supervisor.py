"""The process that runs the two servers for all users of one data directory.

    user ──┐  one open connection each                       ┌── Valkey      holds locks/redis
    user ──┼──────────────▶ supervisor ── starts, watches ──▶┤
    user ──┘  (control.sock)   holds locks/supervisor        └── PostgreSQL  holds locks/postgres

* The connection is the use: the kernel closes it however a user dies. When none has been open for half a second,
  the servers are shut down and the supervisor ends.
* It is started by the first user, which is its first connection (a socket pair). Of several that start at once,
  one gets the lock; the others wait for it until their own user, served by the first, hangs up.
* Greeting a user and deciding to leave happen in one thread: a user that is greeted is served. One that comes while
  the supervisor leaves sees its connection close ungreeted, and starts another, which waits for the locks.
* A server that dies is started again under its own lock, in the same sockets folder, so that URLs stay good. Where
  that fails, or happens too often, everything stops and the next start begins anew, or says why it cannot.
* If the supervisor is killed, the kernel tells the servers to shut down (Linux); elsewhere the next supervisor
  tells them. Either way the next one waits for their locks before it starts its own, and removes the sockets that
  were left. Users see their connections break, and call `start` again.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from pathlib import Path

from banshee_memory.embedded.failure import StartError, note
from banshee_memory.embedded.folders import DataFolder
from banshee_memory.embedded.identity import settle
from banshee_memory.embedded.locks import FileLock
from banshee_memory.embedded.pair import Pair
from banshee_memory.embedded.postgres import Postgres
from banshee_memory.embedded.users import Users, wait_for_turn
from banshee_memory.embedded.valkey import Valkey
from banshee_memory.errors import ConfigurationError


def main() -> None:
    """Serve the user whose connection is inherited, and all that join, until the last has gone."""
    options = _options()
    first = socket.socket(fileno=options.user)
    first.set_inheritable(False)
    if os.fork() != 0:  # nobody's child: the user need not reap it, nor does it lead a session
        os._exit(0)
    data = DataFolder(options.data_dir)
    try:
        _settle(data)
    except StartError as exc:
        Users(first).fail(str(exc))
        return
    except OSError as exc:
        Users(first).fail(f"The data directory {data.path} cannot be used: {exc}")
        return
    with FileLock(data.locks / "supervisor") as lock:
        if wait_for_turn(lock, first):
            _serve(
                data,
                Pair([Valkey(data, options.redis_server), Postgres(data, options.postgres_bin)]),
                Users(first),
            )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Runs the embedded servers of one data directory.")
    parser.add_argument("--user", type=int, required=True, help="descriptor of the first user's connection")
    parser.add_argument("--redis-server", type=Path, required=True)
    parser.add_argument("--postgres-bin", type=Path, required=True)
    parser.add_argument("data_dir", type=Path)
    return parser.parse_args()


def _settle(data: DataFolder) -> None:
    """Become who may write there, and leave everything of the user's behind."""
    os.umask(0o077)
    settle(data.path)
    data.create()
    log = data.open_log("supervisor")
    os.dup2(log, sys.stdout.fileno())
    os.dup2(log, sys.stderr.fileno())
    os.close(log)
    os.chdir("/")


def _serve(data: DataFolder, pair: Pair, users: Users) -> None:
    sockets = None
    try:
        pair.acquire()
        sockets = data.new_sockets()
        users.listen(sockets)
        pair.start(sockets)
        users.greet(pair.urls(sockets))
        while users.wait():
            pair.revive(sockets)
    except (StartError, ConfigurationError, OSError) as exc:
        note(str(exc))
        users.fail(str(exc))
    finally:
        users.refuse_more()
        pair.stop()
        if sockets is not None:
            data.drop_sockets(sockets)
