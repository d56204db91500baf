"""What stands between dvc.yaml and a stage: the check of all parameters, and the Python that both run on."""

import json
import os
import runpy
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simclr.check import pipeline
from simclr.core import params, params_file
from simclr.core.errors import UserError
from simclr.core.processor_params import ProcessorParams, environment
from simclr.data import beton
from simclr.data.beton import RAW, StoredImage
from simclr.data.converted import DatasetInfo
from tests.helpers.programs import ROOT, TINY, Ended, change, warm

PROGRAM = str(ROOT / "stages" / "check.py")


def check(stage: str, folder: Path, **own: str) -> Ended:
    return warm(_check, stage, folder, own).end()


def _check(stage: str, folder: Path, own: dict[str, str]) -> None:
    os.chdir(folder)
    os.environ.update(own | {"DVC_ROOT": str(folder)})
    sys.argv = [PROGRAM, stage]
    runpy.run_path(PROGRAM, run_name="__main__")


WRONG = {
    "fetch__source": ("mnist", "fetch.source"),
    "convert__val_fraction": (0, "convert.val_fraction = 0"),
    "losses__nt_xent__temperature": (0, "losses.nt_xent.temperature = 0"),
    "embed__neighbors": (0, "embed.neighbors = 0"),
    "linear_eval__cached__max_iterations": (0, "linear_eval.cached.max_iterations = 0"),
    "finetune__fractions": ([0.1, 1.5], "finetune.fractions = [0.1, 1.5]"),
    "finetune__epochs": ([1, 2, 3], "finetune.epochs = [1, 2, 3]"),
    "finetune__head_layers": (2, "finetune.head_layers = 2 is not allowed; it takes 0 to 1"),
}


@pytest.mark.parametrize("stage", ["fetch", "pretrain"])
@pytest.mark.parametrize("key", WRONG)
def test_a_wrong_value_of_any_stage_is_refused_before_every_stage(stage: str, key: str, tmp_path: Path) -> None:
    value, message = WRONG[key]
    change(tmp_path, **{key: value})
    assert f"params.yaml: {message}" in check(stage, tmp_path).error


def test_a_path_that_no_file_can_have_is_one_line(tmp_path: Path) -> None:
    change(tmp_path, pretrain__method="pretrained", methods__pretrained__file="a" * 300)
    assert check("fetch", tmp_path).error == f"methods.pretrained.file: {'a' * 300} cannot be read (File name too long)"
    change(tmp_path, pretrain__method="simclr", finetune__label_list="a\0b")
    assert r'finetune.label_list = "a\u0000b" is not allowed' in check("fetch", tmp_path).error


def test_weights_that_are_not_there_are_refused_before_the_first_stage(tmp_path: Path) -> None:
    change(tmp_path, pretrain__method="pretrained", methods__pretrained__file="typo.pth")
    assert check("fetch", tmp_path).error == "methods.pretrained.file: typo.pth does not exist"
    (tmp_path / "typo.pth").touch()
    assert check("fetch", tmp_path).code == 0


def test_dvc_that_srun_starts_on_every_node_is_refused(tmp_path: Path) -> None:
    change(tmp_path)
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2"}
    assert check("fetch", tmp_path, **job, SLURM_STEP_NUM_TASKS="2").error == (
        "srun has started this command 2 times; give it once, without srun or with `srun --nodes=1 --ntasks=1`: "
        "pretrain takes all nodes of the job by itself"
    )
    assert check("fetch", tmp_path, **job, SLURM_STEP_NUM_TASKS="1").code == 0


def test_every_section_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sections: list[str] = []
    original = params.check

    def counting(values: dict[str, Any], schema: type[Any], name: str, origin: str) -> Any:
        sections.append(name)
        return original(values, schema, name, origin)

    monkeypatch.setattr(params, "check", counting)
    pipeline(params_file.read(ROOT / "params.yaml"))
    assert {"pretrain", "losses.nt_xent", "augment.crop"} < set(sections)
    assert len(set(sections)) == len(sections)


def test_a_section_of_no_stage_is_refused(tmp_path: Path) -> None:
    change(tmp_path)
    with (tmp_path / "params.yaml").open("a") as file:
        file.write("pretrian:\n  epochs: 3\n")
    assert check("fetch", tmp_path).error.startswith("params.yaml: pretrian is no section of the pipeline; there are: ")


