"""A long time at 70 % of the most: every answer is right, and neither memory nor descriptors grow.

`REMIT_SOAK_SECONDS` says how long (20), `REMIT_SEED` which random choices.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from assurance import assure
from remit_client import World
from remit_process import Remit, copy_folder
from waiting import wait_until

SECONDS = float(os.environ.get("REMIT_SOAK_SECONDS", "20"))
SEED = int(os.environ.get("REMIT_SEED", "20261122"))
MAXIMUM_SECONDS = 3 if SECONDS < 60 else 20
SHARE = 0.7
CLIENTS = 2
SAMPLES = 400
# Growth of the second half, by the line that fits its samples best. A page more for every thousand calls would be more
# than that within minutes.
MEMORY_GROWTH = 8 << 20
# Clients come and go between samples.
DESCRIPTOR_GROWTH = 16
# On a machine that has else to do; on a quiet one there are none.
MOST_UNDECIDED = 1 / 1000
EVERY_ANSWER = {"delegated", "revoked", "ALLOWED", "TOKEN_WRONG_HOLDER", "RESOURCE_NOT_GRANTED"}
EVERY_ANSWER |= {"TOKEN_USES_EXHAUSTED", "TOKEN_REVOKED"}
STEADY = Path(__file__).with_name("steady.py")
# Nothing that is kept on purpose goes on growing: the ring of events is full within seconds, and old logs are removed.
BOUNDS = {"REMIT_EVENTS_RING": "4096", "REMIT_AUDIT_ROTATE_BYTES": str(8 << 20), "REMIT_AUDIT_KEEP": "2"}


class Clients:
    """Processes that call, together so often a second; 0 is as often as they can."""

    def __init__(self, world, calls_a_second, seconds):
        stubs = Path(__file__).resolve().parents[2] / ".cache" / "stubs"
        environment = os.environ | {"PYTHONPATH": str(stubs)}
        arguments = [str(world.remit.folder), str(world.remit.ports["grpc"]), str(calls_a_second / CLIENTS), str(seconds)]
        self.processes = [
            subprocess.Popen([sys.executable, STEADY, *arguments, str(SEED + number)], env=environment, stdout=subprocess.PIPE)
            for number in range(CLIENTS)
        ]

    def are_running(self):
        return all(process.poll() is None for process in self.processes)

    def reports(self):
        reports = [json.loads(process.communicate()[0]) for process in self.processes]
        assert [process.returncode for process in self.processes] == [0] * CLIENTS
        wrong = [what for report in reports for what in report["wrong"]]
        assert not wrong, wrong
        return reports


def rate(reports):
    return sum(report["calls"] / report["seconds"] for report in reports)


def memory(process):
    """What is resident, in bytes."""
    return int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors(process):
    return len(os.listdir(f"/proc/{process.pid}/fd"))


def growth(samples):
    """Over all of these (moment, value), by the line that fits them best."""
    moments, values = zip(*samples)
    return statistics.linear_regression(moments, values).slope * (moments[-1] - moments[0])


def test_a_long_time_at_a_steady_rate(trusting, tmp_path):
    folder = copy_folder(trusting, tmp_path / "dev")
    with Remit(folder, **BOUNDS) as remit, World(remit) as world:
        before = descriptors(remit.process)
        most = rate(Clients(world, 0, MAXIMUM_SECONDS).reports())
        began, samples = time.monotonic(), []
        clients = Clients(world, most * SHARE, SECONDS)
        while clients.are_running():
            samples.append((time.monotonic() - began, memory(remit.process), descriptors(remit.process)))
            time.sleep(SECONDS / SAMPLES)
        reports = clients.reports()
        wait_until(lambda: descriptors(remit.process) <= before, "what the clients had open is closed")
    half = len(samples) // 2
    assert half > SAMPLES / 4
    grown = growth([(moment, size) for moment, size, _ in samples[half:]])
    opened = [max(opened for _, _, opened in part) for part in (samples[:half], samples[half:])]
    held = samples[half][1]
    assert grown <= MEMORY_GROWTH, f"{grown} bytes more in the second half; in the middle there were {held}"
    assert opened[1] <= opened[0] + DESCRIPTOR_GROWTH, f"open descriptors in the first and the second half: {opened}"
    answers = sum((Counter(report["answers"]) for report in reports), Counter())
    assert EVERY_ANSWER <= set(answers), answers
    undecided = sum(report["undecided"] for report in reports)
    assert undecided <= answers.total() * MOST_UNDECIDED, answers
    assure(
        "soak",
        calls=answers.total(),
        wrong_answers=0,
        refused_for_want_of_time=undecided,
        calls_a_second=round(rate(reports)),
        most_calls_a_second=round(most),
        answers=answers,
        resident_mib=round(held / 2**20, 1),
        grown_in_the_second_half_mib=round(grown / 2**20, 2),
        descriptors=opened[1],
        seed=SEED,
        seconds=round(time.monotonic() - began, 1),
    )
