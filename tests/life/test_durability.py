"""The state directory: what survives an end, what does not, and what a disk that fails does."""

import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

import grpc
import pytest
import seed_token
from assurance import assure
from conftest import REPOSITORY, cannot
from remit_client import Refused, authorize_request, delegate_request, pb, reason, refused
from remit_process import ANY_PORT, binary, environment
from replay import replay
from seed_policy import ANALYST, COORDINATOR, DEPLOYER, VALIDATOR, WRITER, deployer_token, validator_token
from waiting import wait_until

ROUNDS = int(os.environ.get("REMIT_KILLS", "5"))
# The longest that a load runs before its kill.
LOAD_SECONDS = float(os.environ.get("REMIT_KILL_SECONDS", "1.2"))
BACKENDS = ["memory", "journal"]
USES = 5
BATCH = 100
ROOT = (DEPLOYER, ["kubectl_get"], ["prod/*"])
OF_A_ROOT = {"max_uses": USES, "delegatable": True, "ttl": 120}
LOSSES = ("double_spends", "lost_revocations", "lost_quarantines")


def get(world, token, agent=DEPLOYER):
    return reason(world[agent].authorize("kubectl_get", "prod/web", token))


def trust_deployer(folder):
    """More than one use for the deployer."""
    path = Path(folder) / "policy.json"
    policy = json.loads(path.read_text())
    policy["delegation_rules"][COORDINATOR]["trusted_pairs"] = [DEPLOYER]
    path.write_text(json.dumps(policy))


def do_not_limit(folder):
    """As many requests as a load can send."""
    path = Path(folder) / "policy.json"
    policy = json.loads(path.read_text())
    limit = {"per_second": 100_000, "burst": 100_000}
    policy["rate_limits"] = {"authorize": limit}
    policy["delegation_rules"][COORDINATOR]["rate_limit"] = limit
    path.write_text(json.dumps(policy))


def restart(world, how="kill"):
    world.close()
    if how == "kill":
        world.remit.kill()
    else:
        assert world.remit.stop() == 0
    world.remit.start()


# Orderly ends and crashes.


