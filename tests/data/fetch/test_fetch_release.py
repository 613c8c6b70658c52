"""Downloads from a server on this machine: good, cut, corrupted, slow, changed, absent."""

import fcntl
import hashlib
import io
import json
import os
import socket
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from harness.cli import main as cli
from harness.data.counts import PUBLISHED_COUNTS
from harness.data.fetch import download
from harness.data.fetch.releases import RELEASES, Archive, Release

NOISE = os.urandom(300_000)  # does not compress: the archive is large enough to be cut
LICENCE = "CC TEST 1.0"


def make_archive(*parts, inside="", content=NOISE):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:xz", preset=0) as tar:
        for part in parts:
            info = tarfile.TarInfo(f"{inside}{part}/train/good/0.png")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


class Handler(BaseHTTPRequestHandler):
    """Serves ``server.files``, as ``server.how`` says."""

    def do_GET(self):
        server, how = self.server, self.server.how
        server.asked.append((self.path, self.headers["Range"], self.headers["If-Range"]))
        content = server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start, status = 0, 200
        tag = f'"{hashlib.sha256(content).hexdigest()[:8]}"'
        wanted = self.headers["Range"]
        same = self.headers["If-Range"] in (None, tag)
        if wanted and how.get("ranges", True) and same:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            status = 206 if start < len(content) else 416
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if how.get("tag", True):
            self.send_header("ETag", tag)
        if how.get("length", True):
            self.send_header("Content-Length", str(how.get("length_says", len(content) - start)))
        self.send_header("Content-Type", how.get("type", "application/octet-stream"))
        self.end_headers()
        body = content[start:]
        self.wfile.write(body[: how.get("cut", len(body))])
        for byte in body[: how.get("trickle", 0)]:
            self.wfile.write(bytes([byte]))
            time.sleep(0.02)
        server.released.wait(how.get("stall", 0))

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        pass  # a client that gave up

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.how, self.asked = {}, {}, []
        self.released = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.delenv("HARNESS_MIRROR", raising=False)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def content():
    return make_archive("left", "right", inside="top/")


@pytest.fixture
def offer(server, content, monkeypatch):
    """Make the data set ``tiny`` known: one archive with two categories."""

    def offer(digest="sha256", url=f"{server.url}/tiny.tar.xz", content=content):
        digest = f"{digest}:{hashlib.new(digest, content).hexdigest()}"
        archive = Archive(url, 1, digest, ("left", "right"), "top")
        source = Release("tiny", "Tiny", f"{server.url}/page", LICENCE, (archive,))
        monkeypatch.setitem(RELEASES, "tiny", source)
        server.files["/tiny.tar.xz"] = content

    offer()
    return offer


@pytest.fixture
def fetch(tmp_path, capsys):
    """Call the command; its exit code, output and errors."""

    def fetch(*arguments, name="tiny", folder=tmp_path / "tiny"):
        code = cli.main(["data", "fetch", name, "--data", str(folder), "--yes", *arguments])
        text = capsys.readouterr()
        assert text.err.count("\n") == (code != 0)
        return code, text.out + text.err

    return fetch


