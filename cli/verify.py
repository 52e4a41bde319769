"""`hfc verify`: whether a feature cache is whole."""

from pathlib import Path

import click

from cli.output import Command, one_line, print_json, say
from hfc.errors import StoreError

RECORDED = ""  # in place of a folder: the one that the cache records


@click.command(cls=Command)
@click.argument("cache", type=click.Path(path_type=Path))
@click.option(
    "--images",
    is_flag=False,
    flag_value=RECORDED,
    metavar="[ROOT]",
    help="Compare every image with its row, too. ROOT is the folder, ZIP or TAR archive where image paths in CACHE "
    "begin; without it, as CACHE has it.",
)
def verify(cache: Path, images: str | None) -> None:
    """Check every checksum in CACHE.

    The shards of an unfinished cache are checked too. With --images every file is read and compared with the SHA-256 of
    its row. If anything is damaged, changed or missing, the command says what it is, and the exit code is 1.

    \b
    Examples:
      hfc verify cache/own.h5
      hfc verify cache/own.h5 --images
    """
    from hfc.store import problems

    damage = list(problems(cache))
    changed = _changed(cache, images) if images is not None and not damage else []
    record: dict[str, object] = {"path": cache, "problems": damage}
    print_json(record if images is None else {**record, "changed": changed})
    for problem in damage[:-1]:
        say(problem, err=True)
    if damage:
        raise StoreError(damage[-1] + (f" ({len(damage)} problems in all)" if len(damage) > 1 else ""))
    say(f"{cache}: every checksum is right")
    for name, reason in changed:
        say(one_line(f"  {name}: {reason}"))
    if changed:
        raise StoreError(
            f"{cache}: {len(changed)} images are not those that it was made of; hfc extract brings it up to date"
        )
    if images is not None:
        say(f"{cache}: every image is the one that its row was made of")


def _changed(cache: Path, images: str | None) -> list[tuple[str, str]]:
    """Id and reason of every row whose image changed or is missing."""
    from hfc.datasets.reading import is_part
    from hfc.extract.fingerprints import compare
    from hfc.store import FeatureStore

    with FeatureStore(cache) as store:
        table = store.table()
    if table.fingerprints is None:
        raise StoreError(
            f"{cache}: made by an earlier version of hfc, which did not keep what tells whether an image has changed; "
            "hfc extract does so when it brings the cache up to date"
        )
    root = table.regions.root if images == RECORDED else Path(images or "")
    if not (root.exists() or is_part(root)):
        raise StoreError(f"{root}: no such folder, in which the images of {cache} were; give --images ROOT")
    return compare(table, root)
