"""A node whose cable to the store is pulled: it denies within its second, and heals by itself.

The store runs in a network of its own; each of two nodes has a cable to it. A cut one swallows everything: no connection
is refused, none is closed.
"""

import contextlib
import json
import os
import time

import networks
import pytest
from assurance import assure
from cluster import RECOVERY, SERVE_AFTER, is_served, node, problems, state
from conftest import cannot
from networks import Network
from remit_client import reason, refused
from remit_process import copy_folder
from seed_policy import COORDINATOR, DEPLOYER, deployer_token
from stores import Store, missing
from test_durability import trust_deployer
from waiting import wait_until

ROUNDS = int(os.environ.get("REMIT_PARTITIONS", "1"))
# A copy of revocations is believed for a second; an operation under way takes 200 ms.
DENIES_WITHIN = 1.2


@pytest.fixture
def network():
    if why := missing() or networks.missing():
        cannot(why)
    try:
        with Network(2) as network:
            yield network
    except PermissionError as error:
        cannot(f"no network namespace can be made: {error}")


@pytest.fixture
def pair(network, template, tmp_path):
    """Two nodes, each with a cable of its own to a store without replicas."""
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(Store(tmp_path, network=network, password="geheim"))
        worlds = []
        for cable in range(2):
            folder = copy_folder(template, tmp_path / f"node{cable}")
            trust_deployer(folder)
            grant(folder)
            how = state(store, tmp_path, replicas=0)
            how["REMIT_STATE_URL"] = f"redis://{network.address_over(cable)}:{store.port}"
            worlds.append(node(stack, folder, how))
        for world in worlds:
            wait_until(lambda world=world: is_served(world), "it serves", SERVE_AFTER + RECOVERY)
        yield worlds


def test_a_node_without_its_store_denies_and_heals(network, pair):
    near, far = pair
    slowest_denial = slowest_recovery = asked = 0
    for _ in range(ROUNDS):
        tokens = [deployer_token(near, max_uses=5).token for _ in range(2)]
        assert answers(far, tokens) == {"ALLOWED"}
        network.cut(1)
        cut = time.monotonic()
        near["ops-admin"].revoke(agent=DEPLOYER, quarantine=True)
        revoked = time.monotonic()
        last_allowed = cut
        while time.monotonic() < cut + 2 * DENIES_WITHIN:
            for token in ["", *tokens]:
                if ask(far, token) == "ALLOWED":
                    last_allowed = time.monotonic()
                asked += 1
        slowest_denial = max(slowest_denial, last_allowed - cut)
        assert last_allowed - revoked <= DENIES_WITHIN, "a node that can't hear a quarantine denies"
        assert answers(far, tokens) == {"STATE_UNAVAILABLE"}
        status, *_ = far.remit.http("/readyz")
        assert status == 503 and any("store" in detail for detail in problems(far)), problems(far)
        assert answers(near, tokens) == {"AGENT_QUARANTINED"}, "the other one goes on"

        network.mend(1)
        mended = time.monotonic()
        wait_until(lambda: answers(far, tokens) == {"AGENT_QUARANTINED"}, "it heard", RECOVERY)
        slowest_recovery = max(slowest_recovery, time.monotonic() - mended)
        with refused("AGENT_QUARANTINED"):
            far[COORDINATOR].delegate(DEPLOYER, ["kubectl_get"], ["prod/*"])
        near["ops-admin"].reinstate(DEPLOYER)
        wait_until(lambda: is_served(far), "it serves again")
        assert ask(far, tokens[0]) == "TOKEN_REVOKED", "what was revoked meanwhile stays so"
    assure(
        "partition",
        partitions=ROUNDS,
        asked=asked,
        slowest_denial=round(slowest_denial, 2),
        slowest_recovery=round(slowest_recovery, 2),
    )


def ask(world, token):
    return reason(world[DEPLOYER].authorize("kubectl_get", "prod/web", token))


def answers(world, tokens):
    """With each token, and without one, by what policy grants."""
    return {ask(world, token) for token in ["", *tokens]}


def grant(folder):
    """The deployer may do it of its own right too."""
    path = folder / "policy.json"
    policy = json.loads(path.read_text())
    agents = [COORDINATOR, DEPLOYER]
    policy["grants"] = [{"agent": name, "capabilities": ["kubectl_get"], "resources": ["prod/*"]} for name in agents]
    path.write_text(json.dumps(policy))
