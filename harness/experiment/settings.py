"""Where and how a study is run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from harness.errors import InputError

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Folders:
    """Say which folders of one's own images hold what; empty: their names say it.

    Attributes:
        good: good images; those that no test folder holds are split.
        good_test: good images to test on.
        defective: images with a defect, a folder each; its name is the defect's.
        masks: masks of the defective images.

    >>> bool(Folders()), bool(Folders(masks=("drawn",)))
    (False, True)
    """

    good: tuple[str, ...] = ()
    good_test: tuple[str, ...] = ()
    defective: tuple[str, ...] = ()
    masks: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Tell whether any folder is named."""
        return bool(self.good or self.good_test or self.defective or self.masks)


@dataclass(frozen=True)
class Shard:
    """Name one of so many parts of a study's trainings.

    Attributes:
        number: from 1.
        of: how many parts there are.

    >>> Shard.parse("2/3")
    Shard(number=2, of=3)
    >>> str(Shard(2, 3))
    '2/3'
    """

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``i/n``, with 1 ≤ i ≤ n.

        Raises:
            InputError: anything else.
        """
        number, slash, of = text.partition("/")
        digits = slash and all(n.isascii() and n.isdecimal() and len(n) < 7 for n in (number, of))
        if not digits or not 1 <= int(number) <= int(of):
            raise InputError(
                f"--shard: expected i/n with i from 1 to n, as 1/3 for the first of three; got "
                f"'{text}'"
            )
        return cls(int(number), int(of))

    def __str__(self) -> str:
        """Write it as it is given."""
        return f"{self.number}/{self.of}"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Say where and how a study is run; none of it changes what a digest means.

    Attributes:
        results: the folder of records, reports and the cache.
        data: the folder of images, or a manifest; None: the embedded set.
        folders: which of its folders hold what, where their names do not say it.
        dataset: in place of the study's own; empty: the study's.
        weights: a folder of weights files, asked before any other source.
        categories: those to run; empty: the study's.
        device: ``auto``, ``cpu`` or another of torch's; or several GPUs, as in ``cuda:0,cuda:1``.
        tf32: whether float32 may be TF32, on a device that has it.
        jobs: runs at a time; 0: as many as the machine takes.
        cache_limit: bytes of the feature cache.
        speed: whether the variants' latency and FPS are measured.
        keep: whether the models' weights are kept.
        executor: who runs the trainings, a module of :mod:`harness.run.executors`.
        ray_address: of a Ray cluster, HOST:PORT; empty: as ``RAY_ADDRESS`` says, else one is
            started on this machine.
        grow: whether trainings take the cores of those that ended; their last digits vary then.
        checkpoint_minutes: between two checkpoints of a training; 0: only when it is stopped.
        shard: the part of the study that is run; None: all of it.

    >>> Settings(results=Path("there")).cache.as_posix()
    'there/cache'
    """

    results: Path = Path("results")
    data: Path | None = None
    folders: Folders = Folders()
    dataset: str = ""
    weights: Path | None = None
    categories: tuple[str, ...] = ()
    device: str = "auto"
    tf32: bool = False
    jobs: int = 0
    cache_limit: int = 20 * GIB
    speed: bool = True
    keep: bool = False
    executor: str = "local"
    ray_address: str = ""
    grow: bool = False
    checkpoint_minutes: float = 5.0
    shard: Shard | None = None

    @property
    def devices(self) -> tuple[str, ...]:
        """Name the devices one by one; features are made and speeds measured on the first."""
        return tuple(self.device.split(","))

    @property
    def cache(self) -> Path:
        """Find the folder of everything that can be made again."""
        return self.results / "cache"
