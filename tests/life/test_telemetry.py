"""Traces in, and spans and log records out: what a collector sees, and that no decision waits for one."""

import contextlib
import http.client
import json
import re
import secrets
import subprocess
import time

import grpc
import pytest
from envoy.service.auth.v3 import external_auth_pb2, external_auth_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2
from opentelemetry.sdk.trace import TracerProvider, sampling
from opentelemetry.trace import set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from otlp import Collector, facts
from remit_client import delegate_request, reason, refused
from remit_process import ANY_PORT, binary, environment
from seed_policy import COORDINATOR, DEPLOYER, deployer_token
from waiting import wait_until

SVC = "svc-demo"
ID = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
SAMPLED = f"00-{ID}-{PARENT}-01"


@pytest.fixture
def collector():
    with Collector() as collector:
        yield collector


@pytest.fixture
def exporting(collector, serve):
    return serve(REMIT_TELEMETRY_OTLP_ENDPOINT=collector.url)


def caller_span(is_sampled=True):
    """A span of a client's own, and the headers in which its library passes it on."""
    sampler = sampling.ALWAYS_ON if is_sampled else sampling.ALWAYS_OFF
    tracer = TracerProvider(sampler=sampler).get_tracer("a client")
    span = tracer.start_span("calls")
    headers = {}
    TraceContextTextMapPropagator().inject(headers, set_span_in_context(span))
    return span.get_span_context(), list(headers.items())


def traced(world, name, headers):
    """The client of this name, with more metadata."""
    client = world.fresh(name)
    client.metadata = tuple(headers)
    world.clients[name, secrets.token_hex(4)] = client
    return client


def line_of(world, decision_id):
    def found():
        return next((line for line in world.remit.audit() if line["decision_id"] == decision_id), None)

    return wait_until(found, f"the line of {decision_id}")


def otlp(world, name, signal):
    return world.remit.metrics()[f'remit_otlp_{name}_total{{signal="{signal}"}}']


def test_an_authorize_under_a_trace(exporting, collector):
    context, headers = caller_span()
    token = deployer_token(exporting)
    answer = traced(exporting, DEPLOYER, headers).authorize("kubectl_get", "prod/web", token.token)
    assert reason(answer) == "ALLOWED"
    line = line_of(exporting, answer.decision_id)
    assert line["trace_id"] == f"{context.trace_id:032x}"

    span = collector.span_of(answer.decision_id)
    assert span.trace_id == context.trace_id.to_bytes(16, "big")
    assert span.parent_span_id == context.span_id.to_bytes(8, "big")
    assert span.span_id not in (b"", span.parent_span_id) and len(span.span_id) == 8
    assert (span.name, span.kind) == ("authorize", trace_pb2.Span.SPAN_KIND_SERVER)
    assert span.flags & 0xFF == context.trace_flags and span.flags & trace_pb2.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK
    assert span.status.code == trace_pb2.Status.STATUS_CODE_UNSET
    assert 0 < span.end_time_unix_nano - span.start_time_unix_nano < 10**9
    assert abs(span.start_time_unix_nano - time.time_ns()) < 60 * 10**9
    known = facts(span)
    assert known == {
        "remit.result": "accepted",
        "remit.reason": "ALLOWED",
        "remit.decision_id": answer.decision_id,
        "remit.sequence": line["sequence"],
        "remit.agent": DEPLOYER,
        "remit.caller": DEPLOYER,
        "remit.chain_depth": 1,
        "remit.capability": ["kubectl_get"],
        "remit.resource": "prod/web",
        "remit.token_id": token.token_id,
        "remit.policy_revision": answer.policy_revision,
        "remit.policy_digest": answer.policy_digest,
    }

    (record,) = [record for record in collector.until_logs(1) if record.trace_id == span.trace_id]
    assert json.loads(record.body.string_value) == line, "the line of the audit log, hashes included"
    assert record.span_id == span.span_id and record.event_name == "agent.communication"
    assert (record.severity_text, record.time_unix_nano) == ("INFO", span.start_time_unix_nano)

    resource = facts(collector.requests["traces"][0].resource_spans[0].resource)
    assert resource["service.name"] == "remit" and re.fullmatch(r"\d+\.\d+\.\d+", resource["service.version"])
    assert resource["service.instance.id"] == line["stream_id"]


