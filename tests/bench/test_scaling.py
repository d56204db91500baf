"""The arithmetic of `benchmarks.scaling` against plain formulas, and against what was measured."""

import sys
from pathlib import Path

import pytest
from benchmarks import scaling
from benchmarks.contest import recipe
from benchmarks.scaling import Counts, Figure
from torch import nn

from simclr import presets
from simclr.core.errors import UserError
from simclr.training.pretrain_params import pieces
from simclr.training.recipe import Recipe

PAGE = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text(encoding="utf-8")

CONVOLUTIONS = [
    (3, 64, 3, 32), *[(64, 64, 3, 32)] * 4,
    (64, 128, 3, 16), *[(128, 128, 3, 16)] * 3, (64, 128, 1, 16),
    (128, 256, 3, 8), *[(256, 256, 3, 8)] * 3, (128, 256, 1, 8),
    (256, 512, 3, 4), *[(512, 512, 3, 4)] * 3, (256, 512, 1, 4),
]  # fmt: skip
"""Of ResNet-18 with the stem for small images, at 32 px: channels in and out, sides of the kernel and of the output."""
LINEAR = [(512, 1024), (1024, 128)]
"""Of the head of cifar10_100_epochs."""
CHANNELS = sum(wide for _, wide, _, _ in CONVOLUTIONS)
"""A BatchNorm follows every convolution."""
WEIGHTS = sum(i * o * k * k for i, o, k, _ in CONVOLUTIONS) + 2 * CHANNELS + sum(i * o + o for i, o in LINEAR)


