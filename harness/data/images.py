"""Image files as pixels: how their depth and colours count, how they are fitted.

Which files are read: :mod:`harness.data.formats`; of a file with several pictures, the first.
Turned as their EXIF orientation says; palettes and grey as RGB; what is transparent shows black,
whatever colour is hidden there. Grey of 16 bits is scaled to 8 by how many of them are used (see
:class:`harness.data.contract.Depth`); of colours of 16 bits Pillow keeps the high byte.
Floating-point and 32-bit images have no known white and are refused, as are pictures of too many
pixels (:mod:`harness.data.bombs`). How masks are read: :func:`look_at_mask`.
"""

from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from harness.data import labelme
from harness.data.bombs import refuse_bomb
from harness.data.formats import AVIF, HEIC, SUFFIXES, unread
from harness.errors import InputError

__all__ = ["SUFFIXES", "unread"]  # beside what is defined here

FORMATS = ("PNG", "JPEG", "BMP", "DIB", "TIFF", "WEBP", "GIF", "PPM")
LOSSY = {"JPEG", "MPO", "AVIF", "HEIF"}
LOSSY_IN_TIFF = {"jpeg", "tiff_jpeg", "webp"}
BITS = (8, 10, 12, 14, 16)  # of a camera, as they are stored in 16

Mask = NDArray[np.bool_]


class Picture(NamedTuple):
    """Hold the first picture of a file, decoded and upright.

    Attributes:
        image: in Pillow's mode of the file; grey of 16 bits as ``I;16`` or ``I;16B``.
        format: Pillow's name of it.
        pictures: how many the file holds.
        deep: whether it is stored in 16 bits a channel.
        declared: whether the file itself says which value is white, which then is 65535 here.
        lossy: whether its pixels may be other than those that were saved.
    """

    image: Image.Image
    format: str
    pictures: int
    deep: bool
    declared: bool
    lossy: bool


class MaskPicture(NamedTuple):
    """Hold what a mask file says: its defects (H, W), format, number of pictures.

    ``odd`` is what should be known of its values; empty for zero and one other.
    """

    defects: Mask
    format: str
    pictures: int
    odd: str


def read_bytes(path: Path) -> bytes:
    """Read a file's content; an InputError where it cannot be read."""
    if path.is_fifo():  # would wait for whoever writes into it
        raise InputError(f"{path}: expected a file; got a pipe; save what it gives")
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: expected a readable file; got: {error.strerror}; repair or remove it"
        ) from None


def read_picture(path: Path, content: bytes) -> Picture:
    """Decode the first picture of a file's content.

    The image is decoded: an end marker alone does not say that what is before it is whole.
    A JPEG has no checksum: damage within it that its decoder can pass over is not found.

    Raises:
        InputError: it is damaged, no picture that is read, or too large.
    """
    file = _opened(path, content)
    deep, declared = _depth(path, file)
    lossy = _is_lossy(file, content)
    try:
        file.load()
    except Exception as error:  # Pillow's decoders raise almost anything on damaged files
        raise _broken(path, content, error) from None
    image = ImageOps.exif_transpose(file) if _orientation(file) else file
    if deep and image.mode == "I":
        image = Image.fromarray(np.asarray(image).astype(np.uint16))
    pictures = _pictures(_opened(path, content))
    return Picture(image, str(file.format), pictures, deep, declared, lossy)


def open_image(path: Path) -> Image.Image:
    """Open an image file, decoded and upright, in Pillow's mode of the file."""
    return read_picture(path, read_bytes(path)).image


def is_deep_grey(image: Image.Image) -> bool:
    """Tell whether an image is grey of 16 bits."""
    return image.mode.startswith("I;16")


def bits_for(most: int) -> int:
    """Find how many bits a camera had whose pixels do not exceed a value: 8, 10, …, 16.

    >>> bits_for(4095), bits_for(4096)
    (12, 14)
    """
    return next(bits for bits in BITS if most < 2**bits)


def to_rgb(image: Image.Image, path: Path, bits: int = 16) -> Image.Image:
    """Convert to RGB with 8 bits a channel; see this module's rules.

    Args:
        image: in Pillow's mode of its file.
        path: what an error names.
        bits: of a grey image of 16 bits, how many are used: 2^bits − 1 is white.

    Raises:
        InputError: it is of 32 bits, or Pillow cannot make it RGB.

    >>> grey = Image.fromarray(np.array([[0, 257, 65535]], np.uint16))
    >>> np.asarray(to_rgb(grey, Path("grey.png")))[0].tolist()
    [[0, 0, 0], [1, 1, 1], [255, 255, 255]]
    """
    if is_deep_grey(image):
        grey = np.rint(np.asarray(image).astype(np.float64) / ((2**bits - 1) / 255))
        return Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise InputError(
            f"{path}: expected 8 or 16 bits a channel; got Pillow's mode {image.mode}, of 32 "
            "bits or signed; save it with 8 or 16"
        )
    if image.has_transparency_data:
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, _converted(image, "RGBA", path)).convert("RGB")
    return _converted(image, "RGB", path)


def read_defects(path: Path) -> Mask:
    """Tell whether each pixel of a mask file is a defect, (H, W); see :func:`look_at_mask`."""
    return look_at_mask(path, read_bytes(path)).defects


