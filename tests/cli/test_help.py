"""Every command and every option says what it is for, and the pages speak of no other and leave none out."""

import os
import re
import shlex
import subprocess
import sys
from configparser import ConfigParser
from dataclasses import fields, make_dataclass
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from cli.main import main
from cli.options import as_typed, settings
from cli.output import Command
from hfc.config import TrainConfig, setting
from tests.support.readme import README, blocks, documentation, hfc_commands

TEXT = documentation()
COMMANDS = sorted(main.commands)
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*[a-z](?![\w-])")
# A benchmark's command: a span of a text, which may break between two lines, or a line of a block.
BENCH = re.compile(r"`python -m tests\.bench[^`]*`|^python -m tests\.bench.*$", re.MULTILINE)
# Options of other programs that the pages mention.
FOREIGN = {
    *("--nproc-per-node", "--nnodes", "--rdzv-backend", "--rdzv-endpoint", "--nodes", "--ntasks-per-node"),
    *("--no-deps", "--port", "--log-level", "--data-binary"),  # of pip, uvicorn and curl
}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of photographs where one has to be for words to parse."""
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)


def options_of(command: click.Command) -> set[str]:
    return {name for p in command.params if isinstance(p, click.Option) for name in (*p.opts, *p.secondary_opts)}


def example(command: click.Command) -> list[str]:
    """The words after `hfc` of the first example in a command's help."""
    after = re.split("Examples?:", command.help or "", maxsplit=1)
    assert len(after) == 2, f"hfc {command.name} --help has no example"
    line = next(line for line in after[1].splitlines() if line.strip().startswith("hfc "))
    return shlex.split(line)[1:]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_what_it_is_for_with_an_example_that_parses(name: str) -> None:
    command = main.commands[name]
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0
    assert command.help
    assert command.help.splitlines()[0].endswith((".", ":"))
    words = example(command)
    assert words[0] == name
    assert " ".join(words) in " ".join(result.output.split())
    command.make_context(name, words[1:])  # raises on a word that is no option


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_every_option_has_help(name: str) -> None:
    command = main.commands[name] if name else main
    options = [p for p in command.params if isinstance(p, click.Option)]
    assert not [p.name for p in options if not (p.help or "").strip()]
    if name:
        assert {"--json", "--verbose", "--quiet"} <= options_of(command)


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_list_of_commands_is_in_the_order_of_the_work_and_cuts_no_sentence_short(width: int) -> None:
    listed = CliRunner().invoke(main, ["--help"], terminal_width=width).output.partition("Commands:")[2]
    entries = re.split(r"\n  (?=[a-z])", listed.rstrip())[1:]
    lines = [" ".join(entry.split()).split(maxsplit=1) for entry in entries]
    work = ("sample", "extract", "verify", "review", "train", "sweep", "ablation", "report", "predict", "export")
    assert [name for name, _ in lines if name in work] == list(work)
    assert sorted(name for name, _ in lines) == COMMANDS
    first = {name: (main.commands[name].help or "").partition(".")[0] + "." for name in COMMANDS}
    assert dict(lines) == first


def test_the_page_lists_the_commands_in_the_order_of_the_help() -> None:
    page = (README.parent / "notebooks" / "commands.md").read_text("utf-8")
    assert re.findall(r"^\| `hfc (\w+)` \|", page, re.MULTILINE) == list(main.commands)


def test_a_default_is_shown_as_people_type_it() -> None:
    shown = {as_typed(field.default) for field in fields(TrainConfig)}
    assert {"1,3,5", "0", "true", "false", "flat+ps"} <= shown
    assert not [text for text in shown if "(" in text or text in ("True", "False")]
    kind = make_dataclass("Sized", [("image_size", tuple[int, ...], setting((224,), "sides of the square"))])

    @click.command(cls=Command)
    @settings(kind)
    def sized(image_size: object) -> None:
        """Do nothing."""

    assert "Sides of the square. [default: 224]" in " ".join(CliRunner().invoke(sized, ["--help"]).output.split())


@pytest.mark.parametrize(
    ("command", "name", "text"),
    [
        ("sample", "images", "Number of pictures to draw.  [default: 1200]"),
        ("extract", "outside_root", "Accept image paths that leave the data set's folder.  [default: no-outside-root]"),
        ("extract", "roi_margin", "Context added around each box, in fractions of its sides.  [default: 0.0]"),
        ("extract", "store", "Type of the stored features.  [default: float16]"),
        ("extract", "max_failures", "Stop when more images than this cannot be read: a number, or a share like 5%."),
        ("predict", "top", "How many leaves to name with their probabilities.  [default: 5]"),
    ],
)
def test_help_of_a_setting_is_a_sentence_with_its_default(command: str, name: str, text: str) -> None:
    (option,) = [option for option in main.commands[command].params if option.name == name]
    assert isinstance(option, click.Option)
    assert option.help == text
    assert (option.default, option.show_default) == (None, None)  # the default stays in hfc.config


@pytest.mark.parametrize("name", COMMANDS)
def test_readme_shows_every_command(name: str) -> None:
    assert re.search(rf"\bhfc {name}\b", README.read_text("utf-8"))


def test_every_command_of_a_page_exists() -> None:
    mentioned = set(re.findall(r"`hfc ([a-z]+)", TEXT)) | {words[0] for words in hfc_commands(blocks(TEXT))}
    assert mentioned <= set(COMMANDS)


def test_every_option_of_a_page_exists() -> None:
    known = {"--help", "--version"}.union(*(options_of(command) for command in (main, *main.commands.values())))
    bench = {option for command in BENCH.findall(TEXT) for option in OPTION.findall(command)}
    assert set(OPTION.findall(TEXT)) - FOREIGN - bench <= known


@pytest.mark.parametrize("words", hfc_commands(blocks(TEXT)), ids=" ".join)
def test_every_hfc_command_of_a_page_parses(words: list[str]) -> None:
    main.commands[words[0]].make_context(words[0], list(words[1:]))


def test_hfc_and_python_m_cli_are_one_program() -> None:
    setup = ConfigParser()
    setup.read(README.parent / "setup.cfg")
    assert setup["options.entry_points"]["console_scripts"].split() == ["hfc", "=", "cli.main:main"]
    for words in (["--help"], ["train", "--help"], ["train", "--lr", "1"]):
        by_name = CliRunner().invoke(main, words, prog_name="hfc")
        command, place = [sys.executable, "-m", "cli", *words], os.environ | {"PYTHONPATH": str(README.parent)}
        by_module = subprocess.run(command, capture_output=True, text=True, env=place, check=False)
        assert by_module.returncode == by_name.exit_code
        shown = by_module.stdout + by_module.stderr
        # The usage line alone names the program, and is broken by its length.
        assert shown.replace("python -m cli", "hfc").split() == by_name.output.split()
