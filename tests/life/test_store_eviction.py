"""A store that forgets one key: whichever it is, no use is given twice and no revocation is lost."""

import contextlib
import threading
import time

import pytest
from cluster import RECOVERY, SERVE_AFTER, Nodes
from conftest import cannot
from remit_client import Refused, reason
from seed_policy import ANALYST, COORDINATOR, DEPLOYER, VALIDATOR, deployer_token
from store_nodes import details, hears, ready
from stores import Store, missing
from waiting import wait_until

HEARD = 1.2
USES = 3


@pytest.fixture(scope="module")
def pair(trusting, tmp_path_factory):
    """Two nodes on one store, and their wires to it."""
    if why := missing():
        cannot(why)
    folder = tmp_path_factory.mktemp("eviction")
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(Store(folder))
        nodes = Nodes(stack, trusting, folder, 2, store, replicas=0)
        nodes.serve()
        yield store, nodes


class Scene:
    """Tokens in every state there is, and what was answered for each."""

    def __init__(self, nodes):
        one, other = nodes
        self.nodes = nodes
        self.allowed = {}
        self.lock = threading.Lock()
        # A root that gave a use to a child and has one left, each of them asked once.
        self.root = deployer_token(one, max_uses=USES, delegatable=True)
        self.child = other[DEPLOYER].delegate(VALIDATOR, ["kubectl_get"], ["prod/web"], parent=self.root.token)
        # One that is spent, one that is revoked by its id and one below it, one whose agent's were.
        self.spent = deployer_token(other, max_uses=1)
        self.revoked = deployer_token(one, max_uses=USES, delegatable=True)
        self.below = one[DEPLOYER].delegate(VALIDATOR, ["kubectl_get"], ["prod/web"], parent=self.revoked.token)
        self.ask(self.root)
        self.ask(self.spent)
        other["ops-admin"].revoke(token_id=self.revoked.token_id)
        one["ops-admin"].revoke(token_id="ab" * 16)

    def revoke_agent(self):
        """Ends what there is by now of the validator's."""
        self.nodes[0]["ops-admin"].revoke(agent=VALIDATOR)
        self.ended = True

    ended = False

    def ask(self, made, agent=DEPLOYER, world=None):
        answer = reason((world or self.nodes[0])[agent].authorize("kubectl_get", "prod/web", made.token))
        with self.lock:
            self.allowed[made.token_id] = self.allowed.get(made.token_id, 0) + (answer == "ALLOWED")
        return answer

    def ask_everything(self):
        """Every token at each node, more often than it has uses; what was answered, by token."""
        agents = {"root": DEPLOYER, "child": VALIDATOR, "spent": DEPLOYER, "revoked": DEPLOYER, "below": VALIDATOR}
        answers = {name: set() for name in agents}
        for world in self.nodes:
            for name, agent in agents.items():
                for _ in range(USES):
                    answers[name].add(self.ask(getattr(self, name), agent, world))
            with contextlib.suppress(Refused):
                made = world[DEPLOYER].delegate(VALIDATOR, ["kubectl_get"], ["prod/web"], parent=self.root.token)
                # What a token gives away it has given.
                self.allowed[self.root.token_id] += 1
                assert not self.ended or self.ask(made, VALIDATOR, world) != "ALLOWED"
        return answers

    def check(self):
        """Never more than its uses, nothing of what is over."""
        answers = self.ask_everything()
        # One of the root's uses is the child's.
        most = {"root": USES - 1, "child": 0 if self.ended else 1, "spent": 1, "revoked": 0, "below": 0}
        for name, uses in most.items():
            allowed = self.allowed[getattr(self, name).token_id]
            assert allowed <= uses, f"{name} was allowed {allowed} times and has {uses} uses: {answers}"
        return answers


def keys(store):
    return {name.decode() for name in store.call("KEYS", "*")}


def evicted(store, key):
    assert store.call("DEL", key) == 1, f"there is no {key}: {keys(store)}"


# What is evicted, and what is answered then where that is certain.
FENCED = {"TOKEN_FENCED"}
TOKENS = {
    "root": {"root": FENCED, "child": FENCED},
    "child": {"child": FENCED},
    "spent": {"spent": FENCED},
    "revoked": {"revoked": FENCED, "below": FENCED},
    "below": {"below": FENCED},
}


