"""What operators look at: metrics, health, readiness, reflection; and how the process ends."""

import json
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

import grpc
import pytest
from conftest import REPOSITORY, cannot
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as plain
from remit_client import INTERRUPTED, Refused, reason, refused
from seed_policy import AGENTS, ANALYST, COORDINATOR, DEPLOYER, VALIDATOR, WRITER, deployer_token, validator_token
from waiting import wait_until

SEED_METRICS = [
    "agent_delegation_depth_current",
    "agent_capability_escalation_attempts_total",
    "agent_token_reuse_attempts_total",
]
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def promtool():
    unpacked = REPOSITORY / ".cache/prometheus/usr/bin/promtool"
    found = shutil.which("promtool") or (unpacked.exists() and str(unpacked))
    return found or cannot("promtool could not be installed")


def test_the_seeds_counters_are_there_from_the_start(serve):
    world = serve()
    metrics = world.remit.metrics()
    for name in SEED_METRICS:
        for agent in AGENTS:
            assert metrics[f'{name}{{agent_id="{agent}"}}'] == 0, (name, agent)
    assert metrics["remit_policy_max_delegation_depth"] == 2
    assert metrics["remit_policy_reload_failures_total"] == 0


def test_the_seeds_alerts_would_fire(serve):
    world = serve()
    root, child = validator_token(world, delegatable=True)

    def counts():
        metrics = world.remit.metrics()
        return {name: {agent: metrics[f'{name}{{agent_id="{agent}"}}'] for agent in AGENTS} for name in SEED_METRICS}

    assert sum(counts()["agent_token_reuse_attempts_total"].values()) == 0
    assert reason(world[VALIDATOR].authorize("kubectl_get", "prod/web", child.token)) == "ALLOWED"
    assert reason(world[VALIDATOR].authorize("kubectl_get", "prod/web", child.token)) == "TOKEN_USES_EXHAUSTED"
    token = deployer_token(world).token
    assert reason(world[DEPLOYER].authorize("kubectl_apply", "prod/web", token)) == "CAPABILITY_NOT_GRANTED"
    assert (
        reason(world[DEPLOYER].authorize("kubectl_apply", "prod/web", token, dry_run=True)) == "CAPABILITY_NOT_GRANTED"
    )
    with refused("DELEGATION_DEPTH_EXCEEDED"):
        world[VALIDATOR].delegate(ANALYST, ["kubectl_get"], ["prod/web"], parent=child.token)
    assert reason(world[ANALYST].authorize("kubectl_get", "prod/web", token)) == "TOKEN_WRONG_HOLDER"

    depth, escalations, reuses = (counts()[name] for name in SEED_METRICS)
    assert depth[VALIDATOR] == 3 and depth[COORDINATOR] == 1 and depth[WRITER] == 0
    assert escalations == dict.fromkeys(AGENTS, 0) | {DEPLOYER: 1, VALIDATOR: 1}
    assert reuses == dict.fromkeys(AGENTS, 0) | {VALIDATOR: 1}
    assert world.remit.metrics()[f'agent_token_wrong_holder_total{{agent_id="{ANALYST}"}}'] == 1


# Every name that is promised, with its labels and its kind.
METRICS = {
    "agent_delegation_depth_current": ({"agent_id"}, "gauge"),
    "agent_capability_escalation_attempts": ({"agent_id"}, "counter"),
    "agent_token_reuse_attempts": ({"agent_id"}, "counter"),
    "agent_unauthorized_communication": ({"source", "destination"}, "counter"),
    "agent_token_wrong_holder": ({"agent_id"}, "counter"),
    "remit_policy_max_delegation_depth": (set(), "gauge"),
    "remit_agent_certificate_expiry_timestamp_seconds": ({"agent_id"}, "gauge"),
    "remit_decisions": ({"verb", "result", "reason"}, "counter"),
    "remit_decision_duration_seconds": ({"verb"}, "histogram"),
    "remit_policy_revision": (set(), "gauge"),
    "remit_policy_loaded_timestamp_seconds": (set(), "gauge"),
    "remit_policy_reload_failures": (set(), "counter"),
    "remit_certificate_expiry_timestamp_seconds": ({"role"}, "gauge"),
    "remit_keyring_keys": (set(), "gauge"),
    "remit_jwks_last_refresh_timestamp_seconds": ({"issuer"}, "gauge"),
    "remit_ledger_entries": (set(), "gauge"),
    "remit_revocations": (set(), "gauge"),
    "remit_quarantined_agents": (set(), "gauge"),
    "remit_fence_timestamp_seconds": (set(), "gauge"),
    "remit_event_sequence": (set(), "gauge"),
    "remit_subscribers": (set(), "gauge"),
    "remit_event_gaps": (set(), "counter"),
    "remit_audit_failures": (set(), "counter"),
    "remit_unauthenticated": ({"method"}, "counter"),
    "remit_otlp_exported": ({"signal"}, "counter"),
    "remit_otlp_dropped": ({"signal"}, "counter"),
    "remit_otlp_failures": ({"signal"}, "counter"),
}


