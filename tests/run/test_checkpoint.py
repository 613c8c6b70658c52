"""Checkpoints: a training stopped anywhere and taken up gives what an unbroken one gives."""

import errno
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import Here

from harness import files
from harness.claims import RESULTS, Claims, TakenOver
from harness.errors import InputError, RunFailed
from harness.experiment.place import Place
from harness.experiment.record import Epoch
from harness.experiment.store import read_records
from harness.experiment.variant import Variant
from harness.features.defective import DefectiveCopies
from harness.files import growing, write_whole
from harness.heartbeat import this_process
from harness.run import stop, sweep
from harness.run.checkpoint import Checkpoint, Unusable
from harness.run.energies import SavedEnergies
from harness.run.evaluate import patience
from harness.run.history import History, load_energies, writing_energies
from harness.run.kept import DamagedTensors, is_kept, read_tensors, write_tensors
from harness.run.model import make_model
from harness.run.plan import make_plan
from harness.run.stop import Stopped
from harness.run.sweep import run_study
from harness.run.train import train
from harness.run.training import Position

SHAPES = ((6, 4, 4), (8, 2, 2))
SOURCE = {"data": "d", "weights": "w", "arithmetic": "a"}
BASE = Variant(
    flow_steps=2, kernels=(3, 1), epochs=4, batch_size=4, learning_rate=1e-2, eval_every=2
)
EVERYTHING = {
    "ema": 0.5, "feature_noise": 0.1, "augmentation": "flips", "augmentation_copies": 3,
    "schedule": "cosine", "warmup_steps": 3, "holdout": 0.3, "actnorm": "data", "norm": "batch",
    "base": "learned", "base_every": 2, "gradient_clip": 1.0, "subnet_norm": "batch",
    "position_channels": 8, "optimiser": "adamw", "weight_decay": 0.1, "drop_last": True,
    "validation": "synthetic", "coupling": "two-sided",
}  # fmt: skip
SMALL = {"epochs": 3, "batch_size": 4, "warmup_epochs": 0, "eval_every": 1}
VARIANTS = {
    "plain": BASE,
    "everything": BASE.replace(**EVERYTHING),
    "everything, bfloat16": BASE.replace(**EVERYTHING, precision="bfloat16"),
    "whiten": BASE.replace(norm="whiten", actnorm="affine", precision="bfloat16"),
    "turned": BASE.replace(test_turns=2, schedule="cosine"),
    "cflow": Variant().replace(method="cflow", flow_steps=1, **SMALL),
    "cflow, bfloat16": Variant().replace(
        method="cflow", flow_steps=1, precision="bfloat16", holdout=0.3, **SMALL
    ),
    "differnet": Variant().replace(method="differnet", flow_steps=1, hidden_channels=8, **SMALL),
}


def features(images, seed, shapes=SHAPES):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(images, *shape)).astype(np.float32) for shape in shapes]


class Asking:
    """Ask the training to stop at its n-th look: before each batch, and within evaluations."""

    def __init__(self, at):
        self.left = at

    def __call__(self):
        self.left -= 1
        if self.left == 0:
            stop._Asked.stop = True
        return stop._Asked.stop


@pytest.fixture(autouse=True)
def nobody_asks():
    yield
    stop._Asked.stop = False
    stop._Asked.deferred = 0


def trained(
    path, variant, *, minutes=0.0, enough=lambda history: False, said=None, check=None, **options
):
    """One start of a training; what is left, read from its file."""
    shapes = ((9, 4, 1),) if variant.method == "differnet" else SHAPES
    good, test = features(10, 0, shapes), features(5, 1, shapes)
    options = {
        "augmented": features(30, 2, shapes) if variant.augmentation != "none" else (),
        "turned": features(10, 3, shapes) if variant.test_turns else (),
        "defective": DefectiveCopies(features(10, 4, shapes), np.zeros((10, 2), np.uint8))
        if variant.validation != "none" else None,
        **options,
    }  # fmt: skip
    point = Checkpoint(
        path.with_suffix(".checkpoint"), {"code": "1"}, minutes,
        (lambda text: None) if said is None else said.append, check or (lambda: None),
    )  # fmt: skip
    with writing_energies(path, **SOURCE, writing=point.grow) as history:
        model = make_model(variant, shapes, 0)
        train(
            model, good, test, variant=variant, seed=0, history=history, enough=enough,
            checkpoint=point, **options,
        )  # fmt: skip
    return model, load_energies(path, **SOURCE)


