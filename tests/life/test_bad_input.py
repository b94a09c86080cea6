"""Whatever is sent: an answer that says what is wrong with it, no secret anywhere, and a server that goes on."""

import re
import secrets
from functools import partial

import grpc
import pytest
import seed_token
from google.protobuf import struct_pb2
from remit_client import Refused, authorize_request, delegate_request, fails_with, malformed, reason
from seed_policy import COORDINATOR, DEPLOYER, VALIDATOR, deployer_token
from waiting import wait_until

INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture(autouse=True)
def it_goes_on(shared):
    yield
    token = deployer_token(shared).token
    assert reason(shared[DEPLOYER].authorize("kubectl_get", "prod/web", token)) == "ALLOWED"


METHODS = ["Authorize", "BatchAuthorize", "Delegate", "BatchDelegate", "Revoke", "Reinstate", "Introspect", "RecordMessage"]
NOT_PROTOBUF = [b"\xff", b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x05ab", b"\x0b" * 200, b"\x0a\x02\xc3\x28"]


@pytest.mark.parametrize("method", METHODS)
def test_bytes_that_are_no_message(shared, method):
    for message in NOT_PROTOBUF:
        with fails_with(INVALID) as seen:
            shared[DEPLOYER].raw(method, message)
        assert seen[0].message


@pytest.mark.parametrize("method", METHODS)
def test_an_empty_message(shared, method):
    if method.startswith("Batch"):
        shared[DEPLOYER].raw(method, b"")
        return
    with fails_with(INVALID) as seen:
        shared[DEPLOYER].raw(method, b"")
    assert seen[0].violations, "it names the field"


AUTHORIZE = [
    ("capability", dict(capability="")),
    ("capability", dict(capability="x" * 129)),
    ("capability", dict(capability="kubectl get")),
    ("capability", dict(capability="kubectl\x00get")),
    ("capability", dict(capability="kübectl")),
    ("resource", dict(resource="")),
    ("agent", dict(agent="a" * 257)),
    ("agent", dict(agent="agent deployer")),
    ("destination", dict(destination='"')),
    ("request_id", dict(request_id="x" * 257)),
    ("request_id", dict(request_id="line\nbreak")),
    ("method", dict(path="/v1/delegate")),
    ("path", dict(method="POST")),
    ("method", dict(method="post", path="/v1/delegate")),
]


@pytest.mark.parametrize("field, changes", AUTHORIZE)
def test_authorize_names_the_field(shared, field, changes):
    with malformed(field):
        shared[DEPLOYER].authorize(**({"capability": "kubectl_get", "resource": "prod/web"} | changes))


DELEGATE = [
    ("to_agent", dict(to="")),
    ("to_agent", dict(to="a" * 257)),
    ("capabilities", dict(capabilities=[])),
    ("capabilities", dict(capabilities=["kubectl_get"] * 257)),
    ("capabilities[1]", dict(capabilities=["kubectl_get", "*'"])),
    ("resources", dict(resources=[])),
    ("resources", dict(resources=["prod/web"] * 65)),
    ("resources[0]", dict(resources=["prod/we*"])),
    ("max_uses", dict(max_uses=0)),
    ("max_uses", dict(max_uses=2**32)),
    ("max_depth", dict(max_depth=0)),
    ("max_depth", dict(max_depth=17)),
    ("ttl", dict(ttl=0)),
    ("ttl", dict(ttl=-1)),
    ("audience", dict(audience=["a b"])),
    ("audience", dict(audience=["svc-demo"] * 17)),
    ("task", dict(task="x" * 257)),
]


@pytest.mark.parametrize("field, changes", DELEGATE)
def test_delegate_names_the_field(shared, field, changes):
    wish = {"to": DEPLOYER, "capabilities": ["kubectl_get"], "resources": ["prod/web"]} | changes
    with malformed(field):
        shared[COORDINATOR].delegate(**wish)


OTHERS = [
    ("target", lambda client: client.revoke()),
    ("all", lambda client: client.revoke(all=False)),
    ("token", lambda client: client.revoke(token="")),
    ("token_id", lambda client: client.revoke(token_id="00")),
    ("quarantine", lambda client: client.revoke(token_id="0" * 32, quarantine=True)),
    ("note", lambda client: client.revoke(token_id="0" * 32, note="\x1b[2J")),
    ("agent", lambda client: client.reinstate("")),
    ("target", lambda client: client.introspect()),
    ("token_id", lambda client: client.introspect(token_id="X" * 32)),
]


@pytest.mark.parametrize("field, ask", OTHERS)
def test_other_verbs_name_the_field(shared, field, ask):
    with malformed(field):
        ask(shared["ops-admin"])


def test_a_service_that_names_no_agent(shared):
    """A failed login is never answered as the service."""
    token = deployer_token(shared).token
    with fails_with(INVALID) as seen:
        shared["svc-demo"].authorize("kubectl_get", "prod/web", token)
    assert seen[0].violations, seen[0]


NOT_CANONICAL = [
    "prod/../web",
    "prod/./web",
    "prod//web",
    "prod/web/",
    "/",
    "//",
    "prod%2Fweb",
    "prod\\web",
    "prod/web?x=1",
    "prod/web#x",
    "prod/web;x",
    "prod/*",
    "*",
    "prod/we b",
    "prod/web\n",
    "prod/wéb",
    "prod/․․/web",
    "x" * 1025,
]


def test_resources_that_are_not_canonical(shared):
    token = deployer_token(shared, resources=["*"]).token
    for resource in NOT_CANONICAL:
        assert reason(shared[DEPLOYER].authorize("kubectl_get", resource, token)) == "RESOURCE_NOT_CANONICAL", resource
    answers = shared[DEPLOYER].batch_authorize(authorize_request("kubectl_get", name, token) for name in NOT_CANONICAL)
    assert {reason(answer) for answer in answers} == {"RESOURCE_NOT_CANONICAL"}
    assert reason(shared[DEPLOYER].authorize("kubectl_get", "prod/web", token)) == "ALLOWED", "nothing was spent"


def test_context(shared):
    def deep(levels):
        return {"a": deep(levels - 1)} if levels else 1

    def ask(context):
        message = struct_pb2.Struct()
        message.update(context)
        return shared[DEPLOYER].authorize("kubectl_get", "prod/web", context=message)

    assert reason(ask(deep(8))) == "TOKEN_REQUIRED", "8 levels are taken"
    for context in (deep(9), deep(20), {"text": "x" * 9000}):
        with malformed("context"):
            ask(context)


def test_a_context_beyond_any_nesting(shared):
    # {"a": {"a": …}}: each level a struct_value in a fields entry. Written by hand: the library refuses to.
    value = b"\x1a\x00"
    for _ in range(2000):
        entry = b"\x0a\x01a\x12" + varint(len(value)) + value
        struct = b"\x0a" + varint(len(entry)) + entry
        value = b"\x2a" + varint(len(struct)) + struct
    entry = b"\x0a\x01a\x12" + varint(len(value)) + value
    struct = b"\x0a" + varint(len(entry)) + entry
    message = authorize_request("kubectl_get", "prod/web").SerializeToString()
    with fails_with(INVALID):
        shared[DEPLOYER].raw("Authorize", message + b"\x2a" + varint(len(struct)) + struct)


def varint(number):
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out + bytes([number]))


