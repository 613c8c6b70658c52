"""How positives rank among negatives: sorted and counted once, in bounded memory.

Every metric here depends only on how many negatives score above each positive, and how many tie
with it. The positives are kept and sorted; the negatives, far more, come in batches, each of which
is sorted, counted against the positives and forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BATCH = 1 << 26  # negatives sorted at a time: 256 MiB of float32
CHUNK = 1 << 20  # positives looked at at a time: bounds each 8-byte temporary to 8 MiB

Values = NDArray[Any]  # any real dtype; never converted, float32 stays float32
Floats = NDArray[np.float64]
Counts = NDArray[Any]  # uint32, or int64 where that is too small
Which = NDArray[Any] | slice  # of the sorted positives


@dataclass(frozen=True)
class Ranking:
    """Count, for every positive, the negatives that score higher.

    Attributes:
        positives: (p,) their scores, ascending.
        above: (p,) negatives above each of them.
        reached: (p,) negatives at or above each of them.
        ranks: (p,) where the positives stand among the sorted, in the order they were given.
        negatives: how many there are.

    >>> ranking = Ranking.of_split(np.array([3.0, 1.0]), np.array([2.0, 1.0, 0.0]))
    >>> ranking.positives.tolist(), ranking.above.tolist(), ranking.reached.tolist()
    ([1.0, 3.0], [1, 0], [2, 0])
    """

    positives: Values
    above: Counts
    reached: Counts
    ranks: Counts
    negatives: int

    @classmethod
    def of(
        cls,
        pairs: Iterable[tuple[Values, Values]],
        again: Callable[[], Iterable[Values]],
        *,
        positives: int,
        negatives: int,
    ) -> Ranking:
        """Rank scores that come in parts.

        Args:
            pairs: positives (a,) and negatives (b,), part by part.
            again: gives the negatives' parts once more; called where they are more than BATCH.
            positives: how many come in all; they go into one array, since thousands of small ones
                kept between large ones that come and go would scatter over the heap.
            negatives: how many come in all.

        Memory: 16 bytes a positive (of float32, below 2³² scores), and BATCH negatives.
        """
        given: Values = np.empty(0)
        filled = 0

        def walk() -> Iterator[Values]:
            nonlocal given, filled
            for some, others in pairs:
                if not filled:
                    given = np.empty(positives, some.dtype)
                given[filled : filled + some.size] = some
                filled += some.size
                yield others

        size = min(BATCH, negatives)
        whole = [batch for batch in _batches(walk(), size) if negatives <= BATCH]  # or all again
        kind = np.uint32 if positives + negatives < 2**32 else np.int64
        ascending = np.sort(given)
        ranks = _ranks(ascending, given, kind)
        given = np.empty(0)
        above, reached = _count(ascending, whole or _batches(again(), size), kind)
        return cls(ascending, above, reached, ranks, negatives)

    @classmethod
    def of_split(cls, positives: Values, negatives: Values) -> Ranking:
        """Rank scores that are at hand, (p,) and (n,)."""
        sizes = {"positives": positives.size, "negatives": negatives.size}
        return cls.of([(positives, negatives)], lambda: [negatives], **sizes)

    @property
    def is_defined(self) -> bool:
        """Tell whether both classes are present."""
        return self.negatives > 0 and self.positives.size > 0

    def parts(self) -> Iterator[slice]:
        """Yield slices of the positives, CHUNK at a time."""
        return _parts(self.positives.size)

    def credit(self, which: Which, limit: float) -> Floats:
        """Compute the area under the ROC curve of single positives, up to a false-positive rate.

        That curve is 0 until the negatives above the positive are reported, rises linearly while
        those tied with it are, and is 1 from there on. The area under the ROC curve of many
        positives, however weighted, is the weighted sum of these areas.

        Args:
            which: k of the sorted positives.
            limit: false-positive rate where the area ends, a fraction in (0, 1].

        Returns:
            (k,) areas divided by the limit, in [0, 1].
        """
        above, reached = self.above[which], self.reached[which]
        end = limit * self.negatives
        start, stop = np.minimum(above, end), np.minimum(reached, end)
        ramp = (stop - start) ** 2 / (2 * np.maximum(reached - above, 1.0))
        area: Floats = (end - stop + ramp) / end
        return area


class Highest:
    """Keep the highest of a stream of numbers, each with how often it came.

    Enough for the false-positive rates up to ``rate`` of positives among them, ties included: of
    ``most`` numbers at most, ``rate · most`` different ones are held.

    Attributes:
        count: the numbers that came.

    >>> highest = Highest(rate=0.5, most=4)
    >>> highest.add(np.array([5.0, 7.0, 7.0, 1.0]))
    >>> highest.values.tolist(), highest.times.tolist(), highest.count
    ([5.0, 7.0], [1.0, 2.0], 4)
    """

    def __init__(self, *, rate: float, most: int) -> None:
        self.count = 0
        self.values: Values = np.empty(0)  # ascending, no two alike
        self.times: Floats = np.empty(0)
        self._keep = int(rate * most) + 1
        self._floor: float | None = None  # what is lower has at least _keep above it

    def add(self, values: Values) -> None:
        """Take more numbers, (n,)."""
        self.count += values.size
        if self._floor is not None:
            values = values[values >= self._floor]
        elif values.size > self._keep:
            values = values[values >= np.partition(values, -self._keep)[-self._keep]]
        if not values.size:
            return
        held = self.values.astype(values.dtype, copy=False)
        merged, where = np.unique(np.concatenate([held, values]), return_inverse=True)
        came = np.concatenate([self.times, np.ones(values.size)])
        times: Floats = np.bincount(where, came).astype(np.float64, copy=False)
        above = _at_or_above(times)[1:]
        kept = above < self._keep
        self.values, self.times = merged[kept], times[kept]
        self._floor = self.values[0] if self.times.sum() >= self._keep else None

    def log_credit(self, scores: Values, low: float, high: float) -> Floats:
        """Compute the area under the ROC curve of single positives over the rate's logarithm.

        The curve is that of :meth:`Ranking.credit`, with these numbers as negatives:
        0 up to the rate A of those above the positive, 1 from the rate R of those at or above it,
        linear between. Over log f, its part between A and R has the integral

            ∫ (f - A) / (R - A) df/f = ((e - s) - A log(e / s)) / (R - A),

        s and e being A and R moved into [low, high].

        Args:
            scores: (k,) of the positives.
            low: false-positive rate where the area begins, above 0.
            high: where it ends, at most ``rate``.

        Returns:
            (k,) areas divided by log(high / low), in [0, 1].
        """
        higher = _at_or_above(self.times)
        above = higher[self.values.searchsorted(scores, side="right")] / self.count
        reached = higher[self.values.searchsorted(scores, side="left")] / self.count
        start, stop = above.clip(low, high), reached.clip(low, high)
        rise = stop - start
        tied = np.maximum(reached - above, 1 / self.count)  # 0 or at least that
        ramp = (rise - above * np.log1p(rise / start)) / tied
        area: Floats = (np.log(high / stop) + ramp) / np.log(high / low)
        return area


def _batches(parts: Iterable[Values], size: int) -> Iterator[Values]:
    """Join arrays into ones of ``size`` numbers and the rest, in one buffer that is used anew."""
    buffer, filled = np.empty(0), 0
    for part in parts:
        buffer = buffer if buffer.size else np.empty(size, part.dtype)
        left = part
        while left.size:
            taken = left[: size - filled]
            buffer[filled : filled + taken.size] = taken
            filled, left = filled + taken.size, left[taken.size :]
            if filled == size:
                yield buffer
                filled = 0
    if filled:
        yield buffer[:filled]


def _ranks(ascending: Values, given: Values, kind: type) -> Counts:
    """Where each number given first stands among them, sorted."""
    ranks: Counts = np.empty(given.size, kind)
    for part in _parts(given.size):
        order = given[part].argsort()  # neighbouring look-ups share cache lines
        ranks[part][order] = ascending.searchsorted(given[part][order])
    return ranks


def _count(positives: Values, batches: Iterable[Values], kind: type) -> tuple[Counts, Counts]:
    """The negatives above, and at or above, each positive, (p,) each; sorts the batches."""
    above: Counts = np.zeros(positives.size, kind)
    reached = np.zeros_like(above)
    for batch in batches:
        batch.sort()
        for part in _parts(positives.size):
            for counts, side in ((above, "right"), (reached, "left")):
                below = batch.searchsorted(positives[part], side=side)  # type: ignore[call-overload]
                counts[part] += (batch.size - below).astype(kind)
    return above, reached


def _at_or_above(times: Floats) -> Floats:
    """(n + 1,): how often the numbers from each on came; 0 beyond the last."""
    return np.append(times[::-1].cumsum()[::-1], 0.0)


def _parts(size: int) -> Iterator[slice]:
    return (slice(start, start + CHUNK) for start in range(0, size, CHUNK))
