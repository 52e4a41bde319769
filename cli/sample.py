"""`hfc sample`: draw a small data set."""

from pathlib import Path

import click

from cli.options import settings
from cli.output import Command, print_json, say
from hfc.config import SampleConfig, resolve


@click.command(cls=Command)
@click.argument("folder", type=click.Path(path_type=Path))
@settings(SampleConfig, "images", "seed")
def sample(folder: Path, images: int | None, seed: int | None) -> None:
    """Draw a data set in DeepFashion's layout.

    The garments are drawn by a program, so that you can try every command without DeepFashion's images. FOLDER must be
    new or empty.

    \b
    Example:
      hfc sample cache/sample --images 300
    """
    from hfc.sample import draw_sample

    given = {key: value for key, value in {"images": images, "seed": seed}.items() if value is not None}
    config = resolve(SampleConfig, given)
    draw_sample(folder, images=config.images, seed=config.seed)
    say(f"{folder}: {config.images} drawn pictures (seed {config.seed}); next: hfc extract {folder} --out FILE.h5")
    print_json({"folder": folder, "images": config.images, "seed": config.seed})
