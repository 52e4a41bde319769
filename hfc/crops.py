"""Cut a region out of an image and make it square. Dimension: S, side of a crop in pixels."""

import contextlib
import ctypes
import functools
import io
import logging
import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError, features

from hfc.errors import ImageError, missing_extra

Bytes = NDArray[np.uint8]
Loaded = Image.Image | Bytes  # an image in memory
PIXELS = 1  # version of how pixels are cropped: part of the feature key, counted up when crops change
# A JPEG is decoded at a half, quarter or eighth of its size while the crop stays this many times larger than the input.
# At 8 the features of EfficientNet-Lite0 keep a cosine similarity of 0.9999 to those of the full decode; at 2, 0.998.
REDUCING_GAP = 8.0
MAX_PIXELS = 89_478_485  # Pillow warns beyond; here the image is refused instead
# An image is read, or is a failure with its reason. Pillow's further warnings, as of corrupt EXIF data, name no file.
# The filter is set once: filters belong to the process, and decoding threads would undo those of others.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)
# libtiff writes to the process's stderr by itself. It is linked to Pillow's C module, through which it can be reached.
with contextlib.suppress(AttributeError, OSError):
    ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler(None)
# Formats that hold pixels. Pillow goes by content, not by name, and knows other formats too: some it hands to another
# program (EPS to Ghostscript), some hold no image. MPO and PGM come with JPEG and PPM; AVIF comes with Pillow 11.3.
Image.init()
KNOWN = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
FORMATS = tuple(name for name in KNOWN if name in Image.OPEN)
CONTAINER = b"ftyp"  # at byte 4 of HEIC, AVIF and CR3 files; the brand follows
BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIC"),
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
}
# Beginnings of cameras' raw files; that of many is TIFF's, and holds a preview in the place of the picture.
RAW = (b"II*\0\x10\0\0\0CR", b"FUJIFILMCCD-RAW", b"IIU\0", b"IIRO", b"IIRS", b"MMOR")
RAW_REASON = "a photograph in a camera's raw format; save it as JPEG or TIFF, by the camera's program or darktable-cli"
SUBFILE, REDUCED, DNG_VERSION = 254, 1, 50706  # of TIFF: a tag, its bit of a preview, and a tag of raw files
OTHERS = (
    (b"<", "a web page or XML, and no image; fetch the image itself"),
    (b"version https://git-lfs", "a pointer of Git LFS, and no image; fetch it with git lfs pull"),
)
LEAST_SIDE = 1e-3  # of a box, in pixels; a box without a side would be scaled by infinity
ORIENTATION, TRANSPOSED = 0x0112, (5, 6, 7, 8)  # the EXIF tag, and its values that exchange width and height


@dataclass(frozen=True)
class CropSettings:
    """How a region becomes a square crop."""

    size: int
    """S, in pixels."""
    resize: str
    """squash (change the aspect ratio), pad (fit inside, fill the rest) or center-crop (fill, cut the rest)."""
    margin: float
    """Context added on each side of a box, as a fraction of that side's length."""
    fill: tuple[int, int, int]
    """RGB of padding; the backbone's mean colour, so that padding is zero after normalisation."""


@functools.cache
def heif() -> tuple[str, ...]:
    """Let Pillow read HEIC, where the extra `heif` is installed; returns its format, or nothing.

    It is called on the first such image of a process, as few have any.
    """
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return ()
    register_heif_opener(decode_threads=1)  # images are decoded side by side already
    return ("HEIF",)


def decoders() -> str:
    """Name what decodes images here: Pillow's version, its JPEG library's, and the readable formats."""
    jpeg = features.version_feature("libjpeg_turbo")
    library = f"libjpeg-turbo {jpeg}" if jpeg else "plain libjpeg"
    return f"Pillow {PIL.__version__}, {library}; {', '.join((*FORMATS, *heif()))}"


