"""`hfc sample`: draw a small data set."""

from pathlib import Path

import click

from cli.options import settings
from hfc.config import SampleConfig, resolve


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@settings(SampleConfig, "images", "seed")
def sample(folder: Path, images: int | None, seed: int | None) -> None:
    """Draw garments into FOLDER, in DeepFashion's exact layout, to try everything without its images."""
    from tqdm import tqdm

    from hfc.datasets.sample import draw_sample

    given = {key: value for key, value in {"images": images, "seed": seed}.items() if value is not None}
    config = resolve(SampleConfig, given)
    with tqdm(total=config.images, unit="img", desc="draw", leave=False, disable=None) as bar:
        draw_sample(folder, images=config.images, seed=config.seed, progress=lambda done: bar.update(done - bar.n))
    click.echo(
        f"{folder}: {config.images} drawn pictures (seed {config.seed}); next: hfc extract {folder} --out FILE.h5"
    )
