"""A study's plan: where it runs, its cells, and which of them are recorded."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from harness.data.check import check
from harness.data.contract import Category
from harness.data.counts import PUBLISHED_COUNTS
from harness.data.datasets import DISTURBED, dataset_names, open_dataset
from harness.data.frame import boxes_of
from harness.data.left_out import as_read, left_out
from harness.data.remarks import Remark
from harness.data.roles import match
from harness.data.synthetic import DEFECTIVE_COPIES
from harness.data.tiles import tiled, tiles_of
from harness.errors import InputError, unknown, warn
from harness.experiment.choices import METHODS
from harness.experiment.feature_spec import FeatureSpec
from harness.experiment.place import Place
from harness.experiment.record import Record
from harness.experiment.settings import Settings
from harness.experiment.store import read_sound
from harness.experiment.study import Cell, Study
from harness.experiment.variant import Variant

Tiles = Mapping[tuple[FeatureSpec, str], tuple[int, int]]
NONE: Tiles = MappingProxyType({})  # no recipe cuts the photos
SMOKE_IMAGES = 8  # of each kind that a smoke run looks at


@dataclass(frozen=True)
class Plan:
    """Hold a study on a data set: every cell, and which of them are recorded.

    ``sizes`` are the images of every category, (train, test), and ``tiles`` what a recipe that
    cuts them makes of them; ``categories`` is empty in a plan made without the data; ``absent``
    are categories that the study names and the data lacks; ``grown`` are cells that were recorded
    when the data had fewer images, ``damaged`` those whose record is no longer one; ``remarks`` is
    what should be known of the images, ``read`` what a person's own were taken for; ``shard`` is
    the part of the study that its cells are, as in ``1/3``.

    >>> from harness.studies import STUDIES
    >>> plan = plan_without_data(STUDIES["kernels"], Settings(categories=("screw",)))
    >>> len(plan.cells), plan.sizes["screw"]
    (6, (320, 160))
    """

    study: Study
    categories: dict[str, Category]
    sizes: dict[str, tuple[int, int]]
    dataset: str
    results: Path
    cells: tuple[Cell, ...]
    absent: tuple[str, ...] = ()
    grown: tuple[Cell, ...] = ()
    damaged: tuple[Cell, ...] = ()
    remarks: tuple[Remark, ...] = ()
    read: tuple[str, ...] = ()
    tiles: Tiles = field(default_factory=dict)
    shard: str = ""

    @property
    def about(self) -> tuple[str, ...]:
        """List the categories that a table or report is about.

        On the study's own data set those that are absent count, as missing; on other images it
        is about those that are there.
        """
        own = self.dataset == self.study.dataset
        return (*self.sizes, *(self.absent if own else ()))

    @property
    def lacks(self) -> str:
        """Say which of the study's categories the data lacks; empty for none."""
        return f"not in the data: {', '.join(self.absent)}" if self.absent else ""

    def images_of(self, variant: Variant, category: str) -> tuple[int, int]:
        """Count the images of a category that a variant's method sees, (train, test)."""
        return self.tiles.get((variant.feature_spec, category), self.sizes[category])

    def place(self, cell: Cell) -> Place:
        """Find where the cell's record is or will be."""
        return Place.of(self.results, cell.variant, self.dataset, cell.category, cell.seed)

    def missing(self, *, kept: bool = False) -> list[Cell]:
        """List the cells without a sound record, and those whose images are more by now.

        Args:
            kept: whether a cell without its model's weights is missing too.
        """
        again = {*self.grown, *self.damaged}
        if kept:
            from harness.run.kept import is_kept  # needs torch, which reports do without

        def is_there(cell: Cell) -> bool:
            place = self.place(cell)
            return place.is_recorded() and (not kept or is_kept(place.weights))

        return [c for c in self.cells if c in again or not is_there(c)]