def tree(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


LEFT, RIGHT = "left/train/good/0.png", "right/train/good/0.png"
WHOLE = ["fetched.json", LEFT, RIGHT]
PART = ".downloads/tiny.tar.xz.part"


def test_good(server, offer, fetch, tmp_path, content):
    code, text = fetch()
    assert code == 0
    assert tree(tmp_path / "tiny") == WHOLE
    assert (tmp_path / "tiny" / LEFT).read_bytes() == NOISE
    assert LICENCE in text
    assert text.index(LICENCE) < text.index("tiny.tar.xz: sha256 as expected")
    assert f"next: harness doctor --data {tmp_path / 'tiny'}" in text
    record = json.loads((tmp_path / "tiny" / "fetched.json").read_text())
    assert record["licence"] == LICENCE
    assert record["archives"]["tiny.tar.xz"] == {
        "url": f"{server.url}/tiny.tar.xz",
        "sha256": hashlib.sha256(content).hexdigest(),
        "checked": True,
    }


def test_what_is_there_is_not_downloaded_again(server, offer, fetch, tmp_path):
    fetch()
    server.asked.clear()
    code, text = fetch()
    assert code == 0
    assert f"{tmp_path / 'tiny' / 'left'}: already there" in text
    assert "licence" not in text
    assert server.asked == []


def test_one_category_then_the_other_from_the_archive_that_was_kept(
    server, offer, fetch, tmp_path
):
    code, text = fetch("--category", "left")
    assert code == 0
    assert "kept for right" in text
    assert tree(tmp_path / "tiny") == [".downloads/tiny.tar.xz", "fetched.json", LEFT]
    code, text = fetch()
    assert code == 0
    assert "licence" not in text  # it was accepted before the first download
    assert len(server.asked) == 1
    assert tree(tmp_path / "tiny") == WHOLE
    record = json.loads((tmp_path / "tiny" / "fetched.json").read_text())
    assert record["archives"]["tiny.tar.xz"]["url"] == f"{server.url}/tiny.tar.xz"


@pytest.mark.parametrize("how", [{}, {"tag": False}, {"ranges": False}], ids=str)
def test_a_download_that_was_cut_goes_on(server, offer, fetch, tmp_path, content, how):
    server.how = {"cut": 100_000, **how}
    code, text = fetch()
    assert code == 2
    assert "the connection broke" in text
    assert "100000 bytes are kept, and the same command goes on there" in text
    assert tree(tmp_path / "tiny") == [PART, f"{PART}.json"]
    assert (tmp_path / PART.replace(".d", "tiny/.d")).read_bytes() == content[:100_000]
    server.how = how
    code, text = fetch()
    assert code == 0
    assert ("from byte 100000 on" in text) == how.get("ranges", True)
    assert server.asked[-1][1] == "bytes=100000-"
    assert (server.asked[-1][2] is not None) == how.get("tag", True)
    assert len(server.asked) == 2
    assert tree(tmp_path / "tiny") == WHOLE


@pytest.mark.parametrize("tag", [True, False])
def test_a_file_that_changed_meanwhile_is_begun_anew(server, offer, fetch, tmp_path, tag, content):
    server.how = {"cut": 100_000, "tag": tag}
    server.files["/tiny.tar.xz"] = os.urandom(150_000)
    fetch()
    server.how, server.files["/tiny.tar.xz"] = {"tag": tag}, content
    assert fetch()[0] == 0
    assert tree(tmp_path / "tiny") == WHOLE


def test_a_kept_part_longer_than_the_file_is_begun_anew(server, offer, fetch, tmp_path):
    server.how = {"cut": 400_000, "tag": False, "length_says": 600_000}
    server.files["/tiny.tar.xz"], good = os.urandom(600_000), server.files["/tiny.tar.xz"]
    fetch()
    server.how, server.files["/tiny.tar.xz"] = {"tag": False}, good[:350_000]
    assert "hash of downloaded file" in fetch()[1]
    server.files["/tiny.tar.xz"] = good
    assert fetch()[0] == 0


def test_a_part_that_was_whole_is_only_checked(server, offer, fetch, tmp_path, content):
    folder = tmp_path / "tiny" / ".downloads"
    folder.mkdir(parents=True)
    (folder / "tiny.tar.xz.part").write_bytes(content)
    (folder / "tmpkilled").write_bytes(content)  # pooch's while it checked
    about = {"url": "http://elsewhere/tiny.tar.xz", "total": len(content), "version": None}
    (folder / "tiny.tar.xz.part.json").write_text(json.dumps(about))
    assert fetch()[0] == 0
    assert server.asked == []
    assert tree(tmp_path / "tiny") == WHOLE


@pytest.mark.parametrize("damage", ["", "{", "[1]", '{"total": "x"}'])
def test_a_damaged_note_on_a_part_begins_anew(server, offer, fetch, tmp_path, damage):
    server.how = {"cut": 100_000}
    fetch()
    (tmp_path / "tiny" / f"{PART}.json").write_text(damage)
    server.how = {}
    assert fetch()[0] == 0
    assert tree(tmp_path / "tiny") == WHOLE


def test_ctrl_c_keeps_the_part(server, offer, fetch, tmp_path, monkeypatch):
    blocks = download._blocks

    def interrupted(reply):
        yield next(blocks(reply))
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "_blocks", interrupted)
    code, text = fetch()
    assert code == 130
    assert "goes on where it was" in text
    kept = (tmp_path / "tiny" / PART).stat().st_size
    assert kept > 0
    assert tree(tmp_path / "tiny") == [PART, f"{PART}.json"]
    monkeypatch.setattr(download, "_blocks", blocks)
    assert fetch()[0] == 0
    assert server.asked[-1][1] in (f"bytes={kept}-", None)


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_a_corrupted_download_is_removed(server, offer, fetch, tmp_path, content, kind):
    offer(kind)
    server.files["/tiny.tar.xz"] = bytes([*content[:1000], content[1000] ^ 1, *content[1001:]])
    code, text = fetch()
    assert code == 2
    assert f"expected {kind}:{hashlib.new(kind, content).hexdigest()} but got " in text
    assert not (tmp_path / "tiny").exists()
    server.files["/tiny.tar.xz"] = content
    code, text = fetch()
    assert code == 0
    assert f"tiny.tar.xz: {kind} as expected" in text


