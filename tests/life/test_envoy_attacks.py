"""Through the real Envoy, with settings that help an attacker: one decision is one request, guarded paths stay guarded,
and what the service takes for Remit's word is Remit's.
"""

import socket
import threading
import time

import h2.config
import h2.connection
import h2.events
import pytest
from conftest import cannot
from envoy_process import RULES, Envoy, is_there
from seed_policy import ANALYST, COORDINATOR, WRITER
from test_envoy import JSON, NEWEST, OLDER, POLICY_MORE, RAW, begin, rpc

HERE = "                use_remote_address: true\n"
# Envoy takes the client for an internal one, and its x-envoy-… for orders.
INTERNAL = (
    (HERE, HERE + "                internal_address_config: { cidr_ranges: [{ address_prefix: 127.0.0.0, prefix_len: 8 }] }\n"),
)
CONNECT = "      connect_timeout: 1s\n"
HTTP2_OPTIONS = (
    '      typed_extension_protocol_options: { envoy.extensions.upstreams.http.v3.HttpProtocolOptions: { "@type": '
    "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: { http2_protocol_options: {} } } }\n"
)
HTTP2 = (CONNECT, CONNECT + HTTP2_OPTIONS)
CATCH_ALL = '\n[[ext_authz.rules]]\npath = "/{rest*}"\n'


@pytest.fixture(scope="module")
def guarded_once(template, tmp_path_factory):
    rules = [{"from": WRITER, "to": "svc-demo"}, *POLICY_MORE["communication_rules"]]
    more = POLICY_MORE | {"communication_rules": rules}
    guarded = begin(template, tmp_path_factory.mktemp("attacks") / "dev", policy=more, rules=RULES.read_text() + CATCH_ALL)
    yield guarded
    guarded.end()


@pytest.fixture(params=[NEWEST, OLDER])
def version(request):
    return request.param


# One decision, one request.


def test_c15_no_order_of_the_clients_makes_several_requests_of_one_decision(guarded_once, version):
    guarded = guarded_once.with_envoy(version, INTERNAL)
    orders = [
        ("x-envoy-retry-on", "retriable-status-codes"),
        ("x-envoy-retry-grpc-on", "cancelled"),
        ("x-envoy-retriable-status-codes", "200"),
        ("x-envoy-max-retries", "5"),
        ("x-envoy-hedge-on-per-try-timeout", "true"),
        ("x-envoy-upstream-rq-timeout-ms", "9000"),
        ("x-envoy-original-path", "/admin"),
        ("x-envoy-original-url", "/admin"),
    ]
    seen = guarded.passes(ANALYST, "GET", "/files/a", [("x-remit-token", guarded.token()), *orders])
    sent = {name for name, _ in orders}
    assert sent.isdisjoint(name for name, _ in seen["headers"]), seen
    time.sleep(0.2)
    assert guarded.upstream.take() == []


# Guarded paths, with a rule for everything behind them.


def test_c16_a_rule_for_everything_opens_no_guarded_path(guarded_once, version):
    guarded = guarded_once.with_envoy(version, RAW)
    for method, params in (("tools/call", {"name": "drop_database", "arguments": {}}), ("resources/read", {"uri": "x"})):
        body = rpc(method, **params)
        assert guarded.refuses(WRITER, "POST", "/mcp", [JSON], body=body) == (403, "CAPABILITY_NOT_GRANTED"), method
    for method, path in (("DELETE", "/files/a"), ("PUT", "/files/a"), ("GET", "/mcp")):
        assert guarded.refuses(WRITER, method, path) == (403, "CAPABILITY_NOT_GRANTED"), (method, path)
    assert guarded.stops(WRITER, "HEAD", "/files/a") == 403
    assert guarded.passes(WRITER, "DELETE", "/elsewhere")["path"] == "/elsewhere"


@pytest.mark.parametrize("path", ["/MCP", "/Mcp", "/FILES/a", "/Files/a"])
def test_c13_other_letters_are_no_way_around_a_guard(guarded_once, version, path):
    guarded = guarded_once.with_envoy(version, RAW)
    for method in ("GET", "POST"):
        assert guarded.refuses(WRITER, method, path, [JSON], body=rpc("tools/list")) == (403, "CAPABILITY_NOT_GRANTED")


def test_c16_headers_that_repeat_the_request_otherwise_deny(guarded_once, version):
    guarded = guarded_once.with_envoy(version, RAW)
    for other in ([("mcp-method", "tools/call")], [("Mcp-Name", "drop_database")]):
        answer = guarded.refuses(ANALYST, "POST", "/mcp", [JSON, *other], body=rpc("tools/list"))
        assert answer == (403, "REQUEST_MALFORMED"), other
    guarded.passes(ANALYST, "POST", "/mcp", [JSON, ("mcp-method", "tools/list")], body=rpc("tools/list"))


REWRITES = ["x-original-uri", "x-original-method", "x-rewrite-uri", "x-override-url", "x-method", "x-http-method-other"]


@pytest.mark.parametrize("name", REWRITES)
def test_c15_what_asks_for_another_method_or_path_denies(guarded_once, version, name):
    guarded = guarded_once.with_envoy(version, RAW)
    assert guarded.refuses(ANALYST, "GET", "/open", [(name, "/admin")]) == (403, "REQUEST_MALFORMED")


def test_a_request_is_not_sent_back_with_what_the_service_alone_is_to_see(guarded_once, version):
    guarded = guarded_once.with_envoy(version, RAW)
    assert guarded.refuses(WRITER, "TRACE", "/elsewhere") == (403, "REQUEST_MALFORMED")


# Names that some readers take for ours.


