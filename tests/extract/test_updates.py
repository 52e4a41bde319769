"""A finished cache is brought up to date: a pixel is paid for once, and the result is that of a fresh extraction."""

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hfc import store
from hfc.config import ExtractConfig, resolve
from hfc.errors import ConfigError, DatasetError
from hfc.extract import fingerprints
from hfc.extract.encoder import Encoder
from hfc.extract.stage import extract
from hfc.extract.summary import ExtractSummary, Progress
from hfc.sample import draw_sample
from tests.support.deepfashion_tree import write_images
from tests.support.extraction import config

pytestmark = pytest.mark.usefixtures("small_turns")

LONG_AGO = 1_600_000_000 * 10**9
MADE = Path(__file__).parents[1] / "made_before"


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Every crop that goes through the backbone."""
    crops: list[bytes] = []
    submit = Encoder.submit

    def spy(self: Encoder, batch: NDArray[np.uint8]) -> Callable[[], NDArray[np.float32]]:
        crops.extend(crop.tobytes() for crop in batch)
        return submit(self, batch)

    monkeypatch.setattr(Encoder, "submit", spy)
    return crops


def age(folder: Path) -> None:
    """Let every file be old, so that its time is trusted."""
    for number, file in enumerate(sorted(folder.rglob("*.jpg"))):
        if file.stat().st_mtime_ns > LONG_AGO * 1.01:
            os.utime(file, ns=(LONG_AGO + number, LONG_AGO + number))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A tree of 12 photographs in two folders."""
    folder = tmp_path / "photos"
    write_images(folder, [f"{'Tee' if i % 2 else 'Coat'}/{i:02d}.jpg" for i in range(12)])
    age(folder)
    return folder


def run(source: Path, out: Path, **how: object) -> ExtractSummary:
    summary = extract(source, out, config(), **how)  # type: ignore[arg-type]
    assert summary
    return summary


def content(path: Path) -> tuple[object, ...]:
    """Everything in a cache but dates: features, checksum, rows."""
    with store.FeatureStore(path) as cache:
        cache.verify()
        table = cache.table()
        assert table.fingerprints
        dateless = replace(table.fingerprints, modified=table.fingerprints.modified * 0)
        rows = replace(table, fingerprints=dateless)
        return cache.key, cache.features_sha256, cache.features().tobytes(), rows.digest(), str(table.regions.root)


def splits(path: Path) -> dict[str, str]:
    with store.FeatureStore(path) as cache:
        table = cache.table()
        return dict(zip(table.regions.id.tolist(), table.regions.split.tolist(), strict=True))


def check(summary: ExtractSummary, source: Path, crops: list[bytes], **want: int) -> None:
    """Compare counts, and the cache with a fresh one but for drawn splits, which stay."""
    counts = {"kept": 0, "new": 0, "changed": 0, "gone": 0, "encoded": 0} | want
    assert {name: getattr(summary, name) for name in counts} == counts
    assert len(crops) == counts["encoded"]
    crops.clear()
    fresh = summary.path.with_name("fresh.h5")
    run(source, fresh, overwrite=fresh.exists())
    crops.clear()
    with store.FeatureStore(summary.path) as cache, store.FeatureStore(fresh) as other:
        same = replace(other.table().regions, split=cache.table().regions.split)
        assert cache.table().regions.digest == same.digest
    assert content(summary.path)[:3] == content(fresh)[:3]
    if splits(summary.path) == splits(fresh):
        assert content(summary.path) == content(fresh)


