"""Command-line options, made from the settings of hfc.config with their help and defaults."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import Field, fields
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from hfc.config import (
    AUTO,
    TYPE_NAMES,
    ExtractConfig,
    PredictConfig,
    SampleConfig,
    TrainConfig,
    field_of,
    read_toml,
    resolve,
)
from hfc.errors import ConfigError, meant

Command = TypeVar("Command", bound=Callable[..., Any])
Config = TypeVar("Config", SampleConfig, ExtractConfig, TrainConfig, PredictConfig)
REGISTERED = re.compile(r"^@register_model\ndef (\w+)\(", re.MULTILINE)


class Choice(click.Choice[str]):
    """One of some names; for a mistyped one the nearest is suggested."""

    def __init__(self, what: str, names: Iterable[str]) -> None:
        """Make the type of an option.

        Args:
            what: what the names are names of: "method".
            names: all that exist.
        """
        super().__init__(list(names))
        self.what = what

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """Say what is wrong with a name, and which was perhaps meant."""
        return f"unknown {self.what} {value!r}; {meant(str(value), self.choices)}"


class Name(click.ParamType[str]):
    """A name, or perhaps a file; the shell completes both."""

    def __init__(self, name: str, known: Callable[[], Iterable[str]], *, or_file: bool = True) -> None:
        self.name = name
        self.known = known
        self.or_file = or_file

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Offer the known names that begin so, and files."""
        names = [CompletionItem(name) for name in sorted(self.known()) if name.startswith(incomplete)]
        return names + [CompletionItem(incomplete, type="file")] * self.or_file


def _shipped(folder: str) -> list[str]:
    """The names of the files that come with hfc in one of its folders."""
    return [Path(file.name).stem for file in (resources.files("hfc") / folder).iterdir()]


def _backbones() -> list[str]:
    """The names of timm's models, read from its source: to import timm takes seconds."""
    timm = find_spec("timm")
    sources = Path(timm.origin).parent.glob("models/*.py") if timm and timm.origin else []
    return [name for source in sources for name in REGISTERED.findall(source.read_text("utf-8"))]


HIERARCHY = Name("hierarchy", lambda: _shipped("hierarchies"))
PLAN = Name("plan", lambda: _shipped("train/ablations"))
NAMES = {
    "backbone": Name("text", _backbones, or_file=False),
    "weights": Name("text", lambda: ("hub", "wheel", "random")),
}


class Setting(click.ParamType[str]):
    """`key=value` for --set; the shell completes keys, and values that are few."""

    name = "setting"

    def __init__(self, kind: type) -> None:
        self.kind = kind

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Offer the settings that begin so, or after an equals sign their values."""
        key, equals, value = incomplete.partition("=")
        if equals:
            known = [v for spec in fields(self.kind) if spec.name == key for v in _values(spec)]
            return [CompletionItem(f"{key}={v}") for v in known if v.startswith(value)]
        specs = [spec for spec in fields(self.kind) if spec.name.startswith(incomplete)]
        return [CompletionItem(f"{spec.name}=", help=spec.metadata["help"]) for spec in specs]


def _values(setting: Field[Any]) -> Sequence[str]:
    """The values of a setting that has few."""
    return ("true", "false") if isinstance(setting.default, bool) else setting.metadata["choices"] or ()


def settings(kind: type, *names: str) -> Callable[[Command], Command]:
    """Make an option of each named setting, or of all.

    The value of an option that is not given is None: the default stays in hfc.config.
    """

    def decorate(command: Command) -> Command:
        for spec in reversed([f for f in fields(kind) if f.name in names or not names]):
            choices, flag = spec.metadata["choices"], f"--{spec.name.replace('_', '-')}"
            command = click.option(
                f"{flag}/--no-{flag[2:]}" if isinstance(spec.default, bool) else flag,
                spec.name,
                type=Choice(spec.name, choices) if choices else NAMES.get(spec.name, type(spec.default)),
                default=None,
                help=_help(spec),
            )(command)
        return command

    return decorate


def reading_options(command: Command) -> Command:
    """Add the options of how a cache is read for training; see `hfc.train.cache.Reading`."""
    for option in (
        click.option(
            "--stream",
            is_flag=True,
            help="Read the features from the disk in every epoch, for caches larger than memory.",
        ),
        click.option(
            "--allow-unlabelled", is_flag=True, help="Take --labels even if most rows of a split have no label in it."
        ),
        click.option(
            "--labels",
            type=click.Path(path_type=Path),
            help="A CSV file (id,label, optionally split and group) whose labels replace those of CACHE.",
        ),
    ):
        command = option(command)
    return command


def images_option(text: str) -> Callable[[Command], Command]:
    """Add the option --images; `text` is its help."""
    return click.option(
        "--images",
        type=click.Path(path_type=Path, exists=True),
        metavar="ROOT",
        callback=_parse_images,
        help=text,
    )


def _parse_images(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """The folder or archive of --images."""
    if path and not path.is_dir() and path.suffix.lower() not in (".zip", ".tar"):
        raise click.BadParameter(f"expected a folder, a ZIP or a TAR archive, found the file {str(path)!r}")
    return path


class Jobs(click.IntRange):
    """A number of processes, or `auto`."""

    name = "number, nor auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read a number of processes; AUTO where it is left to the runs."""
        return AUTO if value == "auto" else int(super().convert(value, param, ctx))


