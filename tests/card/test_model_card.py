"""The model card: its numbers against the reports in Git, what names can do to it, and what of params.yaml it tells."""

import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from markdown_it import MarkdownIt
from PIL import Image
from ruamel.yaml import YAML
from scipy.stats import binomtest

from simclr.card.data_licences import NOT_STATED, data_licence
from simclr.card.model_card import Subject, model_card
from simclr.card.run_record import RunRecord, check_encoder, read_run_record
from simclr.core import fingerprint, options, params_file
from simclr.core.errors import UserError
from simclr.core.stage_metrics import StageMetrics
from simclr.features import encoder_file
from simclr.features.eval_transform import EvalTransform
from simclr.models.resnet import Encoder
from tests.helpers.programs import ROOT

STAGES = ("pretrain", "embed", "linear_eval", "finetune", "evaluate")
METRICS = {stage: json.loads((ROOT / f"reports/{stage}/metrics.json").read_text()) for stage in STAGES}
VALUES = params_file.read(ROOT / "params.yaml")
TEST = 360
EVIL = (
    "<script>alert(1)</script>", "a|b", "\\|", "`", "``` x", "[x](https://a.example)", "![](https://a.example)",
    "\n# x", "| x\n|---\n", "&lt;b&gt;", "*x* _y_ ~~z~~", "https://a.example", "@someone", "---", "\u202e\u2028\x00",
    "", "ä日本",
)  # fmt: skip
"""Names that a folder or a pull request may bring."""


def subject(metrics: Mapping[str, Any] = METRICS, values: Mapping[str, Any] = VALUES, **changes: Any) -> Subject:
    facts: dict[str, Any] = {
        "file": "models/encoder.safetensors", "md5": "0" * 32, "sha256": "1" * 64, "model": "resnet",
        "encoder": Encoder("resnet10", 0.125, True, False), "classes": [str(digit) for digit in range(10)],
        "transform": EvalTransform(12, 1.0, [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]),
        "images": {"train": 1295, "val": 142, "test": TEST},
        "record": RunRecord("cpu", "held", {"torch": "2.0.0", "numpy": "2.1.0", "ffcv": "absent"}, {"0": 1}),
    }  # fmt: skip
    reports = {stage: StageMetrics(Path(f"reports/{stage}/metrics.json"), stage, metrics[stage]) for stage in STAGES}
    return Subject(**facts | {"reports": reports, "values": values} | changes)


def rows(card: str) -> dict[str, list[str]]:
    """The rows of all tables by their first cell."""
    lines = [line[2:-2].split(" | ") for line in card.splitlines() if line.startswith("| ")]
    return {cells[0]: cells[1:] for cells in lines}


