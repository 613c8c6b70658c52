"""Image files as pixels: which are read, how their depth and colours count, how they are fitted.

Read are PNG, JPEG, BMP, TIFF and WebP, the first picture of a file. Turned as their EXIF
orientation says; palettes and grey as RGB; 16 bits as 8 (grey divided by 257, colour by Pillow's
high byte); what is transparent shows black, whatever colour is hidden there. Floating-point and
32-bit images have no known white and are refused.

In a mask every pixel is a defect whose colour and alpha are not zero: one value above zero in any
channel, and not wholly transparent. Pillow reads colours of 16 bits as 8, which would lose small
values, so such masks are refused. Pictures above Pillow's limit of pixels are refused.
"""

import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from harness.data.frame import interior, surround
from harness.errors import InputError
from harness.experiment.feature_spec import Size, shape_of

FORMATS = ("PNG", "JPEG", "BMP", "DIB", "TIFF", "WEBP")
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
TURNED = {5, 6, 7, 8}  # EXIF orientations that swap width and height
CROP = 256 / 224  # Resize(256), CenterCrop(224) of SPADE and PaDiM, for any size

Mask = NDArray[np.bool_]

warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # an InputError, see _opened


def read_bytes(path: Path) -> bytes:
    """Read a file's content; an InputError where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: expected a readable file; got: {error.strerror}; repair or remove it"
        ) from None


def header(path: Path, content: bytes) -> tuple[str, tuple[int, int]]:
    """Find format and (width, height) as shown.

    The image is decoded: an end marker alone does not say that what is before it is whole.
    A JPEG has no checksum: damage within it that its decoder can pass over is not found.
    """
    image = _opened(path, content)
    _load(path, image)
    width, height = image.size
    return str(image.format), (height, width) if _orientation(image) in TURNED else (width, height)


def open_image(path: Path) -> Image.Image:
    """Open an image file, decoded and upright, in Pillow's mode of the file."""
    return _upright(path, _opened(path, read_bytes(path)))


def to_rgb(image: Image.Image, path: Path) -> Image.Image:
    """Convert to RGB with 8 bits a channel; see this module's rules.

    >>> grey = Image.fromarray(np.array([[0, 257, 65535]], np.uint16))
    >>> np.asarray(to_rgb(grey, Path("grey.png")))[0].tolist()
    [[0, 0, 0], [1, 1, 1], [255, 255, 255]]
    """
    if image.mode.startswith("I;16"):
        grey = np.rint(np.asarray(image).astype(np.float64) / 257)
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise InputError(
            f"{path}: expected 8 or 16 bits a channel; got Pillow's mode {image.mode}, of 32 "
            "bits; save it with 8 or 16"
        )
    if image.has_transparency_data:
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image.convert("RGBA"))
    return image.convert("RGB")


def read_defects(path: Path) -> Mask:
    """Tell whether each pixel of a mask file is a defect, (H, W); see this module's rules."""
    file = _opened(path, read_bytes(path))
    deep = any(";16" in str(tile[3]) for tile in file.tile)  # as stored; not known once decoded
    image = _upright(path, file)
    if image.mode.startswith(("I", "F")):
        return np.asarray(np.asarray(image) != 0)
    if deep:
        raise InputError(
            f"{path}: expected a mask of 8 bits a channel, or grey of 16; got colours of 16; "
            "save it as grey"
        )
    pixels = np.asarray(image.convert("RGBA"))
    return np.asarray(pixels[..., :3].any(axis=2) & (pixels[..., 3] > 0))


def squared(image: Image.Image, size: Size, resize: str, filter_: Image.Resampling) -> Image.Image:
    """Fit an image into a backbone's input.

    Args:
        image: of any size.
        size: side of the square, or height and width, pixels.
        resize: a key of :data:`FITS`.
        filter_: Pillow's.

    >>> wide = Image.new("RGB", (512, 256))
    >>> [squared(wide, 224, resize, Image.Resampling.BILINEAR).size for resize in FITS]
    [(224, 224), (224, 224), (224, 224)]
    """
    return FITS[resize](image, shape_of(size), filter_)


