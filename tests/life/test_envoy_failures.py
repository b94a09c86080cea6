"""What Envoy makes of an authorizer that fails, is slow or answers badly, with the configuration of deploy/envoy.

The authorizer is one of our own, which does as it is told; so this is about Envoy and its settings, and says why Remit never
answers a refusal by an error, and never by half an answer. Then Remit itself: stopped, slow, unable to record, and asked
with more than it takes.
"""

import contextlib
import os
import signal
import time
from concurrent import futures

import grpc
import pytest
from conftest import cannot
from envoy.service.auth.v3 import external_auth_pb2
from envoy_process import Envoy, Upstream, is_there
from seed_policy import ANALYST, WRITER
from test_envoy import BARE, CHECK, JSON, NEWEST, OLDER, RAW, begin, rpc

BOTH = pytest.mark.parametrize("version", [NEWEST, OLDER])
OPEN = (("failure_mode_allow: false", "failure_mode_allow: true"),)


class Authorizer:
    """Answers as it is told: `behave` gets the call's context and makes the answer's bytes."""

    def __init__(self, folder):
        self.behave = None
        self.asked = 0
        folder = folder.resolve()
        # Envoy knows the name of Remit's certificate.
        pair = ((folder / "server.key").read_bytes(), (folder / "server.pem").read_bytes())
        credentials = grpc.ssl_server_credentials([pair], (folder / "ca.pem").read_bytes(), True)
        self.server = grpc.server(futures.ThreadPoolExecutor(4))
        self.server.add_generic_rpc_handlers((self,))
        self.port = self.server.add_secure_port("127.0.0.1:0", credentials)
        self.server.start()

    def service(self, call):
        if call.method != CHECK:
            return None
        return grpc.unary_unary_rpc_method_handler(self._check)

    def _check(self, _, context):
        self.asked += 1
        return self.behave(context)

    def close(self):
        self.server.stop(None).wait()


class Told:
    """An Envoy before a service, and beside it the authorizer."""

    def __init__(self, folder, version, edits=RAW):
        if not is_there(version):
            cannot(f"Envoy {version} could not be installed")
        self.upstream, self.authorizer = Upstream(), Authorizer(folder)
        self.envoy = Envoy(version, folder, self.authorizer.port, self.upstream, edits).start()

    def ask(self, behave):
        """The status, and how many requests reached the service."""
        self.authorizer.behave, before = behave, self.authorizer.asked
        answer = self.envoy.ask(WRITER, "GET", "/open")
        assert self.authorizer.asked > before
        return answer.status, len(self.upstream.take())

    def close(self):
        self.envoy.end()
        self.authorizer.close()
        self.upstream.close()


@pytest.fixture
def told(template, version):
    told = Told(template, version)
    yield told
    told.close()


def fails(code):
    return lambda context: context.abort(code, "told to")


def slow(_):
    # Longer than the filter's timeout in deploy/envoy.
    time.sleep(0.9)
    return allow(None)


def allow(_):
    return external_auth_pb2.CheckResponse(status={"code": 0}, ok_response={}).SerializeToString()


ERRORS = [
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNIMPLEMENTED,
]


@BOTH
def test_c03_no_answer_is_503_and_nothing_passes(told):
    for code in ERRORS:
        assert told.ask(fails(code)) == (503, 0), code
    for behave in (slow, lambda _: b"\xff\xff", lambda _: b"\x12\x01"):
        assert told.ask(behave) == (503, 0)
    assert told.ask(allow) == (200, 1), "and it comes back"


@BOTH
def test_c01_a_status_that_is_not_set_lets_the_request_pass(told):
    """Why Remit's answers are made in one place: these two are refusals to a reader, and none to Envoy."""
    denied = {"status": {"code": 403}}
    for answer in (
        external_auth_pb2.CheckResponse(),
        external_auth_pb2.CheckResponse(status={"code": 0}, denied_response=denied),
    ):
        assert told.ask(lambda _, answer=answer: answer.SerializeToString()) == (200, 1), answer
    whole = external_auth_pb2.CheckResponse(status={"code": 7}, denied_response=denied)
    assert told.ask(lambda _: whole.SerializeToString()) == (403, 0)


@BOTH
def test_c02_a_refusal_without_a_status_of_its_own_is_403(told):
    for denied in ({}, {"status": {"code": 0}}):
        answer = external_auth_pb2.CheckResponse(status={"code": 7}, denied_response=denied)
        assert told.ask(lambda _, answer=answer: answer.SerializeToString()) == (403, 0)
    answer = external_auth_pb2.CheckResponse(status={"code": 7})
    assert told.ask(lambda _: answer.SerializeToString()) == (403, 0)


def test_c19_failure_mode_allow_is_the_hole_that_the_doctor_names(template):
    told = Told(template, NEWEST, OPEN)
    try:
        for behave in (fails(grpc.StatusCode.DEADLINE_EXCEEDED), slow):
            assert told.ask(behave) == (200, 1)
    finally:
        told.close()


