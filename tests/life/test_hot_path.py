"""What a decision asks of the kernel: the socket, and nothing else."""

import collections
import re
import subprocess
from pathlib import Path

import pytest
from conftest import cannot
from otlp import Collector
from remit_client import reason
from seed_policy import DEPLOYER, deployer_token
from test_durability import strace, trust_deployer
from waiting import wait_until

CALLS = 600
# Reading and writing the socket, waiting for it, and sleeping until another thread has work.
TRANSPORT = {"epoll_wait", "epoll_pwait", "recvfrom", "sendto", "read", "write", "readv", "writev", "futex"}
# Memory that is taken or given back now and then, and the scheduler.
NOW_AND_THEN = {"mmap", "munmap", "madvise", "mprotect", "brk", "sched_yield", "rt_sigreturn", "restart_syscall"}


def answering(remit):
    """The threads that answer requests."""
    tasks = Path(f"/proc/{remit.process.pid}/task").iterdir()
    return [task.name for task in tasks if Path(task, "comm").read_text().startswith("remit-grpc")]


@pytest.fixture(params=["alone", "with a collector"])
def telemetry(request):
    """Settings; events that leave for a collector leave from another thread."""
    if request.param == "alone":
        yield {}
        return
    with Collector() as collector:
        yield {"REMIT_TELEMETRY_OTLP_ENDPOINT": collector.url}


def test_a_decision_makes_no_system_call_but_the_sockets(telemetry, serve, folder, tmp_path):
    trust_deployer(folder)
    world = serve(REMIT_STATE_BACKEND="memory", **telemetry)
    client = world[DEPLOYER]
    tokens = [deployer_token(world, max_uses=5).token for _ in range(CALLS // 5)]
    assert reason(client.authorize("kubectl_get", "prod/web", deployer_token(world).token)) == "ALLOWED"
    threads, log = answering(world.remit), tmp_path / "calls"
    assert threads
    command = [strace(), "-q", "-o", log, *(part for thread in threads for part in ("-p", thread))]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:

        def attached():
            if tracer.poll() is not None:
                cannot(f"strace can't attach: {tracer.stderr.read()}")
            status = [Path(f"/proc/{world.remit.process.pid}/task/{thread}/status").read_text() for thread in threads]
            return all(f"TracerPid:\t{tracer.pid}" in text for text in status)

        wait_until(attached, "strace is attached")
        for token in tokens:
            for _ in range(5):
                assert reason(client.authorize("kubectl_get", "prod/web", token)) == "ALLOWED"
    finally:
        tracer.terminate()
        tracer.wait()
    counted = collections.Counter(re.findall(r"^(?:\d+ +)?([a-z0-9_]+)\(", log.read_text(), re.MULTILINE))
    assert counted["sendto"] + counted["writev"] + counted["write"] >= CALLS, "the answers were seen"
    rare = {name: count for name, count in counted.items() if name not in TRANSPORT}
    assert set(rare) <= NOW_AND_THEN and sum(rare.values()) < CALLS / 10, counted
    assert counted["futex"] < CALLS / 10, f"a decision wakes nobody: {counted}"
    assert sum(counted.values()) < 8 * CALLS, f"so many for {CALLS} decisions: {counted}"