def _stretched(
    image: Image.Image, shape: tuple[int, int], filter_: Image.Resampling
) -> Image.Image:
    return image.resize(shape[::-1], filter_)


def _cropped(image: Image.Image, shape: tuple[int, int], filter_: Image.Resampling) -> Image.Image:
    """The centre, scaled to cover CROP of the shape: SPADE's Resize(256) and CenterCrop(224)."""
    wanted = shape[::-1]
    scale = max(round(w * CROP) / side for w, side in zip(wanted, image.size, strict=True))
    sides = [max(w, round(side * scale)) for w, side in zip(wanted, image.size, strict=True)]
    left, top = (round((side - w) / 2) for w, side in zip(wanted, sides, strict=True))
    whole = image.resize((sides[0], sides[1]), filter_)
    return whole.crop((left, top, left + wanted[0], top + wanted[1]))


def _padded(image: Image.Image, shape: tuple[int, int], filter_: Image.Resampling) -> Image.Image:
    box = interior(image.size, shape, "pad")
    inside = image.resize(box.shape[::-1], filter_)
    return Image.fromarray(surround(np.asarray(inside), box, shape))


# How an image is fitted into (height, width); of the field ``resize``.
FITS: dict[str, Callable[[Image.Image, tuple[int, int], Image.Resampling], Image.Image]] = {
    "square": _stretched,
    "crop": _cropped,
    "pad": _padded,
}


def squared_mask(mask: Mask, size: Size, resize: str, rule: str) -> Mask:
    """Fit a mask (H, W) as its image, (height, width); nothing beyond the image is a defect.

    Args:
        mask: in the image's own size.
        size: side of the square, or height and width, pixels.
        resize: as in :func:`squared`.
        rule: ``nearest``; or ``covered``: bilinear, and only pixels that the defect covers
            whole count (gathierry's reproduction casts the resized mask to whole numbers).
    """
    grey = Image.fromarray(mask.astype(np.uint8) * 255)
    filter_ = Image.Resampling.NEAREST if rule == "nearest" else Image.Resampling.BILINEAR
    whole = np.asarray(np.asarray(squared(grey, size, resize, filter_)) == 255)
    box = interior(grey.size, size, resize)
    inside = np.zeros_like(whole)
    inside[box.rows, box.columns] = whole[box.rows, box.columns]
    return inside


def _opened(path: Path, content: bytes) -> ImageFile.ImageFile:
    if not content:
        raise InputError(f"{path}: expected an image; the file is empty; replace or remove it")
    try:
        image = Image.open(BytesIO(content), formats=FORMATS)
        if image.width * image.height > (Image.MAX_IMAGE_PIXELS or np.inf):
            raise Image.DecompressionBombError  # Pillow raises from twice as many
        return image
    except Exception as error:  # Pillow's decoders raise almost anything on damaged files
        raise _broken(path, error) from None


def _upright(path: Path, image: Image.Image) -> Image.Image:
    _load(path, image)
    return ImageOps.exif_transpose(image) if _orientation(image) else image


def _load(path: Path, image: Image.Image) -> None:
    try:
        image.load()
    except Exception as error:  # as above
        raise _broken(path, error) from None


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(0x0112, 0))
    except Exception:  # a damaged EXIF block turns nothing
        return 0


def _broken(path: Path, error: Exception) -> InputError:
    if isinstance(error, Image.DecompressionBombWarning | Image.DecompressionBombError):
        most = (Image.MAX_IMAGE_PIXELS or 0) // 10**6
        return InputError(f"{path}: expected at most {most} million pixels; got more; shrink it")
    reason = "its content is no PNG, JPEG, BMP, TIFF or WebP"
    if not isinstance(error, UnidentifiedImageError):
        reason = " ".join(str(error).split()) or type(error).__name__
    return InputError(
        f"{path}: expected an image; it cannot be read ({reason}); replace or remove it"
    )
