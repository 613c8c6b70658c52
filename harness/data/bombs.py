"""Pictures that declare more pixels than anybody has: refused before they are decoded."""

import os
from pathlib import Path
from typing import Annotated

from PIL import Image

from harness.errors import InputError
from harness.experiment.values import between, parsed

LIMIT, MEGAPIXELS = "HARNESS_MEGAPIXELS", 89  # Pillow's own limit; telephones have up to 50
Image.MAX_IMAGE_PIXELS = None  # it is said here, in one line


def refuse_bomb(path: Path, width: int, height: int) -> None:
    """Refuse a picture by the size that it declares, pixels: kilobytes can declare gigabytes.

    Raises:
        InputError: it has more than HARNESS_MEGAPIXELS says, or that is no number.

    >>> refuse_bomb(Path("0.png"), 20_000, 20_000)
    Traceback (most recent call last):
    harness.errors.InputError: 0.png: expected at most 89 million pixels; got 20000 × 20000; \
shrink it, or set HARNESS_MEGAPIXELS=400 if it is meant
    """
    asked = os.environ.get(LIMIT) or str(MEGAPIXELS)
    most = parsed(LIMIT, asked, Annotated[float, between(1, 100_000)])
    if width * height > most * 1e6:
        raise InputError(
            f"{path}: expected at most {most:g} million pixels; got {width} × {height}; shrink "
            f"it, or set {LIMIT}={-(-width * height // 10**6)} if it is meant"
        )
