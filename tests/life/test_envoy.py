"""Through the real Envoy, with the configuration of deploy/envoy: what passes, what does not, and what the service sees.

Every test looks at the service too: a request that was refused never reached it, and one that passed has no header under
our names that Remit did not set.
"""

import base64
import contextlib
import json
import os
import shutil
import ssl
import subprocess
import time

import grpc
import pytest
from certificates import Authority, spiffe_id
from conftest import cannot
from envoy.service.auth.v3 import attribute_context_pb2, external_auth_pb2, external_auth_pb2_grpc
from envoy_process import CONFIG, RULES, Envoy, Upstream, is_there
from remit_client import World, refused
from remit_process import Remit, binary, copy_folder
from seed_policy import ANALYST, COORDINATOR, DEPLOYER, VALIDATOR, WRITER

NEWEST, OLDER = "1.40.0", "1.36.4"
RAW = ()
# The other form of headers, and paths as the client wrote them: what Remit sees when Envoy helps less.
BARE = (
    ("encode_raw_headers: true", "encode_raw_headers: false"),
    ("include_peer_certificate: true", "include_peer_certificate: false"),
    ("normalize_path: true", "normalize_path: false"),
    ("path_with_escaped_slashes_action: REJECT_REQUEST", "path_with_escaped_slashes_action: KEEP_UNCHANGED"),
    ("headers_with_underscores_action: REJECT_REQUEST", "headers_with_underscores_action: ALLOW"),
)
POLICY_MORE = {
    "communication_rules": [
        {"from": ANALYST, "to": "svc-demo", "methods": ["GET"], "paths": ["/files/*", "/open"]},
        {"from": ANALYST, "to": "svc-demo", "methods": ["POST"], "paths": ["/mcp"]},
        {"from": DEPLOYER, "to": "svc-demo", "methods": ["POST"], "paths": ["/deploy"]},
        {"from": COORDINATOR, "to": "svc-demo", "methods": ["POST"], "paths": ["/a2a"]},
        {"from": COORDINATOR, "to": "*", "methods": ["POST"], "paths": ["/v1/delegate"]},
        {"from": WRITER, "to": "svc-demo", "methods": ["GET"]},
        {"from": DEPLOYER, "to": "svc-store", "methods": ["POST"], "paths": ["/deploy"]},
    ],
    "enforcement_points": [{"agent": "svc-demo", "destinations": ["svc-store"]}],
}
XFCC_FROM = "\n[ext_authz]\nxfcc_from = ['agent-edge']\n"


class Guarded:
    """A service, Envoy before it, Remit beside it."""

    def __init__(self, remit, world, upstream):
        self.remit, self.world, self.upstream = remit, world, upstream
        self.envoys = {}
        self.envoy = None

    def with_envoy(self, version, edits=RAW):
        key = (version, edits)
        if key not in self.envoys:
            if not is_there(version):
                cannot(f"Envoy {version} could not be installed")
            envoy = Envoy(version, self.remit.folder, self.remit.ports["grpc"], self.upstream, edits)
            self.envoys[key] = envoy.start()
        self.envoy = self.envoys[key]
        self.upstream.take()
        return self

    def token(self, holder=ANALYST, capabilities=("read_file",), resources=("/data/*",), **more):
        return self.world[COORDINATOR].delegate(holder, list(capabilities), list(resources), **more).token

    def passes(self, agent, method, path, headers=(), **more):
        """The request passes; what the service saw of it."""
        answer = self.envoy.ask(agent, method, path, headers, **more)
        assert answer.status == 200, answer
        [seen] = self.upstream.take()
        ours = [name for name, _ in seen["headers"] if name.replace("_", "-").startswith("x-remit-")]
        assert sorted(ours) == ["x-remit-agent", "x-remit-chain", "x-remit-decision-id", "x-remit-identity"], seen
        assert dict(seen["headers"])["x-remit-agent"] == agent
        assert not any(name == "x-forwarded-client-cert" for name, _ in seen["headers"]), seen
        return seen

    def refuses(self, agent, method, path, headers=(), **more):
        """Remit refuses the request; its status and reason."""
        answer = self.envoy.ask(agent, method, path, headers, **more)
        assert self.upstream.take() == []
        return answer.refusal()

    def stops(self, agent, method, path, headers=(), **more):
        """The request does not pass, whoever stops it; its status."""
        answer = self.envoy.ask(agent, method, path, headers, **more)
        assert self.upstream.take() == []
        return answer.status

    def end(self):
        for envoy in self.envoys.values():
            envoy.end()
        self.world.close()
        self.remit.end()
        self.upstream.close()


