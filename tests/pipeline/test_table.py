"""scripts/table on the committed results, in a scratch repository."""

import json
import re
import shutil
import subprocess
from pathlib import Path

from tests.pipeline.test_review import ROOT, commit, run

ACCURACIES = ("pretrained.top1", "augmented.top1", "knn_top1")


def test_the_table_has_the_accuracies_and_what_differs(tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    folder.mkdir()
    run(folder, "git", "init", "--quiet")
    run(folder, "dvc", "init", "--quiet")
    for name in ("dvc.yaml", "dvc.lock", "params.yaml"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "reports", folder / "reports")
    commit(folder, "committed")
    file = folder / "reports/linear_eval/metrics.json"
    metrics = json.loads(file.read_text())
    file.write_text(json.dumps(metrics | {"pretrained": {"top1": 12.3456, "top5": 50.0}}))
    text = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(text.replace("  epochs: 80\n", "  epochs: 7\n"))

    lines = run(folder, str(ROOT / "scripts/table")).stdout.splitlines()
    [header, workspace, committed] = [re.split(r"\s{2,}", line.strip()) for line in lines if line.strip(" ─━")]
    assert set(header) == {"Experiment", "Created", *ACCURACIES, "pretrain.epochs"}
    changed = [dict(zip(header, cells, strict=True)) for cells in (workspace, committed)]
    assert [row["pretrained.top1"] for row in changed] == ["12.346", f"{metrics['pretrained']['top1']:.5g}"]
    same = f"{metrics['augmented']['top1']:.5g}"
    assert [row["augmented.top1"] for row in changed] == [same, same]
    assert [row["pretrain.epochs"] for row in changed] == ["7", "80"]
    assert max(map(len, lines)) <= 160


def test_without_the_environment_it_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        ["/bin/bash", str(ROOT / "scripts/table")], cwd=tmp_path, env={"PATH": ""}, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (1, "table: needs the environment on the PATH: make table\n")
