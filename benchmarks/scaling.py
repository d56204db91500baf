"""What each preset asks of 1, 8 and 32 GPUs: time, memory, network and loading cores. docs/scaling.md holds the tables.

    python -m benchmarks.scaling                  # all of them
    python -m benchmarks.scaling imagenet         # the rows of some presets

A figure ends in m where it was measured and in d where it is derived: counted on a training step whose tensors have
shapes and no values (operations, bytes, memory), or computed from counts and from the rates below. No GPU is needed.
"""

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from benchmarks import contest, fake_memory
from simclr import presets
from simclr.core import entry
from simclr.core.errors import UserError
from simclr.data.batch import Batch
from simclr.distributed import pairwise
from simclr.distributed.session import Session
from simclr.features.eval_transform import EvalTransform
from simclr.learning import optimizer
from simclr.learning.learner import Learner
from simclr.training.pretrain_params import pieces
from simclr.training.recipe import Recipe
from simclr.views.compose import ViewParams

GPUS = (1, 8, 32)
GPUS_OF_A_NODE = 8
ON_A_CPU = ("cifar10_smoke", "digits")
"""Presets that need no GPU."""

# --- images


IMAGES = {
    "cifar10": 50_000,
    "cifar100": 50_000,
    "fashion_mnist": 60_000,
    "imagenet": 1_281_167,  # Russakovsky et al. 2015, table 2
    "imagenet100": 130_000,  # at most: 100 classes of ImageNet-1k, of 732 to 1,300 images each (the same table)
    "imagenette": 9_469,  # github.com/fastai/imagenette, imagenette2
    "stl10": 100_000,
    "svhn": 73_257,
    "tiny_imagenet": 100_000,
}
"""Images of the split that is pretrained on, before the validation split is taken from it. A preset of another name
has those of the longest name here that it begins with."""
RAW_SIDES = {"cifar10": 32, "cifar100": 32, "fashion_mnist": 28, "stl10": 96, "svhn": 32, "tiny_imagenet": 64}
"""Pixels of a side of what sources store raw; the others store JPEGs."""

# --- one H100 of 80 GB: benchmarks/results/nvidia-h100-80gb-hbm3-evidence.md


@dataclass(frozen=True)
class Step:
    """What decides the time and memory of a step on one GPU, but for less than a millisecond of the head, the optimiser
    and the loss."""

    depth: int
    """Of the ResNet, of full width."""
    resolution: int
    views: int
    small_views: int
    """Multi-crop: of half the resolution."""
    compile: bool


STEP_MS = {
    Step(18, 32, 1024, 0, False): 19.09,
    Step(18, 32, 1024, 0, True): 14.09,
    Step(50, 224, 512, 0, False): 132.3,
    Step(50, 224, 512, 0, True): 95.6,
}
"""Milliseconds; where the host's cores were half as fast, the second was 22.4."""
STEP_GIB = {
    Step(18, 32, 1024, 0, False): 2.49,
    Step(18, 32, 1024, 0, True): 2.48,
    Step(50, 224, 512, 0, False): 22.4,
    Step(50, 224, 512, 0, True): 21.6,
}
FITTED = {"cifar10_100_epochs": Step(18, 32, 1024, 0, False), "imagenet_small_batch": Step(50, 224, 512, 0, False)}
"""Presets whose counts on one GPU, and these measured milliseconds, give the two rates of `rates`."""
COMPILED = 95.6 / 132.3
"""Time of a compiled step to that of the same one that is not, where the GPU is the limit: ResNet-50 at 224 px."""
HOST_MS = 14.09 / 64
"""Milliseconds in which the host launches what belongs to one parameter tensor, for views of one size: the compiled
step of ResNet-18, with 64 of them in it and its head, is bound by the host. Taken for steps that are not compiled too,
where all that is known is that it is at most 19.09 / 64."""
USABLE_GIB = 0.9 * 79
"""Of the card's 79 GiB; an assumption: a tenth is for CUDA, NCCL, workspaces and gaps between tensors."""

