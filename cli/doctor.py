"""`hfc doctor`: whether this machine can do it."""

from dataclasses import asdict
from pathlib import Path

import click

from cli.output import Command, answer, say

BROKEN = 1


@click.command(cls=Command)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("cache"),
    show_default=True,
    help="Where caches and runs are to go.",
)
@click.pass_context
def doctor(context: click.Context, out: Path) -> None:
    """Look at this machine: versions, device, image decoders, free disk, model hub, and a self-test.

    Ends with 1 if something is broken. A hub out of reach or no GPU is no fault: hfc works without.

    \b
    Example:
      hfc doctor
    """
    from hfc.doctor import examine

    checks = []
    for check in examine(out):
        checks.append(check)
        say(f"  {'ok' if check.ok else 'BROKEN':<7} {check.name:<10} {check.found}")
    answer({"ok": all(check.ok for check in checks), "checks": [asdict(check) for check in checks]})
    if not all(check.ok for check in checks):
        context.exit(BROKEN)
