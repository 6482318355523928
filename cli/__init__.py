"""The command line: `banshee`. It composes the rest of the package and draws; whatever it can do, Python can do too.

Modules of commands import what they draw and connect with inside of the commands, so that `banshee --help` is quick.
"""

from __future__ import annotations

from pathlib import Path

import click

from banshee_memory import __version__
from banshee_memory.cli import agents, bench, demo, files, letters, operating
from banshee_memory.cli.faults import Commands
from banshee_memory.cli.target import Target


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--redis-url", metavar="URL", help="Redis or Valkey: redis://, rediss:// or unix:// (else REDIS_URL).")
@click.option("--database-url", metavar="URL", help="PostgreSQL: postgresql:// (else DATABASE_URL).")
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Use the embedded servers, with their data here (else BANSHEE_DATA_DIR, or your user data folder).",
)
@click.version_option(__version__, prog_name="banshee")
@click.pass_context
def main(ctx: click.Context, redis_url: str | None, database_url: str | None, data_dir: Path | None) -> None:
    """The memory of agents that feel: hot in Redis, whole in PostgreSQL.

    Where no servers are named, by option or environment, the embedded ones are used. AGENT is a UUID, or any name,
    which stands for a UUID made of it. Exits 0 if all went well, 1 if not, 2 if the command was wrong.
    """
    if data_dir is not None and (redis_url or database_url):
        raise click.UsageError("--data-dir is for the embedded servers: it goes with neither URL.")
    ctx.obj = Target(redis_url, database_url, data_dir)


for command in (
    *demo.COMMANDS,
    *files.COMMANDS,
    *agents.COMMANDS,
    *operating.COMMANDS,
    *bench.COMMANDS,
    *letters.COMMANDS,
):
    main.add_command(command)
