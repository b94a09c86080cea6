"""Who is let in, as whom, and that it ends when it ends."""

import json
import os
import socket
import ssl
import time

import grpc
import pytest
from certificates import Authority, spiffe_id
from remit_client import OPTIONS, Refused, World, fails_with, identity_method, reason, refused
from remit_process import Remit, copy_folder
from seed_policy import COORDINATOR, DEPLOYER, deployer_token
from waiting import wait_until

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


@pytest.fixture(scope="module")
def strict(template, tmp_path_factory):
    """One `serve --config` for the tests that change nothing; a client has to show a certificate."""
    folder = copy_folder(template, tmp_path_factory.mktemp("strict") / "dev")
    with Remit(folder, is_dev=False, REMIT_TLS_CLIENT_AUTH="required") as remit, World(remit) as world:
        yield world


@pytest.fixture(scope="module")
def authority(strict):
    """The CA whose certificates the server takes."""
    return Authority.of_folder(strict.remit.folder)


def credentials(folder, issued=None, root=None):
    """With a client certificate, or without."""
    root = root or (folder / "ca.pem").read_bytes()
    if issued is None:
        return grpc.ssl_channel_credentials(root_certificates=root)
    return grpc.ssl_channel_credentials(root, private_key=issued.key, certificate_chain=issued.certificate)


def client(world, issued=None, **more):
    return world.with_credentials(credentials(world.remit.folder, issued), **more)


def ask(client):
    return client.delegate(DEPLOYER, ["kubectl_get"], ["prod/web"])


def test_a_certificate_of_the_authority(strict, authority):
    with client(strict, authority.agent(COORDINATOR)) as coordinator:
        assert ask(coordinator).depth == 1
    with client(strict, authority.agent(DEPLOYER)) as deployer:
        answer = deployer.authorize("kubectl_get", "prod/web", deployer_token(strict).token)
    assert (reason(answer), answer.agent.subject) == ("ALLOWED", spiffe_id(DEPLOYER))


def test_no_certificate(strict):
    with client(strict) as nobody, fails_with(UNAVAILABLE):
        ask(nobody)


def test_an_unknown_authority(strict):
    with client(strict, Authority.new().agent(COORDINATOR)) as stranger, fails_with(UNAVAILABLE):
        ask(stranger)


def test_an_authority_of_the_same_name(strict, authority):
    name = authority._certificate.subject.rfc4514_string().removeprefix("CN=")
    with client(strict, Authority.new(name).agent(COORDINATOR)) as stranger, fails_with(UNAVAILABLE):
        ask(stranger)


@pytest.mark.parametrize("times", [dict(valid_from=-100, valid_until=-10), dict(valid_from=100, valid_until=200)])
def test_a_certificate_out_of_its_time(strict, authority, times):
    with client(strict, authority.agent(COORDINATOR, **times)) as late, fails_with(UNAVAILABLE):
        ask(late)


def test_a_servers_certificate_is_no_clients(strict, authority):
    with client(strict, authority.server()) as server, fails_with(UNAVAILABLE):
        ask(server)


UNMAPPED = {
    "a SPIFFE ID of another trust domain": dict(uris=["spiffe://example.org/ns/ai-agents/sa/agent-coordinator-sa"]),
    "a SPIFFE ID of another form": dict(uris=["spiffe://cluster.local/agent-coordinator"]),
    "a name that is not switched on": dict(dns=["agent-coordinator.ai-agents.svc.cluster.local"]),
    "a common name that is not switched on": dict(common_name="agent-coordinator"),
}


@pytest.mark.parametrize("what", UNMAPPED)
def test_verified_and_nobody(strict, authority, what):
    with client(strict, authority.client(**UNMAPPED[what])) as somebody, refused("IDENTITY_UNMAPPED"):
        ask(somebody)


UNREADABLE = {
    "two URIs": dict(uris=[spiffe_id(COORDINATOR), spiffe_id(DEPLOYER)]),
    "the same URI twice": dict(uris=[spiffe_id(COORDINATOR)] * 2),
    "a URI that is no SPIFFE ID": dict(uris=["https://cluster.local/ns/ai-agents/sa/agent-coordinator-sa"]),
    "a SPIFFE ID and another URI": dict(uris=[spiffe_id(COORDINATOR), "https://example.org/"]),
    "a SPIFFE ID in capitals": dict(uris=["SPIFFE://cluster.local/ns/ai-agents/sa/agent-coordinator-sa"]),
    "a path that goes up": dict(uris=["spiffe://cluster.local/ns/ai-agents/sa/x/../agent-coordinator-sa"]),
}


@pytest.mark.parametrize("what", UNREADABLE)
def test_not_one_spiffe_id(strict, authority, what):
    issued = authority.client(common_name="agent-coordinator", **UNREADABLE[what])
    with client(strict, issued) as somebody, fails_with(UNAUTHENTICATED) as seen:
        ask(somebody)
    assert seen[0].reason is None, "it is told nothing more"


