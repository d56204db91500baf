"""What every loss of `simclr.losses` keeps: a new file is tried before its author has written a test.

All that a loss needs is its definition in loops, in `LOOPS`; and in `VARIANTS` the values of its parameters that do
something else than those of params.yaml.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from simclr.core import options, randomness
from simclr.core.options import Option
from simclr.data.batch import Batch
from simclr.distributed import pairwise
from simclr.distributed.session import Session
from simclr.distributed.similarity import Keys
from simclr.training.recipe import takes_keys
from tests.helpers.ranks import ALONE, on_ranks
from tests.helpers.recipes import SHIPPED

NAMES = options.names("losses")
DISTANT = [{"similarity": similarity, "temperature": 8.0} for similarity in ("euclidean", "mahalanobis")]
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "nt_xent": DISTANT,
    "decoupled": [{"weight_sigma": 0.5}],
    "trimmed": [
        {"kept": [0.2, 1.0]},
        {"kept": [0.4, 0.5]},
        {"kept": [0.5, 0.5]},
        {"kept": [0.0, 0.0]},
        {"kept": [0.0, 0.8]},
        {"kept": [0.1, 0.8], **DISTANT[0]},
    ],
    "reweighted": [{"beta": 0.0, "tau_plus": 0.2}, {"beta": 1.0, "tau_plus": 0.1}, {"beta": 0.0}, {"tau_plus": 0.9}],
    "supervised": DISTANT,
    "negative_sampling": DISTANT,
    "margin": [{"temperature": 0.7}, *DISTANT],
}
CASES = [(name, changes) for name in NAMES for changes in [{}, *VARIANTS.get(name, [])]]
AT_TEMPERATURES = [
    (name, {"temperature": temperature, **changes})
    for name, changes in CASES
    for temperature in ([changes["temperature"]] if "temperature" in changes else [0.01, 0.5, 2.0])
]


def option(name: str, **changes: Any) -> Option:
    """The loss `name` with the parameters of params.yaml, but for `changes`."""
    return options.checked("losses", name, {"losses": {name: SHIPPED["losses"][name] | changes}}, "test")


class Rows:
    """All rows of a batch of V views in one process, for loops: nothing clever.

    What row i is compared with are the rows themselves, or the views of `keys` and then their queue, if there is one.
    """

    def __init__(self, z: Tensor, batch: Batch, parameters: Any, keys: Keys | None = None) -> None:
        self.count, self.samples, self.parameters = len(z), len(z) // batch.views, parameters
        self.labels = batch.labels.repeat(batch.views).tolist()
        self.keys = batch.keys
        self.queue = 0 if keys is None or keys.queue is None else len(keys.queue)
        others = z if keys is None else keys.views if keys.queue is None else torch.cat([keys.views, keys.queue])
        similarity = {"cosine": cosine, "euclidean": negative_distance, "mahalanobis": mahalanobis}
        self.s = [list(row) for row in similarity[parameters.similarity](z, others) / parameters.temperature]
        if keys is not None and parameters.similarity == "mahalanobis":
            self.s = [list(row) for row in mahalanobis(z, others, keys.views) / parameters.temperature]

    def positives(self, i: int) -> list[int]:
        return [j for j in range(self.count) if j != i and j % self.samples == i % self.samples]

    def negatives(self, i: int) -> list[int]:
        if self.queue:
            return list(range(self.count, self.count + self.queue))
        return [j for j in range(self.count) if j % self.samples != i % self.samples]


def cosine(z: Tensor, others: Tensor) -> Tensor:
    return F.cosine_similarity(z[:, None], others, dim=2)


def negative_distance(z: Tensor, others: Tensor) -> Tensor:
    return -((z[:, None] - others) ** 2).sum(dim=2)


def mahalanobis(z: Tensor, others: Tensor, whitened: Tensor | None = None) -> Tensor:
    covariance = torch.cov((z if whitened is None else whitened).detach().T, correction=0)
    covariance += 1e-3 * covariance.diagonal().mean() * torch.eye(z.shape[1], dtype=z.dtype)
    difference = z[:, None] - others
    return -(difference @ covariance.inverse() * difference).sum(dim=2)


def total(values: list[Tensor]) -> Tensor:
    return torch.stack(values).sum()


def mean(values: list[Tensor]) -> Tensor:
    return torch.stack(values).mean()


def log_ratio(rows: Rows, i: int, negative: Tensor) -> Tensor:
    """The mean over positives of -log(exp(p) / (the sum of exp over all positives + `negative`))."""
    positives = [rows.s[i][j].exp() for j in rows.positives(i)]
    return mean([-(positive / (total(positives) + negative)).log() for positive in positives])


def nt_xent(rows: Rows, i: int) -> Tensor:
    return log_ratio(rows, i, total([rows.s[i][j].exp() for j in rows.negatives(i)]))


def decoupled(rows: Rows, i: int) -> Tensor:
    denominator = total([rows.s[i][j].exp() for j in rows.negatives(i)]).log()
    sigma = rows.parameters.weight_sigma

    def term(a: int, b: int) -> Tensor:
        return (rows.s[a][b].detach() * rows.parameters.temperature / sigma).exp()

    def weight(a: int, b: int) -> Tensor | float:
        if sigma is None:
            return 1.0
        return 2 - term(a, b) / mean([term(c, d) for c in range(rows.count) for d in rows.positives(c)])

    return mean([denominator - weight(i, j) * rows.s[i][j] for j in rows.positives(i)])


def trimmed(rows: Rows, i: int) -> Tensor:
    ordered = sorted((rows.s[i][j] for j in rows.negatives(i)), key=lambda s: s.item())
    low, high = rows.parameters.kept
    top = max(1, len(ordered) - int(Fraction(len(ordered)) * (1 - Fraction(str(high)))))
    bottom = min(int(len(ordered) * Fraction(str(low))), top - 1)
    return log_ratio(rows, i, total([s.exp() for s in ordered[bottom:top]]))


def reweighted(rows: Rows, i: int) -> Tensor:
    """As in Robinson et al.'s code: reweight_neg and Ng."""
    negatives = [rows.s[i][j] for j in rows.negatives(i)]
    count, p = len(negatives), rows.parameters
    weights = [(p.beta * s).exp() for s in negatives]
    weighted = total([w * s.exp() for w, s in zip(weights, negatives, strict=True)]) / mean(weights)
    positive = mean([rows.s[i][j].exp() for j in rows.positives(i)])
    corrected = (weighted - p.tau_plus * count * positive) / (1 - p.tau_plus)
    return log_ratio(rows, i, corrected.clamp(min=count * math.exp(-1 / p.temperature)))


