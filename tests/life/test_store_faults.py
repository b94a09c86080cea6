"""One fault of a shared store each, looked at closely: what is answered meanwhile, what is said, and what comes after.

Most of the time passes while a new epoch waits, so they run side by side.
"""

import contextlib
import time

import grpc
import pytest
import seed_token
from certificates import Authority
from cluster import RECOVERY, SERVE_AFTER, Family, Nodes, Oracle, Stores, asked_for, is_served, problems
from conftest import cannot
from remit_client import Refused, reason, refused
from seed_policy import ANALYST, COORDINATOR, DEPLOYER, WRITER, deployer_token
from side_by_side import side_by_side
from store_nodes import hears, ready, rewrite_policy, stored
from stores import Store, Tls, missing, sentinels
from waiting import wait_until

# A revocation by agent is heard at other nodes within a second.
HEARD = 1.2
CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


@pytest.fixture(scope="module")
def running(request, trusting, tmp_path_factory):
    if why := missing():
        cannot(why)

    def run(name):
        with contextlib.ExitStack() as stack:
            CASES[name](Scene(stack, trusting, tmp_path_factory.mktemp(name)))

    with side_by_side(request, run) as results:
        yield results


class Scene:
    """Where one case makes its stores and nodes."""

    def __init__(self, stack, template, folder):
        self.stack = stack
        self.template = template
        self.folder = folder

    def store(self, **how):
        return self.stack.enter_context(Store(self.folder, **how))

    def impostor(self, store):
        """Another store with the same password, whose certificate nobody here trusts."""
        return Store(self.folder, password=store.password, tls=Tls(self.folder, Authority.new(), "impostor"))

    def stores(self, **how):
        return Stores(self.stack, self.folder, **how)

    def nodes(self, primary, count=2, **how):
        nodes = Nodes(self.stack, self.template, self.folder, count, primary, **how)
        nodes.serve()
        return nodes


def ask(world, token, agent=DEPLOYER):
    return reason(world[agent].authorize("kubectl_get", "prod/web", token))


def foreign(world, **more):
    return seed_token.issue(world.remit.hmac_key(), COORDINATOR, DEPLOYER, ["kubectl_get"], ["prod/*"], **more)


@case
def a_store_that_ends_and_comes_back_is_found_within_seconds(scene):
    store = scene.store()
    nodes = scene.nodes(store, replicas=0)
    token = deployer_token(nodes[0], max_uses=3).token
    store.kill()
    for world in nodes:
        assert ask(world, token) == "STATE_UNAVAILABLE"
        with refused("STATE_UNAVAILABLE", grpc.StatusCode.UNAVAILABLE):
            deployer_token(world)
        wait_until(lambda world=world: world.remit.http("/readyz")[0] == 503, "it says so")
    store.start()
    nodes.serve(RECOVERY + SERVE_AFTER)
    assert {ask(world, token) for world in nodes} == {"TOKEN_FENCED"}, "it came back without what it had"


@case
def a_store_that_hangs_answers_nothing_and_forgets_nothing(scene):
    store = scene.store()
    nodes = scene.nodes(store, replicas=0)
    token = deployer_token(nodes[0], max_uses=3).token
    store.pause()
    began = time.monotonic()
    assert {ask(world, token) for world in nodes} == {"STATE_UNAVAILABLE"}
    assert time.monotonic() - began < 2, "an operation has its time"
    time.sleep(1.2)
    store.go_on()
    nodes.serve(RECOVERY)
    answers = [ask(world, token) for world in nodes for _ in range(2)]
    # What was asked while it hung may have been spent when it went on.
    assert answers.count("ALLOWED") in (1, 2, 3) and set(answers) <= {"ALLOWED", "TOKEN_USES_EXHAUSTED"}, answers


