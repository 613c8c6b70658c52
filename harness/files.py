"""Files that are whole or not there, whatever is killed while they are written."""

import os
from pathlib import Path


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that it is seen whole or not at all: write, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(results: Path) -> int:
    """Remove what killed processes were writing below ``results``; returns how many files."""
    leftovers = [p for p in (results / "runs").glob("*/*/*/.*.tmp") if not _writing(p)]
    for path in leftovers:
        path.unlink(missing_ok=True)
    return len(leftovers)


def is_alive(process: int) -> bool:
    """Tell whether a process of this number runs on this machine."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _writing(temporary: Path) -> bool:
    """Whether the process that a temporary file is named after still runs."""
    number = temporary.name.split(".")[-2:-1]
    return bool(number) and number[0].isdecimal() and is_alive(int(number[0]))
