"""The stages as a user runs them: programs, each in a process and a folder of its own.

A fresh interpreter imports torch and its like for seconds before a stage begins. `stage` bears with that; the many
small runs of the fault tests, by `run`, are forked from a process that has imported them already.
"""

import multiprocessing
import os
import re
import runpy
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import NamedTuple

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
STAGES = ("fetch", "convert", "pretrain", "embed", "linear_eval", "finetune", "evaluate", "draw", "card")
TINY = {
    "pretrain__epochs": 2, "models__resnet__width": 0.125, "pretrain__views__resolution": 8,
    "pretrain__validation__every_epochs": 1, "embed__map_points": 60, "embed__map_perplexity": 5.0,
    "evaluations__invariance__images": 20, "evaluations__robustness__images": 20,
    "evaluations__verification__epochs": 1, "linear_eval__augmented__epochs": 1, "linear_eval__cached__l2": [0.01, 0.1],
    "finetune__fractions": [0.1], "finetune__epochs": [1], "finetune__lr": [0.3],
}  # fmt: skip
"""What makes the digits a matter of seconds."""
OUTPUTS = {
    "fetch": ["data/raw", "reports/fetch"],
    "convert": ["data/beton", "reports/convert"],
    "pretrain": ["models", "data/views.safetensors", "reports/pretrain"],
    "embed": ["data/features", "data/embedding.safetensors", "reports/embed"],
    "linear_eval": ["data/scores.safetensors", "reports/linear_eval"],
    "finetune": ["data/label_subsets.json", "reports/finetune"],
    "evaluate": ["reports/evaluate"],
    "draw": ["reports/draw"],
    "card": ["reports/card"],
}


def change(folder: Path, **values: object) -> None:
    """Write the params.yaml of `folder`: the shipped one with other values (section__key)."""
    yaml = YAML()
    content = yaml.load((ROOT / "params.yaml").read_text())
    for path, value in values.items():
        *sections, key = path.split("__")
        section = content
        for name in sections:
            section = section[name]
        section[key] = value
    with (folder / "params.yaml").open("w") as file:
        yaml.dump(content, file)


def stage(name: str, folder: Path, *launcher: str) -> subprocess.CompletedProcess[str]:
    """The stage `name` in `folder`, by a fresh interpreter or the `launcher`."""
    command = [*(launcher or (sys.executable,)), _program(name)]
    environment = os.environ | _environment(folder)
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def unread(*command: str, folder: Path, unbuffered: bool) -> subprocess.CompletedProcess[str]:
    """A program in `folder` whose stdout is a pipe that nobody reads any more."""
    reading, writing = os.pipe()
    os.close(reading)
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
        "PYTHONUNBUFFERED": "1" * unbuffered,
    }
    with os.fdopen(writing) as stdout:
        return subprocess.run(
            command, cwd=folder, env=environment, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=300
        )


def _program(name: str) -> str:
    return str(ROOT / "stages" / f"{name}.py")


def _environment(folder: Path) -> dict[str, str]:
    return {"PYTHONPATH": str(ROOT / "src"), "DVC_ROOT": str(folder), "DVC_EXP_NAME": "tested"}


class Ended(NamedTuple):
    """How a stage ended: its exit code, or minus the signal that killed it, and what it wrote to stderr."""

    code: int
    stderr: str

    @property
    def error(self) -> str:
        """Why it refused to go on: its only line, progress bars apart, with the stage's name cut off."""
        lines = [line for line in re.split(r"[\r\n]+", self.stderr) if line and not re.search(r"^.*\d+%\|.*\]$", line)]
        assert self.code == 1, self
        assert len(lines) == 1, self.stderr
        assert len(lines[0]) < 1000
        found = re.fullmatch(r"\w+: error: (.+)", lines[0])
        assert found, lines[0]
        return found[1]


class Running:
    """A process that was started."""

    def __init__(self, process: ForkServerProcess, stderr: Connection) -> None:
        self._process, self._stderr = process, stderr

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()

    def end(self, seconds: float = 60) -> Ended:
        """Wait for it; it fails the test if that takes so long."""
        deadline, said = time.monotonic() + seconds, b""
        while in_time := self._stderr.poll(max(0, deadline - time.monotonic())):
            part = os.read(self._stderr.fileno(), 1 << 16)
            if not part:
                break
            said += part
        if not in_time:
            self.kill()
        self._process.join()
        self._stderr.close()
        assert in_time, f"no end after {seconds} s: {said.decode()}"
        assert self._process.exitcode is not None
        return Ended(self._process.exitcode, said.decode())


WARM = multiprocessing.get_context("forkserver")
WARM.set_forkserver_preload(
    [
        "simclr", "simclr.data.upstream", "matplotlib.figure", "omegaconf", "scipy.io",
        "sklearn.datasets", "sklearn.manifold", "torch.distributed.run", "torch.utils.tensorboard", "torchvision",
    ]
)  # fmt: skip


def warm(function: Callable[..., None], *arguments: object) -> Running:
    """Have `function(*arguments)`, all of it picklable, called in a process of its own."""
    stderr, written = WARM.Pipe(duplex=False)
    process = WARM.Process(target=_call, args=(written, function, arguments))
    process.start()
    written.close()
    return Running(process, stderr)


def _call(stderr: Connection, function: Callable[..., None], arguments: tuple[object, ...]) -> None:
    os.dup2(stderr.fileno(), sys.stderr.fileno())
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    stderr.close()
    function(*arguments)


Around = Callable[[], AbstractContextManager[None]]


def start(name: str, folder: Path, around: Around = nullcontext) -> Running:
    """Have the stage `name` run in `folder`, within the context that `around` makes in its process."""
    return warm(_become, name, folder, around)


def run(name: str, folder: Path, around: Around = nullcontext) -> Ended:
    """As `start`, to its end."""
    return start(name, folder, around).end()


def _become(name: str, folder: Path, around: Around) -> None:
    os.chdir(folder)
    os.environ.update(_environment(folder))
    sys.argv = [_program(name)]
    with around():
        runpy.run_path(_program(name), run_name="__main__")


def await_checkpoint(folder: Path) -> None:
    """Wait until a run in `folder` has kept one."""
    deadline = time.monotonic() + 180
    while not list(folder.glob("checkpoints/*/step-*")):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def ready(name: str, done: Path, folder: Path) -> None:
    """Have in `folder` what the stage `name` needs."""
    shutil.copy(done / "params.yaml", folder)
    for earlier in STAGES[: STAGES.index(name)]:
        for output in OUTPUTS[earlier]:
            (folder / output).parent.mkdir(exist_ok=True)
            (folder / output).symlink_to(done / output)


def made(folder: Path) -> dict[str, bytes]:
    """What has been made in `folder`, half or whole."""
    files = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()}
    return {
        str(name): path.read_bytes()
        for name, path in files.items()
        if ".part" in str(name) or name.parts[0] in ("data", "models", "reports")
    }


def expected(name: str, done: Path) -> dict[str, bytes]:
    """What the stage `name` makes."""
    return {path: content for path, content in made(done).items() if path.startswith(tuple(OUTPUTS[name]))}
