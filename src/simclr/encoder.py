"""The encoder f: a ResNet of torchvision, and the file that keeps it together with how its images are prepared."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialised
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from simclr import atomic, params
from simclr.constant import constant
from simclr.failure import UserError

_LAYERS: dict[str, tuple[type[nn.Module], list[int]]] = {
    "resnet10": (BasicBlock, [1, 1, 1, 1]),
    "resnet18": (BasicBlock, [2, 2, 2, 2]),
    "resnet34": (BasicBlock, [3, 4, 6, 3]),
    "resnet50": (Bottleneck, [3, 4, 6, 3]),
    "resnet101": (Bottleneck, [3, 4, 23, 3]),
    "resnet152": (Bottleneck, [3, 8, 36, 3]),
}
_NARROWEST = 0.125
"""Eight channels in the first layer: of 2 to 6, oneDNN's AVX2 kernel for the weights' gradient of a 1x1 convolution of
stride 2 writes beyond its memory (seen in torch 2.14.1)."""
_SMALL = 64
"""Images of at most so many pixels get the CIFAR stem by `stem: auto`."""


@dataclass(kw_only=True)
class EncoderParams:
    """`pretrain.encoder` of params.yaml."""

    name: str = params.choice(*_LAYERS)
    width: float = params.between(_NARROWEST, 8)
    stem: str = params.choice("auto", "cifar", "imagenet")
    zero_init_residual: bool


@dataclass
class Preparation:
    """How an image becomes the encoder's input, without chance: central square, resized, normalised per channel."""

    size: int
    """Side of the input in pixels."""
    crop_share: float
    """Side of the central square as a share of the image's shorter side."""
    mean: list[float]
    std: list[float]

    def normalise(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] to zero mean and unit variance over the training split."""
        mean, std = (constant(tuple(values), images.device)[:, None, None] for values in (self.mean, self.std))
        return (images - mean) / std


class Encoder(ResNet):  # type: ignore[misc]
    """torchvision's ResNet without its classifier: (N, 3, H, W) float to representations h (N, D).

    Two departures, both the papers': the channels of every layer times `width` (Chen et al. 2020, figure 7), and for
    small images a 3x3 stem of stride 1 without pooling (appendix B.9). With `zero_init_residual` the last BatchNorm of
    every block begins with a gain of 0, and the block as the identity (Goyal et al. 2017, section 5.1).
    """

    def __init__(self, name: str, width: float, small_stem: bool, zero_init_residual: bool) -> None:
        self.architecture: dict[str, Any] = {
            "name": name, "width": width, "small_stem": small_stem, "zero_init_residual": zero_init_residual,
        }  # fmt: skip
        self._multiplier, self._small_stem = width, small_stem
        block, layers = _LAYERS[name]
        super().__init__(block, layers, zero_init_residual=zero_init_residual)
        self.dimension: int = self.inplanes
        self.fc = nn.Identity()

    def _make_layer(self, block: Any, planes: int, *rest: Any, **named: Any) -> nn.Sequential:
        # Called for layer1 to layer4 in turn, before torchvision initialises the weights.
        if planes == 64:
            self.inplanes = self._channels(64)
            kernel, stride = (3, 1) if self._small_stem else (7, 2)
            self.conv1 = nn.Conv2d(3, self.inplanes, kernel, stride, padding=kernel // 2, bias=False)
            self.bn1 = nn.BatchNorm2d(self.inplanes)
            if self._small_stem:
                self.maxpool = nn.Identity()
        layer: nn.Sequential = super()._make_layer(block, self._channels(planes), *rest, **named)
        return layer

    def _channels(self, planes: int) -> int:
        return max(1, round(planes * self._multiplier))


def build(parameters: EncoderParams, size: int) -> Encoder:
    """A freshly initialised encoder (from torch's global generator) for images of `size` pixels."""
    small = parameters.stem == "cifar" or (parameters.stem == "auto" and size <= _SMALL)
    return Encoder(parameters.name, parameters.width, small, parameters.zero_init_residual)


def save(path: Path, encoder: Encoder, preparation: Preparation) -> None:
    """Write `path` in the safetensors format; equal weights give equal bytes."""
    description = {"architecture": encoder.architecture, "preparation": dataclasses.asdict(preparation)}
    weights = {name: tensor.cpu().contiguous() for name, tensor in encoder.state_dict().items()}
    # one metadata key: safetensors writes several in no fixed order
    atomic.write_bytes(path, serialised(weights, metadata={"encoder": json.dumps(description)}))


def load(path: Path) -> tuple[Encoder, Preparation]:
    """The encoder that `save` wrote, in eval mode and without gradients, on the CPU.

    Raises:
        UserError: the file is missing, damaged or no encoder of this project.
    """
    try:
        with safe_open(path, "pt") as file:
            description = json.loads(file.metadata()["encoder"])
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        # which files written before it was a choice do not say
        encoder = Encoder(**{"zero_init_residual": True, **description["architecture"]})
        encoder.load_state_dict(weights)
        preparation = Preparation(**description["preparation"])
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); the pretrain stage writes it") from error
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{path}: damaged, or not an encoder that the pretrain stage wrote") from error
    return frozen(encoder), preparation


def frozen(encoder: Encoder) -> Encoder:
    """The same module in eval mode, its parameters without gradients."""
    encoder.eval().requires_grad_(False)
    return encoder
