"""The arguments of srun, and what a stage makes of how its step ended; srun is a stand-in on the PATH."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from simclr.core.errors import Stopped, UserError
from simclr.distributed import launch, slurm
from tests.distributed.test_launch import LOST, on_machine
from tests.distributed.test_torchrun_options import NODE

JOB = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_CPUS_PER_NODE": "8"}
SRUN = r"""#!/usr/bin/env bash
# Runs the command after the options once for each task, all at a time; the exit code is the largest.
echo "$@" >> "$CALLS"
while [[ $1 == --* ]]; do
    [[ $1 == --ntasks=* ]] && tasks=${1#*=}
    shift
done
trap 'kill -USR1 "${children[@]}"' USR1
for ((task = 0; task < tasks; task++)); do
    SLURM_PROCID=$task SLURMD_NODENAME=n$((task + 1)) "$@" &
    children+=($!)
done
code=0
for child in "${children[@]}"; do
    while kill -0 "$child" 2>/dev/null; do
        wait "$child"; own=$?
    done
    ((own > code)) && code=$own
done
exit $code
"""
SCONTROL = """#!/bin/sh
case "$*" in
"show hostnames n[1-2]") printf 'n1\\nn2\\n' ;;
"--oneliner show node n1") echo "NodeName=n1 NodeAddr=127.0.0.1 NodeHostName=n1" ;;
*) echo "scontrol: error: $*" >&2; exit 1 ;;
esac
"""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, on the first of two nodes of a job; the file `calls` there has srun's arguments."""
    for name in [name for name in os.environ if name.startswith(("SLURM_", "PET_", "SIMCLR_NODE"))]:
        monkeypatch.delenv(name)
    for name, value in JOB.items():
        monkeypatch.setenv(name, value)
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in {"srun": SRUN, "scontrol": SCONTROL}.items():
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.chdir(tmp_path)
    for name in (
        "PET_NODE_RANK",
        "PET_NPROC_PER_NODE",
        "PET_SHUTDOWN_TIMEOUT",
        "PET_SIGNALS_TO_HANDLE",
        "SIMCLR_PARENT",
    ):
        monkeypatch.setenv(name, "")  # so that it is removed again afterwards
        monkeypatch.delenv(name)
    return tmp_path


