"""FastFlow ablations that can be reproduced: variants, runs, records, tables.

A variant is a value, a run is a function of it, a record is all that remains, and every
table is a query over records. A trained detector is a by-product of a run.

>>> import harness
>>> harness.Detector.__name__, harness.fit.__name__
('Detector', 'fit')
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.detect.detector import Detector
    from harness.detect.fit import fit

__all__ = ["Detector", "fit"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Import what is asked for; most commands need no torch."""
    if name == "Detector":
        from harness.detect.detector import Detector

        return Detector
    if name == "fit":
        from harness.detect.fit import fit

        return fit
    raise AttributeError(f"module 'harness' has no attribute '{name}'")