def test_only_new_and_changed_pixels_are_encoded(photos: Path, tmp_path: Path, encoded: list[bytes]) -> None:
    out = tmp_path / "c.h5"
    first = run(photos, out)
    check(first, photos, encoded, new=12, encoded=12)
    before = splits(out)
    write_images(photos, ["Tee/new.jpg", "Coat/new.jpg", "Hat/new.jpg"], first=40)
    write_images(photos, ["Tee/03.jpg"], first=50)
    (photos / "Coat/02.jpg").unlink()
    check(run(photos, out), photos, encoded, kept=10, new=3, changed=1, gone=1, encoded=4)
    after = splits(out)
    assert {name: after[name] for name in before if name in after} == {
        name: split for name, split in before.items() if name != "Coat/02.jpg"
    }
    with store.FeatureStore(out) as cache:
        (update,) = cache.provenance["updates"]
    assert (update["kept"], update["encoded"], update["gone"]) == (10, 4, 1)
    assert not list(tmp_path.glob("c.h5.*"))


def test_a_cache_that_is_up_to_date_is_left_alone(photos: Path, tmp_path: Path, encoded: list[bytes]) -> None:
    out = tmp_path / "c.h5"
    run(photos, out)
    encoded.clear()
    before = out.read_bytes(), out.stat().st_mtime_ns
    for how in ({}, {"check": "content"}, {"dry_run": True}):
        summary = run(photos, out, **how)
        assert (summary.kept, summary.written, summary.differences) == (12, False, [])
    assert (out.read_bytes(), out.stat().st_mtime_ns) == before
    assert encoded == []


def rename_a_file(photos: Path) -> None:
    (photos / "Tee/01.jpg").rename(photos / "Tee/zz.jpg")


def rename_a_label(photos: Path) -> None:
    (photos / "Tee").rename(photos / "Shirt")


def exchange_two_files(photos: Path) -> None:
    (photos / "Tee/01.jpg").rename(photos / "x")
    (photos / "Coat/02.jpg").rename(photos / "Tee/01.jpg")
    (photos / "x").rename(photos / "Coat/02.jpg")


@pytest.mark.parametrize(("change", "changed"), [(rename_a_file, 0), (rename_a_label, 0), (exchange_two_files, 2)])
def test_what_moves_costs_no_encoding(
    change: Callable[[Path], None], changed: int, photos: Path, tmp_path: Path, encoded: list[bytes]
) -> None:
    out = tmp_path / "c.h5"
    run(photos, out)
    encoded.clear()
    before = sorted(splits(out).values())
    change(photos)
    summary = run(photos, out)
    assert summary.written
    assert sorted(splits(out).values()) == before
    check(summary, photos, encoded, kept=12 - changed, changed=changed)


def test_a_moved_folder_costs_no_encoding(photos: Path, tmp_path: Path, encoded: list[bytes]) -> None:
    out = tmp_path / "c.h5"
    run(photos, out)
    encoded.clear()
    moved = photos.rename(tmp_path / "moved")
    summary = run(moved, out)
    assert (summary.written, summary.differences) == (True, ["folder"])
    check(summary, moved, encoded, kept=12)
    assert run(moved, out).written is False


def test_another_order_of_rows_costs_no_encoding(photos: Path, tmp_path: Path, encoded: list[bytes]) -> None:
    out, names = tmp_path / "c.h5", [file.relative_to(tmp_path) for file in sorted(photos.rglob("*.jpg"))]
    rows = [f"{name},L,{split}" for name, split in zip(names, ["train"] * 10 + ["val", "test"], strict=True)]
    manifest = tmp_path / "m.csv"
    manifest.write_text("\n".join(["path,label,split", *rows]))
    run(manifest, out)
    encoded.clear()
    manifest.write_text("\n".join(["path,label,split", *rows[::-1]]))
    summary = run(manifest, out)
    assert summary.differences == ["order"]
    check(summary, manifest, encoded, kept=12)
    manifest.write_text("\n".join(["path,label,split", *rows[::2]]))
    check(run(manifest, out), manifest, encoded, kept=6, gone=6)


def test_the_same_pixels_twice_are_encoded_once(photos: Path, tmp_path: Path, encoded: list[bytes]) -> None:
    for name in ("Coat/twin.jpg", "Tee/twin.jpg"):
        shutil.copy(photos / "Tee/01.jpg", photos / name)
    out = tmp_path / "c.h5"
    check(run(photos, out), photos, encoded, new=14, encoded=12)
    shutil.copy(photos / "Coat/02.jpg", photos / "Tee/02.jpg")
    check(run(photos, out), photos, encoded, kept=15)


