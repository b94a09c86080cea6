"""An AuthZEN client that knows nothing of Remit: the specification's requests, over the real listener."""

import http.client
import json
import random
import socket
import ssl
import threading
from pathlib import Path

import pytest
from certificates import Authority
from remit_client import World, authorize_request, reason
from remit_process import Remit, copy_folder
from waiting import wait_until

GATE = "svc-demo"
USER, RECORD, ACCOUNT = ({"type": name} for name in ("user", "record", "account"))
ALICE, BOB = {"type": "user", "id": "alice"}, {"type": "user", "id": "bob"}
READ, WRITE = {"name": "read"}, {"name": "write"}
RECORD_1, RECORD_2 = {"type": "record", "id": "record-1"}, {"type": "record", "id": "record-2"}
ALICE_EXAMPLE = {"type": "user", "id": "alice@example.com"}

POLICY = {
    "delegation_rules": {
        "agent-coordinator": {"can_delegate_to": ["agent-deployer"], "max_capability_set": ["kubectl_get"]},
    },
    "grants": [
        {"agent": "agent-coordinator", "capabilities": ["kubectl_get"], "resources": ["*"]},
        {"agent": "user:alice", "capabilities": ["read", "write"], "resources": ["record:record-1"]},
        {"agent": "user:bob", "capabilities": ["read"], "resources": ["record:*"]},
        {"agent": "user:alice@example.com", "capabilities": ["can_read"], "resources": ["todo:1", "document:*", "account:*"]},
        {"agent": "user:alice@example.com", "capabilities": ["read"], "resources": ["document:1", "document:3"]},
        {"agent": "user:bob@example.com", "capabilities": ["can_read", "can_write"], "resources": ["account:123"]},
        {"agent": "svc-reports", "capabilities": ["read"], "resources": ["/data/reports/*", "prod/web"]},
    ],
    "entities": {
        "subjects": [{"type": "user", "id": "carol", "properties": {"role": "guest"}}],
        "resources": [RECORD_1, RECORD_2]
        + [{"type": "account", "id": name} for name in ("123", "456")]
        + [{"type": "resource", "id": name} for name in ("/data/reports/q3", "/data/secret", "prod/web")]
        + [{"type": "many", "id": f"m{number}"} for number in range(1500)],
        "actions": ["read", "write", "delete", "can_read", "can_write"],
    },
}


class Answer:
    def __init__(self, status, headers, text):
        self.status, self.headers, self.text = status, headers, text

    def json(self, status=200):
        assert self.status == status, (self.status, self.text)
        assert self.headers["content-type"] == "application/json", self.headers
        return json.loads(self.text)


def tls(folder, certificate=None, key=None):
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    if certificate:
        context.load_cert_chain(certificate, key)
    return context


