"""A forward pass has as few crops as leave every bit as it is, and no fewer."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hfc import Classifier
from hfc.extract.encoder import CPU_CROPS, Encoder
from hfc.predict.passes import Passes
from hfc.runs import Run


class Rounding(nn.Module):
    """The mean colours, which below some number of crops come out a little larger; it notes the size of every pass."""

    def __init__(self, least: int) -> None:
        super().__init__()
        self.least = least
        self.sizes: list[int] = []

    def forward(self, pixels: Tensor) -> Tensor:
        self.sizes.append(len(pixels))
        means = pixels.mean(dim=(2, 3))
        return means if len(pixels) >= self.least else means * (1 + 1e-6)


def made_up(least: int, full: int = 8) -> tuple[Encoder, Rounding]:
    model = Rounding(least)
    colours = (0.5, 0.5, 0.5)
    encoder = Encoder(model, torch.device("cpu"), "mean", "fp32", colours, colours, "", 3, (4, 4), full, flip=False)
    encoder.fewest = Passes(encoder, 4)
    return encoder, model


CROPS = np.random.default_rng(1).integers(0, 256, (24, 4, 4, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("least", "count", "size"),
    [(1, 1, 1), (2, 1, 2), (4, 1, 4), (5, 1, 8), (8, 1, 8), (1, 3, 4), (1, 2, 2), (1, 7, 8), (1, 8, 8), (4, 5, 8)],
)
def test_a_pass_has_the_fewest_crops_that_keep_every_bit(least: int, count: int, size: int) -> None:
    encoder, model = made_up(least)
    filled = replace(encoder, fewest=None).encode(CROPS[:count])
    encoder.encode(CROPS[:count])
    model.sizes.clear()
    np.testing.assert_array_equal(encoder.encode(CROPS[:count]), filled)
    assert model.sizes == [size]


def test_a_full_batch_is_never_tried() -> None:
    encoder, model = made_up(least=8)
    encoder.encode(CROPS)
    assert model.sizes == [8, 8, 8]
    encoder.encode(CROPS[:17])
    assert model.sizes[-1] == 8


def test_a_size_is_tried_once_for_each_number_of_threads() -> None:
    encoder, model = made_up(least=2)
    encoder.encode(CROPS[:1])
    tried = [8, 8, 1, *[2] * 8]  # 1 differs at once; 2 is compared in all crops of two passes
    assert model.sizes == [*tried, 2]  # then the crop itself
    encoder.encode(CROPS[:1])
    assert model.sizes[len(tried) + 1 :] == [2]
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        encoder.encode(CROPS[:1])
    finally:
        torch.set_num_threads(before)
    assert model.sizes[len(tried) + 2 :] == [*tried, 2]


def test_one_crop_that_comes_out_otherwise_is_enough() -> None:
    class Rarely(Rounding):
        """Rounds one crop of sixteen otherwise in small passes: that of the greatest mean."""

        greatest = -torch.inf

        def forward(self, pixels: Tensor) -> Tensor:
            means = super().forward(pixels)
            if len(pixels) == 8:
                self.greatest = max(self.greatest, float(means[:, 0].max()))
            return torch.where((means[:, :1] == self.greatest) & (len(pixels) < 4), means * (1 + 1e-6), means)

    encoder, _ = made_up(least=1)
    encoder.model = Rarely(1)
    assert Passes(encoder, 4)(1, 8) == 4


def test_an_encoder_without_it_fills_every_pass_up() -> None:
    encoder, model = made_up(least=1)
    replace(encoder, fewest=None).encode(CROPS[:9])
    assert model.sizes == [8, 8]


def watch(classifier: Classifier) -> list[int]:
    """The crops of every forward pass from now on."""
    sizes: list[int] = []
    classifier.encoder.model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    return sizes


def test_a_single_image_has_the_bits_of_a_filled_up_batch(trained: tuple[Run, Path], place: Path) -> None:
    classifier, filling = (Classifier.load(trained[0].folder) for _ in range(2))
    filling.encoder.fewest = None
    files = [place / "img" / name for name in ("01.jpg", "02.jpg", "03.jpg")]
    wanted = [filling(file) for file in files]
    classifier(files[0])
    sizes = watch(classifier)
    assert [classifier(file) for file in files] == wanted
    assert len(sizes) == 3
    assert max(sizes) <= CPU_CROPS
    many = watch(filling)
    filling(files[0])
    assert many == [CPU_CROPS]
    assert [answer.top for answer in classifier(files)] == [answer.top for answer in filling(files)]


def test_a_batch_of_one_is_chosen_and_told(trained: tuple[Run, Path], place: Path) -> None:
    classifier = Classifier.load(trained[0].folder, batch_size=1)
    sizes = watch(classifier)
    answer = classifier(place / "img" / "01.jpg")
    assert (sizes, answer.batch_size, answer.to_dict()["batch_size"]) == ([1], 1, 1)
    assert [one.batch_size for one in classifier([place / "img" / f"0{i}.jpg" for i in (1, 2, 3)])] == [1, 1, 1]
    assert sizes == [1] * 4
    as_it_was = Classifier.load(trained[0].folder)(place / "img" / "01.jpg")
    assert (as_it_was.batch_size, "batch_size" in as_it_was.to_dict()) == (0, False)
    assert answer.path == as_it_was.path
    assert answer.probabilities == pytest.approx(as_it_was.probabilities, abs=1e-4)
