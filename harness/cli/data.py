"""The commands of ``harness data``. Heavy imports happen inside the commands."""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from harness.cli import options
from harness.cli.options import argument, option
from harness.errors import InputError
from harness.escape import in_shell

MIRROR = "a folder of the same archives, asked first; default: $HARNESS_MIRROR"


@dataclass(frozen=True, kw_only=True)
class Fetch:
    """Hold which data set is fetched, and from where."""

    dataset: str = argument("mvtec_ad, btad or cifar10", metavar="DATASET")
    category: list[str] = option("--category", metavar="NAME")
    data: Path | None = option("--data", "its folder; default: data/DATASET", metavar="DIR")
    mirror: list[str] = option("--mirror", MIRROR, metavar="URL")
    yes: bool = option("--yes", "accept the data set's licence")


def list_releases(options: options.Json) -> int:
    """Print the data sets that can be fetched: size, licence, addresses, checksums."""
    from harness.data.fetch.releases import RELEASES

    if options.json:
        about = {
            name: release._asdict() | {"archives": [a._asdict() for a in release.archives]}
            for name, release in RELEASES.items()
        }
        print(json.dumps(about, indent=1))
        return 0
    for name, release in RELEASES.items():
        print(f"{name}  {sum(a.mib for a in release.archives)} MiB  {release.title}")
        print(f"  {release.page}\n  licence: {release.licence}")
        for archive in release.archives:
            algorithm, _, digest = archive.digest.partition(":")
            checksum = f"{algorithm} {digest[:12]}…"
            print(f"  {', '.join(archive.parts)}: {archive.mib} MiB, {checksum}, {archive.url}")
    return 0


def fetch(options: Fetch) -> int:
    """Fetch what is missing of a data set."""
    from harness.data.fetch.fetch_release import fetch
    from harness.data.fetch.releases import get_release

    folder = options.data or Path("data") / get_release(options.dataset).name
    mirrors = options.mirror or os.environ.get("HARNESS_MIRROR", "").split()
    agree = _show if options.yes else _ask
    fetch(options.dataset, folder, categories=options.category, mirrors=mirrors, agree=agree)
    print(f"next: {in_shell(['harness', 'doctor', '--data', folder])}")
    return 0


def _show(terms: str) -> None:
    print(terms)


def _ask(terms: str) -> None:
    _show(terms)
    if not sys.stdin.isatty():
        raise InputError("--yes: expected, to accept the licence without a terminal to ask on")
    try:
        answer = input("accept this licence and download? [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise InputError("the licence was not accepted; nothing was downloaded")