class Pep:
    """A client of the HTTP listener, with the certificate of an agent from the dev folder, or nobody's."""

    def __init__(self, remit, name=GATE, context=None):
        agents = remit.folder / "agents"
        files = (agents / f"{name}.pem", agents / f"{name}.key") if name else ()
        self.port, self.context = remit.ports["http"], context or tls(remit.folder, *files)

    def connect(self):
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=10, context=self.context)

    def send(self, method, path, body=None, headers=()):
        connection = self.connect()
        try:
            connection.request(method, path, body, {"content-type": "application/json"} | dict(headers))
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read().decode())
        finally:
            connection.close()

    def post(self, path, body, **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.send("POST", f"/access/v1/{path}", json.dumps(body), headers)

    def evaluate(self, subject, action, resource, **more):
        return self.post("evaluation", dict(subject=subject, action=action, resource=resource) | more).json()

    def decides(self, body):
        return [answer["decision"] for answer in self.post("evaluations", body).json()["evaluations"]]

    def search(self, what, **body):
        return self.post(f"search/{what}", body).json()


def over_tls(folder):
    files = {"TLS_CERTIFICATE": "server.pem", "TLS_KEY": "server.key", "CLIENT_CA": "ca.pem"}
    return {f"REMIT_HTTP_{name}": str(folder / file) for name, file in files.items()}


@pytest.fixture(scope="module")
def remit(template, tmp_path_factory):
    folder = copy_folder(template, tmp_path_factory.mktemp("authzen") / "dev")
    (folder / "policy.json").write_text(json.dumps(POLICY))
    with Remit(folder, **over_tls(folder)) as remit:
        yield remit


@pytest.fixture
def pep(remit):
    return Pep(remit)


@pytest.fixture
def world(remit):
    with World(remit) as world:
        yield world


def event_of(remit, **wanted):
    """The event that has these, once it is written."""

    def find():
        events = (event for event in remit.audit() if all(event.get(key) == value for key, value in wanted.items()))
        return next(events, None)

    return wait_until(find, f"the event with {wanted}")


# Evaluation.

EVALUATIONS = [
    (ALICE, READ, RECORD_1, "ALLOWED"),
    (ALICE, WRITE, RECORD_1, "ALLOWED"),
    (BOB, READ, RECORD_1, "ALLOWED"),
    (BOB, WRITE, RECORD_1, "CAPABILITY_NOT_GRANTED"),
    (ALICE, READ, RECORD_2, "RESOURCE_NOT_GRANTED"),
    ({"type": "user", "id": "nobody"}, READ, RECORD_1, "AGENT_UNKNOWN"),
    ({"type": "user", "id": "carol"}, READ, RECORD_1, "TOKEN_REQUIRED"),
    (ALICE, READ, {"type": "record", "id": "../record-1"}, "RESOURCE_NOT_CANONICAL"),
    ({"type": "agent", "id": "svc-reports"}, READ, {"type": "resource", "id": "/data/reports/q3"}, "ALLOWED"),
    ({"type": "agent", "id": "svc-reports"}, READ, {"type": "resource", "id": "prod/web"}, "ALLOWED"),
    ({"type": "agent", "id": "svc-reports"}, READ, {"type": "resource", "id": "/data/secret"}, "RESOURCE_NOT_GRANTED"),
]


@pytest.mark.parametrize("subject, action, resource, wanted", EVALUATIONS)
def test_an_evaluation_is_an_authorize(pep, subject, action, resource, wanted):
    answer = pep.evaluate(subject, action, resource)
    assert answer["decision"] is (wanted == "ALLOWED"), answer
    context = answer["context"]
    assert context["reason"] == wanted and context["decision_id"] and context["policy_revision"] == 1
    assert ("message" in context) == (wanted != "ALLOWED")


def test_the_specifications_request_with_its_id(pep):
    body = {
        "subject": ALICE_EXAMPLE,
        "resource": {"type": "todo", "id": "1"},
        "action": {"name": "can_read"},
        "context": {"time": "1985-10-26T01:22-07:00"},
    }
    identifier = "bfe9eb29-ab87-4ca3-be83-a1d5d8305716"
    answer = pep.post("evaluation", body, X_Request_ID=identifier)
    assert answer.json()["decision"] is True
    assert answer.headers["x-request-id"] == identifier and answer.headers["cache-control"] == "no-store"
    assert "x-request-id" not in pep.post("evaluation", body).headers


def test_properties_context_and_what_is_unknown_are_no_errors(pep):
    answer = pep.evaluate(
        ALICE | {"properties": {"department": "Sales", "role": "manager"}},
        READ | {"properties": {"method": "GET"}},
        RECORD_1 | {"properties": {"status": "active", "owner": "bob"}},
        context={"time": "2025-06-27T18:03-07:00", "ip": "192.168.1.1"},
        foo="bar",
        futureField={"nested": True},
    )
    assert answer["decision"] is True


def test_the_same_request_has_the_same_answer(pep):
    assert {pep.evaluate(ALICE, READ, RECORD_1)["decision"] for _ in range(5)} == {True}
    assert {pep.evaluate(BOB, WRITE, RECORD_1)["decision"] for _ in range(5)} == {False}


def test_the_token_travels_in_the_context_and_is_spent_once(remit, pep, world):
    token = world["agent-coordinator"].delegate("agent-deployer", ["kubectl_get"], ["prod/*"]).token
    deployer = {"type": "agent", "id": "agent-deployer"}
    prod_web = {"type": "resource", "id": "prod/web"}
    asked = [
        pep.evaluate(deployer, {"name": "kubectl_get"}, prod_web, context={"remit_token": token})
        for _ in range(2)
    ]
    assert [answer["decision"] for answer in asked] == [True, False]
    assert asked[0]["context"]["remaining_uses"] == 0
    assert asked[0]["context"]["delegation_chain"] == ["agent-coordinator", "agent-deployer"]
    assert asked[1]["context"]["reason"] == "TOKEN_USES_EXHAUSTED"
    event_of(remit, reason="TOKEN_USES_EXHAUSTED")
    for text in (remit.log(), "\n".join(remit.audit_lines())):
        assert token not in text and token.split(".")[0] not in text


def test_an_agent_asks_for_itself_and_no_other(remit):
    reports = Pep(remit, "svc-reports")
    itself = {"type": "agent", "id": "svc-reports"}
    assert reports.evaluate(itself, READ, {"type": "resource", "id": "prod/web"})["decision"] is True
    other = reports.evaluate(ALICE, READ, RECORD_1)
    assert (other["decision"], other["context"]["reason"]) == (False, "CALLER_NOT_ENFORCEMENT_POINT")


def test_the_event_names_agent_gate_and_request(remit, pep):
    pep.post("evaluation", dict(subject=ALICE, action=WRITE, resource=RECORD_1), X_Request_ID="find-me")
    event = event_of(remit, request_id="find-me")
    assert (event["from_agent"], event["to_agent"], event["result"]) == ("user:alice", GATE, "accepted")
    assert (event["capabilities_used"], event["resource"], event.get("dry_run")) == (["write"], "record:record-1", None)


# Evaluations.

DOCUMENTS = [{"resource": {"type": "document", "id": name}} for name in ("1", "2", "3")]


def documents(**more):
    return {"subject": ALICE_EXAMPLE, "action": READ, "evaluations": DOCUMENTS} | more


SEMANTICS = [
    ({}, [True, False, True]),
    ({"options": {"evaluations_semantic": "execute_all"}}, [True, False, True]),
    ({"options": {"evaluations_semantic": "deny_on_first_deny"}}, [True, False]),
    ({"options": {"evaluations_semantic": "permit_on_first_permit"}}, [True]),
]


@pytest.mark.parametrize("options, wanted", SEMANTICS)
def test_three_semantics(pep, options, wanted):
    assert pep.decides(documents(**options)) == wanted


def test_what_is_not_executed_is_not_spent(pep, world):
    token = world["agent-coordinator"].delegate("agent-deployer", ["kubectl_get"], ["prod/*"]).token
    body = {
        "subject": {"type": "agent", "id": "agent-deployer"},
        "action": {"name": "kubectl_get"},
        "context": {"remit_token": token},
        "evaluations": [
            {"resource": {"type": "resource", "id": "dev/web"}},
            {"resource": {"type": "resource", "id": "prod/web"}},
        ],
    }
    assert pep.decides(body | {"options": {"evaluations_semantic": "deny_on_first_deny"}}) == [False]
    assert pep.decides(body | {"options": {"evaluations_semantic": "permit_on_first_permit"}}) == [False, True]
    assert pep.decides(body) == [False, False]


def boxcar(**more):
    """The specification's requests with default values."""
    names = ("boxcarring.md", "subject-search.md", "resource-search.md")
    return [{"resource": {"type": "document", "id": name}} | more for name in names]


def test_default_values(pep):
    time, can_read = {"time": "2024-05-31T15:22-07:00"}, {"name": "can_read"}
    full = boxcar(subject=ALICE_EXAMPLE, action=can_read, context=time)
    assert pep.decides({"evaluations": full}) == [True] * 3
    common = {"subject": ALICE_EXAMPLE, "context": time}
    assert pep.decides(common | {"evaluations": boxcar(action=can_read)}) == [True] * 3
    last_edits = boxcar()
    last_edits[2]["action"] = {"name": "can_edit"}
    assert pep.decides(common | {"action": can_read, "evaluations": last_edits}) == [True, True, False]


def test_a_default_gives_what_an_evaluation_leaves_out(pep):
    body = {"subject": ALICE, "action": WRITE, "resource": {"type": "record"}}
    assert pep.decides(body | {"evaluations": [{"resource": {"id": "record-1"}}, {"resource": RECORD_2}]}) == [True, False]


def test_one_that_is_malformed_is_denied_in_its_place(pep):
    body = {"subject": ALICE, "action": READ}
    answers = pep.post("evaluations", body | {"evaluations": [{"resource": RECORD_1}, {}, 7]}).json()["evaluations"]
    assert [answer["decision"] for answer in answers] == [True, False, False]
    assert [answer["context"]["reason"] for answer in answers[1:]] == ["REQUEST_MALFORMED"] * 2
    assert answers[1]["context"]["message"] == "resource: it is missing"


def test_without_evaluations_it_is_one(pep):
    alone = dict(subject=ALICE, action=READ, resource=RECORD_1)
    for body in (alone, alone | {"evaluations": []}):
        answer = pep.post("evaluations", body).json()
        assert answer["decision"] is True and "evaluations" not in answer


def test_a_batch_is_bounded(pep):
    evaluations = [{"resource": RECORD_1}] * 100
    assert pep.decides({"subject": ALICE, "action": READ, "evaluations": evaluations}) == [True] * 100
    answer = pep.post("evaluations", {"subject": ALICE, "action": READ, "evaluations": evaluations + [{}]})
    assert answer.json(400)["message"] == "evaluations: at most 100 in a batch"


# Searches.


def ids(answer):
    return [result["id"] for result in answer["results"]]


def test_subject_search(pep):
    answer = pep.search("subject", subject=USER, action=READ, resource=RECORD_1)
    assert answer["results"] == [ALICE, BOB]
    assert answer["page"] == {"next_token": "", "count": 2}
    can_read = pep.search("subject", subject=USER, action={"name": "can_read"}, resource=ACCOUNT | {"id": "123"})
    assert ids(can_read) == ["alice@example.com", "bob@example.com"]
    ignored = pep.search("subject", subject=ALICE, action=READ, resource=RECORD_2)
    assert ids(ignored) == ["bob"]
    agents = pep.search("subject", subject={"type": "agent"}, action=READ, resource={"type": "resource", "id": "prod/web"})
    assert agents["results"] == [{"type": "agent", "id": "svc-reports"}]


def test_resource_search(pep):
    assert pep.search("resource", subject=ALICE, action=READ, resource=RECORD)["results"] == [RECORD_1]
    accounts = pep.search("resource", subject=ALICE_EXAMPLE, action={"name": "can_read"}, resource=ACCOUNT)
    assert ids(accounts) == ["123", "456"]
    reports = {"type": "agent", "id": "svc-reports"}
    bare = pep.search("resource", subject=reports, action=READ, resource={"type": "resource"})
    assert ids(bare) == ["/data/reports/q3", "prod/web"]


def test_action_search(pep):
    time = {"time": "2024-10-26T01:22-07:00"}
    answer = pep.search("action", subject=ALICE, resource=RECORD_1, context=time)
    assert answer["results"] == [READ, WRITE]
    account = ACCOUNT | {"id": "123"}
    answer = pep.search("action", subject={"type": "user", "id": "bob@example.com"}, resource=account)
    assert answer["results"] == [{"name": "can_read"}, {"name": "can_write"}]


def test_what_is_not_known_is_found_empty(pep):
    nobody = pep.search("action", subject={"type": "user", "id": "nonexistent-user"}, resource=RECORD_1)
    spaceship = pep.search("subject", subject={"type": "spaceship"}, action=READ, resource=RECORD_1)
    assert nobody["results"] == spaceship["results"] == []


def test_what_is_found_is_allowed(pep):
    for subject in pep.search("subject", subject=USER, action=READ, resource=RECORD_1)["results"]:
        assert pep.evaluate(subject, READ, RECORD_1)["decision"] is True


def test_pages(pep):
    body = dict(subject=USER, action=READ, resource=RECORD_1)
    first = pep.search("subject", **body, page={"limit": 1})
    assert (first["results"], first["page"]["count"]) == ([ALICE], 1) and first["page"]["next_token"]
    second = pep.search("subject", **body, page={"token": first["page"]["next_token"]})
    assert (second["results"], second["page"]["next_token"]) == ([BOB], "")
    other = pep.post("search/subject", body | {"action": WRITE, "page": {"token": first["page"]["next_token"]}})
    assert "another search" in other.json(400)["message"]
    assert pep.search("subject", **body, page={"limit": 0})["results"] == []


def test_a_page_looks_at_so_many_and_the_next_goes_on(pep):
    many = dict(subject=BOB, action=READ, resource={"type": "many"})
    first = pep.search("resource", **many, page={"limit": 5000})
    assert first["results"] == [] and first["page"]["next_token"]
    second = pep.search("resource", **many, page={"token": first["page"]["next_token"]})
    assert second["results"] == [] and second["page"]["next_token"] == ""


def attempts(pep):
    return sorted(line for line in pep.send("GET", "/metrics").text.splitlines() if "attempts_total{" in line)


def test_a_search_spends_nothing_counts_nothing_and_is_one_event(remit, pep, world):
    token = world["agent-coordinator"].delegate("agent-deployer", ["kubectl_get"], ["prod/*"]).token
    before = attempts(pep)
    deployer, context = {"type": "agent", "id": "agent-deployer"}, {"remit_token": token}
    found = pep.search("resource", subject=deployer, action={"name": "kubectl_get"}, resource={"type": "resource"}, context=context)
    assert ids(found) == ["prod/web"]
    event = event_of(remit, decision_id=found["context"]["decision_id"])
    assert event["dry_run"] is True and event["result"] == "accepted" and event["from_agent"] == "agent-deployer"
    assert event["message"] == "search: 1 resources of type resource found"
    assert attempts(pep) == before
    asked = pep.evaluate(deployer, {"name": "kubectl_get"}, {"type": "resource", "id": "prod/web"}, context=context)
    assert asked["decision"] is True, "its one use is there"


MISSING = [
    ("search/subject", dict(subject=USER, resource=RECORD_1), "action: it is missing"),
    ("search/resource", dict(action=READ, resource=RECORD), "subject: it is missing"),
    ("search/action", dict(subject=ALICE), "resource: it is missing"),
    ("search/subject", dict(subject=USER, action=READ, resource=RECORD), "resource.id: it is missing"),
    ("search/resource", dict(subject=USER, action=READ, resource=RECORD), "subject.id: it is missing"),
    ("search/subject", dict(subject={"type": "a:b"}, action=READ, resource=RECORD_1), "subject.type: a type has no"),
    ("search/subject", dict(subject=USER, action=READ, resource=RECORD_1, page=7), "page: it is no object"),
    ("search/action", dict(subject=ALICE, resource=RECORD_1, page={"limit": -1}), "page.limit: it is no whole number"),
    ("search/action", dict(subject=ALICE, resource=RECORD_1, page={"token": "x"}), "page.token: it is none"),
    ("evaluation", dict(action=READ, resource=RECORD_1), "subject: it is missing"),
    ("evaluation", dict(subject=ALICE, resource=RECORD_1), "action: it is missing"),
    ("evaluation", dict(subject=ALICE, action=READ), "resource: it is missing"),
    ("evaluation", dict(subject={"id": "alice"}, action=READ, resource=RECORD_1), "subject.type: it is missing"),
    ("evaluation", dict(subject=USER, action=READ, resource=RECORD_1), "subject.id: it is missing"),
    ("evaluation", dict(subject=ALICE, action={}, resource=RECORD_1), "action.name: it is missing"),
    ("evaluation", dict(subject=ALICE, action=READ, resource={"id": "x"}), "resource.type: it is missing"),
    ("evaluation", dict(subject="alice", action=READ, resource=RECORD_1), "subject: it is no object"),
    ("evaluation", dict(subject=ALICE, action={"name": 123}, resource=RECORD_1), "action.name: it is no string"),
    ("evaluation", dict(subject={"type": "agent", "id": "user:alice"}, action=READ, resource=RECORD_1), "subject: the id of"),
    ("evaluation", dict(subject=ALICE, action=READ, resource=RECORD_1, context=[]), "context: it is no object"),
    ("evaluations", dict(subject=ALICE, action=READ, evaluations={}), "evaluations: it is no list"),
    ("evaluations", dict(subject="alice", action=READ, evaluations=[{}]), "subject: it is no object"),
    ("evaluations", documents(options={"evaluations_semantic": "first"}), "options.evaluations_semantic: it is one of"),
    ("evaluations", documents(options=[]), "options: it is no object"),
]


@pytest.mark.parametrize("path, body, wanted", MISSING)
def test_what_is_missing_or_of_another_type_is_named(pep, path, body, wanted):
    answer = pep.post(path, body, X_Request_ID="one")
    error = answer.json(400)
    assert error["reason"] == "REQUEST_MALFORMED" and error["message"].startswith(wanted), error
    assert answer.headers["x-request-id"] == "one"


# Hostile requests.

PATHS = ["evaluation", "evaluations", "search/subject", "search/resource", "search/action"]
GOOD = json.dumps(dict(subject=ALICE, action=READ, resource=RECORD_1))
HOSTILE = {
    "nothing": "",
    "no JSON": "{",
    "a list": "[]",
    "two objects": "{}{}",
    "a name twice": GOOD[:-1] + ', "subject": {"type": "user", "id": "bob"}}',
    "a name twice, written in two ways": GOOD[:-1] + ', "\\u0073ubject": {"type": "user", "id": "bob"}}',
    "too many levels": GOOD[:-1] + ', "x": ' + "[" * 500 + "]" * 500 + "}",
    "a number out of range": GOOD[:-1] + ', "context": {"x": 1e999}}',
    "half a surrogate": '{"subject": {"type": "user", "id": "\\ud800"}}',
    "no UTF-8": b'{"subject": "\xff"}',
    "a context that is too large": GOOD[:-1] + ', "context": {"secret-canary": "' + "a" * 9000 + '"}}',
}


@pytest.mark.parametrize("path", PATHS)
def test_hostile_bodies(remit, pep, path):
    for what, body in HOSTILE.items():
        answer = pep.send("POST", f"/access/v1/{path}", body)
        assert answer.status == 400 and answer.json(400)["reason"] == "REQUEST_MALFORMED", (what, answer.text)
        assert "canary" not in answer.text
    assert "canary" not in remit.log()
    assert pep.evaluate(ALICE, READ, RECORD_1)["decision"] is True


@pytest.mark.parametrize("kind", ["text/plain", "application/json-seq", "application/x-www-form-urlencoded", ""])
def test_another_content_type(pep, kind):
    answer = pep.send("POST", "/access/v1/evaluation", GOOD, {"content-type": kind})
    assert "content-type: application/json" in answer.json(400)["message"]


def test_a_charset_is_no_other_content_type(pep):
    answer = pep.send("POST", "/access/v1/evaluation", GOOD, {"content-type": "application/json; charset=utf-8"})
    assert answer.json()["decision"] is True


@pytest.mark.parametrize("path, bound", [("evaluation", 256 * 1024), ("search/action", 256 * 1024), ("evaluations", 1024 * 1024)])
def test_a_body_that_is_too_large(pep, path, bound):
    body = GOOD[:-1] + ', "x": "' + "a" * bound + '"}'
    assert "more than" in pep.send("POST", f"/access/v1/{path}", body).json(413)["message"]
    chunks = [body[at : at + 65536].encode() for at in range(0, len(body), 65536)]
    # Without a length that says so before it comes.
    assert pep.send("POST", f"/access/v1/{path}", iter(chunks)).status == 413
    within = GOOD[:-1] + ', "x": "' + "a" * (bound - len(GOOD) - 100) + '"}'
    assert pep.send("POST", f"/access/v1/{path}", within).status == 200


def test_a_body_that_does_not_come(remit, pep):
    plain = socket.create_connection(("127.0.0.1", remit.ports["http"]), timeout=10)
    with pep.context.wrap_socket(plain, server_hostname="127.0.0.1") as slow:
        head = "POST /access/v1/evaluation HTTP/1.1\r\nhost: x\r\n"
        slow.sendall((head + "content-type: application/json\r\ncontent-length: 100\r\n\r\n{").encode())
        assert pep.evaluate(ALICE, READ, RECORD_1)["decision"] is True
        assert slow.recv(4096).startswith(b"HTTP/1.1 408 ")


def test_a_request_id_that_can_not_be_given_back(pep):
    assert pep.post("evaluation", json.loads(GOOD), X_Request_ID="\x01").status == 400
    for bad in ("a" * 257, "a\tb", "ä"):
        answer = pep.post("evaluation", json.loads(GOOD), X_Request_ID=bad)
        assert "x-request-id" in answer.json(400)["message"] and "x-request-id" not in answer.headers
    assert pep.post("evaluation", json.loads(GOOD), X_Request_ID="a" * 256).headers["x-request-id"] == "a" * 256


def test_other_methods(pep):
    for path in PATHS:
        assert pep.send("GET", f"/access/v1/{path}").status == 405
    assert pep.send("POST", "/access/v1/search/nothing", GOOD).status == 404


def test_many_at_once(remit):
    decided = []

    def ask():
        decided.append(Pep(remit).decides({"subject": BOB, "action": READ, "evaluations": [{"resource": RECORD_1}] * 20}))

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert decided == [[True] * 20] * 16


# Properties, for the policy's conditions: the fixture of the certification scenario.

ARCHIVED = "resource.properties.status == 'archived'"
BY_PROPERTIES = {
    "grants": [
        {"agent": "user:alice", "capabilities": ["read"], "resources": ["record:*"]},
        {"agent": "user:alice", "capabilities": ["write"], "resources": ["record:*"], "when": f"!({ARCHIVED})"},
        {"agent": "user:alice", "capabilities": ["delete"], "resources": ["record:*"], "when": "action.properties.soft == true"},
        {"agent": "user:bob", "capabilities": ["read"], "resources": ["record:*"]},
        {
            "agent": "user:bob",
            "capabilities": ["write"],
            "resources": ["record:*"],
            "when": f"subject.type == 'user' && subject.properties.role == 'admin' && {ARCHIVED}",
        },
    ],
    "conditions": [{"require": "!has(context.remit_token)"}],
    "entities": {
        "subjects": [ALICE, BOB | {"properties": {"role": "admin"}}],
        "resources": [RECORD_1 | {"properties": {"status": "active"}}, RECORD_2 | {"properties": {"status": "archived"}}],
        "actions": ["read", "write", "delete"],
    },
}
IS_ADMIN, IS_ARCHIVED, IS_ACTIVE = ({"properties": value} for value in ({"role": "admin"}, {"status": "archived"}, {"status": "active"}))


@pytest.fixture(scope="module")
def by_properties(template, tmp_path_factory):
    folder = copy_folder(template, tmp_path_factory.mktemp("properties") / "dev")
    (folder / "policy.json").write_text(json.dumps(BY_PROPERTIES))
    with Remit(folder, **over_tls(folder)) as remit:
        yield Pep(remit)


DELETE = {"name": "delete"}
FIXTURE = [
    (ALICE, READ, RECORD_1, True),
    (ALICE, WRITE, RECORD_1, True),
    (BOB, READ, RECORD_1, True),
    (BOB, WRITE, RECORD_1, False),
    (ALICE, WRITE, RECORD_2 | IS_ARCHIVED, False),
    (BOB | IS_ADMIN, WRITE, RECORD_2 | IS_ARCHIVED, True),
    (ALICE, DELETE | {"properties": {"soft": True}}, RECORD_1, True),
    (ALICE, DELETE | {"properties": {"soft": False}}, RECORD_1, False),
    # What the policy lists, and over it what is sent.
    (BOB, WRITE, RECORD_2, True),
    (ALICE, WRITE, RECORD_2 | IS_ACTIVE, True),
    (BOB | {"properties": {"role": "guest"}}, WRITE, RECORD_2, False),
]


@pytest.mark.parametrize("subject, action, resource, wanted", FIXTURE)
def test_conditions_see_properties(by_properties, subject, action, resource, wanted):
    # Conditions don't see the token; this one is none, and without one grants decide.
    answer = by_properties.evaluate(subject, action, resource, context={"remit_token": ""})
    assert answer["decision"] is wanted, answer
    assert wanted or answer["context"]["reason"] in ("CONDITION_NOT_MET", "CAPABILITY_NOT_GRANTED")


def test_searches_see_properties(by_properties):
    writers = by_properties.search("subject", subject=USER, action=WRITE, resource=RECORD_2 | IS_ARCHIVED)
    assert ids(writers) == ["bob"]
    written = by_properties.search("resource", subject=BOB | IS_ADMIN, action=WRITE, resource=RECORD)
    assert ids(written) == ["record-2"]
    done = by_properties.search("action", subject=BOB | IS_ADMIN, resource=RECORD_2 | IS_ARCHIVED)
    assert [action["name"] for action in done["results"]] == ["read", "write"]


def test_a_batch_sees_the_properties_of_each(by_properties):
    records = [{"resource": RECORD_1 | IS_ACTIVE}, {"resource": RECORD_2 | IS_ARCHIVED}]
    assert by_properties.decides({"subject": ALICE, "action": WRITE, "evaluations": records}) == [True, False]
    writers = [{"subject": ALICE}, {"subject": BOB | IS_ADMIN}]
    archived = {"action": WRITE, "resource": RECORD_2 | IS_ARCHIVED}
    assert by_properties.decides(archived | {"evaluations": writers}) == [False, True]
    merged = {"subject": ALICE, "action": WRITE, "resource": {"type": "record"}}
    items = [{"resource": {"id": "record-1"} | IS_ACTIVE}, {"resource": RECORD_2 | IS_ARCHIVED}]
    assert by_properties.decides(merged | {"evaluations": items}) == [True, False]


# Who asks.


def test_nobody_is_challenged(remit):
    answer = Pep(remit, name=None).post("evaluation", json.loads(GOOD), X_Request_ID="one")
    assert answer.json(401) == {"message": "no verified identity"}
    assert answer.headers["www-authenticate"].startswith("Bearer") and answer.headers["x-request-id"] == "one"
    bearer = Pep(remit, name=None).post("evaluation", json.loads(GOOD), authorization="Bearer nonsense")
    assert bearer.json(401) == {"message": "no verified identity"}


@pytest.fixture(scope="module")
def strict(template, tmp_path_factory):
    """Taking no name at its word, and reached from anywhere."""
    folder = copy_folder(template, tmp_path_factory.mktemp("strict") / "dev")
    (folder / "policy.json").write_text(json.dumps(POLICY))
    with Remit(folder, is_dev=False, REMIT_HTTP_LISTEN="0.0.0.0:0", **over_tls(folder)) as remit:
        yield remit


def with_certificate(remit, issued, folder):
    certificate, key = Path(folder) / "client.pem", Path(folder) / "client.key"
    certificate.write_bytes(issued.certificate)
    key.write_bytes(issued.key)
    return Pep(remit, context=tls(remit.folder, certificate, key))


def test_an_enforcement_point_with_a_certificate(strict, tmp_path):
    authority = Authority.of_folder(strict.folder)
    gate = with_certificate(strict, authority.agent(GATE), tmp_path)
    assert gate.evaluate(ALICE, READ, RECORD_1)["decision"] is True
    assert ids(gate.search("subject", subject=USER, action=READ, resource=RECORD_1)) == ["alice", "bob"]


def test_a_name_alone_is_not_believed(remit, strict):
    answer = Pep(strict, name=None).post("evaluation", json.loads(GOOD), x_remit_agent=GATE)
    assert answer.json(401)["reason"] == "IDENTITY_SELF_ASSERTED" and "www-authenticate" in answer.headers
    assert Pep(strict, name=None).post("evaluation", json.loads(GOOD)).json(401) == {"message": "no verified identity"}
    by_name = Pep(remit, name=None).post("evaluation", json.loads(GOOD), x_remit_agent=GATE)
    assert by_name.json()["context"]["reason"] == "CALLER_NOT_ENFORCEMENT_POINT", "a name holds no role"
    itself = dict(subject={"type": "agent", "id": "svc-reports"}, action=READ, resource={"type": "resource", "id": "prod/web"})
    assert Pep(remit, name=None).post("evaluation", itself, x_remit_agent="svc-reports").json()["decision"] is True


def test_verified_and_nobody(strict, tmp_path):
    authority = Authority.of_folder(strict.folder)
    stranger = authority.client(uris=["spiffe://example.org/ns/ai-agents/sa/agent-coordinator-sa"])
    answer = with_certificate(strict, stranger, tmp_path).post("evaluation", json.loads(GOOD))
    assert answer.json(403)["reason"] == "IDENTITY_UNMAPPED"


# Discovery.

ENDPOINTS = {
    "access_evaluation_endpoint": "/access/v1/evaluation",
    "access_evaluations_endpoint": "/access/v1/evaluations",
    "search_subject_endpoint": "/access/v1/search/subject",
    "search_resource_endpoint": "/access/v1/search/resource",
    "search_action_endpoint": "/access/v1/search/action",
}


def published(base):
    return {"policy_decision_point": base} | {name: base + path for name, path in ENDPOINTS.items()}


def discover(pep, **headers):
    return pep.send("GET", "/.well-known/authzen-configuration", headers=headers)


def test_discovery_on_loopback_needs_no_identity_and_believes_no_host(remit):
    nobody = Pep(remit, name=None)
    base = f"https://localhost:{remit.ports['http']}"
    answer = discover(nobody, **{"X-Request-ID": "one"})
    assert answer.json() == published(base) and "max-age" in answer.headers["cache-control"]
    assert answer.headers["x-request-id"] == "one"
    assert discover(nobody, Host="evil.example.com").json() == published(base)
    for path in ENDPOINTS.values():
        assert nobody.send("POST", path, GOOD).status == 401


def test_discovery_is_off_where_nobody_said_how_the_service_is_reached(strict):
    assert discover(Pep(strict, name=None)).status == 404


def test_discovery_says_what_is_configured(serve):
    remit = serve(REMIT_HTTP_PUBLIC_URL="https://remit.example.com").remit
    status, _, text = remit.http("/.well-known/authzen-configuration")
    assert (status, json.loads(text)) == (200, published("https://remit.example.com"))


def test_discovery_without_tls_is_local(serve):
    remit = serve().remit
    _, _, text = remit.http("/.well-known/authzen-configuration", Host="evil.example.com")
    assert json.loads(text) == published(f"http://localhost:{remit.ports['http']}")


# When Remit can't tell.


def test_a_stale_policy_denies_and_finds_nothing(serve, folder):
    (folder / "policy.json").write_text(json.dumps(POLICY))
    remit = serve(REMIT_POLICY_POLL_SECONDS="1", REMIT_POLICY_MAX_AGE_SECONDS="2", **over_tls(folder)).remit
    pep = Pep(remit)
    assert pep.evaluate(ALICE, READ, RECORD_1)["decision"] is True
    remit.policy_file.write_text("{")

    def refusal():
        answer = pep.evaluate(ALICE, READ, RECORD_1)
        return None if answer["decision"] else answer["context"]["reason"]

    assert wait_until(refusal, "the policy is stale") == "POLICY_STALE"
    answer = pep.post("search/action", dict(subject=ALICE, resource=RECORD_1))
    assert answer.json(503)["reason"] == "POLICY_STALE"


def test_what_can_not_be_recorded_is_denied_and_not_found(serve, folder):
    (folder / "policy.json").write_text(json.dumps(POLICY))
    pep = Pep(serve(REMIT_AUDIT_FILE="/dev/full", **over_tls(folder)).remit)

    def refusal():
        answer = pep.evaluate(ALICE, READ, RECORD_1)
        return None if answer["decision"] else answer["context"]["reason"]

    assert wait_until(refusal, "writing failed") == "AUDIT_UNAVAILABLE"
    answer = pep.post("search/action", dict(subject=ALICE, resource=RECORD_1))
    assert answer.json(503)["reason"] == "AUDIT_UNAVAILABLE"


# The same answer as over gRPC.


def agent_and_resource(body):
    """The names that type and id stand for."""
    subject, resource = body["subject"], body["resource"]
    agent = subject["id"] if subject["type"] == "agent" else f"{subject['type']}:{subject['id']}"
    text = resource["id"] if resource["type"] == "resource" else f"{resource['type']}:{resource['id']}"
    return agent, text


def test_two_thousand_random_requests_have_the_answers_of_grpc(pep, world):
    chance = random.Random(7)
    users = ("alice", "bob", "carol", "nobody", "alice@example.com", "bob@example.com")
    subjects = [{"type": "user", "id": name} for name in users] + [{"type": "agent", "id": "svc-reports"}]
    resources = [RECORD_1, RECORD_2, ACCOUNT | {"id": "123"}, {"type": "document", "id": "3"}, RECORD | {"id": "a/../b"}]
    resources += [{"type": "resource", "id": name} for name in ("prod/web", "/data/reports/x", "/data/reports", "a b")]
    actions = [{"name": name} for name in ("read", "write", "can_read", "delete")]
    decided = []
    for _ in range(20):
        bodies = [
            dict(subject=chance.choice(subjects), action=chance.choice(actions), resource=chance.choice(resources))
            for _ in range(100)
        ]
        requests = []
        for body in bodies:
            agent, text = agent_and_resource(body)
            requests.append(authorize_request(body["action"]["name"], text, agent=agent))
        over_grpc = [(reason(answer), answer.message) for answer in world[GATE].batch_authorize(requests)]
        answers = pep.post("evaluations", {"evaluations": bodies}).json()["evaluations"]
        contexts = [answer["context"] for answer in answers]
        assert [(context["reason"], context.get("message", "")) for context in contexts] == over_grpc
        alone = pep.evaluate(**bodies[0])
        assert (alone["decision"], alone["context"]["reason"]) == (answers[0]["decision"], over_grpc[0][0])
        decided += [name for name, _ in over_grpc]
    assert len(decided) == 2000 and decided.count("ALLOWED") > 50 and len(set(decided)) >= 5, set(decided)
