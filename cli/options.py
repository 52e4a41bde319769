"""Command-line options made from the settings, so that help and defaults cannot drift from hfc.config."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import click

from hfc.config import ExtractConfig, PredictConfig, SampleConfig, TrainConfig, parse_setting, read_toml, resolve

Command = TypeVar("Command", bound=Callable[..., Any])
Config = TypeVar("Config", SampleConfig, ExtractConfig, TrainConfig, PredictConfig)


def settings(kind: type, *names: str) -> Callable[[Command], Command]:
    """One option for each named setting; one that is not given is None, so that the default stays in hfc.config."""

    def decorate(command: Command) -> Command:
        for spec in reversed([f for f in fields(kind) if f.name in names]):
            choices, flag = spec.metadata["choices"], f"--{spec.name.replace('_', '-')}"
            command = click.option(
                f"{flag}/--no-{flag[2:]}" if isinstance(spec.default, bool) else flag,
                spec.name,
                type=click.Choice(choices) if choices else type(spec.default),
                default=None,
                show_default=str(spec.default),
                help=spec.metadata["help"],
            )(command)
        return command

    return decorate


def configuration(command: Command) -> Command:
    """The options every stage has: --config FILE and --set key=value."""
    path = click.Path(path_type=Path, dir_okay=False)
    command = click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Any setting; repeatable.")(
        command
    )
    return click.option("--config", "config_file", type=path, help="Settings from a TOML file.")(command)


def build(
    kind: type[Config], config_file: Path | None, assignments: tuple[str, ...], flags: dict[str, object]
) -> Config:
    """Settings in their order: default, file, --set, flag."""
    layers: list[dict[str, object]] = [read_toml(config_file)] if config_file else []
    layers.append({key: value for text in assignments for key, value in parse_setting(kind, text).items()})
    layers.append({key: value for key, value in flags.items() if value is not None})
    return resolve(kind, *layers)


def setting_help(kind: type) -> str:
    """Every setting of a stage with its default, for the end of a help page."""
    lines = []
    for spec in fields(kind):
        choices = f" ({', '.join(spec.metadata['choices'])})" if spec.metadata["choices"] else ""
        default = ",".join(map(str, spec.default)) if isinstance(spec.default, tuple) else spec.default
        lines.append(f"  {spec.name}={default!s}  {spec.metadata['help']}{choices}")
    return "\b\nSettings for --set and --config, with their defaults:\n" + "\n".join(lines)
