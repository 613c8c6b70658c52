"""Run records: what remains of a run, in files whose names are of :mod:`harness.experiment.place`.

``results/runs/<variant digest>/<dataset>/<category>/seed-<n>.json``. A record appears whole or
not at all; a failed run leaves ``seed-<n>.failed.json`` instead. Done means the record exists.

The blocks are msgspec structures: it imports in 0.04 s, reads and checks 81 records in 0.05 s, and
gives one line for what is wrong.
"""

from typing import Any

import msgspec

from harness.experiment.feature_spec import Size
from harness.experiment.measured import Block, Environment, Macs, Measured, Metrics, Parameters
from harness.experiment.variant import Variant

SCHEMA = 3


class Weights(Block, kw_only=True):
    """Say which weights the backbone had.

    >>> Weights(backbone="resnet18.tv_in1k", source="random", sha256="").source
    'random'
    """

    backbone: str
    source: str  # "folder", "hub", "package NAME" or "random"
    sha256: str


class Data(Block, kw_only=True, omit_defaults=False):
    """Say which images a run saw, and how they stand to the published ones."""

    digest: str
    train: int
    test: int
    defective: int
    masks: int
    layout: str
    disturbance: str
    form: str  # as in "PNG 900x900"; empty where it is not known
    official: bool | None  # whether the counts are the published ones; None: none are known
    complete: bool | None  # false: fewer images than published
    published_form: bool | None  # false: stored in another form than the published
    copy: str  # the same in words


class Protocol(Block, kw_only=True, omit_defaults=False):
    """Say how scores became metrics."""

    aupro_fpr_limit: float
    resize: str
    masks: str
    map_size: Size


class EpochSelection(Block, kw_only=True, omit_defaults=False):
    """Say which epoch counts, by which rule, and whether that rule saw the test's labels.

    >>> EpochSelection(rule="last", epoch=20, oracle=False).oracle
    False
    """

    rule: str
    epoch: int
    oracle: bool


class Epoch(Block, kw_only=True):
    """Hold one evaluated epoch; ``loss`` and ``holdout`` are means over images.

    ``validation`` holds ``image_auroc`` and ``pixel_auroc`` of held-out good images and their
    defective copies, made without a label; None: the run has no validation.

    >>> Epoch(epoch=5, metrics={"image_auroc": 0.9}).holdout is None
    True
    """

    epoch: int
    loss: float | None = None
    metrics: Metrics
    holdout: float | None = None
    validation: Metrics | None = None


class Images(Block, kw_only=True):
    """List what each test image got at the epoch that counts, column by column.

    Attributes:
        path: below the data root.
        sha256: the first 12 digits of its content's.
        defect: its kind; ``good`` for none.
        score: larger = more anomalous.
        defect_pixels: of its mask at the map's size; empty without masks or maps, as what follows.
        pixels: of its map; a list where they differ from image to image.
        found: the share of all normal pixels that score lower than its defective ones, on average.
        clear: the share of all defective pixels that score higher than its normal ones.

    >>> Images(path=["a.png"], defect=["scratch"], score=[0.7]).labels
    [True]
    """

    path: list[str]
    sha256: list[str] = msgspec.field(default_factory=list)
    defect: list[str]
    score: list[float]
    defect_pixels: list[int] = msgspec.field(default_factory=list)
    pixels: int | list[int] = 0
    found: list[float | None] = msgspec.field(default_factory=list)
    clear: list[float | None] = msgspec.field(default_factory=list)

    @property
    def labels(self) -> list[bool]:
        """Say which are defective."""
        return [kind != "good" for kind in self.defect]


class Rescored(Block, kw_only=True, omit_defaults=False):
    """Say with which code metrics were computed anew from saved energies, and when."""

    harness: str
    commit: str | None
    finished: str


class Record(Block, kw_only=True, weakref=True):
    """Hold all that remains of a run; every table is a query over records.

    >>> Record.__struct_fields__[:4]
    ('schema', 'digest', 'training_digest', 'variant')
    """

    schema: int
    digest: str
    training_digest: str
    variant: dict[str, Any]
    dataset: str
    category: str
    seed: int
    smoke: bool
    random_weights: bool
    weights: Weights
    data: Data
    metrics: Metrics
    protocol: Protocol
    selection: EpochSelection
    epochs: list[Epoch]
    loss: list[float]  # of every epoch; empty for what is fitted, not trained
    parameters: Parameters
    macs: Macs
    environment: Environment
    measured: Measured
    images: Images | None = None  # None: an old record
    saturated: list[float] | None = None  # by tap: share of values at the map's end
    rescored: Rescored | None = None


def check(record: Record) -> None:
    """See that the parts of a record agree with each other, as in every one that was written.

    Raises:
        ValueError: they do not; it says which.
    """
    see_that_it_agrees(record, Variant.from_fields(record.variant))


def see_that_it_agrees(record: Record, variant: Variant) -> None:
    """See that a record agrees with itself and with its variant; see :func:`check`."""
    if (variant.digest, variant.training.digest) != (record.digest, record.training_digest):
        raise ValueError(
            f"digest: expected {variant.digest} and {variant.training.digest}, those of its "
            f"variant; got {record.digest} and {record.training_digest}"
        )
    epochs = [e.epoch for e in record.epochs]
    if record.selection.epoch not in epochs:
        raise ValueError(f"epoch: expected one of {epochs}; got {record.selection.epoch}")
    if record.images is None:
        return
    listed = msgspec.structs.asdict(record.images)
    always = ("path", "defect", "score")
    columns = {n: len(c) for n, c in listed.items() if isinstance(c, list) and (c or n in always)}
    if len(set(columns.values())) > 1:
        raise ValueError(f"images: expected as many in every column; got {columns}")
