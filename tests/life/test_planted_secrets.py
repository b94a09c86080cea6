"""Secrets go in by every door, in what is allowed and in what is refused, and come out of none."""

import json
import re
import secrets
import urllib.parse

import grpc
import seed_token
from assurance import assure
from certificates import spiffe_id
from envoy.service.auth.v3 import attribute_context_pb2, external_auth_pb2
from google.protobuf import struct_pb2
from otlp import Collector
from remit_client import Refused, admin, certificate_credentials, pb
from seed_policy import COORDINATOR, DEPLOYER, VALIDATOR, deployer_token
from test_authzen import Pep
from test_cli import remit
from test_oauth import CAPABILITY, TYPE, idp, oauth  # noqa: F401: fixtures
from waiting import wait_until

import pytest

GATE = "svc-demo"


@pytest.fixture
def noisy(folder):
    """The server's own log at its noisiest, and a collector that asks for a credential."""
    config = folder / "remit.toml"
    text = config.read_text()
    assert "[telemetry]\n" in text
    with Collector() as collector:
        collector.credential = f"planted{secrets.token_hex(12)}"
        headers = folder / "otlp.headers"
        headers.write_text(f"authorization: Bearer {collector.credential}\n")
        headers.chmod(0o600)
        more = f'log = "trace"\notlp_endpoint = "{collector.url}"\notlp_headers_file = "otlp.headers"\n'
        config.write_text(text.replace("[telemetry]\n", f"[telemetry]\n{more}"))
        yield collector


class Planted:
    """Texts that nobody else makes, and what was answered to those who sent them."""

    def __init__(self):
        self.secrets = []
        self.said = []

    def new(self):
        self.secrets.append(f"planted{secrets.token_hex(12)}")
        return self.secrets[-1]

    def hide(self, secret):
        """One that others made: its parts are as secret as the whole."""
        self.secrets += [part for part in secret.split(".") if len(part) > 20]
        return secret

    def ask(self, question, *arguments, **more):
        try:
            answer = question(*arguments, **more)
        except (Refused, grpc.RpcError) as error:
            answer = None
            self.said.append(str(error))
        return answer

    def context(self):
        """What a careless caller puts there."""
        return {"password": self.new(), "user": {"api_key": self.new(), "list": [self.new()]}, self.new(): True}


def grpc_doors(world, planted, tokens, key, alice):
    deployer, validator, gate = world[DEPLOYER], world[VALIDATOR], world[GATE]
    for token in tokens:
        context = struct_pb2.Struct()
        context.update(planted.context())
        for client in (deployer, validator):
            planted.ask(client.authorize, "kubectl_get", "prod/web", token, context=context)
            planted.ask(client.delegate, VALIDATOR, ["kubectl_get"], ["prod/web"], token)
            planted.ask(client.introspect, token=token)
        planted.ask(gate.authorize, "kubectl_get", "prod/web", token, agent=DEPLOYER, context=context)
        question = pb.AuthorizeRequest(capability="kubectl_get", resource="prod/web", token=token, context=context)
        planted.ask(deployer.batch_authorize, [question, question])
        planted.ask(deployer.revoke, token=token)
    for evidence in (dict(bearer=alice), dict(bearer=planted.new()), dict(api_key=key), dict(api_key=planted.new())):
        planted.ask(lambda: gate.call(gate.decisions.VerifyIdentity, pb.VerifyIdentityRequest(**evidence)))
    for name, value in (("x-api-key", planted.new()), ("authorization", f"Bearer {planted.new()}")):
        with world.fresh(DEPLOYER) as client:
            client.metadata = ((name, value),)
            planted.ask(client.authorize, "kubectl_get", "prod/web", tokens[0])


def where_text_belongs(world, planted, tokens):
    """Tokens, by mistake, in the fields that are for people to read."""
    deployer, gate = world[DEPLOYER], world[GATE]
    for token in tokens:
        planted.ask(deployer.authorize, "kubectl_get", "prod/web", token, request_id=token)
        planted.ask(deployer.authorize, "kubectl_get", f"prod/{token}", token)
        planted.ask(deployer.authorize, token, "prod/web", token)
        planted.ask(deployer.delegate, VALIDATOR, ["kubectl_get"], ["prod/web"], token, task=token, request_id=token)
        planted.ask(deployer.revoke, agent=DEPLOYER, note=token)
        planted.ask(deployer.revoke, token_id=token)
        planted.ask(deployer.introspect, token_id=token)
        message = dict(from_agent=DEPLOYER, to_agent=VALIDATOR, text=token, task=token)
        planted.ask(lambda: gate.call(gate.decisions.RecordMessage, pb.RecordMessageRequest(**message)))


def administration(world):
    """What administrators are shown."""
    ops = world.administrator()
    shown = [ops.call(ops.administration.GetStatus, admin.GetStatusRequest())]
    shown.append(ops.call(ops.administration.GetPolicy, admin.GetPolicyRequest()))
    shown.append(ops.call(ops.administration.ListAgents, admin.ListAgentsRequest()))
    shown.append(ops.call(ops.administration.ListRevocations, admin.ListRevocationsRequest()))
    pages = [Pep(world.remit, "ops-admin").send("GET", path).text for path in ("/readyz", "/healthz")]
    return "\n".join([*map(str, shown), *pages])


