"""Puts what was measured where it is told: a table into a page, between two marks, and its numbers into JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"
PERFORMANCE = ROOT / "docs" / "performance.md"


def put(page: Path, name: str, lines: Iterable[str]) -> None:
    """Replaces what stands between `<!-- name -->` and `<!-- /name -->`."""
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
    head, found, rest = page.read_text("utf-8").partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{page.name} has no place for {name!r}")
    page.write_text(head + begin + "\n".join(lines) + "\n" + end + tail, "utf-8")


def keep(name: str, results: dict[str, Any]) -> None:
    """Writes `bench/results/<name>.json`."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", "utf-8")


def kept(name: str) -> dict[str, Any]:
    """What was written last."""
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text("utf-8"))
    return found


def conditions() -> str:
    """What it is measured on, and what else that does: to be asked at the beginning."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    machine = f"{platform.machine()}, {os.cpu_count()} cores with a load of {os.getloadavg()[0]:.1f} at the beginning"
    return f"{python}; {machine}"
