"""A backbone that is loaded once for all tests of cached features."""

import pytest
from tiny import SPEC

from harness.features.extractor import Extractor


@pytest.fixture(scope="session")
def loaded():
    return Extractor.load(SPEC)