@case
def two_revocations_in_one_second_each_end_what_was_before(scene):
    store = scene.store()
    near, far = scene.nodes(store, replicas=0)
    ends, lives = [], None
    for _ in range(2):
        ends.append(deployer_token(near, max_uses=5).token)
        assert ask(far, ends[-1]) == "ALLOWED"
        near["ops-admin"].revoke(agent=DEPLOYER)
        assert ask(near, ends[-1]) == "TOKEN_REVOKED"
    lives = deployer_token(near, max_uses=5).token
    assert ask(near, lives) == ask(far, lives) == "ALLOWED", "what came after both is good at once"
    for world in (near, far):
        wait_until(lambda world=world: {ask(world, token) for token in ends} == {"TOKEN_REVOKED"}, "it heard", HEARD)
    # One that a node mints before it has heard is dead, and said to be.
    near["ops-admin"].revoke(all=True)
    with contextlib.suppress(Refused):
        early = deployer_token(far).token
        assert ask(near, early) in ("ALLOWED", "TOKEN_REVOKED")
    assert ask(near, lives) == ask(far, lives) == "TOKEN_REVOKED"
    wait_until(lambda: is_served(far), "new roots are good", HEARD)


@case
def a_quarantine_without_all_replicas_is_applied_and_says_it_may_not_last(scene):
    stores = scene.stores()
    nodes = scene.nodes(stores.primary)
    ops = nodes[0]["ops-admin"]
    ops.revoke(agent=WRITER, quarantine=True)
    stores.lagging.pause()
    with refused("STATE_UNAVAILABLE", grpc.StatusCode.UNAVAILABLE):
        ops.revoke(agent=ANALYST, quarantine=True)
    for world in nodes:
        wait_until(lambda world=world: asked_for(world, ANALYST) == "AGENT_QUARANTINED", "it is applied", HEARD)
    stores.lagging.go_on()
    wait_until(lambda: not is_refused(lambda: ops.revoke(agent=ANALYST, quarantine=True)), "all replicas have it")
    # Both outlive the primary, at a node too that starts after it.
    old = stores.primary
    old.kill()
    stores.promote()
    stores.steady.follow(stores.primary.port)
    nodes.lead_to(stores.primary)
    nodes.restart(1)
    nodes.serve()
    assert {asked_for(world, agent) for world in nodes for agent in (WRITER, ANALYST)} == {"AGENT_QUARANTINED"}


@case
def a_quarantine_outlives_a_store_that_lost_everything(scene):
    store = scene.store()
    nodes = scene.nodes(store, replicas=0)
    nodes[0]["ops-admin"].revoke(agent=WRITER, quarantine=True)
    wait_until(lambda: asked_for(nodes[1], WRITER) == "AGENT_QUARANTINED", "it is heard", HEARD)
    store.call("FLUSHALL")
    nodes.serve()
    assert {asked_for(world, WRITER) for world in nodes} == {"AGENT_QUARANTINED"}
    nodes[1]["ops-admin"].reinstate(WRITER)
    wait_until(lambda: {asked_for(world, WRITER) for world in nodes} == {"ALLOWED"}, "it is lifted everywhere", HEARD)
    store.call("FLUSHALL")
    nodes.serve()
    assert {asked_for(world, WRITER) for world in nodes} == {"ALLOWED"}, "and stays lifted"


@case
def a_store_that_evicts_gives_nothing_twice_and_takes_no_foreign_tokens(scene):
    store = scene.store(maxmemory_policy="allkeys-random")
    nodes = scene.nodes(store, replicas=0)
    for world in nodes:
        wait_until(lambda world=world: any("maxmemory-policy" in said for said in problems(world)), "it says so")
        denied = world[DEPLOYER].authorize("kubectl_get", "prod/web", foreign(world))
        assert reason(denied) != "ALLOWED" and "settings" in denied.message, denied
    oracle = Oracle()
    for _ in range(200):
        family = Family(nodes[0][COORDINATOR].delegate(DEPLOYER, ["kubectl_get"], ["prod/*"], max_uses=4))
        oracle.families.append(family)
        oracle.allowed(family, DEPLOYER, ask(nodes[0], family.root.token), time.monotonic(), "before")
    used = int(store.info("memory")["used_memory"])
    store.call("CONFIG", "SET", "maxmemory", used - 30_000)
    wait_until(lambda: int(store.info("stats")["evicted_keys"]) > 20, "keys are evicted", 10)
    oracle.try_everything(nodes, ["node 0", "node 1"])
    store.call("CONFIG", "SET", "maxmemory", 0)
    oracle.try_everything(nodes, ["node 0", "node 1"])
    nodes.serve()
    oracle.try_everything(nodes, ["node 0", "node 1"])
    assert oracle.double_spends() == 0 and oracle.counts["TOKEN_FENCED"] > 0, oracle.counts


