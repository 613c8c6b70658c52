"""Extraction: what it takes, and that nothing is left of what it refuses."""

import gzip
import io
import stat
import struct
import tarfile
import zipfile

import pytest

from harness.data.fetch.archives import extract
from harness.errors import InputError

FILES = {"d/one.png": b"1" * 700, "d/sub/two words é.png": b"22", "d/empty": b""}


def entry(name, content=b"", type=tarfile.REGTYPE, link="", mode=0o644, **more):
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname, info.mode = len(content), type, link, mode
    for field, value in more.items():
        setattr(info, field, value)
    return info, content


def tar(path, *entries, mode="w:gz", format=tarfile.GNU_FORMAT):
    with tarfile.open(path, mode, format=format) as archive:
        for info, content in entries:
            archive.addfile(info, io.BytesIO(content))
    return path


def zipped(path, *entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


def zip_link(path):
    info = zipfile.ZipInfo("d/link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return zipped(path, (info, "/etc/passwd"))


def tree(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))


def good(path, kind):
    if kind == "zip":
        return zipped(path, ("d/", b""), *FILES.items())
    folder = entry("./d/", type=tarfile.DIRTYPE, mode=0o000)
    return tar(path, folder, *(entry(n, c, mode=0o6000) for n, c in FILES.items()), mode=kind)


@pytest.mark.parametrize("kind", ["w:", "w:gz", "w:xz", "zip"])
def test_good_archives_whatever_their_suffix(kind, tmp_path):
    archive = good(tmp_path / "archive.bin", kind)
    assert extract(archive, tmp_path / "out" / "d", inside="d") == 3
    for name, content in FILES.items():
        path = tmp_path / "out" / name
        assert path.read_bytes() == content
        assert path.stat().st_mode & 0o7111 == 0  # no setuid, setgid, sticky or execute bits
        assert path.stat().st_mode & 0o400
    assert tree(tmp_path / "out") == ["d", *sorted([*FILES, "d/sub"])]


def test_everything_or_one_folder(tmp_path):
    archive = tar(tmp_path / "a", entry("a/x", b"x"), entry("b/y", b"y"), entry("ab/z", b"z"))
    assert extract(archive, tmp_path / "all") == 3
    assert extract(archive, tmp_path / "only_a", inside="a") == 1
    assert tree(tmp_path / "only_a") == ["x"]


def test_an_empty_target_and_a_killed_run_s_leftovers_are_no_obstacle(tmp_path):
    archive = good(tmp_path / "a", "w:gz")
    (tmp_path / "out").mkdir()
    (tmp_path / ".out.extracting" / "content").mkdir(parents=True)
    (tmp_path / ".out.extracting" / "content" / "half").write_text("h")
    extract(archive, tmp_path / "out", inside="d")
    assert tree(tmp_path / "out") == ["empty", "one.png", "sub", "sub/two words é.png"]
    assert not (tmp_path / ".out.extracting").exists()


def test_a_target_with_content_stays(tmp_path):
    archive = good(tmp_path / "a", "w:gz")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    with pytest.raises(InputError, match="it has content"):
        extract(archive, tmp_path / "out")
    assert tree(tmp_path / "out") == ["mine"]


def lying_tar(path):
    """Says 2000 bytes, holds 700."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:") as archive:
        archive.addfile(entry("d/x", b"x" * 700)[0], io.BytesIO(b"x" * 700))
    raw = bytearray(content.getvalue()[:1024])
    info = tarfile.TarInfo("d/x")
    info.size = 2000
    raw[:512] = info.tobuf()
    path.write_bytes(gzip.compress(bytes(raw)))
    return path


def lying_zip(path):
    """The central directory says that a member of a MiB has 10 bytes."""
    zipped(path, ("d/x", b"\0" * 2**20))
    raw = bytearray(path.read_bytes())
    at = raw.rindex(b"PK\x01\x02")
    raw[at + 24 : at + 28] = struct.pack("<I", 10)
    path.write_bytes(raw)
    return path


def huge_header(path):
    """A member's name of 200 MB, which compresses to nearly nothing."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 200 * 10**6
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(info.tobuf())
        for _ in range(200):
            file.write(b"a" * 10**6)
    return path


def more_behind(path):
    """A second archive behind the first one's end: bytes that no member declares."""
    tar(path, entry("d/x", b"x"), mode="w:")
    path.write_bytes(gzip.compress(path.read_bytes() + b"\1" * 10240))
    return path


def cut(path, kind, at):
    good(path, kind)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * at)])
    return path


def flipped(path, kind):
    good(path, kind)
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"d/one.png") + 12 if kind == "zip" else len(raw) // 2] ^= 0xFF
    path.write_bytes(raw)
    return path


def raw(path, content):
    path.write_bytes(content)
    return path


def traversal(name):
    return lambda p: tar(p, entry("d/x", b"x"), entry(name, b"bad"))


def special(type, **more):
    return lambda p: tar(p, entry("d/x", b"x"), entry("d/special", type=type, **more))


def zip_traversal(name):
    return lambda p: zipped(p, ("d/x", b"x"), (name, b"bad"))


def nul_in_zip(p):
    zipped(p, ("d/good.png", b"x"))
    p.write_bytes(p.read_bytes().replace(b"d/good.png", b"d/good\0png"))
    return p


