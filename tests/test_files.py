"""Folders that other processes change are listed by the same rules on every Python."""

import errno
import os
from pathlib import Path

import pytest

from harness.files import matching


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.ESTALE, errno.EACCES])
def test_a_folder_that_cannot_be_listed_is_not_an_empty_one(tmp_path, monkeypatch, number):
    """But one that another machine removed, or that another user hides, counts as empty."""

    def refused(folder):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "iterdir", refused)
    if number in (errno.ESTALE, errno.EACCES):
        assert matching(tmp_path, "*") == []
        return
    with pytest.raises(OSError, match=os.strerror(number)):
        matching(tmp_path, "*")


def test_patterns_find_what_pathlib_finds(tmp_path):
    for name in ("a/b/seed-0.json", "a/.hidden/seed-1.json", "a/seed-2.json", "b", ".x.tmp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for pattern in ("*", "*/*", "a/*/seed-*.json", "*/*/seed-?.json", ".*.tmp", "b/*", "a/b", "A"):
        assert set(matching(tmp_path, pattern)) == set(tmp_path.glob(pattern)), pattern
