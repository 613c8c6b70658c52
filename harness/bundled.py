"""Files that come with the harness: the ledger, the baseline, the notebooks."""

from pathlib import Path

import harness
from harness.errors import InputError


def bundled(*parts: str) -> Path:
    """Find a file or folder in the checkout, or in the installed package.

    Raises:
        InputError: it is in neither.

    >>> bundled("results", "paper").is_dir()
    True
    """
    package = Path(harness.__file__).parent
    for root in (package.parent, package):
        if (path := root.joinpath(*parts)).exists():
            return path
    raise InputError(f"expected {'/'.join(parts)} beside the harness; found none; install it anew")
