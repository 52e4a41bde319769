"""Settings: their layers, their files, their errors."""

import math
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.options import build
from hfc.config import METHODS, ExtractConfig, TrainConfig, plain, read_toml, resolve, to_toml
from hfc.errors import ConfigError


def test_later_layers_win() -> None:
    file = {"method": "hmcn-f-original", "width": 100}
    config = resolve(TrainConfig, file, {"beta": 0.9})
    assert (config.head, config.width, config.beta) == ("hmcn-f-original", 100, 0.9)


def test_a_flag_method_overrides_what_the_file_said_of_the_head() -> None:
    file = plain(resolve(TrainConfig, {"method": "hmcn-f+mtl", "hxe_alpha": 0.1}))
    config = resolve(TrainConfig, file, {"method": "flat"})
    assert (config.method, config.head, config.loss, config.weighting, config.hxe_alpha) == (
        *("flat", "flat", "softmax", "sum"),
        0.1,
    )


def test_set_changes_what_the_flag_method_brings() -> None:
    config = build(TrainConfig, None, ("learning_rate=0.01", "beta=0.2"), {"method": "levels+path", "seed": None})
    assert (config.method, config.learning_rate, config.beta, config.dropout) == ("levels+path", 0.01, 0.2, 0.8)


def test_a_method_leaves_nothing_of_another_behind() -> None:
    for name, preset in METHODS.items():
        alone = {f.name: f.default for f in fields(TrainConfig)} | {"method": name} | preset
        for before in METHODS:
            assert plain(resolve(TrainConfig, {"method": before}, {"method": name})) == plain(TrainConfig(**alone))


def test_the_papers_method_is_as_the_paper_says() -> None:
    config = resolve(TrainConfig, {"method": "hmcn-f+mtl"})
    assert (config.head, config.loss, config.weighting) == ("hmcn-f", "bce", "uncertainty")
    assert (config.reduced, config.width, config.dropout, config.beta) == (512, 512, 0.7, 0.7)
    original = resolve(TrainConfig, {"method": "hmcn-f-original"})
    assert (original.width, original.beta, original.violation_weight) == (384, 0.5, 0.1)
    assert ExtractConfig().backbone == "tf_efficientnet_b5.aa_in1k"
    assert (ExtractConfig().image_size, ExtractConfig().roi_margin, ExtractConfig().pool) == (
        224,
        0.0,
        "auto",
    )  # for b5 the mean: tests/extract/test_backbone.py


@given(
    method=st.sampled_from(sorted(METHODS)),
    hierarchy=st.text(st.characters(exclude_categories=["Cs"])),
    beta=st.floats(0, 1),
    topk=st.sets(st.integers(1, 50), min_size=1),
    residual=st.booleans(),
)
def test_toml_reads_back_what_was_written(
    method: str, hierarchy: str, beta: float, topk: set[int], residual: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    given = {"hierarchy": hierarchy, "beta": beta, "topk": sorted(topk), "residual": residual}
    config = resolve(TrainConfig, {"method": method}, given)
    path = tmp_path_factory.mktemp("toml") / "c.toml"
    path.write_text(to_toml(config), "utf-8", newline="")
    assert resolve(TrainConfig, read_toml(path)) == config


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ({"method": "hmcn"}, "unknown method 'hmcn'; did you mean hmcn-f?"),
        (
            {"method": "hmcn-f+dwa"},
            "unknown method 'hmcn-f+dwa'; it is method hmcn-f with weighting=dwa now: "
            "--method hmcn-f --set weighting=dwa",
        ),
        (
            {"method": "hmcn-f+mtl-levels"},
            "unknown method 'hmcn-f+mtl-levels'; it is method hmcn-f+mtl with tasks=levels now: "
            "--method hmcn-f+mtl --set tasks=levels",
        ),
        ({"loss": "mse"}, "unknown loss 'mse'; known: bce, hxe, soft-labels, softmax"),
        ({"epochs": -1}, "epochs: expected at least 0, found -1"),
        ({"epochs": True}, "epochs: expected an integer, found True"),
        ({"beta": "x"}, "beta: expected a number, found 'x'"),
        ({"topk": []}, "topk: expected integers of at least 1, found []"),
        ({"topk": [0]}, "topk: expected integers of at least 1, found [0]"),
    ],
)
def test_a_value_without_a_place_is_refused(layer: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(TrainConfig, layer)
    assert str(caught.value) == message


def test_files_that_are_no_toml_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("epochs = = 3")
    with pytest.raises(ConfigError, match=r"bad.toml: not TOML"):
        read_toml(tmp_path / "bad.toml")
    with pytest.raises(ConfigError, match=r"none.toml: cannot read the settings: No such file"):
        read_toml(tmp_path / "none.toml")


@pytest.mark.parametrize("layer", [{"learning_rate": math.inf}, {"learning_rate": math.nan}, {"beta": 10**400}])
def test_numbers_without_a_float_value_are_refused(layer: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        resolve(TrainConfig, layer)


def test_extract_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(ExtractConfig, {"image_size": 5000})
    assert str(caught.value) == "image_size: expected 1 to 4096, found 5000"
    with pytest.raises(ConfigError) as caught:
        resolve(ExtractConfig, {"resize": "pda"})
    assert str(caught.value) == "unknown resize 'pda'; did you mean pad?"


@pytest.mark.parametrize(("kind", "key"), [(TrainConfig, "hierarchy"), (ExtractConfig, "weights")])
def test_a_name_that_is_not_utf8_is_refused_before_any_work(kind: type, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(kind, {key: "f\udce4h.csv"})
    expected = r"the name f\xe4h.csv is not UTF-8, which runs are kept in; rename the file"
    assert str(caught.value) == f"{key}: {expected}"


def test_toml_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_bytes(b"\xef\xbb\xbfseed = 7\n")
    assert read_toml(tmp_path / "c.toml") == {"seed": 7}


def test_a_path_is_the_text_of_a_setting() -> None:
    assert resolve(ExtractConfig, {"weights": Path("a/b.pth")}).weights == "a/b.pth"
    with pytest.raises(ConfigError, match=r"^image_size: expected an integer, found PosixPath\('32'\)$"):
        resolve(ExtractConfig, {"image_size": Path("32")})
