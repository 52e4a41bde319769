"""The features of a row depend on its image alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hfc.extract.encoder import load_encoder
from hfc.extract.stage import extract
from tests.support.deepfashion_tree import write_images
from tests.support.extraction import Cache, config, read

pytestmark = pytest.mark.usefixtures("small_turns")


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
