"""The audit log when its disk is slow, stuck, full or failing, and after kill -9: no ALLOW that is not in it."""

import contextlib
import json
import os
import random
import signal
import subprocess
import threading
import time
from pathlib import Path

import grpc
import pytest
from conftest import cannot
from remit_client import Refused, authorize_request, reason, refused
from remit_process import Remit
from seed_policy import COORDINATOR, DEPLOYER, deployer_token
from test_audit_chain import follow, verify
from test_cli import remit
from test_durability import ROUNDS, fill, small_disk, strace, syncs_fail, trust_deployer  # noqa: F401
from waiting import wait_until

EACH = {"REMIT_AUDIT_SYNC": "each"}
LEVELS = ["none", "each"]
UNAVAILABLE = "AUDIT_UNAVAILABLE"


def use(world, token, **more):
    """Uses a token once: the answer, and how long it took."""
    begun = time.monotonic()
    answer = world[DEPLOYER].authorize("kubectl_get", "prod/web", token, **more)
    return answer, time.monotonic() - begun


def logged(files):
    """The ids of the decisions that the log's whole lines say were allowed."""
    lines = [line for file in files for line in file.read_bytes().split(b"\n")[:-1]]
    events = [json.loads(line) for line in lines if line]
    return {event["decision_id"] for event in events if event["result"] == "accepted"}


def files_of(file):
    # A crash between the two steps of a rotation leaves no file of this name until the next start.
    return [*sorted(file.parent.glob(f"{file.name}.2*")), *([file] if file.exists() else [])]


@contextlib.contextmanager
def traced(server, inject):
    """The server under strace, which does this to its system calls."""
    call = inject.split(":")[0]
    command = [strace(), "-f", "-q", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={inject}"]
    tracer = subprocess.Popen([*command, "-p", str(server.process.pid)], stderr=subprocess.PIPE, text=True)
    try:
        tasks = Path(f"/proc/{server.process.pid}/task")

        def attached():
            if tracer.poll() is not None:
                cannot(f"strace can't attach: {tracer.stderr.read()}")
            return all(f"TracerPid:\t{tracer.pid}" in Path(task, "status").read_text() for task in tasks.iterdir())

        wait_until(attached, "strace is attached")
        yield
    finally:
        tracer.terminate()
        tracer.wait()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"REMIT_AUDIT_ON_FAILURE": "count"}, 'write on_failure = "deny", or sync = "none"'),
        ({"REMIT_AUDIT_FILE": "-"}, "standard output can't be synced"),
        ({"REMIT_AUDIT_FILE": "/dev/null"}, "is a pipe or a device"),
    ],
)
def test_what_cannot_be_synced_is_refused_at_the_start(folder, settings, says):
    started = Remit(folder, **EACH, **settings)
    with pytest.raises(AssertionError) as failed:
        started.start()
    assert started.process.wait(10) == 2 and says in str(failed.value), failed.value