def test_an_agent_that_policy_does_not_know(strict, authority):
    with client(strict, authority.agent("agent-nobody")) as nobody:
        assert reason(nobody.authorize("kubectl_get", "prod/web")) == "AGENT_UNKNOWN"
        with refused("AGENT_UNKNOWN"):
            ask(nobody)


def test_a_certificate_that_runs_out_while_connected(strict, authority):
    issued = authority.agent(DEPLOYER, valid_until=3)
    with client(strict, issued) as deployer:
        assert reason(deployer.authorize("kubectl_get", "prod/web")) == "TOKEN_REQUIRED"
        end = issued.not_after.timestamp()

        def refusal():
            began = time.time()
            try:
                deployer.authorize("kubectl_get", "prod/web")
            except Refused as over:
                return over
            assert began <= end + 1, "the certificate has run out and the connection goes on"
            return None

        over = wait_until(refusal, "the certificate runs out")
        assert over.code in (UNAUTHENTICATED, UNAVAILABLE) and time.time() >= end, over


def test_a_name_is_no_evidence(strict, authority):
    with client(strict, metadata=[("x-remit-agent", COORDINATOR)]) as nobody, fails_with(UNAVAILABLE):
        ask(nobody)
    named = [("x-remit-agent", COORDINATOR)]
    with client(strict, authority.agent(DEPLOYER), metadata=named) as deployer, fails_with(UNAUTHENTICATED):
        ask(deployer)


def test_under_dev_a_name_is_believed_and_shown(shared):
    root = (shared.remit.folder / "ca.pem").read_bytes()
    plain = grpc.ssl_channel_credentials(root_certificates=root)
    with shared.with_credentials(plain, metadata=[("x-remit-agent", DEPLOYER)]) as deployer:
        answer = deployer.authorize("kubectl_get", "prod/web", deployer_token(shared).token)
    assert reason(answer) == "ALLOWED"
    assert answer.agent.is_self_asserted and identity_method(answer.agent) == "SELF_ASSERTED"
    line = wait_until(
        lambda: next((line for line in shared.remit.audit() if line["decision_id"] == answer.decision_id), None),
        "the audit line",
    )
    assert line["is_self_asserted"] is True and line["identity_method"] == "SELF_ASSERTED"
    with shared.with_credentials(plain) as nobody, fails_with(UNAUTHENTICATED):
        ask(nobody)


def test_a_believed_name_is_never_an_administrator(shared):
    root = (shared.remit.folder / "ca.pem").read_bytes()
    plain = grpc.ssl_channel_credentials(root_certificates=root)
    with shared.with_credentials(plain, metadata=[("x-remit-agent", "ops-admin")]) as pretender:
        with refused("CALLER_NOT_AUTHORIZED"):
            pretender.revoke(all=True)
        with pretender.watch() as watching, refused("CALLER_NOT_AUTHORIZED"):
            next(watching)


def test_tls_13_and_nothing_older(strict):
    folder = strict.remit.folder

    def version(highest):
        context = ssl.create_default_context(cafile=folder / "ca.pem")
        context.load_cert_chain(folder / "agents" / f"{DEPLOYER}.pem", folder / "agents" / f"{DEPLOYER}.key")
        context.set_alpn_protocols(["h2"])
        context.maximum_version = highest
        with socket.create_connection(("127.0.0.1", strict.remit.ports["grpc"]), timeout=5) as plain:
            with context.wrap_socket(plain, server_hostname="localhost") as tls:
                return tls.version(), tls.selected_alpn_protocol()

    assert version(ssl.TLSVersion.TLSv1_3) == ("TLSv1.3", "h2")
    with pytest.raises(ssl.SSLError):
        version(ssl.TLSVersion.TLSv1_2)


def test_no_plain_text(strict):
    channel = grpc.insecure_channel(strict.address(), OPTIONS)
    with channel, pytest.raises(grpc.RpcError) as error:
        channel.unary_unary("/remit.v1.PolicyDecisionService/Authorize")(b"", timeout=5)
    assert error.value.code() == UNAVAILABLE


def put(path, content):
    """Replaces a file at once, closed to others like the one before."""
    beside = path.with_name(f".{path.name}.new")
    beside.touch(mode=0o600)
    beside.write_bytes(content)
    os.replace(beside, path)


def test_a_broken_certificate_changes_nothing(serve):
    world = serve(is_dev=False, REMIT_POLICY_POLL_SECONDS="1")
    folder = world.remit.folder
    put(folder / "server.pem", Authority.new().server().certificate)
    details = wait_until(lambda: list(world.administrator().status().details), "the status says so")
    assert "server" in " ".join(details), details
    with world.fresh(DEPLOYER) as deployer:
        assert reason(deployer.authorize("kubectl_get", "prod/web")) == "TOKEN_REQUIRED"
    logged = [json.loads(line) for line in world.remit.log().splitlines()]
    assert any(entry["level"] == "ERROR" and "server" in entry["message"] for entry in logged)
