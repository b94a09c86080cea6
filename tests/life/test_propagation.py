"""A request with a provider's JWT ends, through two delegations, a gateway and a queue, at an agent that knows who called."""

import json
import re
import subprocess
import sys
import urllib.error
import urllib.request

import jwt
import oidc
import pytest
from conftest import REPOSITORY, STUBS
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from oidc import Provider
from remit.v1 import decision_service_pb2 as pb
from remit_client import Refused, authorize_request, identity_method, malformed, reason
from remit_process import environment
from seed_policy import ANALYST, COORDINATOR, DEPLOYER, VALIDATOR, deployer_token
from test_oidc import bearer, configure, may_ask
from waiting import wait_until

EXAMPLE = REPOSITORY / "examples/python/propagation"
ISSUER = "https://remit.example.com"
GATEWAY = "svc-demo"
USER = "ada"
CLIENTS = {
    name: {"team": f"team of {name}", "salary": "planted-and-not-carried"}
    for name in (COORDINATOR, DEPLOYER, VALIDATOR, "portal")
}
KEYS = {"EdDSA": ed25519.Ed25519PrivateKey.generate, "ES256": lambda: ec.generate_private_key(ec.SECP256R1())}


class Place:
    """A provider, a server that trusts it and signs, the example's gateway in front of its queue."""

    def __init__(self, world, provider, queue):
        self.world = world
        self.provider = provider
        self.queue = queue
        self.processes = []

    def start_gateway(self):
        command = [sys.executable, EXAMPLE / "gateway.py", *self._server(), self.queue, ANALYST]
        process = subprocess.Popen(command, env=self._environment(), stdout=subprocess.PIPE, text=True)
        self.processes.append(process)
        self.gateway = f"http://127.0.0.1:{int(process.stdout.readline())}"

    def end(self):
        for process in self.processes:
            process.kill()
            process.wait()
            process.stdout.close()

    def send(self, tokens):
        path = self.queue.with_name("tokens.json")
        path.write_text(json.dumps(tokens))
        return self._run("send.py", *self._server(), path, self.gateway)

    def receive(self, me=ANALYST):
        """What the agent prints, a line a message."""
        jwks = f"http://127.0.0.1:{self.world.remit.ports['http']}/.well-known/jwks.json"
        ran = self._run("agent.py", me, ISSUER, jwks, self.queue)
        assert ran.returncode == 0, ran.stderr
        return [json.loads(line) for line in ran.stdout.splitlines()]

    def messages(self):
        return [json.loads(path.read_text()) for path in self.queue.glob("*.json")]

    def post(self, path="/prod/web", **headers):
        request = urllib.request.Request(f"{self.gateway}{path}", data=b"body", headers=headers)
        try:
            with oidc.OPENER.open(request, timeout=10) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    def _server(self):
        return self.world.address(), self.world.remit.folder

    def _environment(self):
        return environment(PYTHONPATH=str(STUBS), no_proxy="127.0.0.1")

    def _run(self, script, *arguments):
        command = [sys.executable, EXAMPLE / script, *map(str, arguments)]
        return subprocess.run(command, env=self._environment(), capture_output=True, text=True, timeout=30)


def prepare(folder, provider, make_key):
    """The folder's settings as the example's page has them."""
    pem = make_key().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    # `--dev` made one, closed to others.
    (folder / "forward.key").write_bytes(pem)
    config = (folder / "remit.toml").read_text()
    config, changed = re.subn(r'(?m)(^\[identity\.forward\][^\[]*?^issuer = )"[^"]*"', rf'\1"{ISSUER}"', config)
    assert changed == 1, config
    (folder / "remit.toml").write_text(config)
    configure(folder, provider)
    policy = json.loads((folder / "policy.json").read_text())
    policy["enforcement_points"] = [{"agent": GATEWAY, "destinations": [ANALYST]}]
    (folder / "policy.json").write_text(json.dumps(policy))


@pytest.fixture(params=KEYS)
def place(request, folder, serve, need_node, tmp_path):
    with Provider(tmp_path, CLIENTS) as provider:
        prepare(folder, provider, KEYS[request.param])
        world = serve(is_dev=False, REMIT_TELEMETRY_LOG="debug")
        wait_until(lambda: may_ask(world, provider.token(COORDINATOR)), "the provider's keys are known", 15)
        queue = tmp_path / "queue"
        queue.mkdir()
        place = Place(world, provider, queue)
        place.start_gateway()
        yield place
        place.end()


