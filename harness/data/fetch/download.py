"""A download that goes on where the last one ended, checked before it counts.

pooch keeps the file and checks it; the downloader is ours, because pooch begins anew where a
connection broke.
"""

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pooch
import requests
import urllib3

import harness
from harness.errors import InputError
from harness.files import write_whole
from harness.progress import progress

CONNECT, SILENCE = 10.0, 30.0  # seconds to wait for a connection, and for more of the file
SLOWEST = 1024  # bytes a second, over SILENCE, below which a server counts as hanging
_ABOUT = ("url", "total", "version")  # of a part: the address, its bytes, for If-Range
_MIB = 2**20


def download(
    urls: Sequence[str], path: Path, digest: str, *, most: int, say: Callable[[str], None]
) -> str | None:
    """Put a file in place, from the first address that has it.

    Args:
        urls: its addresses, tried in this order; they share what was downloaded so far.
        path: where it will be; what there is of it grows beside, as ``<name>.part``.
        digest: its own, ``sha256:…`` or ``md5:…``.
        most: the bytes at which an answer counts as endless.
        say: is given a line for each download.

    Returns:
        The address it came from; None if it was there.

    Raises:
        InputError: no address had it.
        OSError: it could not be written.
    """
    pooch.get_logger().setLevel("WARNING")
    resume = _Resume(path.with_name(f"{path.name}.part"), most=most, say=say)
    reasons = []
    for url in urls:
        try:
            pooch.retrieve(url, digest, path.name, path.parent, downloader=resume)
        except (_Broken, requests.RequestException, urllib3.exceptions.HTTPError) as error:
            reasons.append(f"{shown(url)}: {_reason(error)}")
        except ValueError as error:  # pooch's: the hashes expected and found
            reasons.append(f"{shown(url)}: {str(error).partition('. ')[0]}")
        else:
            resume.forget()
            return resume.origin
    kept = resume.part.stat().st_size if resume.part.exists() else 0
    goes_on = f"; {kept} bytes are kept, and the same command goes on there" if kept else ""
    raise InputError(
        f"{path.name} could not be downloaded: {'; '.join(reasons)}{goes_on}; expected a "
        f"network, a --mirror that has it, or the file in {path.parent}"
    )


class _Broken(Exception):
    """Why a download was given up."""


class _Resume:
    """A downloader for pooch that keeps what it got and asks only for the rest.

    Args:
        part: the file that grows; ``<part>.json`` says of what.
        most: the bytes at which a server's answer counts as endless.
        say: is given a line for each download.
    """

    def __init__(self, part: Path, *, most: int, say: Callable[[str], None]) -> None:
        self.part, self.most, self.say = part, most, say
        self.about = part.with_name(f"{part.name}.json")
        self.origin: str | None = None

    def __call__(self, url: str, output_file: str, _: object) -> None:
        """Download ``url`` to ``output_file``, which pooch then checks and renames."""
        kept, about = self._kept()
        self.origin = about["url"]
        if not kept or kept != about["total"]:
            self.origin = shown(url)
            for start in dict.fromkeys((kept, 0)):
                with self._ask(url, start, about) as reply:
                    if start and _is_other(reply, start, about["total"]):
                        continue
                    reply.raise_for_status()
                    self._receive(reply, start if reply.status_code == 206 else 0)
                    break
        self.part.replace(output_file)
        self.forget()

    def _kept(self) -> tuple[int, dict[str, Any]]:
        try:
            about = json.loads(self.about.read_text(encoding="utf-8"))
            return self.part.stat().st_size, {key: about[key] for key in _ABOUT}
        except (OSError, ValueError, TypeError, LookupError):
            return 0, dict.fromkeys(_ABOUT)

    def forget(self) -> None:
        """Remove what was downloaded so far."""
        self.part.unlink(missing_ok=True)
        self.about.unlink(missing_ok=True)

    def _ask(self, url: str, start: int, about: dict[str, Any]) -> requests.Response:
        headers = {
            "User-Agent": f"fastflow-harness/{harness.__version__}",
            "Accept-Encoding": "identity",  # the bytes that the digest is of
        }
        if start:
            headers["Range"] = f"bytes={start}-"
            if about["version"] and about["url"] == shown(url):
                headers["If-Range"] = about["version"]
        return requests.get(url, headers=headers, stream=True, timeout=(CONNECT, SILENCE))

    def _receive(self, reply: requests.Response, start: int) -> None:
        length = reply.headers.get("Content-Length", "")
        total = start + int(length) if length.isdecimal() else None
        if (total or 0) > self.most:
            raise _Broken(f"offers {total} bytes; expected at most {self.most}")
        if reply.headers.get("Content-Type", "").startswith("text/html"):
            raise _Broken("a web page is there, not the file")
        tag = reply.headers.get("ETag", "")
        version = tag if tag.startswith('"') else reply.headers.get("Last-Modified")
        if not start:
            self.forget()
        about = dict(zip(_ABOUT, (self.origin, total, version), strict=True))
        write_whole(self.about, json.dumps(about))
        size = f"{total / _MIB:.1f} MiB" if total is not None else "of unknown size"
        self.say(f"{self.origin}: {size}" + (f", from byte {start} on" if start else ""))
        got = start
        with (
            self.part.open("ab" if start else "wb") as file,
            progress(self.part.stem, total and total / _MIB, unit="MiB") as bar,
        ):
            bar.advance(start / _MIB)
            for block in _blocks(reply):
                file.write(block)
                bar.advance(len(block) / _MIB)
                got += len(block)
                if got > self.most:
                    break
        if got > self.most:
            self.forget()
            raise _Broken(f"does not end; expected at most {self.most} bytes")
        if total is not None and got < total:
            raise _Broken(f"the connection ended after {got} of {total} bytes")


def _blocks(reply: requests.Response) -> Iterator[bytes]:
    """The body as it comes in; gives up on a server that trickles."""
    since, got = time.monotonic(), 0
    while block := reply.raw.read1(_MIB, decode_content=False):
        yield block
        got += len(block)
        spent = time.monotonic() - since
        if spent > SILENCE:
            if got < SLOWEST * spent:
                raise _Broken(f"less than {SLOWEST} bytes a second for {spent:.0f} s")
            since, got = time.monotonic(), 0


def _is_other(reply: requests.Response, start: int, total: int | None) -> bool:
    """Whether a server has, in place of the rest asked for, another file or none."""
    there = f"bytes {start}-.*/{total}"
    matches = re.fullmatch(there, reply.headers.get("Content-Range", "")) is not None
    return reply.status_code == 416 or (reply.status_code == 206 and not matches)


def _reason(error: Exception) -> str:
    if isinstance(error, _Broken):
        return str(error)
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answered {error.response.status_code}"
    if isinstance(error, requests.ConnectTimeout):
        return f"no connection within {CONNECT:g} s"
    if isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError)):
        return f"no answer within {SILENCE:g} s"
    if isinstance(error, requests.exceptions.SSLError):
        return "the server's certificate was refused"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    if isinstance(error, urllib3.exceptions.HTTPError):
        return "the connection broke"
    return type(error).__name__


def shown(url: str) -> str:
    """Write an address without what may be secret in it."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
