"""What operators look at: metrics, health, readiness, reflection; and how the process ends."""

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
