"""`hfc doctor`: whether this machine can do it."""

from dataclasses import asdict
from pathlib import Path

import click

from cli.output import Command, answer, say


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
    """Look whether this machine can do it.

    Versions, device, image decoders, free disk, model hub, weights in packages, and a self-test. Ends with 1 if
    something is broken. A hub out of reach or no GPU is no fault: hfc works without.

    \b
    Example:
      hfc doctor
    """
    from hfc.doctor import BROKEN, examine

    checks = []
    for check in examine(out):
        checks.append(check)
        say(f"  {check.state:<7} {check.name:<10} {check.found}")
    broken = any(check.state == BROKEN for check in checks)
    answer({"ok": not broken, "checks": [asdict(check) for check in checks]})
    if broken:
        context.exit(1)
