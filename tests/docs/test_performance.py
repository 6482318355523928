"""The page about speed: the plot is of the numbers that are kept, and every table has its place and its command."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "performance.md").read_text("utf-8")
PLOT = ROOT / "docs" / "performance.svg"
SCRIPTS = ("run", "scaling", "footprint", "hotspots")
PLACES = ("promises", "operations", "instructions", "scaling", "resident", "bytes", "sizing")
SVG = "{http://www.w3.org/2000/svg}"


def test_the_plot_is_of_the_numbers_that_are_kept() -> None:
    cases = json.loads((ROOT / "bench" / "results" / "hot.json").read_text("utf-8"))["cases"]
    drawn = ET.fromstring(PLOT.read_text("utf-8"))
    told = [text.text for text in drawn.iter(f"{SVG}text") if text.get("class") == "axis"]
    assert sorted(text for text in told if text and "µs" not in text) == sorted(f"{c['p50']:,.1f}" for c in cases)
    assert len(list(drawn.iter(f"{SVG}rect"))) == len(cases)
    assert "prefers-color-scheme: dark" in PLOT.read_text("utf-8")


def test_the_table_is_of_the_numbers_that_are_kept() -> None:
    kept = json.loads((ROOT / "bench" / "results" / "hot.json").read_text("utf-8"))
    assert kept["under"] in PAGE
    for case in kept["cases"]:
        assert f"| {case['operation']} | {case['case']} | {case['p50']:.1f} | {case['p10']:.1f} |" in PAGE


@pytest.mark.parametrize("place", PLACES)
def test_every_table_is_there(place: str) -> None:
    assert re.search(rf"^<!-- {place} -->\n([^|<].*\n|\n)*\|.*\n\|[-:|]+\|\n\|", PAGE, re.MULTILINE), place


@pytest.mark.parametrize("script", SCRIPTS)
def test_each_command_of_the_page_is_there(script: str) -> None:
    assert f"bench/{script}.py" in PAGE + (ROOT / "Makefile").read_text("utf-8")
    words = [sys.executable, f"bench/{script}.py", "--help"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert "--write" in done.stdout