def tokens_of(provider):
    tokens = {agent: provider.token(agent) for agent in (COORDINATOR, DEPLOYER, VALIDATOR)}
    return tokens | {"user": provider.token("portal", user=USER)}


def test_the_agent_knows_who_called(place):
    tokens = tokens_of(place.provider)
    sent = place.send(tokens)
    assert sent.returncode == 0, sent.stderr
    assert sent.stdout == f"202 {VALIDATOR}\n"
    [message] = place.messages()
    assert not any(part in json.dumps(message) for token in tokens.values() for part in token.split(".")[1:])
    [seen] = place.receive()
    assert seen["issuer"] == place.provider.issuer
    assert (seen["subject"], seen["agent"]) == (VALIDATOR, VALIDATOR)
    assert seen["chain"] == [COORDINATOR, DEPLOYER, VALIDATOR]
    assert seen["claims"] == {"team": f"team of {VALIDATOR}"}
    assert seen["on_behalf_of"] == f"jwt:{place.provider.issuer}#{USER}"
    assert seen["is_self_asserted"] is False
    assert seen["body"] == "is it healthy?"
    shown = re.search(r"```text\n(.*?)```", (EXAMPLE / "README.md").read_text(), re.DOTALL)[1]
    assert set(re.findall(r'"(\w+)": ', shown)) == set(seen), "its page shows what it prints"
    text = message["headers"]["x-remit-identity"]
    told = jwt.get_unverified_header(text) | jwt.decode(text, options={"verify_signature": False})
    page = (REPOSITORY / "docs/propagation.md").read_text().split("## What is in it")[1].split("```")[1]
    assert set(re.findall(r'"(\w+)":', page)) - {"team"} == set(told), "its page shows what is in it"
    assert told["typ"] == "remit-identity+jwt" and told["obo"] == f"jwt:{place.provider.issuer}#{USER}"
    written = place.world.remit.log() + "\n".join(place.world.remit.audit_lines())
    secrets = [*tokens.values(), message["headers"]["x-remit-identity"], "planted-and-not-carried"]
    assert [secret for secret in secrets if secret in written] == []


def test_what_was_not_for_the_agent_is_refused(place):
    assert place.send(tokens_of(place.provider)).returncode == 0
    [message] = place.messages()
    good = message["headers"]["x-remit-identity"]
    head, told, signature = good.split(".")
    claims = json.loads(oidc.decode(told))

    def with_header(text):
        (place.queue / "m.json").write_text(json.dumps({"headers": {"x-remit-identity": text}, "body": ""}))

    bad = {
        "another agent's": lambda: oidc.sign({"alg": "ES256", "typ": "remit-identity+jwt"}, claims, oidc.new_key("ES256")),
        "other claims": lambda: f"{head}.{oidc.encode(json.dumps(claims | {'agent': 'root'}).encode())}.{signature}",
        "the provider's JWT": lambda: place.provider.token(VALIDATOR),
        "nothing": lambda: "",
    }
    for path in place.queue.glob("*.json"):
        path.unlink()
    for what, make in bad.items():
        with_header(make())
        [seen] = place.receive()
        assert list(seen) == ["refused"], what
    with_header(good)
    [seen] = place.receive(me=DEPLOYER)
    assert list(seen) == ["refused"], "it was for another agent"
    with_header(good)
    (place.queue / "again.json").write_text((place.queue / "m.json").read_text())
    first, second = place.receive()
    assert first["is_self_asserted"] is False
    assert second == {"refused": "it was shown before"}


