"""`hfc doctor`: whether this machine can run hfc."""

from pathlib import Path

import click

from cli.output import Command, print_json, say


@click.command(cls=Command)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("cache"),
    show_default=True,
    help="The folder for caches and runs.",
)
@click.pass_context
def doctor(context: click.Context, out: Path) -> None:
    """Check whether this machine can run hfc.

    Checks versions, device, image decoders, free disk space, model hub and weights in installed packages, and runs a
    self-test. The exit code is 1 if something is broken. A missing GPU or an unreachable hub breaks nothing: hfc works
    without them.

    \b
    Example:
      hfc doctor
    """
    from hfc.doctor import BROKEN, examine

    findings = []
    for finding in examine(out):
        findings.append(finding)
        say(f"  {finding.state:<7} {finding.name:<10} {finding.text}")
    broken = any(finding.state == BROKEN for finding in findings)
    print_json({"ok": not broken, "checks": [finding.to_json() for finding in findings]})
    if broken:
        context.exit(1)
