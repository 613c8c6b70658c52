"""What a new method, axis, data set, study, metric and executor take, by adding one of each.

A copy of the package gets all of them, as a person would add them: new files, and lines in the
files that docs/architecture.md names. One run then uses them all at once.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import TINY
from trees import draw

from harness.studies import STUDIES

PACKAGE = Path(__file__).parents[1] / "harness"

METHOD = '''
"""The distance to the mean of the good features."""

import numpy as np
import torch

from harness.methods.contract import Energies, Method


class MeanDistance(Method):
    """Measure the distance to the mean good feature of each position."""

    def __init__(self, shapes, *, neighbours=1):
        super().__init__()
        self.register_buffer("mean", torch.zeros(shapes[0]))

    def fit(self, train, *, device="cpu"):
        self.to(device)
        self.mean = torch.from_numpy(np.mean(train[0], axis=0)).to(device)

    def energies(self, features):
        energy = (features[0] - self.mean).square().mean(1)
        return Energies([(energy, torch.zeros_like(energy))])
'''
LAYOUT = '''
"""Names say all: ok_*.png is good, bad_*.png is not; every second good one is a test image."""

from harness.data.contract import Sample, make_category


class ByName:
    """Read a folder whose files' names say what they are."""

    layout = name = "by_name"

    @classmethod
    def recognises(cls, path):
        return any(path.glob("bad_*.png"))

    def __init__(self, root):
        self.root = root

    def categories(self):
        return ("only",)

    def load(self, category):
        good = sorted(self.root.glob("ok_*.png"))
        bad = [Sample(p, "bad") for p in sorted(self.root.glob("bad_*.png"))]
        test = [Sample(p) for p in good[1::2]] + bad
        return make_category(self, category, [Sample(p) for p in good[::2]], test, self.root)
'''
EXECUTOR = '''
"""One after the other, in this process."""

from harness.run.executors.contract import Event
from harness.run.job import run_job


class OneByOne:
    """Run tasks here."""

    def prepare(self):
        print("one by one")

    def run(self, tasks):
        for job in (job for task in tasks for job in task):
            run_job(job)
            yield Event(job, "done")


def open_executor(settings):
    return OneByOne()
'''
STUDY = f"""
from harness.experiment.study import Study
from harness.experiment.variant import Variant

TINY = Variant(**{TINY.changes()!r})
STUDY = Study(
    name="everything", asks="Does all that is new work together?", dataset="by_name", seeds=(0,),
    bases={{
        "as it was": TINY,
        "new axis": TINY.replace(input_gain=2.0),
        "new method": TINY.replace(method="mean-distance"),
    }},
)
"""
# What is added → file → its whole text, or (the text before which it goes, what goes there).
ADDED = {
    "method": {
        "methods/mean_distance.py": METHOD,
        "experiment/choices.py": (
            "}\n\n\ndef method_of(",
            '    "mean-distance": method_entry("Mean distance", '
            '"harness.methods.mean_distance:MeanDistance", "map", fields=("neighbours",), '
            'draws=False, epochs=1, score_map="nll"),\n',
        ),
    },
    "axis": {
        "experiment/fields/flow.py": (
            "    # The compared methods' own.",
            '    input_gain: Factor = flow(1.0, "factor on what goes into the flow")\n',
        ),
        "methods/fastflow.py": [
            ("        **flow: Any,", "        input_gain: float = 1.0,\n"),
            ("        self.loss = loss\n", "        self.input_gain = input_gain\n"),
            ("norm(x), self._position(i, x)", "self.input_gain * "),
        ],
    },
    "data set": {
        "data/layouts/by_name.py": LAYOUT,
        "data/layouts/__init__.py": [
            ("\n\nclass Layout(Protocol)", "from harness.data.layouts.by_name import ByName\n"),
            ('    "mvtec_ad": MvtecAd,\n', '    "by_name": ByName,\n'),
        ],
    },
    "metric": {
        "score/metrics.py": (
            '    "aupro": Metric(',
            '    "image_margin": Metric("image margin", "image", lambda d: float('
            "d.scores[d.truth].min() - d.scores[~d.truth].max())),\n",
        )
    },
    "executor": {"run/executors/one_by_one.py": EXECUTOR},
}
FILES = {"method": 2, "axis": 2, "data set": 2, "metric": 1, "executor": 1}


def add(package):
    for files in ADDED.values():
        for name, change in files.items():
            path = package / name
            if isinstance(change, str):
                assert not path.exists()
                path.write_text(change)
                continue
            text = path.read_text()
            for before, new in change if isinstance(change, list) else [change]:
                assert text.count(before) == 1, (name, before)
                text = text.replace(before, new + before)
            path.write_text(text)


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """A folder with the extended package, images, the study, and what the run left."""
    root = tmp_path_factory.mktemp("extended")
    shutil.copytree(PACKAGE, root / "harness", ignore=shutil.ignore_patterns("__pycache__"))
    add(root / "harness")
    for i in range(8):
        draw(root / "photos" / f"ok_{i}.png")
    for i in range(3):
        draw(root / "photos" / f"bad_{i}.png", mask=root / "unused" / f"{i}.png")
    (root / "everything.py").write_text(STUDY)
    return root


def call(there, *arguments):
    command = [sys.executable, "-m", "harness", *arguments]
    paths = {"PYTHONPATH": str(there)}
    return subprocess.run(
        command, cwd=there, env=os.environ | paths, capture_output=True, text=True, check=False
    )


@pytest.mark.long
def test_all_of_them_work_together(there):
    done = call(
        *(there, "run", "everything.py", "--data", "photos", "--no-speed"),
        *("--executor", "one_by_one", "--json"),
    )
    assert done.returncode == 0, done.stderr
    assert "one by one" in done.stdout
    rows = json.loads(done.stdout.partition("\n")[2].removeprefix("one by one\n"))
    by_label = {row["label"]: row for row in rows}
    assert list(by_label) == ["as it was", "new axis", "new method"]
    assert len({row["image_margin"] for row in rows}) == 3  # every one scores otherwise
    assert all(row["category"] == "only" for row in rows)
    assert by_label["as it was"]["digest"] == TINY.digest  # old records keep their names
    assert by_label["new method"]["additional_params"] == 0


@pytest.mark.long
def test_the_rest_of_the_command_follows(there):
    assert "input_gain (1.0)  factor on what goes into the flow" in call(there, "fields").stdout
    assert "read as by_name" in call(there, "doctor", "--data", "photos").stdout
    listed = call(there, "list", "kernels", "--json")
    names = {v.digest for v in STUDIES["kernels"].variants}
    assert names == {
        line.split()[0] for line in call(there, "list", "kernels").stdout.splitlines()
    }
    assert list(json.loads(listed.stdout)) == ["kernels=3", "kernels=3,1"]


@pytest.mark.parametrize("what", FILES)
def test_as_many_files_are_touched_as_the_architecture_says(what):
    assert len(ADDED[what]) == FILES[what]
    page = PACKAGE.parent.joinpath("docs", "architecture.md").read_text(encoding="utf-8")
    assert f"| {what} | {FILES[what]} |" in page
