"""What claims and checkpoints take of a study's time: with them, and with neither."""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Self

from benchmarks.common import Child, Options, Part, Row, columns, in_child, ratio
from harness.claims import Claim, Claims

OFTEN = 0.05  # minutes
SIDES = {
    "neither": ("0", False),
    "as usual: a checkpoint every 5 minutes": ("5", True),
    "a checkpoint every 3 s": (str(OFTEN), True),
}
MOST = 1.02  # of the time without


def measure(options: Options) -> Part:
    """All sides in turns, with features made anew each time."""
    done: dict[str, list[Child]] = {}
    for _ in range(options.turns(5)):
        for name, (minutes, claims) in SIDES.items():
            with tempfile.TemporaryDirectory(dir=options.work) as folder:
                given = {"results": folder, "minutes": minutes, "claims": claims}
                done.setdefault(name, []).append(in_child(options, "safety", "side", **given))
    seconds = {name: [c.seconds for c in children] for name, children in done.items()}
    rows: list[Row] = [{"side": name, **columns(of, "s")} for name, of in seconds.items()]
    part = Part(
        protocol=[
            "The embedded study's reference, on its categories with its seeds: a whole process, "
            "one run after another. Neither: claims that write nothing, and no checkpoint."
        ],
        tables={"Claims and checkpoints": rows},
    )
    without = seconds.pop("neither")
    for name, of in seconds.items():
        part.claim(f"Time with claims, {name}", ratio(of, without), MOST, sense="at most")
    return part


def side(options: Options) -> list[Row]:
    """``harness run`` on the reference of the embedded study."""
    from harness.cli.main import main
    from harness.features import cache
    from harness.run import sweep

    if not options.extra["claims"]:
        for module in (cache, sweep):
            module.Claims = Alone  # type: ignore[misc]
    words = ["--results", options.extra["results"], "--variant", "base", "--no-speed"]
    words += ["--checkpoint-minutes", options.extra["minutes"], "--jobs", "1"]
    words += ["--epochs", "1", "--seed", "0"] if options.quick else []
    if code := main(["run", "surfaces", *words]):
        raise SystemExit(code)
    return [{"records": sum(1 for _ in Path(options.extra["results"]).rglob("seed-?.json"))}]


class Unwritten(Claim):
    """A claim that is not a file."""

    def is_held(self) -> bool:
        """See the class above it."""
        return True


class Alone(Claims):
    """Claims of a start that is alone and knows it: each is given, and nothing is written."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def take(self, work: str) -> Claim:
        """See the class above it."""
        return Unwritten(Path(), work, self.token)

    def release(self, claim: Claim) -> None:
        """See the class above it."""

    def taken(self) -> set[str]:
        """See the class above it."""
        return set()

    def alone(self) -> bool:
        """See the class above it."""
        return True

    def clean(self) -> int:
        """See the class above it."""
        return 0

    def using(self, names: Iterable[str]) -> Any:
        """See the class above it."""
        return nullcontext()

    def each(self, works: Iterable[str], waiting: object) -> Iterator[str]:
        """See the class above it."""
        yield from works
