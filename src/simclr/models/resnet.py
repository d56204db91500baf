"""ResNets of torchvision (He et al. 2016)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from simclr.core import params
from simclr.features import encoder

_LAYERS: dict[int, tuple[type[nn.Module], list[int]]] = {
    10: (BasicBlock, [1, 1, 1, 1]),
    18: (BasicBlock, [2, 2, 2, 2]),
    34: (BasicBlock, [3, 4, 6, 3]),
    50: (Bottleneck, [3, 4, 6, 3]),
    101: (Bottleneck, [3, 4, 23, 3]),
    152: (Bottleneck, [3, 8, 36, 3]),
}
_NARROWEST = 0.125
"""Eight channels in the first layer: of 2 to 6, oneDNN's AVX2 kernel for the weights' gradient of a 1x1 convolution of
stride 2 writes beyond its memory (seen in torch 2.14.1)."""
_GROUPS = 32
"""Groups of a GroupNorm by default (Wu and He 2018, section 3.1)."""


def _group_norm(width: float, channels: int) -> nn.GroupNorm:
    """`_GROUPS` groups, fewer in networks narrower than the paper's, so that a group has as many channels as there."""
    most = int(_GROUPS * min(width, 1))
    return nn.GroupNorm(max(groups for groups in range(1, most + 1) if channels % groups == 0), channels)


def _norm_layers(width: float) -> dict[str, Callable[[int], nn.Module]]:
    """By the value of `models.resnet.norm`, what makes a layer for a number of channels."""
    return {
        "batch": nn.BatchNorm2d,
        "group": partial(_group_norm, width),
        "layer": partial(nn.GroupNorm, 1),
        "none": nn.Identity,
    }


@dataclass(kw_only=True)
class Params:
    """`models.resnet` of params.yaml."""

    depth: int = params.choice(*_LAYERS)
    width: float = params.between(_NARROWEST, 8)
    stem: str = params.choice("auto", "cifar", "imagenet")
    norm: str = params.choice(*_norm_layers(width=1))
    zero_init_residual: bool


class Encoder(ResNet, encoder.Encoder):  # type: ignore[misc]
    """torchvision's ResNet without its classifier: (N, 3, H, W) float to representations h (N, D).

    Two departures, both the papers': the channels of every layer times `width` (Chen et al. 2020, figure 7), and for
    small images a 3x3 stem of stride 1 without pooling (appendix B.9). With `zero_init_residual` the last norm of every
    block starts with a gain of 0, and the block as the identity (Goyal et al. 2017, section 5.1).

    `norm` is "batch", "group" (Wu and He 2018), "layer", over all channels and places of an image (Ba et al. 2016), or
    "none". The first alone lets the images of a batch change each other.
    """

    _norm_layer: Callable[[int], nn.Module]

    def __init__(
        self, name: str, width: float, small_stem: bool, zero_init_residual: bool, norm: str = "batch"
    ) -> None:
        self.architecture = {
            "name": name, "width": width, "small_stem": small_stem, "zero_init_residual": zero_init_residual,
        }  # fmt: skip
        if norm != "batch":  # not named: files from before there was a choice are the same
            self.architecture["norm"] = norm
        self._multiplier, self._small_stem = width, small_stem
        block, layers = _LAYERS[int(name.removeprefix("resnet"))]
        norm_layer = _norm_layers(width)[norm]
        super().__init__(block, layers, zero_init_residual=zero_init_residual, norm_layer=norm_layer)
        self.dimension = self.inplanes
        self.crop_share = 1.0 if small_stem else 0.875
        self.fc = nn.Identity()

    def _make_layer(self, block: Any, planes: int, *rest: Any, **named: Any) -> nn.Sequential:
        # torchvision calls this for layer1 to layer4 in turn, before it initialises the weights.
        if planes == 64:
            self.inplanes = self._channels(64)
            kernel, stride = (3, 1) if self._small_stem else (7, 2)
            self.conv1 = nn.Conv2d(3, self.inplanes, kernel, stride, padding=kernel // 2, bias=False)
            self.bn1 = self._norm_layer(self.inplanes)
            if self._small_stem:
                self.maxpool = nn.Identity()
        layer: nn.Sequential = super()._make_layer(block, self._channels(planes), *rest, **named)
        return layer

    def _channels(self, planes: int) -> int:
        return max(1, round(planes * self._multiplier))


def check(parameters: Params, resolution: int, origin: str) -> None:
    """Without a norm there is no gain that could begin with 0: see `models`."""
    if parameters.norm == "none" and parameters.zero_init_residual:
        takes = "false, since models.resnet.norm is none"
        raise params.refusal("models.resnet.zero_init_residual", True, takes, origin)


def build(parameters: Params, resolution: int) -> Encoder:
    """See `models`."""
    small = parameters.stem == "cifar" or (parameters.stem == "auto" and resolution <= encoder.SMALL)
    return Encoder(f"resnet{parameters.depth}", parameters.width, small, parameters.zero_init_residual, parameters.norm)
