"""A detector's graph gives what the detector gives; rules that ONNX lacks operators for, too."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detectors import SMALL, detector_of
from PIL import Image
from torch.fx.experimental.proxy_tensor import make_fx

from harness.cli import main as cli
from harness.detect import export as exports
from harness.detect.export import Whole, export, probe
from harness.detect.graphs import IN_ONNX, kth_value, search
from harness.errors import InputError, RunFailed
from harness.methods.contract import Energies
from harness.score.images import RULES
from harness.score.maps import JOINS, LEVELS, MAPS, SCALES
from harness.score.reference import POSITIONS, make_reference
from harness.score.rule import score_together

PAGE = Path(__file__).parents[2] / "docs" / "export.md"


def rules():
    """Every scale, map, level, join and image rule, each at least once."""
    tables = [list(t) for t in (SCALES, MAPS, LEVELS, JOINS, RULES, POSITIONS)]
    names = ("tap_scale", "score_map", "centring", "scale_aggregation", "image_score",
             "tap_position")  # fmt: skip
    for i in range(max(map(len, tables))):
        rule = {n: t[i % len(t)] for n, t in zip(names, tables, strict=True)}
        yield rule | {"image_centring": list(LEVELS)[i % len(LEVELS)]}


@pytest.mark.parametrize("rule", [*rules()], ids=lambda r: "-".join(map(str, r.values())))
def test_every_score_rule_is_kept_by_the_operators_of_onnx(rule):
    rule |= {"tap_position": "global"} if rule["tap_scale"] == "none" else {}
    variant = SMALL.replace(**rule)

    def drawn(seed):
        generator = torch.Generator().manual_seed(seed)
        of = [torch.rand(2, 5, k, k, generator=generator).exp() for k in (8, 4)]
        return Energies([(e, j) for e, j in of])

    reference = make_reference([drawn(0)])

    def score(*flat):
        energies = Energies(list(zip(flat[::2], flat[1::2], strict=True)))
        return score_together(variant, energies, reference)

    flat = [[t for tap in drawn(seed).taps for t in tap] for seed in (1, 2)]
    graph = make_fx(score, decomposition_table=IN_ONNX)(*flat[0])
    assert not {n.target for n in graph.graph.nodes} & set(IN_ONNX)
    for got, expected in zip(graph(*flat[1]), score(*flat[1]), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)


def test_search_and_kth_value_are_torchs():
    table = torch.tensor([-1.0, 0.0, 0.0, 0.5, 2.0])
    values = torch.tensor([[-2.0, -1.0, 0.0], [0.1, 2.0, 3.0]])
    for right in (True, False):
        expected = torch.searchsorted(table, values, right=right)
        assert torch.equal(search(table, values, right=right), expected)
    for k in (1, 2, 3):
        assert torch.equal(kth_value(values, k, 1)[0], values.kthvalue(k, 1).values)
        assert torch.equal(kth_value(values, k, 1, True)[0], values.kthvalue(k, 1, True).values)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"method": "spade"}, "method: expected .*got spade"),
        ({"test_turns": 4}, "test_turns: expected 0.*got 4"),
        ({"precision": "bfloat16"}, "precision: expected float32.*--float32"),
        ({"tile_size": 32}, "tile_size: expected 0.*got 32"),
    ],
)
def test_what_cannot_be_a_graph_is_refused(changes, named):
    variant = SMALL.replace(**changes)
    with pytest.raises(InputError, match=named):
        Whole(detector_of(variant))


@pytest.mark.parametrize(
    ("resize", "rule"), [("pad", {"centring": "border", "image_score": "top-k"}), ("crop", {})]
)
def test_photos_are_fitted_as_the_detector_fits_them(resize, rule):
    detector = detector_of(SMALL.replace(resize=resize, **rule))
    photos = [np.random.default_rng(i).integers(0, 256, (40, 90, 3), np.uint8) for i in range(3)]
    box = exports._only_box(detector, photos) if resize == "pad" else None
    assert box is None or box.shape == (28, 64)
    blank = torch.zeros(2, *(box.shape if box else (64, 64)), 3, dtype=torch.uint8)
    graph = exports.trace(Whole(detector, box), blank).module()
    run = lambda images: [t.numpy() for t in graph(torch.from_numpy(images))]
    found = exports.compare(detector, run, photos)
    assert max(found.maps, found.scores) <= 1e-5


def test_a_graph_that_pads_is_for_photos_of_one_shape(tmp_path):
    detector = detector_of(SMALL.replace(resize="pad"))
    photos = [np.zeros((40, width, 3), np.uint8) for width in (40, 90)]
    for given, got in ((photos, "photos of 2"), ([], "none")):
        with pytest.raises(InputError, match=f"expected --photos of one shape.*got {got}"):
            export(detector, "torch", tmp_path / "d.pt2", given)


def test_without_the_extra_a_line_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setattr(exports, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'fastflow-harness\[export\]'"):
        export(detector_of(SMALL), "onnx", tmp_path / "d.onnx")


def test_a_torch_graph_by_the_command(tmp_path, capsys):
    detector = detector_of(SMALL.replace(tap_scale="neg-log-p", centring="median"))
    detector.save(tmp_path / "d.safetensors")
    out = tmp_path / "d.pt2"
    command = ["export", str(tmp_path / "d.safetensors"), "--format", "torch", "--out", str(out)]
    assert cli.main([*command, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert max(said["maps"], said["scores"]) <= exports.FARTHEST
    assert said["images"] == len(probe((64, 64)))
    extra = {"about.json": ""}
    graph = torch.export.load(out, extra_files=extra).module()
    about = json.loads(extra["about.json"])
    assert (about["image_size"], about["threshold"]) == ("64,64", "2.0")
    images = np.random.default_rng(1).integers(0, 256, (5, 64, 64, 3), np.uint8)
    expected = detector(list(images))
    maps, scores, verdicts = graph(torch.from_numpy(images))
    np.testing.assert_allclose(maps.numpy(), expected.anomaly_map, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(scores.numpy(), expected.score, rtol=1e-4)
    assert verdicts.tolist() == expected.is_anomalous.tolist()


def test_a_graph_that_gives_something_else_is_not_written(tmp_path, monkeypatch):
    detector, out = detector_of(SMALL, calibrated=False), tmp_path / "d.pt2"

    def shifted(file):
        return lambda images: [m + 0.1 for m in detector.score([*map(Image.fromarray, images)])]

    nothing = (lambda program, file, said: file.write_bytes(b""), shifted)
    monkeypatch.setitem(exports.KINDS, "torch", nothing)
    monkeypatch.setattr(exports, "trace", lambda *given: None)
    with pytest.raises(RunFailed, match=r"expected maps and scores within 0.0001 .* maps differ"):
        export(detector, "torch", out)
    assert not list(tmp_path.iterdir())
    found = export(detector, "torch", out, tolerance=0.9)  # where that is near enough
    assert 1e-4 < max(found.maps, found.scores) <= 0.9
    assert out.is_file()
    for bad in (0, 1, float("nan")):
        with pytest.raises(InputError, match="--tolerance: expected a share"):
            export(detector, "torch", out, tolerance=bad)
    with pytest.raises(InputError, match="--out: expected a file's name"):
        export(detector, "torch", Path())


@pytest.mark.parametrize("method", ["fastflow", "cflow", "padim", "patchcore"])
def test_every_method_that_is_one_graph(method, tmp_path):
    own = {"cflow": {"flow_steps": 1}, "fastflow": {"position_channels": 4}}
    variant = SMALL.replace(method=method, **own.get(method, {}))
    detector = detector_of(variant)
    images = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    graph = exports.trace(Whole(detector), images[:2]).module()
    for some in (images[:1], images):
        maps, scores = detector.score([Image.fromarray(i) for i in some.numpy()])
        np.testing.assert_allclose(graph(some)[0], maps, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(graph(some)[1], scores, rtol=1e-4)


def test_the_pages_example_gives_the_detectors_scores(tmp_path):
    for needed in exports.NEEDED:
        pytest.importorskip(needed)
    detector = detector_of(SMALL.replace(tap_scale="quantile", centring="tenth"))
    export(detector, "onnx", tmp_path / "d.onnx")
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert example.count("\n") <= 21
    photos = []
    for i, size in enumerate([(90, 40), (64, 64), (200, 300)]):
        pixels = np.random.default_rng(i).integers(0, 256, (*size, 3), np.uint8)
        photos.append(str(tmp_path / f"{i}.png"))
        Image.fromarray(pixels).save(photos[-1])
    command = [sys.executable, "-c", example, str(tmp_path / "d.onnx"), *photos]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    *lines, last = run.stdout.splitlines()
    found = [json.loads(line) for line in lines]
    assert [f["photo"] for f in found] == photos
    expected = detector(photos)
    np.testing.assert_allclose([f["score"] for f in found], expected.score, rtol=1e-4)
    assert last == "score threshold 2.0"
