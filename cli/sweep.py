"""`hfc sweep`: search for settings on validation."""

from pathlib import Path

import click

SHOWN = 10


@click.command()
@click.argument("cache", type=click.Path(path_type=Path))
@click.option("--grid", "file", required=True, type=click.Path(path_type=Path, dir_okay=False), help="A TOML file.")
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="The folder of findings.")
@click.option("--labels", type=click.Path(path_type=Path), help="As in hfc train.")
@click.option("--stream", is_flag=True, help="As in hfc train.")
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(min=1), help="Processes, a cache in each.")
def sweep(cache: Path, file: Path, out: Path, labels: Path | None, stream: bool, jobs: int) -> None:
    """Try settings on the validation split of CACHE; the test split is never looked at.

    The TOML file fixes settings at its top level (method, hierarchy, …), gives `seeds`, and lists in [grid] the values
    of each setting to combine, or in [random] lists or { low, high, log } to draw `trials` points from. OUT/best.toml
    is what hfc train --config takes. Stopped half way, the same command goes on where it was.
    """
    from tqdm import tqdm

    from hfc.sweep import BEST, read_sweep
    from hfc.sweep import sweep as stage

    plan = read_sweep(file)
    with tqdm(unit="run", dynamic_ncols=True, leave=False, disable=None) as bar:

        def report(done: int, total: int) -> None:
            bar.total, bar.n = total, done
            bar.update(0)

        found = stage(cache, plan, out, labels=labels, stream=stream, jobs=jobs, report=report)
    for trial in found[:SHOWN]:
        settings = "  ".join(f"{name}={value}" for name, value in trial.settings.items())
        click.echo(f"{100 * trial.score:6.2f} ± {100 * trial.spread:.2f}  {settings}")
    click.echo(f"{len(found)} points, {len(plan.seeds)} seeds each, on validation alone")
    click.echo(f"next: hfc train {cache} --config {out / BEST}")
