"""How a record of an older schema becomes one of the next."""

from collections.abc import Callable
from typing import Any

from harness.experiment.variant import Variant


def _to_2(content: dict[str, Any]) -> None:
    """Add what schema 1 did not say: how the copy of the data stands to the published one.

    The first records also lack what later ones of the same schema have.
    """
    content["schema"] = 2
    content.setdefault("training_digest", Variant.from_fields(content["variant"]).training.digest)
    unknown = {"layout": "", "disturbance": "", "form": "", "official": None, "copy": ""}
    content["data"] = unknown | content["data"] | {"complete": None, "published_form": None}
    content["environment"] = {"compiled": None} | content["environment"]
    content["measured"] = {"bank_bytes": 0} | content["measured"]


def _to_3(content: dict[str, Any]) -> None:
    """Say nothing of single images: schema 2 kept them nowhere."""
    content["schema"] = 3


# Schema → what makes such a record one of the next schema.
MIGRATIONS: dict[int, Callable[[dict[str, Any]], None]] = {1: _to_2, 2: _to_3}
