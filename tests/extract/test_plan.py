"""What an earlier call left: it is taken up, refused or removed."""

from pathlib import Path

import numpy as np
import pytest
import timm
from safetensors.torch import save_file

from hfc import store
from hfc.errors import StaleStoreError
from hfc.extract.stage import extract
from hfc.extract.summary import Progress
from tests.support.deepfashion_tree import write_images
from tests.support.extraction import Cache, config, read

pytestmark = pytest.mark.usefixtures("small_turns")


def interrupted(manifest: Path, out: Path, after: int, overwrite: bool = False, **changes: object) -> None:
    """Extract until that many images are encoded, then as if by Ctrl-C."""
    ended: list[int] = []  # rows that need no encoding

    def stop(progress: Progress) -> None:
        ended.append(progress.done)
        if progress.done - ended[0] >= after:
            raise KeyboardInterrupt

    before = out.read_bytes() if out.exists() else None
    with pytest.raises(KeyboardInterrupt):
        extract(manifest, out, config(**changes), overwrite=overwrite, report=stop)
    assert (out.read_bytes() if out.exists() else None) == before


@pytest.mark.parametrize("after", [0, 3, 4, 7, 8, 9])  # of nine: one file is missing
def test_an_interrupted_call_is_resumed_exactly(after: int, undisturbed: Cache, manifest: Path, tmp_path: Path) -> None:
    interrupted(manifest, tmp_path / "c.h5", after)
    shards = list((tmp_path / "c.h5.shards").glob("*.h5")) if after else []
    stamps = {path: path.stat().st_mtime_ns for path in shards}
    seen: list[dict[Path, int]] = []

    def watch(progress: Progress) -> None:
        seen.append({path: path.stat().st_mtime_ns for path in shards})

    summary = extract(manifest, tmp_path / "c.h5", config(), report=watch)
    assert summary.progress.resumed == summary.resumed == (4 * (after // 4) if after < 9 else 9)
    assert summary.encoded == 9 - summary.resumed
    assert all(stamp == stamps for stamp in seen)
    assert read(tmp_path / "c.h5")[2] == undisturbed[2]
    assert read(tmp_path / "c.h5")[1].failures == undisturbed[1].failures


def test_another_shard_size_takes_up_the_shards_that_are_there(
    undisturbed: Cache, manifest: Path, tmp_path: Path
) -> None:
    interrupted(manifest, tmp_path / "c.h5", 4)
    summary = extract(manifest, tmp_path / "c.h5", config(shard_size=5))
    assert (summary.resumed, summary.encoded, summary.shards, summary.config.shard_size) == (4, 5, 1, 5)
    assert read(tmp_path / "c.h5")[2] == undisturbed[2]


def test_a_damaged_shard_is_done_again(undisturbed: Cache, manifest: Path, tmp_path: Path) -> None:
    interrupted(manifest, tmp_path / "c.h5", 8)
    (shard, *_) = sorted((tmp_path / "c.h5.shards").glob("*.h5"))
    shard.write_bytes(shard.read_bytes()[:-50])
    summary = extract(manifest, tmp_path / "c.h5", config())
    assert (summary.resumed, summary.encoded) == (4, 5)
    assert [path.name for path in tmp_path.glob("c.h5*")] == ["c.h5"]
    assert read(tmp_path / "c.h5")[2] == undisturbed[2]


def test_pooling_left_to_timm_is_recorded_by_its_name_and_makes_the_same_cache(manifest: Path, tmp_path: Path) -> None:
    summary = extract(manifest, tmp_path / "c.h5", config(pool="mean"))
    again = extract(manifest, tmp_path / "c.h5", config(pool="auto"))
    assert (again.key, again.written, again.config.pool) == (summary.key, False, "mean")
    with store.FeatureStore(tmp_path / "c.h5") as cache:
        assert (cache.key_fields["pool"], cache.config["pool"]) == ("mean", "mean")


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"image_size": 48}, "image_size"), ({"backbone": "test_resnet"}, "backbone"), ({"pool": "max"}, "pool")],
)
@pytest.mark.parametrize("finished", [True, False])
def test_other_settings_are_refused_and_named(
    changes: dict[str, object], field: str, finished: bool, manifest: Path, tmp_path: Path
) -> None:
    out = tmp_path / "c.h5"
    if finished:
        extract(manifest, out, config())
    else:
        interrupted(manifest, out, 4)
    with pytest.raises(StaleStoreError, match=f"made with {field} = .*, asked for {field} = "):
        extract(manifest, out, config(**changes))
    summary = extract(manifest, out, config(**changes), overwrite=True)
    assert (summary.progress.done, summary.progress.resumed) == (10, 0)


