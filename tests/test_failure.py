import sys
from pathlib import Path

import pytest
from programs import unread

from simclr import failure
from simclr.failure import UserError


def test_a_stage_that_succeeds_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    calls = []
    failure.run("stage", lambda: calls.append("called"))
    assert calls == ["called"]
    assert capsys.readouterr() == ("", "")


def test_a_user_error_is_one_line_on_stderr_and_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise UserError("images/a.png: cannot be read\n  (truncated)")

    with pytest.raises(SystemExit) as end:
        failure.run("fetch", main)
    assert end.value.code == 1
    assert capsys.readouterr() == ("", "fetch: error: images/a.png: cannot be read (truncated)\n")


def test_an_interrupt_is_one_line_and_the_shell_s_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as end:
        failure.run("fetch", main)
    assert end.value.code == 130
    assert capsys.readouterr() == ("", "fetch: interrupted\n")


def test_a_bug_keeps_its_traceback() -> None:
    def main() -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug") as caught:
        failure.run("fetch", main)
    assert caught.traceback[-1].name == "main"


@pytest.mark.parametrize("unbuffered", [False, True])
def test_what_nobody_reads_ends_it_without_a_word(unbuffered: bool, tmp_path: Path) -> None:
    code = "from simclr import failure; failure.run('stage', lambda: print(3))"
    done = unread(sys.executable, "-c", code, folder=tmp_path, unbuffered=unbuffered)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_pipe_of_our_own_that_breaks_is_a_bug() -> None:
    def main() -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        failure.run("fetch", main)
