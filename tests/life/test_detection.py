"""What an agent attempts, and what follows: limits, the kill switch that Remit pulls itself, anomalies that are told."""

import http.client
import json
import ssl
import time
from pathlib import Path

import grpc
from envoy.service.auth.v3 import attribute_context_pb2, external_auth_pb2
from malfunctioning import Malfunctioning
from remit_client import admin, authorize_request, reason, refused
from seed_policy import ANALYST, COORDINATOR, DEPLOYER, VALIDATOR, deployer_token
from test_audit_durability import traced
from test_durability import trust_deployer
from waiting import wait_until

# Two enforcement points: the configuration lists the one, the policy the other.
GATE, MESH = "svc-demo", "agent-writer"
AFTER = {"escalation_attempts": 3, "reuse_attempts": 3, "window_seconds": 60}
ESCALATED = "agent_capability_escalation_attempts_total"
REUSED = "agent_token_reuse_attempts_total"
TLS = {
    "REMIT_HTTP_TLS_CERTIFICATE": "server.pem",
    "REMIT_HTTP_TLS_KEY": "server.key",
    "REMIT_HTTP_CLIENT_CA": "ca.pem",
}


def with_policy(folder, **more):
    """The example policy with more in it, in force at the start or soon."""
    path = Path(folder) / "policy.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"enforcement_points": [MESH]} | more))


def escalate(client, token, agent=""):
    return reason(client.authorize("kubectl_apply", "prod/web", token, agent=agent))


def quarantines(world):
    administrator = world.administrator()
    listed = administrator.call(administrator.administration.ListRevocations, admin.ListRevocationsRequest())
    return {entry.agent: list(entry.sources) for entry in listed.quarantines}


def lines(world, kind):
    return [line for line in world.remit.audit() if line["message_type"] == kind]


def test_an_agent_that_goes_on_asking_for_more_is_quarantined_and_stays_so(serve, folder):
    with_policy(folder, quarantine_after=AFTER)
    world = serve(is_dev=False)
    token = deployer_token(world).token
    deployer = world[DEPLOYER]
    for _ in range(2):
        assert escalate(deployer, token) == "CAPABILITY_NOT_GRANTED"
    assert quarantines(world) == {}
    assert escalate(deployer, token) == "CAPABILITY_NOT_GRANTED", "the last attempt is answered for what it was"
    assert quarantines(world) == {DEPLOYER: ["automatic"]}, "and when it is answered, the agent is under quarantine"
    assert reason(deployer.authorize("kubectl_get", "prod/web", token)) == "AGENT_QUARANTINED"
    with refused("AGENT_QUARANTINED"):
        deployer_token(world)

    [line] = wait_until(lambda: lines(world, "quarantine"), "the event is written")
    assert (line["target"], line["to_agent"], line["from_agent"]) == (DEPLOYER, DEPLOYER, "")
    assert line["note"] == "automatic: 3 escalation attempts in 60 s"
    assert (line["result"], line["reason"]) == ("accepted", "ALLOWED") and "caller" not in line
    metrics = world.remit.metrics()
    assert metrics["remit_automatic_quarantines_total"] == 1
    assert metrics["remit_automatic_quarantines_withheld_total"] == 0
    assert metrics["remit_quarantined_agents"] == 1

    world.close()
    world.remit.kill()
    world.remit.start()
    assert quarantines(world) == {DEPLOYER: ["automatic"]}, "it was on the disk"
    status = world.administrator().status()
    assert status.quarantined_agents == 1
    assert any(detail.startswith(f"quarantined automatically: {DEPLOYER}") for detail in status.details)
    world["ops-admin"].reinstate(DEPLOYER, note="patched")
    assert quarantines(world) == {}
    assert reason(world[DEPLOYER].authorize("kubectl_get", "prod/web", deployer_token(world).token)) == "ALLOWED"


def test_an_enforcement_point_alone_gets_nobody_quarantined_and_two_do(serve, folder):
    with_policy(folder, quarantine_after=AFTER)
    world = serve(is_dev=False)
    token = deployer_token(world).token
    for _ in range(50):
        assert escalate(world[GATE], token, DEPLOYER) == "CAPABILITY_NOT_GRANTED"
    assert world.remit.metrics()[f'{ESCALATED}{{agent_id="{DEPLOYER}"}}'] == 50, "it is counted for the alert"
    for _ in range(2):
        assert escalate(world[MESH], token, DEPLOYER) == "CAPABILITY_NOT_GRANTED"
    assert quarantines(world) == {}
    assert escalate(world[MESH], token, DEPLOYER) == "CAPABILITY_NOT_GRANTED"
    assert quarantines(world) == {DEPLOYER: ["automatic"]}