@pytest.mark.parametrize("name", TOKENS)
def test_a_token_that_is_forgotten_is_fenced_and_so_is_what_is_below(pair, name):
    store, nodes = pair
    scene = Scene(nodes)
    made = getattr(scene, name)
    (key,) = [key for key in keys(store) if key.endswith(f":t:{made.token_id}")]
    evicted(store, key)
    answers = scene.check()
    assert {token: answers[token] for token in TOKENS[name]} == TOKENS[name]
    assert all(ready(world) for world in nodes), "nothing else is lost"


# What nodes keep a copy of, or tell epochs by: in doubt everything ends.
OTHERS = ["epoch", "revoked", "unknown", "log", "quarantines"]


@pytest.mark.parametrize("state", ["before", "after"])
@pytest.mark.parametrize("name", OTHERS)
def test_a_record_that_is_forgotten_brings_nothing_back(pair, name, state):
    store, nodes = pair
    wait_until(lambda: all(ready(world) for world in nodes), "all serve", SERVE_AFTER + RECOVERY)
    ops = nodes[1]["ops-admin"]
    ops.revoke(agent=ANALYST, quarantine=True)
    scene = Scene(nodes)
    found = [key for key in keys(store) if key.endswith(f":{name}")]
    if state == "before":
        # The next revocation would hide that one is missing.
        for key in found:
            evicted(store, key)
        with contextlib.suppress(Refused):
            scene.revoke_agent()
    else:
        scene.revoke_agent()
        for key in [key for key in keys(store) if key.endswith(f":{name}")]:
            evicted(store, key)
    answers = scene.check()
    deadline = time.monotonic() + SERVE_AFTER + RECOVERY
    while time.monotonic() < deadline and not all(ready(world) for world in nodes):
        answers = scene.check()
        time.sleep(0.1)
    assert all(ready(world) for world in nodes), [details(world) for world in nodes]
    # Each node asks for what changed five times a second.
    time.sleep(0.4)
    wait_until(lambda: all(ready(world) for world in nodes), "all serve", SERVE_AFTER + RECOVERY)
    answers = scene.check()
    assert not answers["revoked"] & {"STATE_UNAVAILABLE"}, answers
    for world in nodes:
        wait_until(lambda world=world: hears(world, ANALYST), "the quarantine is in force", HEARD)
    ops.reinstate(ANALYST)


def test_changes_that_are_forgotten_before_they_are_heard_are_read_anew(pair):
    store, nodes = pair
    near, far = nodes
    token = deployer_token(far, max_uses=USES).token
    nodes.wires[1].hold()
    near["ops-admin"].revoke(agent=ANALYST, quarantine=True)
    evicted(store, f"remit:{{0}}:{near.administrator().status().store.epoch[:16]}:log")
    nodes.wires[1].let_go()
    wait_until(lambda: hears(far, ANALYST), "it is read anew", 2)
    wait_until(lambda: ready(far), "it serves", RECOVERY)
    assert reason(far[DEPLOYER].authorize("kubectl_get", "prod/web", token)) == "ALLOWED", "no token ended for it"
    near["ops-admin"].reinstate(ANALYST)


def test_what_is_forgotten_while_an_epoch_waits_brings_nothing_back(pair):
    store, nodes = pair
    wait_until(lambda: all(ready(world) for world in nodes), "all serve", SERVE_AFTER + RECOVERY)
    nodes[0]["ops-admin"].revoke(agent=ANALYST, quarantine=True)
    wait_until(lambda: hears(nodes[1], ANALYST), "both have it", HEARD)
    scene = Scene(nodes)
    store.call("FLUSHALL")
    wait_until(lambda: keys(store) >= {"remit:{0}:epoch"}, "an epoch begins", 2)
    fence = int(store.call("HGET", "remit:{0}:epoch", "fence"))
    evicted(store, "remit:{0}:epoch")
    scene.check()
    wait_until(lambda: all(ready(world) for world in nodes), "all serve again", SERVE_AFTER + RECOVERY)
    answers = scene.check()
    assert set.union(*answers.values()) == FENCED, answers
    assert nodes[0].administrator().status().fence.seconds >= fence
    assert all(hears(world, ANALYST) for world in nodes)
    nodes[0]["ops-admin"].reinstate(ANALYST)
    assert nodes[0][COORDINATOR].delegate(ANALYST, ["read_file"], ["/data/*"])
