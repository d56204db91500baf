"""What results came from: a file that every machine writes alike, and one of this machine."""

import json
import os
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from simclr.core import options
from simclr.tracking import provenance, stage_digests

CPU = torch.device("cpu")
PARAMS = "train:\n  epochs: 3\nlosses:\n  nt_xent:\n    tau: 1\n  other:\n    tau: 2\n"


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def git(*command: str) -> str:
    return run("git", "-c", "user.name=name", "-c", "user.email=mail", *command)


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository in the current folder, with results of a stage in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setenv("DVC_EXP_NAME", "tested")
    git("init", "-q")
    (tmp_path / "reports/train/samples/inner").mkdir(parents=True)
    for name in ("params.yaml", "dvc.lock", "reports/train/metrics.json", "reports/train/samples/b.png", "model"):
        (tmp_path / name).write_text("before")
    (tmp_path / "params.yaml").write_text(PARAMS)
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages/train.py").write_text("LAYERS = 3\n")
    (tmp_path / "reports/train/samples/inner/a.png").write_text("other")
    (tmp_path / ".gitignore").write_text("/runs/")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    return tmp_path


def write(**changed: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both files."""
    given = {"outs": [Path("model")], "inputs": {"data": "ab"}, "device": CPU} | changed
    provenance.write(Path("stages/train.py"), **given)
    return tuple(
        json.loads(Path(path).read_text()) for path in ("reports/train/run.json", "runs/tested/train/machine.json")
    )


def test_all_results_are_named_and_nothing_else(clone: Path) -> None:
    Path("reports/train/.hidden").write_text("")
    outs = write()[0]["outs"]
    assert list(outs) == ["model", "reports/train/metrics.json", "reports/train/samples"]
    assert outs["model"] == outs["reports/train/metrics.json"] == "2f44417567bc123bd7c60de8c2a2b444"
    assert write()[0]["outs"] == outs  # nor is the file itself among them


def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """What may be another on a machine that gives the same results."""
    monkeypatch.setattr(platform, "python_version", lambda: "3.99.0")
    monkeypatch.setattr(provenance, "_cpu", lambda: "another")
    monkeypatch.setattr(os, "cpu_count", lambda: 4000)
    real = provenance.version
    monkeypatch.setattr(provenance, "version", lambda name: "9" if name == "dvc" else f"{real(name)}+cpu")


def test_a_machine_with_the_same_results_writes_the_same_file(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(starts={0: 2})
    first = Path("reports/train/run.json").read_bytes()
    Path("reports/train/run.json").unlink()
    elsewhere(monkeypatch)
    Path("params.yaml").write_text(f"{PARAMS}# changed\n")
    _, machine = write(starts={0: 2, 7: 2}, machine={"checkpoints": {"written": 3}})
    assert Path("reports/train/run.json").read_bytes() == first
    assert machine["git"] == {"revision": git("rev-parse", "HEAD"), "dirty": True}
    assert (machine["python"], machine["cpu"], machine["cores"], machine["dvc"]) == ("3.99.0", "another", 4000, "9")
    assert (machine["starts"], machine["checkpoints"]) == ({"0": 2, "7": 2}, {"written": 3})


def test_the_record_says_what_decides_the_bytes(clone: Path) -> None:
    record, machine = write(starts={0: 2, 5: 2, 9: 1, 12: 2})
    assert record["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert (record["device"], record["threads"]) == ("cpu", torch.get_num_threads())
    assert record["processes_from_step"] == {"0": 2, "9": 1, "12": 2}
    assert record["fingerprints"] == {"data": "ab", **stage_digests.of(Path("stages/train.py"), [], ["processor"])}
    assert record["sections"] == "processor"
    assert machine["outs"] == record["outs"]
    without = write(device=None, outs=[])[0]
    assert "device" not in without
    assert "sections" not in without


def test_it_is_written_again_where_results_inputs_code_or_parameters_are_others_only(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = write()
    with monkeypatch.context() as patch:
        patch.setattr(provenance, "versions", lambda device: {"torch": "another"})
        assert write()[0] == first
    assert write(inputs={"data": "bc"})[0]["fingerprints"]["data"] == "bc"
    Path("model").write_text("after")
    assert write(inputs={"data": "cd"})[0]["fingerprints"]["data"] == "cd"
    Path("stages/train.py").write_text("LAYERS = 4\n")
    assert write(inputs={"data": "de"})[0]["fingerprints"]["data"] == "de"
    Path("params.yaml").write_text(PARAMS.replace("epochs: 3", "epochs: 4"))
    assert write(inputs={"data": "ef"})[0]["fingerprints"]["data"] == "ef"
    for damaged in ("", "[]", '{"outs": 3}'):
        Path("reports/train/run.json").write_text(damaged)
        assert write(inputs={"data": "ab"})[0]["fingerprints"]["data"] == "ab"


def test_parameters_are_those_of_the_stage_and_of_its_options(clone: Path) -> None:
    def digest() -> str:
        return stage_digests.of(Path("stages/train.py"), ["losses.nt_xent"])["parameters"]

    known = digest()
    for text, same in (("tau: 2", True), ("tau: 1", False), ("epochs: 3", False)):
        Path("params.yaml").write_text(PARAMS.replace(text, text[:-1] + "9"))
        assert (digest() == known) == same


def test_all_options_of_a_package_are_those_that_there_are(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, names = Path("stages/train.py"), options.names("losses")
    every = stage_digests.of(train, ["losses.*"])
    assert every == stage_digests.of(train, [f"losses.{name}" for name in names])
    monkeypatch.setattr(stage_digests, "names", lambda package: names[1:])  # as before one was added
    fewer = stage_digests.of(train, ["losses.*"])
    assert all(fewer[part] != every[part] for part in ("code", "parameters"))


def test_a_section_counts_without_the_code_of_its_option(clone: Path) -> None:
    train = Path("stages/train.py")
    none, value, option = (
        stage_digests.of(train, *given) for given in ([[]], [[], ["losses.nt_xent"]], [["losses.nt_xent"]])
    )
    assert none["code"] == value["code"] != option["code"]
    assert none["parameters"] != value["parameters"] == option["parameters"]


def test_a_clean_clone_and_what_makes_it_dirty(clone: Path) -> None:
    assert provenance.git("train") == {"revision": git("rev-parse", "HEAD"), "dirty": False}
    (clone / "benchmarks/results").mkdir(parents=True)
    for name in ("dvc.lock", "reports/train/metrics.json", "reports/new.json", "benchmarks/results/new.md"):
        (clone / name).write_text("after")  # the run's own doing
    assert provenance.git("train")["dirty"] is False
    (clone / "params.yaml").write_text("after")
    assert provenance.git("train")["dirty"] is True
    git("checkout", "-q", "params.yaml")
    (clone / "untracked.py").write_text("")
    assert provenance.git("train")["dirty"] is True


def test_it_leaves_the_index_alone(clone: Path) -> None:
    """Git would write it anew, under a lock that stays behind a kill."""
    os.utime(clone / "params.yaml", (1, 1))
    before = (clone / ".git/index").read_bytes()
    assert provenance.git("train")["dirty"] is False
    assert (clone / ".git/index").read_bytes() == before


def no_repository(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(folder.parent.parent))


def no_git(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")


def another_owner(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # Git's own, for its tests


@pytest.mark.parametrize(
    ("prepare", "reason", "told"),
    [
        (no_repository, "fatal: not a git repository", False),
        (no_git, "git: No such file or directory", False),
        (another_owner, "fatal: detected dubious ownership in repository at ", True),
    ],
)
def test_without_a_revision_it_says_why(
    prepare: Callable[[Path, pytest.MonkeyPatch], None], reason: str, told: bool, clone: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    prepare(clone, monkeypatch)
    found = provenance.git("train")
    assert found["revision"] == ""
    assert str(found["reason"]).startswith(reason)
    said = capsys.readouterr().err
    assert said == (f"train: the revision is not recorded: {found['reason']}\n" if told else "")
    assert ("safe.directory" in said) == told


def test_a_package_that_is_not_installed_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "_PACKAGES", ("no-such-package", "numpy"))
    found = provenance.versions(CPU)
    assert list(found) == ["no-such-package", "numpy"]
    assert found["no-such-package"] == "absent"
