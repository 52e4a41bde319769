"""HEIC, raw files of cameras and what is no image: read, or one line says what to do."""

import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from cli.main import main
from hfc import crops
from hfc.crops import FORMATS, crop_image
from hfc.datasets import read_regions
from hfc.errors import DatasetError, ImageError
from hfc.provenance import versions
from tests.test_crops import NO_BOX, box, encode, picture, settings

HEADER = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
NEEDED = (
    "HEIC photographs, as telephones take them, are read by pillow_heif, which cannot be imported: "
    'python -m pip install "hfc[heif]"; or save them as JPEG'
)
RAW = "a photograph in a camera's raw format; save it as JPEG or TIFF, by the camera's program or darktable-cli"


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing that reads HEIC is installed."""
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr("hfc.datasets.find_spec", lambda name: None)
    crops.heif.cache_clear()
    yield
    crops.heif.cache_clear()


def heic(image: Image.Image, **options: object) -> bytes:
    """An image without loss, as far as its colours are kept: those of a telephone are not."""
    pytest.importorskip("pillow_heif", reason="the extra heif is not installed")
    assert crops.heif() == ("HEIF",)
    return encode(image, "HEIF", quality=-1, chroma=444, matrix_coefficients=0, **options)


def test_a_telephones_photograph_is_read_like_any_other() -> None:
    crop = crop_image(heic(picture()), box(10, 5, 70, 45), settings())
    np.testing.assert_allclose(crop.astype(int), crop_image(encode(picture()), box(10, 5, 70, 45), settings()), atol=3)


def test_it_is_upright_and_transparent_pixels_are_white() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    turned = crop_image(heic(picture(), exif=exif.tobytes()), NO_BOX, settings())
    upright = crop_image(encode(picture(), exif=exif.tobytes()), NO_BOX, settings())
    np.testing.assert_allclose(turned.astype(int), upright, atol=3)
    clear = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    assert crop_image(heic(clear), NO_BOX, settings()).min() > 250


def test_it_is_read_in_threads_and_in_a_process_of_its_own(tmp_path: Path) -> None:
    content = heic(picture())
    expected = crop_image(content, NO_BOX, settings())
    crops.heif.cache_clear()
    with ThreadPoolExecutor(8) as pool:
        for crop in pool.map(lambda _: crop_image(content, NO_BOX, settings()), range(16)):
            np.testing.assert_array_equal(crop, expected)
    (tmp_path / "a.heic").write_bytes(content)
    code = (
        "import sys, numpy as np\nfrom pathlib import Path\nfrom hfc.crops import CropSettings, crop_image\n"
        "assert 'pillow_heif' not in sys.modules\n"
        "content, box = Path(sys.argv[1]).read_bytes(), np.full(4, np.nan)\n"
        "crop = crop_image(content, box, CropSettings(32, 'squash', 0.0, (1, 1, 1)))\n"
        "sys.stdout.buffer.write(crop.tobytes())"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "a.heic")]
    assert subprocess.run(words, capture_output=True, check=True).stdout == expected.tobytes()


def test_a_damaged_one_and_one_that_claims_too_many_pixels_are_failures() -> None:
    content = heic(picture())
    with pytest.raises(ImageError, match=r"^damaged image: "):
        crop_image(content[: len(content) // 2], NO_BOX, settings())
    with pytest.raises(ImageError, match=r"^damaged image: "):
        crop_image(HEADER, NO_BOX, settings())
    claimed = rb"ispe\1" + struct.pack(">II", 30_000, 30_000)
    bomb, count = re.subn(rb"(?s)ispe(....)........", claimed, heic(picture(640, 640)))
    assert count
    with pytest.raises(ImageError, match=r"^(30000 x 30000 pixels are )?more than 89478485"):
        crop_image(bomb, NO_BOX, settings())


def test_the_version_of_what_decodes_it_is_recorded_where_it_is_installed() -> None:
    pillow_heif = pytest.importorskip("pillow_heif", reason="the extra heif is not installed")
    assert versions()["pillow-heif"] == pillow_heif.__version__
    assert "HEIF" in crops.decoders()


@pytest.mark.usefixtures("without")
def test_without_the_extra_one_line_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(ImageError) as caught:
        crop_image(HEADER, NO_BOX, settings())
    assert str(caught.value) == NEEDED
    assert "HEIF" not in crops.decoders()


def folder(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(HEADER if name.lower().endswith(".heic") else encode(picture(), "JPEG"))
    return root


@pytest.mark.usefixtures("without")
def test_a_folder_of_them_is_refused_before_the_first_image_and_some_are_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    every = folder(tmp_path / "photos", "Tee/1.HEIC", "Tee/2.heic", "Coat/3.heic")
    with pytest.raises(DatasetError) as caught:
        read_regions(every, outside_root=False)
    assert str(caught.value) == f"{every}: {NEEDED}; all 3 images are such by their names"
    some = folder(tmp_path / "some", "Tee/1.HEIC", "Coat/3.jpg")
    assert len(read_regions(some, outside_root=False)) == 2
    assert caplog.messages == [f"{some}: {NEEDED}; 1 of 2 images are such by their names"]


def test_with_the_extra_nothing_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("pillow_heif", reason="the extra heif is not installed")
    read_regions(folder(tmp_path, "Tee/1.HEIC", "Coat/3.heic"), outside_root=False)
    assert caplog.messages == []


def test_an_avif_image_is_read_or_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    if "AVIF" in FORMATS:
        crop = crop_image(encode(picture(), "AVIF", quality=100), NO_BOX, settings())
        assert np.abs(crop.astype(int) - crop_image(encode(picture()), NO_BOX, settings())).mean() < 2
    monkeypatch.setattr(crops, "FORMATS", tuple(name for name in FORMATS if name != "AVIF"))
    with pytest.raises(ImageError) as caught:
        crop_image(b"\0\0\0\x18ftypavif\0\0\0\0mif1avif", NO_BOX, settings())
    assert str(caught.value) == (
        "AVIF photographs are read by Pillow 11.3 or newer, which cannot be imported: "
        'python -m pip install "hfc[heif]"; or save them as JPEG'
    )


def tiff(*tags: tuple[int, int, int]) -> bytes:
    """A TIFF of 60 x 40 pixels with further tags."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    directory = ImageFileDirectory_v2()
    for tag, kind, value in tags:
        directory.tagtype[tag] = kind
        directory[tag] = value
    return encode(picture(60, 40), "TIFF", tiffinfo=directory)