def families(text):
    """By a reader of OpenMetrics that nobody here wrote, and that refuses what is not of its form."""
    return {family.name: family for family in text_string_to_metric_families(text)}


def test_every_metric_that_is_promised_is_there_with_its_labels(folder, serve):
    policy = json.loads((folder / "policy.json").read_text())
    policy["communication_rules"] = []
    (folder / "policy.json").write_text(json.dumps(policy))
    with (folder / "remit.toml").open("a") as config:
        config.write('\n[[identity.jwt]]\nissuer = "http://127.0.0.1:9/a"\naudience = "a"\ndiscovery = true\n')
    world = serve(is_dev=False)
    world["svc-demo"].authorize("", "", agent=DEPLOYER, method="GET", path="/a")
    credentials = grpc.ssl_channel_credentials((folder / "ca.pem").read_bytes())
    with world.with_credentials(credentials, metadata=[("authorization", "Bearer no")]) as nobody:
        with pytest.raises(Refused):
            nobody.authorize("kubectl_get", "prod/web")

    status, kind, text = world.remit.http("/metrics", accept="application/openmetrics-text; version=1.0.0")
    assert (status, kind) == (200, "application/openmetrics-text; version=1.0.0; charset=utf-8")
    found = families(text)
    for name, (labels, kind) in METRICS.items():
        family = found[name]
        assert family.type == kind and family.documentation.endswith("."), name
        assert family.samples, f"{name} has no series"
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == labels, sample
    for name, family in found.items():
        assert family.documentation, name
        assert family.unit == ("seconds" if name.endswith("_seconds") else ""), name


def samples(families):
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for f in families for sample in f.samples}


def test_both_formats_say_the_same(shared):
    def read(accept):
        headers = {"accept": accept} if accept else {}
        return shared.remit.http("/metrics", **headers)

    prometheus = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
    _, kind, text = read(prometheus)
    assert kind.startswith("application/openmetrics-text") and text.endswith("# EOF\n")
    opened = samples(families(text).values())
    for accept in ("", "*/*", "text/plain", "text/plain, application/openmetrics-text;q=0.5"):
        _, kind, text = read(accept)
        assert kind.startswith("text/plain; version=0.0.4"), accept
    known = samples(plain(text))
    # A bound is written as a float in the one and as it comes in the other.
    as_float = lambda key: (key[0], tuple((k, str(float(v)) if k == "le" else v) for k, v in key[1]))  # noqa: E731
    assert {as_float(key) for key in opened} == {as_float(key) for key in known}


def test_an_agent_that_leaves_the_policy_takes_its_series_with_it(serve):
    world = serve(REMIT_POLICY_POLL_SECONDS="1")
    policy = json.loads(world.remit.policy_file.read_text())
    policy["delegation_rules"][COORDINATOR]["can_delegate_to"].remove(WRITER)
    policy["delegation_rules"]["agent-new"] = {"can_delegate_to": [], "max_capability_set": ["read_file"]}
    assert WRITER in world.remit.http("/metrics")[2]
    world.remit.policy_file.write_text(json.dumps(policy))
    wait_until(lambda: 'agent_id="agent-new"' in world.remit.http("/metrics")[2], "the new policy", 10)
    assert WRITER not in world.remit.http("/metrics")[2]


def test_strangers_add_no_series(serve):
    world = serve()
    with world.with_credentials(
        grpc.ssl_channel_credentials((world.remit.folder / "ca.pem").read_bytes()),
        metadata=[("x-remit-agent", "agent-nobody")],
    ) as nobody:
        for _ in range(3):
            assert reason(nobody.authorize("kubectl_get", "prod/web")) == "AGENT_UNKNOWN"
    assert "agent-nobody" not in world.remit.http("/metrics")[2]


def test_promtool_finds_nothing_wrong(shared):
    validator_token(shared)
    shared[DEPLOYER].authorize("kubectl_get", "prod/web")
    status, kind, text = shared.remit.http("/metrics")
    assert status == 200 and kind.startswith("text/plain; version=0.0.4")
    checked = subprocess.run([promtool(), "check", "metrics"], input=text, capture_output=True, text=True, timeout=20)
    assert checked.returncode == 0, checked.stderr + checked.stdout
    assert not checked.stderr.strip(), checked.stderr


def test_the_page_has_every_metric(shared):
    page = (REPOSITORY / "docs/telemetry.md").read_text()
    named = re.findall(r"(?m)^# TYPE (\w+) ", shared.remit.http("/metrics")[2])
    assert len(named) > 40 and not [name for name in named if not re.search(rf"`{name}[`{{]", page)]


