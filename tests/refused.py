"""A system that does not let a file be read; a superuser, as tests may be, has every right."""

import io
import os

REASONS = ("EACCES", "EIO", "EMFILE")


def refuse(monkeypatch, path, number):
    """Let whoever opens a file meet this error of the system instead."""
    real = io.open

    def opened(file, *args, **kwargs):
        if not isinstance(file, int) and os.fspath(file) == str(path):
            raise OSError(number, os.strerror(number), str(path))
        return real(file, *args, **kwargs)

    monkeypatch.setattr(io, "open", opened)
