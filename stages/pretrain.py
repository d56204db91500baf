"""Stage `pretrain`: pretraining on data/beton; encoder and head in models, some views in data/views.safetensors,
metrics in reports/pretrain and TensorBoard.

It runs one process on each GPU; PET_NPROC_PER_NODE=2 python stages/pretrain.py sets their number, on a CPU too. A
checkpoint is saved every CHECKPOINT_MINUTES (1 by default) and on SIGTERM, SIGINT and SIGUSR1; the same command resumes
from it.
"""

import math
import os
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from simclr.core import arrays, entry, fingerprint, signals, tables
from simclr.core.errors import Stopped, UserError
from simclr.core.signals import Interruption
from simclr.data import converted
from simclr.distributed import launch
from simclr.distributed.session import Session
from simclr.features import encoder_file
from simclr.learning import head_file
from simclr.tracking import provenance
from simclr.tracking.tensorboard import Board, run_folder
from simclr.training import checkpoint_folder, recipe
from simclr.training.checkpoints import Checkpoints
from simclr.training.pretrain import identity, open_session_for, pretrain
from simclr.training.pretrain_result import PretrainResult
from simclr.training.recipe import Recipe
from simclr.training.run_context import PretrainData, RunContext

BETON, MODEL, HEAD = Path("data/beton"), Path("models/encoder.safetensors"), Path("models/head.safetensors")
VIEWS, REPORTS = Path("data/views.safetensors"), Path("reports/pretrain")


def main() -> None:
    pretrain_recipe = recipe.load()
    parameters = pretrain_recipe.parameters
    seconds = checkpoint_seconds()
    launch.on_every_gpu(parameters.batch_size, piece_size=parameters.piece_size, on_every_node=True)
    data = PretrainData.open(BETON, parameters.split)
    with (
        open_session_for(parameters) as session,
        signals.catch_signals(multi_process=session.world_size > 1) as interruption,
    ):
        if not session.is_main:
            while main_is_waiting(session, interruption):
                pass
            pretrain(pretrain_recipe, data, session, RunContext(interruption=interruption))
            return
        run_identity = identity(pretrain_recipe, data, session)
        folder = Path(os.environ.get("DVC_ROOT", ".")) / "checkpoints"
        opened: AbstractContextManager[Checkpoints] = nullcontext(Checkpoints(None))
        if pretrain_recipe.trains:
            opened = checkpoint_folder.open_checkpoints(
                folder, run_identity, seconds, lambda: main_is_waiting(session, interruption, True)
            )
        with (
            opened as checkpoints,
            Board(run_folder("pretrain")) as board,
        ):
            main_is_waiting(session, interruption)
            began = time.perf_counter()
            result = pretrain(pretrain_recipe, data, session, RunContext(board, checkpoints, interruption))
            share = checkpoints.waited / (time.perf_counter() - began)
            report(result, pretrain_recipe)
            facts = {"checkpoints": {"written": checkpoints.written, "waited_percent": 100 * share}}
            inputs = {"data": fingerprint.of_values(run_identity.parts["data"])}
            options = [option.path for option in pretrain_recipe.options]
            provenance.write(
                Path(__file__), [MODEL, HEAD, VIEWS], inputs, options, session.device, result.starts, facts
            )
            # only DVC commits the results, and tells when
            checkpoints.finish(Path("dvc.lock") if "DVC_STAGE" in os.environ else None)


def main_is_waiting(session: Session, interruption: Interruption, main_waits: bool = False) -> bool:
    """Whether the main process still waits for another run of the same experiment; called on all ranks together.

    Raises:
        Stopped: a signal arrived at any rank.
    """
    any_rank, number = session.max_async([main_waits, interruption.number])()
    if any_rank and number:
        interruption.acknowledge()
        raise Stopped(number, " while waiting for another process with the same experiment")
    return bool(any_rank)


def checkpoint_seconds() -> float:
    value = os.environ.get("CHECKPOINT_MINUTES", "1")
    try:
        minutes = float(value)
    except ValueError:
        minutes = math.nan
    if not minutes >= 0:
        raise UserError(f"environment: CHECKPOINT_MINUTES = {value} is not allowed; it takes a number >= 0")
    return 60 * minutes


def report(result: PretrainResult, pretrain_recipe: Recipe) -> None:
    encoder_file.save(MODEL, result.encoder, result.transform)
    head_file.save(HEAD, result.head, fingerprint.of_file(MODEL))
    full, *small = result.views
    arrays.save(VIEWS, {"full": full, "small": small[0] if small else full[:, :0]})
    tables.write_json(REPORTS / "metrics.json", result.metrics)
    for quantity in ("loss", "lr"):
        rows = [{"epoch": row["epoch"], quantity: row[quantity]} for row in result.history]
        tables.write_csv(REPORTS / f"{quantity}.csv", rows or [{"epoch": 0, quantity: None}])  # DVC plots take a row
    without_labels = [{"epoch": len(result.history), "knn_top1": None}]
    tables.write_csv(REPORTS / "knn.csv", result.validation or without_labels)
    metrics = result.metrics
    val = "val, which was trained on" if pretrain_recipe.parameters.split == converted.ALL else "val"
    accuracies = [
        f"{name} top-1 {metrics[key]:.2f} % on {val}"
        for name, key in (("kNN", "val_knn_top1"), ("probe", "val_probe_top1"))
        if key in metrics
    ]
    loss = f", loss {metrics['loss']:.3f}" if "loss" in metrics else ""
    kept = ", ".join([f"epoch {metrics['kept_epoch']} is kept", *accuracies])
    epochs = f"{metrics['epochs']} epoch{'s' * (metrics['epochs'] != 1)} ({metrics['stopped']})"
    processes = list(result.starts.values())[-1]
    together = f" on {processes} processes" if processes > 1 else ""
    print(f"pretrain: {pretrain_recipe.method.name}, {epochs}{together}{loss}; {kept}")


if __name__ == "__main__":
    entry.run("pretrain", main)
