"""A real SLURM with two nodes, on the loopback of one machine: `make test-cluster`."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.helpers.programs import ROOT, TINY, await_checkpoint, change

pytestmark = pytest.mark.cluster

CLUSTER = ROOT / "tests/cluster/slurm_two_nodes"
ENCODER, LOSS = "models/encoder.safetensors", "reports/pretrain/loss.csv"
RUN, REQUEUE, SWEEP = (f"scripts/slurm/{name}.sbatch" for name in ("run", "requeue", "sweep"))
TRAIN = ("repro", "--single-item", "pretrain")
EPOCHS = 40
"""Some ten seconds of training."""
WITHIN = 60
"""Seconds for a step to end, which takes SLURM up to half of that."""


class Cluster:
    """Two nodes, n1 and n2, of one CPU each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.disk = folder / "disk"
        """A small file system that both nodes see."""
        self.environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "SLURM_CONF": str(folder / "slurm.conf"),
            "CHECKPOINT_MINUTES": "0",
        }
        for name in ("PYTHONPATH", "PET_NPROC_PER_NODE"):
            self.environment.pop(name, None)

    def command(self, *words: str, folder: Path = ROOT, **own: str) -> str:
        """What a command prints, which must succeed."""
        done = subprocess.run(words, cwd=folder, env=self.environment | own, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self) -> None:
        self.disk.mkdir()
        # before n2, which starts with a copy of the mounts
        self.command("mount", "-t", "tmpfs", "-o", "size=200m", "none", str(self.disk))
        self.command(str(CLUSTER), str(self._folder), "start")
        self.await_idle()

    def stop(self) -> None:
        self.command("scancel", "--user=root")
        self.command(str(CLUSTER), str(self._folder), "stop")
        self.command("umount", "--lazy", str(self.disk))

    def await_idle(self) -> None:
        until(lambda: self.command("sinfo", "--noheader", "--format=%T %D").split() == ["idle", "2"])

    def submit(self, script: str, *arguments: str, folder: Path, nodes: int = 2, options: tuple[str, ...] = ()) -> str:
        """The number of a new job, which writes to the file `said` in `folder`."""
        options = (f"--nodes={nodes}", "--cpus-per-task=1", "--output=said", *options)
        return self.command("sbatch", "--parsable", *options, script, *arguments, folder=folder).strip()

    def state(self, job: str) -> str:
        """Such as RUNNING, PENDING, COMPLETED, FAILED, CANCELLED."""
        shown = self.command("scontrol", "--oneliner", "show", "job", job)
        return shown.partition("JobState=")[2].split()[0]

    def end(self, job: str, seconds: float = 300) -> str:
        """The state in which a job ends."""
        running = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING")
        until(lambda: self.state(job) not in running, seconds)
        return self.state(job)

    def slurmd(self) -> int:
        """The process of n2."""
        return int((self._folder / "n2.pid").read_text())

    def lose(self) -> None:
        """Kill n2 with all that runs there, which is what has its mounts."""
        mounts = Path(f"/proc/{self.slurmd()}/ns/mnt").readlink()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if (process / "ns/mnt").readlink() == mounts:
                    os.kill(int(process.name), 9)
            except OSError:
                continue

    def await_silence(self) -> None:
        """Wait until the controller sends nothing: what it tells a lost node about an attempt of a job, for ten seconds
        again and again, would end the next attempt if the node came back meanwhile."""
        until(lambda: "Agent queue size:     0\nAgent count:          0\n" in self.command("sdiag"))

    def start_second(self) -> None:
        """Start the slurmd of n2."""
        self.command("unshare", "--mount", "slurmd", "-N", "n2", "-f", str(self._folder / "slurm.conf"))

    def recover(self) -> None:
        """Cancel all jobs, start n2 again if it was killed, and wait until no job runs."""
        self.command("scancel", "--user=root")
        if not Path(f"/proc/{self.slurmd()}").exists():
            self.start_second()
        self.await_idle()


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def running(folder: Path) -> list[str]:
    """The programs that run in `folder`, and the numbers of ended ones that hold DVC's lock until they are reaped."""
    lock = folder / ".dvc/tmp/rwlock"
    holders = set(re.findall(r'"pid": (\d+)', lock.read_text())) if lock.exists() else set()
    found = [number for number in holders if Path(f"/proc/{number}").exists()]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").resolve() == folder:
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return [program for program in found if program]


def said(folder: Path) -> str:
    return (folder / "said").read_text()


def losses(folder: Path) -> list[float]:
    """Of each epoch."""
    return [float(row["loss"]) for row in csv.DictReader((folder / LOSS).read_text().splitlines())]