def spoil(world, planted):
    """Files of secrets with what doesn't belong there: a key itself in place of its digest, half a key, half a header."""
    before = len(world.administrator().status().details)
    for name, content in (
        ("oauth_keys.txt", f"deployer-1 {DEPLOYER} {planted.new()}\n"),
        ("hmac.key", planted.new()[:30]),
        ("otlp.headers", f"authorization Bearer {planted.new()}\n"),
    ):
        planted.hide(content.split()[-1])
        planted.secrets.append(content.split()[-1])
        (world.remit.folder / name).write_text(content)
    world.remit.hang_up()
    details = lambda: world.administrator().status().details  # noqa: E731
    return wait_until(lambda: len(details()) >= before + 2 and details(), "what is wrong with them is said", 15)


def proxies(world, planted, tokens, alice):
    credentials = certificate_credentials(world.remit.folder, GATE)
    pep = Pep(world.remit, GATE)
    with grpc.secure_channel(f"localhost:{world.remit.ports['grpc']}", credentials) as channel:
        check = channel.unary_unary(
            "/envoy.service.auth.v3.Authorization/Check",
            external_auth_pb2.CheckRequest.SerializeToString,
            external_auth_pb2.CheckResponse.FromString,
        )
        for token in tokens:
            headers = {
                "x-remit-token": token,
                "authorization": f"Bearer {planted.new()}",
                "cookie": f"session={planted.new()}",
                "x-api-key": planted.new(),
            }
            http = attribute_context_pb2.AttributeContext.HttpRequest(
                method="POST", path=f"/open?api_key={planted.new()}", host="h", headers=headers, body=planted.new()
            )
            request = attribute_context_pb2.AttributeContext(
                source={"principal": spiffe_id(DEPLOYER)},
                request={"http": http},
                context_extensions={"remit-capability": "kubectl_get", "remit-resource": "prod/web"},
            )
            planted.ask(check, external_auth_pb2.CheckRequest(attributes=request), timeout=10)
            forwarded = {
                "x-forwarded-method": "GET",
                "x-forwarded-uri": f"/open?api_key={planted.new()}",
                "x-forwarded-host": "h",
                "authorization": f"Bearer {alice}",
                "cookie": planted.new(),
                "x-remit-token": token,
            }
            words = urllib.parse.urlencode({"capability": "kubectl_get", "resource": "prod/web"})
            planted.said.append(pep.send("GET", f"/v1/check/{words}", headers=forwarded).text)


def authzen(world, planted, tokens):
    pep = Pep(world.remit, GATE)
    for token in tokens:
        body = {
            "subject": {"type": "agent", "id": DEPLOYER, "properties": planted.context()},
            "action": {"name": "kubectl_get", "properties": planted.context()},
            "resource": {"type": "resource", "id": "prod/web", "properties": planted.context()},
            "context": planted.context() | {"remit_token": token},
        }
        planted.said.append(pep.post("evaluation", body).text)
        planted.said.append(pep.post("evaluations", {"evaluations": [body, body]}).text)
        planted.said.append(pep.post("evaluation", body | {"context": {"remit_token": [planted.new()]}}).text)
        planted.said.append(pep.send("POST", "/access/v1/evaluation", f'{{"{planted.new()}').text)
        planted.said.append(pep.send("POST", "/access/v1/evaluation", "{}", {"authorization": planted.new()}).text)


def oauth_doors(face, planted, tokens, key, alice, actor):
    for token in tokens:
        for who in ({"agent": VALIDATOR}, {"key": key}, {"key": planted.new()}):
            for path in ("/oauth2/introspect", "/oauth2/revoke"):
                answered = face.ask(path, {"token": token, "token_type_hint": planted.new()}, **who)
                # Introspection may say whose it is; not what was sent.
                planted.said.append(json.dumps(answered[2]))
            # A granted exchange answers with a token, which is what it is for.
            status, _, body = face.exchange(token, CAPABILITY, actor, who, client_secret=planted.new())
            planted.said += [] if status == 200 else [json.dumps(body)]
    for subject in (alice, planted.new(), f"{planted.new()}.{planted.new()}.{planted.new()}"):
        status, _, body = face.exchange(subject, TYPE + "jwt", actor, {"agent": COORDINATOR}, password=planted.new())
        planted.said += [] if status == 200 else [json.dumps(body)]


