"""Command-line options made from the settings, so that help and defaults cannot drift from hfc.config."""

from collections.abc import Callable
from dataclasses import fields
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from hfc.config import (
    ExtractConfig,
    PredictConfig,
    SampleConfig,
    TrainConfig,
    nearest,
    parse_setting,
    read_toml,
    resolve,
)

Command = TypeVar("Command", bound=Callable[..., Any])
Config = TypeVar("Config", SampleConfig, ExtractConfig, TrainConfig, PredictConfig)


class Choice(click.Choice[str]):
    """One of some names; a mistyped one gets the nearest suggested."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """What is wrong with a name, and which was perhaps meant."""
        return f"{value!r} is none; {nearest(str(value), self.choices)}"


class HierarchyName(click.ParamType[str]):
    """A hierarchy that ships with hfc, or a CSV file; the shell completes both."""

    name = "hierarchy"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The shipped names that begin so, and the shell's own files."""
        shipped = (Path(file.name).stem for file in (resources.files("hfc") / "hierarchies").iterdir())
        return [CompletionItem(name) for name in sorted(shipped) if name.startswith(incomplete)] + [
            CompletionItem(incomplete, type="file")
        ]


class Setting(click.ParamType[str]):
    """`key=value` for --set; the shell completes the keys."""

    name = "setting"

    def __init__(self, kind: type) -> None:
        self.kind = kind

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The settings that begin so."""
        found = [f for f in fields(self.kind) if f.name.startswith(incomplete)]
        return [CompletionItem(f"{f.name}=", help=f.metadata["help"]) for f in found]


def settings(kind: type, *names: str) -> Callable[[Command], Command]:
    """One option for each named setting; one that is not given is None, so that the default stays in hfc.config."""

    def decorate(command: Command) -> Command:
        for spec in reversed([f for f in fields(kind) if f.name in names]):
            choices, flag = spec.metadata["choices"], f"--{spec.name.replace('_', '-')}"
            command = click.option(
                f"{flag}/--no-{flag[2:]}" if isinstance(spec.default, bool) else flag,
                spec.name,
                type=Choice(choices) if choices else type(spec.default),
                default=None,
                show_default=str(spec.default),
                help=spec.metadata["help"],
            )(command)
        return command

    return decorate


def configuration(kind: type) -> Callable[[Command], Command]:
    """The options every stage has: --config FILE and --set key=value."""

    def decorate(command: Command) -> Command:
        assign = "Any setting, like {}; repeatable.".format("shard_size=1024" if kind is ExtractConfig else "epochs=20")
        command = click.option(
            "--set", "assignments", multiple=True, type=Setting(kind), metavar="KEY=VALUE", help=assign
        )(command)
        path = click.Path(path_type=Path, dir_okay=False)
        return click.option("--config", "config_file", type=path, help="Settings from a TOML file.")(command)

    return decorate


def build(
    kind: type[Config], config_file: Path | None, assignments: tuple[str, ...], flags: dict[str, object]
) -> Config:
    """Settings in their order: default, file, --set, flag."""
    layers: list[dict[str, object]] = [read_toml(config_file)] if config_file else []
    given = {key: value for text in assignments for key, value in parse_setting(kind, text).items()}
    # One layer: the preset of --method comes before what --set changes of it.
    layers.append(given | {key: value for key, value in flags.items() if value is not None})
    return resolve(kind, *layers)


def setting_help(kind: type) -> str:
    """Every setting of a stage with its default, for the end of a help page."""
    lines = []
    for spec in fields(kind):
        choices = f" ({', '.join(spec.metadata['choices'])})" if spec.metadata["choices"] else ""
        default = ",".join(map(str, spec.default)) if isinstance(spec.default, tuple) else spec.default
        lines.append(f"  {spec.name}={default!s}  {spec.metadata['help']}{choices}")
    return "\b\nSettings for --set and --config, with their defaults:\n" + "\n".join(lines)
