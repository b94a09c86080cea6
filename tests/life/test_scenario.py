"""The scenario of the example policy over mTLS: a chain of two hops, and every way in which it may not be used."""

import time

import grpc
import pytest
from remit_client import authorize_request, delegate_request, fails_with, identity_method, reason, refused
from seed_policy import AGENTS, ANALYST, COORDINATOR, DEPLOYER, VALIDATOR, WRITER, deployer_token, validator_token
from waiting import wait_until


def test_coordinator_to_deployer_to_validator(shared):
    root, child = validator_token(shared)
    assert list(root.delegation_chain) == [COORDINATOR, DEPLOYER]
    assert (root.depth, root.max_uses) == (1, 1)
    assert not root.HasField("parent_remaining_uses")
    assert list(child.delegation_chain) == [COORDINATOR, DEPLOYER, VALIDATOR]
    assert (child.depth, child.max_uses, child.parent_remaining_uses) == (2, 1, 0)
    assert list(child.capabilities) == ["kubectl_get"] and list(child.resources) == ["prod/web"]
    assert 0 < child.expires_at.seconds - time.time() <= 300

    answer = shared[VALIDATOR].authorize("kubectl_get", "prod/web", child.token)

    assert reason(answer) == "ALLOWED"
    assert list(answer.delegation_chain) == [COORDINATOR, DEPLOYER, VALIDATOR]
    assert (answer.token_id, answer.remaining_uses) == (child.token_id, 0)
    assert answer.expires_at == child.expires_at
    assert answer.agent.agent == VALIDATOR and identity_method(answer.agent) == "SPIFFE"
    assert answer.agent.subject == f"spiffe://cluster.local/ns/ai-agents/sa/{VALIDATOR}-sa"
    assert not answer.agent.is_self_asserted
    assert answer.decision_id and answer.policy_revision >= 1 and len(answer.policy_digest) == 64


def test_second_use(shared):
    token = deployer_token(shared).token
    deployer = shared[DEPLOYER]
    assert reason(deployer.authorize("kubectl_get", "prod/web", token)) == "ALLOWED"
    assert reason(deployer.authorize("kubectl_get", "prod/web", token)) == "TOKEN_USES_EXHAUSTED"


def test_a_dry_run_spends_nothing(shared):
    token = deployer_token(shared).token
    deployer = shared[DEPLOYER]
    for _ in range(3):
        dry = deployer.authorize("kubectl_get", "prod/web", token, dry_run=True)
        assert reason(dry) == "ALLOWED" and dry.dry_run and dry.remaining_uses == 1
    assert reason(deployer.authorize("kubectl_get", "prod/web", token)) == "ALLOWED"
    assert reason(deployer.authorize("kubectl_get", "prod/web", token, dry_run=True)) == "TOKEN_USES_EXHAUSTED"


def test_wrong_holder(shared):
    token = deployer_token(shared).token
    for other in (COORDINATOR, VALIDATOR, ANALYST, WRITER):
        assert reason(shared[other].authorize("kubectl_get", "prod/web", token)) == "TOKEN_WRONG_HOLDER"
    assert reason(shared[DEPLOYER].authorize("kubectl_get", "prod/web", token)) == "ALLOWED", "nothing was spent"


def test_wider_capability_or_resource(shared):
    token = deployer_token(shared, delegatable=True).token
    deployer = shared[DEPLOYER]
    assert reason(deployer.authorize("kubectl_apply", "prod/web", token)) == "CAPABILITY_NOT_GRANTED"
    assert reason(deployer.authorize("kubectl_get", "staging/web", token)) == "RESOURCE_NOT_GRANTED"
    assert reason(deployer.authorize("kubectl_get", "prod", token)) == "RESOURCE_NOT_GRANTED"
    assert reason(deployer.authorize("kubectl_get", "production/web", token)) == "RESOURCE_NOT_GRANTED"
    with refused("DELEGATION_WIDENS"):
        deployer.delegate(VALIDATOR, ["kubectl_apply"], ["prod/web"], parent=token)
    with refused("DELEGATION_WIDENS"):
        deployer.delegate(VALIDATOR, ["kubectl_get"], ["*"], parent=token)
    with refused("CAPABILITY_NOT_GRANTED"):
        deployer.delegate(VALIDATOR, ["read_file"], ["prod/web"], parent=token)
    assert reason(deployer.authorize("kubectl_get", "prod/web", token)) == "ALLOWED", "nothing was spent"


def test_more_than_the_policy_lets_anyone_have(shared):
    coordinator = shared[COORDINATOR]
    with refused("CAPABILITY_NOT_GRANTED"):
        coordinator.delegate(DEPLOYER, ["read_file"], ["prod/*"])
    with refused("LIFETIME_NOT_ALLOWED"):
        coordinator.delegate(DEPLOYER, ["kubectl_get"], ["prod/*"], ttl=301)
    with refused("USES_NOT_ALLOWED"):
        coordinator.delegate(DEPLOYER, ["kubectl_get"], ["prod/*"], max_uses=2)
    with refused("DELEGATION_CYCLE"):
        coordinator.delegate(COORDINATOR, ["kubectl_get"], ["prod/*"])
    with refused("DELEGATION_NOT_ALLOWED"):
        coordinator.delegate(VALIDATOR, ["kubectl_get"], ["prod/*"])


