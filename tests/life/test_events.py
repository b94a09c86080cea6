"""Every decision as it is made: in the stream, in the audit file, under the same number."""

import contextlib
import json
import re

import grpc
import pytest
from event_source import EventSource
from remit_client import Refused, fails_with, malformed, reason, reason_number, refused
from seed_policy import ANALYST, COORDINATOR, DEPLOYER, VALIDATOR, deployer_token, validator_token
from test_cli import remit
from waiting import wait_until

SEED_KEYS = [
    "timestamp",
    "event",
    "from_agent",
    "to_agent",
    "message_type",
    "delegation_chain",
    "delegation_depth",
    "capabilities_used",
    "token_id",
    "result",
]


def a_little_of_everything(world):
    """Two delegations, an ALLOW, a deny, a revocation, a quarantine and its end; how many events that makes."""
    root, child = validator_token(world)
    assert reason(world[VALIDATOR].authorize("kubectl_get", "prod/web", child.token)) == "ALLOWED"
    assert reason(world[DEPLOYER].authorize("kubectl_apply", "prod/web", root.token)) == "CAPABILITY_NOT_GRANTED"
    world[COORDINATOR].revoke(token_id=root.token_id, note="done")
    world["ops-admin"].revoke(agent=ANALYST, quarantine=True)
    world["ops-admin"].reinstate(ANALYST)
    return root, child


def audit_until(world, sequence):
    return wait_until(
        lambda: [line for line in world.remit.audit()] if len(world.remit.audit_lines()) >= sequence else None,
        f"{sequence} lines in the audit file",
    )


def test_the_audit_file_has_the_documents_keys_first(shared):
    root, child = a_little_of_everything(shared)
    lines = audit_until(shared, shared.administrator().status().event_sequence)
    for line in lines:
        assert list(line)[:10] == SEED_KEYS, line
        assert line["event"] == "agent.communication"
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", line["timestamp"])
        assert line["result"] in ("accepted", "denied", "error")
        assert line["delegation_depth"] == max(len(line["delegation_chain"]) - 1, 0)
    kinds = {line["message_type"] for line in lines}
    assert {"delegate", "capability_request", "revoke", "quarantine", "reinstate"} <= kinds
    delegated = next(line for line in lines if line["token_id"] == child.token_id)
    assert delegated["from_agent"] == DEPLOYER and delegated["to_agent"] == VALIDATOR
    assert delegated["delegation_chain"] == [COORDINATOR, DEPLOYER, VALIDATOR] and delegated["delegation_depth"] == 2
    assert delegated["capabilities_used"] == ["kubectl_get"] and delegated["result"] == "accepted"
    used = [line for line in lines if line["token_id"] == child.token_id][1]
    assert (used["message_type"], used["from_agent"], used["resource"]) == ("capability_request", VALIDATOR, "prod/web")
    assert used["delegation_chain"] == [COORDINATOR, DEPLOYER, VALIDATOR]
    denied = next(line for line in lines if line["reason"] == "CAPABILITY_NOT_GRANTED")
    assert denied["result"] == "denied" and denied["token_id"] == root.token_id and denied["message"]


def test_stream_file_and_numbers_agree(serve):
    world = serve()
    a_little_of_everything(world)
    status = world.administrator().status()
    with world["ops-admin"].watch(after_sequence=0) as watching:
        events = watching.take(status.event_sequence)
    lines = audit_until(world, status.event_sequence)
    assert [event.sequence for event in events] == list(range(1, status.event_sequence + 1))
    assert [line["sequence"] for line in lines] == [event.sequence for event in events]
    assert world.remit.metrics()["remit_event_sequence"] == status.event_sequence
    for event, line in zip(events, lines, strict=True):
        assert event.stream_id == line["stream_id"] == status.stream_id
        for key in ("event", "from_agent", "to_agent", "message_type", "token_id", "result", "decision_id"):
            assert getattr(event, key) == line[key], key
        assert list(event.delegation_chain) == line["delegation_chain"]
        assert list(event.capabilities_used) == line["capabilities_used"]
        assert reason(event) == line["reason"] and event.message == line.get("message", "")
        assert event.timestamp.seconds
    assert len({event.decision_id for event in events}) == len(events)


