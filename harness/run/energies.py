"""What a training leaves of the test images, on disk: energies of every evaluated epoch.

The file is an ``.npz``, a zip of arrays that are stored as they are, with ``about`` (JSON) and,
for every epoch and CHUNK images from the one at ``start`` on, ``<epoch>/<start>/energy-<tap>``,
``log_det-<tap>`` and ``images``. In older files an epoch is one chunk, ``<epoch>/energy-<tap>``.
Those of other images than the test's have a namespace before the epoch: ``turned/`` holds the
test images' turned copies, those of one image in a row; ``validation/`` held-out good images,
then their defective copies, whose masks are ``validation/masks`` (bits, a row a copy). Tables of
the good images' values (:mod:`harness.score.reference`) are in
``reference/<epoch>/<fitted or held-out>/<tap>-<name>``. Where images are padded, ``boxes`` of a
namespace say where each input shows its image; where photos are cut into tiles, each of them an
image here, ``photos`` says how and what sizes they have. The file grows while its training goes
on, and is read chunk by chunk: no epoch is ever held whole.
"""

import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any
from zipfile import ZipFile, ZipInfo

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray

from harness.data.frame import Box, Boxes
from harness.data.tiles import Photos
from harness.features.checked import read_array
from harness.methods.contract import Energies
from harness.score.reference import Reference, TapReference

CHUNK = 256  # images written and read together
PARTS = ("turned", "validation")  # namespaces of other images than the test's
REFERENCES = ("fitted", "held-out")  # good images: those trained on, those held out


class _Zip(ZipFile):
    """A zip that is finished by :meth:`close` alone, never by being forgotten.

    What a failed run leaves may be forgotten long after, when the file behind the zip is closed
    already: to finish it then is an error that Python prints on the user's screen.
    """

    def __del__(self) -> None:
        """Close what was read; leave what was being written as it is."""
        if getattr(self, "mode", "") == "r":  # it has none where it was not opened
            super().__del__()