def half_written(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if ".part" in path.name or path.name.startswith(".nodes-")]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    made.start()
    yield made
    made.stop()


@pytest.fixture(autouse=True)
def recovered(cluster: Cluster) -> Iterator[None]:
    """No test finds what the one before has left."""
    yield
    cluster.recover()


@pytest.fixture(scope="module")
def converted(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the files of this one, and smaller parameters, in which the first two stages have run."""
    folder = tmp_path_factory.mktemp("converted")
    for path in cluster.command("git", "ls-files", "-co", "--exclude-standard").splitlines():
        if (ROOT / path).is_file() and path != "dvc.lock" and not path.startswith("reports/"):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, folder / path)
    change(folder, **TINY | {"pretrain__epochs": EPOCHS})
    author = ("-c", "user.name=n", "-c", "user.email=e")
    cluster.command("git", "init", "-q", folder=folder)
    cluster.command("dvc", "repro", "convert", folder=folder)
    cluster.command("git", "add", "-A", folder=folder)
    cluster.command("git", *author, "commit", "-q", "-m", "state", folder=folder)
    return folder


@pytest.fixture
def folder(converted: Path, tmp_path: Path) -> Path:
    return shutil.copytree(converted, tmp_path / "repository", symlinks=True)


@pytest.fixture(scope="module")
def whole(cluster: Cluster, converted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository in which two nodes pretrained undisturbed."""
    folder = shutil.copytree(converted, tmp_path_factory.mktemp("whole") / "repository", symlinks=True)
    job = cluster.submit(RUN, *TRAIN, folder=folder)
    assert cluster.end(job) == "COMPLETED", said(folder)
    return folder


@pytest.fixture(scope="module")
def alone(cluster: Cluster, converted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository in which one process pretrained undisturbed, without SLURM."""
    folder = shutil.copytree(converted, tmp_path_factory.mktemp("alone") / "repository", symlinks=True)
    cluster.command("dvc", *TRAIN, folder=folder)
    return folder


def test_two_nodes_learn_what_two_processes_learn_and_one_up_to_rounding(
    cluster: Cluster, whole: Path, alone: Path, folder: Path
) -> None:
    assert '"0": 2' in (whole / "reports/pretrain/run.json").read_text()  # processes
    assert half_written(whole) == []
    cluster.command("dvc", *TRAIN, folder=folder, PET_NPROC_PER_NODE="2")
    assert (folder / ENCODER).read_bytes() == (whole / ENCODER).read_bytes()
    assert cluster.command("dvc", "status", "pretrain", folder=whole).startswith("Data and pipelines are up to date.")
    of_one, of_two = losses(alone), losses(whole)
    assert of_one[0] == pytest.approx(of_two[0], rel=1e-3)  # later, rounding has grown
    assert of_one != of_two


def test_one_node_runs_as_without_slurm(cluster: Cluster, folder: Path) -> None:
    job = cluster.submit(RUN, *TRAIN, folder=folder, nodes=1)
    assert cluster.end(job) == "COMPLETED", said(folder)
    assert '"0": 1' in (folder / "reports/pretrain/run.json").read_text()


def test_within_a_step_on_the_first_node_it_takes_both_nodes(cluster: Cluster, whole: Path, folder: Path) -> None:
    cluster.command("salloc", "--nodes=2", "srun", "--nodes=1", "--ntasks=1", "dvc", *TRAIN, folder=folder)
    assert (folder / ENCODER).read_bytes() == (whole / ENCODER).read_bytes()


def test_a_cancelled_job_leaves_nothing_and_the_next_goes_on(cluster: Cluster, whole: Path, folder: Path) -> None:
    job = cluster.submit(REQUEUE, *TRAIN, folder=folder)
    await_checkpoint(folder)
    cluster.command("scancel", job)
    assert cluster.end(job) == "CANCELLED"
    until(lambda: not running(folder), WITHIN)
    assert said(folder).count("pretrain: stopped by SIGTERM at step ") == 1
    assert not (folder / ENCODER).exists()
    job = cluster.submit(REQUEUE, *TRAIN, folder=folder)
    assert cluster.end(job) == "COMPLETED", said(folder)
    assert "pretrain: goes on from step " in said(folder)
    assert (folder / ENCODER).read_bytes() == (whole / ENCODER).read_bytes()
    assert half_written(folder) == []


@pytest.mark.parametrize(("nodes", "used"), [(1, 1), (2, 2), (2, 1)])
def test_a_signal_before_the_end_queues_the_job_again_and_it_goes_on_to_the_same_bytes(
    nodes: int, used: int, cluster: Cluster, whole: Path, alone: Path, folder: Path
) -> None:
    """On the first of two nodes alone, too, where the batch does not divide among both."""
    if used == nodes:
        undisturbed = {1: alone, 2: whole}[nodes]
    else:
        undisturbed = shutil.copytree(folder, folder.parent / "undisturbed", symlinks=True)
        for repository in (folder, undisturbed):
            change(repository, **TINY | {"pretrain__epochs": EPOCHS, "pretrain__batch_size": 255})
        cluster.command("dvc", *TRAIN, folder=undisturbed)
    job = cluster.submit(REQUEUE, *TRAIN, folder=folder, nodes=nodes)
    await_checkpoint(folder)
    cluster.command("scancel", "--signal=USR1", job)  # as SLURM does for --signal=USR1@120
    until(lambda: "pretrain: stopped by SIGUSR1 at step " in said(folder), WITHIN)
    assert cluster.end(job) == "COMPLETED", said(folder)
    assert "pretrain: goes on from step " in said(folder)
    assert f'"0": {used}' in (folder / "reports/pretrain/run.json").read_text()  # processes
    assert (folder / ENCODER).read_bytes() == (undisturbed / ENCODER).read_bytes()


def test_the_end_of_the_time_queues_the_job_again(cluster: Cluster, folder: Path) -> None:
    """SLURM looks at the clock once a minute: the signal comes one to two minutes after the start."""
    change(folder, **TINY | {"pretrain__epochs": 100 * EPOCHS})
    job = cluster.submit(REQUEUE, *TRAIN, folder=folder, options=("--time=3", "--signal=USR1@60"))
    try:
        until(lambda: "pretrain: stopped by SIGUSR1 at step " in said_if_any(folder), 240)
        until(lambda: "pretrain: goes on from step " in said(folder), 240)
    finally:
        cluster.command("scancel", job)
    until(lambda: not running(folder), WITHIN)


def said_if_any(folder: Path) -> str:
    return said(folder) if (folder / "said").exists() else ""


def test_an_error_queues_no_job_again(cluster: Cluster, folder: Path) -> None:
    change(folder, **TINY | {"pretrain__batch_size": 2000})
    job = cluster.submit(REQUEUE, *TRAIN, folder=folder)
    assert cluster.end(job) == "FAILED"
    assert "pretrain: error: params.yaml: pretrain.batch_size = 2000 is not allowed" in said(folder)
    assert half_written(folder) == []


def test_dvc_that_srun_starts_on_both_nodes_is_refused(cluster: Cluster, folder: Path) -> None:
    """At least once: here the nodes are one machine, so that DVC's own lock may refuse the other."""
    (folder / "twice").write_text('#!/bin/bash\nsrun dvc "$@"\n')
    job = cluster.submit("twice", *TRAIN, folder=folder)
    assert cluster.end(job) == "FAILED"
    assert "pretrain: error: srun has started this command 2 times; give it once" in said(folder)
    assert not (folder / ENCODER).exists()


def test_a_folder_that_the_second_node_lacks_is_named(cluster: Cluster, folder: Path) -> None:
    within = ("nsenter", "--mount", f"--target={cluster.slurmd()}")
    cluster.command(*within, "mount", "-t", "tmpfs", "none", str(folder))
    try:
        job = cluster.submit(RUN, *TRAIN, folder=folder)
        assert cluster.end(job) == "FAILED"
    finally:
        cluster.command(*within, "umount", str(folder))
    assert f"pretrain: error: node n2 lacks {folder}/runs/.nodes-" in said(folder)
    assert ": all nodes of a job need the same folder, as of a shared disk" in said(folder)
    assert half_written(folder) == []


def fill(disk: Path) -> None:
    """Leave no room on a disk."""
    with (disk / "fill").open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_a_shared_disk_that_is_full_is_named_and_the_next_job_goes_on(
    cluster: Cluster, whole: Path, folder: Path, tmp_path: Path
) -> None:
    shared = shutil.copytree(folder, cluster.disk / "repository", symlinks=True)
    elsewhere = (f"--output={tmp_path}/said",)
    job = cluster.submit(REQUEUE, *TRAIN, folder=shared, options=elsewhere)
    await_checkpoint(shared)

    def ends_of_a_full_disk() -> bool:
        fill(cluster.disk)  # again and again: an old checkpoint may have made room when it was removed
        return cluster.state(job) not in ("RUNNING", "COMPLETING")

    until(ends_of_a_full_disk, WITHIN)
    assert cluster.state(job) == "FAILED"
    assert re.search(r"pretrain: error: \S+: cannot be written \(No space left on device\)\n", said(tmp_path))
    assert not (shared / ENCODER).exists()
    (cluster.disk / "fill").unlink()
    (shared / ".dvc/tmp/rwlock").unlink(missing_ok=True)  # DVC may have had no room for it either
    assert half_written(shared / "runs") == []
    job = cluster.submit(RUN, *TRAIN, folder=shared, options=elsewhere)
    assert cluster.end(job) == "COMPLETED", said(tmp_path)
    assert "pretrain: goes on from step " in said(tmp_path)
    assert (shared / ENCODER).read_bytes() == (whole / ENCODER).read_bytes()


def test_a_lost_node_ends_the_step_and_another_job_goes_on_when_it_is_back(
    cluster: Cluster, whole: Path, folder: Path
) -> None:
    job = cluster.submit(REQUEUE, *TRAIN, folder=folder)
    await_checkpoint(folder)
    cluster.lose()
    until(lambda: cluster.state(job) != "RUNNING", 3 * WITHIN)
    until(lambda: not running(folder), WITHIN)
    assert not (folder / ENCODER).exists()
    # srun ends when SLURM takes the node for dead, which ends the job too: the stage may have no time left for its line
    own_line = "pretrain: error: node 1 of the step's 2, counted from 0, ended without a word"
    assert own_line in said(folder) or "DUE TO NODE FAILURE" in said(folder)
    cluster.recover()  # cancels the job too, which SLURM may have queued again
    job = cluster.submit(RUN, *TRAIN, folder=folder)
    assert cluster.end(job) == "COMPLETED", said(folder)
    assert "pretrain: goes on from step " in said(folder)
    assert (folder / ENCODER).read_bytes() == (whole / ENCODER).read_bytes()


def test_a_job_that_slurm_queues_again_is_not_refused_by_the_lock_of_its_attempt_before(
    cluster: Cluster, whole: Path, folder: Path
) -> None:
    job = cluster.submit(REQUEUE, *TRAIN, folder=folder)
    await_checkpoint(folder)
    cluster.lose()
    until(lambda: cluster.state(job) == "PENDING", 3 * WITHIN)
    until(lambda: not running(folder), WITHIN)
    # as on another node, where any process may have the number of the dvc that ended
    (folder / f".dvc/tmp/job-{job}").write_text("1\n")
    locked = {"write": {str(folder / ENCODER): {"pid": 1, "cmd": "dvc repro"}}, "read": {}}
    (folder / ".dvc/tmp/rwlock").write_text(json.dumps(locked))
    cluster.await_silence()
    cluster.start_second()
    assert cluster.end(job) == "COMPLETED", said(folder)
    assert "job-dvc: .dvc/tmp/rwlock: removed what this job's attempt before has left" in said(folder)
    assert "pretrain: goes on from step " in said(folder)
    assert (folder / ENCODER).read_bytes() == (whole / ENCODER).read_bytes()


def test_a_killed_slurmd_alone_does_no_harm(cluster: Cluster, whole: Path, folder: Path) -> None:
    job = cluster.submit(REQUEUE, *TRAIN, folder=folder)
    await_checkpoint(folder)
    os.kill(cluster.slurmd(), 9)
    time.sleep(3)
    cluster.start_second()
    assert cluster.end(job) == "COMPLETED", said(folder)
    assert (folder / ENCODER).read_bytes() == (whole / ENCODER).read_bytes()


def test_a_node_that_never_comes_is_an_error_of_one_line(cluster: Cluster, folder: Path) -> None:
    (folder / "wait").write_text('#!/bin/bash\ntouch begun\nuntil [ -e go ]; do sleep 0.2; done\ndvc "$@"\n')
    job = cluster.submit("wait", *TRAIN, folder=folder)
    until((folder / "begun").exists)
    os.kill(cluster.slurmd(), 9)
    (folder / "go").touch()
    until(lambda: cluster.state(job) != "RUNNING", 3 * WITHIN)
    assert "pretrain: error: the job's nodes cannot be used together: srun: error: " in said(folder)
    until(lambda: not running(folder), WITHIN)


def test_a_sweep_runs_an_experiment_for_each_value(cluster: Cluster, folder: Path) -> None:
    change(folder, **TINY)
    job = cluster.submit(SWEEP, "-S", "embed.map_perplexity=4.0", folder=folder, nodes=1)
    ended = ["COMPLETED"] * 3
    until(lambda: [cluster.state(f"{job}_{task}") for task in range(3)] == ended, 900)
    names = cluster.command("git", "for-each-ref", "--format=%(refname)", "refs/exps", folder=folder)
    for value in ("0.1", "0.2", "0.5"):
        (experiment,) = re.findall(rf"^.*/temperature-{re.escape(value)}$", names, re.MULTILINE)
        parameters = cluster.command("git", "show", f"{experiment}:params.yaml", folder=folder)
        assert f"temperature: {value}\n" in parameters
        assert "map_perplexity: 4.0\n" in parameters
