"""Where and how a study is run."""

from dataclasses import dataclass
from pathlib import Path

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Say where and how a study is run; none of it changes what a digest means.

    Attributes:
        results: the folder of records, reports and the cache.
        data: the folder of images, or a manifest; None: the embedded set.
        dataset: in place of the study's own; empty: the study's.
        weights: a folder of weights files, asked before any other source.
        categories: those to run; empty: the study's.
        device: ``auto``, ``cpu`` or another of torch's.
        tf32: whether float32 may be TF32, on a device that has it.
        jobs: runs at a time; 0: as many as the machine takes.
        cache_limit: bytes of the feature cache.
        speed: whether the variants' latency and FPS are measured.
        executor: who runs the trainings, a module of :mod:`harness.run.executors`.

    >>> Settings(results=Path("there")).cache.as_posix()
    'there/cache'
    """

    results: Path = Path("results")
    data: Path | None = None
    dataset: str = ""
    weights: Path | None = None
    categories: tuple[str, ...] = ()
    device: str = "auto"
    tf32: bool = False
    jobs: int = 0
    cache_limit: int = 20 * GIB
    speed: bool = True
    executor: str = "local"

    @property
    def cache(self) -> Path:
        """Find the folder of everything that can be made again."""
        return self.results / "cache"
