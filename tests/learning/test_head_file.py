"""The file of a projection head, whole, absent and damaged."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from simclr.core.errors import UserError
from simclr.learning import head_file, projection_head
from simclr.learning.projection_head import Head, HeadParams

ENCODER = "e" * 64


def head(layers: int = 3, seed: int = 0) -> Head:
    torch.manual_seed(seed)
    shape = HeadParams(layers=layers, hidden=7, output=4, batch_norm=True, dropout=0.1)
    model = projection_head.build(shape, dimension=5)
    model(torch.randn(6, 5), torch.arange(6))  # other running statistics than the initial ones
    return model


def test_what_is_loaded_is_what_was_saved(tmp_path: Path) -> None:
    model, path = head(), tmp_path / "head.safetensors"
    head_file.save(path, model, ENCODER)
    loaded = head_file.load(path, ENCODER)
    assert loaded is not None
    assert (loaded.shape, loaded.dimension) == (model.shape, 5)
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in loaded.state_dict().items())


def test_equal_heads_give_equal_bytes(tmp_path: Path) -> None:
    for name, seed in (("first", 0), ("second", 0), ("other", 1)):
        head_file.save(tmp_path / name, head(seed=seed), ENCODER)
    first, second, other = ((tmp_path / name).read_bytes() for name in ("first", "second", "other"))
    assert first == second != other


def test_a_method_without_a_head_has_a_file_that_says_so(tmp_path: Path) -> None:
    head_file.save(tmp_path / "head.safetensors", None, ENCODER)
    assert head_file.load(tmp_path / "head.safetensors", ENCODER) is None


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "without description": lambda path: save_file({"w": torch.zeros(2)}, path),
    "foreign description": lambda path: save_file({"w": torch.zeros(2)}, path, metadata={"head": "[1]"}),
    "other weights": lambda path: save_file(
        {"w": torch.zeros(2)},
        path,
        metadata={"head": f'{{"head": {{"shape": {{}}, "dimension": 5}}, "encoder": "{ENCODER}"}}'},
    ),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_or_foreign_file_is_one_line(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    path = tmp_path / "head.safetensors"
    head_file.save(path, head(), ENCODER)
    damage(path)
    with pytest.raises(UserError, match=r"head\.safetensors: damaged, or not a head that the pretrain stage wrote$"):
        head_file.load(path, ENCODER)


@pytest.mark.parametrize("layers", [0, 2])  # of a method without a head, and with one
def test_the_head_of_another_encoder_is_one_line(layers: int, tmp_path: Path) -> None:
    head_file.save(tmp_path / "head.safetensors", head(layers) if layers else None, ENCODER)
    with pytest.raises(UserError, match=r"head\.safetensors: not the head of this encoder; run the pretrain stage$"):
        head_file.load(tmp_path / "head.safetensors", "0" * 64)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be read \(No such file or directory.*; the pretrain stage writes it$"):
        head_file.load(tmp_path / "head.safetensors", ENCODER)