def test_a_policy_that_was_made_tighter_while_nothing_ran_gets_nobody_quarantined(serve, folder):
    with_policy(folder, quarantine_after=AFTER | {"window_seconds": 2}, token={"max_ttl_seconds": 2, "default_ttl_seconds": 2})
    world = serve(is_dev=False)
    deployer_token(world, capabilities=["kubectl_apply"])
    world.close()
    world.remit.stop()
    policy = json.loads((folder / "policy.json").read_text())
    policy["delegation_rules"][COORDINATOR]["max_capability_set"].remove("kubectl_apply")
    (folder / "policy.json").write_text(json.dumps(policy))
    world.remit.start()

    def goes_on():
        for _ in range(3):
            with refused("CAPABILITY_NOT_GRANTED"):
                deployer_token(world, capabilities=["kubectl_apply"])

    goes_on()
    assert world.remit.metrics()[f'{ESCALATED}{{agent_id="{COORDINATOR}"}}'] == 3, "it is counted for the alert"
    assert quarantines(world) == {}
    time.sleep(2.1)
    goes_on()
    assert quarantines(world) == {COORDINATOR: ["automatic"]}


def test_an_enforcement_point_that_spends_an_agents_uses_gets_it_quarantined_neither(serve, folder):
    with_policy(folder, quarantine_after=AFTER)
    world = serve(is_dev=False)
    token = deployer_token(world, delegatable=True).token
    uses = [reason(world[GATE].authorize("kubectl_get", "prod/web", token, agent=DEPLOYER)) for _ in range(7)]
    assert (uses[0], uses[-1]) == ("ALLOWED", "TOKEN_USES_EXHAUSTED"), "the last was spent here, and not by the agent"
    for _ in range(4):
        with refused("TOKEN_USES_EXHAUSTED"):
            world[DEPLOYER].delegate(VALIDATOR, ["kubectl_get"], ["prod/web"], parent=token)
        assert reason(world[DEPLOYER].authorize("kubectl_get", "prod/web", token)) == "TOKEN_USES_EXHAUSTED"
    assert world.remit.metrics()[f'{REUSED}{{agent_id="{DEPLOYER}"}}'] >= 8, "it is counted for the alert"
    assert quarantines(world) == {}


def test_what_a_slow_disk_kept_from_an_agent_and_its_retries_get_nobody_quarantined(serve, folder):
    with_policy(folder, quarantine_after=AFTER)
    trust_deployer(folder)
    world = serve(is_dev=False, REMIT_AUDIT_SYNC="each")
    deployer = world[DEPLOYER]
    lost = [deployer_token(world, max_uses=1).token for _ in range(3)]
    parent = deployer_token(world, max_uses=1, delegatable=True).token
    had = deployer_token(world, max_uses=5).token
    # All at once: after the first that waits for the disk in vain nothing is spent any more.
    asked = [authorize_request("kubectl_get", "prod/web", token) for token in lost]
    with traced(world.remit, "fdatasync:delay_enter=900000"):
        answers = [deployer.decisions.Authorize.future(one, timeout=10) for one in asked]
        with refused("AUDIT_UNAVAILABLE", grpc.StatusCode.UNAVAILABLE):
            deployer.delegate(VALIDATOR, ["kubectl_get"], ["prod/web"], parent=parent)
        assert [reason(answer.result()) for answer in answers] == ["AUDIT_UNAVAILABLE"] * 3

    def is_quick_again():
        return reason(deployer.authorize("kubectl_get", "prod/web", had)) == "ALLOWED"

    wait_until(is_quick_again, "the disk is quick again")
    for token in lost:
        assert reason(deployer.authorize("kubectl_get", "prod/web", token)) == "TOKEN_USES_EXHAUSTED", "it stays spent"
    for _ in range(4):
        with refused("TOKEN_USES_EXHAUSTED"):
            deployer.delegate(VALIDATOR, ["kubectl_get"], ["prod/web"], parent=parent)
    assert quarantines(world) == {}, "the slow disk was Remit's own"
    token = deployer_token(world, max_uses=1).token
    assert reason(deployer.authorize("kubectl_get", "prod/web", token)) == "ALLOWED"
    for _ in range(3):
        assert reason(deployer.authorize("kubectl_get", "prod/web", token)) == "TOKEN_USES_EXHAUSTED"
    assert quarantines(world) == {DEPLOYER: ["automatic"]}, "what it had counts as ever"