def test_every_verb_is_a_span_and_every_event_a_record(exporting, collector):
    context, headers = caller_span()
    coordinator, admin = traced(exporting, COORDINATOR, headers), traced(exporting, "ops-admin", headers)
    token = coordinator.delegate(DEPLOYER, ["kubectl_get"], ["prod/*"])
    assert reason(traced(exporting, DEPLOYER, headers).authorize("kubectl_apply", "x", token.token)) != "ALLOWED"
    coordinator.revoke(token_id=token.token_id)
    admin.revoke(agent=DEPLOYER, quarantine=True)
    admin.reinstate(DEPLOYER)
    wait_until(lambda: len(collector.spans()) >= 5, "five spans", 10)
    spans = collector.spans()
    assert [span.name for span in spans] == ["delegate", "authorize", "revoke", "revoke", "reinstate"]
    assert {span.trace_id for span in spans} == {context.trace_id.to_bytes(16, "big")}
    assert len({span.span_id for span in spans}) == 5
    denied = facts(spans[1])
    assert (denied["remit.result"], denied["remit.reason"]) == ("denied", "CAPABILITY_NOT_GRANTED")
    assert spans[1].status.code == trace_pb2.Status.STATUS_CODE_UNSET, "a refusal is no error of the service"

    records = collector.until_logs(6)
    sequences = [facts(record)["remit.sequence"] for record in records]
    assert sequences == list(range(1, len(records) + 1)), "in order, each once, from the first event on"
    lines = exporting.remit.audit()
    assert [json.loads(record.body.string_value) for record in records] == lines[: len(records)]
    assert {record.severity_text for record in records} == {"INFO", "WARN"}


def test_a_batch_has_a_span_for_each(exporting, collector):
    _, headers = caller_span()
    coordinator = traced(exporting, COORDINATOR, headers)
    results = coordinator.batch_delegate([delegate_request(DEPLOYER, ["kubectl_get"], ["prod/web"])] * 3)
    ids = [result.delegated.decision_id for result in results]
    spans = [collector.span_of(decision) for decision in ids]
    assert len({span.span_id for span in spans}) == 3 and len({span.parent_span_id for span in spans}) == 1


def test_without_a_trace_one_begins(exporting, collector):
    answers = [exporting[DEPLOYER].authorize("kubectl_get", "prod/web", deployer_token(exporting).token) for _ in range(2)]
    spans = [collector.span_of(answer.decision_id) for answer in answers]
    assert len({span.trace_id for span in spans}) == 2 and all(span.parent_span_id == b"" for span in spans)
    for answer, span in zip(answers, spans, strict=True):
        assert line_of(exporting, answer.decision_id)["trace_id"] == span.trace_id.hex()
        assert not span.flags & trace_pb2.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK


def test_what_the_caller_does_not_sample_is_no_span_and_is_a_record(exporting, collector):
    context, headers = caller_span(is_sampled=False)
    token = deployer_token(exporting).token
    answer = traced(exporting, DEPLOYER, headers).authorize("kubectl_get", "prod/web", token)
    last = line_of(exporting, answer.decision_id)
    assert last["trace_id"] == f"{context.trace_id:032x}"
    records = collector.until_logs(last["sequence"])
    (record,) = [record for record in records if record.trace_id.hex() == last["trace_id"]]
    assert record.span_id == b""
    assert answer.decision_id not in {facts(span)["remit.decision_id"] for span in collector.spans()}


def test_a_ratio_of_nothing_begins_no_traces_and_honours_the_callers(collector, serve):
    world = serve(REMIT_TELEMETRY_OTLP_ENDPOINT=collector.url, REMIT_TELEMETRY_OTLP_SAMPLE_RATIO="0")
    _, headers = caller_span()
    token = deployer_token(world)
    answer = traced(world, DEPLOYER, headers).authorize("kubectl_get", "prod/web", token.token)
    collector.span_of(answer.decision_id)
    assert "trace_id" not in line_of(world, token.decision_id)
    assert len(collector.spans()) == 1 and len(collector.until_logs(3)) >= 3


