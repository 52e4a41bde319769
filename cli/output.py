"""How commands print: text or JSON, loudly or quietly, with bars on a terminal.

A command prints text by `say` and its result by `print_json`; with --json only the result reaches stdout.
"""

import codecs
import io
import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tqdm import tqdm

    from hfc.runs import Rows

JSON, LOUDNESS = "hfc.json", "hfc.loudness"
LEVELS = {-1: logging.ERROR, 0: logging.WARNING, 1: logging.INFO}


def ready_streams() -> None:
    """Prepare the standard streams, so that no text and no closed stream ends the program."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:  # closed: the next file that is opened would take its number, and get what is printed
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - to the program's end
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A letter that the terminal does not have is written as its number.
            stream.reconfigure(errors="backslashreplace")


def _set_loudness(context: click.Context, parameter: click.Parameter, given: bool) -> None:
    if given:
        context.meta[LOUDNESS] = -1 if parameter.name == "quiet" else 1


def _set_json(context: click.Context, parameter: click.Parameter, given: bool) -> None:
    context.meta[JSON] = given


def loudness() -> list[click.Parameter]:
    """Make the options -v and -q, which the program and its commands take."""
    more: dict[str, Any] = {"is_flag": True, "expose_value": False, "callback": _set_loudness}
    return [
        click.Option(["-v", "--verbose"], help="Log how long each step took.", **more),
        click.Option(["-q", "--quiet"], help="Show no progress bars and no warnings.", **more),
    ]


# What people type for options that have another name here.
MEANT = {"--lr": "--learning-rate", "--bs": "--batch-size", "--tree": "--hierarchy", "--seed": "--seeds"}


class Command(click.Command):
    """A command with the options of all commands: --json, -v and -q."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if not any("--json" in parameter.opts for parameter in self.params):  # it may have one of its own
            what = "Print one JSON object instead of text."
            json_option = click.Option(["--json"], is_flag=True, expose_value=False, callback=_set_json, help=what)
            self.params.append(json_option)
        self.params += loudness()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the words; for an option that does not exist the right one is suggested, or the setting."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if not (meant := self._meant(error.option_name)):
                raise
            message = f"{error.message} Did you mean {meant!r}?"
            raise click.NoSuchOption(error.option_name, message, ctx=ctx) from None

    def _meant(self, option: str) -> str:
        """Find the option that has another name here, or the setting without one; "" where there is neither."""
        if any(MEANT.get(option) in parameter.opts for parameter in self.params):
            return MEANT[option]
        name, kinds = option.lstrip("-").replace("-", "_"), (getattr(p.type, "kind", None) for p in self.params)
        known = {spec.name for kind in kinds if kind for spec in fields(kind)}
        return f"--set {name}=VALUE" if name in known else ""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command with the verbosity that was asked for."""
        log = logging.getLogger()
        before = log.level
        log.setLevel(LEVELS[ctx.meta.get(LOUDNESS, 0)])
        try:
            return super().invoke(ctx)
        finally:
            log.setLevel(before)


def say(text: str, *, err: bool = False) -> None:
    """Print a line of text, unless JSON was asked for."""
    if err or not click.get_current_context().meta.get(JSON):
        with _above_bars():
            click.echo(text, err=err)


class RowsUsed:
    """Says which rows are used: those of several runs once."""

    def __init__(self) -> None:
        self.all: list[Rows] = []

    def say(self, rows: "Rows") -> None:
        """Print how many rows each split has, and how many are left out and why."""
        if rows not in self.all:
            self.all.append(rows)
            say(str(rows))


def one_line(text: str) -> str:
    """Make one harmless line of a text.

    Names of files may hold newlines, and signs that a terminal obeys.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def print_json(result: Any) -> None:
    """Print a command's result, a dataclass or a dictionary, if JSON was asked for."""
    if click.get_current_context().meta.get(JSON):
        content = asdict(result) if is_dataclass(result) and not isinstance(result, type) else result
        unicode = codecs.lookup(sys.stdout.encoding or "ascii").name == "utf-8"
        click.echo(json.dumps(content, ensure_ascii=not unicode, default=str))


@contextmanager
def _above_bars() -> Iterator[None]:
    from tqdm import tqdm

    with tqdm.external_write_mode():
        yield


class _Drawn:
    """A bar on the screen."""

    def __init__(self, drawn: "tqdm[Any]") -> None:
        self.drawn = drawn

    def show(self, done: int, total: int | None = None, *, what: str = "", note: str = "") -> None:
        """Draw the bar, at most ten times a second. A new kind of work is drawn at once."""
        drawn = self.drawn
        if drawn.disable:
            return
        is_other = bool(what) and drawn.desc != f"{what}: "
        if is_other:
            drawn.set_description(what, refresh=False)
        if total is not None and drawn.total is None:  # what was done before has no part in the rate
            drawn.reset(total)
            drawn.initial = drawn.n = drawn.last_print_n = done
        if note:
            drawn.set_postfix_str(note, refresh=False)
        drawn.update(done - drawn.n)
        if is_other:
            drawn.refresh()


@contextmanager
def watch(what: str, total: int | None, unit: str) -> Iterator[_Drawn]:
    """Draw a bar on stderr; it goes when its work is done.

    A bar of steps, which have no unit, is drawn after a second. None is drawn with -q, or where stderr is no terminal.
    """
    from tqdm import tqdm

    quiet = click.get_current_context().meta.get(LOUDNESS, 0) < 0
    kind: dict[str, Any] = {"unit": unit, "miniters": 0} if unit else {"unit_scale": True, "delay": 1}
    with tqdm(desc=what, total=total, dynamic_ncols=True, leave=False, disable=quiet or None, **kind) as drawn:
        yield _Drawn(drawn)
