"""Fine-tuning: the samples whose labels are used, the training against a plain loop, what is chosen and on what, and
ranks against one process."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from simclr.core.errors import UserError
from simclr.core.randomness import permutation
from simclr.data.batch import Batch
from simclr.data.beton import Beton
from simclr.data.sampling import windowed_permutation
from simclr.distributed.session import Session
from simclr.features.encoder import Encoder
from simclr.features.encoder_file import untrained
from simclr.features.eval_transform import EvalTransform
from simclr.finetune.finetune import FineTuning, trainable
from simclr.finetune.finetune_params import FinetuneParams, check, fraction_epochs, refusals
from simclr.finetune.label_subset import label_subset
from simclr.learning.learner import Learner, StepResult
from simclr.methods.classifier import Classifier
from simclr.models import resnet
from simclr.tracking import progress
from tests.helpers.betons import noise, stored
from tests.helpers.ranks import ALONE, on_ranks

TRANSFORM = EvalTransform(size=8, crop_share=1.0, mean=[0.4, 0.5, 0.6], std=[0.2, 0.3, 0.4])
COUNT, CLASSES, EPOCHS = 10, 3, 3


def parameters(**changes: Any) -> FinetuneParams:
    values: dict[str, Any] = {
        "seed": 3, "head_layers": 0, "label_list": "weights/none", "fractions": [0.5], "epochs": [EPOCHS],
        "batch_size": 4, "shuffle_window": None, "lr": [2.0], "momentum": 0.9, "weight_decay": 0.01,
        "crop_scale": [1.0, 1.0], "flip": 0.0,
    }  # fmt: skip
    return FinetuneParams(**values | changes)


def network() -> Encoder:
    torch.manual_seed(0)
    return resnet.Encoder("resnet10", 0.125, small_stem=True, zero_init_residual=False)


def images(count: int, seed: int) -> npt.NDArray[np.uint8]:
    """Noise, brighter in the classes that come later."""
    return np.minimum(255, noise(count, 8, seed) // 2 + 60 * (np.arange(count) % CLASSES)[:, None, None, None]).astype(
        np.uint8
    )


@pytest.fixture
def splits(tmp_path: Path) -> dict[str, Beton]:
    counts = {"train": COUNT, "val": 9, "test": 12}
    return {
        name: stored(tmp_path / f"{name}.beton", images(count, seed), np.arange(count) % CLASSES)
        for seed, (name, count) in enumerate(counts.items())
    }


def tuning(splits: dict[str, Beton], session: Session = ALONE, **changes: Any) -> FineTuning:
    return FineTuning(parameters(**changes), TRANSFORM, splits, CLASSES, session)


def trained(session: Session, splits: dict[str, Beton], window: int | None = None) -> dict[str, Tensor]:
    method = Classifier(network(), CLASSES)
    steps = EPOCHS * (COUNT // 4)
    with progress.bar(steps, "step", "", shown=False) as bar:
        tuning(splits, session, shuffle_window=window)._train(method, splits["train"], EPOCHS, steps, 2.0, bar)
    return method.state_dict()


# the samples


def test_the_same_share_of_every_class_is_drawn() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [1, 40, 100]))
    for fraction, counts in ((0.01, [1, 1, 1]), (0.1, [1, 4, 10]), (1.0, [1, 40, 100])):
        subset = label_subset(labels, fraction, seed=0)
        assert np.bincount(labels[subset]).tolist() == counts
        assert (np.diff(subset) > 0).all()


def test_a_subset_is_a_part_of_the_larger_ones_and_drawn_by_the_seed() -> None:
    labels = np.arange(200) % 4
    subsets = [set(label_subset(labels, fraction, seed=0).tolist()) for fraction in (0.02, 0.3, 0.31, 0.9)]
    assert all(small <= large for small, large in itertools.pairwise(subsets))
    assert len({tuple(label_subset(labels, 0.1, seed)) for seed in range(5)}) == 5


# the training


@pytest.mark.parametrize("window", [None, 5])
def test_it_is_a_plain_loop_over_the_images(splits: dict[str, Beton], window: int | None) -> None:
    """With neither crops nor flips: SGD with Nesterov momentum, cosine decay, decay on weight matrices alone."""
    found = trained(ALONE, splits, window)
    encoder, layer = network(), torch.nn.Linear(64, CLASSES)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    weights = [*encoder.parameters(), *layer.parameters()]
    solver = torch.optim.SGD(
        [
            {"params": [weight for weight in weights if weight.ndim > 1], "weight_decay": 0.01},
            {"params": [weight for weight in weights if weight.ndim == 1]},
        ],
        lr=1.0, momentum=0.9, nesterov=True,
    )  # fmt: skip
    pixels = torch.from_numpy(images(COUNT, 0)).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in (TRANSFORM.mean, TRANSFORM.std))
    labels = torch.arange(COUNT) % CLASSES
    encoder.train()
    for step in range(EPOCHS * 2):
        epoch, batch = divmod(step, 2)
        order = permutation(COUNT, 3, epoch + 1) if window is None else windowed_permutation(COUNT, 5, 3, epoch + 1)
        samples = order[4 * batch : 4 * batch + 4]
        for group in solver.param_groups:
            group["lr"] = 2.0 * 4 / 256 * 0.5 * (1 + np.cos(np.pi * step / (EPOCHS * 2)))
        loss = F.cross_entropy(layer(encoder((pixels[samples] - mean) / std)), labels[samples])
        solver.zero_grad()
        loss.backward()
        solver.step()
    for name, value in encoder.state_dict().items():
        torch.testing.assert_close(found[f"encoder.{name}"], value, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found["layers.0.weight"], layer.weight.detach(), atol=1e-5, rtol=1e-4)


def test_ranks_train_as_one_process_does(splits: dict[str, Beton]) -> None:
    whole = trained(ALONE, splits)
    for state in on_ranks(2, trained, splits):
        for name, value in state.items():
            torch.testing.assert_close(value, whole[name], atol=1e-4, rtol=1e-3)


def test_the_encoder_that_it_starts_from_stays_as_it_is(splits: dict[str, Beton]) -> None:
    encoder = network().eval().requires_grad_(False)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    copies = [trainable(encoder) for _ in range(2)]
    tuning(splits).best(lambda: copies[0], np.arange(COUNT), EPOCHS, "")
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert not torch.equal(copies[0].conv1.weight, copies[1].conv1.weight)
    assert not any(weight.requires_grad for weight in encoder.parameters())


def test_the_untrained_network_is_drawn_by_the_seed() -> None:
    encoder = network()
    first, again, other = (untrained(encoder, seed).conv1.weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, encoder.conv1.weight)


def test_a_subset_smaller_than_a_batch_fills_one_with_other_crops(
    splits: dict[str, Beton], monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[Batch] = []
    step = Learner.step

    def spy(self: Learner, batch: Batch, *rest: float) -> StepResult:
        batches.append(batch)
        return step(self, batch, *rest)

    monkeypatch.setattr(Learner, "step", spy)
    tuning(splits, crop_scale=[0.3, 0.6]).best(network, np.array([1, 5]), 2, "")
    assert len(batches) == 2
    assert all(sorted(batch.labels.tolist()) == [1, 1, 2, 2] for batch in batches)
    views = torch.cat([batch.images[0].flatten(1) for batch in batches])
    assert len(views.unique(dim=0)) == 8


# what is chosen


def test_the_rate_is_chosen_on_val_and_tried_on_test(splits: dict[str, Beton]) -> None:
    everything = np.arange(COUNT)
    best = tuning(splits, lr=[1e-6, 8.0], epochs=[20]).best(network, everything, 20, "")
    assert best.lr == 8.0
    assert best.top1 > 60
    assert best.top5 == 100
    wrong = splits["val"].labels + 1
    splits["val"] = splits["val"].take(np.arange(9))
    splits["val"].labels[:] = wrong % CLASSES
    worst = tuning(splits, lr=[8.0, 1e-6], epochs=[20]).best(network, everything, 20, "")
    assert worst.lr == 1e-6
    assert worst.top1 < best.top1


def test_no_rate_at_all_is_an_error(splits: dict[str, Beton], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "simclr")
    assert tuning(splits, lr=[1e30, 0.1]).best(network, np.arange(COUNT), 2, "10 %").lr == 0.1
    assert caplog.messages == ["10 %: the loss on val is not finite with 1e+30"]
    with pytest.raises(UserError, match=r"finetune\.lr: with none of these rates is the loss on val finite"):
        tuning(splits, lr=[1e6], weight_decay=1e4).best(network, np.arange(COUNT), 20, "")


def test_epochs_belong_to_fractions() -> None:
    assert fraction_epochs(parameters(fractions=[0.1, 1.0], epochs=[5])) == [(0.1, 5), (1.0, 5)]
    assert fraction_epochs(parameters(fractions=[0.1, 1.0], epochs=[5, 2])) == [(0.1, 5), (1.0, 2)]
    assert fraction_epochs(parameters(fractions=[], epochs=[5])) == []
    with pytest.raises(UserError, match=r"finetune\.epochs = \[5, 2\] is not allowed; it takes one integer$"):
        check(parameters(epochs=[5, 2]), "params.yaml")
    with pytest.raises(UserError, match=r"\[5, 2\] is not allowed; it takes one integer, or 3: one for each"):
        check(parameters(fractions=[0.1, 0.2, 0.3], epochs=[5, 2]), "params.yaml")


def test_fewer_samples_than_a_batch_cannot_be_shuffled_at_a_time() -> None:
    check(parameters(shuffle_window=4), "params.yaml")
    with pytest.raises(
        UserError, match=r"finetune\.shuffle_window = 3 is not allowed; it takes at least the batch of 4$"
    ):
        check(parameters(shuffle_window=3), "params.yaml")


def test_a_batch_larger_than_the_data_is_refused() -> None:
    assert not [*refusals(parameters(batch_size=10), 10)]
    assert not [*refusals(parameters(batch_size=11, fractions=[]), 10)]
    assert [*map(str, refusals(parameters(batch_size=11), 10))] == [
        "params.yaml: finetune.batch_size = 11 is not allowed; it takes at most 10, the images of train"
    ]
