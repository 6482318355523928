"""The interface of the Lua library is documented: no function is missing from its README, and none is only there."""

from __future__ import annotations

import re
from pathlib import Path

LUA = Path(__file__).parents[2] / "lua"


def test_every_function_is_in_the_readme() -> None:
    sources = "".join(path.read_text() for path in LUA.glob("*.lua"))
    defined = set(re.findall(r"function_name = 'banshee1_(\w+)'", sources))
    functions = (LUA / "README.md").read_text().partition("## Functions")[2]
    documented = set(re.findall(r"^\| `(\w+)`(?: R)? \|", functions, re.MULTILINE))
    assert len(defined) >= 20
    assert documented == defined


def test_every_error_of_ours_is_in_the_readme() -> None:
    sources = "".join(path.read_text() for path in LUA.glob("*.lua"))
    codes = set(re.findall(r"BANSHEE_[A-Z]+", sources))
    assert codes == set(re.findall(r"BANSHEE_[A-Z]+", (LUA / "README.md").read_text()))