@case
def a_node_that_was_away_lifts_no_quarantine_that_came_after_the_store_was_emptied(scene):
    store = scene.store()
    old = scene.nodes(store, count=1, replicas=0)
    # The old node's last word is that the quarantine was lifted.
    old[0]["ops-admin"].revoke(agent=ANALYST, quarantine=True)
    old[0]["ops-admin"].reinstate(ANALYST)
    old.wires[0].cut()
    store.call("FLUSHALL")
    # The new one has never heard of it.
    (scene.folder / "later").mkdir()
    new = Nodes(scene.stack, scene.template, scene.folder / "later", 1, store, replicas=0)
    new.serve()
    new[0]["ops-admin"].revoke(agent=ANALYST, quarantine=True)
    old.wires[0].mend()
    wait_until(lambda: is_served(old[0]), "the old node is back", SERVE_AFTER + RECOVERY)
    time.sleep(HEARD)
    assert {asked_for(nodes[0], ANALYST) for nodes in (old, new)} == {"AGENT_QUARANTINED"}


def told_once_more(near, far, token):
    """The store is back, and with it the word on what was entered behind its back: on both nodes, its cut included."""
    wait_until(lambda: ready(near), "the node is back", SERVE_AFTER + RECOVERY)
    wait_until(lambda: ask(far, token) == "AGENT_QUARANTINED", "the others hear of it", HEARD)
    time.sleep(HEARD)
    assert {ask(world, token) for world in (near, far)} == {"AGENT_QUARANTINED"}, "and it stays"
    far["ops-admin"].reinstate(DEPLOYER)
    wait_until(lambda: ask(near, token) == "TOKEN_REVOKED", "it is lifted, and what was minted before stays dead", HEARD)
    assert ask(far, token) == "TOKEN_REVOKED"
    assert ask(near, deployer_token(far).token) == "ALLOWED"


def lifted_before(world, agent=DEPLOYER):
    """An agent on which the store's last word is that its quarantine was lifted."""
    world["ops-admin"].revoke(agent=agent, quarantine=True)
    world["ops-admin"].reinstate(agent)


def away(scene, store):
    """A node that starts with an empty directory, and has not reached the store yet."""
    (scene.folder / "away").mkdir()
    return Nodes(scene.stack, scene.template, scene.folder / "away", 1, store, replicas=0, cut=True)


@case
def a_quarantine_that_remit_enters_while_the_store_is_away_is_told_when_it_is_back(scene):
    store = scene.store()
    (far,) = scene.nodes(store, count=1, replicas=0)
    lifted_before(far)
    token = deployer_token(far, max_uses=5).token
    nodes = away(scene, store)
    (near,) = nodes
    rewrite_policy(near, quarantine_after={"escalation_attempts": 1, "reuse_attempts": 3, "window_seconds": 60})
    near[DEPLOYER].authorize("delete_everything", "prod/web", token)
    assert hears(near, DEPLOYER)
    nodes.wires[0].mend()
    told_once_more(near, far, token)
    log = near.remit.log()
    assert "in force on this node" in log and "not quarantined" not in log, log


@case
def a_quarantine_that_is_asked_for_while_the_store_is_away_is_told_when_it_is_back(scene):
    store = scene.store()
    (far,) = scene.nodes(store, count=1, replicas=0)
    lifted_before(far)
    token = deployer_token(far, max_uses=5).token
    nodes = away(scene, store)
    with refused("STATE_UNAVAILABLE", grpc.StatusCode.UNAVAILABLE):
        nodes[0]["ops-admin"].revoke(agent=DEPLOYER, quarantine=True)
    # It is on the disk, too, that the store has yet to hear of it.
    nodes.restart(0)
    nodes.wires[0].mend()
    told_once_more(nodes[0], far, token)


