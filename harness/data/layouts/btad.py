"""BeanTech Anomaly Detection (Mishra et al. 2021): categories 01, 02 and 03.

The MVTec AD layout with other names: ``<category>/train/ok``, ``test/ok``, ``test/ko`` and
``ground_truth/ko/<image's name>``; images and masks are ``.bmp`` or ``.png``, and a mask's suffix
need not be its image's.
"""

from harness.data.layouts.mvtec_ad import MvtecAd


class Btad(MvtecAd):
    """Read a folder of BTAD, of all categories or of one; see :class:`MvtecAd`."""

    layout = "btad"
    good = "ok"
