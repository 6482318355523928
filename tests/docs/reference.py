"""docs/api.md, from the public names and their docstrings. To write it anew: `python -m tests.docs.reference`.

Everything is read from the source, so that types and defaults stand as they were written.
"""

from __future__ import annotations

import ast
import enum
import inspect
import re
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, get_args

import banshee_memory
from banshee_memory import (
    AsyncMemoryPlugin,
    BansheeError,
    Emotion,
    EmotionalEvent,
    MemoryPlugin,
    aio_stores,
    emotions,
    errors,
    records,
    settings,
    stamps,
    stores,
    timeline,
)

FILE = Path(__file__).parents[2] / "docs" / "api.md"
STORES = {
    "emotions": (stores.EmotionStore, aio_stores.AsyncEmotionStore),
    "conversations": (stores.ConversationStore, aio_stores.AsyncConversationStore),
    "memories": (stores.MemoryManager, aio_stores.AsyncMemoryManager),
    "sessions": (stores.SessionStore, aio_stores.AsyncSessionStore),
    "dead_letters": (stores.DeadLetters, aio_stores.AsyncDeadLetters),
}
CLIENTS = (MemoryPlugin, AsyncMemoryPlugin)
_MOST = 100
_SHORT = re.compile(r"`([\w.]+)`\.")
_FACTORIES = {"datetime.now(UTC)": "now"}
INTRODUCTION = """\
<!-- Written by `python -m tests.docs.reference`; a test compares. -->

# The library

Everything here imports from `banshee_memory`. `UUID` is `uuid.UUID`; a `datetime` is timezone-aware, and comes back
in UTC. `Json` is what JSON can say: None, bool, 64-bit int, finite float, text, list, dict with text keys. Text is what
can be said in UTF-8 without NUL. `Mode` is `"add"` or `"set"`, `EventMode` also `"record"`; `Absence` is `"wall"`,
`"active"` or a `Capped`; a `Line` is a record of the import format. Where an `Emotion` is asked for, its name does as
well. Records are frozen `msgspec.Struct`s.
"""
EVENTS = """
`EmotionalEvent` is any of these. Types are checked, and that numbers are finite; the ranges are a convention. Each has
an `event_type`: its name in snake_case, or what a `CustomEvent` says.
"""


class Method(NamedTuple):
    """A public method as it is written."""

    name: str
    arguments: str
    returns: str
    doc: str
    is_property: bool

    def in_a_line(self) -> str:
        """As code."""
        return f"{self.name}({', '.join(_split(self.arguments))}) -> {self.returns}"

    def signature(self) -> str:
        """As code; an argument a line where it is long."""
        if self.is_property:
            return f"{self.name}: {self.returns}"
        line = self.in_a_line()
        if len(line) <= _MOST:
            return line
        parts = ",\n    ".join(_split(self.arguments))
        return f"{self.name}(\n    {parts},\n) -> {self.returns}"


class Field(NamedTuple):
    """A field as it is written."""

    name: str
    annotation: str
    default: str
    doc: str


def page() -> str:
    """The whole page."""
    parts = [INTRODUCTION, *_clients(), *_stores()]
    groups = {
        "Emotions": _names(emotions),
        "The past": _names(timeline),
        "Events": [name for name in _names(records) if is_event(name)],
        "Records": [name for name in _names(records) if not is_event(name) and not is_report(name)],
        "Reports": [name for name in _names(records) if is_report(name)],
        "Settings and durability": _names(settings) + _names(stamps),
        "Errors": _names(errors),
    }
    for title, names in groups.items():
        parts += [f"\n## {title}\n", *_opening(title)]
        for name in names:
            parts += _described(getattr(banshee_memory, name))
    parts.append("\n## Version\n\n`__version__` is the version of the package, as text.\n")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts))


def _opening(title: str) -> Iterator[str]:
    if title == "Events":
        yield EVENTS.lstrip()
    if title == "Errors":
        tree = (errors.__doc__ or "").partition("\n\n")[2].partition("\n\n")
        yield f"```text\n{textwrap.dedent(tree[0])}\n```\n\n{tree[2].strip()}\n"


# --- what there is ---


def _names(module: Any) -> list[str]:
    """The public names of a module, in its order."""
    named = [name for name in banshee_memory.__all__ if isinstance(getattr(banshee_memory, name), type)]
    own = [name for name in named if getattr(banshee_memory, name).__module__ == module.__name__]
    return sorted(own, key=lambda name: inspect.getsourcelines(getattr(banshee_memory, name))[1])


def is_event(name: str) -> bool:
    """Whether it is one of the events."""
    return getattr(banshee_memory, name) in get_args(EmotionalEvent)


def is_report(name: str) -> bool:
    """Whether it tells about the tiers, not about an agent."""
    return name.endswith("Report") or name in ("Health", "Stats", "Backlog", "Pace")


def _class(kind: type) -> ast.ClassDef:
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(tree, ast.ClassDef)
    return tree


