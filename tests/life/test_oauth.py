"""The OAuth face of the real program: a token exchange is a delegation, over mTLS, API keys and private_key_jwt."""

import base64
import hashlib
import http.server
import json
import secrets
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils
from remit.v1 import decision_service_pb2 as pb
from remit_client import malformed, reason
from seed_policy import COORDINATOR, DEPLOYER, VALIDATOR
from waiting import wait_until

TYPE = "urn:ietf:params:oauth:token-type:"
CAPABILITY = "urn:remit:token-type:capability"
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Signer:
    """Somebody with a P-256 key."""

    def __init__(self, key_id):
        self.key, self.key_id = ec.generate_private_key(ec.SECP256R1()), key_id

    def jwks(self):
        numbers = self.key.public_key().public_numbers()
        x, y = (b64(number.to_bytes(32, "big")) for number in (numbers.x, numbers.y))
        return {"keys": [{"kty": "EC", "crv": "P-256", "kid": self.key_id, "alg": "ES256", "use": "sig", "x": x, "y": y}]}

    def sign(self, **claims):
        header = {"alg": "ES256", "kid": self.key_id, "typ": "JWT"}
        message = ".".join(b64(json.dumps(part).encode()) for part in (header, claims))
        r, s = utils.decode_dss_signature(self.key.sign(message.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{message}.{b64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


class Idp(Signer):
    """An identity provider that publishes its keys."""

    def __init__(self):
        super().__init__("idp-1")
        document = json.dumps(self.jwks()).encode()

        class Pages(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.end_headers()
                self.wfile.write(document)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages)
        self.issuer = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def jwt(self, subject, agent=None, **more):
        now = int(time.time())
        claims = {"iss": self.issuer, "sub": subject, "aud": "remit", "iat": now - 1, "exp": now + 120}
        return self.sign(**claims | ({"agent": agent} if agent else {}) | more)


class Face:
    """The endpoints of a server, asked by one client after the other."""

    def __init__(self, remit):
        self.remit, self.url = remit, f"https://localhost:{remit.ports['http']}"

    def ask(self, path, form=None, agent=None, key=None):
        """Status, headers, body: by the agent's certificate, by an API key, or as nobody."""
        context = ssl.create_default_context(cafile=self.remit.folder / "ca.pem")
        if agent:
            context.load_cert_chain(*(self.remit.folder / "agents" / f"{agent}.{kind}" for kind in ("pem", "key")))
        data = urllib.parse.urlencode(form, doseq=True).encode() if form is not None else None
        request = urllib.request.Request(self.url + path, data, {"x-api-key": key} if key else {})
        handlers = [urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)]
        try:
            with urllib.request.build_opener(*handlers).open(request, timeout=5) as answer:
                status, headers, text = answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            status, headers, text = error.code, error.headers, error.read()
        is_json = headers.get_content_type() == "application/json"
        return status, headers, json.loads(text) if is_json else text.decode() or None

    def exchange(self, subject, kind, actor, who, **more):
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": subject,
            "subject_token_type": kind,
            "scope": "kubectl_get",
            "remit_resource": "prod/*",
        }
        if actor:
            form |= {"actor_token": actor, "actor_token_type": TYPE + "jwt"}
        return self.ask("/oauth2/token", form | more, **who)


def granted(answer):
    status, headers, body = answer
    assert status == 200, body
    assert headers["cache-control"] == "no-store"
    return body["access_token"]


@pytest.fixture
def idp():
    idp = Idp()
    yield idp
    idp.server.shutdown()


@pytest.fixture
def oauth(serve, folder, idp):
    """A server that knows the IdP, an API key of the deployer and the validator's own key."""
    key = secrets.token_urlsafe(32)
    keys = folder / "oauth_keys.txt"
    keys.write_text(f"deployer-1 {DEPLOYER} {hashlib.sha256(key.encode()).hexdigest()}\n")
    keys.chmod(0o600)
    client = Signer("validator-1")
    (folder / "validator.jwks.json").write_text(json.dumps(client.jwks()))
    config = folder / "remit.toml"
    config.write_text(
        config.read_text()
        + f'\n[[identity.jwt]]\nissuer = "{idp.issuer}"\naudience = "remit"\njwks_uri = "{idp.issuer}/keys"\n'
        + f'agent_claim = "agent"\n\n[[identity.client]]\nagent = "{VALIDATOR}"\njwks_file = "validator.jwks.json"\n'
    )
    world = serve(
        is_dev=False,
        REMIT_HTTP_TLS_CERTIFICATE=str(folder / "server.pem"),
        REMIT_HTTP_TLS_KEY=str(folder / "server.key"),
        REMIT_HTTP_CLIENT_CA=str(folder / "ca.pem"),
        REMIT_HTTP_OFFLINE_JWT="true",
        REMIT_IDENTITY_API_KEYS_FILE=str(keys),
    )
    face = Face(world.remit)
    subject, actor = idp.jwt("alice"), idp.jwt("d", DEPLOYER)
    knows = lambda: face.exchange(subject, TYPE + "jwt", actor, {"agent": COORDINATOR})[0] == 200
    wait_until(knows, "the server has the IdP's keys")
    return world, face, key, client


def test_a_users_jwt_becomes_a_chain_of_two_exchanges(oauth, idp):
    world, face, key, _ = oauth
    coordinator, deployer = {"agent": COORDINATOR}, {"key": key}
    alice = idp.jwt("alice")
    to_deployer = idp.jwt("d", DEPLOYER)
    first = granted(
        face.exchange(alice, TYPE + "access_token", to_deployer, coordinator, remit_delegatable="true")
    )
    second = granted(
        face.exchange(first, CAPABILITY, idp.jwt("v", VALIDATOR), deployer, remit_resource="prod/web")
    )
    _, _, seen = face.ask("/oauth2/introspect", {"token": second}, agent=VALIDATOR)
    chain = {"sub": VALIDATOR, "act": {"sub": DEPLOYER, "act": {"sub": COORDINATOR}}}
    assert (seen["active"], seen["act"], seen["sub"]) == (True, chain, f"jwt:{idp.issuer}#alice")
    assert reason(world[VALIDATOR].authorize("kubectl_get", "prod/db", second)) == "RESOURCE_NOT_GRANTED"
    assert reason(world[VALIDATOR].authorize("kubectl_get", "prod/web", second)) == "ALLOWED"
    assert reason(world[VALIDATOR].authorize("kubectl_get", "prod/web", second)) == "TOKEN_USES_EXHAUSTED"
    used = wait_until(
        lambda: [line for line in world.remit.audit() if line["message_type"] == "capability_request" and line["result"] == "accepted"],
        "the use is in the audit log",
    )
    assert used[0]["obo"] == f"jwt:{idp.issuer}#alice"
    assert used[0]["delegation_chain"] == [COORDINATOR, DEPLOYER, VALIDATOR]


def test_revoking_over_http_holds_over_grpc(oauth, idp):
    world, face, key, _ = oauth
    first = granted(
        face.exchange(idp.jwt("alice"), TYPE + "jwt", idp.jwt("d", DEPLOYER), {"agent": COORDINATOR})
    )
    assert face.ask("/oauth2/revoke", {"token": first}, agent=VALIDATOR)[0] == 200, "it is not the validator's"
    assert face.ask("/oauth2/introspect", {"token": first}, key=key)[2]["active"] is True
    assert face.ask("/oauth2/revoke", {"token": first}, key=key)[::2] == (200, None)
    assert face.ask("/oauth2/introspect", {"token": first}, key=key)[2] == {"active": False}
    assert reason(world[DEPLOYER].authorize("kubectl_get", "prod/web", first)) == "TOKEN_REVOKED"


def test_the_log_says_who_asked_and_whose_authority_it_was(oauth, idp):
    world, face, key, _ = oauth
    coordinator, deployer = idp.jwt("c", COORDINATOR), {"key": key}
    token = granted(face.exchange(coordinator, TYPE + "jwt", None, deployer))
    assert face.exchange(coordinator, TYPE + "jwt", None, deployer, scope="delete_everything")[2]["error"] == "invalid_scope"
    assert face.ask("/oauth2/revoke", {"token": token}, agent=VALIDATOR)[0] == 200

    def lines(**wanted):
        return [line for line in world.remit.audit() if all(line.get(name) == text for name, text in wanted.items())]

    asked = {"message_type": "delegate", "from_agent": COORDINATOR, "to_agent": DEPLOYER, "caller": DEPLOYER}
    wait_until(lambda: lines(result="accepted", identity_method="API_KEY", **asked), "who asked is recorded")
    wait_until(lambda: lines(result="denied", **asked), "also where it was refused")
    wait_until(
        lambda: lines(message_type="revoke", caller=VALIDATOR, reason="CALLER_NOT_AUTHORIZED"),
        "a revocation without effect is recorded",
    )
    samples = dict(line.rsplit(" ", 1) for line in face.ask("/metrics")[2].splitlines() if not line.startswith("#"))
    attempts = [
        samples[f'agent_capability_escalation_attempts_total{{agent_id="{agent}"}}'] for agent in (COORDINATOR, DEPLOYER)
    ]
    assert attempts == ["0", "1"], "whoever asked for too much did it"


def test_clients_are_somebody_in_one_way(oauth, idp):
    _, face, key, client = oauth
    form = {"token": "x"}
    status, headers, body = face.ask("/oauth2/introspect", form)
    assert (status, body["error"]) == (401, "invalid_client") and headers["www-authenticate"]
    assert face.ask("/oauth2/introspect", form, agent=DEPLOYER, key=key)[0] == 400
    assert face.ask("/oauth2/introspect", form, key=key[:-1] + "_")[0] == 401

    def signed():
        now = int(time.time())
        return client.sign(iss=VALIDATOR, sub=VALIDATOR, aud=face.url, jti=secrets.token_hex(8), iat=now, exp=now + 60)

    def by_assertion(assertion):
        return face.ask("/oauth2/introspect", form | {"client_assertion_type": ASSERTION, "client_assertion": assertion})[0]

    # Assertions of the first seconds are refused: an earlier process may have seen them.
    wait_until(lambda: by_assertion(signed()) == 200, "assertions are taken", 15)
    assertion = signed()
    assert [by_assertion(assertion), by_assertion(assertion)] == [200, 401]


def test_an_offline_jwt_is_verified_with_the_published_keys_and_never_taken_back(oauth, idp):
    _, face, _, _ = oauth
    alice, actor, coordinator = idp.jwt("alice"), idp.jwt("d", DEPLOYER), {"agent": COORDINATOR}
    more = {"requested_token_type": TYPE + "access_token", "audience": "https://shop.example"}
    answer = face.exchange(alice, TYPE + "jwt", actor, coordinator, **more)
    token = granted(answer)
    assert answer[2]["token_type"] == "Bearer" and answer[2]["expires_in"] <= 60
    message, signature = token.rsplit(".", 1)
    header, claims = (json.loads(unb64(part)) for part in message.split("."))
    assert header["typ"] == "at+jwt"
    metadata = face.ask("/.well-known/oauth-authorization-server")[2]
    assert metadata["issuer"] == claims["iss"] == face.url
    assert "tls_client_auth" in metadata["token_endpoint_auth_methods_supported"]
    published = face.ask(metadata["jwks_uri"].removeprefix(face.url))[2]
    keys = json.loads(published)["keys"]
    [key] = [key for key in keys if key["kid"] == header["kid"]]
    if key["kty"] == "OKP":
        ed25519.Ed25519PublicKey.from_public_bytes(unb64(key["x"])).verify(unb64(signature), message.encode())
    else:
        point = ec.EllipticCurvePublicNumbers(
            *(int.from_bytes(unb64(key[name]), "big") for name in ("x", "y")), ec.SECP256R1()
        )
        raw = unb64(signature)
        der = utils.encode_dss_signature(*(int.from_bytes(half, "big") for half in (raw[:32], raw[32:])))
        point.public_key().verify(der, message.encode(), ec.ECDSA(hashes.SHA256()))
    assert claims["act"] == {"sub": DEPLOYER, "act": {"sub": COORDINATOR}}
    assert (claims["sub"], claims["aud"]) == (f"jwt:{idp.issuer}#alice", "https://shop.example")
    assert face.exchange(token, TYPE + "jwt", actor, coordinator)[2]["error"] == "invalid_request"
    assert face.ask("/oauth2/revoke", {"token": token}, agent=DEPLOYER)[2]["error"] == "unsupported_token_type"


def test_the_same_jwt_launders_nothing_over_grpc(oauth, idp):
    """What the exchange compares and keeps is refused where nobody would."""
    world, face, _, _ = oauth
    coordinator = world[COORDINATOR]
    wish = (DEPLOYER, ["kubectl_get"], ["prod/*"])
    for more in ({"may_act": {"sub": "somebody-else"}}, {"act": {"sub": "mallory"}}):
        with malformed("obo_credential"):
            user = pb.UserCredential(bearer=idp.jwt("alice", **more))
            coordinator.delegate(*wish, obo_credential=user)
    brief = idp.jwt("alice", exp=int(time.time()) + 30)
    minted = coordinator.delegate(*wish, obo_credential=pb.UserCredential(bearer=brief))
    assert minted.expires_at.seconds <= time.time() + 30, "no longer than the user's evidence"
    seen = world["ops-admin"].introspect(token=minted.token)
    assert seen.on_behalf_of == f"jwt:{idp.issuer}#alice"

    acted = idp.jwt("d", DEPLOYER, act={"sub": "mallory"})
    ask = {"agent": DEPLOYER, "agent_credential": pb.AgentCredential(bearer=acted)}
    with malformed("agent_credential"):
        world["svc-demo"].authorize("kubectl_get", "prod/web", **ask)


def test_no_token_stands_in_the_log(oauth, idp):
    world, face, key, _ = oauth
    alice, actor = idp.jwt("alice", may_act={"sub": "nobody"}), idp.jwt("d", DEPLOYER)
    assert face.exchange(alice, TYPE + "jwt", actor, {"agent": COORDINATOR})[0] == 400
    token = granted(face.exchange(idp.jwt("alice"), TYPE + "jwt", actor, {"agent": COORDINATOR}))
    written = world.remit.log() + "\n".join(world.remit.audit_lines())
    for secret in (alice, actor, token, key):
        assert secret not in written and secret.rsplit(".", 1)[-1] not in written
