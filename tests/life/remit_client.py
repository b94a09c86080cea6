"""A client that speaks the domain, over grpcio and stubs made from `proto/`."""

import contextlib
from pathlib import Path

import grpc
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from remit.v1 import admin_service_pb2 as admin
from remit.v1 import admin_service_pb2_grpc as admin_grpc
from remit.v1 import decision_service_pb2 as pb
from remit.v1 import decision_service_pb2_grpc as pb_grpc
from remit.v1 import types_pb2 as types

SECONDS = 10
OPTIONS = [
    # Each client has a connection of its own.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", -1),
]
INTERRUPTED = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}


class Refused(Exception):
    """A gRPC error, taken apart."""

    def __init__(self, error):
        self.code = error.code()
        self.message = error.details() or ""
        self.reason = None
        self.domain = None
        self.metadata = {}
        self.violations = []
        self.retry_after = None
        trailing = {key: value for key, value in error.trailing_metadata() or ()}
        self.reason_metadata = trailing.get("remit-reason")
        status = rpc_status.from_call(error)
        for detail in status.details if status else ():
            self._take(detail)
        super().__init__(f"{self.code.name} {self.reason}: {self.message} {self.violations or ''}")

    def _take(self, detail):
        info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            self.reason, self.domain, self.metadata = info.reason, info.domain, dict(info.metadata)
        elif detail.Unpack(bad):
            self.violations = [(violation.field, violation.description) for violation in bad.field_violations]
        elif detail.Unpack(retry):
            self.retry_after = retry.retry_delay.ToTimedelta().total_seconds()


@contextlib.contextmanager
def refused(reason, code=grpc.StatusCode.PERMISSION_DENIED):
    """The block is refused with this reason: in ErrorInfo, in the trailing metadata, and with a message."""
    seen = []
    try:
        yield seen
    except Refused as refusal:
        assert (refusal.code, refusal.reason) == (code, reason), refusal
        assert refusal.domain == "remit" and refusal.reason_metadata == reason, refusal
        assert refusal.message, refusal
        seen.append(refusal)
    else:
        raise AssertionError(f"it was not refused; {reason} was expected")


@contextlib.contextmanager
def malformed(field):
    """The block is INVALID_ARGUMENT, with a violation of this field."""
    seen = []
    try:
        yield seen
    except Refused as refusal:
        assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT, refusal
        assert [name for name, why in refusal.violations if why] == [field], refusal
        assert refusal.reason == "REQUEST_MALFORMED", refusal
        seen.append(refusal)
    else:
        raise AssertionError(f"it was not refused; a violation of {field} was expected")


@contextlib.contextmanager
def fails_with(*codes):
    """The block ends with one of these codes."""
    seen = []
    try:
        yield seen
    except Refused as refusal:
        assert refusal.code in codes, refusal
        seen.append(refusal)
    else:
        raise AssertionError(f"it did not fail; {codes} was expected")


def reason(answer):
    """The reason of an answer, without its enum's prefix; the decision agrees with it."""
    name = types.Reason.Name(answer.reason).removeprefix("REASON_")
    if hasattr(answer, "decision"):
        allowed = answer.decision == types.DECISION_ALLOW
        assert allowed == (name == "ALLOWED"), answer
        assert allowed or answer.decision == types.DECISION_DENY, answer
    return name


def reason_number(name):
    return types.Reason.Value(f"REASON_{name}")


def identity_method(identity):
    return types.IdentityMethod.Name(identity.method).removeprefix("IDENTITY_METHOD_")


