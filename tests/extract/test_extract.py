"""Stage 1: what it writes, what it resumes, what it refuses."""

import errno
import shutil
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from hfc import store
from hfc.config import ExtractConfig, resolve
from hfc.crops import CropSettings, crop_image
from hfc.datasets import read_regions
from hfc.errors import ConfigError, DatasetError, StaleStoreError, StoreError
from hfc.extract import worker
from hfc.extract.encoder import load_encoder
from hfc.extract.stage import extract
from hfc.extract.summary import ExtractSummary, Progress
from tests.support.deepfashion_tree import ITEMS, write_images, write_tree
from tests.support.privileges import unprivileged

TINY = {"backbone": "test_efficientnet", "weights": "random", "image_size": 32, "precision": "fp32", "store": "float32"}
Cache = tuple[store.Features, store.Table, str]
HEADER = "id,path,label,split,x1,y1,x2,y2"


def config(**changes: object) -> ExtractConfig:
    return resolve(ExtractConfig, {**TINY, "shard_size": 4, **changes})


@pytest.fixture(autouse=True)
def _small_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "CPU_TURN", 3)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return write_manifest(tmp_path)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """What one call from beginning to end gives for the manifest."""
    folder = tmp_path_factory.mktemp("undisturbed")
    extract(write_manifest(folder), folder / "whole.h5", config())
    return read(folder / "whole.h5")


def write_manifest(tmp_path: Path) -> Path:
    """Ten regions in eight images; rows 3, 6 and 8 cannot be read."""
    write_images(tmp_path, [f"{i}.jpg" for i in range(8)])
    (tmp_path / "3.jpg").write_bytes((tmp_path / "3.jpg").read_bytes()[:400])
    (tmp_path / "6.jpg").unlink()
    lines = [f"r{i},{i}.jpg,L{i % 2},train,,,," for i in range(8)]
    lines += ["r8,0.jpg,L0,val,70,1,90,5", "r9,0.jpg,L1,test,10,20,50,60"]
    path = tmp_path / "m.csv"
    path.write_text("\n".join([HEADER, *lines]))
    return path


def read(path: Path) -> Cache:
    with store.FeatureStore(path) as cache:
        cache.verify()
        return cache.features(), cache.table(), cache.features_sha256


def test_every_region_has_its_features_and_every_failure_its_reason(manifest: Path, tmp_path: Path) -> None:
    summary = extract(manifest, tmp_path / "c.h5", config())
    features, table, _ = read(tmp_path / "c.h5")
    assert table.regions.id.tolist() == [f"r{i}" for i in range(10)]
    assert table.regions.label.tolist() == ["L0", "L1"] * 4 + ["L0", "L1"]
    assert table.regions.split.tolist() == ["train"] * 8 + ["val", "test"]
    assert table.ok.tolist() == [i not in (3, 6, 8) for i in range(10)]
    reasons = dict(table.failures)
    assert set(reasons) == {3, 6, 8}
    assert "truncated" in reasons[3].lower()
    assert reasons[6] == "cannot read the file: No such file or directory"
    assert reasons[8] == "box 70 1 90 5 lies outside the image of 60 x 80 pixels"
    assert [name for name, _ in summary.failures] == ["r3", "r6", "r8"]
    assert (summary.rows, summary.dim, summary.progress.failed, summary.written) == (10, 256, 3, True)
    # One image at a time, by hand.
    encoder = load_encoder(
        "test_efficientnet", weights="random", image_size=32, pool="mean", precision="fp32", device="cpu"
    )
    fill = tuple(round(255 * channel) for channel in encoder.mean)
    crop = CropSettings(32, "squash", 0.0, fill)  # type: ignore[arg-type]
    for row in range(10):
        if table.ok[row]:
            content = (tmp_path / str(table.regions.path[row])).read_bytes()
            want = encoder.encode(crop_image(content, table.regions.box[row], crop)[None])
            np.testing.assert_array_equal(features[row], want[0])
        else:
            assert not features[row].any()
    with store.FeatureStore(tmp_path / "c.h5") as cache:
        assert cache.provenance["weights"] == {"source": "random", "digest": encoder.weights_digest, "random": True}
        assert cache.config["batch_size"] == 8  # a CPU's
    assert not (tmp_path / "c.h5.shards").exists()


