"""Which files are pictures by their names, and of those that are not read: why."""

from importlib.util import find_spec

from PIL import features

AVIF = "avif" in features.modules and bool(features.check_module("avif"))
HEIC = find_spec("pillow_heif") is not None  # the extra ``heic``

_HEIC = {".heic", ".heif", ".hif"}
_READ = {
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".tif", ".tiff", ".webp",
    ".gif", ".ppm", ".pgm", ".pbm", ".pnm",
}  # fmt: skip
_RAW = {
    ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mrw", ".nef",
    ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f",
}  # fmt: skip
_OTHER = {
    ".ai": "Illustrator", ".cur": "Windows cursor", ".dcm": "DICOM", ".dds": "DirectDraw",
    ".emf": "Windows metafile", ".eps": "PostScript", ".exr": "OpenEXR", ".fit": "FITS",
    ".fits": "FITS", ".hdr": "Radiance", ".icns": "icon", ".ico": "icon", ".j2c": "JPEG 2000",
    ".j2k": "JPEG 2000", ".jp2": "JPEG 2000", ".jpc": "JPEG 2000", ".jpf": "JPEG 2000",
    ".jpm": "JPEG 2000", ".jpx": "JPEG 2000", ".jxl": "JPEG XL", ".jxr": "JPEG XR",
    ".kra": "Krita", ".mpo": "stereo photograph", ".ora": "OpenRaster", ".pam": "PAM",
    ".pcx": "PCX", ".pfm": "floating-point picture", ".psb": "Photoshop", ".psd": "Photoshop",
    ".qoi": "QOI", ".ras": "Sun raster", ".sgi": "SGI", ".svg": "vector drawing",
    ".svgz": "vector drawing", ".tga": "Targa", ".wdp": "JPEG XR", ".wmf": "Windows metafile",
    ".xbm": "X bitmap", ".xcf": "GIMP", ".xpm": "X pixmap",
}  # fmt: skip

SUFFIXES = _READ | ({".avif"} if AVIF else set()) | (_HEIC if HEIC else set())
"""Of files that are read here, in small letters: some need what is installed beside."""


def unread(suffix: str) -> str:
    """Say why a picture with this suffix is not read; empty for one that is, or no picture.

    Args:
        suffix: with its dot, in capitals or small letters.

    >>> unread(".CR2"), unread(".psd")
    ('camera raw (export it as PNG or TIFF)', 'Photoshop (export it as PNG or TIFF)')
    >>> unread(".png"), unread(".txt")
    ('', '')
    """
    suffix = suffix.lower()
    if suffix in SUFFIXES:
        return ""
    if suffix in _HEIC:
        return "HEIC (needs `pip install 'fastflow-harness[heic]'`)"
    if suffix == ".avif":
        return "AVIF (needs Pillow 11.3 or later)"
    kind = "camera raw" if suffix in _RAW else _OTHER.get(suffix)
    return f"{kind} (export it as PNG or TIFF)" if kind else ""