def supervised(rows: Rows, i: int) -> Tensor:
    same = [j for j in rows.negatives(i) if rows.labels[j] == rows.labels[i] != -1]
    denominator = total([rows.s[i][j].exp() for j in range(rows.count) if j != i])
    return mean([-(rows.s[i][j].exp() / denominator).log() for j in rows.positives(i) + same])


def negative_sampling(rows: Rows, i: int) -> Tensor:
    samples, views = rows.samples, rows.count // rows.samples
    terms = [mean([-torch.sigmoid(rows.s[i][j]).log() for j in rows.positives(i)])]
    for draw in range(rows.parameters.negatives):
        counter = torch.tensor(-1 - draw)
        number = int(randomness.integers((samples - 1) * views, rows.keys[i], counter))
        view, other = divmod(number, samples - 1)
        j = view * samples + [sample for sample in range(samples) if sample != i % samples][other]
        terms.append(-torch.sigmoid(-rows.s[i][j]).log())
    return total(terms)


def margin(rows: Rows, i: int) -> Tensor:
    p = rows.parameters

    def squared(j: int) -> Tensor:
        return (2 / p.temperature - 2 * rows.s[i][j]) if p.similarity == "cosine" else -rows.s[i][j]

    pull = mean([squared(j) / 2 for j in rows.positives(i)])
    push = mean([(p.margin - squared(j).sqrt()).clamp(min=0) ** 2 / 2 for j in rows.negatives(i)])
    return pull + push


LOOPS: dict[str, Callable[[Rows, int], Tensor]] = {
    "nt_xent": nt_xent, "decoupled": decoupled, "trimmed": trimmed, "reweighted": reweighted,
    "supervised": supervised, "negative_sampling": negative_sampling, "margin": margin,
}  # fmt: skip
"""By the name of a loss: of anchor i, by the paper's words."""


def by_loops(loss: Option, z: Tensor, batch: Batch, keys: Keys | None = None) -> Tensor:
    rows = Rows(z, batch, loss.parameters, keys)
    return mean([LOOPS[loss.name](rows, i) for i in range(rows.count)])


