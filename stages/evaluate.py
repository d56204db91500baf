"""Stage `evaluate`: the frozen encoder judged by the evaluations that `evaluate` lists, in reports/evaluate."""

from functools import partial
from pathlib import Path

from simclr.core import entry, options, params, params_file, tables
from simclr.core.atomic import replacing
from simclr.data import converted
from simclr.distributed import launch
from simclr.distributed.session import open_session
from simclr.evaluations import EvaluateParams, Findings, Subject
from simclr.features import encoder_file, feature_file
from simclr.tracking import provenance
from simclr.views.compose import ViewParams

BETON, MODEL, FEATURES = Path("data/beton"), Path("models/encoder.safetensors"), Path("data/features")
REPORTS = Path("reports/evaluate")
SPLITS = ("train", "val", "test")


def main() -> None:
    values, origin = params_file.read(), str(params_file.FILE)
    option = partial(options.checked, values=values, origin=origin)
    parameters = params.section_of(values, "evaluate", EvaluateParams, origin)
    evaluations = [option("evaluations", name) for name in parameters.evaluations]
    views = params.check(params_file.lookup(values, "pretrain.views"), ViewParams, "pretrain.views", origin)
    augmentations = {name: option("augment", name) for name in options.names("augment")}
    launch.on_every_gpu()
    info = converted.load_info(BETON)
    encoder, transform = encoder_file.load(MODEL, params_file.lookup(values, "pretrain.model"))
    splits = {name: converted.open_split(BETON, name) for name in SPLITS}
    digests = feature_file.inputs(info, MODEL)
    with open_session() as session:
        subject = Subject(
            encoder=encoder.to(session.device),
            transform=transform,
            augmentations=augmentations,
            pretrained_with=views.augmentations,
            splits=splits,
            features={
                name: feature_file.load(FEATURES, name, split, digests, session) for name, split in splits.items()
            },
            seed=parameters.seed,
            session=session,
        )
        if not info.labelled:
            evaluations = [item for item in evaluations if not hasattr(item.module, "NEEDS_LABELS")]
        findings = {item.name: item.module.evaluate(item.parameters, subject) for item in evaluations}
        if not session.is_main:
            return
    report(findings)
    provenance.write(
        Path(__file__),
        [],
        digests,
        [encoder_file.option(encoder), *(item.path for item in evaluations), "augment.*"],
        session.device,
        {0: session.world_size},
        sections=["pretrain.views.augmentations"],
    )


def report(findings: dict[str, Findings]) -> None:
    metrics = {name: finding.metrics for name, finding in findings.items()}
    tables.write_json(REPORTS / "metrics.json", metrics)
    with replacing(REPORTS / "tables") as folder:
        folder.mkdir()
        for name, finding in findings.items():
            if finding.table:
                tables.write_csv(folder / f"{name}.csv", finding.table)
        if not any(folder.iterdir()):
            (folder / ".gitkeep").touch()  # Git keeps no empty folder, and DVC wants one
    print(f"evaluate: {', '.join(findings) or 'nothing'}; {sum(map(len, metrics.values()))} metrics in {REPORTS}")


if __name__ == "__main__":
    entry.run("evaluate", main)