def test_an_answer_waits_for_its_sync_and_one_sync_serves_many(serve, folder):
    trust_deployer(folder)
    world = serve(**EACH)
    tokens = [deployer_token(world).token for _ in range(17)]
    batched = [deployer_token(world).token for _ in range(10)]
    took = {}

    def one(token, client):
        begun = time.monotonic()
        assert reason(client.authorize("kubectl_get", "prod/web", token)) == "ALLOWED"
        took[token] = time.monotonic() - begun

    clients = [world.fresh(DEPLOYER) for _ in tokens[1:]]
    with traced(world.remit, "fdatasync:delay_enter=150000"):
        one(tokens[0], world[DEPLOYER])
        assert took[tokens[0]] >= 0.14, "it waits until the disk has it"
        begun = time.monotonic()
        threads = [threading.Thread(target=one, args=pair) for pair in zip(tokens[1:], clients, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.monotonic() - begun < len(threads) * 0.15 / 2, "a sync for each would take longer"
        begun = time.monotonic()
        batch = world[DEPLOYER].batch_authorize([authorize_request("kubectl_get", "prod/web", one) for one in batched])
        assert {reason(answer) for answer in batch} == {"ALLOWED"}
        assert time.monotonic() - begun < len(batch) * 0.15 / 2, "so it would for the items of a batch"
    assert len(took) == 17
    for client in clients:
        client.close()


def test_without_each_no_answer_waits_for_the_disk(serve):
    world = serve()
    token = deployer_token(world).token
    with traced(world.remit, "fdatasync:delay_enter=400000"):
        answer, took = use(world, token)
    assert reason(answer) == "ALLOWED" and took < 0.3


def test_a_failed_sync_is_never_tried_again_and_the_chain_goes_on_in_a_fresh_file(serve, folder):
    trust_deployer(folder)
    world = serve(**EACH)
    token = deployer_token(world, max_uses=5).token
    allowed = []
    answer, _ = use(world, token)
    allowed.append(answer.decision_id)
    audit = folder / "audit.jsonl"
    inode = audit.stat().st_ino
    with syncs_fail(world.remit):
        answer, took = use(world, token)
        assert reason(answer) == UNAVAILABLE and took < 0.8, (answer, took)
        for _ in range(5):
            answer, took = use(world, token)
            assert reason(answer) == UNAVAILABLE and took < 0.8, (answer, took)
        with refused(UNAVAILABLE, grpc.StatusCode.UNAVAILABLE):
            deployer_token(world)
        assert world.remit.http("/readyz")[0] == 503
    wait_until(lambda: world.remit.http("/readyz")[0] == 200, "it goes on by itself")
    answers = [use(world, token)[0] for _ in range(5)]
    given = [answer.decision_id for answer in answers if reason(answer) == "ALLOWED"]
    # One for certain, which was spent when the first sync failed; the others were refused before they cost anything.
    assert len(given) == 3, [reason(answer) for answer in answers]
    world.close()
    world.remit.kill()
    files = files_of(audit)
    assert audit.stat().st_ino != inode and len(files) >= 2, files
    assert set(allowed + given) <= logged(files)
    code, report = verify(*files)
    assert code == 0 and report["begins_with_the_log"], report
    world.remit.start()
    use(world, deployer_token(world).token)
    assert verify(*files_of(audit))[0] == 0


def test_a_stuck_disk_is_refused_within_half_a_second_and_comes_back_by_itself(serve, folder):
    trust_deployer(folder)
    world = serve(**EACH)
    token = deployer_token(world, max_uses=5).token
    with traced(world.remit, "fdatasync:delay_enter=2000000:when=1..2"):
        for seconds, most in ((0.2, 0.45), (10, 0.9)):
            begun = time.monotonic()
            with contextlib.suppress(Refused):
                ask = authorize_request("kubectl_get", "prod/web", token)
                answer = world[DEPLOYER].call(world[DEPLOYER].decisions.Authorize, ask, seconds)
                assert reason(answer) == UNAVAILABLE
            assert time.monotonic() - begun < most
        wait_until(lambda: reason(use(world, deployer_token_or_none(world))[0]) == "ALLOWED", "it goes on", 20)
    world.close()
    assert world.remit.stop() == 0
    assert verify(folder / "audit.jsonl")[0] == 0


def deployer_token_or_none(world):
    try:
        return deployer_token(world).token
    except Refused as refusal:
        assert refusal.reason == UNAVAILABLE, refusal
        return ""


def test_a_reader_that_stops_reading_is_refused_for_and_waited_for(serve, folder, tmp_path):
    pipe, out = tmp_path / "pipe", tmp_path / "out"
    os.mkfifo(pipe)
    with out.open("wb") as copy:
        reader = subprocess.Popen(["cat", str(pipe)], stdout=copy)
    try:
        world = serve(REMIT_AUDIT_FILE=str(pipe))
        allowed = []
        reader.send_signal(signal.SIGSTOP)
        slowest = 0

        def is_refused():
            nonlocal slowest
            answer = None
            try:
                token = deployer_token(world).token
                answer, took = use(world, token, request_id="x" * 256)
                slowest = max(slowest, took)
                if reason(answer) == "ALLOWED":
                    allowed.append(answer.decision_id)
                    return False
                assert reason(answer) == UNAVAILABLE
            except Refused as refusal:
                assert refusal.reason == UNAVAILABLE, refusal
            return True

        # The pipe itself takes 64 KiB first.
        wait_until(is_refused, "the pipe is full", 60)
        wait_until(lambda: all(is_refused() for _ in range(5)), "nothing is allowed any more")
        assert slowest < 0.6, slowest
        assert world.remit.http("/readyz")[0] == 503
        assert "disk or reader has not answered for" in " ".join(world.administrator().status().details)
        before = len(allowed)
        reader.send_signal(signal.SIGCONT)
        wait_until(lambda: not is_refused(), "it goes on by itself")
        assert len(allowed) > before
        world.close()
        assert world.remit.stop() == 0
    finally:
        reader.send_signal(signal.SIGCONT)
        reader.wait(20)
    assert set(allowed) <= logged([out])
    follow(out.read_bytes().splitlines())


@pytest.mark.parametrize("level", LEVELS)
def test_a_full_disk_allows_nothing_and_tears_no_line(serve, small_disk, level):  # noqa: F811
    audit = small_disk / "audit.jsonl"
    world = serve(REMIT_AUDIT_SYNC=level, REMIT_AUDIT_FILE=str(audit), REMIT_AUDIT_ROTATE_BYTES="65536")
    allowed = []

    def is_refused():
        try:
            answer, took = use(world, deployer_token(world).token, request_id="y" * 200)
        except Refused as refusal:
            assert refusal.reason == UNAVAILABLE, refusal
            return True
        assert took < 0.8, took
        if reason(answer) == "ALLOWED":
            allowed.append(answer.decision_id)
            return False
        assert reason(answer) == UNAVAILABLE
        return True

    assert not is_refused()
    doomed = deployer_token(world)
    filler = fill(small_disk)
    # What is left of the last page of the file is filled first.
    wait_until(is_refused, "the disk is full", 20)
    wait_until(lambda: all(is_refused() for _ in range(5)), "nothing is allowed any more")
    before = len(allowed)
    for _ in range(20):
        assert is_refused()
        # Each further try writes what there is room for, and cuts it off again at once.
        wait_until(lambda: audit.read_bytes()[-1:] in (b"", b"\n"), "no half line stays", 1)
    assert world.remit.http("/readyz")[0] == 503
    assert "audit log can't be written" in " ".join(world.administrator().status().details)
    assert verify(*files_of(audit))[0] == 0
    many = world[DEPLOYER].batch_authorize([authorize_request("kubectl_get", "prod/web", doomed.token)] * 3)
    assert {reason(answer) for answer in many} == {UNAVAILABLE}
    with refused(UNAVAILABLE, grpc.StatusCode.UNAVAILABLE) if level == "each" else contextlib.nullcontext():
        world[COORDINATOR].revoke(token=doomed.token)
    if level == "each":
        assert set(allowed) <= logged(files_of(audit)), "all of them are there already"
    filler.unlink()
    wait_until(lambda: not is_refused(), "it goes on by itself")
    assert len(allowed) > before
    assert reason(use(world, doomed.token)[0]) == "TOKEN_REVOKED", "in force all the same"
    world.close()
    assert world.remit.stop() == 0
    code, report = verify(*files_of(audit))
    assert (code, report["begins_with_the_log"], report["unfinished_line"]) == (0, True, None), report
    assert set(allowed) <= logged(files_of(audit))


class Load:
    """Clients that ask until the server is gone, and what was answered."""

    def __init__(self, world, clients=6):
        self.world = world
        self.allowed, self.minted, self.revoked = [], [], []
        self.threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def _run(self):
        coordinator, deployer = self.world.fresh(COORDINATOR), self.world.fresh(DEPLOYER)
        try:
            while True:
                made = coordinator.delegate(DEPLOYER, ["kubectl_get"], ["prod/*"])
                self.minted.append(made.token_id)
                answer = deployer.authorize("kubectl_get", "prod/web", made.token)
                if reason(answer) == "ALLOWED":
                    self.allowed.append(answer.decision_id)
                if random.random() < 0.1:
                    coordinator.revoke(token=made.token)
                    self.revoked.append(made.token_id)
        except Refused as end:
            assert end.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED), end
        finally:
            coordinator.close()
            deployer.close()

    def run_and_kill(self):
        for thread in self.threads:
            thread.start()
        time.sleep(random.uniform(0.2, 0.8))
        wait_until(lambda: self.allowed, "the first is allowed")
        self.world.remit.kill()
        for thread in self.threads:
            thread.join(30)
            assert not thread.is_alive()


@pytest.mark.parametrize("level", LEVELS)
def test_kill_9_under_load_leaves_a_log_that_is_whole_up_to_its_end(serve, folder, level):
    world = serve(REMIT_AUDIT_SYNC=level, REMIT_AUDIT_ROTATE_BYTES="65536")
    audit = folder / "audit.jsonl"
    answered, events, torn, missing = 0, 0, 0, 0
    for number in range(ROUNDS):
        load = Load(world)
        load.run_and_kill()
        world.close()
        code, report = verify(*files_of(audit))
        assert code == 0 and report["begins_with_the_log"], report
        assert report["events"] > events, "the chain goes on"
        events = report["events"]
        torn += report["unfinished_line"] is not None
        assert load.allowed and load.minted
        lines = [json.loads(line) for file in files_of(audit) for line in file.read_bytes().split(b"\n")[:-1]]
        accepted = [line for line in lines if line["result"] == "accepted"]
        lost = set(load.allowed) - {line["decision_id"] for line in accepted}
        lost |= set(load.minted) - {line["token_id"] for line in accepted if line["message_type"] == "delegate"}
        lost |= set(load.revoked) - {line["token_id"] for line in accepted if line["message_type"] == "revoke"}
        assert level == "none" or not lost, lost
        missing += len(lost)
        answered += len(load.allowed) + len(load.minted) + len(load.revoked)
        if ROUNDS > 20 and number % 10 == 9:
            print(f"\nPROGRESS sync {level}: {number + 1} of {ROUNDS} kills, {answered} answered, {missing} missing", flush=True)
        world.remit.start()
        assert verify(*files_of(audit))[1]["unfinished_line"] is None, "half a line is cut off"
    figures = {"what": "audit log after kill -9", "sync": level, "kills": ROUNDS}
    print("ASSURE", json.dumps(figures | {"answered": answered, "events": events, "torn": torn, "missing": missing}))


def test_what_is_masked_is_nowhere_to_be_read(serve, folder):
    mask = "resource=prod/people/*, task, request_id, note"
    world = serve(REMIT_AUDIT_MASK=mask)
    made = world[COORDINATOR].delegate(DEPLOYER, ["kubectl_get"], ["prod/*"], task="case of ann")
    for resource in ("prod/people/ann", "prod/web"):
        world[DEPLOYER].authorize("kubectl_get", resource, made.token, request_id="ann's")
    world[DEPLOYER].authorize("kubectl_get", "stage/people/ann", made.token)
    denied = world[COORDINATOR].delegate(DEPLOYER, ["kubectl_get"], ["prod/people/ann"]).token
    world[DEPLOYER].authorize("kubectl_apply", "prod/people/ann", denied)
    world["ops-admin"].revoke(token_id=made.token_id, note="ann left")
    last = world.administrator().status().event_sequence
    with world["ops-admin"].watch(after_sequence=0) as watching:
        shown = watching.take(last)
    world.close()
    assert world.remit.stop() == 0
    text = (folder / "audit.jsonl").read_text()
    assert "prod/people/ann" not in text and "case of ann" not in text and "ann's" not in text and "left" not in text
    assert "stage/people/ann" in text and "prod/web" in text, "only what lies within the pattern"
    for event in shown:
        assert "prod/people/ann" not in str(event) and "case of ann" not in str(event), event
    lines = [json.loads(line) for line in text.splitlines()]
    tasks = {(line["from_agent"], line["task"]) for line in lines if "task" in line}
    assert all(task.startswith("masked:") for _, task in tasks)
    assert {agent for agent, _ in tasks} == {COORDINATOR, DEPLOYER} and len(tasks) == 2, "equal texts of an agent look alike"
    assert len({task for _, task in tasks}) == 2, "those of two agents don't"
    assert len({line["request_id"] for line in lines if "request_id" in line}) == 1
    assert verify(folder / "audit.jsonl")[0] == 0


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        ("sequence", "the log needs it as it is"),
        ("ressource", 'did you mean \\"resource\\"?'),
        ("context.user_email", "nothing of a request's context"),
        ("resource=/a/", "empty segment"),
    ],
)
def test_what_cannot_be_masked_is_refused_at_the_start(folder, mask, says):
    started = Remit(folder, REMIT_AUDIT_MASK=mask)
    with pytest.raises(AssertionError) as failed:
        started.start()
    assert started.process.wait(10) == 2
    assert says.replace("\\", "") in str(failed.value).replace("\\", ""), failed.value