def make_plan(study: Study, settings: Settings, *, checked: bool = True) -> Plan:
    """Plan the study's cells on the data set at hand.

    Args:
        study: what is asked.
        settings: where the images and the records are.
        checked: whether its records are read; a report reads them itself.

    Raises:
        InputError: the data set or a category does not exist or cannot be used, or a record
            that is there is made from other data, or by a newer version.
    """
    name = settings.dataset or study.dataset
    dataset = open_dataset(
        name, folder=settings.data, cache=settings.cache, folders=settings.folders
    )
    has = dataset.categories()
    asked = tuple(_known(name, has) for name in settings.categories)
    settings = replace(settings, categories=asked)
    wanted, absent, smoke = _wanted(study, settings, dataset.name, has)
    categories = {name: dataset.load(name) for name in wanted}
    said = left_out(settings.data, dataset, categories.values()) if settings.data else []
    own = settings.data and dataset.name.removeprefix(DISTURBED) not in PUBLISHED_COUNTS
    read = tuple(as_read(c) for c in categories.values()) if own else ()
    if smoke:
        categories = {name: c.limited(SMOKE_IMAGES) for name, c in categories.items()}
    said += _usable(study, categories)
    sizes = {name: (len(c.train), len(c.test)) for name, c in categories.items()}
    cells = tuple(study.cells(wanted))
    there = settings.results
    plan = Plan(
        study,
        categories,
        sizes,
        dataset.name,
        there,
        cells,
        absent,
        remarks=tuple(said),
        read=read,
    )
    plan = replace(plan, tiles=_tiles(cells, categories))
    return _checked(plan) if checked else plan


def _tiles(cells: Iterable[Cell], categories: Mapping[str, Category]) -> Tiles:
    """How many tiles the photos of a category are cut into, by the recipes that do."""
    wanted = {(c.variant.feature_spec, c.category) for c in cells if c.variant.tile_size}
    cut = {(spec, name): tiled(categories[name], spec) for spec, name in wanted}
    return {which: (len(c.train), len(c.test)) for which, c in cut.items()}


def _known(name: str, has: Sequence[str]) -> str:
    """The category that a name means, whatever its case and the spelling of its accents."""
    if found := match(name, has):
        return found
    raise unknown("category", name, has)


def plan_without_data(study: Study, settings: Settings, *, checked: bool = True) -> Plan:
    """Plan the study's cells by its data set's published categories and counts.

    Args:
        study: what is asked.
        settings: where the records are.
        checked: as of :func:`make_plan`.

    Raises:
        InputError: they are not known, a category does not exist, or a record that is there is
            of a newer version.
    """
    dataset = settings.dataset or study.dataset
    official = PUBLISHED_COUNTS.get(dataset.removeprefix(DISTURBED))
    if official is None:
        if dataset not in dataset_names():
            raise unknown("data set", dataset, dataset_names())
        raise InputError(f"the categories of {dataset} are not known; expected --data DIR")
    asked = tuple(_known(name, tuple(official)) for name in settings.categories)
    settings = replace(settings, categories=asked)
    wanted, absent, smoke = _wanted(study, settings, dataset, tuple(official))
    sizes = {name: (official[name].train, official[name].test) for name in wanted}
    if smoke:
        sizes = {name: (SMOKE_IMAGES, 2 * SMOKE_IMAGES) for name in wanted}
    cells = tuple(study.cells(wanted))
    if cut := next((c.variant for c in cells if c.variant.tile_size), None):
        raise InputError(
            "tile_size: expected --data DIR, as how many tiles there are depends on the photos' "
            f"sizes; got tile_size={cut.tile_size} without it"
        )
    plan = Plan(study, {}, sizes, dataset, settings.results, cells, absent)
    return _checked(plan) if checked else plan


def defective_wanted(cells: Iterable[Cell]) -> dict[tuple[FeatureSpec, str], tuple[str, ...]]:
    """Say which defective copies of a category's good images each recipe of features needs.

    Returns:
        (recipe, category) of every cell → kinds of copies; empty where no run asks for any.
    """
    kinds: dict[tuple[FeatureSpec, str], tuple[str, ...]] = {}
    for cell in cells:
        where, kind = (cell.variant.feature_spec, cell.category), cell.variant.validation
        had = kinds.setdefault(where, ())
        if DEFECTIVE_COPIES[kind] and kind not in had:
            kinds[where] = (*had, kind)
    return kinds


def images_to_pass(
    cells: Iterable[Cell], sizes: Mapping[str, tuple[int, int]], tiles: Tiles = NONE
) -> dict[tuple[FeatureSpec, str], int]:
    """Count the images, and their copies, that each recipe of features is made of.

    Args:
        cells: the runs.
        sizes: images of every category, (train, test).
        tiles: of recipes that cut the photos.
    """
    wanted = defective_wanted(cells)
    seen = {which: tiles.get(which, sizes[which[1]]) for which in wanted}
    return {
        (spec, name): spec.images(*seen[spec, name]) + len(kinds) * seen[spec, name][0]
        for (spec, name), kinds in wanted.items()
    }


