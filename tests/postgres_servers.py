"""A PostgreSQL that a test starts, kills, limits, and starts again on what it left."""

from __future__ import annotations

from pathlib import Path

from banshee_memory.embedded import postgres as embedded
from banshee_memory.embedded.folders import DataFolder
from tests.servers import limit_files, programs


class PostgresServer(embedded.Postgres):
    """One in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        data = DataFolder(folder)
        data.create()
        super().__init__(data, programs().postgres_bin)
        self._sockets = data.path

    @property
    def database_url(self) -> str:
        """Of its database."""
        return self.url(self._sockets)

    def command(self, sockets: Path) -> list[str]:
        # What a process wrote outlives it; only a machine that dies needs more.
        return [*super().command(sockets), "-c", "fsync=off"]

    def begin(self) -> str:
        """Starts it on what it has, and waits until it takes clients; the URL of its database."""
        self.acquire()
        self.prepare()
        self.start(self._sockets)
        self.wait(self._sockets)
        return self.database_url

    def end(self) -> None:
        """SIGKILL to the postmaster; its processes notice and end."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        self.release()

    def die(self) -> None:
        """The same. It is back when this returns."""
        self.end()
        self.begin()

    def limit_files(self, size: int | None) -> None:
        """No file may grow beyond that many bytes; None: any size. For who connects from now on, too."""
        postmaster = self._started().pid
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        for pid in (postmaster, *map(int, children)):
            limit_files(pid, size)
