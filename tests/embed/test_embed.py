"""kNN accuracy, the map and the nearest neighbors on features made by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.fake_memory import CUDA, GIB, counted
from threadpoolctl import threadpool_limits

from simclr.distributed import shares
from simclr.distributed.session import Session
from simclr.embed import embed_params, embedding_map, neighbors
from simclr.embed.embed_params import EmbedParams
from simclr.features.encode import Features, encode_splits, gather_to_main
from simclr.features.eval_transform import EvalTransform
from simclr.models.resnet import Encoder
from tests.helpers.betons import noise, stored
from tests.helpers.ranks import ALONE, on_ranks


def parameters(**changes: float) -> EmbedParams:
    chosen = {
        "batch_size": 3, "neighbors": 3, "temperature": 0.1, "map_points": 1000, "map_perplexity": 5.0, "seed": 0
    }  # fmt: skip
    return EmbedParams(**(chosen | changes))  # type: ignore[arg-type]


def clusters(count: int, dimension: int = 16) -> Features:
    """Three groups of samples, each about its own direction, of any length."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 3
    h = 5 * torch.nn.functional.one_hot(labels, dimension) + torch.randn(count, dimension, generator=generator)
    return Features(h * torch.rand(count, 1, generator=generator).clamp(min=0.1), labels, count)


def test_every_split_is_encoded_in_the_order_of_its_file(tmp_path: Path) -> None:
    splits = {
        name: stored(tmp_path / f"{name}.beton", noise(count, 8, seed), np.arange(count) % 4)
        for seed, (name, count) in enumerate({"train": 7, "val": 2, "test": 4}.items())
    }
    encoder = Encoder("resnet10", 0.125, small_stem=True, zero_init_residual=False)
    transform = EvalTransform(size=8, crop_share=1.0, mean=[0.5] * 3, std=[0.2] * 3)
    found = encode_splits(encoder, splits, transform, 3, ALONE)
    assert list(found) == ["train", "val", "test"]
    encoder.eval()
    for seed, (name, features) in enumerate(found.items()):
        assert features.labels.tolist() == splits[name].labels.tolist()
        images = torch.from_numpy(noise(len(splits[name]), 8, seed)).permute(0, 3, 1, 2) / 255
        with torch.no_grad():
            torch.testing.assert_close(features.h, encoder((images - 0.5) / 0.2))


def directions(*degrees: float) -> torch.Tensor:
    angles = torch.tensor(degrees).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def test_knn_accuracy_by_hand() -> None:
    """Each query looks at the three training samples next to it; one vote of a near one outweighs two of far ones."""
    far = range(270, 279)  # so that each class has three samples
    labels = torch.tensor([0, 1, 1, 2, 3, 4, 0, 0, 1, 2, 2, 3, 3, 4, 4])
    bank = Features(10 * directions(0, 40, 50, 180, 190, 200, *far), labels, 15)
    queries = Features(
        directions(1, 44, 182, 199), torch.tensor([0, 0, 2, 2]), 4  # 44 is taken for class 1, 199 for class 4
    )  # fmt: skip
    found = neighbors.knn_accuracy(parameters(temperature=0.1), bank, queries, classes=7, session=ALONE)
    assert found == {"knn_top1": 50.0, "knn_top5": 100.0, "knn_neighbors": 3}
    even = neighbors.knn_accuracy(parameters(temperature=100.0), bank, queries, classes=7, session=ALONE)
    assert even["knn_top1"] < 50.0  # two far samples of class 1 outvote the near one of class 0
    assert (
        neighbors.knn_accuracy(parameters(temperature=100.0, neighbors=1), bank, queries, classes=7, session=ALONE)[
            "knn_top1"
        ]
        == 50.0
    )


def test_one_neighbor_cannot_vote_for_five_classes() -> None:
    bank = Features(directions(0, 90), torch.tensor([0, 1]), 2)
    queries = Features(directions(10, 20, 80), torch.tensor([0, 1, 1]), 3)
    found = neighbors.knn_accuracy(parameters(neighbors=1), bank, queries, classes=6, session=ALONE)
    accuracies = {"knn_top1": pytest.approx(200 / 3), "knn_top5": pytest.approx(200 / 3)}
    assert found == accuracies | {"knn_neighbors": 1}


def test_the_map_keeps_neighbors_together() -> None:
    features = clusters(60)
    plan = embedding_map.tsne(parameters(), features)
    assert plan.samples.tolist() == list(range(60))
    assert plan.points.shape == (60, 2)
    points = torch.from_numpy(plan.points)
    nearest = (torch.cdist(points, points) + 1e9 * torch.eye(60)).argmin(dim=1)
    assert (features.labels[nearest] == features.labels).double().mean() > 0.9
    assert not np.allclose(embedding_map.tsne(parameters(map_perplexity=2.0), features).points, plan.points)


