import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from executor.saved import found
from planner.commands.output import to_json
from planner.plan import plan_json
from planner.record import read
from planner.strategy import Choices
from tests.executor.runs import plan

STEPS = 60
PATIENCE = 90.0  # s


def node(root, out, port, plan_file):
    """The agent of one of two nodes with one rank each."""
    with (out.parent / f"{port}-{time.monotonic_ns()}.log").open("w", encoding="utf-8") as log:
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"),
                *("--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "test"),
                *("--local-addr", "127.0.0.1", "--max-restarts", "3", "--monitor-interval", "0.1"),
                *("-m", "executor.commands.run", str(plan_file), "--out", str(out), "--steps", str(STEPS)),
                *("--checkpoint-every", "5", "--hidden", "32", "--layers", "2", "--seq-len", "32", "--json"),
            ],
            cwd=root,
            env={**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def workers(agent):
    """Process ids of an agent's ranks."""
    return [int(pid) for pid in Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text("ascii").split()]


def wait_for(what):
    """Until `what` is true; the test fails when that takes too long."""
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the ranks in /proc")
def test_two_nodes_train_together_and_survive_a_killed_rank(root, tmp_path):
    """torchrun on two nodes of loopback; kill -9 of a rank: both agents start again from the checkpoint and finish."""
    plan_file, out = tmp_path / "plan.json", tmp_path / "out"
    plan_file.write_text(to_json(plan_json(plan("llama3.1-8b", choices=Choices(zero=2)))), encoding="utf-8")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    nodes = [node(root, out, port, plan_file) for _ in range(2)]
    try:
        wait_for(lambda: found(out / "checkpoints"))
        os.kill(workers(nodes[1])[0], signal.SIGKILL)
        wait_for(lambda: all(agent.poll() is not None for agent in nodes))
    finally:
        for agent in nodes:
            agent.terminate()
            agent.wait(60)
    assert [agent.returncode for agent in nodes] == [0, 0]
    record = read(out / "record.json")
    resumed = record.provenance["resumed_from"]
    assert record.ranks == 2
    assert resumed >= 5
    assert [step.step for step in record.steps] == list(range(resumed + 1, STEPS + 1))
    printed = [text for log in tmp_path.glob("*.log") if (text := log.read_text("utf-8")).strip().endswith("}")]
    assert json.loads(printed[0][printed[0].index("\n{") :]) == json.loads(to_json(record.to_json()))
