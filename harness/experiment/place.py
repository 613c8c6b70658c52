"""Where a run's files are, below a folder of results."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

from harness.errors import InputError
from harness.experiment.variant import Variant


@dataclass(frozen=True)
class Place:
    """Find the files of one run below ``results``.

    >>> Place(Path("results"), "44136fa355b3", "surfaces", "grass", 1).record.name
    'seed-1.json'
    """

    results: Path
    digest: str
    dataset: str
    category: str
    seed: int

    @classmethod
    def of(cls, results: Path, variant: Variant, dataset: str, category: str, seed: int) -> Self:
        """Find the place of a variant's run."""
        return cls(results, variant.digest, dataset, category, seed)

    @classmethod
    def at(cls, results: Path, record: Path) -> Self:
        """Find the place whose record a file below ``results`` is.

        Raises:
            InputError: it is no run's record by its name.
        """
        digest, dataset, category, _ = record.parts[-4:]
        number = record.stem.removeprefix("seed-")
        place = cls(results, digest, dataset, category, int(number) if number.isdecimal() else -1)
        if record.name != f"seed-{place.seed}.json":
            raise InputError(
                f"{record}: expected a run record's name, as seed-0.json; remove or rename it"
            )
        return place

    def _file(self, suffix: str) -> Path:
        # One text: pathlib would take parts apart and join them again, for each of thousands.
        run = f"{self.digest}/{self.dataset}/{self.category}/seed-{self.seed}"
        return Path(f"{self.results}/runs/{run}{suffix}")

    @cached_property
    def record(self) -> Path:
        """Find the record."""
        return self._file(".json")

    def is_recorded(self, *, kept: bool = False) -> bool:
        """Tell whether the run is recorded; ``kept``: and its model's weights are there."""
        return self.record.is_file() and (not kept or self.weights.is_file())

    def before(self, data: str) -> Path:
        """Find the record of images that were replaced, as more were added; ``data``: a digest."""
        return self.record.with_name(f"before-{data}-{self.record.name}")

    def earlier(self) -> list[Path]:
        """List the records that were set aside, those of other images."""
        return sorted(self.record.parent.glob(f"before-*-{self.record.name}"))

    @property
    def failure(self) -> Path:
        """Find the note that a failed run leaves."""
        return self._file(".failed.json")

    @property
    def energies(self) -> Path:
        """Find the test images' energies at every evaluated epoch."""
        return self._file(".npz")

    @property
    def checkpoint(self) -> Path:
        """Find where a training that is not finished stands."""
        return self._file(".checkpoint")

    @property
    def again(self) -> Path:
        """Find where a training stands that is repeated for the weights of its run."""
        return self._file(".again.checkpoint")

    @property
    def weights(self) -> Path:
        """Find the weights of the run's model, where they were asked to be kept."""
        return self._file(".safetensors")

    @property
    def gallery(self) -> Path:
        """Find a few test images with mask and anomaly map, for the report."""
        return self._file(".gallery.npz")
