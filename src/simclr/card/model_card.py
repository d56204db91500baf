"""The model card of an encoder (Mitchell et al. 2019): Markdown with the YAML front matter of Hugging Face's cards."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simclr.card import results
from simclr.card.data_licences import data_licence
from simclr.card.markdown import code, table
from simclr.card.recipe_rows import is_trained, name, options_in_use, recipe_rows, value
from simclr.card.run_record import RunRecord
from simclr.core.stage_metrics import StageMetrics
from simclr.data.converted import files_of
from simclr.features.encoder import Encoder
from simclr.features.eval_transform import EvalTransform

_SHOWN = 20
"""The most class names in the card."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What a card is about.

    Attributes:
        file: the path of the encoder's file.
        md5, sha256: of that file, in hexadecimal.
        model: the option, such as "resnet".
        images: the number of images of each split.
        reports: by stage, the metrics of pretrain, embed, linear_eval, finetune and evaluate.
        values: the nested values of params.yaml.
        record: None if the run was not recorded.
    """

    file: str
    md5: str
    sha256: str
    model: str
    encoder: Encoder
    transform: EvalTransform
    classes: Sequence[str]
    images: Mapping[str, int]
    reports: Mapping[str, StageMetrics]
    values: Mapping[str, Any]
    record: RunRecord | None


def model_card(subject: Subject) -> str:
    """The text of the card: equal subjects have equal cards.

    Raises:
        UserError: a report is damaged, or params.yaml lacks a key.
    """
    how = ", pretrained" if is_trained(subject.values) else " with weights from elsewhere, evaluated"
    title = f"# {code(subject.model)}{how} on {code(name(subject.values, 'fetch.source'))}"
    sections = {
        "The encoder": _encoder(subject),
        "How to use it": _use(subject),
        "Data": _data(subject),
        "Recipe": _recipe(subject),
        "Results": _results(subject),
        "Limits": _limits(subject),
        "How to reproduce it": _reproduction(subject),
    }
    parts = [_front_matter(subject), title, *(f"## {heading}\n\n{text}" for heading, text in sections.items())]
    return "\n\n".join(parts) + "\n"


def _front_matter(subject: Subject) -> str:
    options = [path.split(".", 1) for path in options_in_use(subject.values)]
    tags = ["image-feature-extraction", "pytorch", "safetensors", subject.model]
    tags += [option for package, option in options if package != "augment"]
    facts = ["license: unknown", "library_name: simclr", "pipeline_tag: image-feature-extraction"]
    # a text of JSON is one of YAML too
    lists = ["metrics:", "- accuracy", "tags:", *(f"- {json.dumps(tag)}" for tag in tags)]
    return "\n".join(["---", *facts, *lists, "---"])


def _encoder(subject: Subject) -> str:
    encoder, transform = subject.encoder, subject.transform
    weights = sum(weight.numel() for weight in encoder.parameters())
    side = f"{transform.size} x {transform.size}"
    architecture = ", ".join(f"{key}: {json.dumps(item)}" for key, item in encoder.architecture.items())
    rows = [
        ("Architecture", f"{code(subject.model)} with {code(architecture)}"),
        ("Parameters", f"{weights:,}"),
        ("Input", f"RGB images of any size: central square of {100 * transform.crop_share:g} % of the shorter side, "
         f"resized to {side} pixels; values from 0 to 1, then mean {_triple(transform.mean)} and standard deviation "
         f"{_triple(transform.std)} per channel"),
        ("Output", f"representation h, D = {encoder.dimension} values, float32, not normalised"),
        ("File", f"{code(subject.file)}, safetensors"),
        ("SHA-256", code(subject.sha256)),
        ("Licence", "not stated: that of these weights is for those who publish them to say, in line with the data's"),
    ]  # fmt: skip
    words = "A network that turns an image into a vector: for search, clustering, or a classifier with few labels."
    return f"{words}\n\n{table(['', ''], rows)}"


def _use(subject: Subject) -> str:
    lines = (
        "import simclr",
        "from PIL import Image",
        "",
        f'encoder, prepare = simclr.load_encoder("{subject.file}")',
        f'h = encoder(prepare(Image.open("cat.jpg"))[None])  # (1, {subject.encoder.dimension})',
    )
    search = "For a folder of images: `simclr embed FOLDER` and `simclr search FOLDER QUERY.jpg`"
    return f"{_block('python', lines)}\n\n{search} (`docs/using.md`)."


def _data(subject: Subject) -> str:
    source = name(subject.values, "fetch.source")
    classes = ", ".join(map(code, subject.classes[:_SHOWN]))
    more = f" and {len(subject.classes) - _SHOWN:,} more" if len(subject.classes) > _SHOWN else ""
    rows = [
        ("Source", code(source)),
        ("Licence of the images", data_licence(source)),
        *((f"Images of {code(split)}", f"{count:,}") for split, count in subject.images.items()),
        (f"{len(subject.classes):,} classes", f"{classes}{more}") if subject.classes else ("Labels", "none"),
    ]
    tail = value(subject.values, "convert.long_tail")
    if isinstance(tail, int | float) and tail > 1:
        rows.append(("Long tail", f"the first class of train has {tail:g} times the images of the last"))
    splits = " and ".join(map(code, files_of(name(subject.values, "pretrain.split"))))
    origin = (
        f"The encoder was pretrained on the images of {splits}."
        if is_trained(subject.values)
        else "The encoder was not trained on these images."
    )
    return f"{table(['', ''], rows)}\n\n{origin}"


def _recipe(subject: Subject) -> str:
    if not is_trained(subject.values):
        return table(["", ""], recipe_rows(subject.values))
    pretrain = subject.reports["pretrain"]
    kept, epochs = pretrain.number("kept_epoch"), pretrain.number("epochs")
    kept_words = f"The encoder is that of epoch {kept:g} of {epochs:g}."
    return f"{table(['', ''], recipe_rows(subject.values))}\n\n{kept_words}"


def _results(subject: Subject) -> str:
    test, reports = subject.images["test"], subject.reports
    if subject.classes:
        gains = results.gains(reports["linear_eval"])
        refitted = (
            " Linear probes were then trained on train and val." if value(subject.values, "linear_eval.refit") else ""
        )
        parts = [
            f"On {test:,} test images. What had to be chosen was chosen on val.{refitted} The intervals (Wilson) "
            "are the noise of so many test images, not that of seeds.",
            results.accuracy_table(reports["linear_eval"], reports["embed"], test),
            f"Compared with the untrained network, its linear probe gains {gains['untrained']:+.2f} points; compared "
            f"with raw pixels, {gains['raw_pixels']:+.2f}.",
        ]
    else:
        parts = [f"On {test:,} test images, which have no labels: there are no accuracies."]
    if finetuned := results.finetune_table(reports["finetune"], test):
        parts.append(f"Trained further on a part of the labels:\n\n{finetuned}")
    if evaluated := results.evaluation_table(reports["evaluate"]):
        parts.append(f"Other measurements (`docs/evaluating.md` says what they mean):\n\n{evaluated}")
    return "\n\n".join(parts)


def _limits(subject: Subject) -> str:
    return (
        f"It was evaluated on the test images of {code(name(subject.values, 'fetch.source'))} alone, with one seed. "
        "How it does on other images is not known, nor is what it repeats of the biases of its training images."
    )


def _reproduction(subject: Subject) -> str:
    lines = (
        "git log -1 --format=%H -- dvc.lock   # once this card is committed: the commit of its encoder",
        "git checkout COMMIT",
        "make repro                           # or, in an environment of these versions: dvc repro",
    )
    parts = [
        _block("bash", lines),
        f"At that commit `dvc.lock` has the MD5 of {code(subject.file)}: {code(subject.md5)}.",
    ]
    if (record := subject.record) is None:
        return "\n\n".join([*parts, "How this run was made is not recorded."])
    repeats = record.repeats and not value(subject.values, "pretrain.compile")
    again = ": any x86-64 processor with AVX2 and FMA makes the same bytes with these versions" if repeats else ""
    versions = [(code(package), code(version)) for package, version in record.versions.items() if version != "absent"]
    made = (
        f"It was pretrained on {code(record.device)}, the processor's instructions {code(record.instructions)}{again}."
    )
    return "\n\n".join([*parts, made, table(["package", "version"], versions)])


def _block(language: str, lines: Iterable[str]) -> str:
    return "\n".join([f"```{language}", *lines, "```"])


def _triple(values: Sequence[float]) -> str:
    return code(", ".join(f"{item:.4f}" for item in values))
