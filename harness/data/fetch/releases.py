"""Where the published data sets can be fetched, under which licence, and their checksums.

The links and SHA-256 values are those that public code states; none was computed here:

- mvtec_ad: MVTec's own share of each category, and digests from a list of all fifteen. Other
  repositories state the same digest for bottle, capsule, carpet, grid, metal_nut, screw,
  toothbrush, transistor and zipper; cable, hazelnut, leather, pill, tile and wood have one source.
- btad, cifar10: the digests that anomalib and Keras check.
"""

from pathlib import Path
from typing import NamedTuple

from harness.errors import InputError, unknown
from harness.files import read_table


class Archive(NamedTuple):
    """Name one file to download.

    Attributes:
        url: where its publisher offers it.
        mib: its size in MiB, rounded.
        digest: ``sha256:…`` or ``md5:…``.
        parts: the folders that it brings.
        inside: the folder of the archive that they lie in.

    >>> RELEASES["btad"].archives[0].name
    'btad.zip'
    """

    url: str
    mib: int
    digest: str
    parts: tuple[str, ...]
    inside: str = ""

    @property
    def name(self) -> str:
        """Give the file's name, at its publisher and below a mirror."""
        return self.url.rpartition("/")[2]


class Release(NamedTuple):
    """Name a data set that can be fetched, and its archives.

    >>> RELEASES["mvtec_ad"].choose(("bottle",))
    ('bottle',)
    """

    name: str
    title: str
    page: str
    licence: str
    archives: tuple[Archive, ...]

    @property
    def parts(self) -> tuple[str, ...]:
        """List the folders of all its archives."""
        return tuple(part for archive in self.archives for part in archive.parts)

    def choose(self, categories: tuple[str, ...]) -> tuple[str, ...]:
        """List the folders of ``categories``; all if none is named.

        Raises:
            InputError: there is no such category, or the data set comes as a whole.
        """
        if categories and len(self.parts) == 1:
            raise InputError(f"--category: {self.name} comes as a whole; leave the option out")
        for category in categories:
            if category not in self.parts:
                raise unknown("category", category, self.parts)
        return tuple(p for p in self.parts if not categories or p in categories)


def get_release(name: str) -> Release:
    """Find the release of a data set.

    Raises:
        InputError: there is none of that name.
    """
    if name not in RELEASES:
        raise unknown("data set", name, RELEASES)
    return RELEASES[name]


def _archives(dataset: str) -> tuple[Archive, ...]:
    columns = ("dataset", "parts", "mib", "digest", "url", "inside")
    rows = read_table(Path(__file__).with_name("archives.csv"), columns).values()
    return tuple(
        Archive(r["url"], int(r["mib"]), r["digest"], tuple(r["parts"].split()), r["inside"])
        for r in rows
        if r["dataset"] == dataset
    )


RELEASES = {
    release.name: release
    for release in (
        Release(
            "mvtec_ad",
            "MVTec AD (Bergmann, Fauser, Sattlegger, Steger 2019; MVTec Software GmbH)",
            "https://www.mvtec.com/company/research/datasets/mvtec-ad",
            "CC BY-NC-SA 4.0, https://creativecommons.org/licenses/by-nc-sa/4.0/ (attribution, "
            "no commercial use, share alike)",
            _archives("mvtec_ad"),
        ),
        Release(
            "btad",
            "BTAD, beanTech Anomaly Detection (Mishra, Verk, Fornasier, Piciarelli, Foresti 2021)",
            "https://avires.dimi.uniud.it/papers/btad/",
            "none comes with the release; anomalib lists it as CC BY-NC-SA 4.0, "
            "https://creativecommons.org/licenses/by-nc-sa/4.0/ (no commercial use, share alike)",
            _archives("btad"),
        ),
        Release(
            "cifar10",
            "CIFAR-10, python version (Krizhevsky 2009)",
            "https://www.cs.toronto.edu/~kriz/cifar.html",
            "none is stated; the authors ask to cite Krizhevsky, Learning Multiple Layers of "
            "Features from Tiny Images, 2009",
            _archives("cifar10"),
        ),
    )
}
