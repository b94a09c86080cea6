"""`/v1/events`: the decision stream as server-sent events."""

import json
import socket
import urllib.error

import grpc
import pytest
from event_source import EventSource, api_key, place
from remit_client import refused
from seed_policy import DEPLOYER, VALIDATOR, deployer_token
from test_events import a_little_of_everything
from waiting import wait_until


def fails(remit, **how):
    """The status of a connection that is refused, its headers and what its body says."""
    with pytest.raises(urllib.error.HTTPError) as error, EventSource(remit, **how):
        pass
    return error.value.code, error.value.headers, json.loads(error.value.read())


def lines_until(world, sequence):
    return wait_until(
        lambda: world.remit.audit_lines() if len(world.remit.audit_lines()) >= sequence else None, "all is written"
    )


def raw(remit, headers=""):
    """A connection as its bytes are."""
    connection = socket.create_connection(("127.0.0.1", remit.ports["http"]), timeout=10)
    request = f"GET /v1/events?after=0 HTTP/1.1\r\nhost: localhost\r\nx-api-key: {api_key(remit.folder)}\r\n{headers}\r\n"
    connection.sendall(request.encode())
    return connection


def test_an_event_is_the_line_of_the_log(shared):
    a_little_of_everything(shared)
    last = shared.administrator().status().event_sequence
    lines = lines_until(shared, last)
    with EventSource(shared.remit, after=0) as source:
        headers = source.response.headers
        assert headers["content-type"] == "text/event-stream" and headers["x-accel-buffering"] == "no"
        assert "no-store" in headers["cache-control"] and "no-transform" in headers["cache-control"]
        for line in lines[:last]:
            event = next(source.events)
            assert (event.event, event.data, event.id) == ("decision", line, place(json.loads(line)))


def test_who_comes_back_goes_on_where_it_was(shared):
    a_little_of_everything(shared)
    with EventSource(shared.remit, after=0) as source:
        source.take(2)
        last = source.last
    stream_id = shared.administrator().status().stream_id
    assert last == f"{stream_id}:2"
    for how in (dict(last=last, after=0), dict(after=last), dict(after=2), dict(last="2")):
        with EventSource(shared.remit, **how) as source:
            assert next(source)[1]["sequence"] == 3, how
    with EventSource(shared.remit) as source:
        kind, data = source.any()
        assert kind == "heartbeat" and data["sequence"] >= 3, "where it begins is said at once"
        token = deployer_token(shared)
        assert next(source)[1]["token_id"] == token.token_id, "nothing from before"


@pytest.mark.parametrize(
    "query, passes",
    [
        (dict(agent=VALIDATOR), lambda line: VALIDATOR in (line["from_agent"], line["to_agent"], *line["delegation_chain"])),
        (dict(result="denied"), lambda line: line["result"] == "denied"),
        (dict(reason=["CAPABILITY_NOT_GRANTED", "TOKEN_EXPIRED"]), lambda line: line["reason"] == "CAPABILITY_NOT_GRANTED"),
        (dict(message_type=["revoke", "quarantine"]), lambda line: line["message_type"] in ("revoke", "quarantine")),
    ],
)
def test_a_query_filters(shared, query, passes):
    a_little_of_everything(shared)
    lines = lines_until(shared, shared.administrator().status().event_sequence)
    wanted = [line["sequence"] for line in map(json.loads, lines) if passes(line)]
    assert wanted and len(wanted) < len(lines)
    with EventSource(shared.remit, after=0, **query) as source:
        assert [data["sequence"] for _, data in source.take(len(wanted))] == wanted


def test_only_auditors_and_who_is_known(shared):
    code, headers, body = fails(shared.remit, name=None)
    assert code == 401 and "reason" not in body and headers["www-authenticate"]
    code, _, body = fails(shared.remit, name="svc-demo")
    assert (code, body["reason"]) == (403, "CALLER_NOT_AUTHORIZED")
    code, _, body = fails(shared.remit, name="svc-demo", after="nonsense")
    assert code == 403, "who may not watch learns nothing of its request"


@pytest.mark.parametrize(
    "how",
    [
        dict(after="x"),
        dict(after="a\nid: 1:1"),
        dict(after=["1", "2"]),
        dict(last="1;2"),
        dict(agent="a b"),
        dict(result="refused"),
        dict(reason="NO_SUCH_REASON"),
        dict(message_type="gossip"),
        dict(agnet=DEPLOYER),
        dict(reason=["TOKEN_EXPIRED"] * 65),
    ],
)
def test_a_bad_query(shared, how):
    code, _, body = fails(shared.remit, **how)
    assert (code, body["reason"]) == (400, "REQUEST_MALFORMED") and body["message"]


def test_a_stream_ends_with_the_right_to_it(serve):
    """By the policy file, and by the kill switch."""
    world = serve()
    document = json.loads(world.remit.policy_file.read_text())

    def may_watch():
        try:
            return EventSource(world.remit, name="svc-demo", after=0)
        except urllib.error.HTTPError:
            return None

    def let_in():
        world.remit.policy_file.write_text(json.dumps(document | {"auditors": ["svc-demo"]}))
        return wait_until(may_watch, "svc-demo may watch")

    with let_in() as source:
        next(source)
        world.remit.policy_file.write_text(json.dumps(document))
        for _ in source:
            pass
    assert fails(world.remit, name="svc-demo")[0] == 403
    with let_in() as source:
        next(source)
        world["ops-admin"].revoke(agent="svc-demo", quarantine=True)
        for _ in source:
            pass
    assert fails(world.remit, name="svc-demo")[0] == 403


def test_a_drain_asks_to_come_back(serve):
    world = serve()
    connection = raw(world.remit)
    seen = b""
    while b"event: decision" not in seen:
        seen += connection.recv(65536)
    world.close()
    assert world.remit.stop() == 0
    while more := connection.recv(65536):
        seen += more
    assert seen.endswith(b"retry: 1000\n\r\n0\r\n\r\n"), seen[-80:]


def test_places_are_counted_over_both_wires_and_come_back(serve):
    world = serve(REMIT_EVENTS_MAX_SUBSCRIBERS="2")
    with EventSource(world.remit), world["ops-admin"].watch() as watching:
        wait_until(lambda: world.remit.metrics()["remit_subscribers"] == 2, "both watch")
        code, headers, body = fails(world.remit)
        assert (code, body["reason"], headers["retry-after"]) == (503, "CAPACITY_EXHAUSTED", "10")
        with world["ops-admin"].watch() as another, refused("CAPACITY_EXHAUSTED", grpc.StatusCode.RESOURCE_EXHAUSTED):
            next(another)
        watching.call.cancel()
        wait_until(lambda: world.remit.metrics()["remit_subscribers"] == 1, "one is gone")
        with EventSource(world.remit) as source:
            assert source.any()[0] == "heartbeat"
    wait_until(lambda: world.remit.metrics()["remit_subscribers"] == 0, "all are gone")


def test_a_heartbeat_is_a_place_to_come_back_to(serve):
    world = serve(REMIT_EVENTS_HEARTBEAT_SECONDS="1")
    token = deployer_token(world)
    with EventSource(world.remit, result="error", after=0) as source:
        kind, data = source.any()
        assert kind == "heartbeat" and data["sequence"] >= 2, "what was filtered out is passed"
        last = source.last
    with EventSource(world.remit, last=last) as source:
        world[DEPLOYER].authorize("kubectl_get", "prod/web", token.token)
        assert next(source)[1]["sequence"] == data["sequence"] + 1