def projections(rows: int, dimension: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(rows, dimension, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def batch_of(samples: int, views: int, labels: list[int] | None = None) -> Batch:
    """The global batch of `samples`, of three classes and some without a label."""
    keys = torch.arange(views * samples) * 0x9E3779B97F4A7C1
    classes = torch.tensor(labels if labels else [(0, 0, 1, -1, 2, 1)[sample % 6] for sample in range(samples)])
    return Batch((), keys, classes, torch.arange(samples), views, samples)


def value_of(loss: Option, z: Tensor, batch: Batch, session: Session = ALONE) -> Tensor:
    value: Tensor = loss.module.loss(z, batch, loss.parameters, session)
    return value


TAKE_KEYS = [(name, changes) for name, changes in CASES if takes_keys(options.module("losses", name))]


def keys_of(z: Tensor, kind: str) -> Keys:
    """Keys much like the rows z: with a queue and no gradient (MoCo), with a gradient and no queue (CPC), or both."""
    views = z.detach() + 0.3 * projections(len(z), seed=1)
    queue = None if kind == "learning" else projections(17, seed=2)
    return Keys(views.requires_grad_(kind != "queue"), queue)


KINDS = ["queue", "learning", "learning with a queue"]
"""Of keys."""


def test_some_losses_take_keys_and_others_do_not() -> None:
    names = {name for name, _ in TAKE_KEYS}
    assert {"nt_xent", "decoupled", "trimmed", "reweighted", "margin"} <= names
    assert not {"supervised", "negative_sampling"} & names


@pytest.mark.parametrize(("name", "changes"), TAKE_KEYS)
@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize("temperature", [0.01, 0.5, 8.0])
@pytest.mark.parametrize("kind", KINDS)
def test_with_keys_value_and_gradient_are_those_of_the_loops(
    name: str, changes: dict[str, Any], views: int, temperature: float, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss, batch = option(name, **{"temperature": temperature} | changes), batch_of(4, views)
    theirs = projections(4 * views).requires_grad_()
    their_keys = keys_of(theirs, kind)
    expected = by_loops(loss, theirs, batch, their_keys)
    (3 * expected).backward()
    for block in (1, 40, 10_000):
        monkeypatch.setitem(pairwise._BLOCK_ELEMENTS, "cpu", block)
        ours = projections(4 * views).requires_grad_()
        keys = keys_of(ours, kind)
        value = loss.module.loss(ours, batch, loss.parameters, ALONE, keys)
        (3 * value).backward()
        torch.testing.assert_close(value, expected, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-11)
        assert (keys.views.grad is None) == (kind == "queue")
        torch.testing.assert_close(keys.views.grad, their_keys.views.grad, rtol=1e-10, atol=1e-11)


def test_every_loss_has_a_definition_in_loops() -> None:
    assert sorted(LOOPS) == NAMES


@pytest.mark.parametrize(("name", "changes"), AT_TEMPERATURES)
@pytest.mark.parametrize("views", [2, 3, 5])
def test_value_and_gradient_are_those_of_the_loops(
    name: str, changes: dict[str, Any], views: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss, batch = option(name, **changes), batch_of(4, views)
    theirs = projections(4 * views).requires_grad_()
    expected = by_loops(loss, theirs, batch)
    (3 * expected).backward()
    for block in (1, 30, 10_000):  # elements: blocks of one anchor, uneven ones, a single one
        monkeypatch.setitem(pairwise._BLOCK_ELEMENTS, "cpu", block)
        ours = projections(4 * views).requires_grad_()
        value = value_of(loss, ours, batch)
        (3 * value).backward()
        torch.testing.assert_close(value, expected, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        (name, changes)
        for name, changes in CASES
        if not changes.get("weight_sigma") and changes.get("similarity") != "mahalanobis"
    ],  # whose weights and covariances are constants of the derivative; the loops try it
)
@pytest.mark.parametrize("views", [2, 3])
def test_the_gradient_is_the_derivative(name: str, changes: dict[str, Any], views: int) -> None:
    loss, batch = option(name, **{"temperature": 0.5} | changes), batch_of(12 // views, views)
    assert torch.autograd.gradcheck(lambda z: value_of(loss, z, batch), projections(12).requires_grad_())


@pytest.mark.parametrize(("name", "changes"), CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("temperature", [0.001, 1 / 60, 100.0])
@pytest.mark.parametrize("collapsed", [False, True])
@pytest.mark.parametrize("views", [2, 4])
def test_no_temperature_overflows(
    name: str, changes: dict[str, Any], views: int, temperature: float, dtype: torch.dtype, collapsed: bool
) -> None:
    z = (torch.ones(64, 5) if collapsed else projections(64)).to(dtype).requires_grad_()
    value = value_of(option(name, **changes | {"temperature": temperature}), z, batch_of(64 // views, views))
    value.backward()
    assert value.dtype == torch.float32
    assert math.isfinite(value.item())
    assert z.grad is not None
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "reweighted"])
@pytest.mark.parametrize("similarity", ["euclidean", "mahalanobis"])
def test_distances_of_any_length_have_a_finite_gradient(name: str, similarity: str) -> None:
    """Where rounding of s, computed from both sides, is more than an exponential bears."""
    z = (1e4 * projections(64, 64)).float().requires_grad_()
    value_of(option(name, similarity=similarity, temperature=0.2), z, batch_of(32, 2)).backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()


@pytest.mark.parametrize(("name", "changes"), CASES)
def test_the_order_of_samples_is_of_no_account(name: str, changes: dict[str, Any]) -> None:
    views, samples = 3, 6
    batch, order = batch_of(samples, views), torch.tensor([3, 0, 5, 1, 4, 2])
    rows = torch.arange(views * samples).view(views, samples)[:, order].flatten()
    shuffled = replace(batch, keys=batch.keys[rows], labels=batch.labels[order], samples=batch.samples[order])
    z, loss = projections(views * samples), option(name, **changes)
    torch.testing.assert_close(value_of(loss, z[rows], shuffled), value_of(loss, z, batch))


NEUTRAL: list[tuple[str, dict[str, Any]]] = [
    ("trimmed", {"kept": [0.0, 1.0]}),
    ("reweighted", {"beta": 0.0, "tau_plus": 0.0}),
    ("supervised", {}),
]


@pytest.mark.parametrize(("name", "changes"), NEUTRAL)
@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_at_neutral_parameters_it_is_nt_xent(
    name: str, changes: dict[str, Any], views: int, dtype: torch.dtype
) -> None:
    """Of samples that have no label, or one each."""
    z = projections(12 * views, 16).to(dtype)
    results = []
    for loss in (option(name, **changes), option("nt_xent")):
        own = z.clone().requires_grad_()
        value = value_of(loss, own, batch_of(12, views, labels=[-1, -1, *range(10)]))
        value.backward()
        results.append((value.detach(), own.grad))
    torch.testing.assert_close(*results, rtol=2e-6 if dtype == torch.float32 else 1e-13, atol=1e-8)


def share(
    session: Session, batch: Tensor, name: str, changes: dict[str, Any], kind: str | None
) -> tuple[Tensor, list[Tensor]]:
    """Loss and gradients on one rank, with its contiguous part of the samples of `batch` (V, B, d) and its keys, in
    blocks of a few anchors each."""
    pairwise._BLOCK_ELEMENTS["cpu"] = 100  # the process ends with this test
    views, samples, _ = batch.shape
    whole = batch_of(samples, views)

    def part(rows: Tensor, dim: int = 0) -> Tensor:
        return rows.chunk(session.world_size, dim=dim)[session.rank]

    own = Batch(
        whole.images, part(whole.keys.view(views, samples), 1).flatten(), part(whole.labels), part(whole.samples),
        views, samples,
    )  # fmt: skip
    z = part(batch, 1).flatten(0, 1).requires_grad_()
    loss = option(name, **changes)
    rows = [z]
    if kind is not None:
        keys = keys_of(batch.flatten(0, 1), kind)
        own_keys = part(keys.views.detach().view(views, samples, -1), 1).flatten(0, 1)
        keys = Keys(own_keys.requires_grad_(keys.views.requires_grad), keys.queue)
        rows.append(keys.views)
        value = loss.module.loss(z, own, loss.parameters, session, keys)
    else:
        value = value_of(loss, z, own, session)
    value.backward()
    return value.detach(), [row.grad.view(views, -1, z.shape[1]) for row in rows if row.grad is not None]


ON_RANKS: list[tuple[int, int, str, dict[str, Any], str | None]] = [
    (world, views, name, changes, None) for world, views in ((2, 3), (3, 2), (4, 2)) for name, changes in CASES
]
ON_RANKS += [(2, 3, name, changes, kind) for kind in KINDS[:2] for name, changes in TAKE_KEYS]


@pytest.mark.parametrize(("world", "views", "name", "changes", "kind"), ON_RANKS)
def test_ranks_together_have_the_loss_and_gradient_of_one_process(
    world: int, views: int, name: str, changes: dict[str, Any], kind: str | None
) -> None:
    batch = projections(12 * views).view(views, 12, 5)
    whole = batch.flatten(0, 1).clone().requires_grad_()
    keys = None if kind is None else keys_of(whole, kind)
    expected = by_loops(option(name, **changes), whole, batch_of(12, views), keys)
    expected.backward()
    results = on_ranks(world, share, batch, name, changes, kind)
    torch.testing.assert_close(torch.stack([value for value, _ in results]).mean(), expected.detach())
    wanted = [rows.grad for rows in (whole, *([] if keys is None else [keys.views])) if rows.grad is not None]
    for expected_gradient, *parts in zip(wanted, *(gradients for _, gradients in results), strict=True):
        # DDP divides the sum over ranks by their number
        gradient = torch.cat(parts, dim=1) / world
        torch.testing.assert_close(gradient.flatten(0, 1), expected_gradient, rtol=1e-10, atol=1e-12)