def look_at_mask(path: Path, content: bytes) -> MaskPicture:
    """Find a mask's defects.

    A pixel's value is that of its largest channel, zero where it is wholly transparent. If some
    pixel is at least half as bright as white, the mask is black and white, and a pixel is a
    defect from half the white on: what is between comes of smoothed edges or of a JPEG. Else the
    values are numbers of kinds, and every pixel that is not zero is a defect; so are a palette's
    colours. A file whose compression changes pixels cannot hold such numbers: it is black then.

    Raises:
        InputError: the file is damaged, or of 16 bits a channel in colours, which Pillow reads
            as 8 and so would lose small values.
    """
    if path.suffix.lower() == ".json":
        return MaskPicture(labelme.defects(path, content), "labelme", 1, "")
    picture = read_picture(path, content)
    values, white = _values(picture, path)
    counted = values.dtype.kind == "u"  # where counting is faster than sorting
    different = np.flatnonzero(np.bincount(values.ravel())) if counted else np.unique(values)
    kinds = different[-1] < white / 2
    defects = values > 0 if kinds else values >= white / 2
    odd = ""
    if kinds and different[-1] and picture.lossy:
        defects, odd = np.zeros_like(defects), "lossy and nowhere white: a mask without a defect"
    elif len(different) > 2 or different[0]:
        odd = "holding other mask values than 0 and one more: a pixel is a defect "
        odd += "if it is not zero" if kinds else "from half the white on"
    return MaskPicture(defects, picture.format, picture.pictures, odd)


def _values(picture: Picture, path: Path) -> tuple[NDArray[Any], float]:
    """A mask's values (H, W), none below zero, and which of them is white."""
    image = picture.image
    if is_deep_grey(image):
        return np.asarray(image), 65535
    if image.mode in ("I", "F"):  # nothing says which value is white
        values = np.abs(np.nan_to_num(np.asarray(image).astype(np.float64)))
        most = float(values.max())
        return values, next((white for white in (1, 255, 65535) if most <= white), most)
    if picture.deep:
        raise InputError(
            f"{path}: expected a mask of 8 bits a channel, or grey of 16; got colours of 16; "
            "save it as grey"
        )
    if image.mode in ("1", "L") and not image.has_transparency_data:
        return np.asarray(image.convert("L")), 255
    pixels = np.asarray(_converted(image, "RGBA", path))
    colours = pixels[..., :3] * (pixels[..., 3:] > 0)
    values = colours.max(axis=2)
    if image.mode == "P" and (colours != values[..., None]).any():  # colours, not shades of grey
        codes = colours.astype(np.int64) @ (1 << 16, 1 << 8, 1)
        return codes, 1 << 26  # twice and more of any: numbers of kinds
    return values, 255


def _converted(image: Image.Image, mode: str, path: Path) -> Image.Image:
    try:
        if image.mode == "La":  # grey with the transparency multiplied in
            image = image.convert("LA")
        return image if image.mode == mode else image.convert(mode)
    except Exception as error:
        raise InputError(
            f"{path}: expected an image that can be shown in colours; got Pillow's mode "
            f"{image.mode} ({error}); save it as RGB or grey"
        ) from None


@cache
def _formats() -> tuple[str, ...]:
    """What is read; Pillow learns of HEIC when the first image is opened."""
    if HEIC:
        import pillow_heif

        pillow_heif.register_heif_opener()
    return FORMATS + ("AVIF",) * AVIF + ("HEIF",) * HEIC


def _opened(path: Path, content: bytes) -> ImageFile.ImageFile:
    if not content:
        raise InputError(f"{path}: expected an image; the file is empty; replace or remove it")
    try:
        image = Image.open(BytesIO(content), formats=_formats())
    except Exception as error:  # as in read_picture
        raise _broken(path, content, error) from None
    refuse_bomb(path, image.width, image.height)
    return image


def _depth(path: Path, file: ImageFile.ImageFile) -> tuple[bool, bool]:
    """Whether a channel has 16 bits, and whether the file says which value is white.

    As stored: it is not known any more once the file is decoded.
    """
    stored = str([tile[3] for tile in file.tile])
    if file.format == "PPM":  # Pillow scales what has another white than 255 or 65535
        deep = file.mode == "I" or (file.mode == "RGB" and "65535" in stored)
        return deep, deep and file.mode == "I" and "I;16" not in stored
    if file.format != "TIFF":
        return file.format == "PNG" and ";16" in stored, False
    tags = file.tag_v2  # type: ignore[attr-defined]
    whole = set(tags.get(339, (1,))) == {1}  # its sample format: numbers without a sign
    deep = whole and 8 < max(tags.get(258, (1,))) <= 16
    wrong = ""
    if deep and tags.get(262) == 0:
        wrong = "zero as white"
    elif deep and ";16" not in stored and "12" not in stored:
        wrong = "each colour in a plane of its own"
    if wrong:  # which Pillow reads as something else
        raise InputError(
            f"{path}: expected 16 bits a channel as they are shown; got a TIFF with {wrong}; "
            "save it as PNG"
        )
    return deep, False


def _is_lossy(file: ImageFile.ImageFile, content: bytes) -> bool:
    if file.format == "WEBP":
        return b"VP8L" not in content
    return file.format in LOSSY or file.info.get("compression") in LOSSY_IN_TIFF


def _pictures(file: ImageFile.ImageFile) -> int:
    try:
        return int(getattr(file, "n_frames", 1))
    except Exception:  # damage behind the first picture, which is all that is used
        return 1


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(0x0112, 0))
    except Exception:  # a damaged EXIF block turns nothing
        return 0


def _broken(path: Path, content: bytes, error: Exception) -> InputError:
    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, UnidentifiedImageError):
        reason = "its content is no PNG, JPEG, BMP, TIFF, WebP, GIF, PPM or AVIF"
        if content[4:8] == b"ftyp" and content[8:11] in (b"hei", b"hev", b"mif"):
            reason = unread(".heic") or reason
        elif content[:4] in (b"II*\0", b"MM\0*"):
            reason = "a TIFF of a kind that is not read, as floating point of 16 or 64 bits"
    return InputError(
        f"{path}: expected an image; it cannot be read ({reason}); replace or remove it"
    )