@pytest.mark.parametrize(
    "content",
    [
        b"II*\0\x10\0\0\0CR\x02\0" + bytes(64),
        b"\0\0\0\x18ftypcrx \0\0\0\1crx isom",
        b"FUJIFILMCCD-RAW 0201FF383501",
        b"IIU\0\x18\0\0\0" + bytes(32),
        b"IIRO\x08\0\0\0" + bytes(32),
        tiff((254, 4, 1)),  # the preview of another image
        tiff((50706, 1, 1)),  # DNGVersion
    ],
    ids=["CR2", "CR3", "RAF", "RW2", "ORF", "NEF", "DNG"],
)
def test_a_cameras_raw_file_is_no_image_and_neither_is_its_preview(content: bytes) -> None:
    with pytest.raises(ImageError) as caught:
        crop_image(content, NO_BOX, settings())
    assert str(caught.value) == RAW


def test_a_tiff_that_is_no_preview_is_read() -> None:
    for content in (tiff(), tiff((254, 4, 0)), tiff((254, 4, 2))):
        np.testing.assert_array_equal(
            crop_image(content, NO_BOX, settings()), crop_image(encode(picture(60, 40)), NO_BOX, settings())
        )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\n <!DOCTYPE html><html>", "a web page or XML, and no image; fetch the image itself"),
        (b"\xef\xbb\xbf<svg/>", "a web page or XML, and no image; fetch the image itself"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n",
            "a pointer of Git LFS, and no image; fetch it with git lfs pull",
        ),
        (b"hello", f"not an image in a known format: {', '.join(FORMATS)}"),
    ],
)
def test_bytes_that_are_no_image_say_what_they_are(content: bytes, reason: str) -> None:
    with pytest.raises(ImageError) as caught:
        crop_image(content, NO_BOX, settings())
    assert str(caught.value) == reason


def hfc(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)


def test_a_folder_of_raw_files_and_a_url_are_one_line_each(tmp_path: Path) -> None:
    for name in ("1.CR2", "2.dng", "notes.txt"):
        (tmp_path / "photos" / "Tee").mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / "Tee" / name).touch()
    done = hfc("extract", tmp_path / "photos", "--out", tmp_path / "c.h5", "-q")
    assert done.exit_code == 1
    assert done.stderr.endswith(
        "found none; 2 are raw files of cameras, which are not read: save them as JPEG or TIFF\n"
    )
    done = hfc("extract", "https://shop.example/photos", "--out", tmp_path / "c.h5")
    assert (done.exit_code, done.stderr) == (
        1,
        "Error: https:/shop.example/photos: is on the network; name the images in a manifest, a CSV file with the "
        "columns path,label, and give --remote\n",
    )
