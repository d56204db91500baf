"""dvc.yaml against the code: each stage depends on what it imports, and on its own parameters."""

import ast
import functools
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import grimp
import pytest
from dvc.exceptions import CyclicGraphError
from dvc.repo import Repo
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML

from simclr.core import options

ROOT = Path(__file__).parents[2]
STAGES = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
CHOSEN = {"losses": "loss", "methods": "method", "models": "model"}
"""By the package, the key of `pretrain` that names the option."""
LISTED = ("src/simclr/augment", "src/simclr/evaluations")
"""Packages of which a list names several options."""
OUTS = [out for stage in STAGES.values() for out in stage.get("outs", []) if isinstance(out, str)]
"""What DVC keeps."""
DVC_WARNS = pytest.mark.filterwarnings("ignore:_NoneStep:DeprecationWarning")  # of the tries that it uses
GRAPH = grimp.build_graph("simclr", cache_dir=None)
for module in [module for module in GRAPH.modules if f"{module}.".startswith("simclr.tracking.")]:
    GRAPH.remove_module(module)  # what tells of a run changes no result, nor does what only that imports


def imported(path: Path) -> set[str]:
    """The modules of simclr that a stage's file names."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("simclr"):
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names & GRAPH.modules


def closure(stage: str) -> set[str]:
    """The modules that decide what a stage computes."""
    modules = imported(ROOT / "stages" / f"{stage}.py")
    for dep in STAGES[stage]["deps"]:  # options are imported by their names
        if dep in LISTED or (dep.startswith("src/") and "$" in dep):
            modules |= {module for module in GRAPH.modules if is_covered(source_path(module), dep)}
    for module in list(modules):
        modules |= GRAPH.find_upstream_modules(module)
    return {module for module in modules if module != "simclr" and (ROOT / source_path(module)).read_text().strip()}


def source_path(module: str) -> str:
    """Its file; for a package the one that stands for it."""
    path = f"src/{module.replace('.', '/')}"
    return f"{path}/__init__.py" if (ROOT / path).is_dir() else f"{path}.py"


def is_covered(path: str, dep: str) -> bool:
    """Whether `dep` is the file `path`, or its folder; a chosen file stands for all that may be chosen."""
    if "$" in dep:
        folder = dep.partition("$")[0]
        return path.startswith(folder) and not path.startswith(f"{folder}_")
    return path == dep or path.startswith(f"{dep}/")


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_what_it_imports_and_on_nothing_else(stage: str) -> None:
    listed = [dep for dep in STAGES[stage]["deps"] if dep.startswith("src/")]
    of_stage = {source_path(module) for module in closure(stage)}
    covered = {dep: {path for path in of_stage if is_covered(path, dep)} for dep in listed}
    assert set().union(*covered.values()) == of_stage
    assert all(covered.values())
    assert f"stages/{stage}.py" in STAGES[stage]["deps"]


@pytest.mark.parametrize("stage", STAGES)
def test_the_record_of_a_stage_tells_a_change_of_its_parameters_and_no_other(stage: str) -> None:
    """Else scripts/relock would take the results for those of other parameters, or ask for a run in vain."""
    record = json.loads((ROOT / "reports" / stage / "run.json").read_text())
    told = [*record["options"].split(), *record.get("sections", "").split()]
    known = [parameter.partition(".$")[0] for parameter in STAGES[stage].get("params", [])]
    for key in known:
        assert any(f"{key}.".startswith(f"{name}.") or name.startswith(f"{key}.") for name in [stage, *told]), key
    # nor may the record change with what does not run the stage
    for name in record.get("sections", "").split():
        assert any(f"{name}.".startswith(f"{key}.") for key in known), name


def test_the_dependencies_can_be_read() -> None:
    entries = {stage: sum(dep.startswith("src/") for dep in STAGES[stage]["deps"]) for stage in STAGES}
    assert sum(entries[stage] for stage in ("fetch", "convert", "pretrain", "embed", "linear_eval")) <= 40
    assert sum(entries.values()) <= 72


@pytest.mark.parametrize(
    "path", sorted(path for name in ("report", "thumbnails") for path in ROOT.glob(f"src/simclr/{name}/*.py"))
)
def test_another_style_of_a_picture_runs_draw_and_nothing_else(path: Path) -> None:
    listed = {stage: [dep for dep in STAGES[stage]["deps"] if dep.startswith("src/")] for stage in STAGES}
    covered = [stage for stage in STAGES if any(is_covered(str(path.relative_to(ROOT)), dep) for dep in listed[stage])]
    assert covered == ["draw"]


def stages_of(path: str) -> list[str]:
    """The stages that run again, as params.yaml is, when the file `path` changes."""
    values = YAML(typ="safe").load((ROOT / "params.yaml").read_text())

    def value(match: re.Match[str]) -> str:
        return str(functools.reduce(lambda section, key: section[key], match[1].split("."), values))

    deps = {name: [re.sub(r"\$\{([\w.]+)\}", value, dep) for dep in stage["deps"]] for name, stage in STAGES.items()}
    return [name for name in STAGES if any(is_covered(path, dep) for dep in deps[name])]


@pytest.mark.parametrize("package", ["losses", "methods", "models", "sources"])
def test_an_option_runs_the_stages_that_use_it_and_no_other(package: str) -> None:
    chosen = {"losses": "nt_xent", "methods": "simclr", "models": "resnet", "sources": "digits"}[package]
    users = {"models": ["pretrain", "embed", "linear_eval", "finetune", "evaluate", "card"], "sources": ["fetch"]}.get(
        package, ["pretrain"]
    )
    labels = ["linear_eval", "finetune"] if package == "methods" else []  # both train a classifier
    for name in options.names(package):
        expected = users if name == chosen else labels if name == "classifier" else []
        assert stages_of(f"src/simclr/{package}/{name}.py") == expected, name


@pytest.mark.parametrize(
    "path",
    sorted(
        path
        for name in ("embed", "linear_eval", "finetune", "evaluations")
        for path in ROOT.glob(f"src/simclr/{name}/*.py")
    ),
)
def test_evaluation_never_runs_the_pretraining(path: Path) -> None:
    assert not {"fetch", "convert", "pretrain"} & set(stages_of(str(path.relative_to(ROOT))))


def test_no_other_stage_draws() -> None:
    others = {path for stage in STAGES if stage != "draw" for path in paths(STAGES[stage].get("plots", []))}
    assert {Path(path).suffix for path in others} == {".csv"}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_has_a_description_and_its_own_parameters(stage: str) -> None:
    assert STAGES[stage]["desc"]
    own = [] if stage in ("draw", "card") else [stage]
    computes = [] if stage in ("fetch", "convert", "draw", "card") else ["processor"]
    options = {
        "pretrain": ["augment", *(f"{package}.${{pretrain.{key}}}" for package, key in CHOSEN.items())],
        "evaluate": ["augment", "evaluations", "pretrain.views.augmentations"],
        "card": [
            "augment",
            "convert.long_tail",
            "fetch.source",
            "linear_eval.refit",
            "losses.${pretrain.loss}",
            "methods.${pretrain.method}",
            "pretrain",
        ],
    }
    assert set(STAGES[stage].get("params", [])) == {*options.get(stage, []), *own, *computes}


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: one of DVC's, with this pipeline."""
    monkeypatch.chdir(tmp_path)
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    Repo.init(no_scm=True).close()
    return tmp_path


