"""Weights from elsewhere: what is read, what the encoder becomes, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor

from simclr.core.errors import UserError
from simclr.data.converted import DatasetInfo
from simclr.features import encoder_file
from simclr.features.eval_transform import EvalTransform
from simclr.methods import pretrained
from simclr.models import resnet
from simclr.training import pretrain
from simclr.training.run_context import PretrainData, RunContext
from tests.helpers.ranks import ALONE, on_ranks
from tests.helpers.recipes import recipe
from tests.training.test_pretrain import DIGESTS, on_rank, striped

TRANSFORM = EvalTransform(size=32, crop_share=0.875, mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6])


def parameters(path: Path, prefix: str = "", normalization: str = "imagenet") -> pretrained.Params:
    return pretrained.Params(file=str(path), prefix=prefix, normalization=normalization)


def fresh(depth: int = 18, **changes: Any) -> resnet.Encoder:
    return resnet.Encoder(
        f"resnet{depth}", **{"width": 1.0, "small_stem": False, "zero_init_residual": False} | changes
    )


@pytest.fixture(scope="module")
def network() -> torchvision.models.ResNet:
    """torchvision's, with running statistics that are not those of the beginning."""
    torch.manual_seed(7)
    model = torchvision.models.resnet18()
    model(torch.randn(4, 3, 64, 64))
    model.fc = torch.nn.Identity()
    return model.eval()


@pytest.fixture(scope="module")
def weights(network: torchvision.models.ResNet) -> dict[str, Tensor]:
    return {**network.state_dict(), "fc.weight": torch.zeros(1000, 512)}


def written(path: Path, content: Any) -> Path:
    if path.suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save(content, path)
    return path