def watchers(world, planted, tokens):
    """Who watches and administers, with what doesn't belong into the query, the headers or the messages."""
    pep = Pep(world.remit, "ops-admin")
    for secret in [*tokens, planted.new()]:
        for query in (f"after={secret}", f"agent={secret} {secret}", f"result={secret}", f"{secret}=1"):
            planted.said.append(pep.send("GET", f"/v1/events?{urllib.parse.quote(query, safe='=')}").text)
        for name in ("last-event-id", "x-api-key", "authorization", "x-remit-identity"):
            planted.said.append(pep.send("GET", "/v1/events?after=0", headers={name: secret}).text)
        planted.said.append(pep.send("GET", f"/{secret}").text)
        for stub in (world["ops-admin"].decisions.WatchDecisions, world[DEPLOYER].decisions.WatchDecisions):
            planted.ask(lambda: next(stub(pb.WatchDecisionsRequest(stream_id=secret, results=[secret], agents=[secret]))))
        with world.fresh("ops-admin", "admin") as ops:
            ops.metadata = (("x-api-key", secret),)
            planted.ask(ops.status)


def streamed(world, last):
    """Both streams up to this event, as they are on the wire."""
    with world["ops-admin"].watch(after_sequence=0) as watching:
        messages = "\n".join(map(str, watching.take(last)))
    connection = Pep(world.remit, "ops-admin").connect()
    connection.request("GET", "/v1/events?after=0")
    answer, text = connection.getresponse(), ""
    assert answer.status == 200
    while f":{last}\n" not in text:
        text += answer.fp.readline().decode()
    text += answer.fp.readline().decode() + answer.fp.readline().decode()
    connection.close()
    return messages, text


def test_no_secret_comes_out_of_any_door(noisy, oauth, idp):  # noqa: F811: fixtures
    world, face, key, _ = oauth
    planted = Planted()
    planted.hide(key)
    planted.secrets.append(noisy.credential)
    alice, actor = planted.hide(idp.jwt("alice")), planted.hide(idp.jwt("v", VALIDATOR))
    tokens = [planted.hide(deployer_token(world, delegatable=True).token) for _ in range(2)]
    tokens += [planted.hide(deployer_token(world).token)]
    hmac_key = world.remit.hmac_key()
    tokens += [planted.new(), f"{planted.new()}.{'0' * 64}", seed_token.seal_bytes(hmac_key, planted.new().encode())]

    grpc_doors(world, planted, tokens[:1] + tokens[3:], key, alice)
    fresh = [planted.hide(deployer_token(world, delegatable=True).token) for _ in range(3)]
    proxies(world, planted, fresh[:1] + tokens[3:], alice)
    authzen(world, planted, fresh[1:2] + tokens[3:])
    oauth_doors(face, planted, fresh[2:] + tokens[3:], key, alice, actor)

    misplaced = [planted.hide(deployer_token(world, delegatable=delegatable).token) for delegatable in (False, True)]
    where_text_belongs(world, planted, misplaced)
    watchers(world, planted, misplaced)
    last = world.administrator().status().event_sequence
    wait_until(lambda: len(world.remit.audit_lines()) >= last, "all is written")
    noisy.until_logs(last, 20)
    messages, source = streamed(world, last)
    forward_key = "".join((world.remit.folder / "forward.key").read_text().splitlines()[1:-1])
    shown = administration(world)
    spoiled = "\n".join(spoil(world, planted))
    assert "keys" in spoiled, spoiled
    configuration = remit("serve", "--config", world.remit.folder / "remit.toml", "--print-config", **world.remit.settings)
    metrics = Pep(world.remit, "ops-admin").send("GET", "/metrics").text
    lines = world.remit.audit()
    for kind in ("capability_request", "delegate", "revoke"):
        results = {line["result"] for line in lines if line["message_type"] == kind}
        assert {"accepted"} <= results and (kind == "revoke" or "denied" in results), (kind, results)
    allowed = [line["to_agent"] for line in lines if (line["message_type"], line["result"]) == ("capability_request", "accepted")]
    assert allowed.count(GATE) >= 2 and DEPLOYER in allowed, "proxies, AuthZEN and the agent itself were allowed something"
    written = {
        "the log": world.remit.log(),
        "standard output": world.remit.printed(),
        "the audit file": "\n".join(world.remit.audit_lines()),
        "WatchDecisions": messages,
        "/v1/events": source,
        "the metrics": metrics,
        "answers": "\n".join(planted.said),
        "what the collector got": "\n".join(map(str, noisy.requests["logs"] + noisy.requests["traces"])),
        "administration": shown,
        "what is wrong with the files": spoiled,
        "--print-config": configuration.stdout + configuration.stderr,
    }
    assert "otlp.headers" in configuration.stdout and noisy.spans(), configuration.stderr
    assert {said["authorization"] for said in noisy.metadata} == {f"Bearer {noisy.credential}"}
    assert '"level":"TRACE"' in written["the log"] and len(planted.said) > 40
    kept = [hmac_key.decode(), forward_key[-40:], *(re.sub("=+$", "", token.split(".")[0])[-40:] for token in fresh)]
    for place, text in written.items():
        for secret in planted.secrets + kept:
            assert secret not in text, f"{place} has {secret!r}: {around(text, secret)}"
    assure(
        "planted secrets",
        secrets=len(planted.secrets + kept),
        answers=len(planted.said),
        places=len(written),
        characters=sum(map(len, written.values())),
        found=0,
    )


def around(text, secret):
    at = text.index(secret)
    return text[max(0, at - 300) : at + 100]