def begin(template, folder, policy=None, rules=None, **settings):
    folder = copy_folder(template, folder)
    own = json.loads((folder / "policy.json").read_text())
    (folder / "policy.json").write_text(json.dumps(own | (policy or POLICY_MORE)))
    with (folder / "remit.toml").open("a") as config:
        config.write(XFCC_FROM + (rules or RULES.read_text()))
    remit = Remit(folder, is_dev=False, **settings)
    remit.start()
    return Guarded(remit, World(remit), Upstream())


@pytest.fixture(scope="module")
def guarded_once(template, tmp_path_factory):
    guarded = begin(template, tmp_path_factory.mktemp("envoy") / "dev")
    yield guarded
    guarded.end()


@pytest.fixture(params=[(NEWEST, RAW), (OLDER, BARE)], ids=["newest", "older-bare"])
def guarded(request, guarded_once):
    return guarded_once.with_envoy(*request.param)


@pytest.fixture
def newest(guarded_once):
    return guarded_once.with_envoy(NEWEST)


@pytest.fixture
def bare(guarded_once):
    return guarded_once.with_envoy(OLDER, BARE)


def issued(guarded, tmp_path, name, uris):
    certificate = Authority.of_folder(guarded.remit.folder).client(uris=uris)
    paths = tmp_path / f"{name}.pem", tmp_path / f"{name}.key"
    paths[0].write_bytes(certificate.certificate)
    paths[1].write_bytes(certificate.key)
    return tuple(map(str, paths))


def claims(jwt):
    body = jwt.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))


# What passes.


def test_a_token_is_good_for_one_request_and_goes_no_further(guarded):
    token = guarded.token()
    seen = guarded.passes(ANALYST, "GET", "/files/reports/q3?page=2", [("x-remit-token", token), ("x-mine", "kept")])
    headers = dict(seen["headers"])
    assert seen["path"] == "/files/reports/q3?page=2" and headers["x-mine"] == "kept"
    assert token not in str(seen)
    assert headers["x-remit-chain"] == f"{COORDINATOR} {ANALYST}"
    told = claims(headers["x-remit-identity"])
    assert told["aud"] == "svc-demo" and told["sub"] == ANALYST and told["jti"] == headers["x-remit-decision-id"]

    assert guarded.refuses(ANALYST, "GET", "/files/reports/q3", [("x-remit-token", token)]) == (
        403,
        "TOKEN_USES_EXHAUSTED",
    )
    lines = guarded.remit.audit()
    [used] = [line for line in lines if line["decision_id"] == headers["x-remit-decision-id"]]
    assert (used["from_agent"], used["to_agent"], used["caller"]) == (ANALYST, "svc-demo", "svc-demo")
    assert (used["http_method"], used["http_path"]) == ("GET", "/files/reports/q3")
    assert (used["capabilities_used"], used["resource"]) == (["read_file"], "/data/reports/q3")


def test_the_operators_route_says_what_a_request_means(guarded):
    token = guarded.token(DEPLOYER, ["kubectl_apply"], ["prod/*"])
    guarded.passes(DEPLOYER, "POST", "/deploy", [("x-remit-token", token)])
    other = guarded.token(DEPLOYER, ["kubectl_get"], ["prod/*"])
    assert guarded.refuses(DEPLOYER, "POST", "/deploy", [("x-remit-token", other)]) == (403, "CAPABILITY_NOT_GRANTED")


def test_the_signed_identity_is_for_the_destination_that_the_route_names(guarded_once):
    resource = "                                  remit-resource: prod/web"

    def before(destination):
        return guarded_once.with_envoy(NEWEST, ((resource, f"{resource}\n{' ' * 34}remit-destination: {destination}"),))

    proof = [("x-remit-token", guarded_once.token(DEPLOYER, ["kubectl_apply"], ["prod/*"]))]
    # One that the entry does not list; nothing is spent.
    assert before(VALIDATOR).refuses(DEPLOYER, "POST", "/deploy", proof) == (403, "CALLER_NOT_ENFORCEMENT_POINT")
    headers = dict(before("svc-store").passes(DEPLOYER, "POST", "/deploy", proof)["headers"])
    assert claims(headers["x-remit-identity"])["aud"] == "svc-store"


