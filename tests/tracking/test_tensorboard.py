import os
import re

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from simclr.core.errors import UserError
from simclr.thumbnails.view_grid import view_grid
from simclr.tracking.tensorboard import Board, run_folder


def read(folder):
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    return events.Reload()


def curve(folder, tag):
    return [(event.step, event.value) for event in read(folder).Scalars(tag)]


def taken(images):
    """The images of points by their numbers, as a board asks for them."""
    return lambda points: [images[point] for point in points]


def images(count, size=8):
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (size, size, 3), np.uint8) for _ in range(count)]


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    (tmp_path / "params.yaml").write_text("pretrain:\n  lr: 0.1\n  grid:\n  - 1\n  - 2\n")
    return tmp_path


def test_run_folder_in_an_experiment(workspace, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", "/repository")
    monkeypatch.setenv("DVC_EXP_NAME", "tall-dogs")
    (workspace / "params.yaml").unlink()
    assert str(run_folder("pretrain")) == "/repository/runs/tall-dogs/pretrain"


def test_run_folder_in_the_workspace_is_named_after_the_parameters(workspace, monkeypatch):
    folder = run_folder("pretrain")
    assert re.fullmatch(r"runs/workspace-[0-9a-f]{8}/pretrain", str(folder))
    monkeypatch.setenv("DVC_ROOT", "/repository")
    assert run_folder("embed") == "/repository" / folder.parent / "embed"


def test_the_name_follows_the_values_and_not_their_writing(workspace):
    folder = run_folder("pretrain")
    (workspace / "params.yaml").write_text("# a comment\npretrain:\n  grid: [1, 2] # another\n  lr: 1e-1\n")
    assert run_folder("pretrain") == folder
    (workspace / "params.yaml").write_text("pretrain:\n  lr: 0.1\n  grid: [2, 1]\n")
    assert run_folder("pretrain") != folder


def test_run_folder_without_parameters(workspace):
    (workspace / "params.yaml").unlink()
    with pytest.raises(UserError, match=r"params\.yaml"):
        run_folder("pretrain")


def test_scalars_and_images_come_back(tmp_path):
    pairs = np.stack(images(8, 12)).reshape(4, 2, 12, 12, 3)
    with Board(tmp_path / "run") as board:
        for step in range(3):
            board.scalars({"train/loss": 2.0 - step, "val/knn": np.float32(step)}, step)
        board.views([pairs])
        Image.fromarray(pairs[0, 0]).save(tmp_path / "drawn.png")
        board.picture("probe/confusion", tmp_path / "drawn.png")
    events = read(tmp_path / "run")
    assert curve(tmp_path / "run", "train/loss") == [(0, 2), (1, 1), (2, 0)]
    assert curve(tmp_path / "run", "val/knn") == [(0, 0), (1, 1), (2, 2)]
    [shown] = events.Images("views")
    (tmp_path / "view.png").write_bytes(shown.encoded_image_string)
    assert shown.step == 0
    assert (np.asarray(Image.open(tmp_path / "view.png")) == view_grid([pairs])).all()
    [shown] = events.Images("probe/confusion")
    (tmp_path / "picture.png").write_bytes(shown.encoded_image_string)
    assert (np.asarray(Image.open(tmp_path / "picture.png")) == pairs[0, 0]).all()


def test_what_is_written_is_there_after_an_error(tmp_path):
    def stage():
        with Board(tmp_path / "run") as board:
            board.scalars({"loss": 1.0}, 0)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        stage()
    assert curve(tmp_path / "run", "loss") == [(0, 1)]


def test_a_second_run_of_the_same_name_starts_afresh(tmp_path):
    for values in ([1.0, 2.0, 3.0], [5.0, 6.0]):
        with Board(tmp_path / "name" / "pretrain") as board:
            for step, value in enumerate(values):
                board.scalars({"loss": value}, step)
            board.embedding(np.eye(3), ["a", "b", "c"], taken(images(3)), "h")
        with Board(tmp_path / "name" / "embed") as board:
            board.scalars({"top1": 1.0}, 0)
    assert curve(tmp_path / "name" / "pretrain", "loss") == [(0, 5), (1, 6)]
    assert curve(tmp_path / "name" / "embed", "top1") == [(0, 1)]
    assert len(list((tmp_path / "name").rglob("events.out.*"))) == 2


def test_a_run_that_goes_on_has_curves_without_a_gap_or_a_doubled_part(tmp_path):
    folder = tmp_path / "name" / "pretrain"
    with Board(folder) as board:
        for step in range(3):
            board.scalars({"loss": 5.0 - step}, step)
        points = board.points()  # what a checkpoint keeps
        board.scalars({"loss": 2.0}, 3)  # lost with the kill
    times = [event.wall_time for event in read(folder).Scalars("loss")][:3]
    for place in (folder, tmp_path / "other" / "pretrain"):  # another experiment's name may go on with it
        with Board(place) as board:
            board.restore(points)
            board.scalars({"loss": 1.0}, 3)
            assert len(board.points()) == 4
        assert curve(place, "loss") == [(0, 5), (1, 4), (2, 3), (3, 1)]
        assert [event.wall_time for event in read(place).Scalars("loss")][:3] == times


def test_without_a_folder_nothing_happens(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Board(None) as board:
        board.scalars({"loss": 1.0}, 0)
        board.restore([("loss", 0, 1.0, 0.0)])
        assert board.points() == []
        board.views(np.stack(images(2))[None])
        board.picture("picture", tmp_path / "none.png")
        board.embedding(np.eye(3), ["a", "b", "c"], taken(images(3)), "h")
        board.hparams({"lr": 0.1}, {"top1": 1.0})
    assert os.listdir(tmp_path) == []


def test_embedding(tmp_path):
    features = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    shown = [*images(4, 8), images(1, 100)[0]]
    with Board(tmp_path) as board:
        board.embedding(features, ["a", "b\tc", "d\ne", "f", "g"], taken(shown), "h")
    config = (tmp_path / "projector_config.pbtxt").read_text()
    assert dict(re.findall(r'(\w+): "(.*)"', config)) == {
        "tensor_name": "h:00000",
        "tensor_path": "00000/h/tensors.tsv",
        "metadata_path": "00000/h/metadata.tsv",
        "image_path": "00000/h/sprite.png",
    }
    assert re.findall(r"single_image_dim: (\d+)", config) == ["32", "32"]
    folder = tmp_path / "00000" / "h"
    np.testing.assert_allclose(np.loadtxt(folder / "tensors.tsv"), features, atol=1e-5)
    assert (folder / "metadata.tsv").read_text() == "a\nb c\nd e\nf\ng\n"
    sprite = np.asarray(Image.open(folder / "sprite.png")).astype(int)
    assert sprite.shape == (96, 96, 3)
    # The second of the first row, enlarged four times; TensorBoard's writer rounds down.
    expected = np.kron(shown[1], np.ones((4, 4, 1), np.uint8)).astype(int)
    np.testing.assert_allclose(sprite[:32, 32:64], expected, atol=1)


def test_embedding_of_many_points_is_thinned_evenly(tmp_path):
    count = 4001
    features = np.arange(count, dtype=np.float32)[:, None]
    with Board(tmp_path) as board:
        board.embedding(features, [str(index) for index in range(count)], taken(images(1) * count), "h")
    kept = np.loadtxt(tmp_path / "00000" / "h" / "tensors.tsv")
    assert len(kept) == 2000
    assert (kept[0], kept[-1]) == (0, count - 1)
    assert set(np.diff(kept)) == {2, 3}
    assert (tmp_path / "00000" / "h" / "metadata.tsv").read_text().split() == [str(int(row)) for row in kept]


def test_hparams_are_in_the_run_itself(tmp_path):
    parameters = {
        "lr": 0.1,
        "head": {"layers": 2, "batch_norm": True, "name": "mlp", "clip": None, "scale": [0.5, 1.0]},
    }
    with Board(tmp_path) as board:
        board.scalars({"loss": 1.0}, 0)
        board.hparams(parameters, {"test/top1": 0.98})
    assert [path.parent for path in tmp_path.rglob("events.out.*")] == [tmp_path]
    assert curve(tmp_path, "test/top1") == [(0, pytest.approx(0.98))]
    found = read(tmp_path).PluginTagToContent(metadata.PLUGIN_NAME)
    # No description of the whole experiment, which would hide the parameters that only other runs have.
    assert list(found) == [metadata.SESSION_START_INFO_TAG]
    session = metadata.parse_session_start_info_plugin_data(found[metadata.SESSION_START_INFO_TAG])
    assert session.group_name == ""
    values = {name: (value.WhichOneof("kind"), value) for name, value in session.hparams.items()}
    assert {name: getattr(value, kind) for name, (kind, value) in values.items()} == {
        "lr": 0.1,
        "head.layers": 2,
        "head.batch_norm": True,
        "head.name": "mlp",
        "head.clip": "null",
        "head.scale": "[0.5, 1.0]",
    }
    assert values["head.batch_norm"][0] == "bool_value"
