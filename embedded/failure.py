"""What goes wrong inside the supervisor; the user gets it as a `ConfigurationError` with the same words."""

from __future__ import annotations

import sys
import time


class StartError(Exception):
    """The servers cannot be started; the message is for the user."""


def note(text: str) -> None:
    """A line for the supervisor's log."""
    sys.stderr.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {text}\n")
    sys.stderr.flush()