def test_a_call_between_agents_needs_a_rule_and_spends_no_token(guarded):
    token = guarded.token()
    assert guarded.refuses(ANALYST, "GET", "/open", [("x-remit-token", token)]) == (403, "REQUEST_MALFORMED")
    guarded.passes(ANALYST, "GET", "/files/a", [("x-remit-token", token)])
    assert guarded.refuses(ANALYST, "POST", "/open") == (403, "COMMUNICATION_NOT_ALLOWED")
    assert guarded.refuses(DEPLOYER, "GET", "/open") == (403, "COMMUNICATION_NOT_ALLOWED")


def unauthorized(guarded, source, destination):
    series = f'agent_unauthorized_communication_total{{destination="{destination}",source="{source}"}}'
    return guarded.remit.metrics().get(series, 0)


def test_each_call_that_no_rule_lets_pass_is_counted_by_its_pair(guarded):
    before = unauthorized(guarded, DEPLOYER, "svc-demo")
    token = guarded.token(DEPLOYER, ["kubectl_apply"], ["prod/*"])
    proof = [("x-remit-token", token)]
    assert guarded.refuses(DEPLOYER, "GET", "/open") == (403, "COMMUNICATION_NOT_ALLOWED")
    # Also with a token that has what the route needs.
    assert guarded.refuses(DEPLOYER, "PUT", "/deploy", proof) == (403, "COMMUNICATION_NOT_ALLOWED")
    assert unauthorized(guarded, DEPLOYER, "svc-demo") == before + 2
    guarded.passes(DEPLOYER, "POST", "/deploy", proof)
    assert guarded.refuses(DEPLOYER, "POST", "/deploy") == (403, "TOKEN_REQUIRED")
    assert unauthorized(guarded, DEPLOYER, "svc-demo") == before + 2, "what is refused for something else is not"


def test_who_may_not_call_an_agent_can_not_delegate_to_it(guarded_once):
    root = guarded_once.token(DEPLOYER, ["kubectl_get"], ["prod/*"], delegatable=True)
    before = unauthorized(guarded_once, DEPLOYER, VALIDATOR)
    with refused("COMMUNICATION_NOT_ALLOWED"):
        guarded_once.world[DEPLOYER].delegate(VALIDATOR, ["kubectl_get"], ["prod/web"], parent=root)
    assert unauthorized(guarded_once, DEPLOYER, VALIDATOR) == before + 1


def test_http_2_is_decided_as_http_1_is(guarded):
    def status(agent, path, *headers):
        folder = guarded.remit.folder
        command = ["curl", "-sS", "--http2", "--noproxy", "*", "--max-time", "10", "--cacert", folder / "ca.pem"]
        command += ["--cert", folder / f"agents/{agent}.pem", "--key", folder / f"agents/{agent}.key"]
        command += [part for header in headers for part in ("-H", header)]
        told = ["-o", os.devnull, "-w", "%{http_version} %{http_code}", f"https://localhost:{guarded.envoy.port}{path}"]
        done = subprocess.run([*command, *told], capture_output=True, text=True, timeout=30, check=True)
        version, code = done.stdout.split()
        assert version == "2"
        return int(code), guarded.upstream.take()

    if not shutil.which("curl"):
        cannot("there is no curl")
    proof, spoofed = f"x-remit-token: {guarded.token()}", f"x-remit-agent: {COORDINATOR}"
    assert status(ANALYST, "/files/a") == (403, [])
    assert status(ANALYST, "/files/a", proof, proof) == (403, [])
    assert status(DEPLOYER, "/files/a", proof, f"x-forwarded-client-cert: URI={spiffe_id(ANALYST)}") == (403, [])
    code, [seen] = status(ANALYST, "/files/a", proof, spoofed)
    assert code == 200 and dict(seen["headers"])["x-remit-agent"] == ANALYST
    assert status(ANALYST, "/files/a", proof) == (403, [])