AGAINST_DATA = {
    "pretrain__batch_size": (1296, "batch_size = 1296 is not allowed; it takes at most 1295, the images of train"),
    "pretrain__split": (
        "unlabelled",
        'split = "unlabelled" is not allowed; it takes train or all, as these data have no such split',
    ),
    "pretrain__validation__neighbors": (
        1296, "validation.neighbors = 1296 is not allowed; it takes at most 1295, the images of train that vote"
    ),
    "finetune__batch_size": (
        1296, "finetune.batch_size = 1296 is not allowed; it takes at most 1295, the images of train"
    ),
}  # fmt: skip


@pytest.mark.parametrize("key", AGAINST_DATA)
def test_what_depends_on_the_data_is_refused_before_the_pretraining(key: str, done: Path, tmp_path: Path) -> None:
    value, message = AGAINST_DATA[key]
    change(tmp_path, **TINY | {key: value})
    (tmp_path / "data").symlink_to(done / "data")
    assert message in check("pretrain", tmp_path).error
    assert check("convert", tmp_path).code == 0  # which makes other data, perhaps


def test_a_queue_longer_than_an_epoch_is_refused_before_the_pretraining(done: Path, tmp_path: Path) -> None:
    change(tmp_path, **TINY | {"pretrain__method": "moco", "methods__moco__queue": 2561})
    (tmp_path / "data").symlink_to(done / "data")
    # 1,295 images, of which an epoch of batches of 64 has 1,280
    assert "queue = 2561 is not allowed; it takes at most 2560, the views of" in check("pretrain", tmp_path).error


def test_an_evaluation_that_the_labels_do_not_allow_is_refused_before_the_pretraining(tmp_path: Path) -> None:
    """Of three images of val, no two are of one class."""
    (tmp_path / "data/beton").mkdir(parents=True)
    info = DatasetInfo(["a", "b", "c"], [0.5] * 3, [0.5] * 3, {"train": "", "val": "", "test": ""})
    (tmp_path / "data/beton/dataset.json").write_text(json.dumps(vars(info)))
    for name, count in (("train", 42), ("val", 3), ("test", 18)):
        images = (StoredImage(RAW, 8, 8, bytes(192)) for _ in range(count))
        beton.write(tmp_path / f"data/beton/{name}.beton", images, np.arange(count) % 3, 192)
    small = {
        "pretrain__batch_size": 16, "finetune__batch_size": 16,
        "finetune__fractions": [1.0], "finetune__epochs": [1],
    }  # fmt: skip
    change(tmp_path, **TINY | small)
    assert "evaluations.verification: val has no two images of one class" in check("pretrain", tmp_path).error


def test_before_all_stages_the_images_must_be_there_and_later_no_longer(tmp_path: Path) -> None:
    change(tmp_path, **TINY | {"fetch__source": "folder", "fetch__folder": "pictures"})
    assert check("repro", tmp_path).error == "fetch.folder: pictures does not exist"
    assert check("pretrain", tmp_path).code == 0
    assert check("repro", tmp_path).code == 1  # although the values have been checked
    (tmp_path / "pictures/deep/deeper").mkdir(parents=True)
    (tmp_path / "pictures/README.md").touch()
    assert check("repro", tmp_path).error == "fetch.folder: pictures holds no images; name a folder that does"
    (tmp_path / "pictures/deep/deeper/1.JPG").touch()
    assert check("repro", tmp_path).code == 0
    change(tmp_path, **TINY | {"fetch__source": "folder", "fetch__folder": "params.yaml"})
    refused = "fetch.folder: params.yaml: no list of files: line 1 is not '# N files of /a/folder'"
    assert check("repro", tmp_path).error.startswith(refused)


def test_before_all_stages_the_options_of_several_nodes_are_checked(tmp_path: Path) -> None:
    change(tmp_path)
    error = check("repro", tmp_path, PET_NNODES="2", PET_NODE_RANK="0", PET_MASTER_PORT="29777").error
    assert error.startswith("environment: PET_NNODES = 2 without PET_MASTER_ADDR; ")
    assert "PET_NPROC_PER_NODE = some is not allowed" in check("repro", tmp_path, PET_NPROC_PER_NODE="some").error
    refused = "pretrain.batch_size = 256 is not allowed; it takes a multiple of the 3 processes"
    assert check("repro", tmp_path, PET_NPROC_PER_NODE="3").error.endswith(refused)
    assert check("repro", tmp_path, PET_NPROC_PER_NODE="2").code == 0
    assert check("fetch", tmp_path, PET_NNODES="2").code == 0  # which needs no other node


