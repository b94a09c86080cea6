"""Tokens go both ways between Remit and a program written from the source document."""

import json
import time

import pytest
import seed_token
from remit_client import reason, refused
from seed_policy import ANALYST, COORDINATOR, DEPLOYER, VALIDATOR, deployer_token, validator_token
from waiting import wait_until


@pytest.fixture(scope="module")
def key(shared):
    return shared.remit.hmac_key()


@pytest.fixture(scope="module")
def after_the_start(shared):
    """Until the second of the start is over, nobody can tell a new foreign token from one used before it."""
    fence = shared.administrator().status().fence.seconds
    wait_until(lambda: time.time() >= fence + 1, "the second of the start is over")
    return fence


def issue(key, issuer=COORDINATOR, holder=DEPLOYER, capabilities=("kubectl_get",), resources=("prod/*",), **more):
    return seed_token.issue(key, issuer, holder, capabilities, resources, **more)


def test_the_key_is_the_files_bytes(key):
    assert len(key) >= 32 and b"\n" not in key


def test_such_a_validator_accepts_our_tokens(shared, key):
    root, child = validator_token(shared)
    claims = seed_token.validate(key, root.token, DEPLOYER, "kubectl_get", "prod/web")
    assert claims["max_uses"] == 1 and claims["exp"] - claims["iat"] == 300 and claims["delegatable"] is True
    claims = seed_token.validate(key, child.token, VALIDATOR, "kubectl_get", "prod/web")
    assert (claims["iss"], claims["chain"]) == (DEPLOYER, [COORDINATOR, DEPLOYER, VALIDATOR])
    assert claims["delegatable"] is False
    for presenter, capability, resource, why in [
        (COORDINATOR, "kubectl_get", "prod/web", "holder"),
        (VALIDATOR, "kubectl_apply", "prod/web", "capability"),
        (VALIDATOR, "kubectl_get", "prod/db", "resource"),
    ]:
        with pytest.raises(seed_token.Invalid, match=why):
            seed_token.validate(key, child.token, presenter, capability, resource)


def test_our_tokens_have_the_documents_shape(shared):
    payload, mac = deployer_token(shared).token.split(".")
    assert len(payload) % 4 == 0, "base64url with padding"
    assert len(mac) == 64 and set(mac) <= set("0123456789abcdef")


def test_a_foreign_token_is_good_once(shared, key, after_the_start):
    token = issue(key)
    deployer = shared[DEPLOYER]
    seen = deployer.introspect(token=token)
    assert seen.active and seen.foreign and seen.depth == 1
    answer = deployer.authorize("kubectl_get", "prod/web", token)
    assert reason(answer) == "ALLOWED", answer
    assert list(answer.delegation_chain) == [COORDINATOR, DEPLOYER] and answer.token_id
    assert reason(deployer.authorize("kubectl_get", "prod/web", token)) == "TOKEN_USES_EXHAUSTED"


def test_a_foreign_token_can_be_handed_on(shared, key, after_the_start):
    parent = issue(key, delegatable=True, resources=["prod/hand-on"])
    child = shared[DEPLOYER].delegate(VALIDATOR, ["kubectl_get"], ["prod/hand-on"], parent=parent)
    assert (child.depth, child.parent_remaining_uses) == (2, 0)
    assert reason(shared[VALIDATOR].authorize("kubectl_get", "prod/hand-on", child.token)) == "ALLOWED"
    assert reason(shared[DEPLOYER].authorize("kubectl_get", "prod/hand-on", parent)) == "TOKEN_USES_EXHAUSTED"
    with refused("TOKEN_USES_EXHAUSTED"):
        shared[DEPLOYER].delegate(VALIDATOR, ["kubectl_get"], ["prod/hand-on"], parent=parent)


def test_a_foreign_token_from_before_the_start(shared, key, after_the_start):
    for iat in (after_the_start, after_the_start - 100):
        token = issue(key, iat=iat, exp=iat + 290, resources=["prod/before"])
        assert reason(shared[DEPLOYER].authorize("kubectl_get", "prod/before", token)) == "TOKEN_FENCED"


NOW = int(time.time())
REFUSED = {
    "TOKEN_EXPIRED": dict(iat=NOW - 300, exp=NOW - 1),
    "TOKEN_NOT_YET_VALID": dict(iat=NOW + 3600, exp=NOW + 3700),
    "TOKEN_LIFETIME_TOO_LONG": dict(ttl_seconds=301),
    "USES_NOT_ALLOWED": dict(max_uses=5),
    "DELEGATION_NOT_ALLOWED": dict(issuer=ANALYST),
    "CAPABILITY_NOT_GRANTED": dict(capabilities=["read_file"]),
    "RESOURCE_NOT_GRANTED": dict(resources=["staging/*"]),
    "TOKEN_WRONG_HOLDER": dict(holder=ANALYST),
    "TOKEN_FENCED": dict(jti="0" * 32),
}


@pytest.mark.parametrize("why", REFUSED)
def test_a_foreign_token_is_refused(shared, key, after_the_start, why):
    token = issue(key, **REFUSED[why])
    assert reason(shared[DEPLOYER].authorize("kubectl_get", "prod/web", token)) == why


MALFORMED = {
    "a prefix that is no segment": dict(resources=["/data/rep*"]),
    "no resources": dict(resources=[]),
    "no capabilities": dict(capabilities=[]),
    "no uses": dict(max_uses=0),
    "negative uses": dict(max_uses=-1),
    "uses that are not whole": dict(max_uses=1.5),
    "a time that is not whole": dict(iat=time.time()),
    "an unknown claim": dict(admin=True),
    "null": dict(delegatable=None),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_token_with_a_good_seal(shared, key, what):
    token = issue(key, **MALFORMED[what])
    assert reason(shared[DEPLOYER].authorize("kubectl_get", "prod/web", token)) == "TOKEN_MALFORMED"


def test_a_claim_that_is_there_twice(shared, key):
    claims = json.dumps(
        {"iss": COORDINATOR, "sub": DEPLOYER, "cap": ["kubectl_get"], "max_uses": 1, "delegatable": False}
    )
    times = f'"iat": {NOW}, "exp": {NOW + 60}, "res": ["prod/web"], "res": ["*"]'
    token = seed_token.seal_bytes(key, f"{claims[:-1]}, {times}}}".encode())
    assert reason(shared[DEPLOYER].authorize("kubectl_get", "prod/web", token)) == "TOKEN_MALFORMED"


def test_another_key(shared):
    token = issue(b"k" * 32)
    assert reason(shared[DEPLOYER].authorize("kubectl_get", "prod/web", token)) == "TOKEN_SEAL_INVALID"


def test_a_key_that_is_not_shared_opens_no_foreign_tokens(serve):
    world = serve(is_dev=False)
    config = (world.remit.folder / "remit.toml").read_text()
    assert "foreign = true" in config, "the example says so"
    world.close()
    world.remit.stop()
    (world.remit.folder / "remit.toml").write_text(config.replace("foreign = true", "foreign = false"))
    world.remit.start()
    fence = world.administrator().status().fence.seconds
    wait_until(lambda: time.time() >= fence + 1, "the second of the start is over")
    foreign = issue(world.remit.hmac_key())
    answer = world[DEPLOYER].authorize("kubectl_get", "prod/web", foreign)
    assert reason(answer) == "TOKEN_MALFORMED" and "foreign" in answer.message, answer
    own = deployer_token(world).token
    assert reason(world[DEPLOYER].authorize("kubectl_get", "prod/web", own)) == "ALLOWED"
