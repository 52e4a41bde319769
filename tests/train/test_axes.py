"""Training in one call trains what the objects and the command line train."""

from pathlib import Path

import numpy as np
import pytest

from hfc.config import TrainConfig, resolve
from hfc.errors import ConfigError
from hfc.train import train, train_all
from hfc.train.axes import train as called

QUICK = {"epochs": 1, "batch_size": 64}


def test_every_method_hierarchy_and_seed_is_a_run_of_the_same_key(place: Path, tmp_path: Path) -> None:
    tree = place / "tree.csv"
    methods, seeds = ("flat", "levels+path"), (0, 3)
    calls = [
        {"method": method, "hierarchy": str(tree), "seed": seed, "device": "cpu", **QUICK}
        for method in methods
        for seed in seeds
    ]
    wanted = [
        run for run, _ in train_all(place / "cache.h5", [resolve(TrainConfig, call) for call in calls], tmp_path / "a")
    ]
    runs = train(
        str(place / "cache.h5"),
        hierarchy=tree,
        method=methods,
        seeds=np.array(seeds),
        out=tmp_path / "b",
        device="cpu",
        **QUICK,
    )
    assert [run.result.key for run in runs] == [run.result.key for run in wanted]
    assert [run.folder for run in runs] == [tmp_path / "b" / run.folder.name for run in wanted]
    written = {run.folder: (run.folder / "result.json").stat().st_mtime_ns for run in runs}
    (again,) = train(
        place / "cache.h5",
        hierarchy=[tree],
        method="levels+path",
        seed=3,
        out=str(tmp_path / "b"),
        device="cpu",
        **QUICK,
    )
    assert again.folder == runs[3].folder
    assert (again.folder / "result.json").stat().st_mtime_ns == written[again.folder]


def test_without_a_method_or_seed_it_is_the_recommended_run(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (run,) = train(place / "cache.h5", hierarchy=str(place / "tree.csv"), members=1, **QUICK)
    assert (run.result.method, run.result.seed) == (TrainConfig.method, TrainConfig.seed)
    assert run.folder.parent == Path("runs")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epoch": 3}, "unknown setting 'epoch'; did you mean epochs?"),
        ({"methods": "flat"}, "unknown setting 'methods'; did you mean method?"),
        ({"overwrit": True}, "unknown setting 'overwrit'; did you mean overwrite?"),
        ({"method": "falt"}, "unknown method 'falt'; did you mean flat?"),
        ({"epochs": "3"}, "epochs: expected an integer, found '3'"),
        ({"seeds": 1, "seed": 2}, "seeds with seed: each names where to start from; give one of them"),
        ({"seeds": ["0-2"]}, "seed: expected an integer, found '0-2'"),
        ({"hierarchy": ()}, "hierarchy: expected deepfashion-5, deepfashion-10 or a file, found none"),
    ],
)
def test_a_wrong_keyword_is_refused_before_anything_is_read(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        called("absent.h5", **{"hierarchy": "absent.csv", **settings})  # type: ignore[arg-type]
    assert str(refused.value) == message
