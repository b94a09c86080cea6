"""The policy and the key change while requests come in: old or new, never anything else, and soon."""

import hashlib
import json
import os
import ssl
import threading
import time
import urllib.request

import grpc
import pytest
import seed_token
from remit_client import admin, fails_with, reason
from remit_process import Remit
from seed_policy import ANALYST, COORDINATOR, DEPLOYER, deployer_token
from test_identity import put
from waiting import wait_until

CHANGE_SECONDS = 3
SEED = {
    "max_delegation_depth": 2,
    "delegation_rules": {
        "agent-coordinator": {
            "can_delegate_to": ["agent-deployer"],
            "max_capability_set": ["read_file", "kubectl_get"],
        },
        "agent-analyst": {"max_capability_set": ["read_file"]},
    },
}


def policy(number, granted):
    """A policy with a digest of its own, under which the analyst may read files of its own right, or not."""
    capabilities = ["read_file"] if granted else ["query_database"]
    rules = json.loads(json.dumps(SEED["delegation_rules"]))
    rules["agent-analyst"]["max_capability_set"] = ["read_file", "query_database"]
    grants = [{"agent": "agent-analyst", "capabilities": capabilities, "resources": ["/data/*"]}]
    grants += [{"agent": "agent-coordinator", "capabilities": ["read_file", "kubectl_get"], "resources": ["*"]}]
    document = {"max_delegation_depth": 2, "delegation_rules": rules, "grants": grants}
    return (json.dumps(document, indent=1) + "\n" * number).encode()


def digest(content):
    return hashlib.sha256(content).hexdigest()


class Questions:
    """Asks one question again and again, and keeps each answer's reason and digest."""

    def __init__(self, world):
        self.client = world.fresh(ANALYST)
        self.answers = []
        self.failures = []
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def _run(self):
        while not self.stop.is_set():
            try:
                answer = self.client.authorize("read_file", "/data/q3")
                self.answers.append((reason(answer), answer.policy_digest))
            except Exception as error:  # noqa: BLE001  Whatever it was, the test shows it.
                self.failures.append(error)

    def until(self, wanted, what):
        """Waits until an answer is the wanted one."""
        wait_until(lambda: self.answers and self.answers[-1] == wanted, what, CHANGE_SECONDS)

    def some_more(self, number=20):
        target = len(self.answers) + number
        wait_until(lambda: len(self.answers) >= target, f"{number} more answers")

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()
        self.client.close()


def answer_under(content, granted):
    return ("ALLOWED" if granted else "CAPABILITY_NOT_GRANTED", digest(content))


# How a file comes to have other content. Each is a way that programs and platforms have.


class ConfigMap:
    """A mounted ConfigMap: the file is a link into `..data`, which is swapped as a whole."""

    def __init__(self, folder, content):
        self.folder, self.number = folder, 0
        self.path = folder / "policy.json"
        self.write(content)
        self.path.symlink_to("..data/policy.json")

    def write(self, content):
        before = self.folder / f"..{self.number}"
        self.number += 1
        now = self.folder / f"..{self.number}"
        now.mkdir()
        (now / "policy.json").write_bytes(content)
        link = self.folder / "..data_tmp"
        link.symlink_to(now.name)
        os.replace(link, self.folder / "..data")
        if before.exists():
            (before / "policy.json").unlink()
            before.rmdir()


class PlainFile:
    def __init__(self, folder, content):
        self.path = folder / "policy.json"
        self.path.write_bytes(content)


class Rename(PlainFile):
    def write(self, content):
        beside = self.path.with_suffix(".new")
        beside.write_bytes(content)
        os.replace(beside, self.path)


class TruncateAndWrite(PlainFile):
    def write(self, content):
        with self.path.open("wb") as file:
            file.flush()
            for start in range(0, len(content), 200):
                file.write(content[start : start + 200])
                file.flush()
                time.sleep(0.001)  # A writer takes its time; a reader meanwhile sees a part.


class DeleteAndRecreate(PlainFile):
    def write(self, content):
        self.path.unlink()
        time.sleep(0.02)  # Long enough for a reader to find nothing.
        self.path.write_bytes(content)


