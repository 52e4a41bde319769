"""Stage 1 as a whole: what it writes, and what it refuses before any work."""

import re
import shutil
import zipfile
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from hfc import store
from hfc.config import ExtractConfig, resolve
from hfc.crops import FORMATS, CropSettings, crop_image
from hfc.datasets import read_regions
from hfc.errors import ConfigError, EncoderError, StoreError
from hfc.extract.encoder import load_encoder
from hfc.extract.stage import extract
from hfc.extract.summary import ExtractSummary, Progress
from tests.datasets.test_archives import pack, pack_tar
from tests.support.backbones import TINY
from tests.support.deepfashion_tree import ITEMS, Item, write_images, write_tree
from tests.support.extraction import Cache, config, read
from tests.support.privileges import unprivileged

pytestmark = pytest.mark.usefixtures("small_turns")


def test_settings_are_given_by_keyword_as_in_one_object(manifest: Path, tmp_path: Path) -> None:
    wanted = extract(manifest, tmp_path / "a.h5", config(views="flip"))
    changed = extract(str(manifest), tmp_path / "b.h5", config(), views="flip")
    given = {f.name: getattr(config(), f.name) for f in fields(ExtractConfig)}
    alone = extract(str(manifest), out=str(tmp_path / "c.h5"), **given | {"views": "flip"})
    assert wanted
    for summary in (changed, alone):
        assert summary
        assert summary.config == wanted.config
        assert summary.key == wanted.key
    for name in ("b.h5", "c.h5"):
        np.testing.assert_array_equal(read(tmp_path / name)[0], read(tmp_path / "a.h5")[0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"imagesize": 32}, "unknown setting 'imagesize'; did you mean image_size?"),
        ({"overwite": True}, "unknown setting 'overwite'; did you mean overwrite?"),
        ({"image_size": "32"}, "image_size: expected an integer, found '32'"),
        (
            {"weights": Path("no.pth")},
            "weights no.pth: no such file; give hub, wheel, random or a .safetensors or .pth file",
        ),
    ],
)
def test_a_wrong_keyword_is_refused(settings: dict[str, object], message: str, manifest: Path, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, EncoderError)) as refused:
        extract(manifest, tmp_path / "c.h5", **{"backbone": TINY, **settings})  # type: ignore[arg-type]
    assert str(refused.value) == message


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


CHANGES_KEY = {
    **{"backbone": "test_resnet", "image_size": 48, "resize": "pad", "pool": "max", "roi_margin": 0.1},
    **{"precision": "bf16", "store": "float16", "views": "flip", "compile": True},
}