def forward(views: int, size: int = 32) -> int:
    """Operations of the network, two for each product of a weight and a value."""
    convolved = sum(2 * i * o * k * k * (side * size // 32) ** 2 for i, o, k, side in CONVOLUTIONS)
    return views * (convolved + sum(2 * i * o for i, o in LINEAR))


def test_operations_and_memory_of_a_step() -> None:
    """Forward, and twice that backward but for the gradient of the images; and the loss, whose products are of all
    views with all: once forward, twice backward."""
    views = 2 * 128
    first = 2 * 3 * 64 * 3 * 3 * 32 * 32 * views
    loss = 3 * 2 * views * views * 128
    whole = scaling.count(recipe("cifar10_100_epochs", "pretrain.batch_size=128"), 1)
    assert whole.teraflop * 1e12 == pytest.approx(3 * forward(views) - first + loss, rel=1e-9)
    assert (whole.tensors, whole.sent, whole.calls) == (64, 0, 0)
    halves = scaling.count(recipe("cifar10_100_epochs", "pretrain.batch_size=128", "pretrain.piece_size=64"), 1)
    assert (halves.teraflop - whole.teraflop) * 1e12 == pytest.approx(forward(views), rel=1e-9)
    assert halves.gibibytes < 0.75 * whole.gibibytes


@pytest.fixture(scope="module")
def method() -> nn.Module:
    """The network of cifar10_100_epochs and cifar10_fast."""
    chosen = recipe("cifar10_100_epochs")
    encoder = chosen.model.module.build(chosen.model.parameters, 32)
    built: nn.Module = chosen.method.module.build(chosen.method.parameters, encoder, 10, chosen.loss)
    return built


def test_small_views_cost_what_their_pixels_do(method: nn.Module) -> None:
    """Two views of 32 px and four of 16 px, which pass through the network one size after the other."""
    samples = 64
    counted = scaling.count(recipe("cifar10_fast", f"pretrain.batch_size={samples}"), 1)
    first = sum(2 * 3 * 64 * 3 * 3 * size**2 * number * samples for number, size in ((2, 32), (4, 16)))
    loss = 3 * 2 * (6 * samples) ** 2 * 128
    network = forward(2 * samples) + forward(4 * samples, size=16)
    assert counted.teraflop * 1e12 == pytest.approx(3 * network - first + loss, rel=1e-9)
    gpus = 8
    chosen = recipe("cifar10_fast", "pretrain.compile=false")
    gathered = 4 * 6 * 512 // gpus * (128 + 5 + 1)  # z, five positives, the log-sum-exp
    statistics = 2 * 4 * 2 * CHANNELS * (gpus + 1)
    sent, calls = scaling.messages(method, chosen, gpus)
    assert sent == pytest.approx(2 * (gpus - 1) / gpus * (4 * WEIGHTS + statistics) + (gpus - 1) * gathered)
    assert calls == 3 + 2 + 4 * len(CONVOLUTIONS)
    assert scaling.step_milliseconds(counted, chosen, 1) == pytest.approx(2 * 14.09)  # of the host: two sizes


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize("gpus", [1, 8, 32])
def test_messages_of_a_step(gpus: int, parts: int, compiled: bool, method: nn.Module) -> None:
    piece_size = 512 // parts if parts > 1 else "null"
    overrides = (f"pretrain.compile={str(compiled).lower()}", f"pretrain.piece_size={piece_size}")
    chosen = recipe("cifar10_100_epochs", *overrides)
    rows = 2 * 512 // gpus
    gathered = 4 * rows * (128 + 1 + 1)  # z, the positive, the log-sum-exp
    forward_passes = 2 * parts if parts > 1 else 1
    forward_sums = forward_passes * 4 * 2 * CHANNELS * gpus
    backward_sums = parts * 4 * 2 * CHANNELS * (gpus if compiled else 1)
    reduced = 4 * WEIGHTS + forward_sums + backward_sums
    norms = len(CONVOLUTIONS)
    calls = 3 + 2 + (forward_passes + parts) * norms  # 47 MB are three buckets: of 1, 25 and 19 MiB
    sent = 2 * (gpus - 1) / gpus * reduced + (gpus - 1) * gathered
    expected = (0, 0) if gpus == 1 else (pytest.approx(sent), calls)
    assert scaling.messages(method, chosen, gpus) == expected


@pytest.mark.parametrize(
    ("gpus", "counts", "expected"),
    [
        (1, Counts(10, 20, 0, 1, 0, 0), 10 * 2 + 20 * 0.5),
        (8, Counts(10, 20, 0, 1, 37e6, 100), 10 * 2 + 20 * 0.5 + 0.1 + 1.7),
        (32, Counts(10, 20, 0, 1, 46e6, 100), 10 * 2 + 20 * 0.5 + 1.0 + 13),
        (32, Counts(1, 2, 0, 640, 46e6, 100), 140.9),
    ],
    ids=["alone", "a node", "nodes", "the host is the limit"],
)
def test_time_of_a_step(gpus: int, counts: Counts, expected: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "rates", lambda: (2.0, 0.5))
    assert scaling.step_milliseconds(counts, recipe("cifar10"), gpus) == pytest.approx(expected)


def test_time_of_a_compiled_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "rates", lambda: (2.0, 0.5))
    chosen = recipe("cifar10", "pretrain.compile=true")
    milliseconds = scaling.step_milliseconds(Counts(10, 20, 0, 1, 37e6, 100), chosen, 8)
    assert milliseconds == pytest.approx(30 * 95.6 / 132.3 + 0.1 + 1.7)


@pytest.mark.parametrize(("preset", "steps"), [("cifar10_100_epochs", 97), ("cifar10", 87), ("stl10", 195)])
def test_steps_of_an_epoch(preset: str, steps: int) -> None:
    assert scaling.epoch_steps(preset, presets.compose(preset)) == steps


def test_cores_that_load_images() -> None:
    assert scaling.core_seconds("folder", recipe("imagenet").parameters.views) == pytest.approx(2 / 2165 + 1.7e-3 / 512)
    six = recipe("cifar10_fast").parameters.views  # of one copy of the pixels
    assert scaling.core_seconds("cifar10", six) == pytest.approx((3 * 1.7e-3 + 6.79e-3) / 512)
    assert scaling.core_seconds("cifar10", recipe("cifar10").parameters.views) == pytest.approx(
        (1.7e-3 + 6.79e-3) / 512
    )


def test_a_batch_that_does_not_fit_is_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made-up counts: 200 GiB for the whole batch; half, a quarter, ... in pieces, for 1.5 times the work."""

    def count(chosen: Recipe, gpus: int) -> Counts:
        parts = pieces(chosen.parameters)
        work = 600 if parts > 1 else 400
        return Counts(work, work, 200 / gpus / parts, tensors=1, sent=0, calls=0)

    monkeypatch.setattr(scaling, "count", count)
    monkeypatch.setattr(scaling, "rates", lambda: (2.0, 0.5))
    assert scaling.fitting("imagenet", 4).parameters.piece_size is None
    assert scaling.fitting("imagenet", 2).parameters.piece_size == 2048
    assert scaling.fitting("imagenet", 1).parameters.piece_size == 1024
    assert scaling.pieces_line("imagenet", 1) == "| 1 | 200 d | 1024 | 50 d | 1,500 d | 1.5 x d |"
    assert scaling.pieces_line("imagenet", 4) == "| 4 | 50 d | null |  |  |  |"


def test_counted_memory_is_near_what_was_measured() -> None:
    for preset, step in scaling.FITTED.items():
        counted = scaling.count(recipe(preset, "pretrain.compile=false"), 1).gibibytes
        assert counted == pytest.approx(scaling.STEP_GIB[step], rel=0.1)


def test_pieces_take_little_more_than_a_batch_of_their_size() -> None:
    """What a batch of 4,096 has beside the activations of one piece is all of its views."""
    small, large = (
        scaling.count(recipe("cifar10", "pretrain.compile=false", *changes), 1)
        for changes in (
            ["pretrain.batch_size=512"],
            ["pretrain.batch_size=4096", "pretrain.piece_size=512"],
        )
    )
    assert large.gibibytes < 1.2 * small.gibibytes
    assert large.teraflop / 8 < 1.6 * small.teraflop
    assert large.gigabytes / 8 < 1.6 * small.gigabytes


def test_derived_time_is_near_what_was_measured() -> None:
    """Four views instead of two, which no rate was taken from: the same machine's table of options."""
    chosen = recipe("cifar10_100_epochs", "pretrain.compile=false", "pretrain.views.count=4")
    assert scaling.step_milliseconds(scaling.count(chosen, 1), chosen, 1) == pytest.approx(34.68, rel=0.15)


@pytest.mark.parametrize(
    ("preset", "gpus"),
    [("cifar10_100_epochs", 1), ("cifar10_100_epochs", 8), ("imagenet", 32)],
)
def test_the_page_holds_the_tables(preset: str, gpus: int) -> None:
    assert scaling.row(preset, gpus).line() in PAGE.splitlines()


def test_the_page_has_every_preset_for_gpus() -> None:
    for name in presets.options("experiment"):
        assert PAGE.count(f"\n| {name} |") == (0 if name in scaling.ON_A_CPU else len(scaling.GPUS))


@pytest.mark.parametrize(("seconds", "shown"), [(90.0, "1.5 min d"), (7300.0, "2.03 h d"), (200_000.0, "2.31 days d")])
def test_durations(seconds: float, shown: str) -> None:
    assert scaling.duration(Figure(seconds)) == shown


def test_a_preset_for_a_cpu_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["scaling", "digits"])
    with pytest.raises(UserError, match=r"^digits is no preset for GPUs; there are: cifar10, "):
        scaling.main()
