"""Vision transformers of torchvision (Dosovitskiy et al. 2021)."""

from dataclasses import dataclass

from torch import nn
from torchvision.models.vision_transformer import VisionTransformer

from simclr.core import params
from simclr.features import encoder

_SMALL = 64
"""Images of at most so many pixels are evaluated whole."""


@dataclass(kw_only=True)
class Params:
    """`models.vit` of params.yaml."""

    patch_size: int = params.at_least(1)
    layers: int = params.at_least(1)
    heads: int = params.at_least(1)
    width: int = params.at_least(2)


class Encoder(VisionTransformer, encoder.Encoder):  # type: ignore[misc]
    """torchvision's VisionTransformer without its classifier: (N, 3, H, H) float to representations h (N, D).

    h is the class token after the last LayerNorm. The MLPs are four times as wide as the tokens; there is no dropout.
    """

    undecayed = ("class_token", "encoder.pos_embedding")

    def __init__(self, image_size: int, patch_size: int, layers: int, heads: int, width: int) -> None:
        self.architecture = {
            "image_size": image_size, "patch_size": patch_size, "layers": layers, "heads": heads, "width": width,
        }  # fmt: skip
        super().__init__(image_size, patch_size, layers, heads, width, 4 * width)
        self.dimension = width
        self.crop_share = 1.0 if image_size <= _SMALL else 0.875
        self.heads = nn.Identity()


def build(parameters: Params, resolution: int) -> Encoder:
    """See `models`.

    Raises:
        UserError: the patches do not fill an image, or the heads do not share the width evenly.
    """
    patch_size, heads, width = parameters.patch_size, parameters.heads, parameters.width
    if resolution % patch_size:
        takes = f"a divisor of {resolution}, which is pretrain.views.resolution"
        raise params.refusal("models.vit.patch_size", patch_size, takes)
    if width % heads:
        raise params.refusal("models.vit.heads", heads, f"a divisor of {width}, which is models.vit.width")
    return Encoder(resolution, patch_size, parameters.layers, heads, width)
