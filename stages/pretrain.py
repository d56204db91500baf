"""Stage `pretrain`: SimCLR on data/beton; the encoder in models, its course in reports/pretrain and TensorBoard.

On several GPUs it starts itself once on each. On a CPU, or to choose: torchrun --nproc-per-node=2 stages/pretrain.py
"""

from pathlib import Path

from simclr import dataset, distributed, encoder, failure, params
from simclr.pretrain import Data, PretrainParams, pretrain
from simclr.report import pictures, tables
from simclr.report.board import Board, run_folder

BETON, MODEL, REPORTS = Path("data/beton"), Path("models/encoder.safetensors"), Path("reports/pretrain")


def main() -> None:
    parameters = params.load("pretrain", PretrainParams)
    distributed.relaunch_on_every_gpu()
    data = Data(
        source=dataset.open_split(BETON, parameters.split),
        train=dataset.open_split(BETON, "train"),
        val=dataset.open_split(BETON, "val"),
        description=dataset.description(BETON),
    )
    with distributed.session() as session, Board(run_folder("pretrain") if session.leads else None) as board:
        result = pretrain(parameters, data, session, board)
        if not session.leads:
            return
        encoder.save(MODEL, result.encoder, result.preparation)
        tables.write_json(REPORTS / "metrics.json", result.metrics)
        for quantity, rows in (
            ("loss", result.history),
            ("lr", result.history),
            ("knn_top1", result.validation),
        ):
            tables.write_csv(
                REPORTS / f"{quantity.split('_')[0]}.csv",
                [{"epoch": row["epoch"], quantity: row[quantity]} for row in rows],
            )
        pictures.picture(REPORTS / "views.png", result.view_grid)
        print(
            f"pretrain: loss {result.metrics['loss']:.3f}, kNN top-1 {result.metrics['val_knn_top1']:.2f} % on val; "
            f"kept epoch {result.metrics['kept_epoch']} of {result.metrics['epochs']} ({result.metrics['stopped']})"
        )


if __name__ == "__main__":
    failure.run("pretrain", main)