def test_of_the_same_bytes_every_box_is_encoded(photos: Path, tmp_path: Path, encoded: list[bytes]) -> None:
    manifest, out = tmp_path / "m.csv", tmp_path / "c.h5"
    text = "id,path,label,split,x1,y1,x2,y2\na,photos/Tee/01.jpg,L,train,1,2,50,60\nb,photos/Tee/01.jpg,L,train,,,,\n"
    manifest.write_text(text)
    check(run(manifest, out), manifest, encoded, new=2, encoded=2)
    manifest.write_text(text.replace("1,2,50,60", "1,2,50,61"))
    check(run(manifest, out), manifest, encoded, kept=1, changed=1, encoded=1)


def test_a_file_that_was_replaced_is_noticed(photos: Path, tmp_path: Path, encoded: list[bytes]) -> None:
    file, out = photos / "Tee/01.jpg", tmp_path / "c.h5"
    file.write_bytes(file.read_bytes().ljust(4000, b"\0"))
    os.utime(file, ns=(LONG_AGO, LONG_AGO))
    run(photos, out)
    encoded.clear()
    write_images(photos, ["Tee/01.jpg"], first=50)
    file.write_bytes(file.read_bytes().ljust(4000, b"\0"))  # of the same size
    os.utime(file, ns=(LONG_AGO + 1, LONG_AGO + 1))
    check(run(photos, out), photos, encoded, kept=11, changed=1, encoded=1)
    write_images(photos, ["Tee/01.jpg"], first=60)
    file.write_bytes(file.read_bytes().ljust(4000, b"\0"))
    os.utime(file, ns=(LONG_AGO + 1, LONG_AGO + 1))  # and time: its bytes alone tell
    assert (run(photos, out).kept, encoded) == (12, [])
    check(run(photos, out, check="content"), photos, encoded, kept=11, changed=1, encoded=1)


def test_a_file_written_just_before_it_was_read_is_read_again(
    photos: Path, tmp_path: Path, encoded: list[bytes]
) -> None:
    file, out = photos / "Tee/01.jpg", tmp_path / "c.h5"
    file.write_bytes(file.read_bytes().ljust(4000, b"\0"))
    now = time.time_ns()
    os.utime(file, ns=(now, now))
    run(photos, out)
    encoded.clear()
    write_images(photos, ["Tee/01.jpg"], first=50)
    file.write_bytes(file.read_bytes().ljust(4000, b"\0"))
    os.utime(file, ns=(now, now))  # as on a disk whose clock has not moved on
    check(run(photos, out), photos, encoded, kept=11, changed=1, encoded=1)