def test_unreadable_images_are_failures_and_leave_other_rows_alone(tmp_path: Path) -> None:
    write_images(tmp_path, [f"{i}.jpg" for i in range(6)])
    rows = "\n".join(["path,label,split", *(f"{i}.jpg,L,train" for i in range(6))])
    (tmp_path / "m.csv").write_text(rows)
    extract(tmp_path / "m.csv", tmp_path / "good.h5", config())
    good = read(tmp_path / "good.h5")
    assert (good[1].ok.all(), good[1].failures) == (True, [])
    assert good[0].any(axis=(1, 2)).all()
    (tmp_path / "0.jpg").unlink()
    (tmp_path / "1.jpg").write_bytes(b"")
    (tmp_path / "2.jpg").write_text("no picture")
    (tmp_path / "4.jpg").write_bytes((tmp_path / "4.jpg").read_bytes()[:-200])
    summary = extract(tmp_path / "m.csv", tmp_path / "bad.h5", config())
    features, table, _ = read(tmp_path / "bad.h5")
    assert table.ok.tolist() == [False, False, False, True, False, True]
    assert [row for row, _ in table.failures] == [0, 1, 2, 4]
    assert summary.failures == [(f"{row}.jpg", reason) for row, reason in table.failures]
    reasons = [reason for _, reason in table.failures]
    assert reasons[0] == "cannot read the file: No such file or directory"
    assert "truncated" in reasons[3]
    assert all(reasons)
    assert not features[[0, 1, 2, 4]].any()
    np.testing.assert_array_equal(features[[3, 5]], good[0][[3, 5]])


def test_features_are_those_of_a_whole_image_decoded_by_pillow(tmp_path: Path) -> None:
    # No crop code of ours: Pillow decodes and resizes, PyTorch normalises and runs.
    write_images(tmp_path, ["a.jpg"])
    (tmp_path / "m.csv").write_text("path,label,split\na.jpg,L,train")
    extract(tmp_path / "m.csv", tmp_path / "c.h5", config())
    encoder = load_encoder(
        "test_efficientnet", weights="random", image_size=32, pool="mean", precision="fp32", device="cpu"
    )
    pixels = np.asarray(Image.open(tmp_path / "a.jpg").resize((32, 32), Image.Resampling.BICUBIC)) / 255
    normal = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    with torch.inference_mode():
        grid = encoder.model.forward_features(  # type: ignore[operator]
            torch.from_numpy(normal.transpose(2, 0, 1)[None]).float()
        )
    want = grid.numpy().mean(axis=(2, 3))
    np.testing.assert_allclose(read(tmp_path / "c.h5")[0][0], want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "changes", [{"batch_size": 1}, {"batch_size": 17}, {"shard_size": 3}, {"shard_size": 9}, {"workers": 1}]
)
def test_how_the_work_is_cut_does_not_change_the_features(
    changes: dict[str, object], undisturbed: Cache, manifest: Path, tmp_path: Path
) -> None:
    extract(manifest, tmp_path / "c.h5", config(**changes))
    assert read(tmp_path / "c.h5")[2] == undisturbed[2]


def interrupted(manifest: Path, out: Path, after: int, **changes: object) -> None:
    """Extract until that many rows are done, then as if by Ctrl-C."""

    def stop(progress: Progress) -> None:
        if progress.done >= after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(manifest, out, config(**changes), report=stop)
    assert not out.exists()


