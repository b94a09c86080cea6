"""Whoever asks for the end of something may go away before the answer: it ends all the same, everywhere.

The store forgets its scripts and its answers are held, so that a node has to ask a second time, after its caller has
gone.
"""

import contextlib
import http.client
import json
import ssl
import urllib.parse

import grpc
import pytest
from cluster import Nodes
from conftest import cannot
from remit_client import Refused, authorize_request, fails_with
from seed_policy import ANALYST, DEPLOYER, deployer_token
from store_nodes import get, hears, stored
from stores import Store, missing
from waiting import wait_until

from remit.v1 import decision_service_pb2 as pb

# Far less than the second that an operation has here.
PATIENCE = 0.15


@pytest.fixture(scope="module")
def pair(trusting, tmp_path_factory):
    """Two nodes on one store; the first one's wire is to be held."""
    if why := missing():
        cannot(why)
    folder = tmp_path_factory.mktemp("given-up")
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(Store(folder))
        how = {"REMIT_STATE_TIMEOUT_MS": "1000"}
        nodes = Nodes(stack, trusting, folder, 2, store, replicas=0, **how)
        nodes.serve()
        yield store, nodes


@contextlib.contextmanager
def out_of_hearing(store, nodes):
    """The first node asks and hears nothing, and has to say again what it wants."""
    store.call("SCRIPT", "FLUSH")
    nodes.wires[0].hold()
    try:
        yield
    finally:
        nodes.wires[0].let_go()


def give_up(pair, **revocation):
    """Revokes at the first node, and goes away before the store's answer is there."""
    store, nodes = pair
    ops = nodes[0]["ops-admin"]
    with out_of_hearing(store, nodes), fails_with(grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED):
        ops.call(ops.decisions.Revoke, pb.RevokeRequest(**revocation), seconds=PATIENCE)


def made(world):
    """A token of several uses. A node that has not heard of the last revocation yet mints none that lives."""
    seen = []

    def mints():
        with contextlib.suppress(Refused):
            seen.append(deployer_token(world, max_uses=3))
        return seen

    wait_until(mints, "a token is minted", 3)
    return seen[0]


def is_ended(world, token):
    wait_until(lambda: not world[DEPLOYER].introspect(token=token).active, "it is revoked", 3)
    assert get(world, token) == "TOKEN_REVOKED"


def is_recorded(world, kind, target):
    found = lambda: any(  # noqa: E731
        event["message_type"] == kind and event["target"] == target and event["result"] == "accepted"
        for event in world.remit.audit()
    )
    wait_until(found, f"{kind} of {target} is recorded", 3)


def test_a_token_that_is_revoked_by_its_id(pair):
    store, (one, other) = pair
    root = made(one)
    assert get(other, root.token) == "ALLOWED"
    give_up(pair, token_id=root.token_id)
    is_ended(other, root.token)
    is_recorded(one, "revoke", root.token_id)


def test_an_agents_tokens(pair):
    store, (one, other) = pair
    token = made(other).token
    give_up(pair, agent=DEPLOYER)
    is_ended(other, token)
    is_recorded(one, "revoke", DEPLOYER)


def test_everything(pair):
    store, (one, other) = pair
    token = made(other).token
    give_up(pair, all=True)
    is_ended(other, token)
    is_recorded(one, "revoke", "all")


def test_a_quarantine_and_its_end(pair):
    store, (one, other) = pair
    give_up(pair, agent=ANALYST, quarantine=True)
    wait_until(lambda: hears(other, ANALYST), "the other node has it", 3)
    assert hears(one, ANALYST) and stored(store)[ANALYST.encode()].endswith(b":q")
    is_recorded(one, "quarantine", ANALYST)
    ops = one["ops-admin"]
    with out_of_hearing(store, pair[1]), fails_with(grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED):
        ops.call(ops.decisions.Reinstate, pb.ReinstateRequest(agent=ANALYST), seconds=PATIENCE)
    wait_until(lambda: not hears(other, ANALYST), "it is lifted everywhere", 3)
    wait_until(lambda: not hears(one, ANALYST), "and where it was asked for", 3)
    is_recorded(one, "reinstate", ANALYST)


def test_a_quarantine_that_remit_itself_entered(pair):
    store, (one, other) = pair
    path = one.remit.policy_file
    policy = json.loads(path.read_text())
    after = {"escalation_attempts": 1, "reuse_attempts": 3, "window_seconds": 60}
    before = one.administrator().status().policy_revision
    path.write_text(json.dumps(policy | {"quarantine_after": after}))
    wait_until(lambda: one.administrator().status().policy_revision > before, "the policy is read", 5)
    beyond = authorize_request("delete_everything", "prod/web", made(one).token)
    agent = one[DEPLOYER]
    with out_of_hearing(store, pair[1]), fails_with(grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED):
        agent.call(agent.decisions.Authorize, beyond, seconds=PATIENCE)
    wait_until(lambda: hears(other, DEPLOYER), "the other node has it", 3)
    found = lambda: [  # noqa: E731
        event for event in one.remit.audit() if event["message_type"] == "quarantine" and event["target"] == DEPLOYER
    ]
    wait_until(found, "it is recorded", 3)
    assert found()[0]["note"].startswith("automatic: ")
    path.write_text(json.dumps(policy))
    one["ops-admin"].reinstate(DEPLOYER)
    wait_until(lambda: not hears(other, DEPLOYER), "it is lifted", 3)


def test_a_token_that_a_client_revokes_over_http(pair):
    store, (one, other) = pair
    root = made(one)
    key = (one.remit.folder / "api_keys" / "ops-admin.key").read_text().strip()
    body = urllib.parse.urlencode({"token": root.token})
    headers = {"x-api-key": key, "content-type": "application/x-www-form-urlencoded"}
    connection = http.client.HTTPConnection("127.0.0.1", one.remit.ports["http"], timeout=PATIENCE)
    with out_of_hearing(store, pair[1]):
        connection.request("POST", "/oauth2/revoke", body, headers)
        with contextlib.suppress(TimeoutError, ssl.SSLError):
            connection.getresponse()
            raise AssertionError("it was answered, so nobody went away")
        connection.close()
    is_ended(other, root.token)
    is_recorded(one, "revoke", root.token_id)
