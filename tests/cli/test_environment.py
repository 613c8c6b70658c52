"""Any shell, any machine: what variables, streams and folders may be without harm."""

import errno
import io
import os
import pty
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest

from harness.cli import main as cli
from harness.cli import options, surroundings
from harness.errors import InputError, RunFailed
from harness.methods.flow import compiled
from harness.run import forking


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_every_list_prints_in_any_encoding(encoding, monkeypatch):
    for command in (["list"], ["fields"], ["data", "list"]):
        written = io.BytesIO()
        terminal = io.TextIOWrapper(written, encoding)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", terminal)
            assert cli.main(command) == 0
        assert len(written.getvalue().decode(encoding).splitlines()) > 3


def test_a_name_that_is_no_text_keeps_its_bytes():
    name = os.fsdecode(b"n\xfcss_\xe6\xbc\xa2")
    surroundings.settle()
    assert name.encode("utf-8", "plain") == b"n\xfcss_\xe6\xbc\xa2"


STREAMS = {
    "a closed output": "list >&-",
    "both closed": "list >&- 2>&-",
    "no input": "list <&-",
    "a reader that leaves": "list | head -1",
    "a full disk": "list >/dev/full",
    "ASCII everywhere": "list",
}


@pytest.mark.parametrize("words", STREAMS.values(), ids=STREAMS)
def test_no_stream_ends_in_a_traceback(words, tmp_path):
    if "/dev/full" in words and not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    ran = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{shlex.quote(sys.executable)} -m harness {words}"],
        capture_output=True, text=True, check=False,
        env={**os.environ, "LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONIOENCODING": ""},
    )  # fmt: skip
    assert ran.returncode == (2 if "full" in words else 0)
    lines = ran.stderr.splitlines()
    assert len(lines) == ("full" in words)
    assert all("No space left" in line for line in lines)


ENDS = {0: None, 1: RunFailed("no run succeeded"), 2: InputError("epochs: 0"), 143: None}


@pytest.fixture
def speaking(monkeypatch):
    """A command that prints, then ends by what the list holds for it; how often it came so far."""
    ends, came = [], []

    def speak(options: options.Listing) -> int:
        """Print, and end in some way."""
        for _ in range(3):
            print("a line", flush=True)
            print("a line", file=sys.stderr)
        came.append(True)
        if ends[0] == 143:
            signal.raise_signal(signal.SIGTERM)
        if error := ENDS.get(ends[0]):
            raise error
        return ends[0]

    monkeypatch.setitem(cli.COMMANDS["look around"], "list", speak)
    before = {number: signal.getsignal(number) for number in surroundings.ENDING}
    yield ends, came
    for number, handler in before.items():
        signal.signal(number, handler)


def left_by_its_reader(*, kind):
    reads, writes = pty.openpty() if kind == "a terminal" else os.pipe()
    os.close(reads)
    return io.TextIOWrapper(os.fdopen(writes, "wb", 0), write_through=kind != "a pipe")