def test_a_file_that_was_only_touched_is_read_once_more(
    photos: Path, tmp_path: Path, encoded: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "c.h5"
    run(photos, out)
    encoded.clear()
    reads: list[str] = []
    look = fingerprints.read_bytes
    monkeypatch.setattr(fingerprints, "read_bytes", lambda root, path, remote: reads.append(path) or look(root, path))
    os.utime(photos / "Tee/01.jpg", ns=(LONG_AGO + 99, LONG_AGO + 99))
    summary = run(photos, out)
    assert (summary.kept, summary.written, summary.differences) == (12, True, ["times of files"])
    assert run(photos, out).written is False
    assert (encoded, reads) == ([], ["Tee/01.jpg"])


def test_a_file_that_is_mended_is_encoded(photos: Path, tmp_path: Path, encoded: list[bytes]) -> None:
    out, whole = tmp_path / "c.h5", (photos / "Tee/01.jpg").read_bytes()
    (photos / "Tee/01.jpg").write_bytes(whole[:300])
    (photos / "Tee/03.jpg").chmod(0)
    (photos / "Tee/05.jpg").rename(tmp_path / "elsewhere")
    (photos / "Tee/05.jpg").symlink_to(tmp_path / "nowhere")
    first = run(photos, out)
    assert {name for name, _ in first.failures} >= {"Tee/01.jpg", "Tee/05.jpg"}
    encoded.clear()
    again = run(photos, out)
    assert (again.kept, again.written, again.failures, encoded) == (12, False, first.failures, [])
    (photos / "Tee/01.jpg").write_bytes(whole)
    (photos / "Tee/05.jpg").unlink()
    (tmp_path / "elsewhere").rename(photos / "Tee/05.jpg")
    check(run(photos, out), photos, encoded, kept=10, changed=2, encoded=2)


def between(monkeypatch: pytest.MonkeyPatch, change: Callable[[], object]) -> None:
    """Change something after the fingerprints were taken and before images are decoded."""
    from hfc.extract import plan

    look_at = plan.look_at

    def changing(*words: object, **how: object) -> fingerprints.Looks:
        looks = look_at(*words, **how)  # type: ignore[arg-type]
        change()
        return looks

    monkeypatch.setattr(plan, "look_at", changing)


def test_a_file_that_vanishes_before_it_is_decoded_is_a_failure_once(
    photos: Path, tmp_path: Path, encoded: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, file = tmp_path / "c.h5", photos / "Tee/01.jpg"
    with monkeypatch.context() as patch:
        between(patch, lambda: file.rename(tmp_path / "away"))
        summary = run(photos, out)
    assert summary.failures == [("Tee/01.jpg", "cannot read the file: No such file or directory")]
    (tmp_path / "away").rename(file)  # with the bytes, size and time that it had
    encoded.clear()
    check(run(photos, out), photos, encoded, kept=11, changed=1, encoded=1)


def test_a_file_that_changes_before_it_is_decoded_gives_its_features_to_no_row(
    photos: Path, tmp_path: Path, encoded: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "c.h5"
    with monkeypatch.context() as patch:
        between(patch, lambda: write_images(photos, ["Tee/01.jpg"], first=50))
        summary = run(photos, out)
    why = "its file changed while it was extracted; run the same command again"
    assert summary.failures == [("Tee/01.jpg", why)]
    encoded.clear()
    check(run(photos, out), photos, encoded, kept=11, changed=1, encoded=1)


def interrupt(source: Path, out: Path, after: int, **how: object) -> None:
    def stop(progress: Progress) -> None:
        if len(store.shard_files(out)) >= after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(source, out, report=stop, **how)


def test_shards_of_an_interrupted_update_are_a_pool(photos: Path, tmp_path: Path, encoded: list[bytes]) -> None:
    """The source changes again in between: what is of use is kept, the rest goes."""
    out = tmp_path / "c.h5"
    run(photos, out)
    before = out.read_bytes()
    encoded.clear()
    names = [f"Tee/new{i}.jpg" for i in range(8)]
    write_images(photos, names, first=40)
    interrupt(photos, out, 1)
    assert (out.read_bytes(), len(store.shard_files(out))) == (before, 1)
    assert len(encoded) == 4
    encoded.clear()
    (photos / names[0]).unlink()
    (photos / names[1]).rename(photos / "Coat/renamed.jpg")
    write_images(photos, [names[2]], first=70)
    summary = run(photos, out)
    assert (summary.resumed, summary.encoded) == (2, 5)
    check(summary, photos, encoded, kept=12, new=7, encoded=5)
    assert not list(tmp_path.glob("c.h5.*"))


def test_shards_that_are_of_no_use_any_more_are_removed(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.h5"
    run(photos, out)
    write_images(photos, [f"Tee/new{i}.jpg" for i in range(8)], first=40)
    interrupt(photos, out, 1)
    for file in photos.glob("Tee/new*"):
        file.unlink()
    before = out.read_bytes()
    assert run(photos, out, dry_run=True).written is False
    assert len(store.shard_files(out)) == 1  # a dry run removes nothing
    assert run(photos, out).written is False
    assert out.read_bytes() == before
    assert not list(tmp_path.glob("c.h5.*"))


def test_too_many_new_failures_stop_an_update_and_old_ones_do_not(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.h5"
    for name in ("Tee/01.jpg", "Tee/03.jpg", "Tee/05.jpg"):
        (photos / name).write_bytes(b"no image " + name.encode())
    assert len(run(photos, out).failures) == 3
    before = out.read_bytes()
    write_images(photos, ["Tee/new.jpg"], first=40)
    summary = extract(photos, out, config(max_failures="1"))
    assert summary
    assert (len(summary.failures), summary.encoded) == (3, 1)
    for name in ("Tee/07.jpg", "Tee/09.jpg"):
        (photos / name).write_bytes(b"no image " + name.encode())
    before = out.read_bytes()
    with pytest.raises(DatasetError, match=r"stopped: 2 images failed, more than --max-failures 1; the first: Tee/07"):
        extract(photos, out, config(max_failures="1"))
    assert out.read_bytes() == before


def test_where_a_disk_is_missing_the_cache_stays(photos: Path, tmp_path: Path) -> None:
    manifest, out = tmp_path / "m.csv", tmp_path / "c.h5"
    manifest.write_text("path,label,split\nphotos/Tee/01.jpg,L,train\nphotos/Tee/03.jpg,L,train")
    run(manifest, out)
    before = out.read_bytes()
    photos.rename(tmp_path / "away")
    with pytest.raises(
        DatasetError, match=r"no image can be read, but .*c\.h5 has features of 2; .*is a disk missing\?"
    ):
        run(manifest, out)
    assert out.read_bytes() == before


def test_a_cache_of_schema_1_is_made_anew_or_trusted(
    tmp_path: Path, encoded: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    """The cache in made_before is of an earlier version; the pictures are drawn again."""
    draw_sample(tmp_path / "clothes", images=200, seed=3)
    out = tmp_path / "c.h5"
    shutil.copy(MADE / "cache.h5", out)
    with store.FeatureStore(out) as cache:
        table, checksum, created = cache.table(), cache.features_sha256, cache.provenance["created"]
    assert table.fingerprints is None
    names = ("backbone", "weights", "image_size", "precision")
    settings = resolve(ExtractConfig, dict(zip(names, ("test_efficientnet", "random", 64, "fp32"), strict=True)))
    with caplog.at_level(logging.WARNING):
        anew = extract(tmp_path / "clothes", out, settings, dry_run=True)
    assert anew
    assert (anew.kept, anew.changed, anew.gone) == (0, 200, 0)
    # Pictures with equal bytes may have other boxes.
    assert anew.encoded == 200
    assert "every image is encoded anew. With --trust-files features of the same path and box are kept" in caplog.text
    assert encoded == []
    (tmp_path / "clothes" / "Img" / str(table.regions.path[5])).write_bytes(b"no image")  # trusted none the less
    trusted = extract(tmp_path / "clothes", out, settings, trust_files=True)
    assert trusted
    assert (trusted.kept, trusted.encoded, trusted.written, encoded) == (200, 0, True, [])
    with store.FeatureStore(out) as cache:
        cache.verify()
        after = cache.table()
        assert (cache.schema, cache.features_sha256, cache.provenance["created"]) == (2, checksum, created)
    assert after.fingerprints
    files = [(tmp_path / "clothes" / "Img" / str(path)).read_bytes() for path in after.regions.path]
    assert [row.tobytes() for row in after.fingerprints.sha256] == [hashlib.sha256(file).digest() for file in files]
    assert after.regions.split.tolist() == table.regions.split.tolist()


def test_contradicting_options_are_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="trust_files keeps features without looking at files; leave overwrite out"):
        run(photos, tmp_path / "c.h5", trust_files=True, overwrite=True)
    with pytest.raises(ConfigError, match="leave check = content out"):
        run(photos, tmp_path / "c.h5", trust_files=True, check="content")
    with pytest.raises(ConfigError, match="check: expected stat or content, found 'bytes'"):
        run(photos, tmp_path / "c.h5", check="bytes")
