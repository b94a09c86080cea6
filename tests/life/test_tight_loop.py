"""One agent in a tight loop, and what the others notice of it.

On a machine where client, loop and server share the cores, others get slower by the loop's own work, whoever it asks. So
the same loop at the same pace asks a second server first: what the others of the first one lose then is the machine's
share, and only what they lose beyond it when the loop asks their own server is Remit's.
"""

import json
import os
import statistics
import time
from pathlib import Path

import pytest
from conftest import cannot
from malfunctioning import Malfunctioning
from remit_client import World, reason
from remit_process import Remit, copy_folder
from seed_policy import ANALYST, COORDINATOR, DEPLOYER, deployer_token
from test_detection import with_policy
from waiting import wait_until

ROUNDS = int(os.environ.get("REMIT_TIGHT_LOOP_ROUNDS", "1"))
SECONDS = float(os.environ.get("REMIT_TIGHT_LOOP_SECONDS", "0.5"))
# The kernel spreads connections over the server's threads: with these, some share the loop's and some don't.
CONNECTIONS = 4
PAUSE = 0.002
# Slower than a loop is on any machine.
LIMITED = {"authorize": {"per_second": 10, "burst": 10}}
WIDE = {"authorize": {"per_second": 1_000_000, "burst": 1_000_000}}
USES = 4_000_000_000
COUNT = 'remit_decision_duration_seconds_count{verb="authorize"}'
SUM = 'remit_decision_duration_seconds_sum{verb="authorize"}'


def percentile(times, part):
    return sorted(times)[int(len(times) * part)] * 1000


