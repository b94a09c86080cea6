"""A batch waits for the disk or the store once, and says what its items would have been told one by one."""

import contextlib
import itertools
import json
import subprocess

import pytest
from conftest import cannot
from remit_client import authorize_request, delegate_request, reason
from seed_policy import COORDINATOR, DEPLOYER, VALIDATOR, deployer_token
from stores import Store, missing
from test_authzen import Pep, over_tls
from test_detection import AFTER, quarantines, with_policy
from test_durability import strace, trust_deployer
from waiting import wait_until

ITEMS = 50
# Whoever went one by one would have one for each item.
FEW = 10


@contextlib.contextmanager
def counted_by(backend, folder, serve, tmp_path, **more):
    """A node with this backend."""
    how = {"REMIT_STATE_BACKEND": backend} | over_tls(folder)
    with contextlib.ExitStack() as stack:
        if backend == "valkey":
            if why := missing():
                cannot(why)
            store = stack.enter_context(Store(tmp_path))
            how |= {"REMIT_STATE_URL": store.url, "REMIT_STATE_REPLICAS": "0"}
        world = serve(**how, **more)
        wait_until(lambda: world.administrator().status().ready, "it is ready", 10)
        yield world


@pytest.fixture(params=["journal", "valkey"])
def world(request, folder, serve, tmp_path):
    """A node whose answers wait, with a token of the deployer's for several uses."""
    trust_deployer(folder)
    with counted_by(request.param, folder, serve, tmp_path) as world:
        yield world


@pytest.fixture(params=["memory", "journal", "valkey"])
def strict(request, folder, serve, tmp_path):
    """A node that takes who attempts too much, whether its answers wait or not."""
    trust_deployer(folder)
    with_policy(folder, quarantine_after=AFTER)
    with counted_by(request.param, folder, serve, tmp_path, is_dev=False) as world:
        yield world


@contextlib.contextmanager
def syncs(world, folder, log):
    """The disk syncs of the ledger, each of which takes so long that whoever comes meanwhile shares the next."""
    inject = "inject=fdatasync:delay_enter=5000"
    command = [strace(), "-f", "-y", "-q", "-o", str(log), "-e", "trace=fdatasync", "-e", inject]
    log.touch()
    tracer = subprocess.Popen([*command, "-p", str(world.remit.process.pid)], stderr=subprocess.PIPE, text=True)
    try:
        # The mark is written each second, so that one is seen when it works.
        wait_until(lambda: tracer.poll() is not None or "fdatasync" in log.read_text(), "strace is attached", 5)
        if tracer.poll() is not None:
            cannot(f"strace can't attach: {tracer.stderr.read()}")
        found = lambda: log.read_text().count(f"<{folder / 'state' / 'ledger'}>")  # noqa: E731
        before = found()
        seen = []
        yield seen
        wait_until(lambda: found() > before, "they are in the log", 5)
    finally:
        tracer.terminate()
        tracer.wait()
    seen.append(log.read_text().count(f"<{folder / 'state' / 'ledger'}>") - before)


def evaluations(world, token, count, **more):
    """Whether each of so many uses of the token is allowed, as AuthZEN says it."""
    gate = Pep(world.remit)
    agent = {"type": "agent", "id": DEPLOYER}
    one = {"resource": {"type": "resource", "id": "prod/web"}}
    body = {"subject": agent, "action": {"name": "kubectl_get"}, "context": {"remit_token": token}}
    return gate.decides(body | {"evaluations": [one] * count} | more)


@pytest.fixture
def journal(folder, serve):
    return serve(REMIT_STATE_BACKEND="journal", **over_tls(folder))


def test_a_batch_of_delegations_shares_its_syncs(journal, folder, tmp_path):
    requests = [delegate_request(DEPLOYER, ["kubectl_get"], ["prod/*"]) for _ in range(ITEMS)]
    with syncs(journal, folder, tmp_path / "strace") as seen:
        results = journal[COORDINATOR].batch_delegate(requests)
    assert len({result.delegated.token_id for result in results}) == ITEMS
    assert seen[0] <= FEW, f"{seen[0]} syncs for {ITEMS} tokens"


