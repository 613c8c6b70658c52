"""Fetching a published data set: its licence, its checksums, and downloads that go on.

Each archive is checked before anything of it is extracted, so that a mirror needs no trust.
``fetched.json`` in the data set's folder says what came from where.
"""

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pooch

from harness.data.fetch.archives import extract
from harness.data.fetch.download import download
from harness.data.fetch.releases import Archive, Release, get_release
from harness.data.folders import expanded
from harness.errors import InputError
from harness.files import write_whole

DOWNLOADS, RECORD = ".downloads", "fetched.json"
_MIB = 2**20


def fetch(
    name: str,
    folder: Path,
    *,
    categories: Sequence[str] = (),
    mirrors: Sequence[str] = (),
    agree: Callable[[str], None],
    say: Callable[[str], None] = print,
) -> None:
    """Fetch what is missing of a data set.

    Args:
        name: a key of ``RELEASES``.
        folder: the data set's folder, as ``--data`` takes it.
        categories: those to fetch; none: all.
        mirrors: addresses of folders with the archives, asked before the publisher.
        agree: is given the licence before the first download; raises if it is not accepted.
        say: is given a line for each step.

    Raises:
        InputError: no such data set or category, nothing that can be downloaded, a wrong
            checksum, a refused archive, or a folder that cannot be written. What was downloaded
            of a file is kept, and the next call goes on from there.
    """
    release, folder = get_release(name), expanded(folder)
    wanted = release.choose(tuple(categories))
    for mirror in mirrors:
        _check(mirror)
    record = _read_record(folder / RECORD)
    missing = [part for part in wanted if not _is_there(folder / part)]
    for part in wanted:
        if part not in missing:
            say(f"{folder / part}: already there")
    archives = [a for a in release.archives if set(a.parts) & set(missing)]
    if not archives:
        return
    if record.get("licence") != release.licence:
        agree(_terms(release, archives))
    with _alone(folder):
        for archive in archives:
            _fetch_archive(release, archive, folder, missing, mirrors, record, say)


def _fetch_archive(
    release: Release,
    archive: Archive,
    folder: Path,
    missing: Sequence[str],
    mirrors: Sequence[str],
    record: dict[str, Any],
    say: Callable[[str], None],
) -> None:
    entry = record.get("archives", {}).get(archive.name, {})
    urls = [*(f"{m.rstrip('/')}/{archive.name}" for m in mirrors), archive.url]
    path = folder / DOWNLOADS / archive.name
    origin = download(urls, path, archive.digest, most=2 * archive.mib * _MIB, say=say)
    say(f"{archive.name}: {archive.digest.partition(':')[0]} as expected; extracting")
    for part in (p for p in archive.parts if p in missing):
        inside = f"{archive.inside}/{part}".strip("/")
        files = extract(path, folder / part, inside=inside, most_bytes=10 * archive.mib * _MIB)
        say(f"{folder / part}: {files} files")
    record |= {"dataset": release.name, "licence": release.licence, "page": release.page}
    record.setdefault("archives", {})[archive.name] = {
        "url": origin or entry.get("url"),
        "sha256": pooch.file_hash(str(path)),
        "checked": True,
    }
    write_whole(folder / RECORD, json.dumps(record, indent=1) + "\n")
    rest = [part for part in archive.parts if not _is_there(folder / part)]
    if rest:
        say(f"{path}: kept for {', '.join(rest)}")
    else:
        path.unlink()


def _terms(release: Release, archives: Sequence[Archive]) -> str:
    mib = sum(archive.mib for archive in archives)
    return (
        f"{release.title}\n{release.page}\nlicence: {release.licence}\n"
        f"to download: {mib} MiB in {len(archives)} archive{'s' * (len(archives) > 1)}"
    )


def _check(mirror: str) -> None:
    try:
        parts = urlsplit(mirror)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        usable = False
    if not usable:
        raise InputError(
            f"--mirror or HARNESS_MIRROR: expected http://… or https://…; got '{mirror}'"
        )


def _is_there(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _read_record(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        {name: str(entry["sha256"]) for name, entry in record["archives"].items()}
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        raise InputError(
            f"{path}: expected what an earlier fetch recorded; it is damaged; remove it"
        ) from None
    return record


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep a second fetch out of the folder; a killed one's lock ends with it."""
    downloads, made = folder / DOWNLOADS, not folder.exists()
    lock = None
    try:
        downloads.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{folder}: another fetch is writing here; wait until it ends"
            ) from None
        for leftover in downloads.glob("tmp*"):  # pooch's, of a killed run
            leftover.unlink()
        yield
    except OSError as error:
        raise InputError(f"--data: {folder} could not be written ({error.strerror})") from None
    finally:
        with suppress(OSError):  # they are not empty
            downloads.rmdir()
            if made:
                folder.rmdir()
        if lock is not None:
            os.close(lock)