def restarted(path, variant, monkeypatch, *, every, **options):
    """Started again and again, and stopped after so many looks each time."""
    starts = 0
    while True:
        starts += 1
        stop._Asked.stop = False
        asking = Asking(every + starts)  # the later, the longer: an evaluation has many looks
        monkeypatch.setattr("harness.run.checkpoint.is_asked", asking)
        monkeypatch.setattr("harness.run.watch.check", lambda asking=asking: stops(asking))
        try:
            return *trained(path, variant, **options), starts
        except Stopped:
            assert not path.exists()
            assert path.with_suffix(".checkpoint").is_file()
            assert len(list(path.parent.iterdir())) == 2, "a checkpoint and its energies"


def stops(asking):
    if asking():
        raise Stopped


def equal(one, other):
    (model, history), (again, resumed) = one, other
    assert resumed.loss == history.loss
    assert resumed.holdout == history.holdout
    assert resumed.bank_bytes == history.bank_bytes
    read, wanted = (
        {n: h.energies.read(n) for n in h.energies._zip.namelist() if n != "about.npy"}
        for h in (resumed, history)
    )
    assert sorted(read) == sorted(wanted)
    for name, array in wanted.items():
        np.testing.assert_array_equal(read[name], array, name)
    for (name, value), other in zip(
        model.state_dict().items(), again.state_dict().values(), strict=True
    ):
        assert torch.equal(value, other), name


@pytest.mark.parametrize("name", VARIANTS)
def test_a_training_stopped_anywhere_is_taken_up_bit_for_bit(name, tmp_path, monkeypatch):
    whole = trained(tmp_path / "whole" / "seed-0.npz", VARIANTS[name])
    path = tmp_path / "again" / "seed-0.npz"
    *again, starts = restarted(path, VARIANTS[name], monkeypatch, every=3)
    assert starts > 3
    equal(whole, again)
    assert [p.name for p in path.parent.iterdir()] == ["seed-0.npz"]


def left_at(path, variant, monkeypatch, at=6, **options):
    """A training that was stopped at its so many-th look."""
    monkeypatch.setattr("harness.run.checkpoint.is_asked", Asking(at))
    with pytest.raises(Stopped):
        trained(path, variant, **options)
    monkeypatch.undo()
    stop._Asked.stop = False
    return path.with_suffix(".checkpoint")


def test_patience_counts_the_evaluations_before(monkeypatch):
    """What decides is what the file holds, not what this process has seen."""
    values = {5: 0.5, 10: 0.7, 15: 0.6, 20: 0.6}
    monkeypatch.setattr(
        "harness.run.evaluate.evaluate_epoch",
        lambda variant, history, epoch, labels, masks: Epoch(
            epoch=epoch, metrics={"pixel_auroc": values[epoch]}
        ),
    )
    variant = Variant(epoch_selection="best-pixel-on-test", patience=2, eval_every=5)
    resumed = patience(variant, None, None)
    histories = [History(energies={e: None for e in values if e <= last}) for last in (15, 20)]
    assert [resumed(history) for history in histories] == [False, True]


def test_at_most_so_many_minutes_are_repeated(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("harness.run.checkpoint.time.monotonic", lambda: clock[0])
    point, written = Checkpoint(tmp_path / "c", {}, minutes=5.0), []
    monkeypatch.setattr(
        point,
        "_write",
        lambda training: written.append(clock[0]) or setattr(point, "written", clock[0]),
    )
    for minute in range(17):
        clock[0] = 60.0 * minute
        point.look(None)
    assert written == [300.0, 600.0, 900.0]


def test_a_checkpoint_that_another_start_has_taken_over_is_not_written(tmp_path, monkeypatch):
    """A start that was stopped for so long that it was taken for dead wakes up: it leaves all."""
    file = left_at(tmp_path / "a.npz", BASE, monkeypatch)
    there = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def taken_over():
        raise TakenOver("another has it")

    monkeypatch.setattr("harness.run.checkpoint.is_asked", Asking(3))
    with pytest.raises(TakenOver):
        trained(tmp_path / "a.npz", BASE, check=taken_over)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.name in there} == there
    assert file.name in there