@pytest.mark.parametrize("backend", BACKENDS)
def test_tokens_live_through_an_orderly_restart(serve, folder, backend):
    trust_deployer(folder)
    world = serve(REMIT_STATE_BACKEND=backend)
    token = deployer_token(world, max_uses=3, delegatable=True).token
    spent = deployer_token(world).token
    child = world[DEPLOYER].delegate(VALIDATOR, ["kubectl_get"], ["prod/web"], parent=token).token
    assert get(world, token) == get(world, spent) == "ALLOWED"
    fence = world.administrator().status().fence
    restart(world, "stop")

    assert world.administrator().status().fence == fence, "the saved fence stays"
    assert get(world, spent) == "TOKEN_USES_EXHAUSTED"
    assert [get(world, token) for _ in range(2)] == ["ALLOWED", "TOKEN_USES_EXHAUSTED"]
    assert [get(world, child, VALIDATOR) for _ in range(2)] == ["ALLOWED", "TOKEN_USES_EXHAUSTED"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_batch_spends_in_its_order_and_a_crash_brings_nothing_back(serve, backend):
    world = serve(REMIT_STATE_BACKEND=backend)
    tokens = [deployer_token(world).token for _ in range(40)]
    asked = [authorize_request("kubectl_get", "prod/web", token) for token in tokens for _ in range(2)]
    answers = [reason(answer) for answer in world[DEPLOYER].batch_authorize(asked)]
    assert answers == ["ALLOWED", "TOKEN_USES_EXHAUSTED"] * 40, "the first of two is the one that is allowed"
    restart(world)
    wanted = "TOKEN_USES_EXHAUSTED" if backend == "journal" else "TOKEN_FENCED"
    assert {get(world, token) for token in tokens} == {wanted}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_start_that_fails_costs_no_tokens(serve, folder, backend):
    world = serve(REMIT_STATE_BACKEND=backend)
    token = deployer_token(world).token
    world.close()
    assert world.remit.stop() == 0
    policy = folder / "policy.json"
    good = policy.read_text()

    def fails(why):
        with pytest.raises(AssertionError, match=why):
            world.remit.start()
        world.remit.process = None

    policy.write_text(good.replace("{", "", 1))
    fails("the policy can't be used")
    policy.write_text(good)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        world.remit.settings["REMIT_GRPC_LISTEN"] = f"127.0.0.1:{taken.getsockname()[1]}"
        fails("can't be listened on")
    del world.remit.settings["REMIT_GRPC_LISTEN"]
    world.remit.start()
    assert [get(world, token) for _ in range(2)] == ["ALLOWED", "TOKEN_USES_EXHAUSTED"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_was_revoked_stays_so_after_an_orderly_restart(serve, backend):
    world = serve(REMIT_STATE_BACKEND=backend)
    root, child = validator_token(world)
    whole = deployer_token(world).token
    world[COORDINATOR].revoke(token=root.token)
    world["ops-admin"].revoke(agent=DEPLOYER)
    later = deployer_token(world).token
    restart(world, "stop")
    assert get(world, root.token) == get(world, whole) == "TOKEN_REVOKED"
    assert get(world, child.token, VALIDATOR) == "TOKEN_REVOKED"
    assert get(world, later) == "ALLOWED", "what came after the revocation lives"


def test_a_quarantine_while_nothing_runs_ends_the_tokens_of_before(serve, folder):
    world = serve()
    token = deployer_token(world).token
    world.close()
    assert world.remit.stop() == 0
    path = folder / "policy.json"
    before = path.read_text()
    path.write_text(json.dumps(json.loads(before) | {"quarantined": [DEPLOYER]}))
    world.remit.start()
    assert get(world, token) == "AGENT_QUARANTINED"
    path.write_text(before)
    wait_until(lambda: get(world, token) != "AGENT_QUARANTINED", "the file lifts it")
    assert get(world, token) == "TOKEN_REVOKED"


@pytest.mark.parametrize("backend", BACKENDS)
def test_quarantine_and_reinstatement_survive_kill_9(serve, backend):
    world = serve(REMIT_STATE_BACKEND=backend)
    ops = world["ops-admin"]
    ops.revoke(agent=ANALYST, quarantine=True)
    ops.revoke(agent=WRITER, quarantine=True)
    ops.reinstate(ANALYST)
    revision = ops.revoke(agent=DEPLOYER).state_revision
    restart(world)
    with refused("AGENT_QUARANTINED"):
        world[COORDINATOR].delegate(WRITER, ["write_file"], ["/data/*"])
    world[COORDINATOR].delegate(ANALYST, ["read_file"], ["/data/*"])
    status = world.administrator().status()
    assert (status.quarantined_agents, status.state_revision) == (1, revision)


def test_a_journal_keeps_tokens_through_kill_9(serve, folder):
    trust_deployer(folder)
    world = serve(REMIT_STATE_BACKEND="journal")
    token, spent = deployer_token(world, max_uses=3).token, deployer_token(world).token
    revoked = deployer_token(world)
    assert get(world, token) == get(world, spent) == "ALLOWED"
    world[COORDINATOR].revoke(token_id=revoked.token_id)
    restart(world)
    assert get(world, spent) == "TOKEN_USES_EXHAUSTED"
    assert get(world, revoked.token) == "TOKEN_REVOKED"
    assert [get(world, token) for _ in range(3)] == ["ALLOWED", "ALLOWED", "TOKEN_USES_EXHAUSTED"]


@pytest.mark.parametrize(("backend", "how"), [(backend, how) for backend in BACKENDS for how in ("kill", "stop")])
def test_a_foreign_token_is_not_taken_again_after_a_restart(serve, backend, how):
    world = serve(REMIT_STATE_BACKEND=backend)
    fence = world.administrator().status().fence.seconds
    # One made in the start's own second might have been used before the start.
    wait_until(lambda: int(time.time()) > fence, "the start's second is over")
    spent, unused = (
        seed_token.issue(world.remit.hmac_key(), COORDINATOR, DEPLOYER, ["kubectl_get"], ["prod/*"], task=task)
        for task in ("one", "two")
    )
    assert get(world, spent) == "ALLOWED"
    restart(world, how)
    lives = backend == "journal" or how == "stop"
    assert get(world, spent) == ("TOKEN_USES_EXHAUSTED" if lives else "TOKEN_FENCED")
    assert get(world, unused) == ("ALLOWED" if lives else "TOKEN_FENCED")


def test_a_directory_has_one_process(serve, folder):
    world = serve()
    command = [str(binary()), "serve", "--dev", "--dev-dir", str(folder)]
    second = subprocess.run(command, env=environment(**ANY_PORT), capture_output=True, text=True, timeout=20)
    assert second.returncode == 2
    assert "one process a state directory" in second.stderr and str(world.remit.process.pid) in second.stderr
    assert get(world, deployer_token(world).token) == "ALLOWED", "the first goes on"


def test_a_damaged_file_refuses_to_start_and_says_how_to_go_on(serve, folder):
    world = serve()
    token = deployer_token(world).token
    world["ops-admin"].revoke(agent=WRITER, quarantine=True)
    world.close()
    assert world.remit.stop() == 0
    ledger = folder / "state" / "ledger"
    damaged = bytearray(ledger.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    ledger.write_bytes(damaged)
    with pytest.raises(AssertionError, match="remove it: every live token ends"):
        world.remit.start()
    world.remit.process = None
    ledger.unlink()
    world.remit.start()
    assert get(world, token) == "TOKEN_FENCED"
    assert world.administrator().status().quarantined_agents == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_kill_9_during_an_orderly_stop_gives_nothing_twice(serve, folder, backend):
    trust_deployer(folder)
    world = serve(REMIT_STATE_BACKEND=backend)
    lived = 0
    for _ in range(ROUNDS):
        tokens = [deployer_token(world, max_uses=2).token for _ in range(20)]
        assert {get(world, token) for token in tokens} == {"ALLOWED"}
        world.close()
        world.remit.terminate()
        time.sleep(random.uniform(0, 0.03))
        world.remit.kill()
        world.remit.start()
        answers = [[get(world, token) for _ in range(2)] for token in tokens]
        assert all(both in (["ALLOWED", "TOKEN_USES_EXHAUSTED"], ["TOKEN_FENCED"] * 2) for both in answers), answers
        lived += sum(both[0] == "ALLOWED" for both in answers)
    assert backend == "memory" or lived == 20 * ROUNDS


def test_status_and_metrics_say_how_writing_goes(serve, folder):
    world = serve(REMIT_STATE_BACKEND="journal")
    deployer_token(world)
    status = world.administrator().status()
    assert (status.state_backend, status.state_directory) == ("journal", str(folder / "state"))
    assert (status.ledger_entries, status.state_failures) == (1, 0)
    metrics = world.remit.metrics()
    assert metrics['remit_state_info{backend="journal"}'] == metrics["remit_state_well"] == 1
    assert metrics["remit_state_failures_total"] == 0 and metrics["remit_state_waiting"] <= 1
    assert {path.name for path in (folder / "state").iterdir()} == {"lock", "revocations", "ledger"}
    assert {oct(path.stat().st_mode & 0o777) for path in (folder / "state").iterdir()} == {"0o600"}
    assert (folder / "state").stat().st_mode & 0o077 == 0


# Kill -9 under load.


class Load:
    """Clients that mint, spend, delegate, revoke and quarantine until the server is gone; and what they were told."""

    def __init__(self, world):
        self.world = world
        self.lock = threading.Lock()
        self.tokens = []
        self.quarantined = False
        self.threads = [threading.Thread(target=self._run, args=(work,)) for work in self._works()]

    def _works(self):
        return [self._use] * 2 + [self._use_in_batches] * 2 + [self._revoke, self._quarantine]

    def start(self):
        for thread in self.threads:
            thread.start()

    def join(self):
        for thread in self.threads:
            thread.join(30)
            assert not thread.is_alive()

    def _run(self, work):
        clients = {name: self.world.fresh(name) for name in (COORDINATOR, DEPLOYER, VALIDATOR, "ops-admin")}
        try:
            while True:
                work(clients)
        except Refused as end:
            assert end.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED), end
        finally:
            for client in clients.values():
                client.close()

    def _enter(self, made):
        token = {"root": made, "texts": [(DEPLOYER, made.token)], "allowed": 0, "revoked": False}
        with self.lock:
            self.tokens.append(token)
        return token

    def _use_in_batches(self, clients):
        """Many more uses a second than one by one."""
        minted = clients[COORDINATOR].batch_delegate([delegate_request(*ROOT, **OF_A_ROOT)] * BATCH)
        tokens = [self._enter(result.delegated) for result in minted if result.WhichOneof("result") == "delegated"]
        others = {pb.Reason.Name(result.refused.reason) for result in minted if result.WhichOneof("result") == "refused"}
        assert others <= {"REASON_AUDIT_UNAVAILABLE", "REASON_STATE_UNAVAILABLE"}, others
        if not tokens:
            return
        asked = random.choices(tokens, k=BATCH * (USES - 1))
        for start in range(0, len(asked), BATCH):
            some = asked[start : start + BATCH]
            requests = [authorize_request("kubectl_get", "prod/web", token["root"].token) for token in some]
            for token, answer in zip(some, clients[DEPLOYER].batch_authorize(requests), strict=True):
                token["allowed"] += reason(answer) == "ALLOWED"

    def _use(self, clients):
        made = clients[COORDINATOR].delegate(*ROOT, **OF_A_ROOT)
        token = self._enter(made)
        for _ in range(random.randrange(USES)):
            if token["revoked"]:
                break
            if random.random() < 0.25:
                with contextlib.suppress(Refused) if token["revoked"] else contextlib.nullcontext():
                    child = self._delegate(clients, made.token)
                    if child:
                        token["texts"].append((VALIDATOR, child))
            elif reason(clients[DEPLOYER].authorize("kubectl_get", "prod/web", made.token)) == "ALLOWED":
                token["allowed"] += 1

    def _delegate(self, clients, parent):
        try:
            return clients[DEPLOYER].delegate(VALIDATOR, ["kubectl_get"], ["prod/web"], parent=parent).token
        except Refused as refusal:
            if refusal.reason != "TOKEN_REVOKED":
                raise
            return None

    def _revoke(self, clients):
        time.sleep(0.01)
        with self.lock:
            token = random.choice(self.tokens) if self.tokens else None
        if token:
            clients[COORDINATOR].revoke(token=token["root"].token)
            token["revoked"] = True

    def _quarantine(self, clients):
        time.sleep(0.02)
        clients["ops-admin"].reinstate(WRITER)
        clients["ops-admin"].revoke(agent=WRITER, quarantine=True)
        self.quarantined = True
        time.sleep(30 if random.random() < 0.3 else 0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_kill_9_under_load_brings_nothing_back(serve, folder, backend):
    trust_deployer(folder)
    do_not_limit(folder)
    world = serve(REMIT_STATE_BACKEND=backend)
    began = time.monotonic()
    seen = dict.fromkeys(("tokens", "uses", "allowed_after", "tried_again", *LOSSES), 0)
    for number in range(ROUNDS):
        load = Load(world)
        # It sleeps on purpose: its last word is a quarantine that was answered.
        load.threads.pop()
        ops = world["ops-admin"]
        load.start()
        time.sleep(random.uniform(0.3, LOAD_SECONDS))
        ops.revoke(agent=WRITER, quarantine=True)
        time.sleep(random.uniform(0, 0.1))
        world.remit.kill()
        load.join()
        world.close()
        world.remit.start()
        assert load.tokens
        count(world, load, backend, seen)
        world["ops-admin"].reinstate(WRITER)
        if ROUNDS > 20 and number % 10 == 9:
            print(f"\nPROGRESS {backend}: {number + 1} of {ROUNDS} kills, {seen}", flush=True)
    assure("kill -9", backend=backend, kills=ROUNDS, **seen, seconds=round(time.monotonic() - began, 1))
    assert {name: seen[name] for name in LOSSES} == dict.fromkeys(LOSSES, 0)
    assert backend == "memory" or seen["allowed_after"] > 0, "tokens live on"


def count(world, load, backend, seen):
    """Asks for everything again after a kill."""
    try:
        world[COORDINATOR].delegate(WRITER, ["write_file"], ["/data/*"])
        seen["lost_quarantines"] += 1
    except Refused as refusal:
        seen["lost_quarantines"] += refusal.reason != "AGENT_QUARANTINED"
    again = replay(world, [text for token in load.tokens for text in token["texts"]], USES + 1)
    for token in load.tokens:
        answers = sum((again[text] for text in token["texts"]), Counter())
        if backend == "memory":
            assert set(answers) == {"TOKEN_FENCED"}
        elif token["revoked"]:
            seen["lost_revocations"] += set(answers) != {"TOKEN_REVOKED"}
        allowed = answers["ALLOWED"]
        seen["tokens"] += 1
        seen["uses"] += token["allowed"] + allowed
        seen["allowed_after"] += allowed
        seen["tried_again"] += answers.total()
        seen["double_spends"] += max(0, token["allowed"] + allowed - USES)


# A disk that fails.


def strace():
    path = REPOSITORY / ".cache/strace/usr/bin/strace"
    found = shutil.which("strace") or (str(path) if path.exists() else None)
    return found or cannot("there is no strace: tests/life/setup installs it")


@contextlib.contextmanager
def syncs_fail(remit):
    """Every fsync and fdatasync of the server is an input/output error."""
    inject = "inject=fsync,fdatasync:error=EIO"
    command = [strace(), "-f", "-q", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e", inject]
    tracer = subprocess.Popen([*command, "-p", str(remit.process.pid)], stderr=subprocess.PIPE, text=True)
    try:
        traced = f"/proc/{remit.process.pid}/task"

        def attached():
            if tracer.poll() is not None:
                cannot(f"strace can't attach: {tracer.stderr.read()}")
            status = [Path(task, "status").read_text() for task in Path(traced).iterdir()]
            return all(f"TracerPid:\t{tracer.pid}" in text for text in status)

        wait_until(attached, "strace is attached")
        yield
    finally:
        tracer.terminate()
        tracer.wait()


def details(world):
    return " ".join(world.administrator().status().details)


def test_memory_revokes_while_syncs_fail_and_recovers(serve):
    world = serve()
    token = deployer_token(world).token
    other = deployer_token(world).token
    with syncs_fail(world.remit):
        with refused("STATE_UNAVAILABLE", grpc.StatusCode.UNAVAILABLE):
            world["ops-admin"].revoke(agent=WRITER, quarantine=True)
        assert "can't be written" in details(world)
        with refused("AGENT_QUARANTINED"):
            world[COORDINATOR].delegate(WRITER, ["write_file"], ["/data/*"])
        with refused("STATE_UNAVAILABLE", grpc.StatusCode.UNAVAILABLE):
            world[COORDINATOR].revoke(token=other)
        assert get(world, other) == "TOKEN_REVOKED", "in force all the same"
        assert get(world, token) == "ALLOWED", "uses need no disk"
    wait_until(lambda: "can't be written" not in details(world), "it recovers by itself")
    restart(world)
    with refused("AGENT_QUARANTINED"):
        world[COORDINATOR].delegate(WRITER, ["write_file"], ["/data/*"])


def test_a_journal_allows_nothing_after_a_failed_sync(serve, folder):
    trust_deployer(folder)
    world = serve(REMIT_STATE_BACKEND="journal")
    token, left = deployer_token(world).token, deployer_token(world, max_uses=3).token
    assert get(world, token) == "ALLOWED"
    with syncs_fail(world.remit):
        assert get(world, left) == "STATE_UNAVAILABLE"
        status, *_ = world.remit.http("/readyz")
        assert status == 503
        with refused("STATE_UNAVAILABLE", grpc.StatusCode.UNAVAILABLE):
            deployer_token(world)
        with refused("STATE_UNAVAILABLE", grpc.StatusCode.UNAVAILABLE):
            world["ops-admin"].revoke(agent=WRITER, quarantine=True)
    time.sleep(1)
    assert get(world, left) == "STATE_UNAVAILABLE", "a failed sync is never tried again"
    world.close()
    world.remit.kill()
    world.remit.start()
    allowed = [get(world, left) for _ in range(4)].count("ALLOWED")
    assert allowed in (2, 3), "the use that was refused may count as spent"
    assert get(world, token) == "TOKEN_USES_EXHAUSTED"


@pytest.fixture
def small_disk(tmp_path):
    """A folder of one megabyte."""
    path = tmp_path / "small"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        cannot(f"no small file system can be mounted: {mounted.stderr.strip()}")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def fill(folder):
    """Takes all the room that is left."""
    path = folder / "filler"
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    with contextlib.suppress(OSError), path.open("ab", buffering=0) as file:
        while True:
            file.write(bytes(1))
    return path


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_full_disk_refuses_and_recovers_when_there_is_room(serve, folder, small_disk, backend):
    trust_deployer(folder)
    world = serve(REMIT_STATE_BACKEND=backend, REMIT_STATE_DIR=str(small_disk / "state"))
    token = deployer_token(world, max_uses=5).token
    assert get(world, token) == "ALLOWED"
    filler = fill(small_disk)
    if backend == "journal":
        wait_until(lambda: is_refused(lambda: deployer_token(world)), "the disk is full", 20)
        assert get(world, token) == "STATE_UNAVAILABLE"
        status, *_ = world.remit.http("/readyz")
        assert status == 503
    else:
        ops = world["ops-admin"]
        wait_until(lambda: is_refused(lambda: ops.revoke(agent=VALIDATOR)), "the disk is full", 20)
        assert "can't be written" in details(world)
        with refused("STATE_UNAVAILABLE", grpc.StatusCode.UNAVAILABLE):
            world["ops-admin"].revoke(agent=WRITER, quarantine=True)
        assert get(world, token) == "ALLOWED"
    filler.unlink()
    wait_until(lambda: "state directory" not in details(world), "it goes on by itself")
    world["ops-admin"].revoke(agent=ANALYST, quarantine=True)
    fresh = deployer_token(world).token
    assert get(world, fresh) == "ALLOWED"
    restart(world)
    assert world.administrator().status().quarantined_agents == (1 if backend == "journal" else 2)
    assert get(world, fresh) == ("TOKEN_USES_EXHAUSTED" if backend == "journal" else "TOKEN_FENCED")


def is_refused(call):
    try:
        call()
        return False
    except Refused as refusal:
        assert refusal.reason == "STATE_UNAVAILABLE", refusal
        return True
