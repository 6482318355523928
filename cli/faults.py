"""How a command ends: 0 well, 1 not, 2 used wrongly, 130 interrupted; in words, never with a traceback for what a user
or a server that is down can cause."""

from __future__ import annotations

import errno
from typing import Any, NoReturn

import click

from banshee_memory.errors import BansheeError, InvalidInput

FAILED = 1
MISUSED = 2
INTERRUPTED = 130


class Commands(click.Group):
    """The group that turns errors into words and exit codes."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except InvalidInput as exc:
            _end(ctx, exc, MISUSED)
        except BansheeError as exc:
            _end(ctx, exc, FAILED)
        except OSError as exc:
            if exc.errno == errno.EPIPE:
                raise  # click ends quietly
            _end(ctx, exc, FAILED)
        except KeyboardInterrupt:
            click.echo("banshee: interrupted", err=True)
            ctx.exit(INTERRUPTED)


def _end(ctx: click.Context, exc: Exception, code: int) -> NoReturn:
    for said in (str(exc), *getattr(exc, "__notes__", ())):
        click.echo(f"banshee: {said}", err=True)
    ctx.exit(code)
