"""Shell completion: what the scripts know, and bash itself."""

import shutil
import subprocess

import pytest

from harness.cli import main as cli


def script(capsys, shell):
    assert cli.main(["completion", shell]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_a_script_knows_commands_and_options(capsys, shell):
    text = script(capsys, shell)
    assert "rescore" in text
    if shell != "tcsh":
        assert "--epochs" in text
        assert "epoch_selection" in text  # a study


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("harness resc", {"rescore"}),
        ("harness run surf", {"surfaces"}),
        ("harness run my_", {"my_study.py"}),
        ("harness run surfaces --no", {"--no-speed"}),
        ("harness data fe", {"fetch"}),
        ("harness cache --results her", {"here"}),
    ],
)
def test_bash_completes(capsys, tmp_path, line, completed):
    (tmp_path / "my_study.py").touch()
    (tmp_path / "my_notes.txt").touch()
    (tmp_path / "here").mkdir()
    words = line.split()
    code = (
        f"{script(capsys, 'bash')}\n"
        f"COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; COMPREPLY=()\n"
        f"_shtab_harness harness '{words[-1]}' '{words[-2]}'; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    done = subprocess.run(
        ["bash", "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert completed <= set(done.stdout.split())
    assert "my_notes.txt" not in done.stdout