# --- the network


NODE_BYTES = 370e9
"""Bytes a second that NCCL sends from each H100 over NVLink at best (github.com/NVIDIA/nccl-tests/issues/212)."""
NODE_CALL = 17e-6
"""Seconds of an all-reduce of up to 4 KiB among eight GPUs with the same NVLink, H20
(github.com/deepseek-ai/DeepEP/issues/303)."""
NETWORK_BYTES = 46e9
"""The same between nodes, with a network card of 400 Gb/s for each GPU (github.com/NVIDIA/nccl-tests/issues/290)."""
NETWORK_CALL = 130e-6
"""The same among 16 H100s of two nodes, over TCP (github.com/lessizzmore/create-a3mega-ztan-fork). Over InfiniBand NCCL
itself expects 26e-6 (github.com/NVIDIA/nccl/issues/1453)."""
BUCKETS = (1 << 20, 25 << 20)
"""Bytes of DDP's first bucket of gradients and of the others, at most (torch.nn.parallel.DistributedDataParallel)."""
FLOAT = 4
"""Bytes of a float32, which all messages consist of."""

# --- the cores that load images


DECODE_SECONDS = 2 / 4020
"""Seconds of a core to decode a JPEG with sides of 256 to 512 px: benchmarks/results/amd-epyc-2-cores.md of revision
874698e, two cores. In f912639, when that machine was slower, it was 2 / 3526, and 1603 below in place of 2165."""
CUT_SECONDS = (2 / 2165 - 2 / 4020) / (2 * 224**2)
"""To cut a pixel of a view out of it: the rest of two cut and mirrored views of 224 px, there."""
DRAW_SECONDS = 1.70e-3 / 512
"""To draw two views: 1,024 views of 32 px, on the H100's host."""
COPY_SECONDS = 6.79e-3 / (512 * 3 * 32**2)
"""To copy a byte of raw pixels, there and before this took fewer calls: at most."""


@dataclass(frozen=True)
class Counts:
    """What one GPU of several does in a step."""

    teraflop: float
    gigabytes: float
    """What operations read and write, each of their tensors once."""
    gibibytes: float
    """The most that tensors hold at once."""
    tensors: int
    """Of parameters that are trained."""
    sent: float
    """Bytes to other GPUs."""
    calls: int
    """Collectives."""


@dataclass(frozen=True)
class Figure:
    """A number of the tables."""

    value: float
    measured: bool = False

    def shown(self, unit: str = "") -> str:
        digits = f"{self.value:,.0f}" if self.value >= 100 else f"{self.value:.3g}"
        return f"{digits}{unit and ' '}{unit} {'m' if self.measured else 'd'}"


@dataclass(frozen=True)
class Row:
    """A preset on a number of GPUs."""

    preset: str
    gpus: int
    piece_size: int | None
    """The largest power of two of pieces that fits, where the whole batch does not."""
    milliseconds: Figure
    """Of a step."""
    seconds: Figure
    """Of all steps."""
    gibibytes: Figure
    """Of each GPU."""
    sent: Figure
    """Megabytes of each GPU in a step."""
    cores: Figure
    """That each GPU needs to load its images as fast as it learns from them."""

    def line(self) -> str:
        piece = f" (`piece_size` {self.piece_size})" if self.piece_size else ""
        cells = [
            self.preset, self.milliseconds.shown(), duration(self.seconds), self.gibibytes.shown() + piece,
            self.sent.shown() if self.gpus > 1 else "", self.cores.shown(),
        ]  # fmt: skip
        return f"| {' | '.join(cells)} |"


_HEADER = """\
| preset | ms a step | all epochs | GiB of each GPU | MB sent a step | cores of each GPU |
|---|--:|--:|--:|--:|--:|"""
_PIECES_HEADER = """\
| GPUs | GiB of the whole batch | `pretrain.piece_size` | GiB in pieces | ms in pieces | price |
|--:|--:|--:|--:|--:|--:|"""