def test_an_archive_with_a_link_is_refused(server, offer, fetch, tmp_path):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:xz") as tar:
        info = tarfile.TarInfo("top/left/train")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc"
        tar.addfile(info)
    offer(content=file.getvalue())
    code, text = fetch()
    assert code == 2
    assert "expected files and folders only; 'top/left/train' is neither" in text
    assert not (tmp_path / "tiny" / "left").exists()


def closed_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


# What is wrong with a server → how it answers, and what is said. Only those that are silent are
# given up soon: a server and a client that share a process may be slow for other reasons.
FAILURES = {
    "silent": ({"stall": 60, "cut": 0}, "no answer within 0.3 s"),
    "silent halfway": ({"stall": 60, "cut": 5000}, "no answer within 0.3 s; 5000 bytes are kept"),
    "trickling": ({"trickle": 200, "cut": 0}, "less than 1024 bytes a second"),
    "endless": ({"length_says": 10**9, "cut": 0}, "offers 1000000000 bytes; expected at most"),
    "a web page": ({"type": "text/html; charset=utf-8"}, "a web page is there, not the file"),
    "cut without a length": ({"length": False, "cut": 5000}, "hash of downloaded file"),
}


@pytest.mark.parametrize(("how", "message"), FAILURES.values(), ids=FAILURES)
def test_bad_servers(server, offer, fetch, tmp_path, monkeypatch, how, message):
    server.how = how
    started = time.monotonic()
    with monkeypatch.context() as patched:
        patched.setattr(download, "SILENCE", 0.3 if "stall" in how else 2)
        code, text = fetch()
    assert code == 2
    assert message in text
    assert "expected a network, a --mirror that has it, or the file in" in text
    assert time.monotonic() - started < 30
    assert [p for p in tree(tmp_path) if ".downloads" not in p] == []
    server.released.set()
    server.how = {}
    assert fetch()[0] == 0
    assert tree(tmp_path / "tiny") == WHOLE


def test_an_answer_without_length_that_does_not_end(server, offer, fetch, tmp_path):
    server.how, server.files["/tiny.tar.xz"] = {"length": False}, bytes(3 * 2**20)
    assert "does not end; expected at most 2097152 bytes" in fetch()[1]
    assert not (tmp_path / "tiny").exists()


def test_no_such_file(server, offer, fetch, tmp_path):
    server.files.clear()
    code, text = fetch()
    assert code == 2
    assert f"{server.url}/tiny.tar.xz: the server answered 404" in text
    assert not (tmp_path / "tiny").exists()


def test_no_network(offer, fetch, tmp_path):
    offer(url=f"{closed_port()}/tiny.tar.xz")
    code, text = fetch()
    assert code == 2
    assert "no connection; expected a network, a --mirror that has it" in text
    assert not (tmp_path / "tiny").exists()


def test_without_a_network_a_file_put_there_by_hand_is_taken(offer, fetch, tmp_path, content):
    offer(url=f"{closed_port()}/tiny.tar.xz")
    (tmp_path / "tiny" / ".downloads").mkdir(parents=True)
    (tmp_path / "tiny" / ".downloads" / "tiny.tar.xz").write_bytes(content)
    assert fetch()[0] == 0
    assert tree(tmp_path / "tiny") == WHOLE


@pytest.mark.parametrize("by", ["option", "environment"])
def test_mirrors_are_asked_first_and_the_next_goes_on(
    server, offer, fetch, tmp_path, monkeypatch, by, content
):
    offer(url=f"{closed_port()}/publisher/tiny.tar.xz")
    server.files = {"/mirror/tiny.tar.xz": content}
    mirrors = [f"{server.url}/gone/", f"http://user:secret@{server.url[7:]}/mirror"]
    if by == "environment":
        monkeypatch.setenv("HARNESS_MIRROR", " ".join(mirrors))
        code, text = fetch()
    else:
        code, text = fetch("--mirror", mirrors[0], "--mirror", mirrors[1])
    assert code == 0
    assert [path for path, *_ in server.asked] == ["/gone/tiny.tar.xz", "/mirror/tiny.tar.xz"]
    record = (tmp_path / "tiny" / "fetched.json").read_text()
    assert f'"{server.url}/mirror/tiny.tar.xz"' in record
    assert "secret" not in record + text