# Remit itself.


@pytest.fixture(params=[(NEWEST, RAW), (OLDER, BARE)], ids=["newest", "older-bare"])
def own(request, template, tmp_path):
    guarded = begin(template, tmp_path / "dev")
    guarded.with_envoy(*request.param)
    yield guarded
    guarded.end()


@contextlib.contextmanager
def suspended(process):
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)


def test_remit_stopped_is_503_and_back_again(own):
    own.passes(ANALYST, "GET", "/open")
    own.remit.end()
    assert own.stops(ANALYST, "GET", "/open") == 503
    own.remit.settings["REMIT_GRPC_LISTEN"] = f"127.0.0.1:{own.remit.ports['grpc']}"
    own.remit.start()
    own.passes(ANALYST, "GET", "/open")


def test_remit_slow_is_503_and_what_is_late_passes_nothing(own):
    own.passes(ANALYST, "GET", "/open")
    with suspended(own.remit.process):
        began = time.monotonic()
        assert own.stops(ANALYST, "GET", "/open") == 503
        assert time.monotonic() - began < 2, "by the filter's timeout"
    own.passes(ANALYST, "GET", "/open")
    # Remit has read the late question by now, and its answer reached nobody.
    assert own.upstream.take() == []


def test_remit_that_can_not_record_is_503_by_its_own_word(template, tmp_path):
    guarded = begin(template, tmp_path / "dev", REMIT_AUDIT_FILE="/dev/full").with_envoy(NEWEST)
    try:
        deadline = time.monotonic() + 10
        answer = guarded.envoy.ask(ANALYST, "GET", "/open")
        while answer.status == 200 and time.monotonic() < deadline:
            time.sleep(0.1)
            answer = guarded.envoy.ask(ANALYST, "GET", "/open")
        assert answer.refusal() == (503, "AUDIT_UNAVAILABLE")
        guarded.upstream.take()
        assert guarded.refuses(ANALYST, "GET", "/open") == (503, "AUDIT_UNAVAILABLE")
    finally:
        guarded.end()


MIB = 1024 * 1024
# An Envoy that sends more than Remit takes.
LARGE = (
    ("per_connection_buffer_limit_bytes: 131072", f"per_connection_buffer_limit_bytes: {40 * MIB}"),
    ("max_request_bytes: 65536", f"max_request_bytes: {32 * MIB}"),
    ("timeout: 0.5s", "timeout: 5s"),
)


@pytest.mark.parametrize("version", [NEWEST, OLDER])
def test_c21_more_than_remit_takes_is_refused_in_an_answer_or_by_envoy(template, tmp_path, version):
    guarded = begin(template, tmp_path / "dev").with_envoy(version, LARGE)
    try:
        tools = rpc("tools/list")

        def padded(size):
            return {"body": tools[:-1] + b" " * (size - len(tools)) + b"}", "seconds": 30}

        guarded.passes(ANALYST, "POST", "/mcp", [JSON], **padded(200_000))
        # More than a call of a tool is; more than a question may be; more than is answered at all.
        assert guarded.refuses(ANALYST, "POST", "/mcp", [JSON], **padded(300_000)) == (403, "REQUEST_MALFORMED")
        assert guarded.refuses(ANALYST, "POST", "/mcp", [JSON], **padded(2 * MIB)) == (403, "REQUEST_MALFORMED")
        assert guarded.stops(ANALYST, "POST", "/mcp", [JSON], **padded(17 * MIB)) == 503
        guarded.passes(ANALYST, "POST", "/mcp", [JSON], body=tools)
    finally:
        guarded.end()


# Envoy that cuts bodies: what was cut is unknown, and never what is left of it.
CUT = (
    ("max_request_bytes: 65536", "max_request_bytes: 120"),
    ("allow_partial_message: false", "allow_partial_message: true"),
)


@pytest.mark.parametrize("version", [NEWEST, OLDER])
def test_c16_a_body_that_envoy_cut_denies_where_a_rule_needs_it(template, tmp_path, version):
    guarded = begin(template, tmp_path / "dev").with_envoy(version, CUT)
    try:
        guarded.passes(ANALYST, "POST", "/mcp", [JSON], body=rpc("tools/list"))
        # Whole JSON as far as Envoy sends it, and another call behind.
        cut = rpc("tools/list").ljust(120) + b" " * 8 + rpc("tools/call", name="drop_database")
        assert guarded.refuses(ANALYST, "POST", "/mcp", [JSON], body=cut) == (403, "REQUEST_MALFORMED")
        claimed = [JSON, ("x-envoy-auth-partial-body", "false")]
        assert guarded.refuses(ANALYST, "POST", "/mcp", claimed, body=cut) == (403, "REQUEST_MALFORMED")
        token = guarded.token()
        guarded.passes(ANALYST, "GET", "/files/a", [("x-remit-token", token)], body=b"x" * 500)
    finally:
        guarded.end()
