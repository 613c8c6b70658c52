"""What a start of a study did, counted."""

from dataclasses import dataclass, field


@dataclass
class Outcome:
    """Count what a start of a study did.

    Attributes:
        recorded: runs that left a record.
        already: runs that had one.
        trained: trainings that were done for them.
        taken_up: runs that another start recorded meanwhile, or of a training that was there.
        failed: which run, and why.
        passes: images that passed a backbone.
        reused: images whose features were there.

    >>> Outcome(recorded=2).failed
    []
    """

    recorded: int = 0
    already: int = 0
    trained: int = 0
    taken_up: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    passes: int = 0
    reused: int = 0

    @property
    def line(self) -> str:
        """Say in a line what was done."""
        return f"trained {self.trained}, took up {self.taken_up}, recorded {self.recorded}"