def test_the_decision_is_in_envoys_log(newest):
    newest.passes(ANALYST, "GET", "/open")
    newest.refuses(DEPLOYER, "GET", "/open")

    def logged():
        return [(line["status"], line["decision"], line["reason"]) for line in newest.envoy.access_log()]

    deadline = time.monotonic() + 15
    while (403, "DENY", "COMMUNICATION_NOT_ALLOWED") not in logged() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert (200, "ALLOW", "ALLOWED") in logged() and (403, "DENY", "COMMUNICATION_NOT_ALLOWED") in logged()


# Who sent it.


def test_no_certificate_does_not_even_connect(guarded):
    with pytest.raises((ssl.SSLError, ConnectionError)):
        guarded.envoy.ask(None, "GET", "/open")
    assert guarded.upstream.take() == []


def test_no_certificate_where_envoy_lets_it_in_is_401(guarded_once):
    edits = (("require_client_certificate: true", "require_client_certificate: false"),)
    guarded = guarded_once.with_envoy(NEWEST, edits)
    spoofed = [("x-remit-agent", ANALYST), ("x-forwarded-client-cert", f"URI={spiffe_id(ANALYST)}")]
    assert guarded.refuses(None, "GET", "/open", spoofed) == (401, "IDENTITY_SELF_ASSERTED")


def test_the_wrong_agent(guarded):
    token = guarded.token()
    assert guarded.refuses(DEPLOYER, "GET", "/files/a", [("x-remit-token", token)]) == (403, "TOKEN_WRONG_HOLDER")
    guarded.passes(ANALYST, "GET", "/files/a", [("x-remit-token", token)])


def test_no_token(guarded):
    assert guarded.refuses(ANALYST, "GET", "/files/a") == (403, "TOKEN_REQUIRED")
    assert guarded.refuses(ANALYST, "GET", "/files/a", [("x-remit-token", "x")]) == (403, "TOKEN_MALFORMED")


def test_a_certificate_that_is_nobodys(guarded, tmp_path):
    stranger = issued(guarded, tmp_path, "stranger", ["spiffe://cluster.local/ns/other/sa/x"])
    assert guarded.refuses(stranger, "GET", "/open") == (403, "IDENTITY_UNMAPPED")
    unknown = issued(guarded, tmp_path, "unknown", [spiffe_id("agent-nobody")])
    assert guarded.refuses(unknown, "GET", "/open") == (403, "AGENT_UNKNOWN")


def test_two_uris_in_a_certificate_are_nobody_where_envoy_shows_it(newest, tmp_path):
    two = issued(newest, tmp_path, "two", [spiffe_id(ANALYST), spiffe_id(DEPLOYER)])
    assert newest.refuses(two, "GET", "/open") == (401, "IDENTITY_SELF_ASSERTED")


def test_names_that_the_client_writes_are_worth_nothing(guarded):
    spoofed = [
        ("x-remit-agent", COORDINATOR),
        ("x-remit-chain", COORDINATOR),
        ("x-remit-decision-id", "0"),
        ("x-remit-identity", "e30.e30.e30"),
        ("x-remit-role", "administrator"),
        ("X-Remit-Agent", WRITER),
        ("x-forwarded-client-cert", f"By=x;URI={spiffe_id(COORDINATOR)}"),
    ]
    seen = guarded.passes(ANALYST, "GET", "/open", spoofed)
    assert COORDINATOR not in str(seen["headers"])
    assert guarded.refuses(DEPLOYER, "GET", "/open", spoofed)[1] == "COMMUNICATION_NOT_ALLOWED"


def test_our_names_with_underscores_are_removed_too(bare):
    bare.passes(ANALYST, "GET", "/open", [("x_remit_agent", COORDINATOR), ("x-remit_identity", "e30.e30.e30")])


def test_a_proxy_that_the_configuration_names_may_tell_of_its_client(guarded_once, tmp_path):
    edits = (("forward_client_cert_details: SANITIZE", "forward_client_cert_details: ALWAYS_FORWARD_ONLY"),)
    guarded = guarded_once.with_envoy(NEWEST, edits)
    edge = issued(guarded, tmp_path, "edge", [spiffe_id("agent-edge")])

    def status(agent, *xfcc):
        answer = guarded.envoy.ask(agent, "GET", "/open", [("x-forwarded-client-cert", value) for value in xfcc])
        guarded.upstream.take()
        return answer.status if answer.status == 200 else answer.refusal()

    mine, others = f"By=x;URI={spiffe_id(ANALYST)}", f"By=x;URI={spiffe_id(DEPLOYER)}"
    assert status(edge, mine) == 200
    assert status(edge, others) == (403, "COMMUNICATION_NOT_ALLOWED")
    for bad in [(), (f"{mine},{others}",), (mine, mine), ("By=x",), (f"{mine};URI={spiffe_id(DEPLOYER)}",)]:
        assert status(edge, *bad) == (401, "IDENTITY_SELF_ASSERTED"), bad
    assert status(DEPLOYER, mine) == (403, "COMMUNICATION_NOT_ALLOWED"), "only a named proxy is believed"


