"""Who does what where several starts of the harness work in one folder, and what the dead left.

A claim is a file ``claims/<work>.<generation>.claim`` that names its holder's token. It is made
exclusively: of many that try, one has it. Whoever finds its holder dead makes the next generation,
exclusively again; the highest one counts. After a claim is won one looks again whether the work is
done, as it may have been meanwhile. docs/reliability.md says what that asks of the file system.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from errno import ESTALE
from hashlib import sha256
from pathlib import Path
from typing import Self

import msgspec

from harness.errors import InputError, RunFailed, see_that_it_is_damage
from harness.files import TEMPORARY, create, is_needed, matching, remove, write_whole
from harness.heartbeat import Heartbeats, Holder

PAUSE = 0.5  # seconds between two looks of who waits
OLD = 3600.0  # seconds, after which what was written by nobody known is left over

# Where starts leave temporary files, below a folder of results and one of features.
RESULTS = (
    *("runs/*/*/*/.*.tmp", "runs/*/*/*/*.checkpoint-*.npz"),
    *("reports/.*.tmp", "claims/.*.tmp", "cache/.gpu-memory.*.tmp"),
)
FEATURES = ("*.tmp", ".*.tmp", "*/.*.tmp", "claims/.*.tmp")


class _Said(msgspec.Struct):
    """The content of a claim."""

    work: str
    token: str
    looked_again: bool = False  # whether what it took over was still so once it was made


@dataclass(frozen=True)
class Claim:
    """Hold a piece of work, as long as nobody took it over.

    >>> Claim(Path("nowhere/0a.0.claim"), "w", "0123456789abcdef").is_held()
    False
    """

    file: Path
    work: str
    token: str
    looked_again: bool = False  # whether what it took over was still so once it was made

    def is_held(self) -> bool:
        """Tell whether it still counts; a start that stood still may have lost it.

        A higher generation counts once its maker has looked again: until then it may withdraw.

        Raises:
            InputError, RunFailed: it cannot be read, which says nothing of who holds it.
        """
        folder, (key, number, _) = self.file.parent, self.file.name.split(".")
        above = (n for n in _generations(folder, key) if n > int(number))
        taken = any(_read(folder / f"{key}.{n}.claim").looked_again for n in above)
        return _read(self.file).token == self.token and not taken

    def check(self) -> None:
        """See that no other start took the work over, before anything of it is written.

        Raises:
            TakenOver: one did, or the claim's folder is not seen any more.
            InputError: it cannot be read, which is no failure of the work: what there is stays.
        """
        try:
            held = self.is_held()
        except RunFailed as error:  # which would be taken for the work's own
            raise InputError(str(error)) from None
        if not held:
            raise TakenOver(
                "another start took this work over, as this one stood still; what was made of it "
                "here is dropped"
            )


class TakenOver(RunFailed):
    """Say that another start does what this one began; nothing that lies there is this one's.

    >>> issubclass(TakenOver, RunFailed)
    True
    """


class Claims:
    """Share work in a folder with other starts of the harness.

    Inside ``with`` this start is known to live; at the end its claims are given back. At both ends
    what dead starts left there is removed.

    Args:
        folder: whose ``claims/`` holds claims and signs of life.
        leftovers: patterns, below the folder, of what killed starts leave.
        token: of this start.
        clock: seconds, of this machine alone.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder, Claims(Path(folder)) as claims:
    ...     other = Claims(Path(folder), token="0123456789abcdef")
    ...     claim = claims.take("a training")
    ...     claim is not None, other.take("a training")
    (True, None)
    """

    def __init__(
        self,
        folder: Path,
        leftovers: Sequence[str] = (),
        *,
        token: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.root, self.leftovers = folder, leftovers
        self.folder = folder / "claims"
        self.signs = Heartbeats(self.folder, token, clock)
        self.token = self.signs.token
        self._held: list[Claim] = []

    def __enter__(self) -> Self:
        """Begin to be known."""
        self.signs.begin()
        try:
            self.clean()
        except BaseException:
            self.signs.end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Give back what is held."""
        # What ends the start has been said, or the folder is gone.
        with suppress(OSError, RunFailed, InputError):
            for claim in list(self._held):
                self.release(claim)
            for mark in matching(self.folder, f"*.{self.token}.use"):
                mark.unlink(missing_ok=True)
            self.clean()
        self.signs.end()

    def take(self, work: str) -> Claim | None:
        """Claim a piece of work; None while a start that lives holds it, this one too.

        Look after that whether the work is done already.

        Raises:
            InputError: another user's claim on it that this one may not read.
        """
        key = _key(work)
        numbers = _generations(self.folder, key)
        before = self._file(key, numbers[-1]) if numbers else None
        was = _read(before) if before else None
        if was and not self.signs.is_dead(was.token):
            return None
        number = numbers[-1] + 1 if numbers else 0
        claim = Claim(self._file(key, number), work, self.token)
        if not create(claim.file, msgspec.json.encode(_Said(work, self.token))):
            return None
        # A slow one may have decided on what was given back since: what it saw has to be so still.
        above = _generations(self.folder, key)[-1:] != [number]
        if above or (before and (_read(before) != was or not before.exists())):
            claim.file.unlink(missing_ok=True)
            return None
        if before:
            write_whole(claim.file, msgspec.json.encode(_Said(work, self.token, True)))
        self._held.append(claim)
        return claim

    def release(self, claim: Claim) -> None:
        """Give a claim back, and remove those of the dead below it; never another's."""
        if claim not in self._held:
            return
        self._held.remove(claim)
        if claim.is_held():
            key = _key(claim.work)
            for number in _generations(self.folder, key)[:-1]:  # upwards: see `take`
                self._file(key, number).unlink(missing_ok=True)
        if _read(claim.file).token == claim.token:
            claim.file.unlink(missing_ok=True)

    def each(
        self, works: Iterable[str], waiting: Callable[[str, Holder | None], object]
    ) -> Iterator[str]:
        """Yield every piece of work while it is held: first what is free, then what becomes so.

        What was taken over meanwhile, as this start stood still, is yielded again when the other
        is done with it.

        Args:
            works: their names.
            waiting: is told of one that is waited for, and of who holds it.
        """
        left = list(works)
        while left:
            for work in list(left):
                if claim := self.take(work):
                    left.remove(work)
                    try:
                        yield work
                        if not claim.is_held():
                            left.append(work)
                    finally:
                        self.release(claim)
            if left:
                waiting(left[0], self.holder(left[0]))
                time.sleep(PAUSE)

    def holder(self, work: str) -> Holder | None:
        """Read who holds a piece of work; None: nobody, or nobody that says more."""
        key = _key(work)
        numbers = _generations(self.folder, key)
        return self.signs.read(_read(self._file(key, numbers[-1])).token) if numbers else None

    def taken(self) -> set[str]:
        """List the pieces of work that others hold, as far as is known: an unclaimed one is free.

        That reads the folder once, whatever the number of pieces.
        """
        highest: dict[str, Path] = {}
        for file in sorted(matching(self.folder, "*.claim"), key=_number):
            highest[file.name.split(".")[0]] = file
        found = _readable(highest.values())
        return {said.work for said in found if not self.signs.is_dead(said.token)}

    def alone(self) -> bool:
        """Tell whether no other start is known to be at work in the folder."""
        others = (token for token in self.signs.tokens() if token != self.token)
        return all(self.signs.is_dead(token) for token in others)

    @contextmanager
    def still(self, work: str) -> Iterator[None]:
        """Check a claim at the end, and where it fails inside, as what is written goes with it."""
        try:
            yield
        except (OSError, RunFailed, InputError):
            self.check(work)
            raise
        self.check(work)

    def check(self, work: str) -> None:
        """See that nobody took over a piece of work, if this start holds it.

        Raises:
            TakenOver: somebody did, as this start stood still.
        """
        for claim in self._held:
            if claim.work == work:
                claim.check()

    @contextmanager
    def using(self, names: Iterable[str]) -> Iterator[None]:
        """Mark things of the folder as in use, so that nobody removes them."""
        marks = [self.folder / f"{name}.{self.token}.use" for name in names]
        for mark in marks:
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
        try:
            yield
        finally:
            for mark in marks:
                mark.unlink(missing_ok=True)

    def users(self, name: str) -> list[str]:
        """List the tokens of the starts that live and use a thing; this one may be among them."""
        tokens = (p.name.split(".")[-2] for p in matching(self.folder, f"{name}.*.use"))
        return [token for token in tokens if not self.signs.is_dead(token)]

    def clean(self) -> int:
        """Remove what dead starts left: files half written, marks and claims; returns how many.

        Energies that a checkpoint names stay, for whoever takes that training up.

        A temporary file whose start is unknown, of a command that needs no claims or of an older
        version, is left over when it is an hour older than this start's sign, both by the clock
        of the file system.
        """
        tokens = self.signs.tokens()
        dead = {token for token in tokens if self.signs.is_dead(token)} | self.signs.unborn()
        # Claims first: by them one that lives after all sees that what it wrote is gone.
        removed = sum(map(self._forget, dead))
        for pattern in self.leftovers:
            for path in matching(self.root, pattern):
                named = TEMPORARY.search(path.name)
                token = named[1] if named else ""
                left = token in dead or (token not in tokens and self._is_old(path))
                if left and not is_needed(path):
                    removed += remove(path)
        for token in dead:  # last: a start that is killed meanwhile leaves it to the next
            remove(self.signs.file(token))
        return removed

    def _forget(self, token: str) -> int:
        """Remove a dead start's marks and claims; returns how many files."""
        marks = matching(self.folder, f"*.{token}.use")
        claims = _readable(matching(self.folder, "*.claim"))
        held = [said for said in claims if said.token == token]
        for said in held:
            if claim := self.take(said.work):
                self.release(claim)
        return sum(map(remove, marks)) + len(held)

    def _is_old(self, path: Path) -> bool:
        with suppress(OSError):
            inside = [path, *path.iterdir()] if path.is_dir() else [path]
            newest = max(p.stat().st_mtime for p in inside)
            return self.signs.file(self.token).stat().st_mtime - newest > OLD
        return False

    def _file(self, key: str, number: int) -> Path:
        return self.folder / f"{key}.{number}.claim"


def _key(work: str) -> str:
    """A name for a file: a category may be called anything."""
    return sha256(work.encode(errors="surrogateescape")).hexdigest()[:24]


def _number(file: Path) -> int:
    number = file.name.split(".")[1]
    return int(number) if number.isdecimal() else -1


def _generations(folder: Path, key: str) -> list[int]:
    return sorted(_number(file) for file in matching(folder, f"{key}.*.claim"))


def _read(file: Path) -> _Said:
    """What a claim says; of one that is damaged or gone, that nobody known holds nothing known."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=_Said)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        if getattr(error, "errno", None) != ESTALE:  # removed by another machine
            see_that_it_is_damage(file, error)
        return _Said("", file.name)


def _readable(files: Iterable[Path]) -> Iterator[_Said]:
    """What claims say, those of other users left out that cannot be read."""
    for file in files:
        with suppress(InputError):
            yield _read(file)
