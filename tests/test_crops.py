"""Crops against Pillow's and timm's own, and every kind of image."""

import io
import math
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import timm.data
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, features

from hfc.crops import CropSettings, crop_image
from hfc.errors import ImageError

NO_BOX = np.full(4, np.nan, dtype=np.float32)
Pixels = NDArray[np.uint8]


def settings(resize: str = "squash", size: int = 32, margin: float = 0.0) -> CropSettings:
    return CropSettings(size=size, resize=resize, margin=margin, fill=(10, 20, 30))


def picture(width: int = 90, height: int = 60) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (height // 10, width // 10, 3)).astype(np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def box(*corners: float) -> NDArray[np.float32]:
    return np.array(corners, dtype=np.float32)


def expected(image: Image.Image, corners: tuple[int, int, int, int], size: int = 32) -> Pixels:
    return np.asarray(image.crop(corners).resize((size, size), Image.Resampling.BICUBIC))


def test_a_box_is_cut_out_and_squashed() -> None:
    got = crop_image(encode(picture()), box(10, 5, 70, 45), settings())
    np.testing.assert_array_equal(got, expected(picture(), (10, 5, 70, 45)))


def test_an_upright_photograph_is_not_copied_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large one takes as long to copy as a crop to resize."""
    content = encode(picture(), "JPEG", quality=100)
    with Image.open(io.BytesIO(content)) as image:
        want = expected(image, (0, 0, 90, 60))

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("copied")

    for name in ("copy", "convert", "crop"):
        monkeypatch.setattr(Image.Image, name, refuse)
    np.testing.assert_array_equal(crop_image(content, NO_BOX, settings()), want)


def test_a_box_is_clipped_after_its_margin_is_added() -> None:
    got = crop_image(encode(picture()), box(10, 10, 50, 50), settings(margin=0.5))
    np.testing.assert_array_equal(got, expected(picture(), (0, 0, 70, 60)))


@pytest.mark.parametrize(("resize", "mode"), [("squash", "squash"), ("center-crop", "center"), ("pad", "border")])
def test_whole_images_are_resized_as_timm_does(resize: str, mode: str) -> None:
    mean = tuple(channel / 255 for channel in (10, 20, 30))
    transform = timm.data.create_transform(
        (3, 64, 64), interpolation="bicubic", crop_pct=1.0, crop_mode=mode, mean=mean, std=(1, 1, 1), normalize=False
    )
    image = picture(300, 200)
    theirs = np.asarray(transform(image)).transpose(1, 2, 0).astype(np.float64)
    mine = crop_image(encode(image), NO_BOX, settings(resize, size=64)).astype(np.float64)
    assert np.abs(mine - theirs).mean() < 1.0
    assert np.corrcoef(mine.ravel(), theirs.ravel())[0, 1] > 0.999


def test_padding_has_the_fill_colour() -> None:
    got = crop_image(encode(Image.new("RGB", (40, 20), "white")), NO_BOX, settings("pad"))
    assert (got[8:24] == 255).all()
    assert (got[:8] == (10, 20, 30)).all()
    assert (got[24:] == (10, 20, 30)).all()


# EXIF orientation -> how the stored picture is turned to stand upright.
UPRIGHT = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_boxes_refer_to_the_upright_image(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encode(picture(), kind, exif=exif)
    stored = Image.open(io.BytesIO(encode(picture(), kind)))
    turn = UPRIGHT[orientation]
    upright = stored if turn is None else stored.transpose(turn)
    got = crop_image(content, box(0, 0, 30, 40), settings())
    np.testing.assert_array_equal(got, expected(upright, (0, 0, 30, 40)))


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_jpeg_decoded_at_reduced_size_is_upright_and_boxed_too(orientation: int) -> None:
    # The box is 600 pixels wide: half the size is enough, as that is more than 8 times the input of 32 pixels.
    exif = Image.Exif()
    exif[0x0112] = orientation
    large = picture(1200, 800)
    turn = UPRIGHT[orientation]
    upright = large if turn is None else large.transpose(turn)
    got = crop_image(encode(large, "JPEG", exif=exif, quality=95), box(100, 50, 700, 750), settings())
    want = expected(upright, (100, 50, 700, 750))
    assert np.abs(got.astype(int) - want).mean() < 1.5
    assert np.abs(got.astype(int) - want[:, ::-1]).mean() > 10


def test_every_mode_becomes_rgb() -> None:
    gray = picture().convert("L")
    clear = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
    deep = Image.fromarray(np.full((20, 20), 0x80FF, dtype=np.uint16))
    cases = [
        (encode(gray), np.asarray(gray.convert("RGB").resize((32, 32), Image.Resampling.BICUBIC))),
        (encode(clear), np.full((32, 32, 3), 255, dtype=np.uint8)),
        (encode(deep), np.full((32, 32, 3), 0x80, dtype=np.uint8)),
        (encode(picture().quantize(16)), expected(picture().quantize(16).convert("RGB"), (0, 0, 90, 60))),
    ]
    for content, want in cases:
        np.testing.assert_array_equal(crop_image(content, NO_BOX, settings()), want)
    cmyk = crop_image(encode(picture().convert("CMYK"), "JPEG", quality=95), NO_BOX, settings())
    assert np.abs(cmyk.astype(int) - expected(picture(), (0, 0, 90, 60))).mean() < 6


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "MPO", "AVIF"])
def test_every_format_that_holds_pixels_is_read(kind: str) -> None:
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    got = crop_image(encode(Image.new("RGB", (20, 20), (200, 100, 50)), kind), NO_BOX, settings())
    assert np.abs(got.astype(int) - (200, 100, 50)).max() <= 4


def frames(kind: str) -> bytes:
    first, second = picture(), Image.new("RGB", (90, 60), "red")
    return encode(first, kind, save_all=True, append_images=[second], **({"lossless": True} if kind == "WEBP" else {}))


def test_an_animation_gives_its_first_frame() -> None:
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        assert Image.open(io.BytesIO(frames(kind))).n_frames == 2  # type: ignore[attr-defined]
        first = Image.open(io.BytesIO(frames(kind))).convert("RGB")
        np.testing.assert_array_equal(crop_image(frames(kind), NO_BOX, settings()), expected(first, (0, 0, 90, 60)))
        assert np.abs(np.asarray(first).astype(int) - (255, 0, 0)).mean() > 20


def test_transparent_palettes_are_put_on_white() -> None:
    palette = Image.new("P", (20, 20), 0)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.paste(1, (0, 0, 20, 10))
    got = crop_image(encode(palette, "PNG", transparency=0), NO_BOX, settings(size=20))
    assert (got[:8] == (0, 0, 255)).all()
    assert (got[12:] == 255).all()


def test_deep_gray_keeps_its_high_byte() -> None:
    deep = np.arange(400, dtype=np.uint16).reshape(20, 20) * 160
    for kind in ("PNG", "TIFF"):
        got = crop_image(encode(Image.fromarray(deep), kind), NO_BOX, settings(size=20))
        np.testing.assert_array_equal(got[:, :, 0], (deep >> 8).astype(np.uint8))


def test_other_ways_to_write_the_same_picture_give_the_same_crop() -> None:
    plain = crop_image(encode(picture(), "JPEG"), NO_BOX, settings())
    np.testing.assert_array_equal(crop_image(encode(picture(), "JPEG", progressive=True), NO_BOX, settings()), plain)
    broken_profile = encode(picture(), "JPEG", icc_profile=b"no profile at all")
    np.testing.assert_array_equal(crop_image(broken_profile, NO_BOX, settings()), plain)


def test_the_smallest_and_the_widest_images() -> None:
    dot = crop_image(encode(Image.new("RGB", (1, 1), (9, 8, 7))), NO_BOX, settings())
    assert (dot == (9, 8, 7)).all()
    wide = Image.new("RGB", (20_000, 30), (1, 2, 3))
    wide.paste((200, 100, 50), (15_000, 0, 20_000, 30))
    for resize in ("squash", "center-crop"):
        got = crop_image(encode(wide), box(15_500, 0, 16_500, 30), settings(resize))
        assert (got == (200, 100, 50)).all()
    padded = crop_image(encode(wide), NO_BOX, settings("pad"))
    assert (padded[0] == (10, 20, 30)).all()


def claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims a size."""
    content = bytearray(encode(Image.new("L", (1, 1))))
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


@pytest.mark.parametrize("side", [10_000, 30_000])  # between Pillow's warning and its error, and beyond
def test_a_decompression_bomb_is_refused_before_it_is_decoded(side: int) -> None:
    content = claiming(side, side)
    tracemalloc.start()
    with pytest.raises(ImageError, match=r"more than 89478485.* perhaps a decompression bomb"):
        crop_image(content, NO_BOX, settings())
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()


def alone(folder: Path, content: bytes) -> tuple[str, str]:
    """What a process of its own prints and what it warns of: pytest turns warnings into errors, which fail an image."""
    (folder / "image").write_bytes(content)
    code = (
        "import logging, pathlib, sys, numpy, hfc.crops as c\n"
        "logging.basicConfig()\n"
        "settings = c.CropSettings(32, 'squash', 0.0, (0, 0, 0))\n"
        "try:\n"
        "    crop = c.crop_image(pathlib.Path(sys.argv[1]).read_bytes(), numpy.full(4, numpy.nan, 'f4'), settings)\n"
        "    print(crop.shape)\n"
        "except c.ImageError as error:\n"
        "    print(error)"
    )
    words = [sys.executable, "-W", "default", "-c", code, str(folder / "image")]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent)
    return done.stdout, done.stderr


