"""Vision transformers of torchvision (Dosovitskiy et al. 2021)."""

from dataclasses import dataclass

from torch import nn
from torchvision.models.vision_transformer import VisionTransformer

from simclr.core import params
from simclr.features import encoder

ONE_RESOLUTION = True


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
        self.crop_share = 1.0 if image_size <= encoder.SMALL else 0.875
        self.heads = nn.Identity()


def check(parameters: Params, resolution: int, origin: str) -> None:
    """Patches have to fill an image, and heads to share the width evenly: see `models`."""
    if resolution % parameters.patch_size:
        takes = f"a divisor of {resolution}, which is pretrain.views.resolution"
        raise params.refusal("models.vit.patch_size", parameters.patch_size, takes, origin)
    if parameters.width % parameters.heads:
        takes = f"a divisor of {parameters.width}, which is models.vit.width"
        raise params.refusal("models.vit.heads", parameters.heads, takes, origin)


def build(parameters: Params, resolution: int) -> Encoder:
    """See `models`."""
    return Encoder(resolution, parameters.patch_size, parameters.layers, parameters.heads, parameters.width)