def test_evaluations_share_their_syncs(journal, folder, tmp_path):
    requests = [delegate_request(DEPLOYER, ["kubectl_get"], ["prod/*"]) for _ in range(ITEMS)]
    tokens = [result.delegated.token for result in journal[COORDINATOR].batch_delegate(requests)]
    items = [{"context": {"remit_token": token}} for token in tokens]
    body = {"subject": {"type": "agent", "id": DEPLOYER}, "action": {"name": "kubectl_get"}, "evaluations": items}
    body["resource"] = {"type": "resource", "id": "prod/web"}
    with syncs(journal, folder, tmp_path / "strace") as seen:
        assert Pep(journal.remit).decides(body) == [True] * ITEMS
    assert seen[0] <= FEW, f"{seen[0]} syncs for {ITEMS} uses"


def test_a_batch_of_delegations_takes_from_one_parent_in_its_order(world):
    child = lambda token, uses: delegate_request(VALIDATOR, ["kubectl_get"], ["prod/web"], token, max_uses=uses)  # noqa: E731
    parent = deployer_token(world, max_uses=5, delegatable=True).token
    wishes = [1, 1, 2, 1, 1, 1, 1]
    results = world[DEPLOYER].batch_delegate([child(parent, uses) for uses in wishes])
    left = [item.delegated.parent_remaining_uses if item.HasField("delegated") else reason(item.refused) for item in results]
    # The validator is no trusted one, so that what wants two is refused and takes nothing.
    assert left == [4, 3, "USES_NOT_ALLOWED", 2, 1, 0, "TOKEN_USES_EXHAUSTED"]
    tokens = [item.delegated.token for item in results if item.HasField("delegated")]
    asked = [authorize_request("kubectl_get", "prod/web", token) for token in tokens for _ in range(2)]
    answers = [reason(answer) for answer in world[VALIDATOR].batch_authorize(asked)]
    assert answers == ["ALLOWED", "TOKEN_USES_EXHAUSTED"] * 5


def test_evaluations_of_one_token_count_its_uses(world):
    assert evaluations(world, deployer_token(world, max_uses=5).token, 8) == [True] * 5 + [False] * 3


def test_evaluations_that_may_end_early_spend_nothing_ahead(world):
    left = lambda made: world[DEPLOYER].introspect(token=made.token).remaining_uses  # noqa: E731
    made = deployer_token(world, max_uses=5)
    first = {"options": {"evaluations_semantic": "permit_on_first_permit"}}
    assert evaluations(world, made.token, 4, **first) == [True]
    assert left(made) == 4
    # The second one is denied, and the third is not asked.
    one, denied = ({"resource": {"type": "resource", "id": name}} for name in ("prod/web", "other"))
    first = {"options": {"evaluations_semantic": "deny_on_first_deny"}, "evaluations": [one, denied, one]}
    assert evaluations(world, made.token, 0, **first) == [True, False]
    assert left(made) == 3


def test_a_malformed_item_is_denied_in_its_place(world):
    good = delegate_request(DEPLOYER, ["kubectl_get"], ["prod/*"])
    results = world[COORDINATOR].batch_delegate([good, delegate_request(DEPLOYER, [], ["prod/*"]), good])
    assert [item.HasField("delegated") for item in results] == [True, False, True]
    assert reason(results[1].refused) == "REQUEST_MALFORMED"
    body = {"subject": {"type": "agent", "id": DEPLOYER}, "action": {"name": "kubectl_get"}, "evaluations": [{}, 7]}
    answers = Pep(world.remit).post("evaluations", body).json()["evaluations"]
    assert [answer["context"]["reason"] for answer in answers] == ["REQUEST_MALFORMED"] * 2, json.dumps(answers)


def tokens(world, count, **more):
    wishes = [delegate_request(DEPLOYER, ["kubectl_get"], ["prod/*"], **more) for _ in range(count)]
    return [result.delegated.token for result in world[COORDINATOR].batch_delegate(wishes)]


def in_a_row(answers):
    """Each answer with how often it came, one after the other."""
    return [(answer, len(list(same))) for answer, same in itertools.groupby(answers)]


TAKEN = [("ALLOWED", 1), ("TOKEN_USES_EXHAUSTED", 3)]


