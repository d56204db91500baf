"""Folders of pictures, an encoder for them, and the command as its users give it."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import simclr
from simclr import __main__ as command
from simclr.features import encoder_file
from simclr.features.eval_transform import EvalTransform
from simclr.models import resnet

ENCODER = ("--encoder", "encoder.safetensors")
SIZES = [(8, 8), (30, 17), (9, 40), (64, 48)]


def save_encoder(path: Path, width: float = 0.125) -> None:
    torch.manual_seed(0)
    encoder = resnet.Encoder("resnet10", width, small_stem=True, zero_init_residual=False)
    transform = EvalTransform(size=12, crop_share=0.875, mean=[0.4, 0.5, 0.6], std=[0.2, 0.3, 0.2])
    encoder_file.save(path, encoder, transform)


def pictures(root: Path, names: list[str]) -> None:
    """Noise around a color, of several sizes, under the `names`, each another."""
    for index, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        width, height = SIZES[index % len(SIZES)]
        generator = np.random.default_rng(index)
        low = generator.integers(0, 192, 3, np.uint8)
        noise = generator.integers(0, 64, (height, width, 3), np.uint8)
        Image.fromarray(low + noise).save(root / name)


def alone(path: Path, encoder: Path = Path("encoder.safetensors")) -> torch.Tensor:
    """h (D,) of one image, as docs/using.md has it."""
    network, prepare = simclr.load_encoder(encoder)
    with Image.open(path) as image:
        h: torch.Tensor = network(prepare(image)[None])[0]
    assert h.std() > 0.01
    return h


def written() -> dict[str, bytes | None]:
    """The content of the working directory."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(Path().rglob("*"))}


class Run:
    """`simclr`, in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: object) -> str:
        """What it prints."""
        code, out, _ = self._end(*arguments)
        assert code == 0
        return out

    def log(self, *arguments: object) -> str:
        """What it says on stderr, progress bars apart."""
        code, _, said = self._end(*arguments)
        assert code == 0
        return said

    def error(self, *arguments: object, code: int = 1) -> str:
        """The one line in which it ends, without the name of the subcommand. The working directory is as before."""
        before = written()
        ended, out, said = self._end(*arguments)
        assert (ended, out) == (code, "")
        assert written() == before
        assert said.count("\n") == 1, said
        start = f"{arguments[0]}: error: " if code == 1 else f"{arguments[0]}: "
        assert said.startswith(start)
        return said.removeprefix(start).removesuffix("\n")

    def _end(self, *arguments: object) -> tuple[int, str, str]:
        self._monkeypatch.setattr(sys, "argv", ["simclr", *map(str, arguments)])
        code = 0
        try:
            command.main()
        except SystemExit as end:
            code = int(str(end.code))
        out, error = self._capsys.readouterr()
        lines = [line.rpartition("\r")[2] for line in error.splitlines(keepends=True)]
        return code, out, "".join(line for line in lines if not line.startswith("embed:  ") and "img/s]" not in line)
