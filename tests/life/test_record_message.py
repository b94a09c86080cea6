"""RecordMessage: what one agent answered another, in the audit log, by an enforcement point."""

import json

import grpc
import pytest
from remit_client import Refused, fails_with, malformed, reason, refused
from remit.v1 import decision_service_pb2 as pb
from seed_policy import ANALYST, COORDINATOR, DEPLOYER, deployer_token
from waiting import wait_until

SVC = "svc-demo"


def record(client, from_agent=DEPLOYER, to_agent=COORDINATOR, **more):
    message = pb.RecordMessageRequest(from_agent=from_agent, to_agent=to_agent, **more)
    return client.call(client.decisions.RecordMessage, message).sequence


def line_at(world, sequence):
    def found():
        return next((line for line in world.remit.audit() if line["sequence"] == sequence), None)

    return wait_until(found, f"line {sequence}")


def denied_to(world, caller):
    def found():
        denied = (line for line in world.remit.audit() if (line["message_type"], line.get("caller")) == ("response", caller))
        return next((line for line in denied if line["result"] == "denied"), None)

    return wait_until(found, "a denial of a response")


def test_a_response_is_an_event(shared):
    token = deployer_token(shared)
    with shared["ops-admin"].watch(message_types=["response"]) as watching:
        # The subscription is there before its first message.
        wait_until(lambda: shared.remit.metrics()["remit_subscribers"] == 1, "it watches")
        sequence = record(shared[SVC], token_id=token.token_id, task="t-7", text="deployed web, 3 of 3 ready")
        seen = next(watching)
    line = line_at(shared, sequence)
    assert list(line)[:10] == list(shared.remit.audit()[0])[:10]
    told = {key: line[key] for key in ("message_type", "from_agent", "to_agent", "token_id", "result", "reason")}
    assert told == {
        "message_type": "response",
        "from_agent": DEPLOYER,
        "to_agent": COORDINATOR,
        "token_id": token.token_id,
        "result": "accepted",
        "reason": "ALLOWED",
    }
    assert (line["task"], line["caller"], line["message"]) == ("t-7", SVC, "deployed web, 3 of 3 ready")
    assert (line["delegation_chain"], line["delegation_depth"], line["capabilities_used"]) == ([DEPLOYER], 0, [])
    assert (seen.sequence, seen.message, seen.message_type) == (sequence, line["message"], "response")
    assert shared.remit.metrics()['remit_decisions_total{reason="ALLOWED",result="accepted",verb="record_message"}'] >= 1


def test_a_token_that_is_put_where_text_belongs_is_withheld(shared):
    token = deployer_token(shared).token
    sequence = record(shared[SVC], text=f"I got {token} from it")
    assert line_at(shared, sequence)["message"] == "I got [token withheld] from it"
    shared[DEPLOYER].authorize("kubectl_get", token, token)
    shared[SVC].authorize("kubectl_get", "prod/web", agent=DEPLOYER, token=token)
    payload, seal = token.split(".")
    text = wait_until(lambda: shared.remit.audit_lines() and shared.remit.folder.joinpath("audit.jsonl").read_text(), "it is written")
    assert seal not in text and seal[:32] not in text


def test_its_text_can_not_break_a_line_or_a_terminal(shared):
    text = 'a\n{"sequence":1}\r\x1b[31mred\x00\u202e"quoted" größer'
    line = line_at(shared, record(shared[SVC], text=text))
    assert line["message"] == 'a\ufffd{"sequence":1}\ufffd\ufffd[31mred\ufffd\ufffd"quoted" größer'
    assert "message" not in line_at(shared, record(shared[SVC]))
    assert line_at(shared, record(shared[SVC], text="x" * 1024))["message"] == "x" * 1024


@pytest.mark.parametrize(
    "field, more",
    [
        ("from_agent", dict(from_agent="")),
        ("from_agent", dict(from_agent="a b")),
        ("to_agent", dict(to_agent="")),
        ("to_agent", dict(to_agent="a" * 257)),
        ("token_id", dict(token_id="x")),
        ("task", dict(task="a\nb")),
        ("task", dict(task="x" * 257)),
        ("text", dict(text="x" * 1025)),
    ],
)
def test_what_is_wrong_is_named(shared, field, more):
    with malformed(field):
        record(shared[SVC], **more)


def test_only_enforcement_points_may(shared):
    for client in (shared[DEPLOYER], shared["ops-admin"]):
        with refused("CALLER_NOT_ENFORCEMENT_POINT"):
            record(client, from_agent=client.name, text="words of no worth")
    assert denied_to(shared, "ops-admin")["from_agent"] == "ops-admin"
    assert "words of no worth" not in str(shared.remit.audit()), "what may not be recorded is not"
    credentials = grpc.ssl_channel_credentials((shared.remit.folder / "ca.pem").read_bytes())
    with shared.with_credentials(credentials) as nobody, fails_with(grpc.StatusCode.UNAUTHENTICATED):
        record(nobody)
    with shared.with_credentials(credentials, metadata=[("x-remit-agent", SVC)]) as claimed:
        with refused("CALLER_NOT_ENFORCEMENT_POINT") as seen:
            record(claimed)
    assert "kind of evidence" in seen[0].message, "a name that nobody vouches for holds no role"


def test_agents_that_policy_does_not_know_have_said_nothing(shared):
    for more in (dict(from_agent="agent-nobody"), dict(to_agent="agent-nobody")):
        with refused("AGENT_UNKNOWN"):
            record(shared[SVC], **more)


def test_the_long_form_limits_who_is_spoken_for(folder, serve):
    policy = json.loads((folder / "policy.json").read_text())
    policy["enforcement_points"] = [{"agent": ANALYST, "agents": [DEPLOYER]}]
    policy["rate_limits"] = {"authorize": {"per_second": 1, "burst": 3}}
    (folder / "policy.json").write_text(json.dumps(policy))
    world = serve()
    assert record(world[ANALYST], DEPLOYER, COORDINATOR) > 0
    assert record(world[ANALYST], ANALYST, COORDINATOR) > 0, "itself"
    with refused("CALLER_NOT_ENFORCEMENT_POINT") as seen:
        record(world[ANALYST], COORDINATOR, DEPLOYER)
    assert COORDINATOR in seen[0].message

    with refused("RATE_LIMITED", grpc.StatusCode.RESOURCE_EXHAUSTED):
        for _ in range(5):
            record(world[ANALYST], DEPLOYER, COORDINATOR)


def test_what_can_not_be_recorded_is_refused(serve):
    world = serve(REMIT_AUDIT_FILE="/dev/full")

    def refusal():
        try:
            record(world[SVC])
        except Refused as refusal:
            return refusal
        return None

    refused = wait_until(refusal, "writing fails")
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "AUDIT_UNAVAILABLE")


def test_a_quarantined_agent_is_heard_and_a_quarantined_caller_is_not(serve):
    world = serve()
    world["ops-admin"].revoke(agent=DEPLOYER, quarantine=True)
    assert record(world[SVC], DEPLOYER, COORDINATOR, text="still talking") > 0
    world["ops-admin"].revoke(agent=SVC, quarantine=True)
    with refused("AGENT_QUARANTINED"):
        record(world[SVC], DEPLOYER, COORDINATOR)
    assert reason(world[COORDINATOR].authorize("kubectl_get", "prod/web")) != "ALLOWED"
