"""The program: its commands, its log and its exit codes."""

import logging
import sys

import click

from cli.ablation import ablation
from cli.demo import demo
from cli.export import export
from cli.extract import extract
from cli.inspect import inspect, verify
from cli.predict import predict
from cli.report import report
from cli.sample import sample
from cli.sweep import sweep
from cli.train import train
from hfc import __version__
from hfc.errors import HfcError, StoppedError

INTERRUPTED = 130
OUT_OF_MEMORY = (
    "out of memory; close other programs or take a larger machine. hfc extract takes a lower --batch-size, "
    "--workers or --shard-size, hfc train and hfc sweep --stream"
)
TORCH_OUT_OF_MEMORY = "can't allocate memory"  # torch has no error type of its own for it on a CPU


class Program(click.Group):
    """Turns an HfcError into one line and exit code 1, and an interrupt into exit code 130: in this one place."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except StoppedError as error:
            click.echo(str(error), err=True)
            sys.exit(INTERRUPTED)
        except HfcError as error:
            raise click.ClickException(" ".join(str(error).split())) from error
        except MemoryError as error:
            raise click.ClickException(OUT_OF_MEMORY) from error
        except RuntimeError as error:
            if TORCH_OUT_OF_MEMORY not in str(error):
                raise
            raise click.ClickException(OUT_OF_MEMORY) from error
        except KeyboardInterrupt:
            click.echo("\ninterrupted; run the same command again to go on where it stopped", err=True)
            sys.exit(INTERRUPTED)


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="hfc")
@click.option("-v", "--verbose", is_flag=True, help="Say more on the way.")
def main(verbose: bool) -> None:
    """Hierarchical fashion classification in two stages.

    \b
    hfc extract   images -> feature cache   (once, on the GPU)
    hfc train     feature cache -> runs     (seconds a run)
    hfc report    runs -> results tables
    hfc predict   a run, images -> paths in the tree
    hfc export    a run -> ONNX graph, Hugging Face folder
    hfc sweep     settings found on validation
    hfc ablation  every method tuned alike and tested
    hfc inspect, hfc verify   what is in a cache, and whether it is whole

    Exit codes: 0 done; 1 an error you can mend; 2 wrong usage; 3 done, but some images failed; 130 interrupted.
    """
    logging.basicConfig(
        stream=sys.stderr,
        format="%(levelname)s: %(message)s",
        level=logging.INFO if verbose else logging.WARNING,
    )


for command in (sample, extract, inspect, verify, sweep, ablation, train, report, predict, export, demo):
    main.add_command(command)
