"""The data directory, what lies where in it, and the short folder for sockets.

DATA/redis/             Valkey's append-only files
DATA/postgres/          the PostgreSQL cluster (postgres.new-* while it is being made)
DATA/logs/              redis.log, postgres.log, supervisor.log
DATA/locks/             redis, postgres: inherited by the servers; supervisor: by nobody
DATA/sockets            a link to the folder with the sockets, while there are any
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from banshee_memory.errors import ConfigurationError

CONTROL_SOCKET = "control.sock"
"""Where users connect to the supervisor."""

# sun_path holds 108 bytes on Linux and 104 on macOS and the BSDs, the closing zero included.
_LONGEST_SOCKET_PATH = 107 if sys.platform == "linux" else 103
_LONGEST_SOCKET_NAME = ".s.PGSQL.5432"
_LOG_TAIL_LINES = 12
_LOG_LIMIT = 1 << 20


class DataFolder:
    """The paths of one data directory. Making it writes nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.redis = path / "redis"
        self.postgres = path / "postgres"
        self.logs = path / "logs"
        self.locks = path / "locks"
        self.link = path / "sockets"

    def create(self) -> None:
        """Make what is missing, for its owner alone."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (self.redis, self.logs, self.locks):
            folder.mkdir(mode=0o700, exist_ok=True)

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def open_log(self, name: str) -> int:
        """A descriptor that appends to a log; one that has grown large is first put aside, once."""
        path = self.log(name)
        if path.exists() and path.stat().st_size > _LOG_LIMIT:
            path.replace(path.with_suffix(".log.1"))
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def log_tail(self, name: str) -> str:
        """The last lines of a log, for an error message."""
        try:
            lines = self.log(name).read_text("utf-8", "replace").splitlines()
        except OSError as exc:
            return f"(no log: {exc})"
        return "\n".join(f"  | {line}" for line in lines[-_LOG_TAIL_LINES:]) or "  | (the log is empty)"

    def sockets(self) -> Path | None:
        """The folder with the sockets, where it is still one that nobody else can have made.

        After a reboot the link may point into a cleared temporary directory, in which any user could make a
        folder of that name; hence the look at owner and mode.
        """
        try:
            folder = self.link.readlink()
            found = folder.lstat()
            owners = {os.geteuid(), self.path.stat().st_uid}
        except OSError:
            return None
        private = stat.S_ISDIR(found.st_mode) and not found.st_mode & 0o022
        return folder if private and found.st_uid in owners else None

    def new_sockets(self) -> Path:
        """A new, empty folder for sockets, linked from here; the one before is removed."""
        before = self.sockets()
        if before is not None:
            self.drop_sockets(before)
        self.link.unlink(missing_ok=True)
        folder = _short_folder()
        self.link.symlink_to(folder)
        return folder

    def drop_sockets(self, folder: Path) -> None:
        """Remove a folder with sockets, and the link. Only under the supervisor's lock."""
        if folder.name.startswith("banshee-"):
            shutil.rmtree(folder, ignore_errors=True)
        self.link.unlink(missing_ok=True)


def default_data_dir() -> Path:
    """BANSHEE_DATA_DIR, else the platform's folder for the data of a user."""
    chosen = os.environ.get("BANSHEE_DATA_DIR")
    if chosen:
        return Path(chosen)
    try:
        import platformdirs
    except ImportError as exc:
        raise ConfigurationError(
            "platformdirs is not installed. Set BANSHEE_DATA_DIR, or: pip install 'banshee-memory[embedded]'"
        ) from exc
    return Path(platformdirs.user_data_dir("banshee-memory", appauthor=False))


def _short_folder() -> Path:
    for parent in _parents():
        if "," in str(parent):  # libpq takes it for a list of hosts
            continue
        try:
            folder = Path(tempfile.mkdtemp(prefix="banshee-", dir=parent))
        except OSError:
            continue
        if len(os.fsencode(folder / _LONGEST_SOCKET_NAME)) <= _LONGEST_SOCKET_PATH:
            return folder
        folder.rmdir()
    raise ConfigurationError(
        "No folder for sockets: neither XDG_RUNTIME_DIR nor the temporary directory is writable, without a comma, "
        f"and short enough (a socket path may have {_LONGEST_SOCKET_PATH} bytes). Set TMPDIR to a short path."
    )


def _parents() -> Iterator[Path]:
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    # A folder that sudo left from another user goes away when that user logs out.
    if runtime and Path(runtime).is_dir() and Path(runtime).stat().st_uid == os.geteuid():
        yield Path(runtime)
    yield Path(tempfile.gettempdir())
    yield Path("/tmp")  # where TMPDIR itself is long
