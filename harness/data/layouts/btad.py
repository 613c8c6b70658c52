"""BeanTech Anomaly Detection (Mishra et al. 2021): categories 01, 02 and 03.

The MVTec AD layout with other names: ``<category>/train/ok``, ``test/ok``, ``test/ko`` and
``ground_truth/ko/<image's name>``; images and masks are ``.bmp`` or ``.png``, and a mask's suffix
need not be its image's.
"""

from pathlib import Path

from harness.data.layouts.mvtec_ad import MvtecAd
from harness.data.roles import key


class Btad(MvtecAd):
    """Read a folder of BTAD, of all categories or of one; see :class:`MvtecAd`.

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     for name in ("01/train/ok/0.bmp", "01/test/ok/1.bmp"):
    ...         Path(folder, name).parent.mkdir(parents=True, exist_ok=True)
    ...         Path(folder, name).touch()
    ...     Btad(Path(folder)).load("01").counts()
    {'train': 1, 'test': 1, 'defective': 0, 'masks': 0}
    """

    layout = "btad"
    good = "ok"

    @classmethod
    def calls_good(cls, folder: Path) -> bool:
        """Tell whether a folder of training images is called good in this layout."""
        return key(folder.name) == cls.good