@DVC_WARNS
@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("images", "images"), ("2024", "2024"), ("'2024'", "2024"), ("1.5", "1.5"), ("true", "true"), ("", "None"),
        ("./2024", "2024"), ("a b/ä/日本", "a b/ä/日本"), ("images/", "images"), ("/data/pictures", "/data/pictures"),
    ],
)  # fmt: skip
def test_the_folder_of_images_is_a_dependency_whatever_its_name(written: str, path: str, repository: Path) -> None:
    shipped = (repository / "params.yaml").read_text()
    (repository / "params.yaml").write_text(shipped.replace("  folder: images\n", f"  folder: {written}\n"))
    with Repo() as repo:
        [fetch] = repo.stage.collect("fetch")
        assert fetch.deps[0].fs_path == str(repository / path)


@DVC_WARNS
@pytest.mark.parametrize(
    ("written", "path"), [("a b/x.pth", "a b/x.pth"), ("2024", "2024"), ("", "None"), ("/x", "/x")]
)
@pytest.mark.parametrize(
    ("key", "stage"), [("methods.pretrained.file", "pretrain"), ("finetune.label_list", "finetune")]
)
def test_a_file_is_a_dependency_whatever_its_name(
    key: str, stage: str, written: str, path: str, repository: Path
) -> None:
    line = f"  {key.rpartition('.')[2]}: weights/none\n"
    shipped = (repository / "params.yaml").read_text()
    assert line in shipped
    (repository / "params.yaml").write_text(shipped.replace(line, line.replace("weights/none", written)))
    with Repo() as repo:
        [found] = repo.stage.collect(stage)
        assert str(repository / path) in [dep.fs_path for dep in found.deps]
        if written == "a b/x.pth":
            (repository / "a b").mkdir()
            (repository / written).write_text("first")
            [dep] = [dep for dep in found.deps if dep.fs_path == str(repository / path)]
            dep.save()
            assert not dep.changed_checksum()
            (repository / written).write_text("second")
            assert dep.changed_checksum()