def changed(values: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A copy of nested `values` with another one at `key`; without it if `value` is `...`."""
    copied = copy.deepcopy(dict(values))
    *parents, last = key.split("/")
    section = copied
    for name in parents:
        section = section[name]
    if value is ...:
        del section[last]
    else:
        section[last] = value
    return copied


def interval(accuracy: float) -> str:
    """By scipy."""
    share = binomtest(round(accuracy / 100 * TEST), TEST).proportion_ci(0.95, method="wilson")
    return f"{100 * share.low:.2f} to {100 * share.high:.2f}"


def test_the_accuracies_are_those_of_the_reports_and_the_intervals_are_scipys() -> None:
    found = rows(model_card(subject()))
    keys = {
        "pretrained": "Linear probe on the encoder",
        "untrained": "Baseline: the same on the same network, untrained",
        "raw_pixels": "Baseline: the same on raw pixels",
        "augmented": "Linear probe through the frozen encoder, with random crops",
    }
    for key, words in keys.items():
        metrics = METRICS["linear_eval"][key]
        assert found[words] == [f"{metrics['top1']:.2f}", interval(metrics["top1"]), f"{metrics['top5']:.2f}"]
    top1, top5 = METRICS["embed"]["knn_top1"], METRICS["embed"]["knn_top5"]
    assert found["kNN on the encoder, k = 20"] == [f"{top1:.2f}", interval(top1), f"{top5:.2f}"]
    gain, over_pixels = (METRICS["linear_eval"][f"gain_over_{name}"] for name in ("untrained", "raw_pixels"))
    words = f"its linear probe gains {gain:+.2f} points; compared with raw pixels, {over_pixels:+.2f}."
    assert words in model_card(subject())


def test_fine_tuning_stands_beside_the_same_network_from_scratch() -> None:
    found = rows(model_card(subject()))
    for key, labels in (("1", 10), ("10", 129)):
        metrics = METRICS["finetune"][f"{key}_percent"]
        assert metrics["labels"] == labels
        top1 = [metrics[name]["top1"] for name in ("finetuned", "from_scratch")]
        assert found[f"`{key}` % ({labels})"] == [f"{value:.2f} ({interval(value)})" for value in top1]


def test_without_fractions_nothing_is_said_of_fine_tuning() -> None:
    assert "fine-tuned" in model_card(subject())
    assert "fine-tuned" not in model_card(subject(METRICS | {"finetune": {}}))


def test_it_says_which_images_were_trained_on() -> None:
    card = model_card(subject())
    assert "pretrained on the images of `train`." in card
    assert "trained on train and val" not in card
    assert "Long tail" not in card
    values = changed(changed(VALUES, "pretrain/split", "all"), "linear_eval/refit", True)
    for tail in (10.0, 10):  # as of `-S convert.long_tail=10`
        card = model_card(subject(values=changed(values, "convert/long_tail", tail)))
        assert rows(card)["Long tail"] == ["the first class of train has 10 times the images of the last"]
    assert "pretrained on the images of `train` and `val`." in card
    assert "chosen on val. Linear probes were then trained on train and val. The intervals" in card


def test_each_evaluation_is_a_row_of_its_metrics() -> None:
    found = rows(model_card(subject()))
    for name, metrics in METRICS["evaluate"].items():
        assert found[f"`{name}`"] == [", ".join(f"`{key}` {value:.4g}" for key, value in metrics.items())]
    assert "evaluation" not in model_card(subject(METRICS | {"evaluate": {}}))


def test_the_encoder_is_described_by_what_it_is() -> None:
    encoder = Encoder("resnet10", 0.125, True, False)
    found = rows(model_card(subject(encoder=encoder)))
    assert found["Parameters"] == [f"{sum(tensor.numel() for tensor in encoder.parameters()):,}"]
    assert "D = 64 values" in found["Output"][0]
    assert "resized to 12 x 12 pixels" in found["Input"][0]
    assert "`0.1000, 0.2000, 0.3000`" in found["Input"][0]
    assert "`0.4000, 0.5000, 0.6000`" in found["Input"][0]
    assert (found["SHA-256"], found["Epochs"], found["`torch`"]) == ([f"`{'1' * 64}`"], ["`80`"], ["`2.0.0`"])
    assert "`ffcv`" not in found
    assert "0" * 32 in model_card(subject())


def test_the_code_of_the_card_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = subject()
    encoder_file.save(tmp_path / made.file, made.encoder.eval(), made.transform)
    Image.new("L", (30, 20)).save(tmp_path / "cat.jpg")
    monkeypatch.chdir(tmp_path)
    [code] = [block.partition("```")[0] for block in model_card(made).split("```python\n")[1:]]
    names: dict[str, Any] = {}
    exec(code, names)
    assert torch.equal(names["h"], made.encoder(names["prepare"](Image.open("cat.jpg"))[None]))
    assert code.rstrip().endswith(f"# {tuple(names['h'].shape)}")


def test_the_front_matter_is_yaml_in_the_terms_of_the_hub() -> None:
    _, text, _ = model_card(subject()).split("---\n", 2)
    assert YAML(typ="safe").load(text) == {
        "license": "unknown",
        "library_name": "simclr",
        "pipeline_tag": "image-feature-extraction",
        "metrics": ["accuracy"],
        "tags": ["image-feature-extraction", "pytorch", "safetensors", "resnet", "simclr", "nt_xent"],
    }


def with_evil(name: str) -> str:
    metrics = copy.deepcopy(METRICS)
    metrics["evaluate"] |= {name: {name: 1.0}}
    metrics["finetune"] |= {name: METRICS["finetune"]["1_percent"]}
    values = copy.deepcopy(VALUES)
    for key in ("epochs", "batch_size", "seed", "precision", "split"):
        values["pretrain"][key] = name
    values["fetch"]["source"] = values["embed"]["neighbors"] = values["losses"]["nt_xent"]["temperature"] = name
    values["pretrain"]["optimizer"]["name"] = values["pretrain"]["views"]["resolution"] = name
    record = RunRecord(name, name, {name: name}, {"0": 1})
    return model_card(subject(metrics, values, classes=[name, "plain", name], record=record))


@pytest.mark.parametrize("name", EVIL)
def test_no_name_can_be_markup(name: str) -> None:
    tokens, plain = (
        MarkdownIt("commonmark").enable("table").parse(card.split("---\n", 2)[2])
        for card in (with_evil(name), with_evil("plain"))
    )
    # the structure is that of a card with harmless names, of text and code alone
    assert [token.type for token in tokens] == [token.type for token in plain]
    inside = {child.type for token in tokens for child in token.children or []}
    assert inside == {"text", "code_inline"}
    texts, others = ("".join(child.content for token in found for child in token.children or [] if child.type == "text")
                     for found in (tokens, plain))  # fmt: skip
    assert texts == others


def test_names_stand_as_they_are_and_those_of_many_classes_are_counted() -> None:
    name = "a `b` | c"
    [cell] = rows(model_card(subject(classes=[name])))["1 classes"][:1]
    assert cell.startswith("``a `b` \\")
    many = rows(model_card(subject(classes=[f"class {number}" for number in range(1000)])))["1,000 classes"][0]
    assert many.endswith("`class 19` and 980 more")
    assert many.count("`") == 40


@pytest.mark.parametrize("source", options.names("sources"))
def test_each_source_has_a_licence(source: str) -> None:
    card = model_card(
        subject(values=changed(VALUES, "fetch/source", source), images={"train": 3, "unlabelled": 7, "test": 5})
    )
    assert data_licence(source) != NOT_STATED
    assert rows(card)["Licence of the images"] == [data_licence(source)]
    assert (rows(card)["Source"], rows(card)["Images of `unlabelled`"]) == ([f"`{source}`"], ["7"])
    assert f"pretrained on `{source}`" in card


def test_of_a_source_that_is_not_known_no_licence_is_stated() -> None:
    assert rows(model_card(subject(values=changed(VALUES, "fetch/source", "mine"))))["Licence of the images"] == [
        NOT_STATED
    ]


def test_the_recipe_has_the_values_in_use_and_no_others() -> None:
    found = rows(model_card(subject()))
    assert found["Loss"] == ["`nt_xent` with `temperature: 0.2, similarity: cosine`"]
    assert found["Views of an image"] == ["`2` of `12 x 12` pixels"]
    assert found["Augmentations"][0].startswith(
        "`crop` with `scale: [0.35, 1.0], ratio: [0.75, 1.3333]`, then `jitter` with"
    )
    assert found["Optimiser"] == [
        "`lars` with `lr: 1.0, lr_scaling: linear, momentum: 0.9, weight_decay: 1e-06, warmup_epochs: 5`"
    ]
    recipe = model_card(subject()).partition("## Recipe")[2].partition("##")[0]
    for absent in ("Penalty", "Early stopping", "blur", "null", "None", "decoupled", "clip_grad_norm", "small"):
        assert absent not in recipe


CHANGES: dict[str, tuple[str, Any, str, str]] = {
    "no augmentations": ("pretrain/views/augmentations", [], "Augmentations", "none"),
    "clipping": ("pretrain/optimizer/clip_grad_norm", 2.5, "Optimiser", "clip_grad_norm: 2.5`"),
    "pieces": ("pretrain/piece_size", 64, "Batch", "`256` images, computed `64` at a time"),
    "penalty": ("pretrain/penalty/weights/l2", 0.01, "Penalty", "`weights.l2: 0.01`"),
    "stopping": ("pretrain/early_stopping/patience", 3, "Early stopping", "with `patience: 3, min_gain: 0.0`"),
    "small views": (
        "pretrain/views/small/count", 4, "Views of an image",
        "`2` of `12 x 12` pixels, and `4` of `8 x 8` pixels, whose crops have the scale `[0.1, 0.4]`",
    ),
    "classifier": ("pretrain/method", "classifier", "Loss", "cross entropy with the labels"),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_switched_on_is_told(change: str) -> None:
    key, value, row, words = CHANGES[change]
    card = model_card(subject(values=changed(VALUES, key, value)))
    assert rows(card)[row][0].endswith(words)
    assert ("nt_xent" in card) == (change != "classifier")


@pytest.mark.parametrize(
    "key",
    [
        "fetch/source", "pretrain/method", "pretrain/loss", "pretrain/views/augmentations",
        "pretrain/views/count", "pretrain/views/small/count", "pretrain/optimizer/name", "pretrain/penalty",
        "losses/nt_xent", "augment/jitter", "methods/simclr", "pretrain/epochs", "pretrain/seed", "pretrain/split",
        "linear_eval/refit", "convert/long_tail",
    ],
)  # fmt: skip
def test_a_key_that_params_yaml_lacks_is_named(key: str) -> None:
    for value in (..., None):
        with pytest.raises(UserError, match=rf"^params\.yaml: {key.replace('/', '.')} is missing$"):
            model_card(subject(values=changed(VALUES, key, value)))


@pytest.mark.parametrize(
    ("key", "takes"),
    [
        ("pretrain/method", "must be a name"), ("fetch/source", "must be a name"), ("pretrain/split", "must be a name"),
        ("losses/nt_xent", "must be a section"), ("pretrain/penalty", "must be a section"),
        ("pretrain/views/augmentations", "must be a list of names"), ("pretrain/optimizer/name", "must be a name"),
    ],
)  # fmt: skip
def test_a_value_of_another_kind_is_refused(key: str, takes: str) -> None:
    for value in (3, [3]):
        with pytest.raises(UserError, match=rf"^params\.yaml: {key.replace('/', '.')} {takes}"):
            model_card(subject(values=changed(VALUES, key, value)))


DAMAGE = {
    "linear_eval": ["pretrained", "pretrained/top1", "untrained/top5", "raw_pixels/top1", "augmented/top1"],
    "embed": ["knn_top1", "knn_top5", "knn_neighbors"],
    "finetune": ["1_percent", "1_percent/labels", "1_percent/finetuned/top1", "10_percent/from_scratch"],
    "evaluate": ["health", "health/effective_rank"],
    "pretrain": ["kept_epoch", "epochs"],
}


@pytest.mark.parametrize(("stage", "key"), [(stage, key) for stage, keys in DAMAGE.items() for key in keys])
def test_a_damaged_report_is_named(stage: str, key: str) -> None:
    of_a_number = [float("nan"), "98", True, None] if not key.endswith("_percent") else []
    in_percent = [100.1, -1] if "top" in key else []
    missing = [] if stage == "evaluate" or key == "1_percent" else [...]
    for value in [[1], *of_a_number, *in_percent, *missing]:
        metrics = METRICS | {stage: changed(METRICS[stage], key, value)}
        with pytest.raises(UserError, match=rf"^reports/{stage}/metrics\.json: damaged; the {stage} stage writes it$"):
            model_card(subject(metrics))
    for content in ([], 3, None):
        with pytest.raises(UserError, match=rf"^reports/{stage}/metrics\.json: damaged"):
            model_card(subject(METRICS | {stage: content}))


def test_the_record_of_a_run_is_read_if_it_is_of_this_encoder(tmp_path: Path) -> None:
    path, out = tmp_path / "run.json", Path("models/encoder.safetensors")
    content = json.loads((ROOT / "reports/pretrain/run.json").read_text())
    digest = content["outs"][str(out)]
    assert read_run_record(path, out, digest) is None
    path.write_text(json.dumps(content))
    assert read_run_record(path, out, digest) == RunRecord("cpu", "held", content["versions"], {"0": 1})
    assert read_run_record(path, out, "0" * 32) is None
    for change in (content | {"versions": []}, content | {"outs": 3}, content["outs"], [], 3):
        path.write_text(json.dumps(change))
        assert read_run_record(path, out, digest) is None


def test_the_card_says_when_a_run_is_not_recorded_and_where_its_bytes_repeat() -> None:
    same = "makes the same bytes"
    assert same in model_card(subject())
    assert same not in model_card(subject(values=changed(VALUES, "pretrain/compile", True)))
    record = RunRecord("cpu", "held", {"torch": "2"}, {"0": 1})
    assert same in model_card(subject(record=record))
    assert same not in model_card(subject(record=replace(record, processes={"0": 1, "7": 2})))
    for device, instructions in (("cpu", "native"), ("NVIDIA H100", "held")):
        card = model_card(subject(record=replace(record, device=device, instructions=instructions)))
        assert f"It was pretrained on `{device}`, the processor's instructions `{instructions}`." in card
        assert same not in card
    assert "is not recorded" in model_card(subject(record=None))
    assert same not in model_card(subject(record=None))


def test_of_weights_from_elsewhere_no_training_is_told() -> None:
    card = model_card(subject(values=changed(VALUES, "pretrain/method", "pretrained")))
    recipe = card.partition("## Recipe")[2].partition("##")[0]
    assert "`pretrained` with `file: weights/none`: the weights are from elsewhere" in recipe
    assert "The encoder was not trained on these images." in card
    assert "\n# `resnet` with weights from elsewhere, evaluated on `digits`\n" in card
    for absent in ("nt_xent", "Optimiser", "Epochs", "is that of epoch"):
        assert absent not in card


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an encoder, and metrics of it without a record."""
    monkeypatch.chdir(tmp_path)
    for stage in ("pretrain", "embed"):
        (tmp_path / stage).mkdir()
        (tmp_path / stage / "metrics.json").write_text("{}")
    (tmp_path / "encoder").write_text("weights")
    return tmp_path


def record_run(stage: str, inputs: dict[str, str], *outs: Path) -> None:
    """Write the record of a run of `stage` that made its metrics and the `outs`."""
    digests = {path.as_posix(): fingerprint.of_out(path) for path in (Path(stage, "metrics.json"), *outs)}
    Path(stage, "run.json").write_text(json.dumps({"outs": digests, "fingerprints": inputs}))


def lock(stage: str, **deps_and_outs: Path) -> None:
    """Write a dvc.lock that has these files of `stage`, as they are."""
    entry = {kind: [{"path": path.as_posix(), "md5": fingerprint.of_out(path)}] for kind, path in deps_and_outs.items()}
    Path("dvc.lock").write_text(json.dumps({"stages": {stage: entry}}))


def check(stage: str) -> None:
    encoder = Path("encoder")
    check_encoder(stage, Path(), encoder, fingerprint.of_out(encoder), fingerprint.of_file(encoder))


OF_ANOTHER = r"^{0}/metrics\.json: of another encoder; run the {0} stage$"


def test_metrics_of_another_encoder_are_refused(measured: Path) -> None:
    """As far as the record is of these metrics; without one nobody knows."""
    encoder = Path("encoder")
    check("embed")
    record_run("embed", {"encoder": fingerprint.of_file(encoder)})
    record_run("pretrain", {}, encoder)
    check("embed")
    check("pretrain")
    encoder.write_text("others")
    for stage in ("embed", "pretrain"):
        with pytest.raises(UserError, match=OF_ANOTHER.format(stage)):
            check(stage)
        Path(stage, "metrics.json").write_text('{"knn_top1": 1}')
        check(stage)


@pytest.mark.parametrize("known", ["dvc.lock", "other stage", "other metrics", "damaged"])
def test_equal_metrics_that_dvc_brought_back_without_their_record_are_taken(known: str, measured: Path) -> None:
    metrics = Path("embed/metrics.json")
    record_run("embed", {"encoder": "of another"})
    if known == "other metrics":
        metrics.write_text('{"knn_top1": 1}')
    lock("linear_eval" if known == "other stage" else "embed", deps=Path("encoder"), outs=metrics)
    if known == "other metrics":
        metrics.write_text("{}")
    if known == "damaged":
        Path("dvc.lock").write_text("a: [")
    if known == "dvc.lock":
        check("embed")
        return
    with pytest.raises(UserError, match=OF_ANOTHER.format("embed")):
        check("embed")


@pytest.mark.parametrize("recorded", [False, True])
def test_metrics_without_their_record_are_refused_where_dvc_knows_of_another_encoder(
    recorded: bool, measured: Path
) -> None:
    if recorded:  # of other metrics, as where DVC brought these back
        record_run("embed", {"encoder": fingerprint.of_file(Path("encoder"))})
        Path("embed/metrics.json").write_text('{"knn_top1": 1}')
    lock("embed", deps=Path("encoder"), outs=Path("embed/metrics.json"))
    check("embed")
    Path("encoder").write_text("others")
    with pytest.raises(UserError, match=OF_ANOTHER.format("embed")):
        check("embed")
