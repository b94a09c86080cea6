"""Nodes on one store, as most tests of the store want them, and what they are asked."""

import contextlib
import json

import seed_token
from cluster import RECOVERY, SERVE_AFTER, node
from remit_client import Refused, reason
from remit_process import copy_folder
from seed_policy import COORDINATOR, DEPLOYER
from waiting import wait_until

from remit.v1 import admin_service_pb2


def trusting(template, folder):
    """A dev folder in which the deployer may have more than one use."""
    copy_folder(template, folder)
    path = folder / "policy.json"
    policy = json.loads(path.read_text())
    policy["delegation_rules"][COORDINATOR]["trusted_pairs"] = [DEPLOYER]
    path.write_text(json.dumps(policy))
    return folder


def settings(store, **more):
    scheme, host = ("rediss", "localhost") if store.tls else ("redis", "127.0.0.1")
    how = {
        "REMIT_STATE_BACKEND": "valkey",
        "REMIT_STATE_URL": f"{scheme}://{host}:{store.port}",
        "REMIT_STATE_REPLICAS": "0",
    }
    return how | more


@contextlib.contextmanager
def nodes(template, folder, store, count=1, **more):
    """As many nodes with the keys of one folder, once all of them answer."""
    template = trusting(template, folder / "template")
    with contextlib.ExitStack() as stack:
        worlds = [
            node(stack, copy_folder(template, folder / f"node{number}"), settings(store, **more))
            for number in range(count)
        ]
        for world in worlds:
            wait_until(lambda world=world: ready(world), f"it is ready: {details(world)}", SERVE_AFTER + RECOVERY)
        yield worlds


def rewrite_policy(world, **more):
    """Puts a policy in force that has this in place of what it had."""
    path = world.remit.policy_file
    before = world.administrator().status().policy_revision
    path.write_text(json.dumps(json.loads(path.read_text()) | more))
    wait_until(lambda: world.administrator().status().policy_revision > before, "the policy is read", 5)


def ready(world):
    return world.remit.http("/readyz")[0] == 200


def details(world):
    with contextlib.suppress(Refused):
        return " ".join(world.administrator().status().details)
    return ""


def get(world, token, agent=DEPLOYER):
    return reason(world[agent].authorize("kubectl_get", "prod/web", token))


def foreign(key, **changes):
    """A token of another issuer that holds the key."""
    return seed_token.issue(key, COORDINATOR, DEPLOYER, ["kubectl_get"], ["prod/*"], **changes)


def hears(world, agent):
    """That this node knows of a quarantine."""
    return any(entry.agent == agent for entry in listing(world).quarantines)


def listing(world):
    """Revocations and quarantines as the node knows them."""
    admin = world.administrator()
    return admin.call(admin.administration.ListRevocations, admin_service_pb2.ListRevocationsRequest())


def pairs(flat):
    return zip(flat[::2], flat[1::2], strict=True)


def stored(store):
    """Quarantines as the store has them: agent to `version:q`, or `version:r` where lifted."""
    return dict(pairs(store.call("HGETALL", "remit:{0}:quarantines")))