def test_half_a_line_after_a_crash_is_cut_off_and_the_chain_goes_on(serve, folder):
    world = serve()
    answer, _ = use(world, deployer_token(world).token)
    audit = folder / "audit.jsonl"
    wait_until(lambda: answer.decision_id in audit.read_text(), "the event is written")
    world.close()
    world.remit.kill()
    whole = audit.read_bytes()
    audit.write_bytes(whole + whole.splitlines()[-1][:200])
    code, report = verify(audit)
    last = json.loads(whole.splitlines()[-1])
    assert (code, report["last_sequence"]) == (0, last["sequence"])
    assert report["unfinished_line"] == len(whole.splitlines()) + 1
    assert f"whole up to sequence {last['sequence']}" in remit("audit", "verify", audit).stdout
    assert remit("audit", "verify", audit, "--head", last["hash"]).returncode == 0
    world.remit.start()
    use(world, deployer_token(world).token)
    world.close()
    assert world.remit.stop() == 0
    assert audit.read_bytes().startswith(whole)
    code, report = verify(audit)
    assert (code, report["unfinished_line"]) == (0, None)
    follow(audit.read_bytes().splitlines())
    audit.write_bytes(whole)
    cut = remit("audit", "verify", audit, "--head", report["last_hash"])
    assert cut.returncode == 1 and f"sequence {last['sequence']} is the last" in cut.stdout, cut.stdout