# What can be read in two ways.


@pytest.mark.parametrize("name", ["authorization", "Authorization", "x-remit-token", "X-Remit-Token"])
def test_a_credential_that_is_there_twice_also_where_envoy_makes_one_of_it(guarded, name):
    twice = [(name, "Bearer a"), ("accept", "x"), (name.lower(), "Bearer b")]
    assert guarded.refuses(WRITER, "GET", "/open", twice) == (403, "REQUEST_MALFORMED")


def test_a_form_of_the_body_that_is_there_twice_is_none(guarded):
    twice = [JSON, ("content-type", "text/plain")]
    assert guarded.refuses(ANALYST, "POST", "/mcp", twice, body=rpc("tools/list")) == (403, "REQUEST_MALFORMED")


def test_two_hosts_or_two_lengths_never_pass(guarded):
    assert guarded.refuses(WRITER, "GET", "/open", [("host", "other.example")]) == (403, "REQUEST_MALFORMED")
    assert guarded.stops(WRITER, "GET", "/open", [("content-length", "0"), ("content-length", "5")]) == 400


def test_a_header_that_is_there_twice(guarded):
    token, other = guarded.token(max_uses=1), guarded.token()
    twice = [("x-remit-token", token), ("x-remit-token", other)]
    assert guarded.refuses(ANALYST, "GET", "/files/a", twice) == (403, "REQUEST_MALFORMED")
    guarded.passes(ANALYST, "GET", "/files/a", [("x-remit-token", token)])


@pytest.mark.parametrize(
    "path, status",
    [
        ("/files/a%2fb", 400),
        ("/files/a%2Fb", 400),
        ("/a%00b", 400),
        ("//files/a", 403),
        ("/files//a", 403),
        ("/files/a;x", 403),
    ],
)
def test_a_path_that_could_be_read_in_two_ways_never_passes(newest, path, status):
    assert newest.stops(WRITER, "GET", path) == status


@pytest.mark.parametrize("path", ["/files/..;/open", "/files/../open", "/files/%2e%2e/open", "/./open"])
def test_a_path_that_envoy_resolves_is_decided_and_forwarded_as_the_same_one(newest, path):
    assert newest.refuses(DEPLOYER, "GET", path) == (403, "COMMUNICATION_NOT_ALLOWED")
    assert newest.passes(WRITER, "GET", path)["path"] == "/open"
    [decided] = [line["http_path"] for line in newest.remit.audit() if line["from_agent"] == WRITER][-1:]
    assert decided == "/open"


@pytest.mark.parametrize("path", ["/a%2fb", "/a%5cb", "//a", "/a//b", "/a/..;/b", "/a/../b", "/a/./b", "/a/", "/a%252fb", "/a\\b", "/a%00b", "/a;x"])
def test_remit_refuses_such_a_path_by_itself(bare, path):
    assert bare.refuses(WRITER, "GET", path) == (403, "RESOURCE_NOT_CANONICAL")


def test_a_header_that_is_not_utf_8(newest):
    assert newest.refuses(ANALYST, "GET", "/open", [("x-other", b"a\xff\xfeb")]) == (403, "REQUEST_MALFORMED")
    assert newest.refuses(ANALYST, "GET", "/open", [("x-remit-token", b"\xff")]) == (403, "REQUEST_MALFORMED")


def test_a_token_that_is_not_utf_8_is_no_token_in_the_other_form(bare):
    assert bare.refuses(ANALYST, "GET", "/files/a", [("x-remit-token", b"\xff.\xfe")]) == (403, "TOKEN_MALFORMED")


def test_a_nul_in_a_header(guarded):
    assert guarded.stops(ANALYST, "GET", "/open", [("x-other", b"a\0b")]) == 400


