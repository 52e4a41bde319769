"""The program: its commands, its log and its exit codes."""

import errno
import logging
import sys
from typing import Any

import click

from cli.ablation import ablation
from cli.curve import curve
from cli.demo import demo
from cli.doctor import doctor
from cli.export import export
from cli.extract import extract
from cli.inspect import inspect
from cli.output import loudness, one_line, ready_streams, watch
from cli.predict import predict
from cli.rename import rename
from cli.report import report
from cli.review import review
from cli.runs import runs
from cli.sample import sample
from cli.sweep import sweep
from cli.train import train
from cli.verify import verify
from hfc import __version__
from hfc.errors import HfcError, StoppedError
from hfc.progress import watched_by

INTERRUPTED = 130
NO_TEMPORARY = "; set TMPDIR to a folder that can be written to"
OUT_OF_MEMORY = (
    "out of memory; close other programs, or use a machine with more memory. Less memory is needed with a lower "
    "--batch-size, --workers or --shard-size (hfc extract) or with --stream (hfc train, hfc sweep)"
)
# Texts of torch's errors: on a CPU it has no error type of its own, and torch is not loaded here.
TORCH_OUT_OF_MEMORY = ("can't allocate memory", "out of memory")


class Program(click.Group):
    """Turns an HfcError into one line and exit code 1, an interrupt into 130."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run the program."""
        ready_streams()
        return super().main(*arguments, **options)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the commands in the order of the work."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands with their whole first sentences; click would cut them to the width of the terminal."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.get_short_help_str(1000)) for name, command in self.commands.items()])

    def invoke(self, ctx: click.Context) -> object:
        """Run the command that was asked for."""
        try:
            with watched_by(watch):
                return super().invoke(ctx)
        except StoppedError as error:
            click.echo(str(error), err=True)
            sys.exit(INTERRUPTED)
        except click.MissingParameter:
            raise
        except click.BadParameter as error:  # a value that cannot be: 1, as where --set, a file or hfc itself gives it
            raise click.ClickException(error.format_message()) from error
        except HfcError as error:
            raise click.ClickException(" ".join(str(error).split())) from error
        except OSError as error:
            if error.errno in (None, errno.EPIPE):  # nobody reads the output any more: click ends without a message
                raise
            where = f"{error.filename}: " if error.filename else ""
            advice = NO_TEMPORARY if "temporary directory" in str(error) else ""
            raise click.ClickException(one_line(f"{where}{error.strerror}{advice}")) from error
        except MemoryError as error:
            raise click.ClickException(OUT_OF_MEMORY) from error
        except RuntimeError as error:
            if not any(text in str(error).lower() for text in TORCH_OUT_OF_MEMORY):
                raise
            raise click.ClickException(OUT_OF_MEMORY) from error
        except KeyboardInterrupt:
            click.echo("\ninterrupted; run the same command again to go on where it stopped", err=True)
            sys.exit(INTERRUPTED)


@click.group(
    cls=Program,
    params=loudness(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, prog_name="hfc")
def main() -> None:
    """Hierarchical fashion classification: images -> feature cache -> runs -> report.

    \b
    Example, with photographs in folders that are named after their labels:
      hfc extract photos --out cache/own.h5
      hfc train cache/own.h5 --hierarchy tree.csv --out cache/runs/own
      hfc report cache/runs/own --out cache/report

    Exit codes: 0 done; 1 an error that you can correct, such as a bad setting, file or category; 2 wrong usage; 3 done,
    but some images failed; 130 interrupted.
    """
    logging.basicConfig(stream=sys.stderr, format="%(levelname)s: %(message)s")


for command in (  # in the order of the work
    demo,
    sample,
    extract,
    inspect,
    verify,
    review,
    train,
    sweep,
    ablation,
    curve,
    runs,
    report,
    predict,
    rename,
    export,
    doctor,
):
    main.add_command(command)