def test_the_map_shows_some_of_many_samples_drawn_by_the_seed() -> None:
    features = clusters(60)
    plan, again, other = (embedding_map.tsne(parameters(map_points=20, seed=seed), features) for seed in (1, 1, 2))
    assert len(set(plan.samples.tolist())) == len(plan.points) == 20
    assert plan.samples.tolist() == sorted(plan.samples.tolist()) != list(range(20))
    assert again.samples.tolist() == plan.samples.tolist() != other.samples.tolist()
    assert again.points.tobytes() == plan.points.tobytes()


def test_the_map_does_not_depend_on_the_number_of_cores() -> None:
    features = clusters(600, dimension=256)  # large enough for BLAS to share the work
    maps = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            maps.append(embedding_map.tsne(parameters(), features).points.tobytes())
    assert maps[0] == maps[1]


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_collapsed_encoder_has_a_map_too(value: float) -> None:
    plan = embedding_map.tsne(
        parameters(), Features(torch.full((30, 4), value), torch.zeros(30, dtype=torch.int64), 30)
    )
    assert np.isfinite(plan.points).all()


@pytest.mark.parametrize(
    ("test", "points", "asked", "used"), [(31, 1000, 9.5, 9.5), (31, 1000, 30.0, 10), (31, 10, 30.0, 3), (2, 10, 5, 1)]
)
def test_the_perplexity_is_at_most_a_third_of_the_points(test: int, points: int, asked: float, used: float) -> None:
    plan = embedding_map.tsne(parameters(map_points=points, map_perplexity=asked), clusters(test))
    assert plan.perplexity == used
    expected = embedding_map.tsne(parameters(map_points=points, map_perplexity=float(used)), clusters(test))
    assert plan.points.tobytes() == expected.points.tobytes()


def test_the_nearest_training_samples_are_found() -> None:
    bank, test = clusters(50), clusters(30)
    found = neighbors.examples(parameters(), bank, test, ALONE)
    assert len(set(found.queries.tolist())) == 8
    for query, nearest in zip(found.queries, found.nearest, strict=True):
        similarity = torch.nn.functional.cosine_similarity(test.h[query], bank.h)
        assert nearest.tolist() == similarity.argsort(descending=True)[:10].tolist()
    assert neighbors.examples(parameters(seed=1), bank, test, ALONE).queries.tolist() != found.queries.tolist()


def test_few_samples_make_a_small_sheet() -> None:
    found = neighbors.examples(parameters(), clusters(4), clusters(3), ALONE)
    assert sorted(found.queries.tolist()) == [0, 1, 2]
    assert found.nearest.shape == (3, 4)


def on_rank(session: Session) -> tuple[dict[str, float], list[list[int]]]:
    bank, test = (
        Features(*(rows[shares.own(whole.count, session)] for rows in (whole.h, whole.labels)), count=whole.count)
        for whole in (clusters(50), clusters(31))
    )
    metrics = [neighbors.knn_accuracy(parameters(neighbors=k), bank, test, 3, session) for k in (3, 100)]
    assert metrics[1]["knn_neighbors"] == 16  # of 50 samples, by turns of three classes
    return metrics, neighbors.examples(parameters(), bank, test, session).nearest.tolist()


def test_ranks_find_what_one_process_does() -> None:
    alone = on_rank(ALONE)
    assert on_ranks(3, on_rank) == [alone] * 3


def test_imagenet_fits_into_64_gb_of_host_memory_and_40_of_a_gpu() -> None:
    """A ResNet-50's features of all splits on one GPU, and then in the memory of its host; more GPUs have a share each.

    Beside them the encoder takes 8 GiB at most (see test_pretrain), and after it the search for neighbors 5 (test_knn).
    """
    session = Session(rank=0, world_size=1, device=CUDA)
    with counted() as peak:
        shared = {
            name: Features(
                torch.empty(count, 2048, device=CUDA), torch.empty(count, dtype=torch.int64, device=CUDA), count
            )
            for name, count in (("train", 1_268_355), ("val", 12_812), ("test", 50_000))
        }
        gather_to_main(shared, session)
    assert peak.gpu + 8 * GIB < 40e9
    assert peak.host < 64e9


def test_a_single_test_image_makes_no_map() -> None:
    refused = embed_params.refusals(1)
    assert [*map(str, refused)] == ["the map of embed takes 2 test images or more; there is 1"]
    assert not [*embed_params.refusals(2)]


def test_no_more_neighbors_vote_than_the_smallest_class_has() -> None:
    """Of three neighbors of the lone sample of class 1, two would outvote it."""
    bank = Features(torch.tensor([[1.0, 0.1], [1.0, 0.3], [1.0, 0.2]]), torch.tensor([1, 0, 0]), 3)
    queries = Features(torch.tensor([[1.0, 0.0]]), torch.tensor([1]), 1)
    found = neighbors.knn_accuracy(parameters(), bank, queries, 2, ALONE)
    assert found == {"knn_top1": 100.0, "knn_top5": 100.0, "knn_neighbors": 1}
    bank.labels[1] = 1
    assert neighbors.knn_accuracy(parameters(), bank, queries, 2, ALONE)["knn_neighbors"] == 1
    bank.labels[2] = 1
    assert neighbors.knn_accuracy(parameters(), bank, queries, 2, ALONE)["knn_neighbors"] == 3