def test_a_name_and_nothing_else_gets_nobody_quarantined(serve, folder):
    with_policy(folder, quarantine_after=AFTER)
    world = serve()
    token = deployer_token(world).token
    anyone = grpc.ssl_channel_credentials(root_certificates=(folder / "ca.pem").read_bytes())
    with world.with_credentials(anyone, metadata=[("x-remit-agent", DEPLOYER)]) as nobody:
        for _ in range(10):
            assert escalate(nobody, token) == "CAPABILITY_NOT_GRANTED"
    assert quarantines(world) == {}


def test_no_more_agents_than_may_be_are_taken(serve, folder):
    with_policy(folder, quarantine_after=AFTER | {"max_agents": 1})
    world = serve(is_dev=False)
    token = deployer_token(world).token
    for _ in range(3):
        escalate(world[DEPLOYER], token)
    data = world[COORDINATOR].delegate(ANALYST, ["read_file"], ["/data/*"]).token
    for _ in range(10):
        assert reason(world[ANALYST].authorize("read_file", "/etc/passwd", data)) == "RESOURCE_NOT_GRANTED"
    assert quarantines(world) == {DEPLOYER: ["automatic"]}
    assert world.remit.metrics()["remit_automatic_quarantines_withheld_total"] == 1
    withheld = wait_until(lambda: [line for line in lines(world, "quarantine") if line["result"] == "denied"], "it is said")
    assert [(line["target"], line["reason"]) for line in withheld] == [(ANALYST, "RATE_LIMITED")]


def test_the_limits_follow_the_file(serve, folder):
    with_policy(folder)
    world = serve(is_dev=False)
    token = deployer_token(world).token
    for _ in range(5):
        escalate(world[DEPLOYER], token)
    revision = world.administrator().status().policy_revision
    with_policy(folder, quarantine_after=AFTER | {"escalation_attempts": 2})
    wait_until(lambda: world.administrator().status().policy_revision > revision, "the new policy is in force")
    escalate(world[DEPLOYER], token)
    assert quarantines(world) == {}
    escalate(world[DEPLOYER], token)
    assert quarantines(world) == {DEPLOYER: ["automatic"]}


# Rate limits.


def held(agent):
    """The question of a proxy in front of which this agent stands."""
    http_request = attribute_context_pb2.AttributeContext.HttpRequest(method="GET", path="/x", host="h")
    context = attribute_context_pb2.AttributeContext(
        source={"principal": f"spiffe://cluster.local/ns/ai-agents/sa/{agent}-sa"},
        request={"http": http_request},
        context_extensions={"remit-capability": "kubectl_get", "remit-resource": "prod/web"},
    )
    return external_auth_pb2.CheckRequest(attributes=context)


def over_https(world, method, path, agent, body=None, **headers):
    """Status, headers and body of an answer to this agent's certificate."""
    folder = world.remit.folder
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    context.load_cert_chain(folder / f"agents/{agent}.pem", folder / f"agents/{agent}.key")
    connection = http.client.HTTPSConnection("localhost", world.remit.ports["http"], context=context, timeout=10)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    octets = answer.read()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.headers.items()}, json.loads(octets)


