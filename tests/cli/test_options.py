"""Settings as the command line gives them."""

import click
import pytest
from click.testing import CliRunner

from cli.options import jobs_option, parse_setting
from hfc.config import TrainConfig
from hfc.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("epochs=3", {"epochs": 3}),
        ("beta=1e-1", {"beta": 0.1}),
        ("residual=False", {"residual": False}),
        ("topk=5,1", {"topk": (5, 1)}),
        ("blend = logit", {"blend": "logit"}),
        ("hierarchy=a=b.csv", {"hierarchy": "a=b.csv"}),
    ],
)
def test_a_setting_is_parsed_into_its_type(text: str, expected: dict[str, object]) -> None:
    assert parse_setting(TrainConfig, text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs", "--set epochs: expected key=value"),
        ("epoch=1", "unknown setting 'epoch'; did you mean epochs?"),
        ("epochs=1.5", "epochs: expected an integer, found '1.5'"),
        ("residual=1", "residual: expected true or false, found '1'"),
        ("topk=1,x", "topk: expected a comma-separated list of integers, found '1,x'"),
    ],
)
def test_a_setting_that_does_not_parse_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_setting(TrainConfig, text)
    assert str(caught.value) == message


@click.command()
@jobs_option
def count(jobs: int) -> None:
    """Print how many processes are asked for."""
    click.echo(jobs)


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        ((), "0\n"),
        (("--jobs", "auto"), "0\n"),
        (("--jobs", "3"), "3\n"),
        (("--jobs", "0"), "Error: Invalid value for '--jobs': 0 is not in the range x>=1.\n"),
        (("--jobs", "many"), "Error: Invalid value for '--jobs': 'many' is not a valid number, nor auto.\n"),
    ],
)
def test_processes_are_a_number_or_left_to_the_runs(words: tuple[str, ...], printed: str) -> None:
    result = CliRunner().invoke(count, words)
    assert (result.output.endswith(printed), result.exit_code) == (True, 2 if "Error" in printed else 0), result.output
