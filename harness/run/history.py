"""What a training leaves beside its weights, written as it goes on and read again: one file."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from harness.errors import see_that_it_is_damage
from harness.experiment.measured import Grown
from harness.files import UNREADABLE, written_whole
from harness.run.energies import PARTS, SavedEnergies
from harness.run.memory import out_of_memory


@dataclass
class History:
    """Hold what training leaves beside the weights.

    Attributes:
        loss: mean training loss of every epoch; empty for what is fitted, not trained.
        holdout: mean loss of the held-out good images at every evaluated epoch.
        energies: epoch → what the method says of the test images.
        bank_bytes: kept of the training images, beside parameters.
        grown: how the training's threads grew, from what they were on; empty: they did not.

    >>> History(loss=[3.0, 2.5]).loss[-1]
    2.5
    """

    loss: list[float] = field(default_factory=list)
    holdout: dict[int, float] = field(default_factory=dict)
    energies: SavedEnergies = field(default_factory=SavedEnergies)
    bank_bytes: int = 0
    grown: list[Grown] = field(default_factory=list)


Writing = Callable[[Path], AbstractContextManager[Path]]


@contextmanager
def writing_energies(
    path: Path, *, data: str, weights: str, arithmetic: str, writing: Writing = written_whole
) -> Iterator[History]:
    """Give an empty history whose energies are written beside ``path`` as training goes on.

    At the end the file is seen there whole, and the history reads from it; what is left where it
    raises inside is ``writing``'s to say: nothing, or what a checkpoint needs.

    Args:
        path: where.
        data: the digest of its images.
        weights: the SHA-256 of its backbone's weights.
        arithmetic: as records name it.
        writing: gives the file that grows, which is seen at ``path`` afterwards.
    """
    with writing(path) as temporary:
        history = History(energies=SavedEnergies(temporary))
        try:
            yield history
            about = {
                "data": data,
                "weights": weights,
                "arithmetic": arithmetic,
                "loss": history.loss,
                "holdout": history.holdout,
                "bank_bytes": history.bank_bytes,
                **({"grown": history.grown} if history.grown else {}),
            }
            history.energies.write("about", np.array(json.dumps(about)))
        finally:
            history.energies.close()
    history.energies.reopen(path)


def load_energies(
    path: Path, *, data: str, weights: str, arithmetic: str, images: int | None = None
) -> History | None:
    """Open an equal training's energies; None if there are none of the same source.

    Files from before do not say their arithmetic, and count as of any.

    A file that is damaged, or not of so many test images where ``images`` are given, is as good
    as none: it is trained again, and written anew.

    Raises:
        InputError: the system does not let it be read; it may be sound.
        RunFailed: too many files are open.
        MemoryError: there is no memory to read it, or an error of torch that says so.
    """
    if not path.is_file():
        return None
    try:
        energies = SavedEnergies(path, "r")
        about = json.loads(str(energies.read("about.npy")))
        same = (about["data"], about["weights"]) == (data, weights)
        same = same and about.get("arithmetic") in (None, arithmetic)
        if not same or not energies.is_sound() or not energies.fits(images):
            return None
        _ = energies.photos  # it can be read
        loss = [float(value) for value in about["loss"]]
        holdout = {int(k): float(v) for k, v in about["holdout"].items()}
        grown = [(int(e), int(b), int(n)) for e, b, n in about.get("grown", ())]
        if max(energies) != (len(loss) or 1):  # the last epoch is evaluated, whatever ends it
            return None
        if any(p and list(p) != list(energies) for p in map(energies.part, PARTS)):
            return None
    except UNREADABLE as error:
        if out_of_memory(error):
            raise
        see_that_it_is_damage(path, error)
        return None
    return History(loss, holdout, energies, int(about.get("bank_bytes", 0)), grown)
