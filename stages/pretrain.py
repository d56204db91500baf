"""Stage `pretrain`: SimCLR on data/beton; the encoder in models, some views in data/views.safetensors, its course in
reports/pretrain and TensorBoard.

On several GPUs it runs once on each. To choose, on a CPU too: PET_NPROC_PER_NODE=2 python stages/pretrain.py
A checkpoint is kept every CHECKPOINT_MINUTES (1 by default) and on SIGTERM, SIGINT and SIGUSR1; the same command goes
on from it.
"""

import math
import os
import time
from pathlib import Path

from simclr.core import arrays, entry, fingerprint, signals, tables
from simclr.core.errors import Stopped, UserError
from simclr.core.signals import Interruption
from simclr.data import converted
from simclr.distributed import launch
from simclr.distributed.session import Session, open_session
from simclr.features import encoder_file
from simclr.tracking import provenance
from simclr.tracking.tensorboard import Board, run_folder
from simclr.training import checkpoint_folder, recipe
from simclr.training.pretrain import Result, identity, pretrain
from simclr.training.run_context import Data, RunContext

BETON, MODEL = Path("data/beton"), Path("models/encoder.safetensors")
VIEWS, REPORTS = Path("data/views.safetensors"), Path("reports/pretrain")


def main() -> None:
    chosen = recipe.load()
    parameters = chosen.parameters
    seconds = checkpoint_seconds()
    launch.on_every_gpu(parameters.batch_size)
    data = Data(
        source=converted.open_split(BETON, parameters.split),
        train=converted.open_split(BETON, "train"),
        val=converted.open_split(BETON, "val"),
        description=converted.description(BETON),
    )
    with (
        open_session(
            deterministic=parameters.deterministic,
            benchmark=not parameters.deterministic,
            tf32=parameters.precision != "fp32",
        ) as session,
        signals.catch_signals(multi_process=session.world_size > 1) as interrupted,
    ):
        if not session.is_main:
            while waiting(session, interrupted):
                pass
            pretrain(chosen, data, session, RunContext(interruption=interrupted))
            return
        this = identity(chosen, data, session)
        folder = Path(os.environ.get("DVC_ROOT", ".")) / "checkpoints"
        with (
            checkpoint_folder.opened(folder, this, seconds, lambda: waiting(session, interrupted, True)) as checkpoints,
            Board(run_folder("pretrain")) as board,
        ):
            waiting(session, interrupted)
            began = time.perf_counter()
            result = pretrain(chosen, data, session, RunContext(board, checkpoints, interrupted))
            share = checkpoints.waited / (time.perf_counter() - began)
            report(result)
            kept = {"checkpoints": {"written": checkpoints.written, "waited_percent": 100 * share}}
            inputs = {"data": fingerprint.of_values(this.parts["data"])}
            options = [option.path for option in chosen.options]
            provenance.write(Path(__file__), [MODEL, VIEWS], inputs, options, session.device, result.starts, kept)
            # nobody but DVC says when it has collected the results
            checkpoints.finish(Path("dvc.lock") if "DVC_STAGE" in os.environ else None)


def waiting(session: Session, interrupted: Interruption, this: bool = False) -> bool:
    """Whether the leading rank still waits for another process at this very run; all ranks ask together.

    Raises:
        Stopped: any of them was asked to stop.
    """
    any_rank, number = session.max_later([this, interrupted.number])()
    if any_rank and number:
        interrupted.acknowledge()
        raise Stopped(number, " while it waited for another process at this very run")
    return bool(any_rank)


def checkpoint_seconds() -> float:
    given = os.environ.get("CHECKPOINT_MINUTES", "1")
    try:
        minutes = float(given)
    except ValueError:
        minutes = math.nan
    if not minutes >= 0:
        raise UserError(f"environment: CHECKPOINT_MINUTES = {given} is not allowed; it takes a number >= 0")
    return 60 * minutes


def report(result: Result) -> None:
    encoder_file.save(MODEL, result.encoder, result.transform)
    arrays.save(VIEWS, {"pairs": result.pairs})
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
    print(
        f"pretrain: loss {result.metrics['loss']:.3f}, kNN top-1 {result.metrics['val_knn_top1']:.2f} % on val; "
        f"kept epoch {result.metrics['kept_epoch']} of {result.metrics['epochs']} ({result.metrics['stopped']})"
    )


if __name__ == "__main__":
    entry.run("pretrain", main)
