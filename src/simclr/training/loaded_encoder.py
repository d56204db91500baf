"""An encoder that a method loads instead of training it."""

import torch

from simclr.distributed.session import Session
from simclr.features import encoder_file
from simclr.features.encoder import Encoder
from simclr.features.eval_transform import EvalTransform
from simclr.training import validation
from simclr.training.pretrain_result import PretrainResult
from simclr.training.recipe import Recipe
from simclr.training.run_context import PretrainData
from simclr.views.compose import views_by_size
from simclr.views.stream import ViewStream

_BATCH_SIZE = 512


def load(recipe: Recipe, data: PretrainData, session: Session) -> PretrainResult:
    """The encoder that the method of `recipe` loads, validated once; all ranks return the same.

    Raises:
        UserError: as `load` of the method.
    """
    parameters = recipe.parameters
    torch.manual_seed(parameters.seed)
    encoder: Encoder = recipe.model.module.build(recipe.model.parameters, parameters.views.resolution)
    transform = recipe.method.module.load(
        recipe.method.parameters,
        encoder,
        EvalTransform(parameters.views.resolution, encoder.crop_share, data.info.mean, data.info.std),
    )
    encoder_file.freeze(encoder).to(session.device).to(memory_format=torch.channels_last)
    rows = []
    if data.info.labelled:
        accuracies = validation.top1(
            parameters.validation, encoder, None, transform, data.train, data.val, len(data.info.classes),
            parameters.seed, _BATCH_SIZE, session, lambda: None,
        )  # fmt: skip
        rows.append({"epoch": 0, **accuracies})
    else:
        validation.check(encoder, transform, data.val, _BATCH_SIZE, session, lambda: None)
    metrics = {
        **{f"val_{name}": value for row in rows for name, value in row.items() if name != "epoch"},
        "kept_epoch": 0,
        "epochs": 0,
        "stopped": "nothing is trained",
    }
    stream = ViewStream(
        data.source, views_by_size(parameters.views, recipe.augmentations, parameters.seed), session.device
    )
    views = stream.first_views(parameters.seed)
    return PretrainResult(encoder, None, transform, [], rows, metrics, views, {0: session.world_size})
