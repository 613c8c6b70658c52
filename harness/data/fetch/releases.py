"""Where the published data sets can be fetched, under which licence, and their checksums.

The links and SHA-256 values are those that public code states; none was computed here:

- mvtec_ad: MVTec's own share of each category, and digests from a list of all fifteen. Other
  repositories state the same digest for bottle, capsule, carpet, grid, metal_nut, screw,
  toothbrush, transistor and zipper; cable, hazelnut, leather, pill, tile and wood have one source.
- btad, cifar10: the digests that anomalib and Keras check.
"""

from typing import NamedTuple

from harness.errors import InputError, unknown


class Archive(NamedTuple):
    """Name one file to download.

    Attributes:
        url: where its publisher offers it.
        mib: its size in MiB, rounded.
        digest: ``sha256:…`` or ``md5:…``.
        parts: the folders that it brings.
        inside: the folder of the archive that they lie in.
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


def _mvtec(category: str, share: str, file: str, mib: int, sha256: str) -> Archive:
    url = f"https://www.mydrive.ch/shares/{share}/download/{file}/{category}.tar.xz"
    return Archive(url, mib, f"sha256:{sha256}", (category,))


_MVTEC_AD = Release(
    "mvtec_ad",
    "MVTec AD (Bergmann, Fauser, Sattlegger, Steger 2019; MVTec Software GmbH)",
    "https://www.mvtec.com/company/research/datasets/mvtec-ad",
    "CC BY-NC-SA 4.0, https://creativecommons.org/licenses/by-nc-sa/4.0/ (attribution, "
    "no commercial use, share alike)",
    (
        _mvtec(
            "bottle", "150452/132a93367fb17cdf968dfb5c4013f6e7", "420937370-1629958698", 148,
            "726512129cb3b1f47d4f6cd7c7fc9170db7fc209132249c788fec06029cb5dc3",
        ),
        _mvtec(
            "cable", "150453/10f960e07fec2838b2cd512586633a32", "420937413-1629958794", 481,
            "1e3d59b80a6a8da5adf32fb0cf311c7b964cde146d6920aef9ca66380999a9cd",
        ),
        _mvtec(
            "capsule", "150454/e0ce6dd74eb150f46c0d98131b3703f2", "420937454-1629958872", 385,
            "f6a41cb11f1589d552888fe9c43a1adcbcae15b70073e19093322f836d00a2b6",
        ),
        _mvtec(
            "carpet", "150455/eac7fbce84d93a5094e13f391170eca4", "420937484-1629959013", 705,
            "d9dd5064515a20bd75cf24d223c570579141abd72388beef892780b74dbaa85d",
        ),
        _mvtec(
            "grid", "150456/bb0b2e3dc804ccb8b4485e01f8e4493b", "420937487-1629959044", 153,
            "d94a9a651cbfaee22c94d06cf8fa8204a590c872362de0489eb34f1645328de8",
        ),
        _mvtec(
            "hazelnut", "150457/51d49f65e84bdc100ff8035d7dd783ea", "420937545-1629959162", 588,
            "a7f4e7d65a60a235def7236a46fcb854d62e6c6917c16b1ec9cb4ff089d3b0da",
        ),
        _mvtec(
            "leather", "150458/923030ce14e10a7d147e95d0f8885f6b", "420937607-1629959262", 500,
            "704ffa48b1dc2fc44824aa50442d9febc399dd92a5d6fd8156f8aa0373d15f24",
        ),
        _mvtec(
            "metal_nut", "150459/c68856a21dca589b0f8ff6d4ee0f18f4", "420937637-1629959294", 157,
            "86e3c8e163ceb19146ad3ddc408e85cc34ae02e0da430e07a73bac6bbb48532a",
        ),
        _mvtec(
            "pill", "150460/d4f1c04da67034ccc8d8b5fa3e73f244", "420938129-1629960351", 262,
            "ac6ce9ec4ec2a5d67c906d82147bd7431980cf00b78f25d63201a5f17e3a2038",
        ),
        _mvtec(
            "screw", "150461/242f454cc6385e5693c4fd4b94567d1e", "420938130-1629960389", 186,
            "0a27a365a21e472d19b9fb48cb8e4002b49fabe083bff7f4c16fa57d78154f10",
        ),
        _mvtec(
            "tile", "150462/5479f0fdc97bc6fa16eab0cb0cf0109f", "420938133-1629960456", 335,
            "392228153b96d0db9f179d3f7c2d63e131e907154883b57309fcbf798643173c",
        ),
        _mvtec(
            "toothbrush", "150463/895a1a5fb84b958f07417784b060434b", "420938134-1629960477", 104,
            "fe72a34b4b0d074f84e844be7ef8c4f64f7f02f20e25f19c9e3b4a231c8bea77",
        ),
        _mvtec(
            "transistor", "150464/99b8ea0332438d64fcc2475ee73f9c29", "420938166-1629960554", 384,
            "146b2166c35a1d0cf37ded091366ac01a50338b4ac704632f1239890eaca4449",
        ),
        _mvtec(
            "wood", "150465/d5b4115b720cdb54d217e75636e6e374", "420938383-1629960649", 474,
            "3757297ac2a266072eb4f25a97f805f5b37fd583492b20bd709f310736c1ea47",
        ),
        _mvtec(
            "zipper", "150466/bd155b557520edaf692d9bfdb915c24a", "420938385-1629960680", 152,
            "7ab46e0e195da145db30052baea3d3a5d14c5f0e710137c968e0423f02cb942d",
        ),
    ),
)  # fmt: skip
_BTAD = Release(
    "btad",
    "BTAD, beanTech Anomaly Detection (Mishra, Verk, Fornasier, Piciarelli, Foresti 2021)",
    "https://avires.dimi.uniud.it/papers/btad/",
    "none comes with the release; anomalib lists it as CC BY-NC-SA 4.0, "
    "https://creativecommons.org/licenses/by-nc-sa/4.0/ (no commercial use, share alike)",
    (
        Archive(
            "https://avires.dimi.uniud.it/papers/btad/btad.zip",
            1172,
            "sha256:461c9387e515bfed41ecaae07c50cf6b10def647b36c9e31d239ab2736b10d2a",
            ("01", "02", "03"),
            inside="BTech_Dataset_transformed",
        ),
    ),
)
_CIFAR10 = Release(
    "cifar10",
    "CIFAR-10, python version (Krizhevsky 2009)",
    "https://www.cs.toronto.edu/~kriz/cifar.html",
    "none is stated; the authors ask to cite Krizhevsky, Learning Multiple Layers of Features "
    "from Tiny Images, 2009",
    (
        Archive(
            "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
            163,
            "sha256:6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
            ("cifar-10-batches-py",),
        ),
    ),
)
RELEASES = {release.name: release for release in (_MVTEC_AD, _BTAD, _CIFAR10)}
