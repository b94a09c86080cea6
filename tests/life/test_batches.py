"""A batch waits for the disk or the store once, and says what its items would have been told one by one."""

import contextlib
import json
import subprocess

import pytest
from conftest import cannot
from remit_client import authorize_request, delegate_request, reason
from seed_policy import COORDINATOR, DEPLOYER, VALIDATOR, deployer_token
from stores import Store, missing
from test_authzen import Pep, over_tls
from test_durability import strace, trust_deployer
from waiting import wait_until

ITEMS = 50
# Whoever went one by one would have one for each item.
FEW = 10


@pytest.fixture(params=["journal", "valkey"])
def world(request, folder, serve, tmp_path):
    """A node whose answers wait, with a token of the deployer's for several uses."""
    trust_deployer(folder)
    how = {"REMIT_STATE_BACKEND": request.param} | over_tls(folder)
    with contextlib.ExitStack() as stack:
        if request.param == "valkey":
            if why := missing():
                cannot(why)
            store = stack.enter_context(Store(tmp_path))
            how |= {"REMIT_STATE_URL": store.url, "REMIT_STATE_REPLICAS": "0"}
        world = serve(**how)
        wait_until(lambda: world.administrator().status().ready, "it is ready", 10)
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
