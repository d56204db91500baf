"""Similarities of projections, for losses that compare all pairs of rows."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from simclr.core import params
from simclr.distributed.session import Session

_SHRINKAGE = 1e-3
"""Share of the mean variance in the covariance to invert, so that fewer rows than dimensions have an inverse."""


@dataclass(kw_only=True)
class SimilarityParams:
    """The keys of a loss's section that say how two projections are compared."""

    temperature: float = params.between(0.001, 1000)
    similarity: str = params.choice("cosine", "euclidean", "mahalanobis")


@dataclass(frozen=True)
class Similarity:
    """s = u . v / tau, or -|u - v|^2 / tau if `squared_distance`."""

    temperature: float
    squared_distance: bool = False

    @property
    def limit(self) -> float:
        """The largest |s| of rows that `compared` returns."""
        return float("inf") if self.squared_distance else 1 / self.temperature

    def of_rows(self, u: Tensor, v: Tensor) -> Tensor:
        """Of each row of u with the same row of v: (N, d) twice to (N,)."""
        products = -(u - v).square() if self.squared_distance else u * v
        return products.sum(dim=1) / self.temperature

    def of_all(self, u: Tensor, v: Tensor, out: Tensor) -> Tensor:
        """Of each row of u (N, d) with each of v (K, d), written into `out` (N, K)."""
        if not self.squared_distance:
            return torch.mm(u / self.temperature, v.T, out=out)
        torch.mm(u * (2 / self.temperature), v.T, out=out)
        for rows, axis in ((u, 1), (v, 0)):
            out.sub_((rows.square().sum(dim=1) / self.temperature).unsqueeze(axis))
        return out.clamp_(max=0)  # rounding may leave a positive value for equal rows

    def derivative(self, u: Tensor, v: Tensor) -> Tensor:
        """tau times that of `of_rows` with respect to u: (N, d)."""
        return 2 * (v - u) if self.squared_distance else v

    def add_gradient(self, gradient: Tensor, slopes: Tensor, u: Tensor, v: Tensor) -> None:
        """Add to `gradient` (N, d), tau times that with respect to u, for the `slopes` (N, K) with respect to s."""
        if not self.squared_distance:
            gradient.addmm_(slopes, v)
        else:  # d s / d u = 2 (v - u) / tau
            gradient.addmm_(slopes, v, alpha=2).sub_(2 * slopes.sum(dim=1, keepdim=True) * u)


@dataclass(frozen=True)
class Keys:
    """What anchors are compared with instead of each other."""

    views: Tensor
    """(V n, d), in the order of the anchors: the positives of an anchor are the other views of its sample. They get a
    gradient if they require one."""
    queue: Tensor | None = None
    """(Q, d), the negatives of every anchor, without a gradient and the same on every rank; None: they are the keys of
    the other samples of all ranks."""


@dataclass(frozen=True)
class Compared:
    """The anchors z (V n, d) of this rank, float32 or float64; what they are compared with, each other on all ranks or
    `keys`; and how."""

    z: Tensor
    similarity: Similarity
    keys: Keys | None

    def negatives(self, views: int, session: Session) -> int:
        """Their number for each anchor, with V `views`."""
        if self.keys is not None and self.keys.queue is not None:
            return len(self.keys.queue)
        return session.world_size * len(self.z) - views


def compared(z: Tensor, parameters: SimilarityParams, session: Session, keys: Keys | None = None) -> Compared:
    """The rows to compare, made of z (N, d) and `keys` of any floating-point type, and their similarity.

    - cosine: the rows on the unit sphere, u . v / tau.
    - euclidean: -|u - v|^2 / tau, of the rows as they are.
    - mahalanobis: -(u - v)^T C^-1 (u - v) / tau with C the covariance of z in the global batch, or of the views of the
      keys, a squared distance of whitened rows. C takes one all-reduce of (d, d) and has no gradient.

    Distances are those of rows around the mean of z, or of the keys, which loses fewer digits.
    """
    z = z if z.dtype == torch.float64 else z.float()
    place = _placement((z if keys is None else keys.views.to(z)).detach(), parameters.similarity, session)
    similarity = Similarity(parameters.temperature, squared_distance=parameters.similarity != "cosine")
    if keys is not None:
        keys = Keys(place(keys.views.to(z)), None if keys.queue is None else place(keys.queue.to(z)))
    return Compared(place(z), similarity, keys)


def _placement(z: Tensor, similarity: str, session: Session) -> Callable[[Tensor], Tensor]:
    """The map of rows into the space where they are compared; its constants are those of z (N, d) on all ranks."""
    if similarity == "cosine":
        return partial(F.normalize, dim=1)
    mean = session.mean(z.mean(dim=0))
    if similarity == "euclidean":
        return lambda rows: rows - mean
    whitening = _whitening(z - mean, session)
    return lambda rows: (rows - mean) @ whitening


def _whitening(z: Tensor, session: Session) -> Tensor:
    """W (d, d) with W W^T the inverse of the covariance of the centered rows z (N, d) of all ranks."""
    covariance = session.mean(z.T @ z / len(z))
    variance = covariance.diagonal().mean().clamp(min=torch.finfo(z.dtype).eps)
    covariance.diagonal().add_(_SHRINKAGE * variance)
    identity = torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
    factor = torch.linalg.cholesky_ex(covariance)[0]  # C = L L^T; without the copy to the host of `cholesky`
    whitening: Tensor = torch.linalg.solve_triangular(factor, identity, upper=False).T
    return whitening