def test_liveness_and_readiness(shared):
    assert shared.remit.http("/healthz")[0] == 200
    status, _, text = shared.remit.http("/readyz")
    assert (status, text) == (200, "ready\n")
    assert shared.remit.http("/nothing")[0] == 404


def health(channel, service):
    stub = health_pb2_grpc.HealthStub(channel)
    return stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5).status


def test_health_of_each_service(shared):
    channel = shared[DEPLOYER].channel
    for service in ("", "remit.v1.PolicyDecisionService"):
        assert health(channel, service) == SERVING
    assert health(shared.administrator().channel, "remit.v1.AdminService") == SERVING
    with pytest.raises(grpc.RpcError) as error:
        health(channel, "remit.v1.Nothing")
    assert error.value.code() == grpc.StatusCode.NOT_FOUND


SERVICES = {"remit.v1.PolicyDecisionService", "grpc.health.v1.Health"}


def test_reflection_v1alpha(shared):
    database = ProtoReflectionDescriptorDatabase(shared[DEPLOYER].channel)
    assert SERVICES <= set(database.get_services())
    file = database.FindFileContainingSymbol("remit.v1.PolicyDecisionService")
    names = {method.name for service in file.service for method in service.method}
    assert {"Authorize", "Delegate", "WatchDecisions"} <= names
    admin = ProtoReflectionDescriptorDatabase(shared.administrator().channel)
    assert "remit.v1.AdminService" in admin.get_services()


def reflected_services(channel):
    """By v1, whose messages are those of v1alpha."""
    ask = channel.stream_stream(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    answer = next(ask(iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=5))
    return {service.name for service in answer.list_services_response.service}


def test_reflection_v1(shared):
    assert SERVICES <= reflected_services(shared[DEPLOYER].channel)


def test_reflection_is_for_administration_alone_where_it_is_no_trial(serve):
    world = serve(is_dev=False)
    with pytest.raises(grpc.RpcError) as error:
        reflected_services(world[DEPLOYER].channel)
    assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert "remit.v1.AdminService" in reflected_services(world.administrator().channel)


def test_sigterm_drains(serve):
    """Under load, with a subscriber: health says so first, every ALLOW that was answered is in the file, exit is 0."""
    world = serve(REMIT_GRPC_DRAIN_SECONDS="10")
    allowed, failed, enough = [], [], threading.Event()

    def load(name):
        with world.fresh(COORDINATOR) as coordinator, world.fresh(DEPLOYER) as deployer:
            while True:
                try:
                    token = coordinator.delegate(DEPLOYER, ["kubectl_get"], ["prod/web"]).token
                    answer = deployer.authorize("kubectl_get", "prod/web", token)
                    assert reason(answer) == "ALLOWED"
                    allowed.append(answer.decision_id)
                except Refused as error:
                    failed.append(error)
                    return
                if len(allowed) > 20:
                    enough.set()

    threads = [threading.Thread(target=load, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    enough.wait(20)
    watching = world["ops-admin"].watch(after_sequence=0)
    next(watching)
    told = health_pb2_grpc.HealthStub(world.administrator().channel).Watch(
        health_pb2.HealthCheckRequest(service="remit.v1.PolicyDecisionService"), timeout=20
    )
    assert next(told).status == SERVING

    began = time.monotonic()
    world.remit.terminate()
    assert next(told).status == NOT_SERVING
    assert world.remit.wait(12) == 0
    assert time.monotonic() - began < 10, "subscribers, watchers of health and idle connections don't hold it up"
    for thread in threads:
        thread.join()
    assert {error.code for error in failed} <= INTERRUPTED, failed

    lines = world.remit.audit()
    assert [line["sequence"] for line in lines] == list(range(1, len(lines) + 1))
    recorded = {line["decision_id"] for line in lines if line["result"] == "accepted"}
    assert len(allowed) > 20 and set(allowed) <= recorded
    assert "stopped" in world.remit.log()


def test_a_second_signal_stops_at_once(serve):
    world = serve()
    # A connection that never says anything keeps a drain waiting, if anything does.
    with socket.create_connection(("127.0.0.1", world.remit.ports["grpc"])):
        world.remit.terminate()
        wait_until(lambda: "draining" in world.remit.log(), "it drains")
        if world.remit.process.poll() is None:
            world.remit.terminate()
        assert world.remit.wait(10) in (0, 1)


def test_sigint_is_a_signal_to_drain_too(serve):
    world = serve()
    deployer_token(world)
    world.remit.process.send_signal(signal.SIGINT)
    assert world.remit.wait(10) == 0
    decisions = [line for line in world.remit.audit() if line["message_type"] not in ("policy", "checkpoint")]
    assert len(decisions) == 1
