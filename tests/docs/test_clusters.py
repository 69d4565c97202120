"""
The Slurm script of docs/clusters.md trains on two nodes, is queued again when Slurm wants them back, and goes on.

Slurm's own commands are stand-ins: srun starts its command once for each of two nodes, both this machine, with one rank
on each; scontrol names the head node, and writes down what is queued again. What Slurm itself does at preemption is not
tried here: as its manual says, it sends SIGTERM to every process of the step, torchrun and DataLoader workers included.
"""
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.pages import PAGES, blocks, commands, parse_command
from support.places import ROOT
from support.runs import metrics
from torture.job import difference

import train

SCRIPT, = (content for kind, content in blocks(PAGES["docs/clusters.md"]) if kind == "bash")
SMALL = ["--data", "toyworld", "--zero-shot", "toyworld-novel", "--device", "cpu", "--threads", "1", "--workers", "1",
         "--epochs", "2", "--batch", "16", "--layers", "1", "--log-every", "1", "--eval-every", "2"]
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do
    case $1 in --output=*) log=${1#*=};; esac
    shift
done
for node in 0 1; do
    "$@" >>"$log" 2>&1 &
    nodes="$nodes $!"
done
echo $nodes >nodes
for node in $nodes; do
    wait $node || status=$?
done
exit ${status:-0}
"""
SCONTROL = """#!/bin/bash
case "$1 $2" in
    "show hostnames") printf 'localhost\\nlocalhost\\n';;
    *) echo "$@" >>queued-again;;
esac
"""


@pytest.fixture
def cluster(world, tmp_path):
    """A folder with the script and the stand-ins, and the environment that Slurm gives a job of two nodes."""
    (tmp_path / "bin").mkdir()
    for name, text in {"srun": SRUN, "scontrol": SCONTROL}.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "train.sbatch").write_text(SCRIPT)
    (tmp_path / "train.py").symlink_to(ROOT / "train.py")
    path = os.pathsep.join([str(tmp_path / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1",
                   "SLURM_JOB_ID": job_id(), "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_NNODES": "2",
                   "SLURM_GPUS_ON_NODE": "1", "SLURM_CPUS_PER_TASK": "1"}
    return tmp_path, environment


def job_id() -> str:
    """The number of a job whose port, as the script computes it, is free."""
    for port in range(20000 + os.getpid() % 10000, 30000):
        with contextlib.suppress(OSError), socket.socket() as free:
            free.bind(("", port))
            return str(port)
    raise OSError("no free port")


def start(cluster, run: str, restarts: str = "0", flags: tuple[str, ...] = ()) -> subprocess.Popen:
    folder, environment = cluster
    command = ["bash", "train.sbatch", *SMALL, "--out", run, *flags]
    return subprocess.Popen(command, cwd=folder, start_new_session=True,
                            env={**environment, "SLURM_RESTART_COUNT": restarts})


def finish(process: subprocess.Popen) -> int:
    try:
        return process.wait(120)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def log(cluster, restarts: str = "0") -> str:
    folder, environment = cluster
    file = folder / f"mote-{environment['SLURM_JOB_ID']}-{restarts}.log"
    return file.read_text() if file.exists() else ""


def wait_for(text: str, cluster, restarts: str, process: subprocess.Popen) -> None:
    while text not in log(cluster, restarts):
        assert process.poll() is None, log(cluster, restarts)
        time.sleep(0.02)


def processes_of(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += processes_of(int(child))
    return found


def torchruns(cluster) -> list[int]:
    """The process of torchrun on each node."""
    return [int(pid) for pid in (cluster[0] / "nodes").read_text().split()]


# --- as it is written -----------------------------------------------------------------------------
def test_bash_can_read_the_script_and_sbatch_its_options():
    done = subprocess.run(["bash", "-n"], input=SCRIPT, text=True, capture_output=True)
    assert done.returncode == 0 and done.stderr == ""
    lines = SCRIPT.splitlines()
    assert lines[0] == "#!/bin/bash"
    options = [i for i, line in enumerate(lines) if line.startswith("#SBATCH ")]
    first = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    assert max(options) < first                                  # sbatch stops looking at the first command


def test_the_options_that_the_page_gives_to_sbatch_are_those_of_train_py():
    given = [command for command in commands(PAGES["docs/clusters.md"]) if command.startswith("sbatch ")]
    for command in given:
        _, _, script, args = parse_command(command.replace("sbatch", "python", 1))
        assert script == "train.sbatch" and train.parse_config(args).out


# --- as it runs -----------------------------------------------------------------------------------
@pytest.mark.slow
def test_two_nodes_train_as_one_run_and_a_run_that_ends_is_not_queued_again(cluster):
    folder, _ = cluster
    assert finish(start(cluster, "RUN")) == 0, log(cluster)
    printed = log(cluster)
    assert "2 x cpu" in printed and printed.count("step 10/10") == 1         # one of the two ranks prints
    assert [line["step"] for line in metrics(folder / "RUN")] == [10, 10]    # two datasets
    assert not (folder / "queued-again").exists()


@pytest.mark.slow
def test_a_job_that_gets_sigterm_saves_is_queued_again_and_ends_bit_for_bit_as_if_it_had_not(cluster):
    folder, environment = cluster
    process = start(cluster, "RUN")
    wait_for("\nstep 2/", cluster, "0", process)
    for torchrun in torchruns(cluster):
        for pid in processes_of(torchrun):
            os.kill(pid, signal.SIGTERM)
    assert finish(process) != 0
    assert log(cluster).count("saved at step") == 1
    assert (folder / "queued-again").read_text() == f"requeue {environment['SLURM_JOB_ID']}\n"

    assert finish(start(cluster, "RUN", "1")) == 0, log(cluster, "1")
    saved = re.search(r"saved at step (\d+)", log(cluster))[1]
    assert f"from step {saved};" in log(cluster, "1")
    assert finish(start(cluster, "OTHER", "2")) == 0, log(cluster, "2")
    assert difference(folder / "RUN", folder / "OTHER") == ""
    assert (folder / "queued-again").read_text().count("requeue") == 1


@pytest.mark.slow
def test_a_rank_that_dies_on_one_node_has_all_ranks_go_on_within_the_job(cluster):
    folder, _ = cluster
    process = start(cluster, "RUN")
    wait_for("\nstep 6/", cluster, "0", process)                 # step 5 is saved: an epoch's end
    rank = processes_of(torchruns(cluster)[1])[1]
    os.kill(rank, signal.SIGKILL)
    assert finish(process) == 0, log(cluster)
    assert "from step 5;" in log(cluster) and not (folder / "queued-again").exists()
    assert finish(start(cluster, "OTHER", "1")) == 0, log(cluster, "1")
    assert difference(folder / "RUN", folder / "OTHER") == ""


@pytest.mark.slow
def test_a_mistake_in_the_options_is_not_queued_again(cluster):
    assert finish(start(cluster, "RUN", flags=("--batch", "15"))) != 0
    assert "must be a multiple of ranks x accumulation" in log(cluster)
    assert not (cluster[0] / "queued-again").exists()
