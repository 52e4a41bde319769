"""`hfc rename`: other names for a run's categories."""

from pathlib import Path

import click

from cli.output import Command, one_line, print_json, say


@click.command(cls=Command)
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("names", type=click.Path(path_type=Path))
@click.option(
    "--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="The folder of the new run."
)
def rename(run: Path, names: Path, out: Path) -> None:
    """Give the categories of RUN other names.

    Nothing is trained: weights, predictions and measures are copied as they are. NAMES is a CSV file with the columns
    old,new and a row for each node of the tree to rename, a leaf or a group; all others keep their names. Of a name
    that several nodes have, give the path, such as "Apparel > Other". Two nodes of different names cannot get the same.

    \b
    Example:
      hfc rename cache/runs/own/flat+ps--tree--seed0--1a2b3c4d names.csv --out model/renamed
    """
    from hfc.predict.rename import rename_run

    renamed, wanted = rename_run(run, names, out)
    for old, new in wanted.items():
        say(one_line(f"{old} -> {new}"))
    say(f"{out}: {run} with {len(wanted)} other names; next: hfc predict {out} IMAGE")
    print_json({"run": run, "folder": renamed.folder, "renamed": wanted})