def pax(name):
    return lambda p: tar(
        p, entry(name, b"x", pax_headers={"path": name}), format=tarfile.PAX_FORMAT
    )


def symlink_and_through(p):
    link = entry("d/link", type=tarfile.SYMTYPE, link="../../outside")
    return tar(p, link, entry("d/link/file", b"through"))


BAD = {
    "parent": (traversal("d/../../evil"), "expected names below the target"),
    "parent alone": (traversal(".."), "expected names below the target"),
    "absolute": (traversal("/evil_by_tar"), "expected names below the target"),
    "backslash": (traversal("d\\..\\evil"), "expected names below the target"),
    "drive": (traversal("C:/evil"), "expected names below the target"),
    "newline": (traversal("d/a\nb"), "expected names below the target"),
    "nul": (pax("d/a\0b"), "expected names below the target"),
    "escape": (traversal("d/\x1b[2J"), "expected names below the target"),
    "not text": (traversal("d/\udcff"), "expected names below the target"),
    "long name": (traversal("d/" + "a" * 300), "expected names below the target"),
    "deep": (traversal("a/" * 600 + "x"), "expected names below the target"),
    "symlink": (special(tarfile.SYMTYPE, link="x"), "special' is neither"),
    "through a symlink": (symlink_and_through, "link' is neither"),
    "hard link": (special(tarfile.LNKTYPE, link="/etc/passwd"), "is neither"),
    "device": (special(tarfile.CHRTYPE, devmajor=1, devminor=3), "is neither"),
    "disk": (special(tarfile.BLKTYPE, devmajor=8), "is neither"),
    "pipe": (special(tarfile.FIFOTYPE), "is neither"),
    "bomb declared": (
        lambda p: tar(p, *(entry(f"d/{i}", b"\0" * 2**20) for i in range(5))),
        "expected at most 3145728 bytes",
    ),
    "bomb in a header": (huge_header, "is damaged"),
    "bomb behind the end": (more_behind, "more follows them"),
    "bomb in a zip": (
        lambda p: zipped(p, *((f"d/{i}", b"\0" * 2**20) for i in range(5))),
        "expected at most 3145728 bytes",
    ),
    "bomb undeclared in a zip": (lying_zip, "is damaged"),
    "too many": (
        lambda p: tar(p, *(entry(f"d/{i}") for i in range(40))),
        "expected at most 30 files",
    ),
    "too many in a zip": (
        lambda p: zipped(p, *((f"d/{i}", b"") for i in range(40))),
        "expected at most 30 files",
    ),
    "twice": (traversal("d/x"), "'d/x' is there twice"),
    "twice by another spelling": (traversal("./d//x"), "is there twice"),
    "file then folder": (traversal("d/x/y"), "is there twice"),
    "folder then file": (
        lambda p: tar(p, entry("d/x/y", b"y"), entry("d/x", b"x")),
        "is there twice",
    ),
    "zip parent": (zip_traversal("../evil"), "expected names below the target"),
    "zip absolute": (zip_traversal("/evil_by_zip"), "expected names below the target"),
    "zip nul": (nul_in_zip, "expected names below the target"),
    "zip link": (zip_link, "is a link or device"),
    "fewer bytes than declared": (lying_tar, "is damaged"),
    "no archive": (lambda p: raw(p, b"<html>not found</html>"), "it is none"),
    "nothing": (lambda p: raw(p, b""), "it is none"),
    "another folder": (lambda p: tar(p, entry("e/x", b"x")), "files in its folder d; found none"),
    "cut gz": (lambda p: cut(p, "w:gz", 0.6), "is damaged"),
    "cut xz": (lambda p: cut(p, "w:xz", 0.9), "is damaged"),
    "cut tar": (lambda p: cut(p, "w:", 0.1), "is damaged"),
    "cut zip": (lambda p: cut(p, "zip", 0.8), "is damaged"),
    "flipped gz": (lambda p: flipped(p, "w:gz"), "is damaged"),
    "flipped xz": (lambda p: flipped(p, "w:xz"), "is damaged"),
    "flipped zip": (lambda p: flipped(p, "zip"), "is damaged"),
    "no such archive": (lambda p: p, "No such file"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "message"), BAD.values(), ids=BAD)
def test_bad_archives_leave_nothing(make, message, tmp_path):
    archive = make(tmp_path / "archive")
    before = tree(tmp_path)
    with pytest.raises(InputError, match=message) as error:
        extract(archive, tmp_path / "out" / "d", inside="d", most_bytes=3 * 2**20, most_files=30)
    assert "\n" not in str(error.value)
    assert "archive" in str(error.value)
    assert [p for p in tree(tmp_path) if p != "out"] == before


def test_ctrl_c_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(tar, member, path, filter):
        (path / "half").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(tarfile.TarFile, "extract", interrupted)
    with pytest.raises(KeyboardInterrupt):
        extract(good(tmp_path / "archive", "w:xz"), tmp_path / "out")
    assert tree(tmp_path) == ["archive"]


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(tar, member, path, filter):
        (path / "half").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "extract", full)
    with pytest.raises(InputError, match="No space left on device"):
        extract(good(tmp_path / "archive", "w:xz"), tmp_path / "out")
    assert tree(tmp_path) == ["archive"]