def test_batches(shared):
    question = authorize_request("kubectl_get", "prod/web")
    wish = delegate_request(DEPLOYER, ["kubectl_get"], ["prod/web"])
    assert len(shared[DEPLOYER].batch_authorize([question] * 100)) == 100
    assert len(shared[COORDINATOR].batch_delegate([wish] * 100)) == 100
    with malformed("requests"):
        shared[DEPLOYER].batch_authorize([question] * 101)
    with malformed("requests"):
        shared[COORDINATOR].batch_delegate([wish] * 101)


def bad_seals(token):
    payload, mac = token.split(".")
    other = mac[:-1] + ("0" if mac[-1] != "0" else "1")
    return {
        "another mac": (f"{payload}.{other}", "TOKEN_SEAL_INVALID"),
        "another payload": (("A" if payload[0] != "A" else "B") + f"{payload[1:]}.{mac}", "TOKEN_SEAL_INVALID"),
        "no mac": (payload, "TOKEN_MALFORMED"),
        "an empty mac": (f"{payload}.", "TOKEN_MALFORMED"),
        "a short mac": (f"{payload}.{mac[:-2]}", "TOKEN_MALFORMED"),
        "a long mac": (f"{payload}.{mac}00", "TOKEN_MALFORMED"),
        "upper case": (f"{payload}.{mac.upper()}", "TOKEN_MALFORMED"),
        "no payload": (f".{mac}", "TOKEN_MALFORMED"),
        "three parts": (f"{payload}.{mac}.{mac}", "TOKEN_MALFORMED"),
        "a space": (f" {token}", "TOKEN_MALFORMED"),
        "a line end": (f"{token}\n", "TOKEN_MALFORMED"),
        "no padding": (f"{payload.rstrip('=')}.{mac}", "TOKEN_MALFORMED"),
        "too much padding": (f"{payload}=.{mac}", "TOKEN_MALFORMED"),
        "the other alphabet": (f"{payload[:-4]}+/==.{mac}", "TOKEN_MALFORMED"),
        "4 KiB and a byte": ("A" * (4097 - 65) + "." + mac, "TOKEN_MALFORMED"),
        "a megabyte": ("A" * 1_000_000, "TOKEN_MALFORMED"),
    }