@pytest.mark.parametrize("finished", [True, False])
def test_other_weights_of_the_same_backbone_are_refused_and_named(
    finished: bool, manifest: Path, tmp_path: Path
) -> None:
    state = timm.create_model("test_efficientnet").state_dict()  # drawn anew, so not those of `random`
    save_file(state, tmp_path / "other.safetensors")
    if finished:
        extract(manifest, tmp_path / "c.h5", config())
    else:
        interrupted(manifest, tmp_path / "c.h5", 4)
    with pytest.raises(
        StaleStoreError, match=r"made with weights = \w{12}…, asked for weights = \w{12}…; give another"
    ):
        extract(manifest, tmp_path / "c.h5", config(weights=str(tmp_path / "other.safetensors")))


def test_new_labels_are_written_without_extracting_again(manifest: Path, tmp_path: Path) -> None:
    extract(manifest, tmp_path / "c.h5", config())
    before = read(tmp_path / "c.h5")
    stamp = (tmp_path / "c.h5").stat().st_mtime_ns
    again = extract(manifest, tmp_path / "c.h5", config())
    assert (again.encoded, again.progress.done, again.progress.resumed, again.written) == (0, 0, 10, False)
    assert (again.kept, again.differences) == (10, [])
    assert (tmp_path / "c.h5").stat().st_mtime_ns == stamp
    assert [name for name, _ in again.failures] == ["r3", "r6", "r8"]
    manifest.write_text(manifest.read_text().replace("L1,test", "New,val"))
    summary = extract(manifest, tmp_path / "c.h5", config())
    after = read(tmp_path / "c.h5")
    assert (summary.encoded, summary.written, after[2]) == (0, True, before[2])
    assert (summary.kept, summary.differences) == (10, ["labels", "splits"])
    assert after[1].regions.label.tolist() == [*before[1].regions.label[:9], "New"]
    assert after[1].regions.split.tolist() == [*before[1].regions.split[:9], "val"]
    np.testing.assert_array_equal(after[0], before[0])
    assert (after[1].ok.tolist(), after[1].failures) == (before[1].ok.tolist(), before[1].failures)


def test_what_killed_processes_left_beside_a_whole_cache_is_removed(manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.h5"
    write_images(manifest.parent, ["3.jpg", "6.jpg"], first=20)
    manifest.write_text(manifest.read_text().replace("70,1,90,5", "7,1,9,5"))  # now nothing fails
    interrupted(manifest, out, 10)
    (tmp_path / "c.h5.shards").rename(tmp_path / "kept")
    assert extract(manifest, out, config()).failures == []
    (tmp_path / "c.h5.12.part").touch()
    (tmp_path / "kept").rename(tmp_path / "c.h5.shards")
    assert extract(manifest, out, config()).written is False
    assert sorted(path.name for path in tmp_path.glob("c.h5*")) == ["c.h5"]


def test_shards_of_other_settings_beside_a_whole_cache_are_left_alone(manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.h5"
    extract(manifest, out, config())

    interrupted(manifest, out, 8, overwrite=True, pool="max")
    assert extract(manifest, out, config()).written is False
    assert extract(manifest, out, config(pool="max"), overwrite=True).resumed == 8