def test_an_answer_names_its_event(shared):
    token = deployer_token(shared).token
    last = shared.administrator().status().event_sequence
    answer = shared[DEPLOYER].authorize("kubectl_get", "prod/web", token, request_id="ticket 7")
    wanted = dict(agents=[DEPLOYER], results=["accepted"], message_types=["capability_request"])
    with shared["ops-admin"].watch(after_sequence=last, **wanted) as watching:
        event = next(watching)
    assert (event.decision_id, event.token_id) == (answer.decision_id, answer.token_id)
    assert (event.request_id, event.caller, event.policy_digest) == ("ticket 7", DEPLOYER, answer.policy_digest)
    assert event.remaining_uses == 0 and not event.dry_run


FILTERS = [
    (dict(agents=[VALIDATOR]), lambda event: VALIDATOR in (event.from_agent, event.to_agent, *event.delegation_chain)),
    (dict(results=["denied"]), lambda event: event.result == "denied"),
    (dict(reasons=[reason_number("CAPABILITY_NOT_GRANTED")]), lambda event: reason(event) == "CAPABILITY_NOT_GRANTED"),
    (dict(message_types=["revoke", "quarantine"]), lambda event: event.message_type in ("revoke", "quarantine")),
    (dict(results=["accepted"], message_types=["delegate"]), lambda event: event.message_type == "delegate"),
    (dict(), lambda event: True),
]


@pytest.mark.parametrize("wanted, passes", FILTERS)
def test_filters(shared, wanted, passes):
    a_little_of_everything(shared)
    # The last event passes every filter that has agents or kinds; here it only marks the end.
    last = shared.administrator().status().event_sequence
    lines = audit_until(shared, last)
    with shared["ops-admin"].watch(after_sequence=0) as everything:
        all_events = everything.take(last)
    expected = [event.sequence for event in all_events if passes(event)]
    if wanted.get("results") == ["accepted"]:
        expected = [number for number in expected if all_events[number - 1].result == "accepted"]
    assert expected and (len(expected) < len(lines) or not wanted)
    with shared["ops-admin"].watch(after_sequence=0, **wanted) as watching:
        assert [event.sequence for event in watching.take(len(expected))] == expected


def test_a_bad_filter(shared):
    for field, wanted in [
        ("results", dict(results=["refused"])),
        ("message_types", dict(message_types=["gossip"])),
        ("reasons", dict(reasons=[9999])),
        ("agents", dict(agents=["a b"])),
    ]:
        with malformed(field), shared["ops-admin"].watch(**wanted) as watching:
            next(watching)


def test_resume(serve):
    world = serve()
    a_little_of_everything(world)
    status = world.administrator().status()
    with world["ops-admin"].watch(after_sequence=0) as watching:
        first = watching.take(3)
    with world["ops-admin"].watch(stream_id=first[-1].stream_id, after_sequence=first[-1].sequence) as watching:
        assert next(watching).sequence == 4
    with world["ops-admin"].watch(stream_id=status.stream_id, after_sequence=status.event_sequence) as watching:
        token = deployer_token(world)
        assert next(watching).token_id == token.token_id, "nothing from before"


def test_an_unknown_stream_is_a_gap(serve):
    world = serve()
    deployer_token(world)
    status = world.administrator().status()
    with world["ops-admin"].watch(stream_id="ffffffffffffffff", after_sequence=9) as watching:
        gap, *events = watching.take(1 + status.event_sequence)
    assert (gap.DESCRIPTOR.name, gap.stream_id, getattr(gap, "from"), gap.to) == ("Gap", "ffffffffffffffff", 0, 0)
    assert [event.sequence for event in events] == list(range(1, status.event_sequence + 1))
    assert {event.stream_id for event in events} == {status.stream_id}
    with malformed("stream_id"), world["ops-admin"].watch(stream_id="a\nb", after_sequence=1) as watching:
        next(watching)


