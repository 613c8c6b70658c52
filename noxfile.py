"""The front door: ``nox -s ablations`` runs the embedded study, ``nox -s tests`` the tests."""

import re
import shutil
from pathlib import Path

import nox
from nox.command import CommandFailed

nox.needs_version = ">=2025.10.14"  # download_python
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["lint", "types", "tests"]
nox.options.error_on_missing_interpreters = False  # even where CI is set: pythons skips them
nox.options.download_python = "never"
PINS = ("constraints.txt", "constraints-peers.txt")
PYTHONS = ["3.11", "3.12", "3.13"]
MINUTES = "not whole and not long and not site and not cluster"  # the tests of minutes in all


def install(session: nox.Session) -> None:
    """What constraints.txt pins by hash, then this checkout without looking further."""
    session.install("--require-hashes", "--requirement", "constraints.txt")
    session.install("--no-deps", "--editable", ".")


@nox.session(default=False)
def ablations(session: nox.Session) -> None:
    """Run a study (default: surfaces, embedded) and write its report: -- [STUDY] [options]."""
    install(session)
    arguments = list(session.posargs)
    if not arguments or arguments[0].startswith("-"):
        arguments.insert(0, "surfaces")
    session.run("harness", "run", *arguments, "--report")


def install_peers(session: nox.Session) -> None:
    """The same, with what the extra ``peers`` adds."""
    files = ("--requirement", "constraints.txt", "--requirement", "constraints-peers.txt")
    session.install("--require-hashes", *files)
    session.install("--no-deps", "--editable", ".")


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Measure beside the peers and write docs/benchmarks.md: -- [PART ...] [options]."""
    install_peers(session)
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session(default=False)
def parity(session: nox.Session) -> None:
    """Hold the compared methods to anomalib's on the same features: -- [pytest options]."""
    install_peers(session)
    files = map(str, sorted(Path("tests").rglob("test_parity_*.py")))
    session.run("pytest", "-s", *files, *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests of minutes in all: -- [pytest options], as --cov for coverage of harness/."""
    install(session)
    session.run("pytest", "-n", "auto", "-m", MINUTES, "--durations=20", *session.posargs)


@nox.session(default=False)
def whole(session: nox.Session) -> None:
    """Run the tests that start the harness from command to records: -- [pytest options]."""
    install(session)
    session.run("pytest", "-n", "auto", "-m", "whole and not long", "tests", *session.posargs)


@nox.session(default=False)
def long(session: nox.Session) -> None:
    """Run the tests that take minutes, in the environment of `tests`: -- [pytest options]."""
    install(session)
    session.run("pytest", "-n", "auto", "-m", "long", *session.posargs)


@nox.session(default=False)
def ray(session: nox.Session) -> None:
    """Run the tests that start a Ray cluster, with the extra ray: -- [pytest options]."""
    install(session)
    session.install("ray")  # what it needs beside is pinned, or else its own
    session.run("pytest", "-m", "cluster", "tests/run/executors", *session.posargs)


@nox.session(default=False)
def site(session: nox.Session) -> None:
    """Look at the reports in a browser (Debian's chromium): -- [pytest options]."""
    install(session)
    session.run("pytest", "-m", "site", "tests/report/test_browser.py", *session.posargs)


@nox.session(default=False, python=PYTHONS)
def pythons(session: nox.Session) -> None:
    """Run the same tests on each Python of PYTHONS that is here: -- [pytest options]."""
    install(session)
    session.run("pytest", "-n", "auto", "-m", MINUTES, *session.posargs)


@nox.session(default=False)
def faults(session: nox.Session) -> None:
    """Disturb real starts in every way and write docs/reliability.md's table: -- [KIND ...]."""
    install(session)
    session.run("python", "-m", "faults", *session.posargs, env={"PYTHONPATH": "tests"})


@nox.session
def types(session: nox.Session) -> None:
    """Check the types."""
    install(session)
    session.run("mypy", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format, of the notebooks too, and that dependencies are declared."""
    install(session)
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check")
    session.run("deptry", "harness")


@nox.session(default=False)
def audit(session: nox.Session) -> None:
    """Ask whether a pinned version has a known weakness (needs the network): -- [pip-audit's]."""
    session.install("pip-audit")
    pins = [word for file in PINS for word in ("--requirement", file)]
    # Strict: a package of which the index has no answer is none that was found to be sound.
    options = ("--strict", "--disable-pip", "--require-hashes", "--no-deps")
    try:
        session.run("pip-audit", *pins, *options, "--progress-spinner=off", *session.posargs)
    except CommandFailed:
        session.error(
            "audit: expected no known weakness; what pip-audit says above is either one, which "
            "`nox -s update` may mend, or that it got no answer: it asks the package index"
        )


@nox.session(default=False)
def notebooks(session: nox.Session) -> None:
    """Execute every notebook on whatever is recorded: -- [STUDY] [options]."""
    install(session)
    session.run("harness", "report", *session.posargs)


@nox.session(default=False)
def findings(session: nox.Session) -> None:
    """Write docs/findings.md anew from its template and the records of results/reference."""
    install(session)
    files = ("docs/findings.md", "docs/findings.in", "results/reference")
    session.run("python", "-m", "harness.paper.findings", *files)


# Of the embedded study, what is trained anew for the regression check: both couplings and both
# forms of the affine, on every category with every seed.
REGRESSION = ("base", "coupling=two-sided", "actnorm=affine")
FRESH = Path("results/fresh")


@nox.session(default=False)
def gap(session: nox.Session) -> None:
    """Train a part of the embedded study anew and judge it: -- [options of harness gap]."""
    install(session)
    if session.posargs:  # judge other records
        session.run("harness", "gap", *session.posargs)
        return
    shutil.rmtree(FRESH / "runs", ignore_errors=True)  # features may stay: they are no result
    chosen = [word for name in REGRESSION for word in ("--variant", name)]
    session.run("harness", "run", "surfaces", *chosen, "--results", str(FRESH))
    session.run("harness", "gap", *chosen, "--results", str(FRESH))


@nox.session(default=False)
def update(session: nox.Session) -> None:
    """Resolve the dependencies anew: versions and hashes, of the peers only what they add."""
    session.install("uv")
    options = ["--group", "dev", "--group", "lint", "--universal", "--generate-hashes"]
    options += ["--upgrade", "--no-annotate", "--no-header", *session.posargs]
    ours, peers = Path("constraints.txt"), Path("constraints-peers.txt")
    compile_ = ("uv", "pip", "compile", "pyproject.toml", *options)
    session.run(*compile_, "--output-file", str(ours))
    more = ("--extra", "peers", "--constraints", str(ours), "--output-file", str(peers))
    session.run(*compile_, *more)
    known = set(_pins(ours))
    peers.write_text("".join(f"{pin}\n" for pin in _pins(peers) if pin not in known))


def _pins(file: Path) -> list[str]:
    """Each package's line with the lines of its hashes."""
    return re.findall(r"^\S.*(?:\n    .*)*", file.read_text(), re.MULTILINE)
