"""What one GPU shows in ten minutes: do the tests pass, where does a step's time go, what does CIFAR-10 come to, ...

    python -m benchmarks.gpu_evidence --images cifar10-jpeg      # parts in this order, until ten minutes are over
    python -m benchmarks.gpu_evidence --only forms options       # some of them

`make gpu-evidence IMAGES=folder` calls it in an environment that it installs; on a host without a network, call it in
one that is there: it needs PyTorch, and what the stages import, but neither a network nor DVC. Each part is a process
of its own with a limit of its own, and what it finds is printed and appended to benchmarks/results/<GPU>-evidence.md at
once: a part that fails, hangs or comes too late costs itself alone. Without a GPU it is a rehearsal on the CPU, with
small models and few images, which writes nothing.
"""

import argparse
import getpass
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
import torch

from benchmarks import contest, table
from benchmarks.contest import milliseconds
from benchmarks.images import class_folders, held_out
from benchmarks.loading import views_of
from benchmarks.loss import dense, ours
from simclr import presets
from simclr.core import entry
from simclr.core.errors import UserError
from simclr.data import beton, loader
from simclr.data.beton import RAW, Beton, StoredImage
from simclr.data.converted import DatasetInfo
from simclr.data.loader import Crops
from simclr.distributed import pairwise
from simclr.distributed.session import open_session
from simclr.tracking.tensorboard import Board
from simclr.training import pretrain
from simclr.training.recipe import Recipe
from simclr.training.run_context import PretrainData, RunContext

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"

_TINY = ("models.resnet.depth=10", "models.resnet.width=0.25", "pretrain.batch_size=8", "pretrain.compile=false")
"""With 8 channels, half as many, oneDNN 3.12 crashes at 224 px where it uses AVX-512."""
_CIFAR = 50_000
_TEMPERATURE = 0.1
_PRESETS = (
    ("cifar10",), ("cifar10_100_epochs",), ("cifar10_fast",), ("imagenet_small_batch",),
    ("imagenet_small_batch", "pretrain.compile=true"), ("imagenet", "pretrain.piece_size=512"), ("fashion_mnist",),
    ("stl10",), ("imagenette",), ("imagenet100",), ("tiny_imagenet",), ("cifar10_resnet50_1000_epochs",),
)  # fmt: skip
"""Each with what is changed of it."""
_LARGEST_RAW = 96
"""Pixels of a side up to which the presets' images are stored raw."""
_STAGES = ("fetch", "convert", "pretrain", "embed", "linear_eval", "evaluate")
"""Those that say what 100 epochs are worth; the pictures and fine-tuning are left out, for want of time."""
_PATIENCE = 10
"""Times the seconds of a GPU that a rehearsal may take."""


@dataclass(frozen=True)
class Part:
    """A piece of evidence: what `show` prints, in at most so many `seconds`."""

    title: str
    seconds: int
    show: Callable[["Scale"], None]


class Found(NamedTuple):
    """What came of a part."""

    text: str
    """In Markdown."""
    whole: bool
    """It came to its end, within its time and without an error."""


@dataclass(frozen=True)
class Scale:
    """How much is done: the real thing on a GPU, or a rehearsal on a CPU."""

    device: torch.device
    folder: Path
    """For what is made on the way."""
    images: Path | None
    """A folder with train/<class>/* and test/<class>/*; None: the digits."""

    @property
    def real(self) -> bool:
        return self.device.type == "cuda"

    def recipe(self, size: int, *changes: str) -> Recipe:
        """That of CIFAR-10 in 100 epochs at 32 px, ImageNet's with a batch of 256 at 224 px."""
        preset, overrides = (
            ("cifar10_100_epochs", ("pretrain.split=train",))
            if size == 32
            else ("imagenet", ("pretrain.batch_size=256",))
        )
        return contest.recipe(preset, *overrides, *(() if self.real else _TINY), *changes)

    def data(self, size: int, count: int) -> PretrainData:
        """Noise: `count` images of `size` px, or of larger ones, where these are cut on the host."""
        stored = _noise(self.folder / f"{size}-{count}.beton", size, count)
        half = [0.5] * 3
        return PretrainData(stored, stored, stored, DatasetInfo(["noise"], half, half, {"train": "", "val": ""}))


def _noise(path: Path, size: int, count: int) -> Beton:
    rng = np.random.default_rng(0)
    sides = (size, size) if size <= _LARGEST_RAW else (256, 288)
    pixels = [rng.bytes(3 * side * side) for side in sides]
    images = (StoredImage(RAW, sides[index % 2], sides[index % 2], pixels[index % 2]) for index in range(count))
    beton.write(path, images, np.zeros(count, np.int64), largest=len(pixels[1]))
    return beton.read(path)


