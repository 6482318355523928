"""docs/cli.md, from the commands themselves. To write it anew: `python -m tests.cli.reference`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import click

from banshee_memory.cli import main

FILE = Path(__file__).parents[2] / "docs" / "cli.md"
INTRODUCTION = """\
<!-- Written by `python -m tests.cli.reference`; a test compares. -->

# The command line
"""


def page() -> str:
    """The whole page."""
    root = click.Context(main, info_name="banshee")
    parts = [INTRODUCTION, *described(main, root)]
    for name in sorted(main.commands):
        command = main.commands[name]
        ctx = click.Context(command, info_name=name, parent=root)
        parts += [f"\n## banshee {name}\n", *described(command, ctx)]
        for within, part in sorted(command.commands.items() if isinstance(command, click.Group) else ()):
            parts.append(f"\n### banshee {name} {within}\n")
            parts += described(part, click.Context(part, info_name=within, parent=ctx))
    return "\n".join(parts)


def described(command: click.Command, ctx: click.Context) -> Iterator[str]:
    """The usage of a command, its help and its options."""
    yield f"    {ctx.command_path} {' '.join(command.collect_usage_pieces(ctx))}\n"
    yield inspect.cleandoc(command.help or "") + "\n"
    options = [param for param in command.params if isinstance(param, click.Option)]
    records = [option.get_help_record(ctx) for option in options]
    yield from ("- `{}` — {}".format(*map(squeezed, record)) for record in records if record)


def squeezed(text: str) -> str:
    """The text with single spaces."""
    return " ".join(text.split())


if __name__ == "__main__":
    FILE.write_text(page(), "utf-8")