@pytest.mark.parametrize("way", [ConfigMap, Rename, TruncateAndWrite, DeleteAndRecreate])
def test_a_change_under_load(serve, tmp_path, way):
    mount = tmp_path / "mount"
    mount.mkdir()
    contents = [policy(number, granted=number % 2 == 0) for number in range(5)]
    file = way(mount, contents[0])
    world = serve(REMIT_POLICY_FILE=str(file.path))
    seen = set()
    with Questions(world) as questions:
        questions.until(answer_under(contents[0], True), "the first policy answers")
        for number, content in enumerate(contents[1:], start=1):
            began = len(questions.answers)
            file.write(content)
            granted = number % 2 == 0
            questions.until(answer_under(content, granted), f"change {number} is in force")
            questions.some_more()
            between = set(questions.answers[began:])
            allowed = {answer_under(contents[number - 1], not granted), answer_under(content, granted)}
            assert between <= allowed, "an answer of neither policy"
            seen |= between
    assert not questions.failures, questions.failures[:3]
    assert len({digest for _, digest in seen}) == 5
    assert world.administrator().status().policy_digest == digest(contents[-1])
    # A line that stands for repeated denials comes a second late, with the policy that denied them; and a request in
    # flight answers under the policy that it began with, also after the first answer under the next.
    at_once = [line for line in world.remit.audit() if not line.get("repeated")]
    revisions = [line["policy_revision"] for line in at_once if "policy_revision" in line]
    assert all(then >= before - 1 for before, then in zip(revisions, revisions[1:])), "revisions only grow"


BROKEN = {
    "nothing": b"",
    "half of it": policy(0, True)[:150],
    "an unknown key": policy(0, True).replace(b"max_capability_set", b"max_capabilty_set", 1),
    "a key twice": policy(0, True).replace(
        b'"max_delegation_depth": 2', b'"max_delegation_depth": 2, "max_delegation_depth": 9'
    ),
    "NULs": b"\0" * 4096,
    "no UTF-8": policy(0, True).replace(b"read_file", b"read\xff", 1),
    "a depth that no policy may have": policy(0, True).replace(b'depth": 2', b'depth": 17'),
    "another kind": b"[]",
    "nesting": b"[" * 100_000,
}


@pytest.fixture
def watched(serve, folder):
    """A server that tells auditors on HTTP how it is doing."""
    config = folder / "remit.toml"
    text = config.read_text()
    assert "[http]\n" in text
    tls = 'tls_certificate = "server.pem"\ntls_key = "server.key"\nclient_ca = "ca.pem"\n'
    config.write_text(text.replace("[http]\n", f"[http]\n{tls}", 1))
    (folder / "policy.json").write_bytes(policy(0, True))
    return serve(is_dev=False)


def ready(world, agent=None):
    folder = world.remit.folder
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    if agent:
        context.load_cert_chain(folder / "agents" / f"{agent}.pem", folder / "agents" / f"{agent}.key")
    https = urllib.request.HTTPSHandler(context=context)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), https)
    with opener.open(f"https://localhost:{world.remit.ports['http']}/readyz", timeout=5) as page:
        return page.status, page.read().decode()


def failures(world):
    return world.administrator().status().policy_reload_failures


def put_and_count(world, content, what):
    before = failures(world)
    put(world.remit.policy_file, content)
    wait_until(lambda: failures(world) > before, f"{what}: it is counted", CHANGE_SECONDS)


def test_a_broken_file_changes_nothing_and_shows(watched):
    world, good = watched, policy(0, True)
    expected = answer_under(good, True)
    with Questions(world) as questions:
        questions.until(expected, "the policy answers")
        for what, content in BROKEN.items():
            put_and_count(world, content, what)
            status = world.administrator().status()
            assert status.policy_digest == digest(good) and status.ready
            assert "policy" in " ".join(status.details), (what, status)
            questions.some_more()
        code, detail = ready(world, "ops-admin")
        assert code == 200 and json.loads(detail)["policy_reload_failures"] >= len(BROKEN)
        assert "policy" in " ".join(json.loads(detail)["attention"]), detail
        assert ready(world) == (200, "ready\n") and ready(world, DEPLOYER) == (200, "ready\n"), "strangers see no more"

        better = policy(1, True)
        put(world.remit.policy_file, better)
        questions.until(answer_under(better, True), "a good file is taken again")
    assert set(questions.answers) == {expected, answer_under(better, True)}
    assert not questions.failures, questions.failures[:3]
    wait_until(lambda: not world.administrator().status().details, "all is well again", CHANGE_SECONDS)
    logged = [json.loads(line) for line in world.remit.log().splitlines()]
    errors = [entry for entry in logged if entry["level"] in ("ERROR", "WARN") and "policy" in json.dumps(entry)]
    assert len(errors) >= len(BROKEN), "each stands in the log"
    assert any(
        "max_capabilty_set" in json.dumps(entry) and "max_capability_set" in json.dumps(entry) for entry in errors
    )


def test_a_missing_file_changes_nothing(serve):
    world = serve()
    content = world.remit.policy_file.read_bytes()
    world.remit.policy_file.unlink()
    wait_until(lambda: world.remit.metrics()["remit_policy_reload_failures_total"] > 0, "it is counted", CHANGE_SECONDS)
    assert deployer_token(world).policy_digest == digest(content)