class SavedEnergies(Mapping[int, Energies]):
    """Hold energies of test images by epoch, in a file, and give them back in chunks.

    As a mapping it gives an epoch whole, for where there are few images.

    Args:
        file: where; None: in memory.
        mode: as of a file: ``w`` or ``r``.
        whole: in whose file, in place of a file.
        name: of the namespace there; empty: the test images'.

    >>> saved = SavedEnergies()
    >>> saved.save(5, [Energies(images=torch.ones(200)), Energies(images=torch.zeros(100))])
    >>> list(saved), len(saved[5]), [len(chunk) for chunk in saved.chunks(5)]
    ([5], 300, [300])
    """

    def __init__(
        self,
        file: Path | IO[bytes] | None = None,
        mode: Any = "w",  # noqa: ANN401
        *,
        whole: "SavedEnergies | None" = None,
        name: str = "",
    ) -> None:
        self._whole = whole  # never itself, nor a part of it: a cycle closes the file too late
        self._below = f"{name}/" if name else ""
        self._epochs: dict[int, dict[int, list[str]]] = {}
        if whole is None:
            self._file = _Zip(io.BytesIO() if file is None else file, mode)
        for member in self._zip.namelist():
            self._note(member)

    def __iter__(self) -> Iterator[int]:
        """Iterate over the evaluated epochs, in the order of training."""
        return iter(sorted(self._epochs))

    def __len__(self) -> int:
        """Count the evaluated epochs."""
        return len(self._epochs)

    def __getitem__(self, epoch: int) -> Energies:
        """Read an epoch whole."""
        return Energies.join(list(self.chunks(epoch)))

    @property
    def _zip(self) -> ZipFile:
        return self._file if self._whole is None else self._whole._file

    def part(self, name: str) -> "SavedEnergies":
        """Give those of other images, kept in the same file in a namespace of this name.

        >>> saved = SavedEnergies()
        >>> saved.part("validation").save(5, [Energies(images=torch.ones(3))])
        >>> list(saved), list(saved.part("validation"))
        ([], [5])
        """
        return SavedEnergies(whole=self, name=name)

    def chunks(self, epoch: int) -> Iterator[Energies]:
        """Yield an epoch's energies, at least CHUNK images at a time, in the images' order."""
        for _, members in sorted(self._epochs[epoch].items()):
            yield self._read(members)

    def rows(self, epoch: int, which: list[int]) -> Energies:
        """Read those of a few images, in the order of their numbers as given."""
        found: dict[int, Energies] = {}
        start = 0
        for chunk in self.chunks(epoch):
            here = [i for i in which if start <= i < start + len(chunk)]
            found |= {i: chunk.rows([i - start]) for i in here}
            start += len(chunk)
        return Energies.join([found[i] for i in which])

    def save(self, epoch: int, parts: Iterable[Energies]) -> None:
        """Append an epoch's energies, given part by part in the images' order."""
        held: list[Energies] = []
        start = 0
        for part in parts:
            held.append(part)
            if sum(map(len, held)) >= CHUNK:
                start += self._write(epoch, start, Energies.join(held))
                held = []
        if held:
            self._write(epoch, start, Energies.join(held))

    def save_reference(self, epoch: int, name: str, reference: Reference) -> None:
        """Append the tables of good images at an epoch, one set a tap."""
        for i, tap in enumerate(reference):
            for part, array in (("moments", tap.moments), ("tables", tap.tables)):
                self.write(f"reference/{epoch}/{name}/{i}-{part}", array.numpy())
            self.write(f"reference/{epoch}/{name}/{i}-count", np.array(tap.count))

    def reference(self, epoch: int, name: str) -> Reference | None:
        """Read the tables of good images at an epoch; None where there are none."""
        before = f"reference/{epoch}/{name}/"
        has = sum(m.startswith(before) and "-count" in m for m in self._zip.namelist())
        read = [
            [self.read(f"{before}{i}-{part}.npy") for part in ("count", "moments", "tables")]
            for i in range(has)
        ]
        return [
            TapReference(int(n), torch.from_numpy(m), torch.from_numpy(t)) for n, m, t in read
        ] or None

    def save_boxes(self, boxes: Boxes) -> None:
        """Append where each input shows its image, if not everywhere."""
        if boxes is not None:
            self.write(f"{self._below}boxes", np.array(boxes, np.int32))

    @property
    def boxes(self) -> Boxes:
        """Read where each input shows its image; None: everywhere."""
        if (member := f"{self._below}boxes.npy") not in self._zip.namelist():
            return None
        return [Box(*row) for row in self.read(member).tolist()]

    def save_photos(self, photos: Photos | None) -> None:
        """Append whose tiles the images are, if they are any."""
        if photos is not None:
            self.write("photos", np.array(json.dumps(photos)))

    @property
    def photos(self) -> Photos | None:
        """Read whose tiles the test images are; None: they are photos themselves."""
        if self._below or "photos.npy" not in self._zip.namelist():
            return None
        sizes, tile, overlap, image_size = json.loads(str(self.read("photos.npy")))
        size = image_size if isinstance(image_size, int) else tuple(image_size)
        return Photos([tuple(s) for s in sizes], tile, overlap, size)

    def write(self, name: str, array: NDArray[Any]) -> None:
        """Append an array."""
        with self._zip.open(f"{name}.npy", "w", force_zip64=True) as file:
            npy.write_array(file, array, allow_pickle=False)

    def read(self, member: str) -> NDArray[Any]:
        """Read an array, checked against the zip's checksum."""
        return read_array(self._zip, member)

    def is_sound(self) -> bool:
        """Read all of it, a little at a time, and tell whether every checksum is right."""
        return self._zip.testzip() is None

    def members(self) -> list[ZipInfo]:
        """List the arrays, of every kind, in the order in which they were written."""
        return self._zip.infolist()

    def settle(self) -> None:
        """Let all that was written be on the disk, though the file is not finished."""
        if (file := self._zip.fp) is not None:
            file.flush()
            os.fsync(file.fileno())

    def append(self, name: str, content: bytes) -> None:
        """Append an array as another such file holds it."""
        with self._zip.open(name, "w", force_zip64=True) as file:
            file.write(content)
        self._note(name)

    def fits(self, images: int | None) -> bool:
        """Tell whether every epoch has finite energies of so many images, shaped alike.

        Args:
            images: how many; None: as many as the first epoch has.
        """
        shapes = set()
        for epoch in self:
            count = 0
            for chunk in self.chunks(epoch):
                if not chunk.isfinite():
                    return False
                count += len(chunk)
                maps = tuple((e.shape[1:], j.shape[1:]) for e, j in chunk.taps)
            shapes.add((count, maps))
        counts = {count for count, _ in shapes}
        if self.boxes is not None:
            counts.add(len(self.boxes))
        return len(shapes) == len(counts) == 1 and images in (None, *counts)

    def close(self) -> None:
        """Finish the file: nothing can be appended or read any more."""
        self._zip.close()

    def reopen(self, file: Path) -> None:
        """Read from a finished file what was written."""
        self.close()
        self._file = _Zip(file)

    def _note(self, member: str) -> None:
        """Remember an array of an epoch, if it is of these images."""
        epoch, *start = member.removeprefix(self._below).split("/")[:-1] or [""]
        if not member.startswith(self._below) or not epoch.isdecimal():
            return
        chunks = self._epochs.setdefault(int(epoch), {})
        chunks.setdefault(int(start[0]) if start else 0, []).append(member)

    def _write(self, epoch: int, start: int, energies: Energies) -> int:
        arrays = {
            f"{name}-{i}": tensor
            for i, tap in enumerate(energies.taps)
            for name, tensor in zip(("energy", "log_det"), tap, strict=True)
        }
        if energies.images is not None:
            arrays["images"] = energies.images
        for name, tensor in arrays.items():
            self.write(f"{self._below}{epoch}/{start}/{name}", tensor.numpy())
            self._note(f"{self._below}{epoch}/{start}/{name}.npy")
        return len(energies)

    def _read(self, members: list[str]) -> Energies:
        has = {m.rpartition("/")[2].removesuffix(".npy"): m for m in members}
        read = {name: torch.from_numpy(self.read(member)) for name, member in has.items()}
        taps = sum(name.startswith("energy-") for name in has)
        return Energies(
            [(read[f"energy-{i}"], read[f"log_det-{i}"]) for i in range(taps)], read.get("images")
        )
