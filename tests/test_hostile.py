"""Names, files and archives made to do harm: they stay names, and nothing in them is executed."""

import base64
import json
import pickle
import shlex
import struct
import zlib
from io import BytesIO, StringIO
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest
import torch
from PIL import Image

from harness.cli.main import main
from harness.data.images import look_at_mask, read_picture
from harness.errors import InputError, RunFailed
from harness.escape import OnTerminal, in_csv, in_latex, in_line, in_markdown, in_shell
from harness.features.weights import read_tensors
from harness.run.history import load_energies

NAMES = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "a|b", '"]', "$(touch x)",
    r"$\frac{$", "two\nlines", "`id`", "=1+1", "it's", "\x1b[2Jred", "\u202egnp.exe", "&amp;",
    "-rf", "{{7*7}}", "%s", "[/red]",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_a_name_in_every_language(name):
    assert not set(in_markdown(name)) & set("<>|`$\n\x1b\u202e")
    assert shlex.split(in_shell(["harness", f"--category={name}"]))[1] == f"--category={name}"
    assert not set(in_line(name)) & set("\n\x1b\u202e")
    row = in_csv(["name", "x"], [[name, -0.5]]).partition("\n")[2]
    assert row.lstrip('"')[0] not in "=+-@"
    assert row.rstrip().endswith(",-0.5")
    plain = in_latex(name)
    assert not any(plain.replace(f"\\{s}", "").count(s) for s in "$&%#")
    stream = StringIO()
    print(name, file=OnTerminal(stream))
    assert not set(stream.getvalue()) & set("\x1b\u202e")


def test_what_is_printed_is_no_order_to_a_terminal(tmp_path, capsys):
    assert main(["plan", "kernels", "--category", "\x1b[2J", "--results", str(tmp_path)]) == 2
    assert "\x1b" not in capsys.readouterr().err
    assert str(InputError("a\x1b[2J\nb")) == r"a\x1b[2J b"


class Payload:
    """What creates a file when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def payloads(tmp_path):
    """Files of each kind that hold a pickle with code, and what reads them."""
    evil = Payload(tmp_path / "created")
    torch.save({"a": evil}, tmp_path / "new.pth")
    (tmp_path / "old.pth").write_bytes(pickle.dumps({"a": evil}))
    torch.save({"a": evil}, tmp_path / "zip.bin")
    np.savez(tmp_path / "energies.npz", about=np.array([evil], object), allow_pickle=True)
    (tmp_path / "x.safetensors").write_bytes(pickle.dumps(evil))
    same = {"data": "d", "weights": "w", "arithmetic": "a"}
    weights = ("new.pth", "old.pth", "zip.bin", "x.safetensors")
    yield from ((lambda n=n: read_tensors(tmp_path / n)) for n in weights)
    yield lambda: load_energies(tmp_path / "energies.npz", **same)


def test_nothing_that_is_read_is_executed(tmp_path):
    pickle.loads(pickle.dumps(Payload(tmp_path / "works")))
    assert (tmp_path / "works").exists()  # the payload is a real one
    *weights, energies = payloads(tmp_path)
    for read in weights:
        with pytest.raises(InputError, match="it cannot be read"):
            read()
    assert energies() is None
    assert not (tmp_path / "created").exists()


def bomb(side):
    """A PNG of side × side zeros: 10,000 are 100 million pixels in 55 kB."""

    def chunk(name, data):
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress((b"\0" + b"\0" * (side // 8)) * side, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_bombs_are_refused_before_they_are_decoded(monkeypatch):
    content = bomb(10_000)
    refused = "expected at most 89 million pixels; got 10000 × 10000; .* HARNESS_MEGAPIXELS=100"
    for read, name in ((read_picture, "0.png"), (look_at_mask, "0_mask.png")):
        with pytest.raises(InputError, match=refused):
            read(Path(name), content)
    shape = {"label": "a", "shape_type": "mask", "points": [[0, 0], [1, 1]]}
    shape["mask"] = base64.b64encode(content).decode()
    drawing = {"imageWidth": 8, "imageHeight": 8, "shapes": [shape]}
    with pytest.raises(InputError, match=refused):
        look_at_mask(Path("0.json"), json.dumps(drawing).encode())
    with pytest.raises(InputError, match="got 50000 × 50000"):
        look_at_mask(Path("0.json"), json.dumps(drawing | dict.fromkeys(
            ("imageWidth", "imageHeight"), 50_000)).encode())  # fmt: skip
    many = {"label": "a", "shape_type": "polygon", "points": [[1, 1]] * 100_001}
    with pytest.raises(InputError, match="more than 100000 points"):
        look_at_mask(Path("0.json"), json.dumps(drawing | {"shapes": [many]}).encode())
    pages = BytesIO()
    Image.new("L", (4, 4)).save(
        pages, "TIFF", save_all=True, append_images=[Image.new("1", (9, 9))]
    )
    assert read_picture(Path("0.tif"), pages.getvalue()).pictures == 2  # the first one is read
    monkeypatch.setenv("HARNESS_MEGAPIXELS", "1")
    with pytest.raises(InputError, match=r"at most 1 million pixels; got 1200 × 1200; .*PIXELS=2"):
        read_picture(Path("0.png"), bomb(1200))
    monkeypatch.setenv("HARNESS_MEGAPIXELS", "2")
    assert read_picture(Path("0.png"), bomb(1200)).image.size == (1200, 1200)
    for wrong in ("many", "nan", "0", "1e9"):
        monkeypatch.setenv("HARNESS_MEGAPIXELS", wrong)
        with pytest.raises(InputError, match=r"^HARNESS_MEGAPIXELS: expected "):
            read_picture(Path("0.png"), bomb(1200))


def safetensors(header, body=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<Q", 2**63) + b"{}", struct.pack("<Q", 2**27) + b"{}",
        safetensors({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}),
        safetensors({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"1234"),
        safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}, b"1234"),
        safetensors(b"[" * 100_000), safetensors({"__metadata__": {"a": {}}}),
        safetensors({"__metadata__": {"format": "fastflow-harness detector", "schema": "1",
                                      "about": "[" * 100_000}}),
        safetensors({"__metadata__": {"format": "fastflow-harness detector", "schema": "1",
                                      "about": '{"variant": ' + '{"a":' * 5000}}),
    ],
    ids=range(9),
)  # fmt: skip
def test_hostile_headers_of_detectors_and_weights(content, tmp_path, capsys):
    file = tmp_path / "x.safetensors"
    file.write_bytes(content)
    assert main(["card", str(file)]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"harness: {file}: expected a file of fastflow-harness detector")
    assert len(said) < 700


def test_a_bomb_of_energies_is_as_good_as_none(tmp_path):
    huge = b"{'descr': '<f8', 'fortran_order': False, 'shape': (999999999999999,)}"
    for header in (b"{" * 118, b"(" * 118, huge.ljust(118)):
        with ZipFile(tmp_path / "e.npz", "w", ZIP_DEFLATED) as file:
            file.writestr("about.npy", b"\x93NUMPY\x01\x00\x76\x00" + header)
        assert load_energies(tmp_path / "e.npz", data="d", weights="w", arithmetic="a") is None


def test_failures_are_one_line():
    assert str(RunFailed("a\nb")) == "a b"