def test_the_licence_must_be_accepted(server, offer, tmp_path, capsys, monkeypatch):
    call = ["data", "fetch", "tiny", "--data", str(tmp_path / "tiny")]
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert cli.main(call) == 2  # no terminal
    text = capsys.readouterr()
    assert LICENCE in text.out
    assert "--yes: expected, to accept the licence" in text.err
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    answers = iter(["", "no", EOFError, "Yes"])

    def answer(_):
        said = next(answers)
        if said is EOFError:
            raise EOFError
        return said

    monkeypatch.setattr("builtins.input", answer)
    for _ in range(3):
        assert cli.main(call) == 2
        assert "not accepted; nothing was downloaded" in capsys.readouterr().err
        assert server.asked == []
        assert not (tmp_path / "tiny").exists()
    assert cli.main(call) == 0
    assert tree(tmp_path / "tiny") == WHOLE


def test_two_at_once(server, offer, fetch, tmp_path):
    (tmp_path / "tiny").mkdir()
    other = os.open(tmp_path / "tiny", os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    code, text = fetch()
    assert code == 2
    assert "another fetch is writing here" in text
    assert server.asked == []
    os.close(other)
    assert fetch()[0] == 0


BAD = {
    "data set": (["--yes"], {"name": "mvtec"}, "unknown data set 'mvtec'; did you mean"),
    "category": (["--category", "lefd"], {}, "unknown category 'lefd'; did you mean 'left'"),
    "cifar10 class": (["--category", "cat"], {"name": "cifar10"}, "cifar10 comes as a whole"),
    "mirror": (["--mirror", "ftp://host"], {}, "--mirror or HARNESS_MIRROR: expected http://"),
    "mirror without host": (
        ["--mirror", "https://"],
        {},
        "--mirror or HARNESS_MIRROR: expected http://",
    ),
    "mirror address": (
        ["--mirror", "http://[::1"],
        {},
        "--mirror or HARNESS_MIRROR: expected http://",
    ),
}


@pytest.mark.parametrize(("arguments", "more", "message"), BAD.values(), ids=BAD)
def test_bad_input(server, offer, fetch, tmp_path, arguments, more, message):
    code, text = fetch(*arguments, **more)
    assert code == 2
    assert message in text
    assert server.asked == []
    assert tree(tmp_path) == []


def test_bad_folders(server, offer, fetch, tmp_path):
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        code, text = fetch(folder=folder)
        assert code == 2
        assert "could not be written" in text
    (tmp_path / "tiny").mkdir()
    for damage in ("{", "[]", '{"archives": {"x": 1}}', '{"archives": []}'):
        (tmp_path / "tiny" / "fetched.json").write_text(damage)
        code, text = fetch()
        assert code == 2
        assert "fetched.json: expected what an earlier fetch recorded" in text
    assert server.asked == []


def test_a_full_disk(server, offer, fetch, tmp_path, monkeypatch):
    def full(reply):
        raise OSError(28, "No space left on device")
        yield

    monkeypatch.setattr(download, "_blocks", full)
    code, text = fetch()
    assert code == 2
    assert "could not be written (No space left on device)" in text


def test_list(capsys):
    assert cli.main(["data", "list"]) == 0
    text = capsys.readouterr().out
    assert "CC BY-NC-SA 4.0" in text
    assert cli.main(["data", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert set(listed) == {"mvtec_ad", "btad", "cifar10"}
    for source in listed.values():
        assert source["page"] in text
        for archive in source["archives"]:
            assert archive["url"] in text


def test_sources_are_whole():
    assert RELEASES["mvtec_ad"].parts == tuple(PUBLISHED_COUNTS["mvtec_ad"])
    assert RELEASES["btad"].parts == tuple(PUBLISHED_COUNTS["btad"])
    digests = [a.digest for s in RELEASES.values() for a in s.archives]
    assert len(set(digests)) == len(digests) == 17
    for digest in digests:
        algorithm, _, value = digest.partition(":")
        assert algorithm == "sha256"
        assert len(bytes.fromhex(value)) == 32