def crop_image(content: bytes, box: NDArray[np.float32], settings: CropSettings) -> Bytes:
    """Make a square crop of one region of a file's bytes, bicubic with antialiasing.

    The EXIF orientation is applied first, so boxes refer to the upright image. Transparent pixels are put on white; an
    animation gives its first frame.

    Args:
        content: an encoded image, in one of FORMATS, or HEIC where the extra `heif` is installed.
        box: (4,) corners x1 y1 x2 y2 in pixels, clipped to the image after the margin is added; NaN = whole image.
        settings: how the region becomes square.

    Returns:
        (S, S, 3) RGB.

    Raises:
        ImageError: not an image, a damaged one, or a box without area inside it.
        MemoryError: there is too little memory, of which nothing is said about the image.
    """
    scale = 1
    try:
        formats = (*FORMATS, *heif()) if content[4:8] == CONTAINER else FORMATS
        with Image.open(io.BytesIO(content), formats=formats) as opened:
            _refuse_bomb(opened)
            _refuse_preview(opened, content)
            if opened.format == "JPEG":
                scale = _reduction(opened, _clip(box, _upright_size(opened), settings.margin), settings)
                if scale > 1:
                    opened.draft(None, (opened.width // scale, opened.height // scale))
            opened.load()
            ImageOps.exif_transpose(opened, in_place=True)  # else it is copied even where it is upright
            image = _to_rgb(opened)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # decoders raise anything on damaged files, and one file must not end the work
        raise ImageError(_reason(content, error)) from error
    corners = _clip(box, (image.width * scale, image.height * scale), settings.margin)
    left, top, right, bottom = (corner / scale for corner in corners)
    return _to_square(image, (left, top, right, bottom), settings)


def crop_loaded(picture: Loaded, box: NDArray[np.float32], settings: CropSettings) -> Bytes:
    """Make a square crop of one region of an image in memory.

    It is as from a file, but nothing is decoded at a reduced size.

    Args:
        picture: a Pillow image, or RGB bytes (height, width, 3), or gray ones (height, width).
        box: as for `crop_image`.
        settings: how the region becomes square.

    Returns:
        (S, S, 3) RGB.

    Raises:
        ImageError: a damaged image, an array of another shape or type, or a box without area inside it.
    """
    if isinstance(picture, np.ndarray):
        if not is_picture(picture):
            raise ImageError(
                f"expected bytes (height, width, 3) or (height, width), found {picture.dtype} {picture.shape}"
            )
        picture = Image.fromarray(picture)
    _refuse_bomb(picture)
    try:
        image = _to_rgb(ImageOps.exif_transpose(picture))
    except (OSError, ValueError) as error:  # Pillow decodes only now
        raise ImageError(f"damaged image: {error}") from error
    return _to_square(image, _clip(box, image.size, settings.margin), settings)


def is_picture(array: NDArray[Any]) -> bool:
    """Whether an array is RGB bytes (height, width, 3) or gray bytes (height, width)."""
    coloured = array.ndim == 3 and array.shape[2] == 3
    return array.dtype == np.uint8 and (coloured or array.ndim == 2) and 0 not in array.shape


def _refuse_bomb(opened: Image.Image) -> None:
    """Refuse an image that claims too many pixels, before they are decoded. A few kilobytes can claim any number."""
    if opened.width * opened.height > MAX_PIXELS:
        raise ImageError(
            f"{opened.width} x {opened.height} pixels are more than {MAX_PIXELS}, perhaps a decompression bomb"
        )


def _refuse_preview(opened: Image.Image, content: bytes) -> None:
    """Refuse a camera's raw file, of which Pillow would read the preview."""
    tags = getattr(opened, "tag_v2", {})
    if opened.format == "TIFF" and (
        content.startswith(RAW) or DNG_VERSION in tags or int(tags.get(SUBFILE, 0)) & REDUCED
    ):
        raise ImageError(RAW_REASON)


def _upright_size(opened: Image.Image) -> tuple[int, int]:
    """Return width and height as they are once the EXIF orientation is applied."""
    width, height = opened.size
    return (height, width) if opened.getexif().get(ORIENTATION) in TRANSPOSED else (width, height)


def _reduction(opened: Image.Image, box: tuple[float, float, float, float], settings: CropSettings) -> int:
    """Return how far the JPEG decoder may shrink an image: 1, 2, 4 or 8.

    Exact for sides that it divides; others would shift a mirrored image by a fraction of a pixel.
    """
    if opened.format != "JPEG":
        return 1
    sides = box[2] - box[0], box[3] - box[1]
    ratio = (max(sides) if settings.resize == "pad" else min(sides)) / settings.size
    fits = (s for s in (8, 4, 2) if ratio >= s * REDUCING_GAP and opened.width % s == 0 and opened.height % s == 0)
    return next(fits, 1)


def _reason(content: bytes, error: Exception) -> str:
    if not content:
        return "the file is empty"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"more than {MAX_PIXELS} pixels, perhaps a decompression bomb"
    if isinstance(error, UnidentifiedImageError):
        return _unknown(content)
    return f"damaged image: {error}"


def _unknown(content: bytes) -> str:
    """Say what a file is whose format is not known, and what to do."""
    brand = BRANDS.get(content[8:12], "") if content[4:8] == CONTAINER else ""
    if brand:
        read = heif() if brand == "HEIC" else "AVIF" in FORMATS
        return f"damaged image: no whole {brand} file" if read else unread(brand)
    if content.startswith(RAW) or content[4:12] == CONTAINER + b"crx ":
        return RAW_REASON
    start = content[:64].lstrip(b"\xef\xbb\xbf \t\r\n")
    known = (text for beginning, text in OTHERS if start.startswith(beginning))
    return next(known, f"not an image in a known format: {', '.join(FORMATS)}")


def unread(kind: str) -> str:
    """Say how images of a kind are read that the extra `heif` reads."""
    package = "pillow_heif" if kind == "HEIC" else "Pillow 11.3 or newer"
    which = ", as telephones take them," if kind == "HEIC" else ""
    return f"{missing_extra(f'{kind} photographs{which}', package, 'heif')}; or save them as JPEG"


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ImageError("pixels are floating-point numbers, whose range is unknown; save it in 8 or 16 bits")
    if image.mode.startswith("I;16") or image.mode == "I":  # 16-bit gray: keep the high byte
        return Image.fromarray((np.asarray(image, dtype=np.int32) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _clip(box: NDArray[np.float32], size: tuple[int, int], margin: float) -> tuple[float, float, float, float]:
    """Add the margin to a box, and clip it to the image."""
    width, height = size
    if np.isnan(box).all():
        return 0.0, 0.0, float(width), float(height)
    x1, y1, x2, y2 = (float(corner) for corner in box)
    if not all(map(math.isfinite, (x1, y1, x2, y2))):
        raise ImageError(f"box {x1:g} {y1:g} {x2:g} {y2:g} is not four finite numbers")
    if min(x2 - x1, y2 - y1) < LEAST_SIDE:
        raise ImageError(f"box {x1:g} {y1:g} {x2:g} {y2:g} has no area; expected x1 < x2 and y1 < y2")
    dx, dy = margin * (x2 - x1), margin * (y2 - y1)
    left, top = max(x1 - dx, 0.0), max(y1 - dy, 0.0)
    right, bottom = min(x2 + dx, float(width)), min(y2 + dy, float(height))
    if min(right - left, bottom - top) < LEAST_SIDE:
        raise ImageError(f"box {x1:g} {y1:g} {x2:g} {y2:g} lies outside the image of {width} x {height} pixels")
    return left, top, right, bottom


def _to_square(image: Image.Image, box: tuple[float, float, float, float], settings: CropSettings) -> Bytes:
    size = settings.size
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    if settings.resize == "pad":
        scale = size / max(width, height)
        inner = max(round(width * scale), 1), max(round(height * scale), 1)
        square = Image.new("RGB", (size, size), settings.fill)
        square.paste(_resize(image, inner, box), ((size - inner[0]) // 2, (size - inner[1]) // 2))
        return np.array(square)
    if settings.resize == "center-crop":
        # In whole pixels of the resized crop, as torchvision and timm count them.
        wide, high = (int(size * side / min(width, height)) for side in (width, height))
        x, y = round((wide - size) / 2), round((high - size) / 2)
        part = x / wide, y / high, (x + size) / wide, (y + size) / high
        return np.array(_resize(image, (size, size), box, part))
    return np.array(_resize(image, (size, size), box))


def _resize(
    image: Image.Image,
    size: tuple[int, int],
    box: tuple[float, float, float, float],
    part: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0),
) -> Image.Image:
    """Resize a part of a box, given in fractions of it, bicubic.

    The box is cut out first: Pillow's own `box` lets pixels from outside it into the edges.
    """
    left, top = math.floor(box[0]), math.floor(box[1])
    corners = left, top, math.ceil(box[2]), math.ceil(box[3])
    cut = image if corners == (0, 0, *image.size) else image.crop(corners)
    width, height = box[2] - box[0], box[3] - box[1]
    x, y = box[0] - left, box[1] - top
    inside = x + part[0] * width, y + part[1] * height, x + part[2] * width, y + part[3] * height
    return cut.resize(size, Image.Resampling.BICUBIC, box=inside)
