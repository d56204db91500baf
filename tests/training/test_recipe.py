"""Values of a recipe that do not go together."""

from typing import Any

import pytest

from simclr.core.errors import UserError
from simclr.training.recipe import refusals_without_labels
from tests.helpers.recipes import recipe


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"piece_size": 3}, "pretrain.piece_size = 3 is not allowed; it takes a divisor of the batch of 8"),
        ({"piece_size": 16}, "pretrain.piece_size = 16 is not allowed; it takes a divisor of the batch of 8"),
        (
            {"views__small__count": 2, "views__augmentations": ["jitter"]},
            "pretrain.views.small.count = 2 is not allowed; it takes 0 where crop is not among pretrain.views.augm",
        ),
        (
            {"views__small__count": 2, "model": "vit"},
            "pretrain.views.small.count = 2 is not allowed; it takes 0 with vit, which takes images of one resolution",
        ),
        (
            {"split": "unlabelled", "loss": "supervised"},
            'pretrain.split = "unlabelled" is not allowed; it takes train, since supervised learns from labels',
        ),
        (
            {"split": "unlabelled", "online_probe__lr": 0.1},
            'split = "unlabelled" is not allowed; it takes train, since pretrain.online_probe learns from labels',
        ),
        (
            {"split": "all", "loss": "supervised"},
            'split = "all" is not allowed; it takes train, since supervised learns from labels',
        ),
        (
            {"split": "all", "early_stopping__patience": 3},
            "early_stopping.patience = 3 is not allowed; it takes null where pretrain.split is all, since val is",
        ),
        ({"shuffle_window": 7}, "pretrain.shuffle_window = 7 is not allowed; it takes at least the batch of 8"),
        (
            {"early_stopping__watch": "probe_top1"},
            'watch = "probe_top1" is not allowed; it takes knn_top1 where pretrain.online_probe.lr is null',
        ),
    ],
)
def test_values_that_do_not_go_together_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as refused:
        recipe(**changes)
    assert message in str(refused.value)


def test_all_of_them_are_named_at_once() -> None:
    with pytest.raises(UserError) as refused:
        recipe(piece_size=3, method="moco", loss="supervised", views__augmentations=["jitter", "crop"])
    for key in ("pretrain.piece_size", "pretrain.loss", "pretrain.views.augmentations"):
        assert key in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "classifier"}, 'pretrain.method = "classifier" is not allowed; it takes one that learns without'),
        (
            {"loss": "supervised"},
            'pretrain.loss = "supervised" is not allowed; it takes one that learns without labels',
        ),
        ({"online_probe__lr": 0.1}, "pretrain.online_probe.lr = 0.1 is not allowed; it takes null, since these images"),
        ({"early_stopping__patience": 3}, "pretrain.early_stopping.patience = 3 is not allowed; it takes null"),
    ],
)
def test_what_needs_labels_is_refused_without_them(changes: dict[str, Any], message: str) -> None:
    (refused,) = refusals_without_labels(recipe(**changes))
    assert message in str(refused)
    assert not [*refusals_without_labels(recipe())]
