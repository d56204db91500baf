"""Under DVC: killed, it goes on with the same command; run twice, and in two clones, it gives the same bytes."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.helpers.programs import ROOT, TINY, await_checkpoint, change

pytestmark = pytest.mark.slow

EPOCHS = 40  # seconds of training
ENCODER = "models/encoder.safetensors"


def command(name: str, *arguments: str, folder: Path, code: int = 0) -> str:
    """What a command prints, which must end with that `code`."""
    done = subprocess.run([name, *arguments], cwd=folder, env=environment(), capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def environment() -> dict[str, str]:
    return os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "CHECKPOINT_MINUTES": "0",
        "GIT_AUTHOR_NAME": "n", "GIT_AUTHOR_EMAIL": "e", "GIT_COMMITTER_NAME": "n", "GIT_COMMITTER_EMAIL": "e",
    }  # fmt: skip


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the files of this one, and smaller parameters; nothing has run in it."""
    folder = tmp_path_factory.mktemp("origin")
    for path in command("git", "ls-files", "-co", "--exclude-standard", folder=ROOT).splitlines():
        if (ROOT / path).is_file() and path != "dvc.lock" and not path.startswith("reports/"):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, folder / path)
    change(folder, **TINY | {"pretrain__epochs": EPOCHS})
    commit(folder)
    return folder


def commit(folder: Path) -> None:
    if not (folder / ".git").exists():
        command("git", "init", "-q", folder=folder)
    command("git", "add", "-A", folder=folder)
    command("git", "commit", "-q", "--allow-empty", "-m", "state", folder=folder)


def cloned(origin: Path, folder: Path) -> Path:
    command("git", "clone", "-q", str(origin), str(folder), folder=origin)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Everything that the pipeline wrote."""
    paths = [path for name in ("data", "models", "reports") for path in (folder / name).rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def done(origin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone in which the pipeline has run."""
    folder = cloned(origin, tmp_path_factory.mktemp("done") / "clone")
    command("dvc", "repro", folder=folder)
    commit(folder)
    return folder


def test_twice_and_in_two_clones_it_gives_the_same_bytes(done: Path, origin: Path, tmp_path: Path) -> None:
    first, lock = contents(done), (done / "dvc.lock").read_bytes()
    assert len(first) > 20
    command("dvc", "repro", "-f", folder=done)
    assert contents(done) == first
    assert (done / "dvc.lock").read_bytes() == lock
    other = cloned(origin, tmp_path / "other")
    command("dvc", "repro", folder=other)
    assert contents(other) == first
    assert (other / "dvc.lock").read_bytes() == lock
    assert command("dvc", "repro", folder=other).count("didn't change, skipping") == 9


def test_another_style_of_a_picture_runs_no_stage_that_computes(done: Path, tmp_path: Path) -> None:
    clone = ready(done, tmp_path)
    before, style = contents(clone), clone / "src" / "simclr" / "report" / "sheets.py"
    style.write_text(style.read_text().replace("#009e73", "#000000"))
    said = command("dvc", "repro", folder=clone)
    assert re.findall(r"^Running stage '(.+)':$", said, re.MULTILINE) == ["draw"]
    changed = {path for path, content in contents(clone).items() if before[path] != content}
    assert changed == {"reports/draw/neighbors.png", "reports/draw/run.json"}


def test_a_fresh_clone_is_clean_after_a_run(done: Path, tmp_path: Path) -> None:
    clone = cloned(done, tmp_path / "clone")
    command("dvc", "repro", folder=clone)
    assert command("git", "status", "--short", folder=clone) == ""


def test_a_wrong_value_of_the_last_stage_is_refused_before_the_first(origin: Path, tmp_path: Path) -> None:
    clone = cloned(origin, tmp_path / "clone")
    wrong = ("-S", "linear_eval.cached.max_iterations=0")
    said = command("dvc", "exp", "run", *wrong, folder=clone, code=255)
    assert "fetch: error: params.yaml: linear_eval.cached.max_iterations = 0 is not allowed; it takes" in said
    assert not (clone / "data" / "raw").exists()  # DVC makes the folder around it


