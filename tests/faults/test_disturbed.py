"""Real starts disturbed, briefly; `nox -s faults` does it for hours, and in more ways."""

import pytest
from faults.ground import Ground, Tally
from faults.kinds import KINDS
from faults.starts import STUDY

# Kind → where in a start its moment is. Each is done to the start that follows the one before.
BRIEFLY = (
    ("SIGKILL of the run", "features, workers"),
    ("SIGTERM", "training"),
    ("SIGKILL of one of its processes", "training"),
    ("SIGINT twice", "pages"),
    ("SIGKILL of the run", "pages"),
)


@pytest.mark.whole
def test_what_was_disturbed_completes_as_what_was_not(tmp_path):
    study = STUDY.replace("kernels=((3, 3),), ", "")
    assert study != STUDY
    ground, tally = Ground(tmp_path, within=0.0, study=study, categories=("left",)), Tally()
    results = ground.fresh()
    for kind, stage in BRIEFLY:
        ground.stages = (stage,)
        missed = tally.missed
        KINDS[kind].do(ground, tally, results)
        if tally.missed > missed:  # the one before came late, and nothing was left to disturb
            ground.complete(results, tally)
            results = ground.fresh()
            KINDS[kind].do(ground, tally, results)
    ground.complete(results, tally)
    assert tally.faults == 0, tally.notes
    assert tally.tried == len(BRIEFLY), tally.phases
