import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from simclr.core import entry
from simclr.core.errors import Stopped, UserError
from tests.helpers.programs import ROOT, unread


def test_a_stage_that_succeeds_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    calls = []
    entry.run("stage", lambda: calls.append("called"))
    assert calls == ["called"]
    assert capsys.readouterr() == ("", "")


def test_a_user_error_is_one_line_on_stderr_and_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise UserError("images/a.png: cannot be read\n  (truncated)")

    with pytest.raises(SystemExit) as end:
        entry.run("fetch", main)
    assert end.value.code == 1
    assert capsys.readouterr() == ("", "fetch: error: images/a.png: cannot be read (truncated)\n")


def test_an_interrupt_is_one_line_and_the_shell_s_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as end:
        entry.run("fetch", main)
    assert end.value.code == 130
    assert capsys.readouterr() == ("", "fetch: interrupted\n")


def stop() -> None:
    raise Stopped(signal.SIGUSR1, " at step 8")


@pytest.mark.parametrize("worker", [False, True])
def test_a_stop_after_a_signal_leaves_its_line_where_a_job_s_script_looks(
    worker: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STOPPED_FILE", str(tmp_path / "stopped"))
    if worker:  # its agent writes the line, on the node where the script is
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    with pytest.raises(SystemExit) as end:
        entry.run("pretrain", stop)
    assert end.value.code == 138
    line = "pretrain: stopped by SIGUSR1 at step 8\n"
    assert capsys.readouterr().err == ("" if worker else line)
    assert (tmp_path / "stopped").exists() is not worker
    assert worker or (tmp_path / "stopped").read_text() == line


def test_an_error_leaves_no_such_line_and_a_file_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> None:
        raise UserError("no")

    file = tmp_path / "none" / "stopped"
    monkeypatch.setenv("STOPPED_FILE", str(tmp_path / "stopped"))
    with pytest.raises(SystemExit):
        entry.run("fetch", main)
    assert not (tmp_path / "stopped").exists()
    monkeypatch.setenv("STOPPED_FILE", str(file))
    with pytest.raises(SystemExit) as end:
        entry.run("fetch", stop)
    assert end.value.code == 138
    assert capsys.readouterr().err == (
        f"fetch: error: no\nfetch: stopped by SIGUSR1 at step 8; STOPPED_FILE = {file} cannot be written (No such file "
        "or directory)\n"
    )


def test_a_bug_keeps_its_traceback() -> None:
    def main() -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug") as caught:
        entry.run("fetch", main)
    assert caught.traceback[-1].name == "main"


@pytest.mark.parametrize("unbuffered", [False, True])
def test_what_nobody_reads_ends_it_without_a_word(unbuffered: bool, tmp_path: Path) -> None:
    code = "from simclr.core import entry; entry.run('stage', lambda: print(3))"
    done = unread(sys.executable, "-c", code, folder=tmp_path, unbuffered=unbuffered)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_under_stdout_is_one_line(unbuffered: str, tmp_path: Path) -> None:
    code = "from simclr.core import entry; entry.run('stage', lambda: print(3))"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": unbuffered}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=environment, stdout=full, stderr=subprocess.PIPE, text=True
        )
    said = "stage: error: stdout or a temporary file: cannot be written (No space left on device)\n"
    assert (done.returncode, done.stderr) == (1, said)


@pytest.mark.parametrize(("main", "code"), [("lambda: None", 0), ("lambda: sys.exit(3)", 3)])
def test_a_stdout_that_is_closed_is_no_matter(main: str, code: int, tmp_path: Path) -> None:
    program = f"import sys; from simclr.core import entry; entry.run('stage', {main})"
    command = ["bash", "-c", 'exec "$@" >&-', "bash", sys.executable, "-c", program]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (code, "")


def test_a_full_quota_is_one_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), "out.csv")

    with pytest.raises(SystemExit):
        entry.run("embed", main)
    assert capsys.readouterr().err == "embed: error: out.csv: cannot be written (Disk quota exceeded)\n"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENAMETOOLONG, errno.EIO])
def test_a_file_out_of_reach_is_one_line(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise OSError(number, os.strerror(number), "folder/in")

    with pytest.raises(SystemExit):
        entry.run("embed", main)
    assert capsys.readouterr().err == f"embed: error: folder/in: {os.strerror(number)}\n"


def test_a_file_of_ours_that_is_not_there_is_a_bug() -> None:
    with pytest.raises(FileNotFoundError):
        entry.run("embed", lambda: Path("missing").read_text())  # type: ignore[arg-type,return-value]


def test_a_pipe_of_our_own_that_breaks_is_a_bug() -> None:
    def main() -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        entry.run("fetch", main)


def test_ctrl_c_among_imports_is_one_line(tmp_path: Path) -> None:
    program = tmp_path / "fetch.py"
    program.write_text("from simclr.core import entry\nraise KeyboardInterrupt")
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, check=False)
    assert done.returncode in (130, -signal.SIGINT)
    assert done.stderr == "fetch: interrupted\n"


def test_another_exception_among_imports_keeps_its_traceback(tmp_path: Path) -> None:
    program = tmp_path / "fetch.py"
    program.write_text("from simclr.core import entry\nraise ValueError('a bug')")
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, check=False)
    assert done.stderr.startswith("Traceback")
    assert done.stderr.endswith("ValueError: a bug\n")