def test_a_token_that_is_not_for_handing_on(shared):
    token = deployer_token(shared).token
    with refused("TOKEN_NOT_DELEGATABLE"):
        shared[DEPLOYER].delegate(VALIDATOR, ["kubectl_get"], ["prod/web"], parent=token)


def test_third_hop(shared):
    _, child = validator_token(shared, delegatable=True)
    for target in (WRITER, ANALYST):
        with refused("DELEGATION_DEPTH_EXCEEDED"):
            shared[VALIDATOR].delegate(target, ["kubectl_get"], ["prod/web"], parent=child.token)
    assert reason(shared[VALIDATOR].authorize("kubectl_get", "prod/web", child.token)) == "ALLOWED"


def test_a_parent_gives_its_use_away(shared):
    root, child = validator_token(shared)
    assert reason(shared[DEPLOYER].authorize("kubectl_get", "prod/web", root.token)) == "TOKEN_USES_EXHAUSTED"
    assert reason(shared[VALIDATOR].authorize("kubectl_get", "prod/web", child.token)) == "ALLOWED"


def test_expired(shared):
    given = deployer_token(shared, ttl=1)
    deployer = shared[DEPLOYER]

    def is_over():
        seen = deployer.introspect(token_id=given.token_id)
        return not seen.active and reason(seen)

    assert wait_until(is_over, "the token expires") in ("TOKEN_EXPIRED", "TOKEN_FENCED")
    answer = deployer.authorize("kubectl_get", "prod/web", given.token)
    assert reason(answer) == "TOKEN_EXPIRED"
    assert time.time() >= given.expires_at.seconds


def test_revoked_parent(shared):
    root, child = validator_token(shared)
    revoked = shared[COORDINATOR].revoke(token_id=root.token_id)
    assert revoked.HasField("revoked_at")
    assert reason(shared[VALIDATOR].authorize("kubectl_get", "prod/web", child.token)) == "TOKEN_REVOKED"
    assert reason(shared[DEPLOYER].authorize("kubectl_get", "prod/web", root.token)) == "TOKEN_REVOKED"
    seen = shared[VALIDATOR].introspect(token=child.token)
    assert not seen.active and reason(seen) == "TOKEN_REVOKED"
    assert seen.root_id == root.token_id and list(seen.ancestor_ids) == [root.token_id]


def test_only_the_chain_may_revoke(shared):
    given = deployer_token(shared)
    for target in ({"token": given.token}, {"token_id": given.token_id}):
        with refused("CALLER_NOT_AUTHORIZED"):
            shared[ANALYST].revoke(**target)
    assert reason(shared[DEPLOYER].authorize("kubectl_get", "prod/web", given.token)) == "ALLOWED"


def test_quarantined_and_reinstated(serve):
    world = serve()
    root, child = validator_token(world)
    with refused("CALLER_NOT_AUTHORIZED"):
        world[COORDINATOR].revoke(agent=DEPLOYER, quarantine=True)
    admin = world["ops-admin"]
    admin.revoke(agent=DEPLOYER, quarantine=True, note="it behaved oddly")

    answer = world[VALIDATOR].authorize("kubectl_get", "prod/web", child.token)
    assert (reason(answer), answer.failed_hop) == ("AGENT_QUARANTINED", DEPLOYER)
    assert reason(world[DEPLOYER].authorize("kubectl_get", "prod/web", root.token)) == "AGENT_QUARANTINED"
    with refused("AGENT_QUARANTINED"):
        deployer_token(world)
    assert world.administrator().status().quarantined_agents == 1

    admin.reinstate(DEPLOYER, note="it was the test")
    assert world.administrator().status().quarantined_agents == 0
    assert reason(world[VALIDATOR].authorize("kubectl_get", "prod/web", child.token)) == "TOKEN_REVOKED"
    fresh = deployer_token(world).token
    assert reason(world[DEPLOYER].authorize("kubectl_get", "prod/web", fresh)) == "ALLOWED"


def test_revoke_all(serve):
    world = serve()
    before = deployer_token(world).token
    with refused("CALLER_NOT_AUTHORIZED"):
        world[COORDINATOR].revoke(all=True)
    world["ops-admin"].revoke(all=True)
    assert reason(world[DEPLOYER].authorize("kubectl_get", "prod/web", before)) == "TOKEN_REVOKED"
    after = deployer_token(world).token
    assert reason(world[DEPLOYER].authorize("kubectl_get", "prod/web", after)) == "ALLOWED", (
        "new roots are good at once"
    )