def test_who_asks_too_often_is_told_when_to_come_back_at_every_door(serve, folder):
    rate = {"per_second": 1, "burst": 1}
    rules = json.loads((folder / "policy.json").read_text())["delegation_rules"]
    rules[COORDINATOR]["rate_limit"] = rate
    grants = [{"agent": COORDINATOR, "capabilities": ["kubectl_get"], "resources": ["*"]}]
    with_policy(folder, rate_limits={"authorize": rate}, delegation_rules=rules, grants=grants)
    with (folder / "remit.toml").open("a") as config:
        config.write(f'\n[ext_authz]\nclient_certificate_header = {{ "{MESH}" = "x-client-certificate" }}\n')
    world = serve(is_dev=False, **TLS)

    world[COORDINATOR].delegate(DEPLOYER, ["kubectl_get"], ["prod/*"])
    with refused("RATE_LIMITED", grpc.StatusCode.RESOURCE_EXHAUSTED) as seen:
        world[COORDINATOR].delegate(DEPLOYER, ["kubectl_get"], ["prod/*"])
    assert 0 < seen[0].retry_after <= 1 and "come back in" in seen[0].message

    ask = world[DEPLOYER].decisions.Authorize.with_call
    for wanted in ("TOKEN_REQUIRED", "RATE_LIMITED"):
        answer, call = ask(authorize_request("kubectl_get", "prod/web"), timeout=10)
        assert reason(answer) == wanted
    assert 0 < int(dict(call.initial_metadata())["remit-retry-after-ms"]) <= 1000

    check = world[GATE].channel.unary_unary(
        "/envoy.service.auth.v3.Authorization/Check",
        external_auth_pb2.CheckRequest.SerializeToString,
        external_auth_pb2.CheckResponse.FromString,
    )
    for wanted in (403, 429):
        denied = check(held(DEPLOYER), timeout=10).denied_response
        assert denied.status.code == wanted
    assert {option.header.key: option.header.value for option in denied.headers}["retry-after"] == "1"

    pem = (folder / f"agents/{DEPLOYER}.pem").read_text()
    certificate = "".join(line for line in pem.splitlines() if "-----" not in line)
    said = {"x_forwarded_method": "GET", "x_forwarded_uri": "/x", "x_forwarded_host": "h"}
    path = "/v1/check/capability=kubectl_get&resource=prod%2Fweb"
    for wanted in (403, 429):
        status, headers, body = over_https(world, "GET", path, MESH, x_client_certificate=certificate, **said)
        assert status == wanted, body
    assert headers["retry-after"] == "1" and body["reason"] == "RATE_LIMITED"

    question = {
        "subject": {"type": "agent", "id": VALIDATOR},
        "action": {"name": "kubectl_get"},
        "resource": {"type": "resource", "id": "prod/web"},
    }
    for wanted in ("TOKEN_REQUIRED", "RATE_LIMITED"):
        status, _, body = over_https(
            world, "POST", "/access/v1/evaluation", GATE, json.dumps(question), content_type="application/json"
        )
        assert (status, body["decision"], body["context"]["reason"]) == (200, False, wanted), body
    assert 0 < body["context"]["retry_after_ms"] <= 1000

    limited = [line for line in world.remit.audit() if line["reason"] == "RATE_LIMITED"]
    assert {line["message_type"] for line in limited} == {"delegate", "capability_request"}


def test_rate_limits_follow_the_file_and_say_when_to_come_back(serve, folder):
    world = serve(is_dev=False)
    rules = json.loads((folder / "policy.json").read_text())["delegation_rules"]

    def limited(per_second):
        revision = world.administrator().status().policy_revision
        rate = {"per_second": per_second, "burst": per_second}
        rules[COORDINATOR]["rate_limit"] = rate
        with_policy(folder, rate_limits={"authorize": rate}, delegation_rules=rules)
        wait_until(lambda: world.administrator().status().policy_revision > revision, "the new policy is in force")

    def ask():
        deployer_token(world)
        return reason(world[DEPLOYER].authorize("kubectl_get", "prod/web"))

    assert {ask() for _ in range(10)} == {"TOKEN_REQUIRED"}
    limited(1)
    with refused("RATE_LIMITED", grpc.StatusCode.RESOURCE_EXHAUSTED) as seen:
        for _ in range(20):
            deployer_token(world)
    assert 0 < seen[0].retry_after <= 1, "a delegator's"
    question = authorize_request("kubectl_get", "prod/web")
    asked = [world[DEPLOYER].decisions.Authorize.future(question, timeout=10) for _ in range(20)]
    limited_call = next(call for call in asked if reason(call.result()) == "RATE_LIMITED")
    assert 0 < int(dict(limited_call.initial_metadata())["remit-retry-after-ms"]) <= 1000, "who asks for a decision"
    limited(1000)
    assert {ask() for _ in range(10)} == {"TOKEN_REQUIRED"}