def padded_token(world):
    """One whose payload ends in padding: that depends on its length."""
    tokens = (deployer_token(world, task="x" * length).token for length in range(1, 4))
    return next(token for token in tokens if "=." in token)


def test_seals(shared):
    token = padded_token(shared)
    for what, (bad, why) in bad_seals(token).items():
        answer = shared[DEPLOYER].authorize("kubectl_get", "prod/web", bad)
        assert reason(answer) == why, (what, answer)
    assert reason(shared[DEPLOYER].authorize("kubectl_get", "prod/web", token)) == "ALLOWED"


def test_every_place_for_a_token_refuses_a_bad_one(shared):
    bad = f"{'QUFB' * 20}.{'0' * 64}"
    denied = grpc.StatusCode.PERMISSION_DENIED
    with fails_with(denied):
        shared[DEPLOYER].delegate(VALIDATOR, ["kubectl_get"], ["prod/web"], parent=bad)
    with fails_with(denied):
        shared[DEPLOYER].revoke(token=bad)
    seen = shared[DEPLOYER].introspect(token=bad)
    assert not seen.active and reason(seen) == "TOKEN_SEAL_INVALID"


def test_a_message_over_the_limit(shared):
    with fails_with(grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.RESOURCE_EXHAUSTED, INVALID):
        shared[DEPLOYER].authorize("kubectl_get", "prod/web", "A" * (1024 * 1024 + 1))


def test_an_unknown_method_or_service(shared):
    for path in ("/remit.v1.PolicyDecisionService/Nothing", "/remit.v2.PolicyDecisionService/Authorize", "/x"):
        method = shared[DEPLOYER].channel.unary_unary(path)
        with fails_with(grpc.StatusCode.UNIMPLEMENTED):
            shared[DEPLOYER].call(method, b"")


def test_no_token_is_written_anywhere(serve):
    """At the noisiest log level, whatever becomes of the token."""
    world = serve(REMIT_TELEMETRY_LOG="trace")
    deployer, key = world[DEPLOYER], world.remit.hmac_key()
    planted = f"planted{secrets.token_hex(12)}"
    watching = world["ops-admin"].watch(after_sequence=0)
    given = deployer_token(world, delegatable=True)
    child = deployer.delegate(VALIDATOR, ["kubectl_get"], ["prod/web"], parent=given.token)
    again = deployer_token(world)
    tokens = [given.token, child.token, again.token]
    tokens += [planted, f"{planted}.{planted}", planted * 500]
    tokens += [seed_token.issue(key, COORDINATOR, DEPLOYER, ["kubectl_get"], ["prod/*"], **{planted: planted})]
    tokens += [seed_token.seal_bytes(key, planted.encode()), seed_token.seal_bytes(key, f'{{"{planted}'.encode())]
    for token in tokens:
        questions = [
            (world[VALIDATOR].authorize, ("kubectl_get", "prod/web", token)),
            (deployer.authorize, ("kubectl_get", "prod/web", token)),
            (deployer.delegate, (VALIDATOR, ["kubectl_get"], ["prod/web"], token)),
            (partial(deployer.introspect, token=token), ()),
            (partial(deployer.revoke, token=token), ()),
        ]
        for ask, arguments in questions:
            try:
                said = str(ask(*arguments))
            except Refused as error:
                said = str(error)
            assert planted not in said, "not even to the caller"

    final = world.administrator().status().event_sequence
    wait_until(lambda: len(world.remit.audit_lines()) >= final, "the audit file has all events")
    events = []
    while not events or events[-1].sequence < final:
        events.append(next(watching))
    watching.call.cancel()
    written = {
        "log": world.remit.log(),
        "standard output": world.remit.printed(),
        "audit file": "\n".join(world.remit.audit_lines()),
        "events": "\n".join(map(str, events)),
        "metrics": world.remit.http("/metrics")[2],
    }
    assert '"level":"TRACE"' in written["log"] and len(events) >= 10, "there was something to find it in"
    secrets_of_tokens = [planted] + [part for token in tokens[:3] for part in token.split(".")]
    secrets_of_tokens += [re.sub("=+$", "", token.split(".")[0])[-40:] for token in tokens[:3]]
    secrets_of_tokens += [key.decode(errors="replace")]
    for place, text in written.items():
        for secret in secrets_of_tokens:
            assert secret not in text, f"{place} has a secret"
