"""Masks drawn in labelme: a JSON file of shapes beside each image.

Every shape is a defect, whatever its label, but for labelme's own ``_background_`` and
``__ignore__``. Shapes are drawn as labelme's own export draws them: lines 10 pixels wide, points
as discs of radius 5.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from io import BytesIO
from math import hypot
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from harness.data.bombs import refuse_bomb
from harness.errors import InputError

LINE, POINT = 10, 5  # pixels: width and radius, as in labelme's shape_to_mask
NO_DEFECT = {"_background_", "__ignore__"}
MOST = 10**5  # points of a drawing
FAR = 1e6  # no point is farther, in pixels
# How many points a shape has at the least.
LEAST = {
    "polygon": 3, "oriented_rectangle": 4, "rectangle": 2, "circle": 2, "line": 2, "linestrip": 2,
    "point": 1, "points": 1, "mask": 2,
}  # fmt: skip

Points = list[tuple[float, float]]


def is_labelme(path: Path) -> bool:
    """Tell whether a file is labelme's: JSON of shapes on an image."""
    if path.suffix.lower() != ".json":
        return False
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and "shapes" in content and "imageHeight" in content


def defects(path: Path, content: bytes) -> NDArray[np.bool_]:
    """Draw the shapes of a labelme file: where they are, (imageHeight, imageWidth).

    Args:
        path: what an error names.
        content: the file's.

    Raises:
        InputError: it is no labelme file, or a shape cannot be drawn.

    >>> corners = [[1, 1], [2, 1]]
    >>> shape = {"label": "dent", "shape_type": "rectangle", "points": corners}
    >>> drawn = {"imageWidth": 4, "imageHeight": 3, "shapes": [shape]}
    >>> defects(Path("0.json"), json.dumps(drawn).encode()).astype(int).tolist()
    [[0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    """
    try:
        return _drawn(json.loads(content), path)
    except InputError:
        raise
    except (ValueError, LookupError, TypeError, RecursionError, OSError, SyntaxError) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(
            f"{path}: expected labelme's imageWidth, imageHeight and shapes with label, points "
            f"and shape_type; got something else ({reason}); save it in labelme, or remove it"
        ) from None


def _drawn(drawing: Any, path: Path) -> NDArray[np.bool_]:  # noqa: ANN401
    if not isinstance(drawing, dict) or not isinstance(drawing.get("shapes"), list):
        raise ValueError("no list of shapes")
    width, height = drawing.get("imageWidth"), drawing.get("imageHeight")
    if type(width) is not int or type(height) is not int or min(width, height) < 1:
        raise ValueError(f"an image of {width}x{height} pixels")
    refuse_bomb(path, width, height)
    if sum(len(s.get("points") or ()) for s in drawing["shapes"] if isinstance(s, dict)) > MOST:
        raise ValueError(f"more than {MOST} points, which nobody has drawn")
    mask = Image.new("1", (width, height))
    for number, shape in enumerate(drawing["shapes"], 1):
        try:
            if shape.get("label") not in NO_DEFECT:
                _draw(mask, shape, path)
        except InputError:
            raise
        except Exception as error:  # whatever somebody else's JSON holds
            raise ValueError(f"shape {number}: {error or type(error).__name__}") from None
    return np.array(mask)


def _draw(mask: Image.Image, shape: Mapping[str, Any], path: Path) -> None:
    kind = shape.get("shape_type") or "polygon"  # as in labelme, whose early files lack it
    if kind not in LEAST:
        raise ValueError(f"shape_type {str(kind)[:30]!r}; known are {', '.join(LEAST)}")
    points = _points(shape["points"])
    if len(points) < LEAST[kind]:
        raise ValueError(f"{len(points)} points of a {kind}, which has {LEAST[kind]}")
    draw = ImageDraw.Draw(mask)
    (x, y), (right, bottom) = points[0], points[min(1, len(points) - 1)]
    if kind in ("polygon", "oriented_rectangle"):
        draw.polygon(points, fill=1, outline=1)
    elif kind == "rectangle":
        corners = (min(x, right), min(y, bottom), max(x, right), max(y, bottom))
        draw.rectangle(corners, fill=1, outline=1)
    elif kind == "circle":
        _disc(draw, x, y, hypot(right - x, bottom - y))
    elif kind in ("line", "linestrip"):
        draw.line(points, fill=1, width=LINE)
    elif kind == "mask":
        with Image.open(BytesIO(base64.b64decode(shape["mask"])), formats=("PNG",)) as part:
            refuse_bomb(path, *part.size)
            inside = Image.fromarray(np.asarray(part.convert("L")) > 0)
        mask.paste(1, (round(x), round(y)), inside)
    else:
        for x, y in points:
            _disc(draw, x, y, POINT)


def _disc(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float) -> None:
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=1, outline=1)


def _points(found: Sequence[Sequence[float]]) -> Points:
    points = [(float(x), float(y)) for x, y in found]
    if not all(abs(x) <= FAR and abs(y) <= FAR for x, y in points):
        raise ValueError("a point that is nowhere near the image")
    return points