@pytest.mark.parametrize("word", ["code", "images", "weights", "machine"])
def test_a_checkpoint_of_another_is_not_taken_up_and_it_says_so(word, tmp_path, monkeypatch):
    left_at(tmp_path / "a.npz", BASE, monkeypatch)
    said = []
    point = Checkpoint(tmp_path / "a.checkpoint", {"code": "1", word: "2"}, say=said.append)
    assert point.position is None
    (line,) = said
    assert line.endswith(f"not taken up, as it is of other {word}; it is trained from the start")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.9, 1.0])
def test_a_damaged_checkpoint_is_named_and_trained_anew(share, tmp_path, monkeypatch):
    """Cut off there, and with one bit changed there."""
    _, whole = trained(tmp_path / "whole.npz", BASE)
    for how in ("cut", "flipped"):
        path = tmp_path / how / "seed-0.npz"
        file = left_at(path, BASE, monkeypatch)
        content = bytearray(file.read_bytes())
        at = min(int(share * len(content)), len(content) - 1)
        if how == "cut":
            del content[at:]
        else:
            content[at] ^= 4
        file.write_bytes(content)
        said = []
        _, history = trained(path, BASE, said=said)
        assert len(said) == 1, said
        assert "not taken up" in said[0]
        assert history.loss == whole.loss


@pytest.mark.parametrize("damage", ["gone", "cut", "flipped"])
def test_damaged_energies_beside_a_checkpoint_are_not_taken_up(damage, tmp_path, monkeypatch):
    file = left_at(tmp_path / "seed-0.npz", BASE, monkeypatch, at=14)
    (energies,) = tmp_path.glob("*.npz")
    content = bytearray(energies.read_bytes())
    assert len(content) > 500, "an epoch was evaluated"
    content[len(content) // 2] ^= 1
    if damage == "gone":
        energies.unlink()
    else:
        energies.write_bytes(content if damage == "flipped" else content[:300])
    with pytest.raises(Unusable):
        trained(tmp_path / "seed-0.npz", BASE)
    assert file.is_file(), "run_job says it, and removes it"


def test_a_disk_that_is_full_at_the_start_leaves_the_checkpoint(tmp_path, monkeypatch):
    file = left_at(tmp_path / "seed-0.npz", BASE, monkeypatch, at=14)
    before = sorted(tmp_path.iterdir())

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("harness.run.energies.SavedEnergies.append", full)
        with pytest.raises(RunFailed, match="expected room on its disk"):
            trained(tmp_path / "seed-0.npz", BASE)
    assert sorted(tmp_path.iterdir()) == before
    assert file in before
    trained(tmp_path / "seed-0.npz", BASE)


@pytest.fixture
def descriptors():
    """Let so many more files be opened as it is told, in this process, for real."""
    resource = pytest.importorskip("resource")
    before, held = resource.getrlimit(resource.RLIMIT_NOFILE), []
    most = 64 + max(int(p.name) for p in Path("/proc/self/fd").iterdir())

    def left(free):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, before[1]))
        with suppress(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(free):
            os.close(held.pop())

    yield left
    for number in held:
        os.close(number)
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("free", [0, 1])
def test_too_many_open_files_say_nothing_of_a_checkpoint(free, tmp_path, monkeypatch, descriptors):
    """Of the first of the two that it takes, and of the second."""
    path = tmp_path / "seed-0.npz"
    file = left_at(path, BASE, monkeypatch, at=14)
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    said = []
    descriptors(free)
    with pytest.raises(RunFailed) as caught:
        Checkpoint(file, {"code": "1"}, say=said.append)
    assert str(caught.value) == (
        f"{file}: Too many open files; raise the limit, as by `ulimit -n 1024`"
    )
    descriptors(9)
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before
    assert Checkpoint(file, {"code": "1"}, say=said.append).position
    assert said == []


@pytest.mark.parametrize("which", ["checkpoint", "its energies"])
@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_what_the_system_does_not_let_be_read_stays(number, which, tmp_path, monkeypatch):
    path = tmp_path / "seed-0.npz"
    file = left_at(path, BASE, monkeypatch, at=14)
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    (energies,) = tmp_path.glob("*.npz")
    refused, opened = file if which == "checkpoint" else energies, Path.open

    def refuse(self, *given, **named):
        if self == refused:
            raise OSError(number, os.strerror(number), str(self))
        return opened(self, *given, **named)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", refuse)
        with pytest.raises(InputError, match="could not be read") as caught:
            trained(path, BASE)
    assert str(caught.value).startswith(f"{refused}: could not be read ({os.strerror(number)});")
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before
    trained(path, BASE)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EMFILE])