def test_a_reload_on_demand(serve):
    world = serve()
    administrator = world.administrator()

    def reload():
        return administrator.call(administrator.administration.ReloadPolicy, admin.ReloadPolicyRequest())

    assert not reload().changed
    content = policy(3, True)
    put(world.remit.policy_file, content)
    # Whoever sees the new file first: after the call it is in force.
    assert reload().policy_digest == digest(content)
    put(world.remit.policy_file, b"{")
    with fails_with(grpc.StatusCode.FAILED_PRECONDITION) as seen:
        reload()
    assert "policy.json" in seen[0].message


def test_sighup_reads_everything_again(serve, folder, tmp_path):
    """With the poll an hour away and the file changed where no event tells, nothing but the signal can do it."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    first, second = policy(0, True), policy(1, False)
    hidden = elsewhere / "policy.json"
    hidden.write_bytes(first)
    (folder / "policy.json").unlink()
    os.link(hidden, folder / "policy.json")
    world = serve(REMIT_POLICY_POLL_SECONDS="3600")
    with Questions(world) as questions:
        questions.until(answer_under(first, True), "the policy answers")
        with hidden.open("r+b") as file:
            file.write(second)
            file.truncate()
        old_key = world.remit.hmac_key()
        put(folder / "hmac.key", b"k" * 64)
        questions.some_more(50)
        assert questions.answers[-1] == answer_under(first, True), "nobody has told it yet"
        world.remit.hang_up()
        questions.until(answer_under(second, False), "the signal reads the policy")

    def seals_anew():
        given = world[COORDINATOR].delegate(DEPLOYER, ["kubectl_get"], ["prod/web"])
        try:
            return seed_token.validate(b"k" * 64, given.token, DEPLOYER, "kubectl_get", "prod/web")
        except seed_token.Invalid:
            return None

    assert old_key != b"k" * 64
    wait_until(seals_anew, "the signal reads the key")


def test_a_new_key_ends_the_tokens_of_the_old_one(serve):
    world = serve(REMIT_POLICY_POLL_SECONDS="1")
    token = deployer_token(world).token
    put(world.remit.folder / "hmac.key", os.urandom(32).hex().encode())
    deployer = world[DEPLOYER]
    wait_until(
        lambda: reason(deployer.authorize("kubectl_get", "prod/web", token, dry_run=True)) == "TOKEN_SEAL_INVALID",
        "the old token is refused",
        CHANGE_SECONDS,
    )
    assert reason(deployer.authorize("kubectl_get", "prod/web", deployer_token(world).token)) == "ALLOWED"


def test_a_rotation_with_two_keys_ends_nothing(serve, folder):
    """The new key seals, the old one still opens."""
    (folder / "former.key").touch(mode=0o600)
    former = os.urandom(32).hex().encode()
    (folder / "former.key").write_bytes(former)
    world = serve(REMIT_KEY_FILE=f"{folder}/hmac.key,{folder}/former.key", REMIT_POLICY_POLL_SECONDS="1")
    assert world.administrator().status().keyring_keys == 2
    token = deployer_token(world).token
    put(folder / "former.key", world.remit.hmac_key())
    fresh = os.urandom(32).hex().encode()
    put(folder / "hmac.key", fresh)

    def seals_anew():
        given = deployer_token(world)
        try:
            return seed_token.validate(fresh, given.token, DEPLOYER, "kubectl_get", "prod/web")
        except seed_token.Invalid:
            return None

    wait_until(seals_anew, "the new key seals", CHANGE_SECONDS)
    assert reason(world[DEPLOYER].authorize("kubectl_get", "prod/web", token)) == "ALLOWED"


def test_a_broken_key_changes_nothing(serve):
    world = serve(REMIT_POLICY_POLL_SECONDS="1")
    token = deployer_token(world).token
    key = world.remit.folder / "hmac.key"
    for content, mode in [(b"short", 0o600), (os.urandom(64), 0o644)]:
        put(key, content)
        key.chmod(mode)
        details = wait_until(lambda: list(world.administrator().status().details), "the status says so")
        assert "hmac.key" in " ".join(details), details
        assert content.hex() not in world.remit.log()
    assert reason(world[DEPLOYER].authorize("kubectl_get", "prod/web", token)) == "ALLOWED"


def test_no_start_on_a_broken_policy(folder):
    (folder / "policy.json").write_text('{"max_delegation_dept": 2}')
    remit = Remit(folder)
    with pytest.raises(AssertionError, match="did you mean"):
        remit.start()
    assert remit.process.returncode == 2
    remit.process = None
