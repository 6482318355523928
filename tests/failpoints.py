"""All failpoints, read from the source, so that a new one cannot be forgotten."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import banshee_memory

PACKAGE = Path(banshee_memory.__file__).parent
LAYERS = ("tiering", "hot", "cold")


@cache
def failpoints() -> tuple[str, ...]:
    """The name of every failpoint, in order; a name that is no literal, or is given to two, is an error."""
    names = [name for path in _sources() for name in _named_in(path)]
    assert len(names) == len(set(names)), "two failpoints have one name"
    return tuple(sorted(names))


def _sources() -> list[Path]:
    return [
        *sorted(PACKAGE.glob("*.py")),
        *(path for layer in LAYERS for path in sorted((PACKAGE / layer).glob("*.py"))),
    ]


def _named_in(path: Path) -> list[str]:
    called = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
    names = []
    for call in called:
        if isinstance(call.func, ast.Name) and call.func.id == "failpoint":
            name = call.args[0]
            assert isinstance(name, ast.Constant), f"{path.name}:{call.lineno}: the name of a failpoint is a literal"
            assert isinstance(name.value, str)
            names.append(name.value)
    return names