@pytest.mark.parametrize("mode", ["repro", "exp run --temp"])
def test_it_runs_without_the_environment_on_the_path(mode: str, origin: Path, tmp_path: Path) -> None:
    clone = cloned(origin, tmp_path / "clone")
    (clone / ".venv").symlink_to(sys.prefix)
    dvc = [str(clone / ".venv" / "bin" / "dvc"), *mode.split(), "-s", "fetch"]
    done = subprocess.run(dvc, cwd=clone, env=environment() | {"PATH": "/usr/bin:/bin"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_two_queued_experiments_share_their_pretraining(done: Path, tmp_path: Path) -> None:
    clone = ready(done, tmp_path)
    # other parameters than those of `done`, whose result DVC would take from its run cache
    changed = ("-S", f"pretrain.epochs={EPOCHS - 1}", "-S", "linear_eval.seed=range(0,2)")
    command("dvc", "exp", "run", "--queue", *changed, folder=clone)
    subprocess.run(
        ["dvc", "queue", "start", "-j", "2"], cwd=clone, env=environment(), check=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 900
    while (table := command("dvc", "queue", "status", folder=clone)).count("Success") < 2:
        assert time.monotonic() < deadline, table
        time.sleep(1)
    tasks = [line.split()[0] for line in table.splitlines() if "Success" in line]
    said = "".join(command("dvc", "queue", "logs", task, folder=clone) for task in tasks)
    assert said.count(" is running the same experiment; waiting for its result") == 1
    steps = 5 * (EPOCHS - 1)
    assert f"goes on from step {steps} of {steps}" in said
    names = command("git", "for-each-ref", "--format=%(refname)", "refs/exps/*/*/*", folder=clone).split()
    locks = {hashed(command("git", "show", f"{name}:dvc.lock", folder=clone)) for name in names if "-" in name}
    assert len(locks) == 1


def test_two_at_once_do_no_harm(done: Path, tmp_path: Path) -> None:
    clone = ready(done, tmp_path)
    first = start(clone, "repro", "-f", "-s", "pretrain")
    await_checkpoint(clone)
    said = command("dvc", "repro", "-f", "-s", "pretrain", folder=clone, code=255)
    assert f"(PID {first.pid})" in said
    _, said = first.communicate()
    assert first.returncode == 0, said
    assert contents(clone) == contents(done)


def ready(done: Path, tmp_path: Path) -> Path:
    """A clone with the data converted."""
    clone = cloned(done, tmp_path / "clone")
    command("dvc", "config", "cache.dir", str(done / ".dvc" / "cache"), folder=clone)
    command("dvc", "checkout", folder=clone)
    shutil.rmtree(clone / ".dvc" / "cache", ignore_errors=True)
    return clone


def start(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        ["dvc", *arguments], cwd=folder, env=environment(), start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def kill_dvc(process: "subprocess.Popen[str]") -> None:
    """The stage that it runs is left behind."""
    process.kill()


def kill_all(process: "subprocess.Popen[str]") -> None:
    os.killpg(process.pid, signal.SIGKILL)


def kill_stage(process: "subprocess.Popen[str]") -> None:
    for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        os.kill(int(child), signal.SIGKILL)


def hashed(lock: str) -> str:
    """The encoder's hash by dvc.lock."""
    outs = YAML(typ="safe").load(lock)["stages"]["pretrain"]["outs"]
    return next(str(out["md5"]) for out in outs if out["path"] == ENCODER)


@pytest.mark.parametrize("kill", [kill_stage, kill_dvc, kill_all])
@pytest.mark.parametrize("mode", ["repro", "exp run", "exp run --temp"])
def test_killed_it_goes_on_with_the_same_command(
    mode: str, kill: Callable[["subprocess.Popen[str]"], None], done: Path, tmp_path: Path
) -> None:
    clone = ready(done, tmp_path)
    arguments = [*mode.split(), *(["-n", "name"] if "exp" in mode else []), "-f", "-s", "pretrain"]
    first = start(clone, *arguments)
    await_checkpoint(clone)
    time.sleep(0.5)
    kill(first)
    first.communicate()
    assert first.returncode != 0
    said = command("dvc", *arguments, folder=clone)
    assert "pretrain: goes on from step " in said
    if mode == "repro":
        lock = (clone / "dvc.lock").read_text()
        assert contents(clone) == contents(done)
    else:
        name = command("git", "for-each-ref", "--format=%(refname)", "refs/exps/*/*/name", folder=clone).strip()
        lock = command("git", "show", f"{name}:dvc.lock", folder=clone)
    assert hashed(lock) == hashed((done / "dvc.lock").read_text())


def test_a_queued_experiment_that_was_killed_goes_on_when_queued_again(done: Path, tmp_path: Path) -> None:
    clone = ready(done, tmp_path)
    queue = ("exp", "run", "--queue", "-n", "name", "-f", "-s", "pretrain")
    # other parameters than those of `done`, whose result DVC would take from its run cache
    changed = ("-S", f"pretrain.epochs={EPOCHS - 1}")
    for attempt in range(2):
        command("dvc", *queue, *changed, folder=clone)
        # the worker goes on in the background, and would hold a pipe open
        subprocess.run(
            ["dvc", "queue", "start"], cwd=clone, env=environment(), check=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        if attempt == 0:
            await_checkpoint(clone)
            subprocess.run(["pkill", "-KILL", "-f", f"exec-run.*{clone}|{clone}.*exec-run"], check=True)
            await_status(clone, "Failed")
    await_status(clone, "Success")
    name = command("git", "for-each-ref", "--format=%(refname)", "refs/exps/*/*/name", folder=clone).strip()
    lock = command("git", "show", f"{name}:dvc.lock", folder=clone)
    record = (clone / "runs" / "name" / "pretrain" / "machine.json").read_text()
    assert '"0": 1,' in record  # and another start after it
    other = cloned(clone, tmp_path / "other")
    command("dvc", "config", "cache.dir", str(tmp_path / "cache"), folder=other)
    command("dvc", "exp", "run", *changed, "pretrain", folder=other)
    assert hashed(lock) == hashed((other / "dvc.lock").read_text())


def await_status(folder: Path, status: str) -> None:
    deadline = time.monotonic() + 180
    while status not in (table := command("dvc", "queue", "status", folder=folder)):
        assert time.monotonic() < deadline, table
        time.sleep(1)