def test_c05_our_names_with_other_marks_are_removed(guarded_once, version):
    guarded = guarded_once.with_envoy(version, RAW)
    spoofed = [("x.remit.agent", COORDINATOR), ("x!remit!agent", COORDINATOR), ("x-remit.agent", COORDINATOR)]
    seen = guarded.passes(ANALYST, "GET", "/open", spoofed)
    assert COORDINATOR not in str(seen["headers"])


class Http2Upstream:
    """A service that speaks HTTP/2 and remembers the trailers that reached it."""

    def __init__(self):
        self.trailers = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                accepted, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.talk, args=(accepted,), daemon=True).start()

    def talk(self, accepted):
        state = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        state.initiate_connection()
        with accepted:
            accepted.sendall(state.data_to_send())
            while data := accepted.recv(65536):
                for event in state.receive_data(data):
                    if isinstance(event, h2.events.TrailersReceived):
                        self.trailers.append(dict(event.headers))
                    if isinstance(event, h2.events.StreamEnded):
                        state.send_headers(event.stream_id, [(":status", "200")], end_stream=True)
                accepted.sendall(state.data_to_send())

    def close(self):
        self.listener.close()


def status_of(envoy, agent, headers, body, trailers):
    """The status of a request over HTTP/2 with a body and trailers; none if Envoy resets it."""
    context = envoy.tls(agent)
    context.set_alpn_protocols(["h2"])
    with socket.create_connection(("127.0.0.1", envoy.port), timeout=15) as raw:
        with context.wrap_socket(raw, server_hostname="localhost") as connection:
            state = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
            state.initiate_connection()
            state.send_headers(1, headers)
            state.send_data(1, body)
            state.send_headers(1, trailers, end_stream=True)
            connection.sendall(state.data_to_send())
            while data := connection.recv(65536):
                for event in state.receive_data(data):
                    if isinstance(event, h2.events.ResponseReceived):
                        return int(dict(event.headers)[":status"])
                    if isinstance(event, h2.events.StreamReset):
                        return None
                connection.sendall(state.data_to_send())
    raise ConnectionError("the connection was closed without an answer")


UNDERSCORES = ("headers_with_underscores_action: REJECT_REQUEST", "headers_with_underscores_action: ALLOW")


@pytest.mark.parametrize("edits, more", [((), []), ((UNDERSCORES,), [("x_remit_new", "a")])])
def test_c05_trailers_lose_our_names_before_a_service_behind_http_2(guarded_once, version, edits, more):
    if not is_there(version):
        cannot(f"Envoy {version} could not be installed")
    service = Http2Upstream()
    envoy = Envoy(version, guarded_once.remit.folder, guarded_once.remit.ports["grpc"], service, (HTTP2, *edits)).start()
    try:
        head = [(":method", "POST"), (":scheme", "https"), (":authority", Envoy.host), (":path", "/mcp"), JSON]
        spoofed = [("x-remit-agent", COORDINATOR), ("x-remit-identity", "e30"), ("x-mine", "kept")]
        assert status_of(envoy, ANALYST, head, rpc("tools/list"), [*more, *spoofed]) == 200
        assert service.trailers == [{"x-mine": "kept"}]
    finally:
        envoy.end()
        service.close()


# What Envoy answers by itself.

NUL = b"GET /open\0 HTTP/1.1\r\nhost: service.example\r\nconnection: close\r\n\r\n"
CONNECT_TO = b"CONNECT service.example:443 HTTP/1.1\r\nhost: service.example:443\r\nconnection: close\r\n\r\n"


def test_each_of_envoys_own_answers_has_one_status(guarded_once, version):
    guarded = guarded_once.with_envoy(version, RAW)
    asked = [
        (400, lambda: guarded.envoy.ask(WRITER, "GET", "/a%2fb")),
        (400, lambda: guarded.envoy.ask(WRITER, "GET", "/a%5cb")),
        (400, lambda: guarded.envoy.send(WRITER, NUL)),
        (404, lambda: guarded.envoy.send(WRITER, CONNECT_TO)),
        (413, lambda: guarded.envoy.ask(WRITER, "POST", "/a", [JSON], body=b"x" * 65537)),
        (431, lambda: guarded.envoy.ask(WRITER, "GET", "/a", [("x-a", "v" * 70000)])),
        (431, lambda: guarded.envoy.ask(WRITER, "GET", "/a", [(f"x-{number}", "v") for number in range(120)])),
        (400, lambda: guarded.envoy.ask(WRITER, "GET", "/a", [("x_a", "v")])),
        (400, lambda: guarded.envoy.ask(WRITER, "GET", "/a#b")),
        (403, lambda: guarded.envoy.ask(WRITER, "GET", "//a")),
        (403, lambda: guarded.envoy.ask(WRITER, "GET", "/a//b")),
    ]
    for number, (status, ask) in enumerate(asked):
        assert (number, ask().status) == (number, status)
    assert guarded.upstream.take() == []


def test_an_upload_passes_where_no_rule_looks_at_the_body(guarded_once, version):
    route = "                        - match: { prefix: / }\n"
    own = (
        "                        - match: { prefix: /upload }\n"
        "                          route: { cluster: service }\n"
        "                          typed_per_filter_config:\n"
        "                            envoy.filters.http.ext_authz:\n"
        '                              "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute\n'
        "                              check_settings: { disable_request_body_buffering: true }\n"
    )
    guarded = guarded_once.with_envoy(version, ((route, own + route),))
    body = b"x" * 300_000
    assert guarded.passes(WRITER, "POST", "/upload", body=body)["body"] == body
    assert guarded.stops(WRITER, "POST", "/elsewhere", body=body) == 413