@DVC_WARNS
@pytest.mark.parametrize("out", OUTS)
def test_a_folder_of_images_in_a_result_is_refused_by_dvc_itself(out: str, repository: Path) -> None:
    """It would be removed before the stage runs."""
    apply_overrides(repository / "params.yaml", [f"fetch.folder={out}/mine"])
    with Repo() as repo, pytest.raises(CyclicGraphError):
        repo.index.check_graph()


def test_clean_removes_what_the_stages_wrote_and_nothing_else(tmp_path: Path) -> None:
    made = [*OUTS, *(str(Path(out).with_name(f".{Path(out).name}.{half}")) for out in OUTS for half in ("part", "old"))]
    mine = [
        "data/mine/train/cat/1.png", "data/compare/mine/1.png", "models/mine", "images/train/cat/1.png",
        "reports/fetch/x", "pictures/1.png",
    ]  # fmt: skip
    shutil.copy(ROOT / "Makefile", tmp_path)
    for path in [*(f"{path}/x" for path in made), "runs/a/x", "checkpoints/b/x", *mine]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"Makefile", *mine}
    shutil.rmtree(tmp_path / "data/mine")
    shutil.rmtree(tmp_path / "data/compare")
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("stage", STAGES)
def test_a_command_says_nothing_of_the_machine(stage: str) -> None:
    assert STAGES[stage]["cmd"] == f"scripts/stage {stage}"


def names(section: dict[str, Any]) -> set[str]:
    return set(section).union(*(names(value) for value in section.values() if isinstance(value, dict)))


def test_dvc_tells_all_parameters_apart() -> None:
    """Its run cache ignores keys of these two names wherever they stand (dvc.stage.cache): it would bring back the
    results of another size."""
    assert not {"size", "nfiles"} & names(YAML(typ="safe").load((ROOT / "params.yaml").read_text()))


def paths(entries: list[Any]) -> set[str]:
    return {entry if isinstance(entry, str) else next(iter(entry)) for entry in entries}


def test_small_results_are_kept_in_git_and_large_ones_by_dvc() -> None:
    for stage in STAGES.values():
        small = [entry for entry in stage.get("outs", []) if not isinstance(entry, str)]
        for entry in [*small, *stage.get("metrics", []), *stage.get("plots", [])]:
            path, options = next(iter(entry.items()))
            assert path.startswith("reports/")
            assert options["cache"] is False
    assert not any(out.startswith("reports/") for out in OUTS)