WRONG = [
    "",
    ID,
    f"00-{ID}-{PARENT}",
    f"00-{ID}-{PARENT}-01-more",
    f"ff-{ID}-{PARENT}-01",
    f"00-{ID.upper()}-{PARENT}-01",
    f"00-{'0' * 32}-{PARENT}-01",
    f"00-{ID}-{'0' * 16}-01",
    f"00-{ID}x-{PARENT}-01",
]


def test_a_trace_is_recorded_without_a_collector_and_a_wrong_one_is_as_good_as_none(shared):
    def recorded(*headers):
        client = traced(shared, DEPLOYER, headers)
        answer = client.authorize("kubectl_get", "prod/web", deployer_token(shared).token)
        assert reason(answer) == "ALLOWED", "never an error"
        return line_of(shared, answer.decision_id).get("trace_id")

    assert recorded(("traceparent", SAMPLED)) == ID
    assert recorded(("traceparent", f"cc-{ID}-{PARENT}-01-what-the-future-will-be-like")) == ID
    assert recorded(("traceparent", SAMPLED), ("tracestate", "a=b")) == ID
    assert recorded() is None
    for wrong in WRONG:
        assert recorded(("traceparent", wrong)) is None, wrong
    assert otlp(shared, "exported", "logs") == 0


def test_a_subscriber_sees_the_trace(shared):
    token = traced(shared, COORDINATOR, [("traceparent", SAMPLED)]).delegate(DEPLOYER, ["kubectl_get"], ["prod/*"])
    with shared["ops-admin"].watch(after_sequence=0) as watching:
        seen = next(event for event in watching if getattr(event, "token_id", "") == token.token_id)
    assert seen.trace_id == ID


def test_requests_over_http_have_traces_too(shared):
    key = (shared.remit.folder / f"api_keys/{SVC}.key").read_text().strip()
    question = {
        "subject": {"type": "agent", "id": DEPLOYER},
        "action": {"name": "kubectl_get"},
        "resource": {"type": "prod", "id": "web"},
    }

    def recorded(*traceparents):
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", shared.remit.ports["http"], timeout=5)) as to:
            body = json.dumps(question).encode()
            to.putrequest("POST", "/access/v1/evaluation")
            to.putheader("content-type", "application/json")
            to.putheader("content-length", str(len(body)))
            to.putheader("x-api-key", key)
            for traceparent in traceparents:
                to.putheader("traceparent", traceparent)
            to.endheaders(body)
            answer = to.getresponse()
            assert answer.status == 200
            decision = json.loads(answer.read())["context"]["decision_id"]
        return line_of(shared, decision).get("trace_id")

    assert recorded(SAMPLED) == ID
    # The same denial again within a second is counted to the first of them.
    time.sleep(1.1)
    assert recorded(SAMPLED, SAMPLED) is None, "two are none"


def check(world, headers, metadata=()):
    """What Envoy would ask about a request of the deployer's."""
    question = external_auth_pb2.CheckRequest()
    question.attributes.source.principal = f"spiffe://cluster.local/ns/ai-agents/sa/{DEPLOYER}-sa"
    http = question.attributes.request.http
    http.method, http.path, http.host = "GET", "/open", "h"
    for name, value in headers:
        http.header_map.headers.add(key=name, raw_value=value.encode())
    stub = external_auth_pb2_grpc.AuthorizationStub(world[SVC].channel)
    answer = stub.Check(question, timeout=5, metadata=metadata)
    return answer, answer.dynamic_metadata["decision_id"]