def test_connect(guarded):
    answer = guarded.envoy.send(ANALYST, b"CONNECT service.example:443 HTTP/1.1\r\nhost: service.example:443\r\n\r\n")
    assert answer.status == 404 and guarded.upstream.take() == []


def test_a_body_that_is_too_large(newest):
    body = b"x" * (65536 + 1)
    assert newest.stops(ANALYST, "POST", "/mcp", [("content-type", "application/json")], body=body) == 413


# What the body means.

JSON = ("content-type", "application/json")


def rpc(method, **params):
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()


def test_mcp_is_decided_by_the_tool(guarded):
    def call(tool, **arguments):
        return {"body": rpc("tools/call", name=tool, arguments=arguments)}

    token = guarded.token(capabilities=["query_database"], resources=["db:orders"])
    headers = [JSON, ("x-remit-token", token)]
    assert guarded.refuses(ANALYST, "POST", "/mcp", headers, **call("drop_database", database="orders")) == (
        403,
        "CAPABILITY_NOT_GRANTED",
    )
    assert guarded.refuses(ANALYST, "POST", "/mcp", headers, **call("query_database", database="users")) == (
        403,
        "RESOURCE_NOT_GRANTED",
    )
    assert guarded.refuses(ANALYST, "POST", "/mcp", headers, **call("query_database", database="orders/x")) == (
        403,
        "REQUEST_MALFORMED",
    )
    seen = guarded.passes(ANALYST, "POST", "/mcp", headers, **call("query_database", database="orders"))
    assert json.loads(seen["body"])["params"]["name"] == "query_database"
    guarded.passes(ANALYST, "POST", "/mcp", [JSON], body=rpc("tools/list"))


@pytest.mark.parametrize(
    "headers, body",
    [
        ([("content-type", "text/plain")], rpc("tools/list")),
        ([JSON, ("content-encoding", "gzip")], b"\x1f\x8b"),
        ([JSON], b""),
        ([JSON], b"[" + rpc("tools/list") + b"]"),
        ([JSON], b'{"jsonrpc":"2.0","method":"tools/list","method":"tools/call"}'),
        ([JSON], b'{"jsonrpc":"2.0","method":"tools/list","Method":"tools/call"}'),
        ([JSON], b"\xff\xfe"),
        ([JSON, ("x-envoy-auth-partial-body", "false")], b'{"jsonrpc":"2.0"'),
    ],
)
def test_a_body_that_is_not_known_for_sure_never_passes(guarded, headers, body):
    assert guarded.refuses(ANALYST, "POST", "/mcp", headers, body=body) == (403, "REQUEST_MALFORMED")


def test_a2a_is_decided_by_the_pair_of_agents(guarded):
    message = rpc("message/send", message={"metadata": {"remit_token": "for-the-receiver"}})
    seen = guarded.passes(COORDINATOR, "POST", "/a2a", [JSON, ("remit-delegated-token", "passes")], body=message)
    assert dict(seen["headers"])["remit-delegated-token"] == "passes" and b"for-the-receiver" in seen["body"]
    assert guarded.refuses(ANALYST, "POST", "/a2a", [JSON], body=message) == (403, "COMMUNICATION_NOT_ALLOWED")
    cancel = rpc("tasks/cancel", id="1")
    assert guarded.refuses(COORDINATOR, "POST", "/a2a", [JSON], body=cancel) == (403, "CAPABILITY_NOT_GRANTED")


# Remit itself, asked without Envoy.


@contextlib.contextmanager
def stub(guarded, agent):
    folder = guarded.remit.folder
    credentials = grpc.ssl_channel_credentials(
        (folder / "ca.pem").read_bytes(),
        (folder / f"agents/{agent}.key").read_bytes(),
        (folder / f"agents/{agent}.pem").read_bytes(),
    )
    address = f"localhost:{guarded.remit.ports['grpc']}"
    with grpc.secure_channel(address, credentials, options=[("grpc.enable_http_proxy", 0)]) as channel:
        yield channel


CHECK = "/envoy.service.auth.v3.Authorization/Check"


def check(channel, request):
    octets = request if isinstance(request, bytes) else request.SerializeToString()
    method = channel.unary_unary(CHECK, lambda message: message, external_auth_pb2.CheckResponse.FromString)
    return method(octets, timeout=10)


