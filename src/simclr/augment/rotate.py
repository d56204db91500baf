"""Rotation about the center, by an angle drawn for each view; what comes from outside the view is black.

Where a pixel comes from is rounded as torchvision rounds it: from 96 pixels on, another order of the same arithmetic
changes noise by more than 1e-5.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample
from torchvision.transforms import InterpolationMode, functional

from simclr.augment import Draws, Values
from simclr.core import params
from simclr.core.compiled import njit

F = np.float32  # without it, numbers of Python would make the arithmetic that of float64


@dataclass(kw_only=True)
class Params:
    """`augment.rotate` of params.yaml."""

    probability: float = params.between(0, 1)
    degrees: float = params.between(0, 180)


IDENTITY = {"degrees": 0.0}


def draw(parameters: Params, draws: Draws, resolution: int) -> Values:
    """`angles` (B, V) float64, drawn uniformly from -`degrees` to `degrees`, counter-clockwise, or 0 where nothing
    happens; their `cosines` and `sines` (B, V) float32."""
    occurs = draws.occurs(parameters.probability)
    angles = np.where(occurs, parameters.degrees * (2 * draws.uniform("angle") - 1), 0)
    radians = np.deg2rad(angles)
    return {"angles": angles, "cosines": np.cos(radians).astype(F), "sines": np.sin(radians).astype(F)}


def prepared(values: Values, parameters: Params) -> Values:
    """`cosines` and `sines` (N,)."""
    return {name: values[name] for name in ("cosines", "sines")}


def apply(images: Tensor, values: Mapping[str, Tensor]) -> Tensor:
    """Rotate by the angles of `cosines` and `sines` (N,), bilinearly."""
    half = images.shape[-1] / 2
    x = torch.arange(0.5 - half, half, device=images.device)
    y = x[:, None]
    cosines, sines = (values[name][:, None, None] / half for name in ("cosines", "sines"))
    grid = torch.stack((cosines * x - sines * y, sines * x + cosines * y), dim=-1)
    rotated = grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return torch.where(sines[..., None] == 0, images, rotated)


def reference(image: Tensor, parameters: Params, values: Values) -> Tensor:
    """By torchvision."""
    rotated: Tensor = functional.rotate(image, float(values["angles"]), InterpolationMode.BILINEAR)
    return rotated if values["angles"] else image


@njit
def _pixel(plane, top, left, down, right):  # type: ignore[no-untyped-def]
    """`plane` (S, S) at `down` and `right`, from 0 to 1, of the pixel in row `top` and column `left`."""
    size = len(plane)
    value = F(0)
    for y, share in ((top, F(1) - down), (top + 1, down)):
        if 0 <= y < size:
            if 0 <= left < size:
                value += share * (F(1) - right) * plane[y, left]
            if 0 <= left + 1 < size:
                value += share * right * plane[y, left + 1]
    return value


@njit
def kernel(images, angles, cosines, sines):  # type: ignore[no-untyped-def]
    size = images.shape[-1]
    half = F(size) / F(2)
    for n in range(len(images)):
        if angles[n] != 0:
            before = images[n].copy()
            cosine, sine = cosines[n] / half, sines[n] / half
            for i in range(size):
                for j in range(size):
                    x, y = F(j) + F(0.5) - half, F(i) + F(0.5) - half
                    row = (sine * x + cosine * y + F(1)) * half - F(0.5)
                    column = (cosine * x - sine * y + F(1)) * half - F(0.5)
                    top, left = np.floor(row), np.floor(column)
                    down, right = row - top, column - left
                    for channel in range(3):
                        images[n, channel, i, j] = _pixel(before[channel], int(top), int(left), down, right)
