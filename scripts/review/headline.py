"""What a reviewer looks at first."""

import re
from collections.abc import Sequence

METRICS = ("linear_eval.pretrained.top1", "linear_eval.augmented.top1", "embed.knn_top1", "pretrain.val_knn_top1")
"""By stage and key; they are also averaged over seeds."""
WORDS = {
    "linear_eval.pretrained.top1": "linear probe",
    "linear_eval.augmented.top1": "augmented probe",
    "embed.knn_top1": "kNN",
    "pretrain.val_knn_top1": "kNN on val",
    "linear_eval.pretrained.balanced_accuracy": "linear probe, mean over classes",
    "linear_eval.augmented.balanced_accuracy": "augmented probe, mean over classes",
}
"""Metrics in words, in the order in which they come first."""
STAGES = ("linear_eval", "finetune", "embed", "evaluate", "pretrain")
"""Whose metrics come first."""


def words(metric: str) -> str | None:
    """A metric in words, if there are any."""
    if found := re.fullmatch(r"evaluate\.knn\.top1_k(\d+)", metric):
        return f"kNN, k = {found[1]}"
    if found := re.fullmatch(r"finetune\.([\d.e+-]+)_percent\.finetuned\.top1", metric):
        return f"fine-tuned, {found[1]} % of the labels"
    return WORDS.get(metric)


def place(metric: str) -> tuple[int, int]:
    """Sorts metrics, by stage and key: those of `WORDS`, then those of `STAGES`, then the others."""
    stage = metric.partition(".")[0]
    return _index(tuple(WORDS), metric), _index(STAGES, stage)


def order(metric: str) -> tuple[tuple[int, int], list[tuple[float, str]]]:
    """Sorts metrics as `place`, and those of one place by name, in which numbers count as such (2 before 10)."""
    parts = re.split(r"(\d+(?:\.\d+)?)", metric)
    return place(metric), [(float(part), "") if index % 2 else (0.0, part) for index, part in enumerate(parts)]


def _index(names: Sequence[str], name: str) -> int:
    return names.index(name) if name in names else len(names)