def test_weights_that_the_system_does_not_let_be_read_are_not_damaged(
    number, tmp_path, monkeypatch
):
    """`harness run --keep` removes damaged ones."""
    file = left_at(tmp_path / "a.npz", BASE, monkeypatch)

    def refuse(self, *given, **named):
        raise OSError(number, os.strerror(number), str(self))

    assert not is_kept(file), "it holds a checkpoint"
    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", refuse)
        with pytest.raises((InputError, RunFailed), match=os.strerror(number)) as caught:
            is_kept(file)
    assert not isinstance(caught.value, DamagedTensors)


@pytest.mark.parametrize("said", ["unable to mmap: Cannot allocate memory (12)", "no such luck"])
def test_what_torch_says_of_the_system_is_no_damage(said, tmp_path, monkeypatch):
    file = left_at(tmp_path / "a.npz", BASE, monkeypatch)

    def fail(*_):
        raise RuntimeError(said)

    monkeypatch.setattr("harness.run.kept.safe_open", fail)
    with pytest.raises(MemoryError if "memory" in said else InputError, match="u"):
        Checkpoint(file, {"code": "1"})
    assert file.is_file()


@pytest.mark.parametrize("moment", ["about", "close", "fsync"])
@pytest.mark.parametrize("name", ["plain", "fitted"])
def test_a_request_to_end_after_the_last_batch_throws_no_training_away(
    name, moment, tmp_path, monkeypatch
):
    """What was trained is seen, though there was no checkpoint; then the request counts."""
    variant = BASE if name == "plain" else Variant().replace(method="padim", channels=5)
    owner, called = {
        "about": (SavedEnergies, "write"),
        "close": (SavedEnergies, "close"),
        "fsync": (os, "fsync"),
    }[moment]
    original, asked = getattr(owner, called), []

    def ask(*given):
        if moment != "about" or given[1] == "about":
            asked.append(stop.stop())
        return original(*given)

    monkeypatch.setattr(owner, called, ask)
    _, history = trained(tmp_path / "seed-0.npz", variant)
    assert asked
    assert history.energies
    assert [p.name for p in tmp_path.iterdir()] == ["seed-0.npz"]
    assert stop._Asked.deferred == 0
    with pytest.raises(Stopped):
        stop.check()


OTHER = "0123456789abcdef"  # another start


def others(path):
    """What a start has there that took the training over, and has come as far as a checkpoint."""
    checkpoint = path.with_suffix(".checkpoint")
    grows = checkpoint.with_name(f"{checkpoint.name}-{OTHER}-01234567.npz")
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    for file in (checkpoint, grows):
        file.write_bytes(b"the other's")
    return {checkpoint, grows}


@pytest.mark.parametrize("moment", ["before", "fsync", "replace", "failed"])
def test_what_another_start_has_after_a_stall_is_left_alone(moment, tmp_path, monkeypatch):
    """Halted at any moment after the last batch, and woken when another has its checkpoint."""
    path, theirs = tmp_path / "seed-0.npz", set()

    def stall(*_):
        theirs.update(others(path))

    def check():
        if theirs:
            raise TakenOver("another has it")

    def after(original):
        def stalling(*given):
            result = original(*given)
            stall()
            return result

        return stalling

    def progress(epoch, loss):
        if moment in ("before", "failed") and epoch == 4:
            stall()
        if moment == "failed" and epoch == 4:
            raise RunFailed("it diverged")

    if moment in ("fsync", "replace"):
        owner = {"fsync": os, "replace": Path}[moment]
        monkeypatch.setattr(owner, moment, after(getattr(owner, moment)))
    with pytest.raises(RunFailed if moment == "failed" else TakenOver):
        trained(path, BASE, check=check, progress=progress)
    monkeypatch.undo()
    seen = {path} if moment == "replace" else set()  # the same as the other's will be
    assert set(tmp_path.iterdir()) == theirs | seen
    assert {p.read_bytes() for p in theirs} == {b"the other's"}


