"""Mistakes with their pictures: which are shown, where they are looked for, and what is said if they are not there."""

import base64
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hfc import runs, store
from hfc.errors import RunError
from hfc.extract.stage import extract
from hfc.regions import Regions, strings
from hfc.report import write_report
from hfc.report.gallery import SHOWN, galleries
from hfc.report.rows import Outcome, read_leaderboards
from tests.support.caches import put
from tests.support.deepfashion_tree import write_images
from tests.support.extraction import config
from tests.support.made_runs import tree_of, two_methods, write_run
from tests.support.made_up import FIELDS
from tests.support.server import Reply, serving

SAID = np.array([0, 1, 2, 1, 3, 2])
TARGET = np.array([0, 0, 0, 1, 2, 2])


def picture(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (40, 40)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, quality=95)


def outcome(folder: Path) -> Outcome:
    (board,) = read_leaderboards(runs.find([folder]))
    return board.best


def wrong_thrice(folder: Path, **changes: object) -> Outcome:
    """Images 1, 2 and 4 are wrong; 2 is the farthest off, 4 the surest."""
    tree = tree_of(folder / "tree.csv")
    final = np.full((6, 6), 0.02, dtype=np.float32)
    final[np.arange(6), SAID] = [0.9, 0.5, 0.6, 0.9, 0.9, 0.9]
    names = [f"images/{i}.jpg" for i in range(6)]
    write_run(folder / "run", tree, final=final, target=TARGET, ids=names, **changes)
    return outcome(folder / "run")


def thumbnail(uri: str) -> Image.Image:
    assert uri.startswith("data:image/jpeg;base64,")
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")


def size(uri: str) -> tuple[int, int]:
    return thumbnail(uri).size


def pixel(uri: str, x: int, y: int) -> tuple[int, ...]:
    return tuple(thumbnail(uri).getpixel((x, y)))  # type: ignore[arg-type]


def test_the_surest_and_the_farthest_mistakes_come_first_with_their_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hfc.report.gallery.SHOWN", 1)
    found = wrong_thrice(tmp_path)
    for i in range(6):
        picture(tmp_path / "root" / "images" / f"{i}.jpg", (40 * i, 0, 0), (60, 30))
    worst, costly = galleries(found, tmp_path / "root")
    assert [p.id for p in worst.mistakes] == ["images/4.jpg"]
    assert [p.id for p in costly.mistakes] == ["images/2.jpg"]
    first = costly.mistakes[0]
    assert (first.truth, first.answer, first.height, first.seeds) == ("tops > Tee", "trousers > Jeans", 2.0, "1 of 1")
    assert first.confidence == pytest.approx(0.6 / 0.7)
    assert pixel(first.source, 80, 40)[0] == pytest.approx(80, abs=4)  # that very picture, not another
    assert size(first.source) == (160, 80)  # not stretched, and nothing around it
    assert max(pixel(first.source, 80, 0)[1:]) < 9

    monkeypatch.setattr("hfc.report.gallery.SHOWN", 2)  # the farthest is among the surest: it is not shown twice
    worst, costly = galleries(found, tmp_path / "root")
    assert [p.id for p in worst.mistakes] == ["images/4.jpg", "images/2.jpg"]
    assert [p.id for p in costly.mistakes] == ["images/1.jpg"]
    monkeypatch.setattr("hfc.report.gallery.SHOWN", 3)
    (worst,) = galleries(found, tmp_path / "root")
    assert [p.id for p in worst.mistakes] == ["images/4.jpg", "images/2.jpg", "images/1.jpg"]


@pytest.mark.parametrize("above", ["", "root/"])
def test_pictures_are_shown_from_an_archive(above: str, tmp_path: Path) -> None:
    wrong = wrong_thrice(tmp_path)
    for i in range(6):
        picture(tmp_path / "root" / "images" / f"{i}.jpg", (40 * i, 0, 0), (60, 30))
    shutil.make_archive(str(tmp_path / "root"), "zip", *([tmp_path, "root"] if above else [tmp_path / "root"]))
    expected = galleries(wrong, tmp_path / "root")
    assert all(mistake.source for block in expected for mistake in block.mistakes)
    assert galleries(wrong, tmp_path / "root.zip") == expected


def test_pictures_of_a_cache_of_an_archive_are_looked_for_where_its_rows_begin(tmp_path: Path) -> None:
    write_images(tmp_path / "photos", [f"Tee/{i}.jpg" for i in range(6)])
    shutil.make_archive(str(tmp_path / "photos"), "zip", tmp_path, "photos")
    extract(tmp_path / "photos.zip", tmp_path / "c.h5", config())
    with store.FeatureStore(tmp_path / "c.h5") as opened:
        key, ids = opened.key, opened.table().regions.id.tolist()
    tree = tree_of(tmp_path / "tree.csv")
    final = np.full((6, 6), 0.02, dtype=np.float32)
    final[:, 2] = 0.9
    changes = {"cache__path": str(tmp_path / "c.h5"), "cache__feature_key": key}
    write_run(tmp_path / "run", tree, final=final, target=TARGET, ids=ids, **changes)
    (block,) = galleries(outcome(tmp_path / "run"), tmp_path / "photos.zip")
    assert [bool(mistake.source) for mistake in block.mistakes] == [True] * 4