class _Epochs(Board):
    """Takes down the seconds of every epoch, which a run tells as its speed, and calls `then` after each."""

    def __init__(self, samples: int, then: Mapping[int, Callable[[], object]] | None = None) -> None:
        super().__init__(None)
        self._samples, self._then = samples, then or {}
        self.seconds: list[float] = []
        self.gibibytes = 0.0

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        if "speed/samples_per_second" in values:
            self.seconds.append(self._samples / values["speed/samples_per_second"])
            self.gibibytes = values["speed/peak_memory_gib"]
            self._then.get(len(self.seconds), lambda: None)()


def _trained(
    chosen: Recipe, data: PretrainData, epochs: int, then: Mapping[int, Callable[[], object]] | None = None,
    *, benchmark: bool | None = None,
) -> _Epochs:  # fmt: skip
    """So many epochs, as a stage would run them."""
    torch.compiler.reset()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    parameters = chosen.parameters
    parameters.epochs = parameters.validation.every_epochs = epochs
    parameters.validation.neighbors = 1  # a rehearsal has few images
    clock = _Epochs(len(data.source) // parameters.batch_size * parameters.batch_size, then)
    fastest = not parameters.deterministic if benchmark is None else benchmark
    with open_session(deterministic=parameters.deterministic, benchmark=fastest) as session:
        pretrain.pretrain(chosen, data, session, RunContext(board=clock))
    return clock


def _machine(scale: Scale) -> None:
    print(f"Python {sys.version.split()[0]}, torch {torch.__version__}, {len(os.sched_getaffinity(0))} cores")
    if scale.real:
        found = torch.cuda.get_device_properties(0)
        print(
            f"{found.name}, {found.total_memory / 2**30:.0f} GiB, compute capability {found.major}.{found.minor}, "
            f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
        )
    told = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    print(f"revision {told.stdout.strip() or 'not known'}")


def _tests(scale: Scale) -> None:
    options = ["-c", os.devnull, "--rootdir=.", "-p", "no:cacheprovider", "-o", "pythonpath=."]
    options += ["-q", "-ra", "--tb=short", "--show-capture=no"]
    marker = ("-o", "markers=gpu: needs a CUDA device")  # which pyproject.toml, left out here, declares
    command = [sys.executable, "-m", "pytest", *options, *marker, "-m", "gpu", "tests/gpu/test_gpu.py"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines = done.stdout.strip().splitlines()[-60:]
    if scale.real or done.returncode:
        print(_block("\n".join(lines)))
    else:
        print(f"There is no GPU for them: {lines[-1]}")
    if done.returncode:
        sys.exit(f"pytest ended with {done.returncode}")


def _block(text: str) -> str:
    return f"```\n{text}\n```"


def _step(scale: Scale, size: int) -> None:
    """Three epochs of a few steps: one to warm up, one that counts what waits for the GPU, one that is profiled."""
    steps = 8 if scale.real else 2
    chosen = scale.recipe(size)
    batch_size = chosen.parameters.batch_size
    data = scale.data(size, steps * batch_size)
    activities = [torch.profiler.ProfilerActivity.CPU]
    if scale.real:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    profiler = torch.profiler.profile(activities=activities)

    def told(mode: str) -> None:
        if scale.real:
            torch.cuda.set_sync_debug_mode(mode)

    def profile() -> None:
        told("default")
        profiler.start()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        clock = _trained(chosen, data, 3, {1: lambda: told("warn"), 2: profile, 3: profiler.stop})
    waits = Counter(
        f"{Path(warning.filename).name}:{warning.lineno}" for warning in caught if "synchroniz" in str(warning.message)
    )
    print(f"{1000 * clock.seconds[1] / steps:.2f} ms a step of {batch_size} samples, {clock.gibibytes:.2f} GiB")
    print(f"{waits.total() / steps:.1f} waits for the GPU a step, of {steps}: {dict(waits.most_common(12))}\n")
    order = "self_cuda_time_total" if scale.real else "self_cpu_time_total"
    print(_block(profiler.key_averages().table(sort_by=order, row_limit=30, max_name_column_width=60)))


def _cifar(scale: Scale) -> None:
    """By the stages, as programs."""
    overrides = ["pretrain.validation.every_epochs=20", "embed.map_points=500", "linear_eval.augmented.epochs=12"]
    if not scale.real:
        overrides += [*_TINY, "pretrain.batch_size=64", "pretrain.views.resolution=8", "linear_eval.augmented.epochs=1"]
        overrides += ["pretrain.epochs=2"]
    for name in _STAGES:
        print(f"- {name}: {_stage(scale, name, overrides):.1f} s", flush=True)
        metrics = scale.folder / f"reports/{name}/metrics.json"
        if metrics.exists():
            print(f"- {name}: {json.dumps(json.loads(metrics.read_text()))}", flush=True)


def _ranks(scale: Scale) -> None:
    """The same losses but for rounding, on the digits: most of the time goes to starting processes anyway."""
    scale = replace(scale, images=None)
    overrides = ["pretrain.epochs=2", "pretrain.precision=fp32", *_TINY, "pretrain.batch_size=64"]
    for name in ("fetch", "convert"):
        _stage(scale, name, overrides)
    losses = []
    for processes in (1, 2):
        seconds = _stage(scale, "pretrain", overrides, PET_NPROC_PER_NODE=str(processes))
        lines = (scale.folder / "reports/pretrain/loss.csv").read_text().split()[1:]
        losses.append([float(line.partition(",")[2]) for line in lines])
        print(f"- {processes} process(es): losses {losses[-1]}, {seconds:.1f} s", flush=True)
    print(f"- {abs(losses[1][0] / losses[0][0] - 1):.1e} apart after the first epoch")


def _stage(scale: Scale, name: str, overrides: list[str], **environment: str) -> float:
    """The seconds that a stage takes on CIFAR-10's preset with `overrides`, run by itself."""
    source = ["fetch.source=digits"]
    if scale.images is not None:
        source = ["fetch.source=folder", f"fetch.folder='{scale.images.absolute()}'"]
    values = presets.compose("cifar10_100_epochs", [*overrides, *source])
    (scale.folder / "params.yaml").write_text(presets.apply(values, (ROOT / "params.yaml").read_text()))
    paths = [str(ROOT / "src"), *_stand_in_for_dvc(scale.folder), os.environ.get("PYTHONPATH", "")]
    own = {"PYTHONPATH": os.pathsep.join(paths)}
    own |= {"DVC_ROOT": str(scale.folder), "DVC_EXP_NAME": "evidence"}
    began = time.perf_counter()
    command = [sys.executable, str(ROOT / "stages" / f"{name}.py")]
    done = subprocess.run(command, cwd=scale.folder, env=os.environ | own | environment)
    if done.returncode:
        sys.exit(f"{name} ended with {done.returncode}")
    return time.perf_counter() - began


def _stand_in_for_dvc(folder: Path) -> list[str]:
    """Where DVC is missing, a module that ignores no file: the folder source asks DVC which files it would miss."""
    if importlib.util.find_spec("dvc"):
        return []
    package = folder / "without_dvc" / "dvc"
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").touch()
    (package / "fs.py").write_text("localfs = None\n")
    (package / "ignore.py").write_text("def DvcIgnoreFilter(*_): return lambda root, *names: names\n")
    return [str(package.parent)]


def _forms(scale: Scale) -> None:
    """The last of some epochs, with and without torch.compile and cuDNN's benchmark."""
    print("| | compile | benchmark | ms a step | epoch, s | GiB | first epoch, s |\n|---|---|---|--:|--:|--:|--:|")
    for size, count, epochs in ((32, _CIFAR, 2), (224, 12 * 256, 3)) if scale.real else ((32, 16, 2), (224, 16, 2)):
        data = scale.data(size, count)
        for compiled, benchmark in product((False, True), repeat=2):
            chosen = scale.recipe(size, f"pretrain.compile={compiled}")
            batch_size = chosen.parameters.batch_size
            clock = _trained(chosen, data, epochs, benchmark=benchmark)
            step = 1000 * clock.seconds[-1] / (count // batch_size)
            print(
                f"| {size} px, {count} images, batch {batch_size} | {compiled} | {benchmark} | {step:.2f} "
                f"| {clock.seconds[-1]:.3f} | {clock.gibibytes:.2f} | {clock.seconds[0]:.1f} |",
                flush=True,
            )


def _options(scale: Scale) -> None:
    """What an option costs: the last of some epochs of a few steps."""
    print("| | ms a step | GiB | against the first |\n|---|--:|--:|--:|")
    changed = (
        "", "pretrain.online_probe.lr=0.1", "pretrain.views.small.count=4", "pretrain.views.count=4",
        "pretrain.loss=trimmed", "pretrain.loss=reweighted", "pretrain.loss=decoupled", "models.resnet.norm=group",
        "pretrain.compile=true", "pretrain.compile=true pretrain.views.count=4", "pretrain.batch_size=4096",
        "pretrain.batch_size=4096 pretrain.piece_size=512", "pretrain.batch_size=8192 pretrain.piece_size=512",
    )  # fmt: skip
    steps = 24 if scale.real else 1
    first = None
    for changes in changed if scale.real else changed[:3]:
        chosen = scale.recipe(32, *changes.split())
        batch_size = chosen.parameters.batch_size
        count = max(1, 512 * steps // batch_size) * batch_size if scale.real else batch_size
        clock = _trained(chosen, scale.data(32, count), 3)
        step = 1000 * clock.seconds[-1] / (count // batch_size)
        first = first or step
        print(f"| {changes or 'as is'} | {step:.2f} | {clock.gibibytes:.2f} | {step / first:.2f} x |", flush=True)


def _presets(scale: Scale) -> None:
    """A step of each preset, the last of some epochs of a few steps; those left out have the step of one of these."""
    print("| preset | | ms a step | images/s | GiB |\n|---|---|--:|--:|--:|")
    for preset, *changes in _PRESETS if scale.real else _PRESETS[:2]:
        chosen = contest.recipe(preset, "pretrain.split=train", *changes, *(() if scale.real else _TINY))
        size, batch_size = chosen.parameters.views.resolution, chosen.parameters.batch_size
        images = 24_000 if size <= _LARGEST_RAW else 4_096
        steps = max(2, images // batch_size) if scale.real else 1
        clock = _trained(chosen, scale.data(size, steps * batch_size), 3)
        step = clock.seconds[-1] / steps
        told = f"{1000 * step:.2f} | {batch_size / step:,.0f} | {clock.gibibytes:.2f}"
        print(f"| {preset} | {' '.join(changes)} | {told} |", flush=True)


def _loss(scale: Scale) -> None:
    """NT-Xent by the size of its blocks, and the dense form."""
    print("| samples | block | ms | peak, MiB |\n|--:|---|--:|--:|")
    for samples in (8192, 65536) if scale.real else (64,):
        z = torch.randn(2 * samples, 128, device=scale.device, requires_grad=True)
        for block in ("as is", "2^22", "2^24", "2^26", "dense"):
            if block == "dense" and samples > 8192:
                continue  # 64 GiB, several times

            def once(block: str = block, z: torch.Tensor = z) -> None:
                torch.autograd.grad(dense(z) if block == "dense" else ours(z), z)

            with _blocks_of(2 ** int(block[2:]) if block.startswith("2^") else None, scale.device):
                duration, mebibytes = milliseconds(once, scale.device, 0.5 if scale.real else 0)(), _peak(once, scale)
            print(f"| {samples} | {block} | {duration:.2f} | {mebibytes} |", flush=True)


@contextmanager
def _blocks_of(elements: int | None, device: torch.device) -> Iterator[None]:
    if elements is None:
        yield
    else:
        with mock.patch.dict(pairwise._BLOCK_ELEMENTS, {device.type: elements}):
            yield


def _peak(call: Callable[[], None], scale: Scale) -> str:
    if not scale.real:
        return "-"
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    return f"{(torch.cuda.max_memory_allocated() - before) / 2**20:.0f}"


def _views(scale: Scale) -> None:
    """What makes a batch of views, piece by piece."""
    print("| views | draws, host, ms | pixels, host, ms | crops, ms | colors and blur, ms |\n|---|--:|--:|--:|--:|")
    for size in (32, 224):
        chosen = scale.recipe(size)
        views = views_of(chosen)
        source = scale.data(size, chosen.parameters.batch_size).source
        samples = np.arange(len(source))
        draw = partial(views.draw, samples, 1, source.heights, source.widths)
        boxes, drawn = draw()
        rows = views.rows(drawn, scale.device)
        read = partial(loader.load, source, samples, [Crops(boxes, size)], scale.device, rows)
        loaded = read().to(scale.device)
        cut = partial(loader.crops, loaded, 0, size)
        calls: list[Callable[[], object]] = [draw, read, cut, partial(views.augment, cut(), loaded)]
        times = [milliseconds(call, scale.device, 0.5 if scale.real else 0)() for call in calls]
        print(f"| {2 * len(source)} of {size} px | " + " | ".join(f"{found:.2f}" for found in times) + " |", flush=True)


PARTS = {
    "machine": Part("The machine", 60, _machine),
    "tests": Part("Tests that need a GPU", 150, _tests),
    "step-32": Part("A step at 32 px", 60, lambda scale: _step(scale, 32)),
    "step-224": Part("A step at 224 px", 75, lambda scale: _step(scale, 224)),
    "cifar": Part("100 epochs, and what the features are worth", 420, _cifar),
    "forms": Part("Epochs with and without torch.compile and cuDNN's benchmark", 180, _forms),
    "ranks": Part("Two ranks on one GPU", 60, _ranks),
    "loss": Part("NT-Xent", 40, _loss),
    "views": Part("Views alone", 40, _views),
    "presets": Part("A step of each preset", 150, _presets),
    "options": Part("What options cost at 32 px", 150, _options),
}
"""Ten minutes do not hold all: what is worth less, or takes long, comes last."""


def gather(
    names: list[str], images: Path | None, device: torch.device, seconds: float, output: Path | None
) -> Iterator[Found]:
    """The evidence of each of the parts when it is there; appended to `output` too.

    Args:
        images: a folder with train/<class>/* and test/<class>/*; None: the digits.
        seconds: after which no part goes on.
    """
    end = time.monotonic() + seconds
    hidden = {} if device.type == "cuda" else {"CUDA_VISIBLE_DEVICES": ""}
    for name in names:
        command = [sys.executable, "-m", "benchmarks.gpu_evidence", "--part", name]
        if images is not None:
            command += ["--images", str(images.absolute())]
        most = PARTS[name].seconds * (1 if device.type == "cuda" else _PATIENCE)
        found = section(PARTS[name].title, command, min(most, end - time.monotonic()), os.environ | hidden)
        if output is not None:
            with output.open("a", encoding="utf-8") as file:
                file.write(found.text)
        yield found


def section(title: str, command: list[str], seconds: float, environment: Mapping[str, str]) -> Found:
    """What `command` printed in at most so many seconds, how long it took and, if it did not end well, its last words.

    All that it started ends with it, and its temporary files are removed, but for compiled kernels.
    """
    heading = f"\n## {title}\n\n"
    if seconds <= 0:
        return Found(f"{heading}No time was left for it.\n", False)
    began = time.perf_counter()
    with (
        tempfile.TemporaryFile("w+") as printed,
        tempfile.TemporaryFile("w+") as said,
        tempfile.TemporaryDirectory() as own,
    ):
        kernels = os.path.join(tempfile.gettempdir(), f"torchinductor_{getpass.getuser()}")  # as torch has it
        child = subprocess.Popen(
            command, cwd=ROOT, stdout=printed, stderr=said, start_new_session=True,
            env={"TORCHINDUCTOR_CACHE_DIR": kernels, **environment, "TMPDIR": own},
        )  # fmt: skip
        try:
            code = child.wait(seconds)
            ended = f", **ended with {code}**" if code else ""
        except subprocess.TimeoutExpired:
            ended = ", **stopped there**"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        printed.seek(0)
        said.seek(0)
        last = [line for line in re.split(r"[\r\n]+", said.read()) if line.strip()][-15:]
        text = f"{heading}{time.perf_counter() - began:.0f} s{ended}\n\n{printed.read().strip()}\n"
    return Found(f"{text}\n{_block(chr(10).join(last))}\n" if ended else text, not ended)


def main() -> None:
    arguments = _arguments()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if arguments.part:
        with tempfile.TemporaryDirectory() as folder:
            PARTS[arguments.part].show(Scale(device, Path(folder), arguments.images))
        return
    if arguments.images is not None:
        for split in (arguments.images / "train", held_out(arguments.images)):
            class_folders(split)
    contest.exit_on_signals()  # the part ends too: see `section`
    output = None
    if device.type == "cuda":
        name = _gpu()
        output = RESULTS / f"{table.slug(name)}-evidence.md"
        header = f"# {name}, {time.strftime('%Y-%m-%d %H:%M')}\n"
        output.write_text((output.read_text() + "\n" if output.exists() else "") + header)
    else:
        print("There is no GPU: a rehearsal on the CPU.")
    names = arguments.only or list(PARTS)
    unfinished = []
    for name, found in zip(names, gather(names, arguments.images, device, 60 * arguments.minutes, output), strict=True):
        print(found.text, flush=True)
        if not found.whole:
            unfinished.append(name)
    if unfinished:
        raise UserError(f"of {len(names)} parts, these did not come to their end: {', '.join(unfinished)}")


def _gpu() -> str:
    """Its name by the driver, without a context of CUDA's here, which a GPU in exclusive mode would grant no other."""
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    with suppress(OSError, subprocess.CalledProcessError):  # it fails on stdout
        if names := subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines():
            return names[0]
    return "A GPU"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_evidence",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--images",
        type=Path,
        metavar="FOLDER",
        help="train/<class>/* and test/<class>/*, such as CIFAR-10 as JPEG files",
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--minutes", type=float, default=10.0, help="after which no part goes on (10)")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    entry.run("gpu-evidence", main)
