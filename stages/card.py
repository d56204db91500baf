"""Stage `card`: a model card of the encoder, in reports/card, from what the other stages wrote."""

from pathlib import Path

from simclr.card.model_card import Subject, model_card
from simclr.card.recipe_rows import options_in_use
from simclr.card.run_record import check_encoder, read_run_record
from simclr.core import atomic, entry, fingerprint, params_file, stage_metrics
from simclr.data import converted
from simclr.features import encoder_file
from simclr.tracking import provenance

BETON, MODEL = Path("data/beton"), Path("models/encoder.safetensors")
REPORTS, CARD = Path("reports"), Path("reports/card/model_card.md")
REPORTED = ("pretrain", "embed", "linear_eval", "finetune", "evaluate")
SPLITS = ("train", "val", "test", "unlabelled")
SECTIONS = ("fetch.source", "convert.long_tail", "pretrain", "linear_eval.refit")
"""What the card quotes of params.yaml beside the options in use."""


def main() -> None:
    values = params_file.read()
    info = converted.load_info(BETON)
    splits = [name for name in SPLITS if name != "unlabelled" or converted.has_split(BETON, name)]
    images = {name: len(converted.open_split(BETON, name)) for name in splits}
    encoder, transform = encoder_file.load(MODEL, params_file.lookup(values, "pretrain.model"))
    md5, sha256 = fingerprint.of_out(MODEL), fingerprint.of_file(MODEL)
    for stage in REPORTED:
        check_encoder(stage, REPORTS, MODEL, md5, sha256)
    option = encoder_file.option(encoder)
    subject = Subject(
        file=MODEL.as_posix(),
        md5=md5,
        sha256=sha256,
        model=option.partition(".")[2],
        encoder=encoder,
        transform=transform,
        classes=info.classes,
        images=images,
        reports={stage: stage_metrics.read(REPORTS, stage) for stage in REPORTED},
        values=values,
        record=read_run_record(REPORTS / "pretrain" / "run.json", MODEL, md5),
    )
    atomic.write_bytes(CARD, model_card(subject).encode())
    inputs = {"data": fingerprint.of_values(info.digests), "encoder": sha256}
    provenance.write(Path(__file__), [], inputs, [option], sections=[*SECTIONS, *options_in_use(values)])
    print(f"card: {CARD}")


if __name__ == "__main__":
    entry.run("card", main)