def test_a_start_removes_nothing_that_grows_for_another(tmp_path):
    """One that stood still between its claim and its training's beginning."""
    path = tmp_path / "seed-0.npz"
    _, grows = sorted(others(path))
    path.with_suffix(".checkpoint").unlink()
    own = growing(path.with_suffix(".checkpoint"))
    own.write_bytes(b"of a worker of this start that was killed")
    trained(path, BASE)
    assert set(tmp_path.iterdir()) == {path, grows}


def test_a_checkpoint_that_is_another_starts_by_now_is_not_discarded(tmp_path):
    theirs = others(tmp_path / "seed-0.npz")

    def taken_over():
        raise TakenOver("another has it")

    said = []
    with pytest.raises(TakenOver):
        Checkpoint(tmp_path / "seed-0.checkpoint", {}, say=said.append, check=taken_over)
    assert set(tmp_path.iterdir()) == theirs
    assert said == []


@pytest.mark.parametrize("name", ["/../../x.npz", "x/y.npz"])
def test_a_checkpoint_names_no_file_of_another_folder(name, tmp_path, monkeypatch):
    file = left_at(tmp_path / "there" / "a.npz", BASE, monkeypatch, at=14)
    position, tensors = read_tensors(file, Position)
    named = msgspec.structs.replace(position, energies=f"{file.name}-{name}")
    write_tensors(file, named, tensors)
    said = []
    Checkpoint(file, {"code": "1"}, say=said.append)
    assert len(said) == 1
    assert "its energies are no file of its own" in said[0]


def test_what_no_checkpoint_names_of_a_dead_start_is_removed_by_the_next(tmp_path, monkeypatch):
    """Killed before its first checkpoint, or after one; whatever is trained next."""
    place = Place(tmp_path, "44136fa355b3", "d", "grass", 0)
    with pytest.MonkeyPatch.context() as dead:
        dead.setattr(files, "_token", [OTHER])
        named = left_at(place.energies, BASE, monkeypatch)
        checkpoint = place.checkpoint.with_name("seed-1.checkpoint")
        checkpoint.write_bytes(named.read_bytes())  # of another seed: it names nothing of its own
        unnamed = [growing(place.checkpoint), growing(checkpoint), growing(place.again)]
    living = unnamed[0].with_name(unnamed[0].name.replace(OTHER, "f" * 16))
    for file in (*unnamed, living):
        file.write_bytes(b"grew")
    holder = msgspec.structs.replace(this_process(), born="0")  # of a process that is gone
    for token, said in ((OTHER, holder), ("f" * 16, this_process())):
        write_whole(tmp_path / "claims" / f"{token}.json", msgspec.json.encode(said))
    before = set(place.record.parent.iterdir())
    with Claims(tmp_path, RESULTS, token="e" * 16):
        pass
    assert before - set(place.record.parent.iterdir()) == set(unnamed)
    assert len(before) == 3 + 1 + len(unnamed)
    said = []
    trained(place.energies, BASE, said=said)
    assert said == []
    assert set(place.record.parent.iterdir()) == {place.energies, checkpoint, living}