def agents(job: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Have each task run `code`, which finds its number in `task` and `report(number, message)`."""
    program = job / "pretrain.py"
    program.write_text(
        "import os, sys, json, signal, time\n"
        "task = int(os.environ['SLURM_PROCID'])\n"
        "def report(number, message):\n"
        "    with open(os.path.join(os.environ['SIMCLR_NODE_REPORTS'], str(task)), 'r+') as file:\n"
        "        json.dump([number, message], file)\n" + code
    )
    monkeypatch.setattr("sys.argv", [str(program)])


def left(job: Path) -> list[str]:
    return sorted(path.name for path in (job / "runs").iterdir())


def options(environment: dict[str, str], nodes: int = 2) -> dict[str, str]:
    """The options of srun and their values."""
    name, *arguments = slurm.srun(nodes, environment)
    assert name == "srun"
    return {
        option: value for option, _, value in (argument.removeprefix("--").partition("=") for argument in arguments)
    }


def test_a_step_has_one_task_on_each_node_and_all_of_the_environment() -> None:
    given = options(JOB | {"SLURM_JOB_CPUS_PER_NODE": "8(x2)"})
    assert {"nodes": "2", "relative": "0", "ntasks": "2", "ntasks-per-node": "1"}.items() <= given.items()
    assert given["cpus-per-task"] == "8"
    assert {"export": "ALL", "kill-on-bad-exit": "1", "mpi": "none"}.items() <= given.items()
    assert not {"overlap", "gpus-per-node"} & set(given)


CPUS = {
    "all": ({"SLURM_JOB_CPUS_PER_NODE": "64(x3)"}, 64),
    "of the smallest node": ({"SLURM_JOB_CPUS_PER_NODE": "64(x2),32,128(x4)"}, 32),
    "of one task a node": ({"SLURM_CPUS_PER_TASK": "16"}, 16),
    "of eight tasks a node": ({"SLURM_CPUS_PER_TASK": "4", "SLURM_NTASKS_PER_NODE": "8"}, 32),
    "of all tasks": ({"SLURM_CPUS_PER_TASK": "4", "SLURM_NTASKS": "16"}, 32),
    "of all tasks, on one of two nodes": ({"SLURM_CPUS_PER_TASK": "4", "SLURM_NTASKS": "16"} | JOB, 32),
    "of the step of one task": ({"SLURM_CPUS_PER_TASK": "4", "SLURM_NTASKS": "1"}, 4),
}


@pytest.mark.parametrize("case", CPUS)
def test_an_agent_has_the_cpus_of_the_job_on_its_node(case: str) -> None:
    environment, cpus = CPUS[case]
    assert options(environment, 1 if "on one" in case else 2)["cpus-per-task"] == str(cpus)


def test_gpus_are_passed_on_and_a_step_within_a_step_shares_its_resources() -> None:
    assert options(JOB | {"SLURM_GPUS_ON_NODE": "4"})["gpus-per-node"] == "4"
    assert options(JOB | {"SLURM_STEP_ID": "0"})["overlap"] == ""


NODES = {
    "two": ({}, 2),
    "one": ({"SLURM_JOB_NUM_NODES": "1"}, 1),
    "no job": ({"SLURM_JOB_ID": None}, 1),
    "no number": ({"SLURM_JOB_NUM_NODES": None}, 1),
    "none": ({"SLURM_JOB_NUM_NODES": "0"}, 1),
    "an agent": ({"SIMCLR_NODE_REPORTS": "runs/x"}, 1),
}


@pytest.mark.parametrize("case", NODES)
def test_several_nodes_are_those_of_a_job(case: str, job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes, nodes = NODES[case]
    for name, value in changes.items():
        monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
    assert slurm.nodes() == nodes


ONCE = {
    "a job's script": {},
    "a step of one task": {"SLURM_STEP_NUM_TASKS": "1"},
    "one node": {"SLURM_STEP_NUM_TASKS": "2", "SLURM_JOB_NUM_NODES": "1"},  # DVC's own lock refuses it
    "started by hand": {"SLURM_STEP_NUM_TASKS": "2"} | NODE,
}


@pytest.mark.parametrize("case", ONCE)
def test_dvc_may_run_once_on_the_nodes_of_a_job(case: str, job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ONCE[case].items():
        monkeypatch.setenv(name, value)
    slurm.check_alone()


def test_dvc_in_every_task_of_a_step_is_refused(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "16")
    with pytest.raises(UserError, match=r"^srun has started this command 16 times; give it once, "):
        slurm.check_alone()


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """The nodes, and processes on each, of every step that is started from here, which does nothing; 0 nodes of agents
    that run here, in no step."""
    started: list[tuple[int, str]] = []
    monkeypatch.setattr(slurm, "run", lambda nodes: started.append((nodes, os.environ["PET_NPROC_PER_NODE"])))
    monkeypatch.setattr(launch.run, "run", lambda _: started.append((0, os.environ["PET_NPROC_PER_NODE"])))
    monkeypatch.setattr("sys.argv", ["stages/pretrain.py"])
    return started


SHARES = {  # nodes, GPUs on each, global batch: nodes, processes on each
    (2, 0, 256): (2, 1), (2, 1, 256): (2, 1), (2, 8, 4096): (2, 8), (2, 3, 256): (2, 2), (3, 8, 96): (3, 8),
    (3, 0, 256): (1, 1), (3, 4, 256): (1, 4), (3, 1, 255): (3, 1), (2, 4, 7): (1, 1), (3, 8, 12): (3, 4),
}  # fmt: skip


@pytest.mark.parametrize(("nodes", "devices", "batch_size"), SHARES)
def test_as_many_nodes_and_gpus_as_divide_the_batch_are_used(
    nodes: int,
    devices: int,
    batch_size: int,
    job: Path,
    steps: list[tuple[int, str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    used, processes = SHARES[nodes, devices, batch_size]
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", str(nodes))
    on_machine(monkeypatch, devices)
    with pytest.raises(SystemExit) as end:
        launch.on_every_gpu(batch_size, on_every_node=True)
    assert end.value.code is None
    assert steps == [(used, str(processes))]  # on one node too: the job's signal reaches its steps alone
    most, kind = nodes * max(devices, 1), "GPUs" if devices else "nodes"
    said = f"pretrain: {used * processes} of the {most} {kind} are used; pretrain.batch_size = {batch_size} does not"
    assert capsys.readouterr().err == (f"{said} divide among more\n" if used * processes < most else "")


def test_the_environment_may_set_the_processes_of_each_node(
    job: Path, steps: list[tuple[int, str]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    on_machine(monkeypatch, devices=0)
    monkeypatch.setenv("PET_NPROC_PER_NODE", "3")
    with caplog.at_level("INFO"), pytest.raises(SystemExit):
        launch.on_every_gpu(256, on_every_node=True)
    assert steps == [(2, "3")]
    assert caplog.messages == ["srun starts 3 process(es) on each of 2 nodes"]


def test_other_stages_and_nodes_that_the_user_configures_start_no_step(
    job: Path, steps: list[tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_machine(monkeypatch, devices=0)
    launch.on_every_gpu(256)
    assert steps == []
    for name, value in NODE.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        launch.on_every_gpu(256, on_every_node=True)
    assert steps == [(0, "1")]


def test_each_node_runs_this_program_as_an_agent(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CPU_BIND", "mask_cpu:0x1")
    monkeypatch.setenv("PET_NPROC_PER_NODE", "4")
    agents(job, monkeypatch, "open(f'agent-{task}', 'w').write(json.dumps(dict(os.environ)))")
    slurm.run(2)
    found: list[dict[str, Any]] = [json.loads((job / f"agent-{task}").read_text()) for task in range(2)]
    for environment in found:
        assert (environment["PET_NNODES"], environment["PET_NPROC_PER_NODE"]) == ("2", "4")
        assert environment["PET_MASTER_ADDR"] == "127.0.0.1"
        assert "SLURM_CPU_BIND" not in environment
    assert found[0]["PET_MASTER_PORT"] == found[1]["PET_MASTER_PORT"]
    checked, started = (job / "calls").read_text().splitlines()
    expected = " ".join(slurm.srun(2, JOB)[1:])
    assert checked.startswith(f"{expected} sh -c ")
    assert started == f"{expected} {sys.executable} {job}/pretrain.py"
    assert left(job) == []


ENDS = {  # by task, what it reports (None: nothing) and its exit code: the error
    "error": ([((0, "params.yaml: no"), 1), ((15, "; again"), 0)], "params.yaml: no"),
    "lost by the other": ([((0, f"rank 0 failed: {LOST}"), 1), ((0, "rank 1 was killed"), 1)], "rank 1 was killed"),
    "both lost": ([((0, f"rank 0 failed: {LOST}"), 1), ((0, f"rank 1 failed: {LOST}"), 1)], f"rank 0 failed: {LOST}"),
    "silent, lost": ([((0, f"rank 0 failed: {LOST}"), 1), (None, 9)], "node 1 of the step's 2, counted from 0, ended"),
    "silent, stopped": ([((15, "; again"), 0), (None, 9)], "node 1 of the step's 2, counted from 0, ended without a"),
    "silent": ([(None, 3), (None, 3)], "node 0 of the step's 2, counted from 0, ended without a word"),
}


@pytest.mark.parametrize("case", ENDS)
def test_the_error_is_that_of_the_first_node_that_failed_by_itself(
    case: str, job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends, message = ENDS[case]
    agents(job, monkeypatch, f"said, code = {ends!r}[task]\nif said: report(*said)\nsys.exit(code)")
    with pytest.raises(UserError) as error:
        slurm.run(2)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
    assert left(job) == []


def test_nodes_that_stopped_after_a_signal_stop_the_stage(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agents(job, monkeypatch, "report(10, ' at step 8 of 60; the same command goes on from there')")
    with pytest.raises(Stopped) as stop:
        slurm.run(2)
    assert stop.value.number == signal.SIGUSR1
    assert str(stop.value) == "stopped by SIGUSR1 at step 8 of 60; the same command goes on from there"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_is_passed_on_to_the_step_as_usr1(
    number: signal.Signals, job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = f"""
signal.signal(signal.SIGUSR1, lambda *_: (report(10, f' on node {{task}}'), os._exit(0)))
open(f'ready-{{task}}', 'w').close()
while not (os.path.exists('ready-0') and os.path.exists('ready-1')):
    time.sleep(0.01)
if task == 0:
    os.kill(int(os.environ['LAUNCHER']), {number})
time.sleep(30)
"""
    monkeypatch.setenv("LAUNCHER", str(os.getpid()))
    agents(job, monkeypatch, code)
    before = signal.getsignal(number)
    with pytest.raises(Stopped) as stop:
        slurm.run(2)
    assert str(stop.value) == f"stopped by {number.name} on node 0"
    assert signal.getsignal(number) == before
    assert left(job) == []


def test_a_path_that_a_node_lacks_is_named_before_anything_starts(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agents(job, monkeypatch, "open('started', 'w')")
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    with pytest.raises(UserError) as error:
        slurm.run(2)
    assert str(error.value) in {
        f"node n{node} lacks /nowhere/python: all nodes of a job need the same folder, as of a shared disk"
        for node in (1, 2)
    }
    assert not (job / "started").exists()
    assert left(job) == []


def test_what_slurm_refuses_is_an_error_in_its_words(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agents(job, monkeypatch, "")
    (job / "bin/srun").write_text(
        "#!/bin/sh\necho 'srun: error: Task launch failed\nsrun: error: node down' >&2\nexit 1\n"
    )
    with pytest.raises(UserError) as error:
        slurm.run(2)
    assert str(error.value) == (
        "the job's nodes cannot be used together: srun: error: Task launch failed srun: error: node down"
    )
    monkeypatch.setenv("SLURM_JOB_NODELIST", "odd")
    with pytest.raises(UserError, match=r"^`scontrol show hostnames odd` failed: scontrol: error: show hostnames odd$"):
        slurm.run(2)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(
        UserError, match=r"^scontrol: No such file or directory, which starts the nodes of SLURM's job 7$"
    ):
        slurm.run(2)


NO_REPORT = " " * 20_000


def as_agent(job: Path, code: str, **own: str) -> "subprocess.CompletedProcess[str]":
    """A process in which `code` runs as the work of the agent of node 1; its report is in the file 1."""
    (job / "1").write_text(NO_REPORT)
    program = f"""
import os, signal
from simclr.core.errors import Stopped, UserError
from simclr.core.signals import SIGNALS
from simclr.distributed import slurm
with slurm.as_agent():
    {code}
"""
    environment = os.environ | {"SIMCLR_NODE_REPORTS": str(job), "SLURM_PROCID": "1"} | own
    return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)


REPORTS: dict[str, tuple[str, int, Any]] = {
    "done": ("os.kill(os.getpid(), signal.SIGUSR1)", 0, None),  # it waits for its workers, which got it too
    "stopped": ("raise Stopped(10, ' at step 8')", 0, [10, " at step 8"]),
    "error": ("raise UserError('no')", 1, [0, "no"]),
    "torch": ("raise RuntimeError('timed out')", 1, [0, "RuntimeError: timed out"]),
}


@pytest.mark.parametrize("case", REPORTS)
def test_an_agent_leaves_a_report_in_place_of_a_last_line(
    case: str, job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, exit_code, report = REPORTS[case]
    monkeypatch.setenv("PYTHONPATH", str(Path(slurm.__file__).parents[2]))
    done = as_agent(job, code)
    assert (done.returncode, done.stdout + done.stderr) == (exit_code, "")
    content = (job / "1").read_text()
    assert (json.loads(content) if content != NO_REPORT else None) == report


def test_a_worker_of_an_agent_reports_to_its_agent_alone(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(slurm.__file__).parents[2]))
    done = as_agent(job, "raise UserError('no')", TORCHELASTIC_RUN_ID="none")
    assert done.stderr.endswith("UserError: no\n")
    assert (job / "1").read_text() == NO_REPORT


def test_an_agent_whose_gpus_cannot_be_used_reports_it(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (job / "1").write_text(NO_REPORT)
    monkeypatch.setenv("SIMCLR_NODE_REPORTS", str(job))
    monkeypatch.setenv("SLURM_PROCID", "1")
    on_machine(monkeypatch, devices=2)
    monkeypatch.setattr(launch, "_why_unusable", lambda: "too old")
    with pytest.raises(SystemExit) as end:
        launch.on_every_gpu(256, on_every_node=True)
    assert end.value.code == 1
    assert json.loads((job / "1").read_text())[1].startswith("this machine has 2 GPU(s) that PyTorch")


def test_a_worker_that_a_signal_ended_while_it_started_has_stopped(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under SLURM alone: there all processes get it."""
    failure = ProcessFailure(0, 1, -signal.SIGUSR1, str(job / "none"))
    assert launch._stopped_by(failure) is None
    monkeypatch.setenv("SIMCLR_NODE_REPORTS", str(job))
    assert launch._stopped_by(failure) == signal.SIGUSR1