def test_what_a_caller_writes_into_headers_stays_outside(place):
    provider, world = place.provider, place.world
    forged = {"x-remit-identity": "forged", "x-remit-agent": "root", "rb-auth-token": "forged"}
    assert place.post(**forged) == 401
    assert place.post(**forged, authorization="Bearer forged") == 401
    validator = forged | {"authorization": f"Bearer {provider.token(VALIDATOR)}"}
    assert place.post(**validator) == 403, "it has no capability token"
    assert place.messages() == []
    with bearer(world, provider.token(COORDINATOR)) as coordinator, bearer(world, provider.token(DEPLOYER)) as deployer:
        root = coordinator.delegate(DEPLOYER, ["kubectl_get"], ["prod/*"], delegatable=True).token
        token = deployer.delegate(VALIDATOR, ["kubectl_get"], ["prod/web"], parent=root).token
    assert place.post("/prod/db", **validator | {"x-remit-token": token}) == 403, "it is for something else"
    assert place.post(**validator | {"x-remit-token": token}) == 202
    assert place.post(**validator | {"x-remit-token": token}) == 403, "it is spent"
    [message] = place.messages()
    assert "forged" not in json.dumps(message) and "root" not in message["headers"].values()
    assert token not in json.dumps(message)
    [seen] = place.receive()
    assert seen["chain"] == [COORDINATOR, DEPLOYER, VALIDATOR] and seen["on_behalf_of"] is None


def test_remit_tells_its_receiver_alone(place):
    assert place.send(tokens_of(place.provider)).returncode == 0
    wish = pb.VerifyIdentityRequest(forwarded=place.messages()[0]["headers"]["x-remit-identity"])
    receiver, other = place.world[ANALYST], place.world[DEPLOYER]
    identity = receiver.call(receiver.decisions.VerifyIdentity, wish).identity
    assert (identity.agent, identity.issuer) == (VALIDATOR, place.provider.issuer)
    assert identity_method(identity) == "FORWARDED" and not identity.is_self_asserted
    with pytest.raises(Refused):
        other.call(other.decisions.VerifyIdentity, wish)
    assert not may_ask(place.world, wish.forwarded), "it is no access token"


def told(answer):
    """What was signed; its signature is looked at elsewhere."""
    return jwt.decode(answer.forwarded_identity, options={"verify_signature": False})


def test_it_is_signed_for_whom_the_request_goes_to_and_for_nobody_else(place):
    gateway, deployer = place.world[GATEWAY], place.world[DEPLOYER]
    use = ("kubectl_get", "prod/web")

    def token():
        return deployer_token(place.world).token

    wish = {"agent": DEPLOYER, "forward_identity": True}
    to_itself = told(gateway.authorize(*use, token(), **wish))
    assert (to_itself["aud"], to_itself["method"], to_itself["idp"]) == (GATEWAY, "ENFORCEMENT_POINT", GATEWAY)
    onward = gateway.authorize(*use, token(), destination=ANALYST, **wish)
    assert told(onward)["aud"] == ANALYST and told(onward)["jti"] == onward.decision_id
    assert told(onward)["exp"] - told(onward)["iat"] <= 60
    own = told(deployer.authorize(*use, token(), forward_identity=True))
    assert (own["aud"], own["method"]) == (DEPLOYER, "SPIFFE")
    [first, second] = gateway.batch_authorize([authorize_request(*use, token(), **wish) for _ in range(2)])
    assert told(first)["jti"] != told(second)["jti"]

    elsewhere = gateway.authorize(*use, token(), destination=COORDINATOR, **wish)
    assert reason(elsewhere) == "CALLER_NOT_ENFORCEMENT_POINT"
    spent = token()
    dry = gateway.authorize(*use, spent, dry_run=True, **wish)
    not_wished = gateway.authorize(*use, spent, agent=DEPLOYER)
    denied = gateway.authorize(*use, spent, **wish)
    assert [reason(answer) for answer in (dry, not_wished, denied)] == ["ALLOWED", "ALLOWED", "TOKEN_USES_EXHAUSTED"]
    assert [answer.forwarded_identity for answer in (elsewhere, dry, not_wished, denied)] == [""] * 4


def test_a_wish_that_can_not_be_granted_spends_nothing(folder, serve):
    config = (folder / "remit.toml").read_text()
    (folder / "remit.toml").write_text(re.sub(r'(?m)^(signing_key|issuer) = .*$', "", config))
    world = serve(is_dev=False)
    token = deployer_token(world).token
    with malformed("forward_identity"):
        world[DEPLOYER].authorize("kubectl_get", "prod/web", token, forward_identity=True)
    assert reason(world[DEPLOYER].authorize("kubectl_get", "prod/web", token)) == "ALLOWED"