@pytest.mark.parametrize("agent", AGENTS)
def test_delegate_without_a_parent(shared, agent):
    target = DEPLOYER if agent != DEPLOYER else VALIDATOR
    if agent == COORDINATOR:
        assert shared[agent].delegate(target, ["kubectl_get"], ["prod/web"]).depth == 1
        return
    with refused("DELEGATION_NOT_ALLOWED") as seen:
        shared[agent].delegate(target, ["kubectl_get"], ["prod/web"])
    assert "parent" in seen[0].message, "it says what to do"


WITH_A_PARENT = [
    (COORDINATOR, WRITER, "TOKEN_WRONG_HOLDER"),
    (DEPLOYER, VALIDATOR, None),
    (DEPLOYER, WRITER, "DELEGATION_NOT_ALLOWED"),
    (ANALYST, VALIDATOR, "DELEGATION_NOT_ALLOWED"),
    (WRITER, VALIDATOR, "DELEGATION_NOT_ALLOWED"),
    (VALIDATOR, WRITER, "DELEGATION_DEPTH_EXCEEDED"),
]


@pytest.mark.parametrize("agent, target, why", WITH_A_PARENT)
def test_delegate_with_a_parent(shared, agent, target, why):
    capability = "read_file" if agent in (ANALYST, WRITER) else "kubectl_get"
    if agent == VALIDATOR:
        parent = validator_token(shared, delegatable=True)[1]
    else:
        holder = DEPLOYER if agent == COORDINATOR else agent
        parent = shared[COORDINATOR].delegate(holder, [capability], ["prod/web"], delegatable=True)

    def ask():
        return shared[agent].delegate(target, [capability], ["prod/web"], parent=parent.token)

    if why:
        with refused(why):
            ask()
    else:
        assert ask().depth == parent.depth + 1


def test_an_enforcement_point_asks_for_the_agent_it_authenticated(shared):
    service = shared["svc-demo"]
    token = deployer_token(shared).token
    assert reason(service.authorize("kubectl_get", "prod/web", token, agent=VALIDATOR)) == "TOKEN_WRONG_HOLDER"
    answer = service.authorize("kubectl_get", "prod/web", token, agent=DEPLOYER)
    assert reason(answer) == "ALLOWED"
    assert identity_method(answer.agent) == "ENFORCEMENT_POINT" and answer.agent.issuer == "svc-demo"
    assert reason(service.authorize("kubectl_get", "prod/web", token, agent="stranger")) == "AGENT_UNKNOWN"


def test_others_speak_for_themselves(shared):
    token = deployer_token(shared).token
    answer = shared[VALIDATOR].authorize("kubectl_get", "prod/web", token, agent=DEPLOYER)
    assert reason(answer) == "CALLER_NOT_ENFORCEMENT_POINT"


def test_nothing_without_a_token(shared):
    for agent in AGENTS:
        assert reason(shared[agent].authorize("kubectl_get", "prod/web")) == "TOKEN_REQUIRED"


def test_an_audience(shared):
    token = deployer_token(shared, audience=["svc-demo"]).token
    assert reason(shared[DEPLOYER].authorize("kubectl_get", "prod/web", token)) == "TOKEN_WRONG_AUDIENCE"
    assert reason(shared["svc-demo"].authorize("kubectl_get", "prod/web", token, agent=DEPLOYER)) == "ALLOWED"


def test_batches_answer_each_in_its_place(shared):
    wishes = [
        delegate_request(DEPLOYER, ["kubectl_get"], ["prod/web"]),
        delegate_request(DEPLOYER, ["kubectl_get"], ["prod/../web"]),
        delegate_request(VALIDATOR, ["kubectl_get"], ["prod/web"]),
    ]
    made, bad, not_allowed = shared[COORDINATOR].batch_delegate(wishes)
    assert made.delegated.depth == 1
    assert reason(bad.refused) == "REQUEST_MALFORMED"
    assert reason(not_allowed.refused) == "DELEGATION_NOT_ALLOWED"

    token = made.delegated.token
    questions = [
        authorize_request("kubectl_apply", "prod/web", token),
        authorize_request("kubectl_get", "prod/web", token),
        authorize_request("kubectl_get", "prod/web", token),
        authorize_request("", "prod/web", token),
    ]
    answers = shared[DEPLOYER].batch_authorize(questions)
    assert [reason(answer) for answer in answers] == [
        "CAPABILITY_NOT_GRANTED",
        "ALLOWED",
        "TOKEN_USES_EXHAUSTED",
        "REQUEST_MALFORMED",
    ]


def test_administration_is_for_administrators(shared):
    assert shared.administrator().status().ready
    with shared.fresh(COORDINATOR, "admin") as coordinator:
        with refused("CALLER_NOT_AUTHORIZED"):
            coordinator.status()
    # The listener for services doesn't know the admin service at all.
    with fails_with(grpc.StatusCode.UNIMPLEMENTED):
        shared["ops-admin"].status()