def jobs_option(command: Command) -> Command:
    """Add the option --jobs."""
    text = (
        "How many processes, which share CACHE in memory. auto: of one thread each, where a CPU trains several small "
        "heads; else one of all threads."
    )
    option = click.option("--jobs", default="auto", show_default=True, metavar="NUMBER", type=Jobs(min=1), help=text)
    return option(command)


def _help(spec: Field[Any]) -> str:
    """What a setting means, as a sentence, and its default."""
    text, flag = spec.metadata["help"], spec.name.replace("_", "-")
    default = (flag if spec.default else f"no-{flag}") if isinstance(spec.default, bool) else as_typed(spec.default)
    return f"{text[0].upper()}{text[1:]}." + (f"  [default: {default}]" if default else "")


def as_typed(value: object) -> str:
    """Write the value of a setting as people type it for --set."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def configuration(kind: type) -> Callable[[Command], Command]:
    """Add the options of every stage: --config FILE and --set key=value."""

    def decorate(command: Command) -> Command:
        assign = "Change any setting, like {}; repeatable.".format(
            "shard_size=1024" if kind is ExtractConfig else "epochs=20"
        )
        command = click.option(
            "--set", "assignments", multiple=True, type=Setting(kind), metavar="KEY=VALUE", help=assign
        )(command)
        path = click.Path(path_type=Path, dir_okay=False)
        return click.option("--config", "config_file", type=path, help="A TOML file of settings.")(command)

    return decorate


def build(
    kind: type[Config], config_file: Path | None, assignments: tuple[str, ...], flags: dict[str, object]
) -> Config:
    """Resolve settings in their order: default, file, --set, flag.

    Raises a UsageError where --set and a flag contradict each other.
    """
    layers: list[dict[str, object]] = [read_toml(config_file)] if config_file else []
    given = {key: value for text in assignments for key, value in parse_setting(kind, text).items()}
    chosen = {key: value for key, value in flags.items() if value is not None}
    for key in given.keys() & chosen.keys():
        if given[key] != chosen[key]:
            one, other = as_typed(given[key]), as_typed(chosen[key])
            raise click.UsageError(f"{key} is {one} by --set and {other} by its own option; leave one of them out")
    # One layer: the preset of --method comes before what --set changes of it.
    layers.append(given | chosen)
    return resolve(kind, *layers)


def refuse_no_hierarchy(*configs: TrainConfig) -> None:
    """Raise a UsageError where settings name no hierarchy."""
    if not all(config.hierarchy for config in configs):
        raise click.UsageError("name a hierarchy: --hierarchy deepfashion-5, deepfashion-10 or a file")


def parse_setting(kind: type[Config], text: str) -> dict[str, object]:
    """Read one `key=value` of --set, the value in the type its setting has.

    Raises:
        ConfigError: no `=`, an unknown key, or a value that does not parse.
    """
    key, separator, value = (word.strip() for word in text.partition("="))
    if not separator:
        raise ConfigError(f"--set {text}: expected key=value")
    return {key: _parsed(field_of(kind, key).default, value, key)}


def _parsed(default: object, text: str, key: str) -> object:
    try:
        match default:
            case bool():
                return {"true": True, "false": False}[text.lower()]
            case int() | float():
                return type(default)(text)
            case tuple():
                return tuple(int(part) for part in text.split(","))
            case _:
                return text
    except (KeyError, ValueError):
        wanted = "a comma-separated list of integers" if isinstance(default, tuple) else TYPE_NAMES[type(default)]
        raise ConfigError(f"{key}: expected {wanted}, found {text!r}") from None


def setting_help(kind: type) -> str:
    """List all settings of a stage with their defaults."""
    lines = []
    for spec in fields(kind):
        choices = f" ({', '.join(spec.metadata['choices'])})" if spec.metadata["choices"] else ""
        lines.append(f"  {spec.name}={as_typed(spec.default)}  {spec.metadata['help']}{choices}")
    return "\b\nSettings for --set and --config, with their defaults:\n" + "\n".join(lines)