def test_a_number_of_before_a_restart_is_a_gap(serve):
    world = serve()
    for _ in range(3):
        deployer_token(world)
    status = world.administrator().status()
    place = (status.stream_id, 0, 0)
    with world["ops-admin"].watch(after_sequence=500) as watching, EventSource(world.remit, after="500") as source:
        gap, *events = watching.take(1 + status.event_sequence)
        assert (gap.stream_id, getattr(gap, "from"), gap.to) == place
        assert [event.sequence for event in events] == list(range(1, status.event_sequence + 1))
        (kind, data), *rest = source.take(1 + status.event_sequence)
        assert (kind, (data["stream_id"], data["from"], data["to"])) == ("gap", place)
        assert [data["sequence"] for _, data in rest] == list(range(1, status.event_sequence + 1))
        deployer_token(world)
        assert next(watching).sequence == status.event_sequence + 1, "it goes on"


def texts(world):
    """What stands in the log's files; one may be deleted or renamed meanwhile."""
    for path in world.remit.folder.glob("audit.jsonl*"):
        with contextlib.suppress(FileNotFoundError):
            yield path.read_text()


def decide(world):
    """One decision. In so small a ring few may wait for the disk: while it is slow, more are refused, as they have to be."""

    def granted():
        try:
            return deployer_token(world)
        except Refused as refusal:
            assert refusal.reason == "AUDIT_UNAVAILABLE", refusal
            return None

    return wait_until(granted, "there is room for its event")


def lives(world, count):
    """Some decisions in each of as many processes, which end well or not; their streams."""
    streams = []
    for number in range(count):
        for _ in range(40):
            decide(world)
        status = world.administrator().status()
        streams.append(status.stream_id)
        last = f'"stream_id":"{status.stream_id}","sequence":{status.event_sequence},'
        wait_until(lambda: any(last in text for text in texts(world)), "the last event is written")
        world.close()
        world.remit.kill() if number % 2 else world.remit.stop()
        world.remit.start()
    wait_until(lambda: world.administrator().status().event_sequence >= 1, "it has begun")
    return streams


def whole_log(world):
    """Every line that the files have, in the order in which they were written; none while a file is renamed meanwhile."""
    names = lambda: sorted((path.name, path.stat().st_ino) for path in world.remit.folder.glob("audit.jsonl*"))  # noqa: E731
    try:
        before = names()
        files = [world.remit.folder / name for name, _ in before]
        lines = remit("audit", "show", *files, "--output", "json").stdout.splitlines()
        return [json.loads(line) for line in lines] if names() == before else []
    except FileNotFoundError:
        return []


def test_every_stream_in_the_files_can_be_resumed(serve):
    world = serve(REMIT_AUDIT_ROTATE_BYTES="8192", REMIT_EVENTS_RING="64", REMIT_EVENTS_SUBSCRIBER_BUFFER="16")
    lives(world, 3)
    decide(world)
    status = world.administrator().status()
    log = wait_until(lambda: (log := whole_log(world)) and log[-1]["sequence"] >= status.event_sequence and log, "all")
    assert len({line["stream_id"] for line in log}) == 4 and len(list(world.remit.folder.glob("audit.jsonl.*"))) > 5
    places = [(line["stream_id"], line["sequence"]) for line in log]
    for begin in (0, 1, 30, 60, places.index(places[-1]) - 1, *(at for at, place in enumerate(places) if place[1] == 1)):
        stream_id, sequence = places[begin]
        wanted = places[begin + 1 :]
        with world["ops-admin"].watch(stream_id=stream_id, after_sequence=sequence) as watching:
            assert [(event.stream_id, event.sequence) for event in watching.take(len(wanted))] == wanted
        with EventSource(world.remit, last=f"{stream_id}:{sequence}") as source:
            assert [(data["stream_id"], data["sequence"]) for _, data in source.take(len(wanted))] == wanted
    with world["ops-admin"].watch(stream_id=places[0][0], after_sequence=0) as watching:
        assert [(event.stream_id, event.sequence) for event in watching.take(len(places))] == places
    assert world.remit.metrics()["remit_event_gaps_total"] == 0


