"""Groups that stand in the names of images."""

from pathlib import Path

import pytest

from hfc.datasets import read_regions
from hfc.datasets.groups import group_pattern
from hfc.errors import ConfigError
from hfc.regions import Regions
from tests.datasets.test_archives import pack, pack_tar
from tests.datasets.test_folders import touch
from tests.datasets.test_manifest import manifest
from tests.support.deepfashion_tree import write_tree
from tests.support.splits import read_drawn

VIEWS = r"([^/_-]+)[_-]\d+\.\w+$"
NAMES = (
    "Dress/red_1.jpg",
    "Dress/red_2.jpg",
    "Dress/blue-1.jpg",
    "Dress/black.jpg",
    "Tee/plain_1.PNG",
    "Tee/9_1.jpg",
)
GROUPS = ["", "blue", "red", "red", "9", "plain"]


def read(source: Path, group: str = VIEWS) -> Regions:
    return read_regions(source, outside_root=False, group=group)


def test_the_capture_group_names_the_group(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    regions = read(touch(tmp_path, *NAMES))
    assert regions.id.tolist() == sorted(NAMES)
    assert regions.group.tolist() == GROUPS
    words = "1 of 6 paths do not match the pattern of groups, and are each a group by themselves: Dress/black.jpg"
    assert caplog.messages == [f"{tmp_path}: {words}"]
    assert read(tmp_path, "").group.tolist() == [""] * 6


def test_archives_and_shards_have_the_groups_of_their_paths(tmp_path: Path) -> None:
    content = dict.fromkeys(NAMES, b"")
    assert read(pack(tmp_path / "a.zip", content)).group.tolist() == GROUPS
    assert read(pack_tar(tmp_path / "a.tar", content)).group.tolist() == GROUPS
    shard = {"red_1.jpg": b"", "red_1.cls": b"Dress", "red_2.jpg": b"", "red_2.cls": b"Dress", "x.jpg": b""}
    assert read(pack_tar(tmp_path / "shard.tar", shard)).group.tolist() == ["red", "red", ""]


def test_a_manifest_without_groups_has_those_of_its_paths(tmp_path: Path) -> None:
    rows = "".join(f"{i},{name},L\n" for i, name in enumerate(sorted(NAMES)))
    assert read(manifest(tmp_path, f"id,path,label\n{rows}")).group.tolist() == GROUPS
    blank = "".join(f"{name},L,\n" for name in sorted(NAMES))
    assert read(manifest(tmp_path, f"path,label,group\n{blank}")).group.tolist() == GROUPS


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(", "group: expected a regular expression, found '(': missing ), unterminated subpattern at position 0"),
        (
            ".+_",
            "group: expected one capture group, as in (.+)_, found 0 in '.+_'; a pair of parentheses that ",
        ),
        ("(a)(b)", "group: expected one capture group, as in (.+)_, found 2 in '(a)(b)'; a pair of parentheses that "),
        ("(other)_", "group: '(other)_' matches none of the 6 paths, such as 'Dress/black.jpg'"),
        ("()_", "group: '()_' matches none of the 6 paths, such as 'Dress/black.jpg'"),
    ],
)
def test_a_pattern_that_cannot_name_groups_is_refused(pattern: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(touch(tmp_path, *NAMES), pattern)
    assert str(caught.value).startswith(message)


def test_a_bad_pattern_is_refused_before_anything_is_read() -> None:
    with pytest.raises(ConfigError, match=r"group: expected a regular expression"):
        read(Path("none"), "[")
    assert group_pattern("(?:a|b)(.)").groups == 1


def test_where_rows_have_groups_already_a_pattern_is_refused(tmp_path: Path) -> None:
    listed = manifest(tmp_path, "path,label,group\na_1.jpg,Tee,a\nb_1.jpg,Tee,\n")
    for source, origin in ((listed, "CSV manifest m.csv"), (write_tree(tmp_path / "df"), "DeepFashion")):
        with pytest.raises(ConfigError) as caught:
            read(source)
        assert str(caught.value) == f"group: {origin} names the groups of its rows itself; leave --group out"


def test_numbers_that_begin_anew_in_every_folder_are_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, *(f"{label}/{name}_{view}.jpg" for label in ("Tee", "Coat") for name in "123" for view in "ab"))
    assert set(read(tmp_path, r"([^/]+)_\w\.").group) == {"1", "2", "3"}
    words = "3 of 3 groups have rows of several labels: 1, 2, 3; if they are not the same products, let the pattern"
    assert caplog.messages == [f"{tmp_path}: {words} capture the folder too"]
    caplog.clear()
    assert read(tmp_path, r"(.+)_\w\.").group.tolist()[:3] == ["Coat/1", "Coat/1", "Coat/2"]
    assert caplog.messages == []


def test_views_of_a_product_are_in_one_split(tmp_path: Path) -> None:
    touch(tmp_path, *(f"Tee/{product}_{view}.jpg" for product in range(60) for view in range(3)))
    regions = read_drawn(tmp_path, group=VIEWS)
    kinds = {name: set(regions.split[regions.group == name]) for name in set(regions.group)}
    assert len(kinds) == 60
    assert all(len(there) == 1 for there in kinds.values())
    assert set(regions.split) == {"train", "val", "test"}
    alone = read_drawn(tmp_path)
    assert any(len(set(alone.split[regions.group == name])) > 1 for name in kinds)


def test_forms_of_a_name_are_one_group(tmp_path: Path) -> None:
    touch(tmp_path, "Tee/caf\u00e9_1.jpg", "Tee/cafe\u0301_2.jpg")
    assert set(read(tmp_path).group) == {"caf\u00e9"}