def test_a_checked_request_has_the_trace_of_its_headers(shared):
    answer, decision = check(shared, [("traceparent", SAMPLED), ("x-remit-agent", "spoofed")])
    assert line_of(shared, decision)["trace_id"] == ID
    said = answer.SerializeToString()
    assert ID.encode() not in said and PARENT.encode() not in said, "the answer passes no trace on: the proxy does"
    assert "trace_id" not in line_of(shared, check(shared, [("traceparent", "nonsense")])[1])
    assert "trace_id" not in line_of(shared, check(shared, [("traceparent", SAMPLED)] * 2)[1])


def test_the_proxys_own_trace_comes_before_its_clients(shared):
    own = "1" * 32
    metadata = [("traceparent", f"00-{own}-{PARENT}-01")]
    _, decision = check(shared, [("traceparent", SAMPLED)], metadata)
    assert line_of(shared, decision)["trace_id"] == own


def decide(world, seconds=0.0):
    """An ALLOW, and how long it took."""
    token = deployer_token(world).token
    began = time.monotonic()
    assert reason(world[DEPLOYER].authorize("kubectl_get", "prod/web", token)) == "ALLOWED"
    return time.monotonic() - began


def test_a_collector_that_is_away_holds_up_nothing_and_gets_it_all_when_it_is_back(collector, serve):
    collector.stop()
    world = serve(REMIT_TELEMETRY_OTLP_ENDPOINT=collector.url)
    took = sorted(decide(world) for _ in range(20))
    assert took[10] < 0.5, took
    wait_until(lambda: otlp(world, "failures", "logs") >= 2, "it was tried again", 15)
    assert otlp(world, "exported", "logs") == 0 and otlp(world, "dropped", "logs") == 0
    assert "the collector takes no records" in world.remit.log()
    collector.start()
    sequence = world.administrator().status().event_sequence
    collector.until_logs(sequence, 45)
    assert [facts(record)["remit.sequence"] for record in collector.logs()] == list(range(1, sequence + 1))
    wait_until(lambda: otlp(world, "exported", "traces") == 40, "all spans are counted")
    assert otlp(world, "dropped", "logs") == 0 and otlp(world, "exported", "logs") == sequence
    assert "the collector takes records again" in world.remit.log()


def test_a_slow_collector_holds_up_nothing(collector, serve):
    collector.slow = 3.0
    world = serve(REMIT_TELEMETRY_OTLP_ENDPOINT=collector.url)
    took = sorted(decide(world) for _ in range(20))
    assert took[10] < 0.5, took
    collector.slow = 0.0
    sequence = world.administrator().status().event_sequence
    assert len(collector.until_logs(sequence, 15)) == sequence


@pytest.mark.parametrize("code", ["UNAVAILABLE", "ABORTED", "DEADLINE_EXCEEDED", "CANCELLED", "OUT_OF_RANGE", "DATA_LOSS"])
def test_what_may_be_tried_again_is(exporting, collector, code):
    collector.codes = {"logs": code}
    decide(exporting)
    wait_until(lambda: collector.attempts["logs"] >= 2, "it was tried again", 10)
    collector.codes = {}
    sequence = exporting.administrator().status().event_sequence
    records = collector.until_logs(sequence)
    assert [facts(record)["remit.sequence"] for record in records] == list(range(1, sequence + 1)), "nothing twice"
    assert otlp(exporting, "dropped", "logs") == 0


def test_a_collector_that_says_when_is_taken_at_its_word(exporting, collector):
    collector.codes, collector.retry_after = {"logs": "RESOURCE_EXHAUSTED"}, 1_000_000
    decide(exporting)
    wait_until(lambda: collector.attempts["logs"] >= 20, "it came again at once", 10)
    collector.codes = {}
    assert len(collector.until_logs(2)) >= 2


