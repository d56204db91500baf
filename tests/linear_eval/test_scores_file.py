from pathlib import Path

import torch
from safetensors.torch import load_file

from simclr.linear_eval import scores_file


def test_scores_come_back_with_their_labels(tmp_path: Path) -> None:
    scores = {"pretrained": torch.randn(5, 3), "augmented": torch.randn(3, 5).T}
    labels = torch.tensor([2, 0, 1, 1, 0])
    scores_file.save(tmp_path / "data" / "scores.safetensors", scores, labels)
    found = load_file(tmp_path / "data" / "scores.safetensors")
    assert found.keys() == {"pretrained", "augmented", "labels"}
    assert all(torch.equal(found[name], values) for name, values in scores.items())
    assert torch.equal(found["labels"], labels)