class Client:
    """One connection, of one identity."""

    def __init__(self, address, credentials, metadata=(), name=""):
        self.name = name
        self.metadata = tuple(metadata)
        self.channel = grpc.secure_channel(address, credentials, OPTIONS)
        self.decisions = pb_grpc.PolicyDecisionServiceStub(self.channel)
        self.administration = admin_grpc.AdminServiceStub(self.channel)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.channel.close()

    def call(self, method, message, seconds=SECONDS):
        try:
            return method(message, timeout=seconds, metadata=self.metadata)
        except grpc.RpcError as error:
            raise Refused(error) from None

    def raw(self, name, message):
        """A call with bytes as they are."""
        method = self.channel.unary_unary(f"/remit.v1.PolicyDecisionService/{name}")
        return self.call(method, message)

    def authorize(self, capability, resource, token="", **more):
        return self.call(self.decisions.Authorize, authorize_request(capability, resource, token, **more))

    def batch_authorize(self, requests):
        return self.call(self.decisions.BatchAuthorize, pb.BatchAuthorizeRequest(requests=requests)).responses

    def delegate(self, to, capabilities, resources, parent="", **more):
        return self.call(self.decisions.Delegate, delegate_request(to, capabilities, resources, parent, **more))

    def batch_delegate(self, requests):
        return self.call(self.decisions.BatchDelegate, pb.BatchDelegateRequest(requests=requests)).results

    def revoke(self, **target):
        return self.call(self.decisions.Revoke, pb.RevokeRequest(**target))

    def reinstate(self, agent, note=""):
        return self.call(self.decisions.Reinstate, pb.ReinstateRequest(agent=agent, note=note))

    def introspect(self, **target):
        return self.call(self.decisions.Introspect, pb.IntrospectRequest(**target))

    def status(self):
        return self.call(self.administration.GetStatus, admin.GetStatusRequest())

    def watch(self, seconds=30, **request):
        message = pb.WatchDecisionsRequest(**request)
        return Watching(self.decisions.WatchDecisions(message, timeout=seconds, metadata=self.metadata))


class Watching:
    """A subscription; what it brings, without heartbeats."""

    def __init__(self, call):
        self.call = call

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.call.cancel()

    def __iter__(self):
        return self

    def __next__(self):
        """The next event or gap."""
        try:
            while True:
                item = next(self.call)
                kind = item.WhichOneof("item")
                assert kind, "an empty item"
                if kind != "heartbeat":
                    return getattr(item, kind)
        except grpc.RpcError as error:
            raise Refused(error) from None

    def take(self, count):
        return [next(self) for _ in range(count)]


def authorize_request(capability, resource, token="", **more):
    return pb.AuthorizeRequest(capability=capability, resource=resource, token=token, **more)


def delegate_request(to, capabilities, resources, parent="", ttl=None, **more):
    if ttl is not None:
        more["ttl"] = duration_pb2.Duration(seconds=ttl)
    return pb.DelegateRequest(to_agent=to, capabilities=capabilities, resources=resources, parent_token=parent, **more)


def certificate_credentials(folder, name):
    """An agent's credentials from a dev folder."""
    folder = Path(folder)
    return grpc.ssl_channel_credentials(
        root_certificates=(folder / "ca.pem").read_bytes(),
        private_key=(folder / "agents" / f"{name}.key").read_bytes(),
        certificate_chain=(folder / "agents" / f"{name}.pem").read_bytes(),
    )


class World:
    """The clients of one server, each made when it is first wanted and closed at the end."""

    def __init__(self, remit):
        self.remit = remit
        self.clients = {}

    def close(self):
        for client in self.clients.values():
            client.close()
        self.clients.clear()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __getitem__(self, name):
        return self._kept(name, "grpc")

    def administrator(self):
        """ops-admin on the admin listener."""
        return self._kept("ops-admin", "admin")

    def _kept(self, name, listener):
        if (name, listener) not in self.clients:
            self.clients[name, listener] = self.fresh(name, listener)
        return self.clients[name, listener]

    def fresh(self, name, listener="grpc"):
        """A connection of its own, for the caller to close."""
        return Client(self.address(listener), certificate_credentials(self.remit.folder, name), name=name)

    def with_credentials(self, credentials, **more):
        return Client(self.address(), credentials, **more)

    def address(self, listener="grpc"):
        return f"127.0.0.1:{self.remit.ports[listener]}"