@cache
def methods(kind: type) -> dict[str, Method]:
    """Its public methods and properties, in their order."""
    found = [node for node in _class(kind).body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    return {node.name: _method(node) for node in found if not node.name.startswith("_")}


def _method(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Method:
    node.args.args = node.args.args[1:]
    decorators = {ast.unparse(decorator) for decorator in node.decorator_list}
    returns = ast.unparse(node.returns) if node.returns else "None"
    doc = inspect.cleandoc(ast.get_docstring(node) or "")
    return Method(node.name, _code(node.args), returns, doc, "property" in decorators)


def fields(kind: type) -> list[Field]:
    """Its fields, each with the text that follows it."""
    body = _class(kind).body
    return [_field(node, after) for node, after in zip(body, [*body[1:], None], strict=True) if _is_field(node)]


def _is_field(node: ast.AST) -> bool:
    return isinstance(node, ast.AnnAssign) and not ast.unparse(node.target).startswith("_")


def _field(node: ast.AST, after: ast.AST | None) -> Field:
    assert isinstance(node, ast.AnnAssign)
    default = "" if node.value is None else _code(node.value)
    for factory, meaning in _FACTORIES.items():
        default = meaning if factory in default else default
    return Field(ast.unparse(node.target), _code(node.annotation), default, _text(after))


def _text(node: ast.AST | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return " ".join(node.value.value.split())
    return ""


def _code(node: ast.AST) -> str:
    """As it is written, with double quotes and thousands apart."""
    text = ast.unparse(node).replace("'", '"')
    return re.sub(r"\b\d{4,}\b(?!\.)", lambda number: f"{int(number[0]):_}", text)


def _split(arguments: str) -> list[str]:
    parsed = ast.parse(f"def f({arguments}): pass").body[0]
    assert isinstance(parsed, ast.FunctionDef)
    plain, split = parsed.args, []
    defaults = [None] * (len(plain.args) - len(plain.defaults)) + list(plain.defaults)
    split += [_argument(argument, default) for argument, default in zip(plain.args, defaults, strict=True)]
    if plain.kwonlyargs:
        split.append("*")
    split += [_argument(*pair) for pair in zip(plain.kwonlyargs, plain.kw_defaults, strict=True)]
    return split


def _argument(argument: ast.arg, default: ast.expr | None) -> str:
    return _code(argument) if default is None else f"{_code(argument)} = {_code(default)}"


# --- how it reads ---


def _clients() -> Iterator[str]:
    sync, awaited = CLIENTS
    own = methods(sync)
    yield f"\n## MemoryPlugin\n\n{_constructor(sync)}\n{_doc(sync)}\n"
    yield f"\n### AsyncMemoryPlugin\n\n{_doc(awaited)}\n\n{differences()}\n"
    yield "\n### Of both tiers"
    shorts = {name: short[1] for name, method in own.items() if (short := _SHORT.fullmatch(method.doc))}
    for name, method in own.items():
        if name not in shorts:
            yield _explained(method, "####")
    yield "\n### Short names\n\nWith the arguments that the original had, and none more.\n"
    yield "| of the plugin | is |\n|---|---|"
    yield from (f"| `{_cell(own[name].in_a_line())}` | `{full}` |" for name, full in shorts.items())


def differences() -> str:
    """What is not simply awaited."""
    pairs = [("", *CLIENTS), *((f"{name}.", *pair) for name, pair in STORES.items())]
    iterated, renamed = [], []
    for prefix, sync, awaited in pairs:
        own, other = methods(sync), methods(awaited)
        iterated += [f"`{prefix}{name}`" for name, method in other.items() if "AsyncIterator" in method.returns]
        renamed += [f"`{prefix}{name}`" for name in (*(other.keys() - own.keys()), *(own.keys() - other.keys()))]
    return (
        f"`async with` it, and {' for '.join(renamed)}. {' and '.join(iterated)} are async iterators.\n"
        "Its stores have the same methods as well."
    )


def _stores() -> Iterator[str]:
    for name, (kind, _) in STORES.items():
        yield f"\n## memory.{name}\n\n`{kind.__name__}`: {_doc(kind)}"
        for method in methods(kind).values():
            yield _explained(method, "###")


def _constructor(kind: type) -> str:
    init = next(node for node in _class(kind).body if isinstance(node, ast.FunctionDef) and node.name == "__init__")
    return _fenced(_method(init)._replace(name=kind.__name__, returns="").signature().removesuffix(" -> "))


def _explained(method: Method, level: str) -> str:
    return f"\n{level} {method.name}\n\n{_fenced(method.signature())}\n{method.doc}"


def _described(kind: type) -> Iterator[str]:
    yield f"### {kind.__name__}\n\n{_doc(kind)}\n"
    if kind is Emotion:
        yield _temperaments()
    elif issubclass(kind, enum.Enum):
        yield "| value | meaning |\n|---|---|"
        yield from (f'| `{name}` = `"{value}"` | {_cell(text)} |' for name, value, text in _values(kind))
        yield ""
    if not issubclass(kind, BansheeError):
        yield from _fields(kind)
    yield from _members(kind)


def _values(kind: type[enum.Enum]) -> Iterator[tuple[str, str, str]]:
    body = _class(kind).body
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.Assign):
            name = ast.unparse(node.targets[0])
            yield name, str(kind[name].value), _text(after)


def _temperaments() -> str:
    rows = [f"| `{e.name}` | `{e}` | {e.rate:g} | {e.valence:+d} | {e.arousal:g} |" for e in Emotion]
    return "\n".join(["| member | name | rate | valence | arousal |", "|---|---|---|---|---|", *rows, ""])


def _fields(kind: type) -> Iterator[str]:
    own = fields(kind)
    if not own:
        return
    yield "| field | type | default | meaning |\n|---|---|---|---|"
    for field in own:
        default = f"`{field.default}`" if field.default else ""
        yield f"| `{field.name}` | `{_cell(field.annotation)}` | {_cell(default)} | {_cell(field.doc)} |"
    yield ""


def _members(kind: type) -> Iterator[str]:
    for method in methods(kind).values():
        called = f".{method.name}: {method.returns}" if method.is_property else f".{method.in_a_line()}"
        yield f"- `{called}` — {' '.join(method.doc.split())}"
    if methods(kind):
        yield ""


def _doc(kind: type) -> str:
    return inspect.cleandoc(kind.__doc__ or "")


def _fenced(code: str) -> str:
    return f"```python\n{code}\n```\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    FILE.write_text(page(), "utf-8")
