"""Which files are the shards of a data set, and of which split. tests/datasets/test_webdataset.py reads some."""

import re
from pathlib import Path

import pytest

from hfc.datasets.shards import is_pattern, list_shards, named_splits, shards_in
from hfc.errors import DatasetError
from tests.datasets.test_folders import touch


def names(shards: list[Path]) -> list[str]:
    return [shard.name for shard in shards]


def test_a_folder_a_file_or_a_pattern_names_shards(tmp_path: Path) -> None:
    touch(tmp_path, *(f"a-{number:03d}.tar" for number in range(3)), "notes.txt", ".b.tar", "C.TAR", "d.parquet")
    every = ["C.TAR", "a-000.tar", "a-001.tar", "a-002.tar"]
    assert names(list_shards(tmp_path, ".tar")) == names(shards_in(tmp_path, ".tar")) == every
    assert names(list_shards(tmp_path / "a-001.tar", ".tar")) == ["a-001.tar"]
    pattern = tmp_path / "a-{001..002}.tar"
    assert is_pattern(pattern)
    assert not is_pattern(tmp_path / "a-001.tar")
    assert names(list_shards(pattern, ".tar")) == ["a-001.tar", "a-002.tar"]
    touch(tmp_path, "Tee/1.jpg")
    assert shards_in(tmp_path, ".tar") == []


@pytest.mark.parametrize(
    ("shard", "split"),
    [
        ("train-00000-of-00002.parquet", "train"),
        ("own.Validation.tar", "val"),
        ("valid_1.tar", "val"),
        ("testing.tar", "test"),
        ("trainer-0.tar", ""),
        ("train-test-0.tar", ""),
        ("data-0.tar", ""),
    ],
)
def test_a_split_is_a_word_of_the_name(shard: str, split: str) -> None:
    assert named_splits([Path(shard)]) == {Path(shard): split}


def test_some_names_without_a_split_are_refused() -> None:
    message = "b.tar: expected a split in the name of every shard, as in train.tar, found none; rename it"
    with pytest.raises(DatasetError, match=f"^{re.escape(message)}$"):
        named_splits([Path("train.tar"), Path("b.tar")])