def test_a_batch_counts_its_items(serve, folder):
    with_policy(folder, rate_limits={"authorize": {"per_second": 1, "burst": 3}})
    world = serve(is_dev=False)
    answers = world[DEPLOYER].batch_authorize([authorize_request("kubectl_get", "prod/web")] * 5)
    assert [reason(answer) for answer in answers] == ["TOKEN_REQUIRED"] * 3 + ["RATE_LIMITED"] * 2
    assert "come back in" in answers[-1].message


def test_an_agent_in_a_tight_loop_is_limited_then_quarantined_and_others_go_on(serve, folder):
    """What others notice of it beyond the machine's share is in test_tight_loop.py."""
    with_policy(
        folder,
        # So slow that a loop is faster on any machine, and that the burst alone is not enough for the quarantine.
        rate_limits={"authorize": {"per_second": 25, "burst": 100}},
        quarantine_after={"escalation_attempts": 1000, "reuse_attempts": 200, "window_seconds": 60},
    )
    world = serve(is_dev=False)
    token = deployer_token(world).token
    data = world[COORDINATOR].delegate(ANALYST, ["read_file"], ["/data/*"]).token

    def others(goes_on):
        while goes_on():
            answer = world[ANALYST].authorize("read_file", "/data/x", data, dry_run=True)
            assert reason(answer) == "ALLOWED", "others are answered as ever"
            time.sleep(0.005)

    with Malfunctioning() as malfunctioning:
        told = malfunctioning.loop(world, DEPLOYER, token, 60, others, until="AGENT_QUARANTINED")
    order = told["order"]
    assert order[:2] == ["ALLOWED", "TOKEN_USES_EXHAUSTED"] and order[-1] == "AGENT_QUARANTINED", told
    assert "RATE_LIMITED" in order, "limited first"
    assert told["counts"]["TOKEN_USES_EXHAUSTED"] >= 200
    assert quarantines(world) == {DEPLOYER: ["automatic"]}
    [line] = wait_until(lambda: lines(world, "quarantine"), "the event is written")
    assert line["note"] == "automatic: 200 reuse attempts in 60 s"
    print("ASSURE", json.dumps({"what": "tight loop", "loop": told}))


# What is told and denies nothing.


def test_what_an_agent_never_did_before_is_told_and_allowed(serve, folder):
    world = serve(
        is_dev=False,
        REMIT_DETECTION_BASELINE="true",
        REMIT_DETECTION_LEARN_SECONDS="2",
        REMIT_DETECTION_RATE_FACTOR="2",
        REMIT_DETECTION_RATE_MINIMUM="50",
    )
    deployer = world[DEPLOYER]

    def use(capability, resource):
        token = deployer_token(world, ["kubectl_get", "kubectl_apply"], ["prod/*", "dev/*"]).token
        assert reason(deployer.authorize(capability, resource, token)) == "ALLOWED"

    def anomalies(kind):
        return world.remit.metrics()[f'remit_anomalies_total{{agent_id="{DEPLOYER}",kind="{kind}"}}']

    use("kubectl_get", "prod/web")
    time.sleep(2.1)
    use("kubectl_get", "prod/db")
    use("kubectl_apply", "dev/web")
    wait_until(lambda: anomalies("capability") == anomalies("resource") == 1, "both are told")
    use("kubectl_apply", "dev/web")
    told = wait_until(lambda: lines(world, "anomaly"), "the events are written")
    told = {line["target"]: line for line in told if line["from_agent"] == DEPLOYER}
    assert set(told) == {"kubectl_apply", "dev"}, "once each, and nothing of what it did before"
    assert told["kubectl_apply"]["capabilities_used"] == ["kubectl_apply"]
    assert told["dev"]["note"] == "resource: never before" and told["dev"]["result"] == "accepted"

    token = deployer_token(world).token
    for _ in range(60):
        assert reason(deployer.authorize("kubectl_get", "prod/web", token, dry_run=True)) == "ALLOWED"
    wait_until(lambda: anomalies("rate") == 1, "so many requests are told")
    assert anomalies("capability") == 1 and anomalies("target") == 0
    assert quarantines(world) == {}
    assert world.administrator().status().subscribers == 0, "it is no subscriber"


def test_nothing_is_learnt_unless_it_is_wanted(shared):
    assert all(value == 0 for series, value in shared.remit.metrics().items() if series.startswith("remit_anomalies"))
    assert not lines(shared, "anomaly")