@case
def a_quarantine_lasts_that_was_entered_before_the_node_heard_of_another_ones_end(scene):
    store = scene.store()
    nodes = scene.nodes(store, replicas=0)
    near, far = nodes
    nodes.wires[0].cut()
    lifted_before(far)
    token = deployer_token(far, max_uses=5).token
    with refused("STATE_UNAVAILABLE", grpc.StatusCode.UNAVAILABLE):
        near["ops-admin"].revoke(agent=DEPLOYER, quarantine=True)
    nodes.wires[0].mend()
    told_once_more(near, far, token)


@case
def a_quarantine_is_lifted_by_no_older_word_of_a_clock_that_was_ahead(scene):
    elsewhere, store = scene.store(), scene.store()
    old = scene.nodes(elsewhere, count=1, replicas=0)
    # An epoch that begins an hour ahead.
    (record,) = elsewhere.call("KEYS", "*:epoch")
    elsewhere.call("HSET", record, "replid", "", "counter", int(time.time() + 3600) << 20)
    wait_until(lambda: not ready(old[0]), "it is noticed", RECOVERY)
    old.serve()
    lifted_before(old[0], ANALYST)
    old.wires[0].cut()
    (scene.folder / "later").mkdir()
    new = Nodes(scene.stack, scene.template, scene.folder / "later", 1, store, replicas=0)
    new.serve()
    new[0]["ops-admin"].revoke(agent=ANALYST, quarantine=True)
    ahead, entered = (int(stored(one)[ANALYST.encode()].split(b":")[0]) for one in (elsewhere, store))
    assert ahead > entered
    old.lead_to(store)
    wait_until(lambda: is_served(old[0]), "the old node is back", SERVE_AFTER + RECOVERY)
    time.sleep(HEARD)
    worlds = (old[0], new[0])
    assert {asked_for(world, ANALYST) for world in worlds} == {"AGENT_QUARANTINED"}
    # Whoever lifts it now means this one.
    new[0]["ops-admin"].reinstate(ANALYST)
    wait_until(lambda: {asked_for(world, ANALYST) for world in worlds} == {"ALLOWED"}, "it is lifted", HEARD)
    store.call("FLUSHALL")
    wait_until(lambda: not ready(new[0]), "it is noticed", RECOVERY)
    for nodes in (old, new):
        nodes.serve()
    assert {asked_for(world, ANALYST) for world in worlds} == {"ALLOWED"}, "and stays so"


# Not a case here: its tokens wait 16 s for the fence, which test_failover.py has to spare.
def foreign_tokens_are_not_taken_again_after_a_failover(scene):
    stores = scene.stores()
    nodes = scene.nodes(stores.primary)
    fence = nodes[0].administrator().status().fence.seconds
    wait_until(lambda: time.time() > fence + 1, "tokens of other issuers are taken", 20)
    tokens = [foreign(nodes[0], task=f"{number}") for number in range(40)]
    assert {ask(nodes[0], token) for token in tokens[:20]} == {"ALLOWED"}
    stores.wire.hold()
    assert {ask(nodes[1], token) for token in tokens[20:30]} == {"ALLOWED"}
    stores.primary.kill()
    stores.promote()
    stores.steady.follow(stores.primary.port)
    nodes.lead_to(stores.primary)
    nodes.serve()
    fresh = foreign(nodes[0], task="after")
    assert {ask(world, token) for world in nodes for token in [*tokens, fresh]} == {"TOKEN_FENCED"}
    later = foreign(nodes[0], task="later", iat=int(time.time()) + 4)
    assert ask(nodes[0], later) != "ALLOWED", "a clock that is ahead is no way round"