def test_a_list_of_other_images_is_refused_before_the_pretraining(done: Path, tmp_path: Path) -> None:
    """And once more, when the list has changed."""
    (tmp_path / "data/beton").mkdir(parents=True)
    for path in (done / "data/beton").iterdir():
        (tmp_path / "data/beton" / path.name).symlink_to(path)
    for name, count in (("train", 1295), ("val", 142)):
        names = [f'"{name}/0/{k}.png"\n' for k in range(count)]
        (tmp_path / f"data/beton/{name}.names.jsonl").write_text("".join(names))
    wanted = {"fetch__source": "folder", "finetune__fractions": [], "finetune__label_list": "list.txt"}
    change(tmp_path, **TINY | wanted)
    assert check("fetch", tmp_path).error == "finetune.label_list: list.txt does not exist"
    (tmp_path / "list.txt").write_text("cat.png\n")
    assert check("fetch", tmp_path).code == 0
    error = check("pretrain", tmp_path).error
    assert "list.txt lists no image of train, such as train/0/0.png: it lists cat.png" in error
    (tmp_path / "list.txt").write_text("train/0/7.png\n")
    assert check("pretrain", tmp_path).code == 0
    (tmp_path / "list.txt").write_text("cat.png\n")
    assert "it lists cat.png" in check("pretrain", tmp_path).error


def test_a_method_that_trains_nothing_needs_no_batch_of_images(done: Path, tmp_path: Path) -> None:
    file = str(done / "models/encoder.safetensors")
    loads = {"pretrain__method": "pretrained", "methods__pretrained__file": file, "pretrain__batch_size": 1296}
    change(tmp_path, **TINY | loads)
    (tmp_path / "data").symlink_to(done / "data")
    assert check("pretrain", tmp_path) == Ended(0, "")


def test_all_wrong_values_are_named_at_once(done: Path, tmp_path: Path) -> None:
    change(tmp_path, losses__nt_xent__temperature=0, linear_eval__seed=-1)
    error = check("fetch", tmp_path).error
    assert "losses.nt_xent.temperature = 0 is not" in error
    assert "linear_eval.seed = -1 is not" in error
    wanted = {"pretrain__batch_size": 1296, "pretrain__validation__neighbors": 1296, "finetune__batch_size": 1296}
    change(tmp_path, **TINY | wanted)
    (tmp_path / "data").symlink_to(done / "data")
    error = check("pretrain", tmp_path).error
    for key in ("pretrain.batch_size", "pretrain.validation.neighbors", "finetune.batch_size"):
        assert f"{key} = " in error


def test_what_fits_is_let_through(done: Path, tmp_path: Path) -> None:
    largest = {"pretrain__batch_size": 1295, "embed__neighbors": 5000, "embed__map_perplexity": 500.0}
    change(tmp_path, **TINY | largest)
    (tmp_path / "data").symlink_to(done / "data")
    assert check("embed", tmp_path) == Ended(0, "")


def test_the_processor_is_what_params_yaml_says(tmp_path: Path) -> None:
    change(tmp_path, processor__instructions="native", processor__threads=3)
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "DVC_ROOT": str(tmp_path)}
    command = [sys.executable, PROGRAM, "fetch"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "SIMCLR_CPU=native SIMCLR_THREADS=3\n"


@pytest.mark.parametrize(
    ("name", "value", "key"), [("SIMCLR_CPU", "native", "instructions: held"), ("SIMCLR_THREADS", "2", "threads: 1")]
)
def test_the_environment_does_not_decide_results(
    name: str, value: str, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(tmp_path)
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as raised:
        environment(params.load("processor", ProcessorParams, tmp_path / "params.yaml"))
    assert str(raised.value) == (
        f"environment: {name} = {value}, but params.yaml has processor.{key}; what decides results belongs there"
    )


def imports(stage: str, folder: Path) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "DVC_ROOT": str(folder)}
    command = [sys.executable, "-X", "importtime", PROGRAM, stage]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True).stderr


def test_the_same_values_are_checked_once(tmp_path: Path) -> None:
    (tmp_path / ".dvc" / "tmp").mkdir(parents=True)
    change(tmp_path)
    assert check("fetch", tmp_path) == Ended(0, "")
    assert "torch" not in imports("convert", tmp_path)
    change(tmp_path, linear_eval__seed=-1)
    assert "linear_eval.seed = -1" in check("convert", tmp_path).error
    assert "linear_eval.seed = -1" in check("convert", tmp_path).error
    assert len(list((tmp_path / ".dvc" / "tmp").iterdir())) == 1