def made_cache(folder: Path, file: str = "c.h5") -> str:
    """A cache beside a folder `root` with an image for each id, by another name; its key."""
    names = strings([f"images/{i}.jpg" for i in range(6)])
    box = np.full((6, 4), np.nan, dtype=np.float32)
    box[4] = [20, 0, 40, 40]
    split = strings(["test"] * 6)
    regions = Regions(folder, "made-up", names, strings([f"deep/{i}.png" for i in range(6)]), box, split, split)
    origin = {"dataset": {"root": str(folder / "root"), "source": str(folder)}}
    (folder / file).parent.mkdir(exist_ok=True)
    put(folder / file, regions, np.ones((6, 1, 2), np.float16), key_fields=FIELDS, provenance=origin)
    with store.FeatureStore(folder / file) as opened:
        return opened.key


def test_the_cache_tells_path_and_box_where_it_is_at_hand(tmp_path: Path) -> None:
    key = made_cache(tmp_path)
    for i in range(6):
        picture(tmp_path / "root" / "deep" / f"{i}.png", (0, 0, 0))
    image = Image.new("RGB", (40, 40), (0, 0, 0))
    image.paste((250, 0, 0), (20, 0, 40, 40))
    image.save(tmp_path / "root" / "deep" / "4.png")
    found = wrong_thrice(tmp_path / "right", cache__path=str(tmp_path / "c.h5"), cache__feature_key=key)
    shown = galleries(found, tmp_path / "root")[0].mistakes[0]
    assert shown.id == "images/4.jpg"
    assert size(shown.source) == (80, 160)  # the box alone
    assert pixel(shown.source, 40, 80)[0] > 230
    assert galleries(found, tmp_path)[0].mistakes[0].source == shown.source  # by the data set's own folder
    right, wrong = tmp_path / "root", tmp_path / "right"
    nothing = "none of the 3 pictures to show can be read, such as"
    missing = "cannot read the file: No such file or directory"
    with pytest.raises(RunError) as caught:
        galleries(found, wrong)
    assert str(caught.value) == (
        f"--images {wrong}: {nothing} {wrong}/deep/1.png ({missing}); give the folder that the paths in the cache "
        f"{tmp_path}/c.h5 are relative to, which was {right}"
    )
    other = wrong_thrice(tmp_path / "other", cache__path=str(tmp_path / "c.h5"))  # not the cache of the run
    with pytest.raises(RunError) as caught:
        galleries(other, right)
    assert str(caught.value) == (
        f"--images {right}: {nothing} {right}/images/1.jpg ({missing}); the ids of the rows were taken for paths, as "
        f"their cache is not at hand ({tmp_path}/c.h5: not the cache that the run was trained on); put it back at "
        f"{tmp_path}/c.h5 or give the folder that the ids are relative to"
    )
    right.rename(tmp_path / "moved")
    assert galleries(found, tmp_path / "moved")[0].mistakes[0].source == shown.source
    for given in (right, tmp_path):  # what it was made from, which is not asked for again
        with pytest.raises(RunError) as caught:
            galleries(found, given)
        assert str(caught.value) == (
            f"--images {given}: {nothing} {right}/deep/1.png ({missing}); the cache {tmp_path}/c.h5 was made from this "
            "folder: put them back, or give the folder that they were moved to"
        )


