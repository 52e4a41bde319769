"""How every command answers, as text or as JSON, and how much it says on the way.

A command prints its text by `say` and hands what it found to `answer`; with --json only the latter reaches stdout.
"""

import codecs
import io
import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tqdm import tqdm

JSON, LOUDNESS = "hfc.json", "hfc.loudness"
LEVELS = {-1: logging.ERROR, 0: logging.WARNING, 1: logging.INFO}


def ready_streams() -> None:
    """Make stdin, stdout and stderr such that no text and no closed stream can end the program."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:  # closed: a file that is opened next would take the number, and get what is printed
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - to the program's end
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # What the terminal has no sign for is written as its number.
            stream.reconfigure(errors="backslashreplace")


def _set_loudness(context: click.Context, parameter: click.Parameter, given: bool) -> None:
    if given:
        context.meta[LOUDNESS] = -1 if parameter.name == "quiet" else 1


def _set_json(context: click.Context, parameter: click.Parameter, given: bool) -> None:
    context.meta[JSON] = given


def loudness() -> list[click.Parameter]:
    """The options -v and -q, which the program takes as well as each of its commands."""
    more: dict[str, Any] = {"is_flag": True, "expose_value": False, "callback": _set_loudness}
    return [
        click.Option(["-v", "--verbose"], help="Say on the way how long each step took.", **more),
        click.Option(["-q", "--quiet"], help="No progress bars and no warnings.", **more),
    ]


class Command(click.Command):
    """A command with the options that all have: --json, -v and -q."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if not any("--json" in parameter.opts for parameter in self.params):  # it may have one of its own
            what = "Print one JSON object in place of text."
            json_option = click.Option(["--json"], is_flag=True, expose_value=False, callback=_set_json, help=what)
            self.params.append(json_option)
        self.params += loudness()

    def invoke(self, ctx: click.Context) -> Any:
        """Run it, as loud as asked for."""
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


def one_line(text: str) -> str:
    """A text with names of files in it, which may hold newlines and what a terminal obeys, as one harmless line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def answer(found: Any) -> None:
    """Print what a command found, a dataclass or a dictionary, if JSON was asked for."""
    if click.get_current_context().meta.get(JSON):
        content = asdict(found) if is_dataclass(found) and not isinstance(found, type) else found
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
        """Draw it again, unless it was drawn a tenth of a second ago; other work is drawn at once."""
        drawn = self.drawn
        if drawn.disable:
            return
        if total is not None and drawn.total is None:  # what was done before has no part in the rate
            drawn.reset(total)
            drawn.initial = drawn.n = drawn.last_print_n = done
        if note:
            drawn.set_postfix_str(note, refresh=False)
        drawn.update(done - drawn.n)
        if what and drawn.desc != f"{what}: ":
            drawn.set_description(what)


@contextmanager
def watch(what: str, total: int | None, unit: str) -> Iterator[_Drawn]:
    """A bar on stderr, gone when its work is done; none where stderr is no terminal, or with -q.

    A bar of steps, which have no unit, is drawn after a second.
    """
    from tqdm import tqdm

    quiet = click.get_current_context().meta.get(LOUDNESS, 0) < 0
    kind: dict[str, Any] = {"unit": unit, "miniters": 0} if unit else {"unit_scale": True, "delay": 1}
    with tqdm(desc=what, total=total, dynamic_ncols=True, leave=False, disable=quiet or None, **kind) as drawn:
        yield _Drawn(drawn)