def test_a_batch_is_no_way_around_the_quarantine_for_reuse(strict):
    [once], others = tokens(strict, 1), tokens(strict, 10, max_uses=5)
    asked = [authorize_request("kubectl_get", "prod/web", token) for token in [once] * 20 + others * 5]
    answers = [reason(answer) for answer in strict[DEPLOYER].batch_authorize(asked)]
    assert in_a_row(answers) == [*TAKEN, ("AGENT_QUARANTINED", 66)]
    assert quarantines(strict) == {DEPLOYER: ["automatic"]}


def test_tokens_that_were_used_up_before_are_reused_one_by_one(strict):
    asked = [authorize_request("kubectl_get", "prod/web", token) for token in tokens(strict, 20)]
    answered = lambda: in_a_row(reason(answer) for answer in strict[DEPLOYER].batch_authorize(asked))  # noqa: E731
    assert answered() == [("ALLOWED", 20)]
    assert answered() == [("TOKEN_USES_EXHAUSTED", 3), ("AGENT_QUARANTINED", 17)]


def test_uses_that_a_token_has_are_taken_before_one_too_many_counts(strict):
    [several] = tokens(strict, 1, max_uses=5)
    asked = [authorize_request("kubectl_get", "prod/web", several)] * 20
    answers = [reason(answer) for answer in strict[DEPLOYER].batch_authorize(asked)]
    assert in_a_row(answers) == [("ALLOWED", 5), ("TOKEN_USES_EXHAUSTED", 3), ("AGENT_QUARANTINED", 12)]


def test_evaluations_are_no_way_around_the_quarantine_for_reuse(strict):
    [once], others = tokens(strict, 1), tokens(strict, 10, max_uses=5)
    items = [{"context": {"remit_token": token}} for token in [once] * 20 + others * 5]
    body = {"subject": {"type": "agent", "id": DEPLOYER}, "action": {"name": "kubectl_get"}, "evaluations": items}
    body["resource"] = {"type": "resource", "id": "prod/web"}
    answers = Pep(strict.remit, DEPLOYER).post("evaluations", body).json()["evaluations"]
    said = ["ALLOWED" if answer["decision"] else answer["context"]["reason"] for answer in answers]
    assert in_a_row(said) == [*TAKEN, ("AGENT_QUARANTINED", 66)]
    assert quarantines(strict) == {DEPLOYER: ["automatic"]}


def delegated(world, wishes):
    answers = world[DEPLOYER].batch_delegate(wishes)
    return in_a_row("ALLOWED" if item.HasField("delegated") else reason(item.refused) for item in answers)


def test_a_batch_of_delegations_is_no_way_around_the_quarantine_for_reuse(strict):
    parent = deployer_token(strict, delegatable=True).token
    wish = delegate_request(VALIDATOR, ["kubectl_get"], ["prod/web"], parent)
    assert delegated(strict, [wish] * 20) == [*TAKEN, ("AGENT_QUARANTINED", 16)]
    assert quarantines(strict) == {DEPLOYER: ["automatic"]}


def test_a_batch_of_delegations_is_no_way_around_the_quarantine_for_escalation(strict):
    parent = deployer_token(strict, max_uses=5, delegatable=True).token
    wish = lambda capability: delegate_request(VALIDATOR, [capability], ["prod/web"], parent)  # noqa: E731
    wanted = [("ALLOWED", 2), ("DELEGATION_WIDENS", 3), ("AGENT_QUARANTINED", 15)]
    assert delegated(strict, [wish("kubectl_get")] * 2 + [wish("kubectl_apply")] * 3 + [wish("kubectl_get")] * 15) == wanted
    assert quarantines(strict) == {DEPLOYER: ["automatic"]}


def test_what_may_count_shares_its_syncs_all_the_same(folder, serve, tmp_path):
    """Other tokens each, and the uses that one has: nothing of it has to be waited for before the next."""
    trust_deployer(folder)
    with_policy(folder, quarantine_after=AFTER)
    with counted_by("journal", folder, serve, tmp_path, is_dev=False) as world:
        several = tokens(world, ITEMS // 5, max_uses=5)
        asked = [authorize_request("kubectl_get", "prod/web", token) for token in several for _ in range(5)]
        with syncs(world, folder, tmp_path / "strace") as seen:
            answers = [reason(answer) for answer in world[DEPLOYER].batch_authorize(asked)]
    assert in_a_row(answers) == [("ALLOWED", ITEMS)]
    assert seen[0] <= FEW, f"{seen[0]} syncs for {ITEMS} uses"