class _Rank(Session):
    """A rank whose messages are not sent: what it would get is there, unfilled."""

    def gather_rows(self, rows: Tensor) -> Tensor:
        return rows.new_empty((self.world_size * len(rows), *rows.shape[1:]))


_MOVE_NOTHING = ("aten.empty", "aten.new_empty", "aten.detach", "prim.")
"""Operations that read and write nothing, beside those that return views."""
_IN_PLACE = {torch.ops.aten.addmm_: torch.ops.aten.addmm}
"""Products of matrices that torch's table of operations lacks."""


class _Work(TorchDispatchMode):
    """Counts what operations do; torch's own FlopCounterMode would keep the graph of a piece alive."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flop = 0
        """Of convolutions and products of matrices: two for each product of two numbers."""
        self.moved = 0
        """Bytes of the tensors that operations take and return; making a view moves none."""

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = operation(*args, **kwargs)
        kind = _IN_PLACE.get(operation.overloadpacket, operation.overloadpacket)
        if kind in flop_registry:
            self.flop += flop_registry[kind](*args, **kwargs, out_val=result)
        returns = operation._schema.returns
        is_view = returns and all(one.alias_info and not one.alias_info.is_write for one in returns)
        if not is_view and not str(operation).startswith(_MOVE_NOTHING):
            tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
            self.moved += sum(tensor.nbytes for tensor in tensors)
        return result


_counts: dict[str, Counts] = {}
"""By what decides them, because presets share their steps."""


def count(chosen: Recipe, gpus: int) -> Counts:
    """Take a step of `chosen` on one of so many GPUs, with tensors that are not filled."""
    parameters = chosen.parameters
    key = repr((
        chosen.model, chosen.method, chosen.loss, parameters.views, parameters.batch_size, parameters.piece_size,
        parameters.compile, parameters.optimizer.name, gpus,
    ))  # fmt: skip
    if key not in _counts:
        _counts[key] = _count(chosen, gpus)
    return _counts[key]


def _count(chosen: Recipe, gpus: int) -> Counts:
    parameters, views = chosen.parameters, chosen.parameters.views
    size, samples = views.resolution, parameters.batch_size // gpus
    blocks = {"cpu": pairwise._BLOCK_ELEMENTS["cuda"]}
    with fake_memory.counted() as peak, mock.patch.dict(pairwise._BLOCK_ELEMENTS, blocks):
        encoder = chosen.model.module.build(chosen.model.parameters, size)
        method = chosen.method.module.build(chosen.method.parameters, encoder, 2, chosen.loss)
        learner = Learner(
            method=method,
            model=method,
            optimizer=optimizer.build(parameters.optimizer, method.parameter_groups(), lr=1.0),
            transform=EvalTransform(size, encoder.crop_share, [0.5] * 3, [0.5] * 3),
            session=_Rank(rank=0, world_size=gpus, device=torch.device("cpu")),
            bf16=True,
            pieces=pieces(parameters),
        )
        images = tuple(
            torch.empty(number * samples, 3, side, side).contiguous(memory_format=torch.channels_last)
            for number, side in _sizes(views)
        )
        total = views.count + views.small.count
        keys = torch.arange(total * samples)
        batch = Batch(images, keys, keys[:samples], keys[:samples], total, parameters.batch_size)
        with _Work() as work:
            learner.step(batch, factor=1.0, done=0.0)
    sent, calls = messages(method, chosen, gpus)
    return Counts(
        teraflop=work.flop / 1e12,
        gigabytes=work.moved / 1e9,
        gibibytes=peak.host / 2**30,
        tensors=len(_trained(method)),
        sent=sent,
        calls=calls,
    )


def _sizes(views: ViewParams) -> list[tuple[int, int]]:
    """How many views of a sample there are of each side in pixels."""
    sizes = [(views.count, views.resolution), (views.small.count, views.small.resolution)]
    return [(number, side) for number, side in sizes if number]


def _trained(method: nn.Module) -> list[nn.Parameter]:
    return [weight for weight in method.parameters() if weight.requires_grad]


def messages(method: nn.Module, chosen: Recipe, gpus: int) -> tuple[float, int]:
    """The bytes that a GPU sends in a step, and the number of collectives.

    Of the bytes s that each GPU hands over, a ring sends 2 (W - 1) / W s in an all-reduce and (W - 1) s in an
    all-gather.
    """
    if gpus == 1:
        return 0.0, 0
    parameters, parts = chosen.parameters, pieces(chosen.parameters)
    sizes = _sizes(parameters.views)
    views = sum(number for number, _ in sizes)
    gradients = FLOAT * sum(weight.numel() for weight in _trained(method))
    buckets = 1 + math.ceil(max(0, gradients - BUCKETS[0]) / BUCKETS[1])
    # distributed/pairwise.py: z, then the similarities to positives and a log-sum-exp
    rows = views * parameters.batch_size // gpus
    gathered = FLOAT * rows * (chosen.method.parameters.head.output + (views - 1) + 1)
    # distributed/batch_norm.py: the means and variances of all ranks forward; backward two sums, or what is forward
    # where torch.compile differentiates. learning/gradient_cache.py: pieces pass forward twice.
    channels = [module.num_features for module in method.modules() if isinstance(module, _BatchNorm)]
    forward, backward = len(sizes) * (1 if parts == 1 else 2 * parts), len(sizes) * parts
    statistics = FLOAT * 2 * sum(channels) * (forward * gpus + backward * (gpus if parameters.compile else 1))
    sent = 2 * (gpus - 1) / gpus * (gradients + statistics) + (gpus - 1) * gathered
    return sent, buckets + 2 + len(channels) * (forward + backward)


@cache
def rates() -> tuple[float, float]:
    """Milliseconds of a teraflop and of a gigabyte: those by which both steps of `FITTED` take what was measured."""
    counted = [count(contest.recipe(preset, "pretrain.compile=false"), 1) for preset in FITTED]
    system = torch.tensor([[one.teraflop, one.gigabytes] for one in counted], dtype=torch.float64)
    measured = torch.tensor([STEP_MS[step] for step in FITTED.values()], dtype=torch.float64)
    flop, byte = torch.linalg.solve(system, measured).tolist()
    return flop, byte


def step_milliseconds(counts: Counts, chosen: Recipe, gpus: int) -> float:
    """Of a derived step: of the GPU and then the network, or of the host, which launches both, if that takes longer."""
    flop, byte = rates()
    on_gpu = flop * counts.teraflop + byte * counts.gigabytes
    if chosen.parameters.compile:
        on_gpu *= COMPILED
    call, second = (NODE_CALL, NODE_BYTES) if gpus <= GPUS_OF_A_NODE else (NETWORK_CALL, NETWORK_BYTES)
    network = 1000 * (counts.calls * call + counts.sent / second)
    host = HOST_MS * counts.tensors * pieces(chosen.parameters) * len(_sizes(chosen.parameters.views))
    return max(on_gpu + network, host)


def core_seconds(source: str, views: ViewParams) -> float:
    """Of one core, to load the views of an image; the GPU cuts those of raw images, and changes colors of all."""
    draw = DRAW_SECONDS * (views.count + views.small.count) / 2
    if source in RAW_SIDES:
        return draw + COPY_SECONDS * 3 * RAW_SIDES[source] ** 2
    return draw + DECODE_SECONDS + CUT_SECONDS * sum(number * side**2 for number, side in _sizes(views))


def epoch_steps(preset: str, values: dict[str, Any]) -> int:
    """The steps of an epoch; the last images that fill no batch are left out."""
    images: float = IMAGES[max((name for name in IMAGES if preset.startswith(name)), key=len)]
    if values["pretrain"]["split"] == "train":
        images = round(images * (1 - values["convert"]["val_fraction"]))
    return int(images) // int(values["pretrain"]["batch_size"])


def fitting(preset: str, gpus: int) -> Recipe:
    """The recipe of `preset`; if its batch does not fit, in the fewest pieces that do, halves, quarters, ... of it."""
    chosen = contest.recipe(preset)
    batch_size, parts = chosen.parameters.batch_size, 1
    while count(chosen, gpus).gibibytes > USABLE_GIB:
        parts *= 2
        chosen = contest.recipe(preset, f"pretrain.piece_size={batch_size // parts}")
    return chosen


def row(preset: str, gpus: int) -> Row:
    """The estimate for `preset`, in pieces if its batch does not fit."""
    chosen, values = fitting(preset, gpus), presets.compose(preset)
    parameters = chosen.parameters
    counts = count(chosen, gpus)
    step = Step(
        chosen.model.parameters.depth, parameters.views.resolution,
        parameters.views.count * parameters.batch_size // gpus,
        parameters.views.small.count * parameters.batch_size // gpus, parameters.compile,
    )  # fmt: skip
    alone = gpus == 1 and parameters.piece_size is None
    time = (
        Figure(STEP_MS[step], measured=True)
        if alone and step in STEP_MS
        else Figure(step_milliseconds(counts, chosen, gpus))
    )
    memory = Figure(STEP_GIB[step], measured=True) if alone and step in STEP_GIB else Figure(counts.gibibytes)
    samples = parameters.batch_size / gpus / time.value * 1000
    return Row(
        preset=preset,
        gpus=gpus,
        piece_size=parameters.piece_size,
        milliseconds=time,
        seconds=Figure(time.value / 1000 * epoch_steps(preset, values) * parameters.epochs),
        gibibytes=memory,
        sent=Figure(counts.sent / 1e6),
        cores=Figure(samples * core_seconds(values["fetch"]["source"], parameters.views)),
    )


def duration(seconds: Figure) -> str:
    """In the largest of days, hours and minutes of which there are two."""
    for unit, length in (("days", 86400), ("h", 3600)):
        if seconds.value >= 2 * length:
            return Figure(seconds.value / length, seconds.measured).shown(unit)
    return Figure(seconds.value / 60, seconds.measured).shown("min")


def pieces_line(preset: str, gpus: int) -> str:
    """What pieces make of a batch on so many GPUs; the price is the time over that of the whole batch, if it fitted."""
    whole, chosen = contest.recipe(preset), fitting(preset, gpus)
    before, after = count(whole, gpus), count(chosen, gpus)
    cells = [str(gpus), Figure(before.gibibytes).shown()]
    if chosen.parameters.piece_size:
        taken = step_milliseconds(after, chosen, gpus)
        price = Figure(taken / step_milliseconds(before, whole, gpus))
        cells += [str(chosen.parameters.piece_size), Figure(after.gibibytes).shown(), Figure(taken).shown()]
        cells.append(price.shown("x"))
    else:
        cells += ["null", "", "", ""]
    return f"| {' | '.join(cells)} |"


def tables(chosen: Sequence[str]) -> Iterator[str]:
    """The lines of all tables, for the presets `chosen`."""
    for gpus in GPUS:
        yield f"\n## {gpus} GPU{'s' if gpus > 1 else ''}\n\n{_HEADER}"
        for preset in chosen:
            yield row(preset, gpus).line()
    if "imagenet" in chosen:
        yield f"\n## A batch of 4,096 in pieces\n\n{_PIECES_HEADER}"
        for gpus in (1, 2, 4, 8):
            yield pieces_line("imagenet", gpus)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("presets", nargs="*", metavar="preset", help="all that are for GPUs, if none is named")
    there_are = [name for name in presets.options("experiment") if name not in ON_A_CPU]
    chosen = parser.parse_args().presets or there_are
    for name in chosen:
        if name not in there_are:
            raise UserError(f"{name} is no preset for GPUs; there are: {', '.join(there_are)}")
    flop, byte = rates()
    print(f"{1000 / flop:,.0f} TFLOP/s and {1000 / byte:,.0f} GB/s where the GPU is the limit")
    for line in tables(chosen):
        print(line, flush=True)


if __name__ == "__main__":
    entry.run("scaling", main)