@case
def revocations_that_a_store_evicted_do_not_bring_tokens_back(scene):
    store = scene.store(maxmemory_policy="allkeys-random")
    nodes = scene.nodes(store, replicas=0)
    ended = [deployer_token(nodes[0], max_uses=5).token for _ in range(2)]
    nodes[0]["ops-admin"].revoke(agent=DEPLOYER)
    assert {ask(world, token) for world in nodes for token in ended} == {"TOKEN_REVOKED"}
    # What eviction does, without its chance.
    evicted = [key for key in store.call("KEYS", "*:revoked")]
    assert store.call("DEL", *evicted) == len(evicted) == 1
    answers = {ask(world, token) for world in nodes for token in ended}
    assert "ALLOWED" not in answers, "a revocation was forgotten"
    nodes.serve()
    assert {ask(world, token) for world in nodes for token in ended} == {"TOKEN_FENCED"}


@case
def revocations_are_missed_for_as_long_as_a_token_lives_on_a_clock_that_is_behind(scene):
    store = scene.store(maxmemory_policy="allkeys-random")
    nodes = scene.nodes(store, replicas=0)
    ended = deployer_token(nodes[0], max_uses=5).token
    nodes[0]["ops-admin"].revoke(agent=DEPLOYER)
    # An hour and some seconds later by the store's clock, and by the node's not yet.
    (record,) = store.call("KEYS", "*:epoch")
    store.call("HSET", record, "latest", int(time.time()) - 3605)
    store.call("DEL", *store.call("KEYS", "*:revoked"))
    assert "ALLOWED" not in {ask(world, ended) for world in nodes}, "a revocation was forgotten"
    nodes.serve()


@case
def a_store_whose_clock_was_set_back_waits_no_longer_than_any(scene):
    store = scene.store()
    nodes = scene.nodes(store, replicas=0)
    token = deployer_token(nodes[0], max_uses=5).token
    # An epoch that was begun an hour ahead.
    (record,) = store.call("KEYS", "*:epoch")
    store.call("HSET", record, "serve_after", int(time.time() + 3600) * 1000)
    assert {ask(world, token) for world in nodes} <= {"STATE_UNAVAILABLE", "TOKEN_FENCED"}
    nodes.serve()
    assert {ask(world, token) for world in nodes} == {"TOKEN_FENCED"}


@case
def a_store_is_spoken_to_over_tls_alone(scene):
    authority = Authority.new()
    store = scene.store(password="geheim", tls=Tls(scene.folder, authority))
    nodes = scene.nodes(store, replicas=0)
    token = deployer_token(nodes[0], max_uses=1).token
    assert [ask(world, token) for world in nodes] == ["ALLOWED", "TOKEN_USES_EXHAUSTED"]
    # One of another authority is nobody.
    with scene.impostor(store) as other:
        nodes.lead_to(other)
        time.sleep(1.5)
        assert {ask(world, token) for world in nodes} == {"STATE_UNAVAILABLE"}
        assert int(other.info("stats")["total_commands_processed"]) < 20, "nothing was asked of it"


@case
def sentinels_lead_to_the_new_primary(scene):
    stores = scene.stores(password="geheim")
    # The one that lags is to be promoted, though the other one has more.
    stores.steady.call("CONFIG", "SET", "replica-priority", 0)
    group = scene.stack.enter_context(sentinels(scene.folder, stores.primary, 2))
    nodes = scene.nodes(stores.primary, sentinels=group)
    family = Family(nodes[0][COORDINATOR].delegate(DEPLOYER, ["kubectl_get"], ["prod/*"], max_uses=4))
    oracle = Oracle()
    oracle.families.append(family)
    stores.wire.hold()
    oracle.allowed(family, DEPLOYER, ask(nodes[1], family.root.token), time.monotonic(), "before")
    stores.primary.kill()
    stores.wire.cut()
    wait_until(lambda: {one.primary_port() for one in group} == {stores.lagging.port}, "they agree", 20)
    nodes.serve(SERVE_AFTER + RECOVERY)
    oracle.try_everything(nodes, ["node 0", "node 1"])
    assert family.allowed == 1 and oracle.counts["TOKEN_FENCED"] > 0, oracle.counts


def is_refused(call):
    try:
        call()
    except Refused:
        return True
    return False


@pytest.mark.parametrize("case", CASES)
def test_store(running, case):
    running[case].result()