@pytest.mark.parametrize("code", ["RESOURCE_EXHAUSTED", "INVALID_ARGUMENT", "PERMISSION_DENIED", "UNIMPLEMENTED", "UNKNOWN"])
def test_what_the_collector_refuses_is_dropped_counted_and_not_sent_again(exporting, collector, code):
    collector.codes = {"traces": code}
    decide(exporting)
    collector.until_logs(2)
    wait_until(lambda: otlp(exporting, "dropped", "traces") >= 2, "the spans are dropped", 10)
    assert collector.attempts["traces"] == otlp(exporting, "failures", "traces")
    assert otlp(exporting, "dropped", "logs") == 0 and otlp(exporting, "failures", "logs") == 0
    assert "the collector refused a batch" in exporting.remit.log()
    assert "own words" not in exporting.remit.log()
    collector.codes = {}
    before = len(collector.spans())
    decide(exporting)
    wait_until(lambda: len(collector.spans()) >= before + 2, "later spans arrive", 10)


def test_records_that_the_collector_takes_and_throws_away_are_dropped(exporting, collector):
    collector.rejects = {"logs": 1}
    decide(exporting)
    wait_until(lambda: otlp(exporting, "dropped", "logs") >= 1, "one is dropped", 10)
    sequence = exporting.administrator().status().event_sequence
    collector.until_logs(sequence)
    total = lambda: otlp(exporting, "dropped", "logs") + otlp(exporting, "exported", "logs")  # noqa: E731
    wait_until(lambda: total() == sequence, "each is counted once")


def test_what_is_more_than_may_wait_is_dropped_and_every_event_counted_once(folder, collector, serve):
    policy = json.loads((folder / "policy.json").read_text())
    policy["delegation_rules"][COORDINATOR]["rate_limit"] = {"per_second": 1_000_000, "burst": 1_000_000}
    (folder / "policy.json").write_text(json.dumps(policy))
    collector.stop()
    world = serve(REMIT_TELEMETRY_OTLP_ENDPOINT=collector.url)
    batch = [delegate_request(DEPLOYER, ["kubectl_get"], ["prod/web"])] * 100
    for _ in range(190):
        for result in world[COORDINATOR].batch_delegate(batch):
            assert result.WhichOneof("result") == "delegated", result
    dropped = wait_until(lambda: otlp(world, "dropped", "logs"), "some are dropped", 10)
    assert dropped < 19_000
    collector.start()
    wait_until(lambda: otlp(world, "exported", "logs") > 15_000, "the others arrive", 60)
    decide(world)

    def all_counted():
        metrics = world.remit.metrics()
        counted = sum(metrics[f'remit_otlp_{name}_total{{signal="logs"}}'] for name in ("exported", "dropped"))
        return counted == metrics["remit_event_sequence"]

    wait_until(all_counted, "every event is exported or dropped", 15)
    assert otlp(world, "exported", "logs") == len(collector.logs())
    sequences = [facts(record)["remit.sequence"] for record in collector.logs()]
    assert sequences == sorted(set(sequences)), "in order, nothing twice"


def test_the_end_waits_for_a_collector_and_not_for_one_that_is_away(collector, serve):
    world = serve(REMIT_TELEMETRY_OTLP_ENDPOINT=collector.url)
    decide(world)
    assert world.remit.stop() == 0
    assert len(collector.logs()) == len(world.remit.audit()), "the last checkpoint too"

    world.remit.start()
    world.close()
    collector.stop()
    decide(world)
    began = time.monotonic()
    assert world.remit.stop() == 0
    assert time.monotonic() - began < 10
    assert "did not take the last records" in world.remit.log()


def test_over_tls_by_its_own_authority_with_a_credential_that_is_renewed(folder, serve):
    pair = ((folder / "server.key").read_bytes(), (folder / "server.pem").read_bytes())
    credential, renewed = secrets.token_hex(16), secrets.token_hex(16)
    headers = folder / "otlp.headers"
    headers.write_text(f"# the collector's\nauthorization: Bearer {credential}\nx-scope-orgid: team-a\n")
    headers.chmod(0o600)
    with Collector(credentials=grpc.ssl_server_credentials([pair])) as collector:
        world = serve(
            REMIT_TELEMETRY_OTLP_ENDPOINT=collector.url,
            REMIT_TELEMETRY_OTLP_CA=str(folder / "ca.pem"),
            REMIT_TELEMETRY_OTLP_HEADERS_FILE=str(headers),
            REMIT_TELEMETRY_LOG="trace",
        )
        decide(world)
        collector.until_logs(3)
        assert {said["authorization"] for said in collector.metadata} == {f"Bearer {credential}"}
        assert {said["x-scope-orgid"] for said in collector.metadata} == {"team-a"}
        headers.write_text(f"authorization: Bearer {renewed}\n")
        collector.codes = {"logs": "UNAVAILABLE"}
        decide(world)
        wait_until(lambda: collector.metadata[-1]["authorization"] == f"Bearer {renewed}", "the new credential", 10)
        collector.codes = {}
        assert credential not in world.remit.log() and renewed not in world.remit.log()


