"""The statements of the `.sql` files, by name. Values are parameters and never pasted into one; only the language of a
search, which is a name, becomes part of one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

_HEADER = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)
_PARAMETER = re.compile(r"%\((\w+)\)s")


class Statement(NamedTuple):
    """A statement as PostgreSQL gets it, and the line or two that say what it does."""

    sql: str
    description: str


def _parsed(text: str) -> Mapping[str, Statement]:
    _, *parts = _HEADER.split(text)
    return {name: _statement(body) for name, body in zip(parts[::2], parts[1::2], strict=True)}


def _statement(body: str) -> Statement:
    lines = body.strip().splitlines()
    said = [line.removeprefix("--").strip() for line in lines if line.startswith("--")]
    sql = "\n".join(line for line in lines if not line.startswith("--"))
    return Statement(sql.rstrip(";"), " ".join(said))


def statements(file: str) -> Mapping[str, Statement]:
    """Those of that file of this folder."""
    return _parsed(Path(__file__).with_name(file).read_text("utf-8"))


STATEMENTS = statements("queries.sql")


@cache
def numbered(sql: str) -> tuple[bytes, tuple[str, ...]]:
    """A statement with its parameters as the protocol has them, `$1` and so on, and their names in that order."""
    names: dict[str, int] = {}
    text = _PARAMETER.sub(lambda found: f"${names.setdefault(found[1], len(names) + 1)}", sql)
    return text.replace("%%", "%").encode(), tuple(names)


@cache
def in_language(name: str, language: str) -> str:
    """That statement with its `language` as a constant: a parameter's value is none that an index could be of."""
    constant = "'" + language.replace("'", "''").replace("%", "%%") + "'"
    return STATEMENTS[name].sql.replace("%(language)s", constant)
