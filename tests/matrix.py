"""Run the tests on a second pair of servers: the oldest supported, where their programs are on this machine.

python tests/matrix.py [arguments for pytest]
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from banshee_memory.embedded import Binaries, Servers, start

# Debian, Fedora, Homebrew; every version has a folder of its own there.
_POSTGRES_FOLDERS = ("usr/lib/postgresql/*/bin", "usr/pgsql-*/bin", "opt/homebrew/opt/postgresql@*/bin")
_ROOT = Path(__file__).parent.parent
_OLDEST_POSTGRES, _OLDEST_REDIS = 15, 7


def main(arguments: list[str]) -> int:
    """The status of pytest on the second pair; 0 where there is none."""
    binaries = second_pair()
    if binaries is None:
        print("matrix: no second pair of servers on this machine; nothing run")
        return 0
    print(f"matrix: {_version(binaries.redis_server)}; {_version(binaries.postgres_bin / 'postgres')}", flush=True)
    with tempfile.TemporaryDirectory(prefix="matrix-") as folder:
        data_dir = Path(folder, "data")
        try:
            with start(data_dir, binaries=binaries) as servers:
                return run_pytest(servers, arguments)
        finally:
            wait_until_stopped(data_dir)


def run_pytest(servers: Servers, arguments: list[str]) -> int:
    """The status of pytest, which knows no other servers than these."""
    urls = {"BANSHEE_TEST_REDIS_URL": servers.redis_url, "BANSHEE_TEST_DATABASE_URL": servers.database_url}
    command = [sys.executable, "-m", "pytest", *arguments]
    return subprocess.run(command, cwd=_ROOT, env={**os.environ, **urls}, check=False).returncode


def wait_until_stopped(data_dir: Path) -> None:
    """The servers still write to their folder as they end; it is removed only then."""
    deadline = time.monotonic() + 30
    while (data_dir / "sockets").is_symlink() and time.monotonic() < deadline:
        time.sleep(0.02)


def second_pair() -> Binaries | None:
    """A Redis of the machine, and the oldest of its PostgreSQLs that is supported."""
    redis = shutil.which("redis-server")
    found = sorted((_major(_version(folder / "postgres")), folder) for folder in postgres_folders())
    supported = [folder for major, folder in found if major >= _OLDEST_POSTGRES]
    if redis is None or not supported or _major(_version(Path(redis)).partition("v=")[2]) < _OLDEST_REDIS:
        return None
    return Binaries(redis_server=Path(redis), postgres_bin=supported[0])


def postgres_folders() -> Iterator[Path]:
    """Folders with the real `initdb` and `postgres` side by side, not links or wrappers to them."""
    candidates = {folder for pattern in _POSTGRES_FOLDERS for folder in Path("/").glob(pattern)}
    config = shutil.which("pg_config")
    if config is not None:
        said = subprocess.run([config, "--bindir"], capture_output=True, text=True, check=False)
        candidates.add(Path(said.stdout.strip()))
    program = shutil.which("postgres")
    if program is not None:
        candidates.add(Path(program).resolve().parent)
    for folder in candidates:
        if (folder / "initdb").is_file() and (folder / "postgres").is_file():
            yield folder


def _version(program: Path) -> str:
    return subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout.strip()


def _major(text: str) -> int:
    number = re.search(r"\d+", text)
    return int(number[0]) if number else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