def test_a_collector_that_nobody_vouches_for_gets_nothing(folder, serve):
    pair = ((folder / "server.key").read_bytes(), (folder / "server.pem").read_bytes())
    with Collector(credentials=grpc.ssl_server_credentials([pair])) as collector:
        world = serve(REMIT_TELEMETRY_OTLP_ENDPOINT=collector.url)
        decide(world)
        wait_until(lambda: otlp(world, "failures", "logs") >= 1, "it fails", 15)
        assert collector.attempts == {"logs": 0, "traces": 0}


@pytest.mark.parametrize(
    "settings, why",
    [
        ({"ENDPOINT": "http://collector.example:4317"}, "use https://"),
        ({"ENDPOINT": "collector:4317"}, "neither https:// nor http://"),
        ({"ENDPOINT": "https://u:hunter2@collector:4317"}, "otlp_headers_file"),
        ({"ENDPOINT": "https://collector:4317/v1/logs"}, "there is no path"),
        ({"ENDPOINT": "https://collector:4317", "CA": "/nonexistent.pem"}, "otlp_ca"),
        ({"ENDPOINT": "https://collector:4317", "HEADERS_FILE": "/nonexistent"}, "otlp_headers_file"),
        ({"ENDPOINT": "http://127.0.0.1:4317", "CA": "/nonexistent.pem"}, "of no use"),
        ({"ENDPOINT": "http://127.0.0.1:4317", "SAMPLE_RATIO": "1.5"}, "0 to 1"),
        ({"HEADERS_FILE": "/nonexistent"}, "needs otlp_endpoint"),
    ],
)
def test_settings_that_make_no_sense_are_refused_at_start(folder, settings, why):
    done = subprocess.run(
        [binary(), "serve", "--config", folder / "remit.toml"],
        env=environment(**ANY_PORT, **{f"REMIT_TELEMETRY_OTLP_{name}": value for name, value in settings.items()}),
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode == 2 and why in done.stderr, done.stderr
    assert "hunter2" not in done.stderr


def test_no_secret_leaves_with_spans_and_records(collector, serve):
    world = serve(REMIT_TELEMETRY_OTLP_ENDPOINT=collector.url, REMIT_TELEMETRY_LOG="trace")
    planted = secrets.token_hex(12)
    key = (world.remit.folder / f"api_keys/{SVC}.key").read_text().strip()
    token = deployer_token(world, task="t-1")
    gate = traced(world, SVC, [("x-api-key", key), ("traceparent", SAMPLED), ("x-planted", planted)])
    context = {"planted": planted, "remit_token": token.token}
    assert reason(gate.authorize("kubectl_get", "prod/web", token.token, agent=DEPLOYER, context=context)) == "ALLOWED"
    assert reason(gate.authorize("kubectl_get", "prod/web", planted + token.token, agent=DEPLOYER)) != "ALLOWED"
    with refused("CALLER_NOT_AUTHORIZED"):
        gate.revoke(token=token.token)
    sequence = world.administrator().status().event_sequence
    collector.until_logs(sequence)
    wait_until(lambda: len(collector.spans()) >= 3, "the spans", 10)
    sent = b"".join(request.SerializeToString() for signal in collector.requests.values() for request in signal)
    assert token.token_id.encode() in sent
    for secret in (planted, key, token.token, token.token.split(".")[0], token.token.split(".")[1]):
        assert secret.encode() not in sent
        assert secret not in world.remit.log()