@pytest.mark.parametrize("after", [0, 3, 4, 7, 8, 10])
def test_an_interrupted_call_is_resumed_exactly(after: int, undisturbed: Cache, manifest: Path, tmp_path: Path) -> None:
    interrupted(manifest, tmp_path / "c.h5", after)
    shards = list((tmp_path / "c.h5.shards").glob("*.h5")) if after else []
    stamps = {path: path.stat().st_mtime_ns for path in shards}
    seen: list[dict[Path, int]] = []

    def watch(progress: Progress) -> None:
        seen.append({path: path.stat().st_mtime_ns for path in shards})

    summary = extract(manifest, tmp_path / "c.h5", config(), report=watch)
    assert summary.progress.resumed == min(4 * (after // 4), 10) if after < 10 else 10
    assert all(stamp == stamps for stamp in seen)
    assert read(tmp_path / "c.h5")[2] == undisturbed[2]
    assert read(tmp_path / "c.h5")[1].failures == undisturbed[1].failures


def test_another_shard_size_resumes_with_the_first(manifest: Path, tmp_path: Path) -> None:
    interrupted(manifest, tmp_path / "c.h5", 4)
    summary = extract(manifest, tmp_path / "c.h5", config(shard_size=5))
    assert (summary.progress.resumed, summary.config.shard_size) == (4, 4)


def test_a_damaged_shard_is_done_again(undisturbed: Cache, manifest: Path, tmp_path: Path) -> None:
    interrupted(manifest, tmp_path / "c.h5", 8)
    (shard, *_) = sorted((tmp_path / "c.h5.shards").glob("*.h5"))
    shard.write_bytes(shard.read_bytes()[:-50])
    summary = extract(manifest, tmp_path / "c.h5", config())
    assert summary.progress.done == 6
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


@pytest.mark.parametrize("finished", [True, False])
def test_other_boxes_are_refused(finished: bool, manifest: Path, tmp_path: Path) -> None:
    if finished:
        extract(manifest, tmp_path / "c.h5", config())
    else:
        interrupted(manifest, tmp_path / "c.h5", 4)
    manifest.write_text(manifest.read_text().replace("10,20,50,60", "10,20,50,61"))
    with pytest.raises(StaleStoreError, match="made with regions = "):
        extract(manifest, tmp_path / "c.h5", config())


def test_new_labels_are_written_without_extracting_again(manifest: Path, tmp_path: Path) -> None:
    extract(manifest, tmp_path / "c.h5", config())
    before = read(tmp_path / "c.h5")
    stamp = (tmp_path / "c.h5").stat().st_mtime_ns
    again = extract(manifest, tmp_path / "c.h5", config())
    assert (again.progress.done, again.progress.resumed, again.written) == (0, 10, False)
    assert (tmp_path / "c.h5").stat().st_mtime_ns == stamp
    assert [name for name, _ in again.failures] == ["r3", "r6", "r8"]
    manifest.write_text(manifest.read_text().replace("L1,test", "New,val"))
    summary = extract(manifest, tmp_path / "c.h5", config())
    after = read(tmp_path / "c.h5")
    assert (summary.progress.done, summary.written, after[2]) == (0, False, before[2])
    assert after[1].regions.label.tolist() == [*before[1].regions.label[:9], "New"]
    assert after[1].regions.split.tolist() == [*before[1].regions.split[:9], "val"]
    np.testing.assert_array_equal(after[0], before[0])
    assert (after[1].ok.tolist(), after[1].failures) == (before[1].ok.tolist(), before[1].failures)


def test_what_killed_processes_left_beside_a_whole_cache_is_removed(manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.h5"
    write_images(manifest.parent, ["3.jpg", "6.jpg"])
    manifest.write_text(manifest.read_text().replace("70,1,90,5", "7,1,9,5"))  # now nothing fails
    interrupted(manifest, out, 10)
    (tmp_path / "c.h5.shards").rename(tmp_path / "kept")
    assert extract(manifest, out, config()).failures == []
    for name in ("c.h5.12.part", "c.h5.retry"):
        (tmp_path / name).touch()
    (tmp_path / "kept").rename(tmp_path / "c.h5.shards")
    assert extract(manifest, out, config()).written is False
    assert sorted(path.name for path in tmp_path.glob("c.h5*")) == ["c.h5"]


def test_shards_of_other_settings_beside_a_whole_cache_are_left_alone(manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.h5"
    extract(manifest, out, config())

    def stop(progress: Progress) -> None:
        if progress.done >= 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(manifest, out, config(pool="max"), overwrite=True, report=stop)
    assert extract(manifest, out, config()).written is False
    assert extract(manifest, out, config(pool="max"), overwrite=True).progress.resumed == 8


CHANGES_KEY = {
    **{"backbone": "test_resnet", "image_size": 48, "resize": "pad", "pool": "max", "roi_margin": 0.1},
    **{"precision": "bf16", "store": "float16", "limit": 9, "views": "flip", "compile": True},
}
KEEPS_KEY = {
    **{"engine": "local", "max_failures": "5", "outside_root": True},
    **{"batch_size": 2, "workers": 3, "device": "cpu", "shard_size": 2, "split_seed": 9},
    **{"val_fraction": 0.3, "test_fraction": 0.3},
}


def test_the_key_changes_with_exactly_what_changes_the_features(manifest: Path, tmp_path: Path) -> None:
    def key(**changes: object) -> str:
        return extract(manifest, tmp_path / "dry.h5", config(**changes), dry_run=True).key

    assert {f.name for f in fields(ExtractConfig)} == {"weights", *CHANGES_KEY, *KEEPS_KEY}
    assert not set(CHANGES_KEY) & set(KEEPS_KEY)
    base = key()
    # `weights` changes it by the tensors, not by the name of where they came from.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = timm.create_model("test_efficientnet").state_dict()
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "same.safetensors")
    save_file({name: (tensor + 1).contiguous() for name, tensor in state.items()}, tmp_path / "other.safetensors")
    assert key(weights=str(tmp_path / "same.safetensors")) == base
    assert key(weights=str(tmp_path / "other.safetensors")) != base
    for name, value in CHANGES_KEY.items():
        assert key(**{name: value}) != base, name
    for name, value in KEEPS_KEY.items():
        assert key(**{name: value}) == base, name


def test_a_dry_run_writes_nothing(manifest: Path, tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    summary = extract(manifest, tmp_path / "c.h5", config(), dry_run=True)
    assert (summary.rows, summary.shards, summary.written) == (10, 3, False)
    assert set(tmp_path.iterdir()) == before


def test_a_limit_takes_rows_evenly(manifest: Path, tmp_path: Path) -> None:
    extract(manifest, tmp_path / "c.h5", config(limit=4))
    assert read(tmp_path / "c.h5")[1].regions.id.tolist() == ["r0", "r3", "r6", "r9"]


def test_overwrite_replaces_a_finished_cache(manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.h5"
    first = extract(manifest, out, config())
    same = extract(manifest, out, config(), overwrite=True)
    assert (same.progress.done, same.written, same.key) == (10, True, first.key)
    other = extract(manifest, out, config(pool="max"), overwrite=True)
    with store.FeatureStore(out) as cache:
        cache.verify()
        assert (cache.key, cache.config["pool"]) == (other.key, "max")
    assert other.key != first.key
    assert sorted(path.name for path in tmp_path.glob("c.h5*")) == ["c.h5"]


def test_overwrite_leaves_other_files_alone(manifest: Path, tmp_path: Path) -> None:
    text = manifest.read_text()
    with pytest.raises(StoreError, match="is no feature cache, so --overwrite leaves it alone"):
        extract(manifest, manifest, config(), overwrite=True)
    assert manifest.read_text() == text


def test_a_place_that_cannot_be_written_is_refused_before_the_work(manifest: Path, tmp_path: Path) -> None:
    def count(progress: Progress) -> None:
        raise AssertionError("the work had begun")

    with pytest.raises(StoreError, match="is a folder; --out names the cache file"):
        extract(manifest, tmp_path, config(), report=count)
    with pytest.raises(StoreError, match="cannot be written"):
        extract(manifest, manifest / "c.h5", config(), report=count)
    for mode, name in ((0o555, "read-only"), (0, "closed")):
        (tmp_path / name).mkdir(mode)
        with unprivileged(), pytest.raises(StoreError, match=r"c\.h5: cannot be written: Permission denied"):
            extract(manifest, tmp_path / name / "c.h5", config(), report=count)
        assert list((tmp_path / name).iterdir()) == []


def test_a_folder_that_becomes_read_only_leaves_what_can_be_resumed(
    undisturbed: Cache, manifest: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out" / "c.h5"

    def close(progress: Progress) -> None:
        if progress.done >= 4:
            store.shard_folder(out).chmod(0o555)

    with unprivileged(), pytest.raises(StoreError, match=r"000000004-000000008\.h5: cannot be written: Permission"):
        extract(manifest, out, config(), report=close)
    store.shard_folder(out).chmod(0o755)
    assert extract(manifest, out, config()).progress.resumed == 4
    assert read(out)[2] == undisturbed[2]


def test_deepfashions_layout_goes_through_b5(tmp_path: Path) -> None:
    def run(limit: int) -> ExtractSummary:
        settings = {"weights": "random", "limit": limit, "batch_size": 2}
        return extract(write_tree(tmp_path / "df"), tmp_path / "c.h5", resolve(ExtractConfig, settings))

    summary = run(limit=3)
    features, table, _ = read(tmp_path / "c.h5")
    assert features.shape == (3, 1, 2048)
    assert features.dtype == np.float16
    assert features.any(axis=(1, 2)).all()
    assert (summary.feature_map, summary.config.backbone) == ((7, 7), "tf_efficientnet_b5.aa_in1k")
    regions = read_regions(tmp_path / "df", outside_root=False, split_seed=0, val_fraction=0.1, test_fraction=0.2)
    assert table.regions.box.tolist() == [list(ITEMS[i][2]) for i in (0, 1, 3)]
    assert set(table.regions.id) < set(regions.id)


def test_failed_rows_alone_are_tried_again(manifest: Path, tmp_path: Path) -> None:
    out, folder = tmp_path / "c.h5", manifest.parent
    extract(manifest, out, config())
    before = read(out)
    write_images(folder, ["3.jpg", "6.jpg"])  # row 8 stays as it is: a box outside its image
    summary = extract(manifest, out, config(), retry_failures=True)
    assert summary is not None
    assert (summary.progress.total, summary.progress.done, summary.written) == (3, 3, True)
    assert [name for name, _ in summary.failures] == ["r8"]
    extract(manifest, tmp_path / "new.h5", config())
    mended, new = read(out), read(tmp_path / "new.h5")
    np.testing.assert_array_equal(mended[0], new[0])
    assert (mended[2], mended[1].failures, mended[1].ok.tolist()) == (new[2], new[1].failures, new[1].ok.tolist())
    assert mended[2] != before[2]
    with store.FeatureStore(out) as cache:
        (retry,) = cache.provenance["retries"]
        assert (retry["rows"], retry["failed_again"]) == (3, 1)
    assert not list(tmp_path.glob("c.h5.*"))
    # Without the option nothing is tried again; with it, only what still fails.
    assert extract(manifest, out, config()).progress.done == 0
    assert extract(manifest, out, config(), retry_failures=True).progress.total == 1


def test_an_interrupted_retry_changes_nothing_and_is_resumed(manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.h5"
    extract(manifest, out, config(shard_size=1))
    before = out.read_bytes()
    write_images(manifest.parent, ["3.jpg", "6.jpg"])

    def stop(progress: Progress) -> None:
        if progress.total == 3 and progress.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(manifest, out, config(shard_size=1), retry_failures=True, report=stop)
    assert out.read_bytes() == before
    summary = extract(manifest, out, config(shard_size=1), retry_failures=True)
    assert (summary.progress.total, summary.progress.resumed, summary.progress.done) == (3, 2, 1)
    extract(manifest, tmp_path / "new.h5", config())
    assert read(out)[2] == read(tmp_path / "new.h5")[2]


def test_a_retry_that_could_not_be_merged_is_merged_by_the_next(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "c.h5"
    extract(manifest, out, config())
    before = out.read_bytes()
    write_images(manifest.parent, ["3.jpg", "6.jpg"])

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", full)
        with pytest.raises(StoreError, match=r"c\.h5: cannot be written: No space left on device"):
            extract(manifest, out, config(), retry_failures=True)
    assert out.read_bytes() == before
    summary = extract(manifest, out, config(), retry_failures=True)
    assert (summary.progress.total, summary.progress.resumed, summary.progress.done) == (3, 3, 0)
    assert [name for name, _ in summary.failures] == ["r8"]
    extract(manifest, tmp_path / "new.h5", config())
    assert read(out)[2] == read(tmp_path / "new.h5")[2]
    assert not list(tmp_path.glob("c.h5.*"))


@pytest.mark.parametrize(("most", "stops"), [("2", True), ("3", False), ("20%", True), ("30%", False)])
def test_too_many_failures_stop_the_work(most: str, stops: bool, manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.h5"
    if not stops:
        assert len(extract(manifest, out, config(max_failures=most)).failures) == 3
        return
    message = rf"stopped: 3 images failed, more than --max-failures {most}; the first: r3: damaged image: "
    with pytest.raises(DatasetError, match=message):
        extract(manifest, out, config(max_failures=most))
    assert not out.exists()
    resumed = sum(len(store.read_shard(path).ok) for path in store.shard_files(out))
    assert resumed == 10  # the third failure is row 8, in the last batch of the last shard
    summary = extract(manifest, out, config())
    assert (summary.progress.resumed, summary.progress.done) == (10, 0)


def test_failures_that_are_to_be_tried_again_do_not_count(manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.h5"
    with pytest.raises(DatasetError, match="stopped: 2 images failed, more than --max-failures 1"):
        extract(manifest, out, config(max_failures="1"))
    write_images(manifest.parent, ["3.jpg", "6.jpg"])
    summary = extract(manifest, out, config(max_failures="1"), retry_failures=True)  # row 8 is the one that may fail
    assert [name for name, _ in summary.failures] == ["r8"]
    extract(manifest, tmp_path / "new.h5", config())
    assert read(out)[2] == read(tmp_path / "new.h5")[2]


def test_a_share_of_failures_is_one_of_all_rows_in_a_retry_too(manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.h5"
    extract(manifest, out, config(max_failures="30%"))
    write_images(manifest.parent, ["3.jpg"])
    summary = extract(manifest, out, config(max_failures="30%"), retry_failures=True)  # two of the three fail again
    assert [name for name, _ in summary.failures] == ["r6", "r8"]


@pytest.mark.parametrize("text", ["few", "-1", "5 %%", "%"])
def test_a_limit_of_failures_is_a_number_or_a_share(text: str, manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="max_failures: expected a number like 100 or a share like 5%"):
        extract(manifest, tmp_path / "c.h5", config(max_failures=text))


def test_a_mirrored_view_is_the_view_of_the_mirrored_crop(manifest: Path, tmp_path: Path) -> None:
    write_images(tmp_path, ["a.jpg"])
    Image.open(tmp_path / "a.jpg").save(tmp_path / "a.png")
    Image.open(tmp_path / "a.jpg").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "b.png")
    (tmp_path / "two.csv").write_text("path,label,split\na.png,L,train\nb.png,L,train")
    extract(tmp_path / "two.csv", tmp_path / "two.h5", config(views="flip"))
    features = read(tmp_path / "two.h5")[0]
    assert features.shape == (2, 2, 256)
    np.testing.assert_allclose(features[0, 1], features[1, 0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(features[1, 1], features[0, 0], rtol=1e-4, atol=1e-5)
    assert np.abs(features[0, 0] - features[0, 1]).max() > 1e-3