@pytest.mark.parametrize("updated", [False, True])
def test_a_cache_that_was_updated_after_the_run_is_warned_of(
    updated: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = made_cache(tmp_path)
    for i in range(6):
        picture(tmp_path / "root" / "deep" / f"{i}.png", (0, 0, 0))
    with store.FeatureStore(tmp_path / "c.h5") as opened:
        sha256 = "0" * 64 if updated else opened.features_sha256
    cache = {"cache__path": str(tmp_path / "c.h5"), "cache__feature_key": key, "cache__features_sha256": sha256}
    found = wrong_thrice(tmp_path / "run", **cache)
    assert galleries(found, tmp_path / "root")[0].mistakes[0].source
    warning = f"{tmp_path}/c.h5: was brought up to date after the run: pictures are shown by their ids"
    assert (warning in caplog.text) == updated


def test_the_cache_is_at_hand_from_any_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = made_cache(tmp_path, "cache/c.h5")
    for i in range(6):
        picture(tmp_path / "root" / "deep" / f"{i}.png", (200, 0, 0))
    found = wrong_thrice(tmp_path / "runs" / "own", cache__path="cache/c.h5", cache__feature_key=key)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert galleries(found, tmp_path / "root")[0].mistakes[0].source


def test_images_of_one_data_set_are_shown_beside_rows_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hfc.report.examples.folds", lambda *_: [])
    wrong_thrice(tmp_path / "runs" / "a")
    tree = tree_of(tmp_path / "tree.csv")
    final = np.roll(np.eye(6, dtype=np.float32), 1, axis=1)
    write_run(tmp_path / "runs" / "b", tree, method="other", final=final, target=np.arange(6), ids=list("uvwxyz"))
    for i in range(6):
        picture(tmp_path / "root" / "images" / f"{i}.jpg", (9, 9, 9))
    write_report([tmp_path / "runs"], tmp_path / "out", images=tmp_path / "root")
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert page.count("<img") == 3
    assert f"--images {tmp_path}/root: none of the 6 pictures to show can be read, such as {tmp_path}/root/u" in page
    with pytest.raises(RunError, match=r"none of the (3|6) pictures to show can be read"):
        write_report([tmp_path / "runs"], tmp_path / "none", images=tmp_path / "out")
    assert not (tmp_path / "none").exists()


def test_a_picture_that_is_missing_or_damaged_says_so_in_its_place(tmp_path: Path) -> None:
    found = wrong_thrice(tmp_path)
    picture(tmp_path / "root" / "images" / "4.jpg", (9, 9, 9))
    (tmp_path / "root" / "images" / "2.jpg").write_text("no picture")
    shown = {p.id: p for p in galleries(found, tmp_path / "root")[0].mistakes}
    assert shown["images/4.jpg"].source
    assert shown["images/2.jpg"].missing.startswith("not an image in a known format")
    assert shown["images/1.jpg"].missing == "cannot read the file: No such file or directory"


def test_no_picture_at_all_is_an_error_that_says_which_folder_is_wanted(tmp_path: Path) -> None:
    found = wrong_thrice(tmp_path)
    with pytest.raises(RunError) as caught:
        galleries(found, tmp_path)
    assert str(caught.value) == (
        f"--images {tmp_path}: none of the 3 pictures to show can be read, such as {tmp_path}/images/1.jpg (cannot "
        "read the file: No such file or directory); the ids of the rows were taken for paths, as their cache is not at "
        "hand (cache/made-up.h5: no such feature cache); put it back at cache/made-up.h5 or give the folder that the "
        "ids are relative to"
    )


def test_pictures_on_the_network_are_not_asked_for(tmp_path: Path) -> None:
    with serving({f"/{i}.jpg": Reply() for i in range(6)}) as server:
        names = [f"{server.url}/{i}.jpg?key=secret" for i in range(6)]
        final = np.eye(6, dtype=np.float32)[SAID]
        write_run(tmp_path / "run", tree_of(tmp_path / "tree.csv"), final=final, target=TARGET, ids=names)
        with pytest.raises(RunError) as caught:
            galleries(outcome(tmp_path / "run"), tmp_path)
        assert server.requests.total() == 0
    assert str(caught.value) == (
        f"--images {tmp_path}: none of the 3 pictures to show can be read, such as {server.url}/1.jpg?… (it is on the "
        "network, where only hfc extract and hfc predict read, with --remote); leave --images out: pages show pictures "
        "of files alone"
    )


def test_a_run_without_mistakes_has_no_gallery(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree.csv")
    write_run(tmp_path / "run", tree, final=np.eye(6, dtype=np.float32)[TARGET], target=TARGET)
    assert galleries(outcome(tmp_path / "run"), tmp_path) == []
    write_report([tmp_path / "run"], tmp_path / "out", images=tmp_path)
    assert "Mistakes" not in (tmp_path / "out" / "report.md").read_text()


def test_the_page_embeds_at_most_so_many_of_each_kind_and_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hfc.report.examples.folds", lambda *_: [])  # tests/report/test_examples.py counts them
    two_methods(tmp_path / "runs", tree_of(tmp_path / "tree.csv"))
    for i in range(60):
        picture(tmp_path / "root" / "images" / f"{i:04d}.jpg", (i, i, i))
    write_report([tmp_path / "runs"], tmp_path / "out", images=tmp_path / "root")
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    (board,) = read_leaderboards(runs.find([tmp_path / "runs"]))
    counts = [min(int((~each.correct).any(axis=0).sum()), 2 * SHOWN) for each in board.outcomes]
    assert counts[1] > SHOWN
    assert page.count('<img src="data:image/jpeg;base64,') == sum(counts)
    assert page.count("<img") == sum(counts)