def test_what_keep_deleted_is_told_exactly(serve):
    world = serve(
        REMIT_AUDIT_ROTATE_BYTES="8192",
        REMIT_AUDIT_KEEP="20",
        REMIT_EVENTS_RING="64",
        REMIT_EVENTS_SUBSCRIBER_BUFFER="16",
    )
    # Not what the current file begins with: the earlier process may have left it so full that it was renamed since.
    [forgotten] = lives(world, 1)
    # How many lines a file has depends on how many are written at once.
    begins = lambda text: text.startswith("{") and json.loads(text.split("\n", 1)[0])  # noqa: E731
    is_gone = lambda line: line and line["stream_id"] != forgotten and line["sequence"] > 10  # noqa: E731
    for _ in range(100):
        for _ in range(50):
            decide(world)
        if all(is_gone(begins(text)) for text in texts(world) if text):
            break
    status = world.administrator().status()
    assert forgotten != status.stream_id
    delivered = missing = 0
    with world["ops-admin"].watch(stream_id=status.stream_id, after_sequence=1) as watching:
        while delivered + missing < status.event_sequence - 1:
            item = next(watching)
            if item.DESCRIPTOR.name == "Gap":
                assert getattr(item, "from") == 2 + delivered + missing
                missing += item.to - getattr(item, "from") + 1
            else:
                delivered += 1
                assert item.sequence == 1 + delivered + missing
    assert (delivered + missing, missing > 0, delivered > 64) == (status.event_sequence - 1, True, True)
    with world["ops-admin"].watch(stream_id=forgotten, after_sequence=1) as watching:
        gap, first, *_ = watching.take(3)
    assert (gap.stream_id, getattr(gap, "from"), gap.to) == (forgotten, 0, 0)
    assert (first.stream_id, getattr(first, "from")) == (status.stream_id, 1)


def test_from_now_on(serve):
    world = serve()
    deployer_token(world)
    with world["ops-admin"].watch() as watching:
        wait_until(lambda: world.administrator().status().subscribers == 1, "the subscription began")
        token = deployer_token(world)
        assert next(watching).token_id == token.token_id, "nothing from before"
    wait_until(lambda: world.administrator().status().subscribers == 0, "the subscription is over")


@pytest.mark.parametrize("agent", [COORDINATOR, DEPLOYER, "svc-demo"])
def test_only_auditors_may_watch(shared, agent):
    with shared[agent].watch(after_sequence=0) as watching, refused("CALLER_NOT_AUTHORIZED"):
        next(watching)


def test_a_stream_ends_with_the_right_to_it(serve):
    """An auditor that the policy file names, and then doesn't."""
    world = serve()
    document = json.loads(world.remit.policy_file.read_text())
    world.remit.policy_file.write_text(json.dumps(document | {"auditors": [ANALYST]}))

    def may_watch():
        try:
            with world[ANALYST].watch(after_sequence=0, seconds=5) as watching:
                return world[COORDINATOR].delegate(DEPLOYER, ["kubectl_get"], ["prod/web"]) and next(watching)
        except Refused:
            return None

    wait_until(may_watch, "the auditor may watch")
    with world[ANALYST].watch(after_sequence=0, seconds=20) as watching:
        next(watching)
        world.remit.policy_file.write_text(json.dumps(document))
        with fails_with(grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.OK) as seen:
            for _ in watching:
                pass
    assert seen[0].reason == "CALLER_NOT_AUTHORIZED"


def test_a_flood_of_denials_is_counted_and_not_lost(serve):
    """The same denial many times in a second makes few lines; `repeated` says of how many."""
    world = serve()
    asked = 200
    for _ in range(asked):
        assert reason(world[DEPLOYER].authorize("kubectl_get", "prod/web")) == "TOKEN_REQUIRED"

    def counted():
        lines = [line for line in world.remit.audit() if line["reason"] == "TOKEN_REQUIRED"]
        return sum(line.get("repeated", 0) or 1 for line in lines) == asked and lines

    lines = wait_until(counted, "all denials are accounted for")
    assert len(lines) < asked / 4
    series = 'remit_decisions_total{reason="TOKEN_REQUIRED",result="denied",verb="authorize"}'
    assert world.remit.metrics()[series] == asked