def launch(folder: Path, *shell: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """scripts/stage, by a `shell` or without one, for a stage in `folder` that prints which Python it runs on."""
    (folder / "stages").mkdir()
    (folder / "stages" / "check.py").write_text("import sys; print('CHECKED=' + sys.argv[1], 'A=1')")
    (folder / "stages" / "name.py").write_text(
        "import os, sys; print(*(os.environ[name] for name in ('CHECKED', 'A', 'PYTHONPATH')), sys.prefix)\n"
        f"assert os.environ['SIMCLR_PARENT'] == os.readlink('/proc/self/ns/pid') + ':{os.getpid()}'"
    )
    command = [*shell, str(ROOT / "scripts" / "stage"), "name"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


BARE = "/usr/bin:/bin"
"""A PATH with no Python, or with that of the system, which lacks what is needed."""


def test_a_stage_runs_on_the_python_of_the_path(tmp_path: Path) -> None:
    done = launch(tmp_path, PATH=f"{Path(sys.executable).parent}:{BARE}", PYTHONPATH="/more")
    assert done.stdout.splitlines() == [f"name 1 src:/more {sys.prefix}"]


def test_its_parent_is_dvc_and_no_shell_between(tmp_path: Path) -> None:
    """Here the tests are in the place of dvc: the shells alone have DVC_STAGE."""
    shells = ["bash", "-c", '"$@"; exit', "one", "bash", "-c", '"$@"; exit', "two"]
    done = launch(tmp_path, *shells, PATH=f"{Path(sys.executable).parent}:{BARE}", DVC_STAGE="name")
    assert (done.stdout, done.stderr) == (f"name 1 src {sys.prefix}\n", "")


def test_its_parent_is_the_dvc_that_is_gone_when_the_check_ends(tmp_path: Path) -> None:
    """Killed while the check runs, with a shell between that lives on."""
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages/check.py").write_text(
        "import os, time\nopen('checks', 'w').close()\nwhile not os.path.exists('goes_on'): time.sleep(0.05)\n"
    )
    (tmp_path / "stages/name.py").write_text(
        "import os; open('part', 'w').write(os.environ['SIMCLR_PARENT']); os.rename('part', 'parent')"
    )
    shell = ["bash", "-c", '"$@"; exit', "shell", str(ROOT / "scripts" / "stage"), "name"]
    code = f"import os, subprocess; subprocess.Popen({shell!r}, env={{**os.environ, 'DVC_STAGE': 'name'}}); input()"
    path = {"PATH": f"{Path(sys.executable).parent}:{BARE}"}
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=path, stdin=subprocess.PIPE) as dvc:
        wait_for(tmp_path / "checks")
        dvc.kill()
    (tmp_path / "goes_on").touch()
    wait_for(tmp_path / "parent")
    assert (tmp_path / "parent").read_text().endswith(f":{dvc.pid}")


def wait_for(file: Path) -> None:
    give_up = time.monotonic() + 60
    while not file.exists():
        assert time.monotonic() < give_up
        time.sleep(0.05)


@pytest.mark.parametrize("temporary", [False, True])
def test_without_one_it_runs_on_that_of_the_repository(temporary: bool, tmp_path: Path) -> None:
    (tmp_path / "workspace").mkdir()
    folder = tmp_path / "workspace" if temporary else tmp_path
    (tmp_path / ".venv").symlink_to(sys.prefix)
    done = launch(folder, PATH=BARE, **{"DVC_ROOT": str(tmp_path)} if temporary else {})
    root = str(tmp_path) if temporary else ""
    assert done.stdout.splitlines() == [f"name 1 src {os.path.join(root or str(folder), '.venv')}"]


def test_without_any_it_says_what_to_do(tmp_path: Path) -> None:
    done = launch(tmp_path, PATH=BARE)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        "name: error: no Python here has the packages of requirements.lock; run `make setup`, or activate the "
        "environment that has them\n"
    )


def test_what_the_check_refuses_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "check.py").write_text("import sys; sys.exit('refused')")
    (tmp_path / "stages" / "name.py").write_text("print('begun')")
    environment = {"PATH": f"{Path(sys.executable).parent}:{BARE}"}
    command = [str(ROOT / "scripts" / "stage"), "name"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "refused\n")


@pytest.mark.parametrize("arguments", [[], ["nope"], ["pretrain", "--help"]])
def test_a_stage_that_is_none_is_told_in_one_line(arguments: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [str(ROOT / "scripts" / "stage"), *arguments],
        cwd=ROOT if len(arguments) > 1 else tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    word = " ".join(arguments) or "nothing"
    assert done.stderr == f"scripts/stage: error: {word} is no stage of dvc.yaml here; name one, such as pretrain\n"