def cpu_seconds(remit):
    """What all threads of the server have run for, to the nanosecond; no thread of it ends while it serves."""
    tasks = Path(f"/proc/{remit.process.pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def waits(remit):
    """How long the server's threads had work and no core, and how often they got one."""
    tasks = Path(f"/proc/{remit.process.pid}/task").iterdir()
    read = [(task / "schedstat").read_text().split() for task in tasks]
    return sum(int(waited) for _, waited, _ in read), sum(int(turns) for _, _, turns in read)


class Others:
    """Well-behaved agents of one server, over some connections."""

    def __init__(self, world):
        self.world = world
        self.token = world[COORDINATOR].delegate(ANALYST, ["read_file"], ["/data/*"]).token

    def ask(self, goes_on):
        """How long each answer took, what the server says that deciding took, and how long it had to wait for a core."""
        clients = [self.world.fresh(ANALYST) for _ in range(CONNECTIONS)]
        for client in clients:
            self.one(client)
        before, (waited, turns), times = self.world.remit.metrics(), waits(self.world.remit), []
        while not times or goes_on():
            for client in clients:
                began = time.monotonic()
                self.one(client)
                times.append(time.monotonic() - began)
                time.sleep(PAUSE)
        after, (waited_then, turns_then) = self.world.remit.metrics(), waits(self.world.remit)
        for client in clients:
            client.close()
        decided = after[COUNT] - before[COUNT]
        return {
            "asked": len(times),
            "p50_ms": percentile(times, 0.5),
            "p99_ms": percentile(times, 0.99),
            "wait_for_a_core_us": (waited_then - waited) / (turns_then - turns) / 1e3,
            "server_mean_us": (after[SUM] - before[SUM]) / decided * 1e6,
        }

    def one(self, client):
        answer = client.authorize("read_file", "/data/x", self.token, dry_run=True)
        assert reason(answer) == "ALLOWED", "others are answered as ever"


@pytest.fixture(autouse=True)
def scheduler():
    if not Path("/proc/self/schedstat").exists():
        cannot("the system doesn't say how long a thread ran and waited")


@pytest.fixture
def two(serve, folder, tmp_path):
    """Two servers alike: that of the others, and one beside it."""
    with_policy(folder, rate_limits=LIMITED)
    beside = copy_folder(folder, tmp_path / "beside")
    with Remit(beside, is_dev=False) as remit, World(remit) as elsewhere:
        yield serve(is_dev=False), elsewhere


@pytest.mark.parametrize("per_second", [None, 2000], ids=["unlimited", "paced"])
def test_others_notice_a_loop_no_more_than_one_that_asks_another_server(two, per_second):
    here, elsewhere = two
    others = Others(here)
    rounds = {"quiet": [], "loop_elsewhere": [], "loop_here": []}
    pace = {"loop_elsewhere": [], "loop_here": []}

    def quiet():
        end = time.monotonic() + SECONDS
        rounds["quiet"].append(others.ask(lambda: time.monotonic() < end))

    def with_loop(name, world):
        token = deployer_token(world).token
        meanwhile = lambda goes_on: rounds[name].append(others.ask(goes_on))  # noqa: E731
        told = malfunctioning.loop(world, DEPLOYER, token, SECONDS, meanwhile, per_second=per_second)
        assert told["order"][0] == "ALLOWED" and "RATE_LIMITED" in told["order"], told
        assert set(told["counts"]) == {"ALLOWED", "TOKEN_USES_EXHAUSTED", "RATE_LIMITED"}, told
        pace[name].append(told["per_second"])

    steps = [quiet, lambda: with_loop("loop_elsewhere", elsewhere), lambda: with_loop("loop_here", here)]
    with Malfunctioning() as malfunctioning:
        for number in range(ROUNDS):
            # Whatever else the machine does, and which step comes first, meets all of them alike.
            for step in steps[number % 3 :] + steps[: number % 3]:
                step()
    limited = 'remit_decisions_total{reason="RATE_LIMITED",result="denied",verb="authorize"}'
    for world in two:
        assert world.remit.metrics()[limited] > 0
    figures = {"what": f"tight loop, {per_second or 'as fast as it goes'} a second", "rounds": ROUNDS, "seconds": SECONDS}
    figures["loop_per_second"] = {name: round(statistics.median(paces)) for name, paces in pace.items()}
    for key in ("asked", "p50_ms", "p99_ms", "wait_for_a_core_us", "server_mean_us"):
        figures[key] = {name: round(statistics.median(one[key] for one in told), 2) for name, told in rounds.items()}
    print("ASSURE", json.dumps(figures))


def test_what_an_answer_costs_the_server(serve, folder):
    """The CPU time of the whole server for one answer, by kind: that of a refusal for the rate among them."""
    rules = json.loads((folder / "policy.json").read_text())["delegation_rules"]
    rules[COORDINATOR]["trusted_pairs"] = [DEPLOYER]
    with_policy(folder, delegation_rules=rules, token={"max_uses_trusted_pair": USES}, rate_limits=WIDE)
    world = serve(is_dev=False)
    cost = {}

    def loop(kind, token, wanted, **how):
        spent = [cpu_seconds(world.remit)]

        def until_it_ends(goes_on):
            while goes_on():
                time.sleep(0.02)
            spent.append(cpu_seconds(world.remit))

        told = malfunctioning.loop(world, DEPLOYER, token, SECONDS, until_it_ends, **how)
        assert max(told["counts"], key=told["counts"].get) == wanted, told
        asked = sum(told["counts"].values())
        cost.setdefault(kind, []).append((spent[1] - spent[0]) / asked * 1e6)
        # So many ALLOWs are as many lines: where the disk is slow, nothing is granted until it has them.
        wait_until(lambda: world.remit.http("/readyz")[0] == 200, "the log is well", 20)

    def follows(limits):
        revision = world.administrator().status().policy_revision
        with_policy(folder, rate_limits=limits)
        wait_until(lambda: world.administrator().status().policy_revision > revision, "the new policy is in force")

    with Malfunctioning() as malfunctioning:
        for _ in range(ROUNDS):
            token, once = (deployer_token(world, max_uses=uses).token for uses in (USES, 1))
            loop("allowed", token, "ALLOWED")
            loop("allowed_dry", token, "ALLOWED", dry_run=True)
            loop("exhausted", once, "TOKEN_USES_EXHAUSTED")
            follows({"authorize": {"per_second": 1, "burst": 1}})
            loop("limited", token, "RATE_LIMITED")
            world["ops-admin"].revoke(agent=DEPLOYER, quarantine=True)
            loop("quarantined", token, "AGENT_QUARANTINED")
            world["ops-admin"].reinstate(DEPLOYER)
            follows(WIDE)
    lines = [line for line in world.remit.audit() if line["reason"] == "RATE_LIMITED"]
    assert len(lines) <= ROUNDS * (SECONDS + 3) * 2, "two lines a second at most, whatever it asks"
    figures = {kind: round(statistics.median(costs), 1) for kind, costs in cost.items()}
    print("ASSURE", json.dumps({"what": "CPU µs of the server for an answer"} | figures))