def test_what_cannot_be_written_ends_no_training(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("harness.run.checkpoint.write_tensors", full)
    said = []
    _, history = trained(tmp_path / "a.npz", BASE, minutes=1e-9, said=said)
    assert len(history.loss) == 4
    (line,) = said
    assert line == (
        "no checkpoint could be written: [Errno 28] No space left on device; the training goes on"
    )


def test_a_failure_leaves_nothing_but_an_error_of_the_system_keeps_the_checkpoint(
    tmp_path, monkeypatch
):
    for error, left in ((RunFailed("it diverged"), 0), (OSError("the disk"), 2)):

        def fail(self, error=error):
            raise error

        path = tmp_path / str(left) / "seed-0.npz"
        with monkeypatch.context() as patched:
            patched.setattr("harness.run.training.Training.next_epoch", fail)
            with pytest.raises(type(error)):
                trained(path, BASE, minutes=1e-9)
        assert len(list(path.parent.iterdir())) == left
    assert len(trained(path, BASE)[1].loss) == 4


def test_nothing_in_a_checkpoint_is_executed(tmp_path, monkeypatch):
    """Its tensors are numbers, and what is said of them is JSON."""
    content = left_at(tmp_path / "a.npz", BASE, monkeypatch).read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    assert header["__metadata__"]["format"] == "fastflow-harness checkpoint"
    assert json.loads(header["__metadata__"]["about"])["identity"] == {"code": "1"}
    assert b"pickle" not in content


def test_without_a_checkpoint_a_training_is_what_it_was(tmp_path):
    path = Path(tmp_path / "a.npz")
    _, written = trained(path, BASE)
    model, history = make_model(BASE, SHAPES, 0), History()
    train(model, features(10, 0), features(5, 1), variant=BASE, seed=0, history=history)
    assert history.loss == written.loss
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


START = """
import sys
from dataclasses import replace
from pathlib import Path
sys.path[:0] = sys.argv[2:]
import test_checkpoint as ours
import torch
torch.set_num_threads(1)
tell = lambda epoch, loss: print(epoch, flush=True)
ours.trained(Path(sys.argv[1]), ours.SLOW, minutes=1e-9, progress=tell)
"""
SLOW = BASE.replace(**EVERYTHING, epochs=30)


@pytest.mark.whole
def test_a_killed_process_repeats_nothing_that_a_checkpoint_has(tmp_path):
    """One SIGKILL, for real; the next process does the rest."""
    path, whole = tmp_path / "a" / "seed-0.npz", trained(tmp_path / "whole.npz", SLOW)
    here = Path(__file__).parent
    command = [sys.executable, "-c", START, str(path), str(here), str(here.parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        seen = [int(process.stdout.readline()) for _ in range(7)]
        process.send_signal(signal.SIGKILL)
        seen += map(int, process.stdout.read().split())
    assert process.returncode == -signal.SIGKILL
    assert len(seen) < 30
    done = []
    again = trained(path, SLOW, progress=lambda epoch, loss: done.append(epoch))
    assert done[0] in (seen[-1], seen[-1] + 1)
    assert done[-1] == 30
    equal(whole, again)
    there = [p.name for p in path.parent.iterdir()]  # half a checkpoint is for a start to remove
    assert [name for name in there if not name.endswith(".tmp")] == ["seed-0.npz"]


def test_a_study_that_is_stopped_is_taken_up_by_its_next_start(
    study, settings, tmp_path, monkeypatch, capsys
):
    """Records are equal but for times; with fewer cores, it goes on with its own threads."""
    monkeypatch.setattr(sweep, "open_executor", lambda settings: Here())
    only = replace(study, vary=({},), seeds=(0,))
    settings = replace(settings, categories=("left",), speed=False, keep=True)
    found = []
    for name, stops in (("whole", ()), ("stopped", (2, 3))):
        there = replace(settings, results=tmp_path / name)
        for at in stops:
            with monkeypatch.context() as patched:
                patched.setattr("harness.run.checkpoint.is_asked", Asking(at))
                with pytest.raises(Stopped):
                    run_study(make_plan(only, there), there, lambda text: None)
            stop._Asked.stop = False
            assert not list(read_records(there.results))
            monkeypatch.setattr(sweep, "cores", lambda: 8)
        assert run_study(make_plan(only, there), there, lambda text: None).recorded == 1
        assert "not taken up" not in capsys.readouterr().out
        (record,) = (msgspec.to_builtins(r) for r in read_records(there.results))
        assert record.pop("measured")["fit_seconds"] > 0
        (weights,) = (there.results / "runs").rglob("*.safetensors")
        tensors = {k: v.numpy().tobytes() for k, v in load_file(weights).items()}
        found.append((record, tensors))
        assert not list((there.results / "runs").rglob("*.checkpoint*"))
    torch.use_deterministic_algorithms(False)
    assert found[0] == found[1]