def about(agent, **extensions):
    http = attribute_context_pb2.AttributeContext.HttpRequest(method="GET", path="/open", host="h")
    context = attribute_context_pb2.AttributeContext(
        source={"principal": spiffe_id(agent)}, request={"http": http}, context_extensions=extensions
    )
    return external_auth_pb2.CheckRequest(attributes=context)


def denied(answer):
    assert answer.status.code != 0 and answer.WhichOneof("http_response") == "denied_response", answer
    return answer.denied_response.status.code, json.loads(answer.denied_response.body)["reason"]


def test_only_enforcement_points_may_ask(guarded_once):
    before = len(guarded_once.remit.audit())
    with stub(guarded_once, ANALYST) as channel:
        assert denied(check(channel, about(ANALYST))) == (403, "CALLER_NOT_ENFORCEMENT_POINT")
        assert denied(check(channel, about(COORDINATOR))) == (403, "CALLER_NOT_ENFORCEMENT_POINT")
    assert len(guarded_once.remit.audit()) == before
    with stub(guarded_once, "svc-demo") as channel:
        answer = check(channel, about(ANALYST))
        assert answer.status.code == 0 and answer.WhichOneof("http_response") == "ok_response"
        for option in answer.ok_response.headers:
            assert option.HasField("append") and not option.append.value and option.append_action == 2


def test_an_enforcement_point_speaks_for_the_destinations_of_its_entry_alone(guarded_once):
    with stub(guarded_once, "svc-demo") as channel:
        answer = check(channel, about(ANALYST, **{"remit-destination": DEPLOYER}))
        assert denied(answer) == (403, "CALLER_NOT_ENFORCEMENT_POINT")


@pytest.mark.parametrize("octets", [b"", b"\xff", b"\x0a\x05\x22\x03\x12\x01\xff", b"\x0a\x00", b"\x0a\x02\x22\x00"])
def test_bytes_that_are_no_request_are_refused_in_an_answer(guarded_once, octets):
    with stub(guarded_once, "svc-demo") as channel:
        assert denied(check(channel, octets)) == (403, "REQUEST_MALFORMED")


def test_a_field_that_is_not_utf_8_is_refused_in_an_answer(guarded_once):
    good = about(ANALYST).SerializeToString()
    bad = good.replace(b"/open", b"/op\xffn")
    with stub(guarded_once, "svc-demo") as channel:
        assert denied(check(channel, bad)) == (403, "REQUEST_MALFORMED")


def test_c21_what_is_larger_than_any_request_is_not_read_and_many_at_once_are_answered(guarded_once):
    with stub(guarded_once, "svc-demo") as channel:
        huge = about(ANALYST)
        huge.attributes.request.http.body = "x" * (1024 * 1024)
        assert denied(check(channel, huge)) == (403, "REQUEST_MALFORMED")
        method = channel.unary_unary(CHECK, lambda message: message, external_auth_pb2.CheckResponse.FromString)
        asked = [method.future(about(ANALYST).SerializeToString(), timeout=30) for _ in range(300)]
        assert [answer.result().status.code for answer in asked] == [0] * 300


# The configuration itself.


@pytest.mark.parametrize("version", [NEWEST, OLDER])
def test_envoy_takes_the_configuration(guarded_once, version):
    if not is_there(version):
        cannot(f"Envoy {version} could not be installed")
    envoy = Envoy(version, guarded_once.remit.folder, 1, guarded_once.upstream)
    done = envoy.validate()
    assert done.returncode == 0, done.stderr


def test_the_doctor_finds_nothing_in_ours_and_names_a_hole_in_another(tmp_path):
    def examined(text):
        (tmp_path / "envoy.yaml").write_text(text)
        command = [binary(), "doctor", "--envoy", tmp_path / "envoy.yaml"]
        return subprocess.run(command, capture_output=True, text=True, timeout=30)

    ours = examined(CONFIG.read_text())
    assert (ours.returncode, ours.stdout) == (0, "nothing found\n")
    open_ = examined(CONFIG.read_text().replace("failure_mode_allow: false", "failure_mode_allow: true"))
    assert open_.returncode == 1 and "fix  failure_mode_allow: false" in open_.stdout
    assert examined("a: 1").returncode == 2