def _wanted(
    study: Study, settings: Settings, dataset: str, has: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...], bool]:
    """Which categories are run, which of the study's the data lacks, and if it is a smoke run.

    Raises:
        InputError: the study's own data set, whose categories are published, has none of them.
    """
    smoke = all(v.smoke for v in study.variants)
    named = tuple(dict.fromkeys(study.categories))
    wanted = settings.categories or tuple(c for c in named if c in has)
    absent = () if settings.categories else tuple(c for c in named if c not in has)
    published = dataset.removeprefix(DISTURBED) in PUBLISHED_COUNTS
    if absent and not wanted and published and dataset == study.dataset:
        raise InputError(
            f"study {study.name}: expected at least one of its categories ({', '.join(named)}) "
            f"in {dataset}; found {', '.join(has)}; add its images, or choose by --category"
        )
    wanted = tuple(wanted or has)
    return (wanted[:1], (), True) if smoke else (wanted, absent, False)


def _usable(study: Study, categories: Mapping[str, Category]) -> list[Remark]:
    """Look for what is wrong with the images before anything runs, and say what is to be known.

    What a method needs of images after the holdout, its entry says. A batch need not be full,
    unless ``drop_last`` leaves out what is not.
    """
    leaks = "refuse" if any(v.leaks == "refuse" for v in study.variants) else "allow"
    needs = {
        (
            v.holdout,
            max(METHODS[v.method].images, v.batch_size if v.drop_last else 0),
            v.tile_size,
            v.tile_overlap,
        ): v.feature_spec
        for v in study.variants
    }
    said: list[Remark] = []
    for category in categories.values():
        said += check(category, leaks=leaks)
        for (holdout, least, *_), spec in sorted(needs.items(), key=lambda need: need[0]):
            _enough(category, holdout, least, _fewest_tiles(category, spec))
        _refuse_seen_padding(study, category)
    return said


def _fewest_tiles(category: Category, spec: FeatureSpec) -> int:
    """Tiles of the training photo with the fewest; 1 where they are not cut."""
    return min(len(tiles_of([s], spec)) for s in category.train) if spec.tile_size else 1


def _enough(category: Category, holdout: float, least: int, each: int) -> None:
    """Refuse a category with fewer images to train on, or with none held out where some are.

    A photo counts as ``each`` images; it is held out whole.
    """
    images = len(category.train)
    held, where = round(holdout * images), category.train[0].path.parent
    if (left := (images - held) * each) < least:
        can = " or ".join(name for name, method in METHODS.items() if method.images <= left)
        raise InputError(
            f"{where}: expected at least {least} images of {category.name} to train on; got "
            f"{left} (holdout={holdout:g} of {images}); add images, or lower holdout or, with "
            "drop_last, batch_size" + (f"; {left} is enough for method={can}" if can else "")
        )
    if holdout and not held:
        raise InputError(
            f"{where}: expected at least 1 image of {category.name} to be held out; got 0 "
            f"(holdout={holdout:g} of {images}); add images, raise holdout, or set it to 0"
        )


def _refuse_seen_padding(study: Study, category: Category) -> None:
    """Refuse image scores of a method's own where images are padded: it is not told where."""
    for v in study.variants:
        photos = (*category.train, *category.test) if v.image_score == "own" else ()
        images = tiles_of(photos, v.feature_spec)
        if boxes_of(images, v.image_size, v.resize) is not None:
            method = METHODS[v.method]
            other = ", or another image_score, as max" if method.localises else ""
            raise InputError(
                f"resize: {method.name}'s own image score would see what pad puts around the "
                f"images of {category.name}; expected square or crop{other}; got pad"
            )


def _checked(plan: Plan) -> Plan:
    """The plan, with what of it is recorded; a damaged record is said before anything runs."""
    grown, damaged = [], []
    for cell in plan.cells:
        place = plan.place(cell)
        if (record := read_sound(place, damaged=warn)) is None:
            damaged += [cell] if place.record.is_file() else []
            continue
        category = plan.categories.get(cell.category)
        if category and record.data.digest != category.digest:
            _grown(place.record, record, category)
            grown.append(cell)
    return replace(plan, grown=tuple(grown), damaged=tuple(damaged))


def _grown(path: Path, record: Record, category: Category) -> None:
    """Refuse other images than the record's, unless they are those and more.

    Photos are known by their content: others of the same names are others.
    """
    before = set(record.images.sha256 if record.images else ())
    common = before & set(category.contents)
    now, then = (len(category.train), len(category.test)), (record.data.train, record.data.test)
    grown = now[0] >= then[0] and now[1] >= then[1] and sum(now) > sum(then)
    if not before or not grown or len(common) < len(before):
        raise InputError(
            f"{path}: recorded on other images of {category.name} (data digest "
            f"{record.data.digest}; now {category.digest}; {len(common)} test images in common); "
            "expected the same, or more; use another --results"
        )