KEEPS_KEY = {
    **{"engine": "local", "max_failures": "5", "outside_root": True},
    **{"batch_size": 2, "workers": 3, "device": "cpu", "shard_size": 2, "split_seed": 9},
    **{"limit": 9, "val_fraction": 0.3, "test_fraction": 0.3, "group": r"(.+)\.jpg", "split": "official"},
    **{"label_column": "label", "remote": True},
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
        if store.shard_files(out):
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
    regions = read_regions(tmp_path / "df", outside_root=False)
    assert table.regions.box.tolist() == [list(ITEMS[i][2]) for i in (0, 1, 3)]
    assert set(table.regions.id) < set(regions.id)


@pytest.mark.parametrize("text", ["few", "-1", "5 %%", "%"])
def test_a_limit_of_failures_is_a_number_or_a_share(text: str, manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="max_failures: expected a number like 100 or a share like 5%"):
        extract(manifest, tmp_path / "c.h5", config(max_failures=text))


def test_an_archive_gives_the_features_of_the_folder_bit_for_bit(tmp_path: Path) -> None:
    """Also its failures, labels, splits and key."""
    write_images(tmp_path / "photos", [f"{'Tee' if i % 2 else 'Coat'}/{i}.jpg" for i in range(12)])
    (tmp_path / "photos" / "Tee" / "3.jpg").write_bytes(b"no image")
    shutil.make_archive(str(tmp_path / "photos"), "zip", tmp_path, "photos")
    caches = {}
    for name in ("photos", "photos.zip"):
        summary = extract(tmp_path / name, tmp_path / f"{name}.h5", config(workers=4))
        assert summary
        caches[name] = (summary.key, *read(tmp_path / f"{name}.h5"))
    (key, features, table, checksum), packed = caches["photos"], caches["photos.zip"]
    assert key == packed[0]
    np.testing.assert_array_equal(packed[1], features)
    assert (packed[2].digest(), packed[3]) == (table.digest(), checksum)
    assert [reason for _, reason in table.failures] == [f"not an image in a known format: {', '.join(FORMATS)}"]


def test_shards_give_the_features_of_the_folder_bit_for_bit(tmp_path: Path) -> None:
    names = [f"{'Tee' if i % 2 else 'Coat'}/{i:02d}.jpg" for i in range(12)]
    write_images(tmp_path / "photos", names)
    (tmp_path / "shards").mkdir()
    for shard in range(3):
        members = {}
        for name in names[shard::3]:
            members[name.replace("/", "-")] = (tmp_path / "photos" / name).read_bytes()
            members[name.replace("/", "-").replace("jpg", "cls")] = name.split("/")[0].encode()
        pack_tar(tmp_path / "shards" / f"data-{shard}.tar", members)
    caches = []
    for source in (tmp_path / "photos", tmp_path / "shards" / "data-{0..2}.tar"):
        extract(source, tmp_path / f"{source.name}.h5", config(workers=4))
        features, table, _ = read(tmp_path / f"{source.name}.h5")
        keys = [path[-len("00.jpg") :] for path in table.regions.path]
        caches.append((features[np.argsort(keys)], table.regions.label[np.argsort(keys)].tolist(), table.failures))
    (features, labels, failures), shards = caches
    np.testing.assert_array_equal(shards[0], features)
    assert len(np.unique(features[:, 0, 0])) == 12  # rows in another order would not be equal
    assert (shards[1], shards[2]) == (labels, failures) == (["Coat", "Tee"] * 6, [])


def test_members_that_may_not_be_read_are_failures_of_their_rows(tmp_path: Path) -> None:
    write_images(tmp_path, [f"{i}.jpg" for i in range(3)])
    contents = [(tmp_path / f"{i}.jpg").read_bytes() for i in range(3)]
    names = ("Tee/0.jpg", "../Tee/1.jpg", "Tee/2.jpg")
    file = pack(tmp_path / "photos.zip", dict(zip(names, contents, strict=True)), zipfile.ZIP_STORED)
    damaged = file.read_bytes().replace(contents[2][-40:-30], bytes(10))
    file.write_bytes(damaged)
    extract(file, tmp_path / "c.h5", config(workers=2))
    _, table, _ = read(tmp_path / "c.h5")
    assert table.regions.id.tolist() == ["../Tee/1.jpg", "Tee/0.jpg", "Tee/2.jpg"]
    assert table.regions.label.tolist() == ["Tee"] * 3
    assert table.failures == [
        (0, "its name leaves the archive: '../Tee/1.jpg'"),
        (2, "damaged member of the archive: its checksum does not fit its bytes"),
    ]


def test_a_manifest_names_images_in_archives_beside_it(manifest: Path, undisturbed: Cache) -> None:
    folder = manifest.parent
    with zipfile.ZipFile(folder / "some.zip", "w") as packed:
        for name in ("0.jpg", "1.jpg", "3.jpg"):
            packed.write(folder / name, f"in/{name}")
            (folder / name).unlink()
    text = re.sub(r",([013])\.jpg", r",some.zip/in/\1.jpg", manifest.read_text())
    manifest.write_text(text)
    extract(manifest, folder / "c.h5", config())
    features, table, _ = read(folder / "c.h5")
    np.testing.assert_array_equal(features, undisturbed[0])
    assert table.failures == undisturbed[1].failures
    assert table.regions.id.tolist() == undisturbed[1].regions.id.tolist()


def by_id(path: Path) -> dict[str, tuple[str, str]]:
    """Split and group of each row of a cache."""
    rows = read(path)[1].regions
    return dict(zip(rows.id.tolist(), zip(rows.split.tolist(), rows.group.tolist(), strict=True), strict=True))


def test_photographs_that_are_added_take_splits_beside_those_that_were_there(tmp_path: Path) -> None:
    names = [f"{label}/{item}_{view}.jpg" for label in ("Tee", "Coat") for item in range(8) for view in range(2)]
    write_images(tmp_path / "photos", names[:-8], size=(20, 20))
    first = extract(tmp_path / "photos", tmp_path / "c.h5", config())
    before = by_id(tmp_path / "c.h5")
    assert (sum(first.splits.values()), set(first.splits), first.groups) == (24, {"train", "val", "test"}, 0)
    write_images(tmp_path / "photos", names, size=(20, 20))
    second = extract(tmp_path / "photos", tmp_path / "c.h5", config(split_seed=7))
    after = by_id(tmp_path / "c.h5")
    assert (len(after), second.new) == (32, 8)
    assert {name: after[name] for name in before} == before
    # Views that were parted are put together, where most of them were.
    third = extract(tmp_path / "photos", tmp_path / "c.h5", config(group=r"(.+)_\d\."))
    together = by_id(tmp_path / "c.h5")
    assert (third.encoded, third.groups) == (0, 16)
    for item in {group for _, group in together.values()}:
        views = [name for name, (_, group) in together.items() if group == item]
        kinds = {together[name][0] for name in views}
        assert len(kinds) == 1
        assert kinds <= {after[name][0] for name in views}


def test_deepfashion_by_items_costs_no_encoding(tmp_path: Path) -> None:
    splits = ("train", "val", "test")
    items: list[Item] = [
        (f"img/{item}/{view}.jpg", 18, (1, 1, 59, 79), splits[view]) for item in range(8) for view in range(3)
    ]
    write_tree(tmp_path / "df", items)
    extract(tmp_path / "df", tmp_path / "c.h5", config())
    assert by_id(tmp_path / "c.h5") == {item[0]: (item[3], item[0].rpartition("/")[0]) for item in items}
    summary = extract(tmp_path / "df", tmp_path / "c.h5", config(split="item"))
    rows = by_id(tmp_path / "c.h5")
    assert (summary.encoded, summary.written, summary.origin) == (0, True, "DeepFashion, item split")
    assert len(set(rows.values())) == 8  # every item in one split
    assert {split for split, _ in rows.values()} == set(splits)
    again = extract(tmp_path / "df", tmp_path / "c.h5", config(split="item"))
    assert (again.written, by_id(tmp_path / "c.h5")) == (False, rows)
    extract(tmp_path / "df", tmp_path / "c.h5", config())
    official = {name: split for name, (split, _) in by_id(tmp_path / "c.h5").items()}
    assert official == {item[0]: item[3] for item in items}