@pytest.mark.parametrize("side", [10_000, 30_000])
def test_a_decompression_bomb_gives_one_reason_and_no_warning(side: int, tmp_path: Path) -> None:
    out, err = alone(tmp_path, claiming(side, side))
    assert "more than 89478485" in out
    assert "perhaps a decompression bomb" in out
    assert err == ""


def test_corrupt_exif_data_is_passed_over_without_a_warning(tmp_path: Path) -> None:
    exif = b"Exif\0\0" + b"II*\0" + struct.pack("<LH", 8, 5)  # five entries are announced, none follows
    assert alone(tmp_path, encode(picture(), "JPEG", exif=exif)) == ("(32, 32, 3)\n", "")


def test_what_pillow_logs_of_a_damaged_image_is_not_shown(tmp_path: Path) -> None:
    samples = struct.pack("<HHLHH", 277, 3, 1, 1000, 0)  # samples per pixel: far too many
    tags = struct.pack("<HHLHH", 256, 3, 1, 1, 0) + struct.pack("<HHLHH", 257, 3, 1, 1, 0) + samples
    out, err = alone(tmp_path, b"II*\0" + struct.pack("<LH", 8, 3) + tags + bytes(4))
    assert "not an image in a known format" in out
    assert err == ""


def test_what_libtiff_says_of_a_damaged_image_is_not_shown(tmp_path: Path) -> None:
    content = bytearray(encode(picture(), "TIFF", compression="tiff_lzw"))
    content[8:208] = bytes(range(200))
    out, err = alone(tmp_path, bytes(content))
    assert out.startswith("damaged image: ")
    assert err == ""


