"""How scripts end, by scripts/program.py."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.programs import ROOT, unread

SCRIPTS = ("drop-killed", "relock", "report-page", "review-comment", "seeds")


def call(main: str, folder: Path, *, stdout: str = "out.txt", unbuffered: str = "") -> subprocess.CompletedProcess[str]:
    """Run a script `tool` whose function is `main`, with stdout in the file `stdout`."""
    script = folder / "tool"
    script.write_text(f"import os, sys, program\ndef main():\n    {main}\nprogram.run(main)\n")
    environment = os.environ | {"PYTHONPATH": str(ROOT / "scripts"), "PYTHONUNBUFFERED": unbuffered}
    with (folder / stdout).open("w") as out:
        return subprocess.run(
            [sys.executable, str(script)], cwd=folder, env=environment, stdout=out, stderr=subprocess.PIPE, text=True
        )


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_ends_by_it(name: str) -> None:
    assert (ROOT / "scripts" / name).read_text().endswith('\n\nif __name__ == "__main__":\n    program.run(main)\n')


def test_these_are_all_scripts_in_python() -> None:
    files = [path for path in (ROOT / "scripts").iterdir() if path.is_file() and not path.suffix]
    assert {path.name for path in files if "python" in path.read_text().splitlines()[0]} == set(SCRIPTS)


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("end", ["print(3)", "print(3); sys.exit(2)"])
def test_a_full_disk_under_stdout_is_one_line(end: str, unbuffered: str, tmp_path: Path) -> None:
    done = call(end, tmp_path, stdout="/dev/full", unbuffered=unbuffered)
    assert (done.returncode, done.stderr) == (1, "tool: stdout: cannot be written (No space left on device)\n")


def test_a_full_disk_under_a_file_names_it(tmp_path: Path) -> None:
    done = call("raise OSError(28, os.strerror(28), 'page.html')", tmp_path)
    assert (done.returncode, done.stderr) == (1, "tool: page.html: cannot be written (No space left on device)\n")


@pytest.mark.parametrize(
    ("main", "code", "said"),
    [
        ("print(3)", 0, ""),
        ("sys.exit(2)", 2, ""),
        ("program.die('a\\n b')", 1, "tool: a b\n"),
        ("raise KeyboardInterrupt", 130, "tool: interrupted\n"),
        ("print('\\udc80')", 0, ""),
    ],
)
def test_any_other_end_is_as_it_says(main: str, code: int, said: str, tmp_path: Path) -> None:
    done = call(main, tmp_path)
    assert (done.returncode, done.stderr) == (code, said)


def test_an_error_of_its_own_keeps_its_traceback(tmp_path: Path) -> None:
    done = call("open('missing')", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")


def test_a_stdout_that_is_closed_is_no_matter(tmp_path: Path) -> None:
    code = "import program; program.run(lambda: print(3))"
    command = ["bash", "-c", 'exec "$@" >&-', "bash", sys.executable, "-c", code]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "scripts")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_reader_who_leaves_ends_it_without_a_word(name: str, tmp_path: Path) -> None:
    done = unread(sys.executable, str(ROOT / "scripts" / name), "--help", folder=tmp_path, unbuffered=True)
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, "")
