"""Failpoints: the named places between two durable writes at which a process can die.

Each is one line where it lies, `failpoint("flush.committed")`, and does nothing until a test arms it: then the test is
told the name, and kills the process, or lets others run first. `tests.failpoints` lists them all from the source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Reached = Callable[[str], None]
_reached: Reached | None = None


def failpoint(name: str) -> None:
    """Says that this place is reached. `name` is a literal, `<operation>.<what was just done>`."""
    if _reached is not None:
        _reached(name)


@contextmanager
def armed(reached: Reached) -> Iterator[None]:
    """Tells `reached` of every failpoint of this process while the block runs."""
    global _reached  # noqa: PLW0603 - one for the process, like the death that it stands for
    before, _reached = _reached, reached
    try:
        yield
    finally:
        _reached = before
