"""The results on the test split in Markdown, with the interval that its number of images allows."""

from collections.abc import Iterable, Mapping

from simclr.card.markdown import code, table
from simclr.core.interval import limits
from simclr.core.stage_metrics import StageMetrics

_PROBES = {
    "pretrained": "Linear probe on the encoder",
    "untrained": "Baseline: the same on the same network, untrained",
    "raw_pixels": "Baseline: the same on raw pixels",
    "augmented": "Linear probe through the frozen encoder, with random crops",
}
"""Keys of linear_eval's metrics, and what they are."""


def accuracy_table(linear_eval: StageMetrics, embed: StageMetrics, images: int) -> str:
    """The probes, their baselines and the kNN classifier.

    Args:
        images: those of the test split.

    Raises:
        UserError: a report is damaged.
    """
    probes = {words: linear_eval.part(key) for key, words in _PROBES.items()}
    rows = [[words, *_accuracy(part, "top1", images), _percent(part.percent("top5"))] for words, part in probes.items()]
    knn = [f"kNN on the encoder, k = {embed.number('knn_neighbors'):g}", *_accuracy(embed, "knn_top1", images)]
    return table(["", "top-1, %", "95 % interval", "top-5, %"], [*rows, [*knn, _percent(embed.percent("knn_top5"))]])


def finetune_table(finetune: StageMetrics, images: int) -> str:
    """The top-1 accuracy of fine-tuning by the share of the labels; "" if nothing was fine-tuned.

    Raises:
        UserError: the report is damaged.
    """
    rows = []
    for key in finetune.keys:
        part = finetune.part(key)
        name = code(key.removesuffix("_percent")) + (" %" if key.endswith("_percent") else "")
        shares = f"{name} ({part.number('labels'):,.0f})"
        networks = [part.part(name) for name in ("finetuned", "from_scratch")]
        rows.append([shares, *(" (".join(_accuracy(one, "top1", images)) + ")" for one in networks)])
    header = ["labels that were used", "fine-tuned: top-1, % (95 % interval)", "the same network from scratch"]
    return table(header, rows) if rows else ""


def evaluation_table(evaluate: StageMetrics) -> str:
    """All that the evaluations measured, a row for each; "" without any.

    Raises:
        UserError: the report is damaged.
    """
    parts = {name: evaluate.part(name) for name in evaluate.keys}
    rows = [[code(name), ", ".join(_figures(part))] for name, part in parts.items()]
    return table(["evaluation", "metrics"], rows) if rows else ""


def gains(linear_eval: StageMetrics) -> Mapping[str, float]:
    """What the encoder's probe has above each baseline, in percentage points of top-1 accuracy.

    Raises:
        UserError: the report is damaged.
    """
    pretrained = linear_eval.part("pretrained").percent("top1")
    return {name: pretrained - linear_eval.part(name).percent("top1") for name in ("untrained", "raw_pixels")}


def _figures(part: StageMetrics) -> Iterable[str]:
    return (f"{code(key)} {part.number(key):.4g}" for key in part.keys)


def _accuracy(part: StageMetrics, key: str, images: int) -> tuple[str, str]:
    """The accuracy under `key` and its interval, in percent."""
    accuracy = part.percent(key)
    return _percent(accuracy), " to ".join(map(_percent, limits(key, accuracy, images).values()))


def _percent(number: float) -> str:
    return f"{number:.2f}"