@pytest.mark.parametrize("code", ENDS)
@pytest.mark.parametrize("kind", ["a pipe", "an unbuffered pipe", "a terminal"])
@pytest.mark.parametrize("names", [("stdout",), ("stderr",), ("stdout", "stderr")])
def test_a_reader_that_leaves_changes_neither_work_nor_exit_code(
    names, kind, code, speaking, monkeypatch
):
    ends, came = speaking
    ends.append(code)
    with ExitStack() as opened, monkeypatch.context() as patch:
        for name in names:
            stream = opened.enter_context(left_by_its_reader(kind=kind))
            patch.setattr(sys, name, stream)
        assert cli.main(["list"]) == code
    assert came


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("code", ENDS)
def test_a_full_disk_under_the_output_ends_no_work_and_is_said(
    code, speaking, monkeypatch, capsys
):
    ends, came = speaking
    ends.append(code)
    with open("/dev/full", "w") as full, monkeypatch.context() as patch:  # noqa: PTH123
        patch.setattr(sys, "stdout", full)
        assert cli.main(["list"]) == (code or 2)
    assert came
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "harness: what is printed: No space left on device"


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.EMFILE, "a file: Too many open files; raise the limit, as by `ulimit -n 1024`"),
        (errno.ENOSPC, "a file: No space left on device; expected room for it; free some, and "
                       "start again"),
    ],
)  # fmt: skip
def test_a_limit_that_a_command_meets_is_not_taken_for_the_output(
    number, says, speaking, monkeypatch, capsys
):
    """The system names no file where a pipe is opened, or what was opened is written."""
    ends, _ = speaking
    ends.append(number)
    monkeypatch.setitem(ENDS, number, OSError(number, os.strerror(number)))
    assert cli.main(["list"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"harness: {says}"


def test_a_pipe_beyond_the_open_files_is_such_a_limit(speaking, monkeypatch, capsys):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def speak(options: options.Listing) -> int:
        """Open one pipe too many."""
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            os.pipe()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return 0

    monkeypatch.setitem(cli.COMMANDS["look around"], "list", speak)
    assert cli.main(["list"]) == 1
    assert "harness: a file: Too many open files; raise" in capsys.readouterr().err


def test_a_working_folder_that_is_gone_is_named(tmp_path, monkeypatch, capsys):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert cli.main(["list"]) == 2
    said = capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    assert said == "harness: working folder: expected one that is there; it was removed; " \
        "cd to another\n"  # fmt: skip


def test_variables_are_put_right_or_named(monkeypatch, capsys):
    given = {"XDG_CACHE_HOME": "", "XDG_CONFIG_HOME": "~/x", "MPLBACKEND": "module://backend_x"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_DATA_HOME", "/x")
    before = os.umask(0o777)
    try:
        surroundings.settle()
        assert os.umask(0) == 0o077
    finally:
        os.umask(before)
    assert not set(given) & set(os.environ)
    assert os.environ["XDG_DATA_HOME"] == "/x"
    monkeypatch.setenv("HARNESS_NATIVE", "no")
    assert cli.main(["list"]) == 2
    assert capsys.readouterr().err == "harness: HARNESS_NATIVE: expected 0 or 1; got 'no'\n"


def test_a_tilde_that_the_shell_leaves_is_the_users_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    parser = cli.make_parser()
    given = ["--results=~/r", "--data=~/d", "--weights=~nobody-of-this-name/w"]
    options = parser.parse_args(["doctor", *given])
    assert options.results == tmp_path / "r"
    assert options.data == tmp_path / "d"
    options = parser.parse_args(["images", "surfaces", "--common=~/c"])
    assert options.common == tmp_path / "c"
    assert parser.parse_args(["gap", "--baseline=~"]).baseline == tmp_path


@pytest.fixture
def compile_anew(tmp_path, monkeypatch):
    """Compile as told by these variables, in vain or not; gives why not."""

    def compiled_with(**variables):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        compiled._library.cache_clear()
        return compiled.why_not()

    yield compiled_with
    compiled._library.cache_clear()


@pytest.mark.parametrize("arguments", ["-std=c++17", "'-DX=a b'"])
def test_a_compiler_with_arguments_is_used(arguments, compile_anew, monkeypatch, tmp_path):
    known = shutil.which("c++")
    if known is None:
        pytest.skip("no C++ compiler here")
    asked = []
    monkeypatch.setattr(compiled.subprocess, "run", lambda words, **rest: asked.append(words))
    assert "cannot be kept" in compile_anew(CXX=f"c++ {arguments}")  # nothing was written
    assert asked[0][:2] == [known, *shlex.split(arguments)]


NO_COMPILER = {
    "nothing of the name": ("no-such-compiler -O2", "found no program no-such-compiler -O2"),
    "an open quote": ('c++ "', 'found no program c++ "'),
    "blanks": ("  ", "found no program"),
    "one that fails": (f"{sys.executable} -c 'exit(3)'", "failed: it said nothing"),
}


@pytest.mark.parametrize(("cxx", "why"), NO_COMPILER.values(), ids=NO_COMPILER)
def test_why_nothing_is_compiled(cxx, why, compile_anew):
    said = compile_anew(CXX=cxx)
    assert "CXX" in said
    assert why in said
    assert compiled.library() is None


def test_a_cache_that_cannot_be_written_is_named(compile_anew, tmp_path):
    if shutil.which("c++") is None:
        pytest.skip("no C++ compiler here")
    (tmp_path / "file").touch()
    assert "XDG_CACHE_HOME" in compile_anew(XDG_CACHE_HOME=str(tmp_path / "file"))
    assert compile_anew(HARNESS_NATIVE="0") == "HARNESS_NATIVE is 0"


@pytest.fixture
def long_folder(tmp_path, monkeypatch):
    """A folder for temporary files whose path is too long for a socket's."""
    folder = tmp_path / ("x" * forking.LONGEST)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    made = []
    monkeypatch.setattr(forking.util, "get_temp_dir", lambda: made.append(tempfile.mkdtemp()))
    yield folder, made
    for path in made:
        Path(path).rmdir()


def test_sockets_are_kept_in_a_short_folder(long_folder):
    usual, made = long_folder
    forking._make_room_for_sockets()
    assert len(made[0]) < forking.LONGEST
    assert tempfile.gettempdir() == str(usual)  # all else stays where it was asked for


def test_no_folder_for_sockets_names_tmpdir(long_folder, monkeypatch):
    monkeypatch.setattr(forking, "SHORT", ())
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    with pytest.raises(InputError, match=r"^TMPDIR: expected .* at most 71 bytes.*xxx'$"):
        forking._make_room_for_sockets()


def imported(folder, **variables):
    """Import matplotlib in a process of its own, as a report does, in this folder."""
    script = (
        "import logging; logging.getLogger('matplotlib').setLevel('ERROR');"  # of many fonts
        "from harness.report.pages import import_matplotlib as first; first(); first();"
        "import matplotlib as m; print(m.get_cachedir(), m.get_backend(),"
        " m.rcParams['lines.linewidth'])"
    )
    environ = {**os.environ, "HOME": "/proc", "XDG_CACHE_HOME": str(folder / "cache"), **variables}
    return subprocess.run(
        [sys.executable, "-c", script], cwd=folder, env=environ, capture_output=True, text=True
    )


def test_matplotlib_is_imported_without_a_persons_settings(tmp_path):
    """Its fonts are kept where that can be: it would look for them for seconds, and warn."""
    (tmp_path / "mine").write_text("lines.linewidth: 9\n")
    ran = imported(tmp_path, MATPLOTLIBRC=str(tmp_path / "mine"), MPLBACKEND="nonsense")
    fonts = tmp_path / "cache" / "fastflow-harness" / "matplotlib"
    assert ran.stderr == ""
    assert ran.stdout.split() == [str(fonts), "agg", "1.5"]


def test_settings_of_matplotlib_that_are_none_are_named(tmp_path):
    (tmp_path / "matplotlibrc").write_bytes(b"font.size: \xff\n")
    ran = imported(tmp_path)
    assert "InputError: matplotlibrc: expected settings of matplotlib" in ran.stderr


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["--ray-address", "a:6379"], "--executor ray"),
        (["--grow", "--executor", "ray"], "--executor local"),
        (["--grow", "--device", "cuda"], "--device cpu"),
        (["--device", "cuda:0,cuda:1", "--jobs", "1"], "--jobs 2 or more, or none"),
    ],
)
def test_an_option_without_effect_beside_another_is_refused(options, wanted, capsys):
    assert cli.main(["plan", "surfaces", *options]) == 2
    assert f"expected {wanted} beside it" in capsys.readouterr().err