@pytest.mark.parametrize("name", ["plain.pth", "weights.safetensors", "state_dict", "model", "prefix"])
def test_it_becomes_torchvisions_network(
    name: str, network: torchvision.models.ResNet, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    content: Any = weights
    prefix = ""
    if name == "prefix":
        prefix = "module.backbone."
        content = {f"{prefix}{key}": value for key, value in weights.items()} | {"conv1.weight": torch.zeros(1)}
    elif "." not in name:
        content = {name: weights, "epoch": 3}
    path = written(tmp_path / (name if "." in name else f"{name}.pt"), content)
    encoder = fresh()
    pretrained.load(parameters(path, prefix), encoder, TRANSFORM)
    images = torch.randn(3, 3, 64, 64)
    assert torch.equal(encoder.eval()(images), network(images))


def test_images_are_normalised_as_the_weights_want_it(weights: dict[str, Tensor], tmp_path: Path) -> None:
    path = written(tmp_path / "weights.pth", weights)
    found = pretrained.load(parameters(path), fresh(), TRANSFORM)
    assert found == EvalTransform(32, 0.875, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert pretrained.load(parameters(path, normalization="data"), fresh(), TRANSFORM) == TRANSFORM
    own = EvalTransform(size=64, crop_share=1.0, mean=[0.7, 0.7, 0.7], std=[0.1, 0.1, 0.1])
    encoder = fresh(10, width=0.25, small_stem=True)
    encoder_file.save(tmp_path / "encoder.safetensors", encoder, own)
    other = fresh(10, width=0.25, small_stem=True)
    found = pretrained.load(parameters(tmp_path / "encoder.safetensors"), other, TRANSFORM)
    assert found == EvalTransform(32, 0.875, own.mean, own.std)
    assert torch.equal(other.conv1.weight, encoder.conv1.weight)


def test_what_does_not_fit_is_named(weights: dict[str, Tensor], tmp_path: Path) -> None:
    path = written(tmp_path / "weights.pth", weights)
    for encoder, message in (
        (fresh(small_stem=True), r"conv1\.weight is \(64, 3, 7, 7\), but in the encoder \(64, 3, 3, 3\)"),
        (
            fresh(34),
            r"weights\.pth: lacks 80 of the 216 tensors of the encoder \(layer1\.2\.conv1\.weight, .*, \.\.\.\)",
        ),
    ):
        before = {name: value.clone() for name, value in encoder.state_dict().items()}
        with pytest.raises(UserError, match=message):
            pretrained.load(parameters(path), encoder, TRANSFORM)
        assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    with pytest.raises(UserError, match=r"holds 96 tensors that the encoder lacks .* \(layer1\.2\.conv1\.weight, "):
        pretrained.load(parameters(written(tmp_path / "deeper.pth", fresh(34).state_dict())), fresh(), TRANSFORM)
    with pytest.raises(UserError, match=r"those of the file are conv1\.weight, .*methods\.pretrained\.prefix"):
        pretrained.load(parameters(path, prefix="module."), fresh(), TRANSFORM)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_named(value: float, weights: dict[str, Tensor], tmp_path: Path) -> None:
    spoilt = weights["layer1.0.conv1.weight"].clone()
    spoilt[3, 2, 1, 0] = value
    path = written(tmp_path / "weights.pth", {**weights, "layer1.0.conv1.weight": spoilt})
    with pytest.raises(UserError, match=r"weights\.pth: layer1\.0\.conv1\.weight holds values that are not finite"):
        pretrained.load(parameters(path), fresh(), TRANSFORM)


SPOILT: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "too large": (lambda weight: weight.double() + 1e300, "holds values that are not finite in torch.float32"),
    "negative": (lambda weight: weight - 1e6, "holds negative values, which no variance has"),
    "complex": (lambda weight: weight * (1 + 1j), "is torch.complex64, not floating-point numbers"),
    "integers": (lambda weight: weight.int(), "is torch.int32, not floating-point numbers"),
    "without values": (lambda weight: weight.to("meta"), "is no plain tensor, not floating-point numbers"),
}


@pytest.mark.parametrize(("spoil", "message"), SPOILT.values(), ids=SPOILT)
def test_a_tensor_that_is_no_weight_is_named(
    spoil: Callable[[Tensor], Tensor], message: str, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    name = "layer1.0.bn1.running_var"
    path = written(tmp_path / "weights.pth", {**weights, name: spoil(weights[name])})
    with pytest.raises(UserError) as caught:
        pretrained.load(parameters(path), fresh(), TRANSFORM)
    assert str(caught.value).startswith(f"{path}: {name} {message}")


def test_weights_of_8_bits_are_taken(weights: dict[str, Tensor], tmp_path: Path) -> None:
    name, encoder = "layer1.0.conv1.weight", fresh()
    small = weights[name].to(torch.float8_e4m3fn)
    pretrained.load(parameters(written(tmp_path / "w.safetensors", {**weights, name: small})), encoder, TRANSFORM)
    assert torch.equal(encoder.state_dict()[name], small.float())


@pytest.mark.parametrize("description", [{"a": 1}, [1, 2], 5, "abc", {"transform": {"mean": [0.5], "std": [0, 0, 0]}}])
def test_an_encoder_that_does_not_say_how_images_were_normalised_is_refused(
    description: object, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "encoder.safetensors"
    save_file(weights, path, {"encoder": json.dumps(description)})
    with pytest.raises(UserError) as caught:
        pretrained.load(parameters(path), fresh(), TRANSFORM)
    assert str(caught.value) == f"{path}: damaged, or not an encoder that the pretrain stage wrote"


class Evil:
    """Pickle would call `touch`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_files_that_hold_no_tensors_are_refused_and_run_no_code(tmp_path: Path) -> None:
    torch.save({"state_dict": Evil(tmp_path / "touched")}, tmp_path / "evil.pth")
    (tmp_path / "text.pth").write_text("weights" * 99)
    (tmp_path / "denied.pth").write_text("access denied: this link has expired\n" * 10)
    (tmp_path / "text.safetensors").write_text("weights" * 99)
    (tmp_path / "empty").touch()
    torch.save([torch.zeros(3)], tmp_path / "list.pth")
    for name, message in (
        ("evil.pth", "damaged, or not what"), ("text.pth", "damaged, or not what"),
        ("denied.pth", "damaged, or not what"),
        ("text.safetensors", "damaged, or not what"), ("empty", "holds no weights; name a file of weights"),
        ("list.pth", "holds a list, not tensors by name"), ("gone.pth", r"cannot be read \(No such file"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=rf"{name}: {message}"):
            pretrained.load(parameters(tmp_path / name), fresh(), TRANSFORM)
    assert not (tmp_path / "touched").exists()


def test_a_pretraining_by_it_is_one_validation(tmp_path: Path) -> None:
    torch.manual_seed(3)
    encoder = fresh(10, width=0.125, small_stem=True)
    encoder_file.save(tmp_path / "encoder.safetensors", encoder, TRANSFORM)
    train, val = striped(tmp_path / "train.beton", 34, 0), striped(tmp_path / "val.beton", 12, 1)
    data = PretrainData(train, train, val, DatasetInfo(["lying", "standing"], [0.4] * 3, [0.3] * 3, DIGESTS))
    chosen = recipe(method="pretrained", methods__pretrained__file=str(tmp_path / "encoder.safetensors"))
    result = pretrain.pretrain(chosen, data, ALONE, RunContext())
    assert all(torch.equal(value, encoder.state_dict()[name]) for name, value in result.encoder.state_dict().items())
    assert result.history == []
    assert [row["epoch"] for row in result.validation] == [0]
    assert result.metrics["val_knn_top1"] == result.validation[0]["knn_top1"]
    for (history, validation), _ in on_ranks(2, on_rank, data, chosen):
        assert (history, validation) == ([], result.validation)


def test_weights_that_overflow_are_refused_for_images_without_labels_too(tmp_path: Path) -> None:
    encoder = fresh(10, width=0.125, small_stem=True)
    with torch.no_grad():
        encoder.layer4[0].bn2.bias.fill_(1e30)  # whose square is no float32
    encoder_file.save(tmp_path / "encoder.safetensors", encoder, TRANSFORM)
    train, val = striped(tmp_path / "train.beton", 34, 0), striped(tmp_path / "val.beton", 12, 1)
    chosen = recipe(method="pretrained", methods__pretrained__file=str(tmp_path / "encoder.safetensors"))
    for classes in (["lying", "standing"], []):
        data = PretrainData(train, train, val, DatasetInfo(classes, [0.4] * 3, [0.3] * 3, DIGESTS))
        with pytest.raises(UserError, match=r"not finite, or too large for float32: .*\(methods\.pretrained\.file\)$"):
            pretrain.pretrain(chosen, data, ALONE, RunContext())