def test_boxes_may_be_fractions_and_reach_beyond_the_image() -> None:
    whole = crop_image(encode(picture()), box(-20, -5, 400, 300), settings())
    np.testing.assert_array_equal(whole, expected(picture(), (0, 0, 90, 60)))
    got = crop_image(encode(picture()), box(10.25, 5.5, 70.75, 45), settings())
    cut = picture().crop((10, 5, 71, 45))
    want = cut.resize((32, 32), Image.Resampling.BICUBIC, box=(0.25, 0.5, 60.75, 40))
    np.testing.assert_array_equal(got, np.asarray(want))


JPEG = encode(picture(), "JPEG")
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
FLOAT = encode(Image.fromarray(np.linspace(0, 1, 400, dtype=np.float32).reshape(20, 20)), "TIFF")
BROKEN = {
    "floating-point": (FLOAT, NO_BOX, "pixels are floating-point numbers, whose range is unknown"),
    "empty": (b"", NO_BOX, "the file is empty"),
    "text": (b"no picture", NO_BOX, "not an image in a known format"),
    "EPS": (EPS, NO_BOX, "^not an image in a known format: JPEG, PNG, WEBP, GIF, BMP, TIFF, PPM, JPEG2000"),
    "icon": (encode(picture(), "ICO"), NO_BOX, "^not an image in a known format: "),
    "truncated": (JPEG[: len(JPEG) // 2], NO_BOX, "damaged image: .*truncated"),
    "reversed": (JPEG, box(50, 0, 10, 9), "box 50 0 10 9 has no area; expected x1 < x2 and y1 < y2"),
    "no area": (JPEG, box(5, 5, 5, 9), "box 5 5 5 9 has no area"),
    "outside": (JPEG, box(200, 0, 210, 9), "box 200 0 210 9 lies outside the image of 90 x 60 pixels"),
    "part NaN": (JPEG, box(1, 2, math.nan, 9), "is not four finite numbers"),
    "infinite": (JPEG, box(1, 2, math.inf, 9), "is not four finite numbers"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_become_a_crop_says_why(case: str) -> None:
    content, corners, message = BROKEN[case]
    with pytest.raises(ImageError, match=message):
        crop_image(content, corners, settings())


CONTENT = {kind: encode(picture(60, 40), kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")}


@pytest.mark.filterwarnings("ignore")
@hypothesis.settings(max_examples=3 * hypothesis.settings.default.max_examples)
@hypothesis.given(
    kind=st.sampled_from(sorted(CONTENT)), keep=st.floats(0, 1), at=st.integers(0, 199), byte=st.integers(0, 255)
)
def test_damaged_bytes_give_a_crop_or_an_image_error(kind: str, keep: float, at: int, byte: int) -> None:
    content = bytearray(CONTENT[kind])
    content[at] = byte
    try:
        crop = crop_image(bytes(content[: int(len(content) * keep)]), NO_BOX, settings(size=4))
    except ImageError:
        return
    assert (crop.shape, crop.dtype) == ((4, 4, 3), np.uint8)


edge = st.floats(-50, 100, width=32)


@pytest.mark.parametrize("resize", ["squash", "pad", "center-crop"])
def test_a_box_that_vanishes_is_an_image_error_however_it_is_resized(resize: str) -> None:
    thin = [(box(-1, -1, 0, 0), 1e-300, "lies outside"), (box(0, 0, 1e-38, 1e-38), 0.0, "has no area")]
    for corners, margin, message in thin:
        with pytest.raises(ImageError, match=message):
            crop_image(CONTENT["BMP"], corners, settings(resize, margin=margin))
    assert crop_image(CONTENT["BMP"], box(0, 0, 0.002, 40), settings(resize)).shape == (32, 32, 3)


@hypothesis.settings(max_examples=3 * hypothesis.settings.default.max_examples)
@hypothesis.given(
    corners=st.tuples(edge, edge, edge, edge),
    resize=st.sampled_from(["squash", "pad", "center-crop"]),
    margin=st.floats(0, 3),
)
def test_any_finite_box_gives_a_crop_or_an_image_error(
    corners: tuple[float, float, float, float], resize: str, margin: float
) -> None:
    try:
        crop = crop_image(CONTENT["BMP"], np.float32(corners), settings(resize, size=4, margin=margin))
    except ImageError:
        x1, y1, x2, y2 = corners
        assert min(x2 - x1, y2 - y1) < 0.001 or x1 > 59.99 or x2 < 0.01 or y1 > 39.99 or y2 < 0.01
        return
    assert (crop.shape, crop.dtype) == ((4, 4, 3), np.uint8)
