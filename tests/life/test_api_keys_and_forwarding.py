"""API keys, forwarded identities and the keys under which they are good, over real sockets."""

import hashlib
import json
import secrets
import subprocess
import time
import urllib.error
import urllib.request

import grpc
import jwt
import pytest
from certificates import Authority, spiffe_id
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from remit_client import Client, authorize_request, fails_with, identity_method, malformed, pb, reason, refused
from remit_process import REPOSITORY, binary, environment
from seed_policy import ANALYST, COORDINATOR, DEPLOYER, VALIDATOR, deployer_token
from test_identity import credentials, put
from waiting import wait_until

UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
ISSUER = "https://localhost"
RELOAD_SECONDS = 3


@pytest.fixture
def strict(serve):
    """`serve --config` in the test's folder: nobody is taken at its word."""
    return serve(is_dev=False, REMIT_POLICY_POLL_SECONDS="1")


def api_key(folder, name):
    return (folder / "api_keys" / f"{name}.key").read_text().strip()


def by(world, *headers, issued=None):
    """A client with these headers, and without a certificate unless one is given."""
    return world.with_credentials(credentials(world.remit.folder, issued), metadata=headers)


def with_key(world, name, **more):
    return by(world, ("x-api-key", api_key(world.remit.folder, name)), **more)


def verify(client, **evidence):
    return client.call(client.decisions.VerifyIdentity, pb.VerifyIdentityRequest(**evidence)).identity


def key_file(world):
    return world.remit.folder / "api_keys.txt"


def add_key(world, key_id, agent):
    key = secrets.token_hex(32)
    line = f"{key_id} {agent} {hashlib.sha256(key.encode()).hexdigest()}\n"
    put(key_file(world), (key_file(world).read_text() + line).encode())
    return key


def recorded(world, answer):
    def line():
        return next((line for line in world.remit.audit() if line["decision_id"] == answer.decision_id), None)

    return wait_until(line, "the audit line")


# API keys.


def test_an_api_key_is_an_agent_without_a_certificate(strict):
    token = deployer_token(strict).token
    with with_key(strict, "svc-demo") as gate:
        answer = gate.authorize("kubectl_get", "prod/web", token, agent=DEPLOYER)
    assert reason(answer) == "ALLOWED"
    event = recorded(strict, answer)
    assert (event["caller"], event["identity_method"], event["issuer"]) == ("svc-demo", "API_KEY", "remit:api-key")


def test_an_api_key_may_hold_a_role(strict):
    metadata = [("x-api-key", api_key(strict.remit.folder, "ops-admin"))]
    admin = Client(strict.address("admin"), credentials(strict.remit.folder), metadata=metadata)
    with admin:
        assert admin.status()


def test_nobody_without_evidence(strict):
    with by(strict) as nobody, fails_with(UNAUTHENTICATED) as seen:
        nobody.authorize("kubectl_get", "prod/web")
    assert seen[0].reason is None, "it is told nothing more"


@pytest.mark.parametrize("key", ["", "wrong", "remit_" + "0" * 64, "x" * 4000])
def test_a_wrong_key_is_nobody(strict, key):
    with by(strict, ("x-api-key", key)) as nobody, fails_with(UNAUTHENTICATED):
        nobody.authorize("kubectl_get", "prod/web")


def test_a_wrong_key_is_not_passed_over(strict):
    issued = Authority.of_folder(strict.remit.folder).agent(DEPLOYER)
    with by(strict, ("x-api-key", "wrong"), issued=issued) as deployer, fails_with(UNAUTHENTICATED):
        deployer.authorize("kubectl_get", "prod/web")


def test_two_keys_in_one_request_are_none(strict):
    key = api_key(strict.remit.folder, "svc-demo")
    with by(strict, ("x-api-key", key), ("x-api-key", key)) as twice, fails_with(UNAUTHENTICATED):
        twice.authorize("kubectl_get", "prod/web", agent=DEPLOYER)


def test_a_key_and_a_certificate_have_to_name_one_agent(strict):
    authority = Authority.of_folder(strict.remit.folder)
    with with_key(strict, "svc-demo", issued=authority.agent(DEPLOYER)) as two, fails_with(UNAUTHENTICATED):
        two.authorize("kubectl_get", "prod/web", agent=DEPLOYER)
    with with_key(strict, "svc-demo", issued=authority.agent("svc-demo")) as one:
        identity = one.authorize("kubectl_get", "prod/web", agent="svc-demo").agent
    assert (identity.agent, identity_method(identity)) == ("svc-demo", "SPIFFE"), "the certificate comes first"


def test_a_certificate_is_required_where_the_configuration_says_so(serve):
    world = serve(is_dev=False, REMIT_TLS_CLIENT_AUTH="required")
    with with_key(world, "svc-demo") as nobody, fails_with(grpc.StatusCode.UNAVAILABLE):
        nobody.authorize("kubectl_get", "prod/web", agent=DEPLOYER)


def test_administrators_show_a_certificate_also_where_agents_need_none(serve):
    world = serve(is_dev=False, REMIT_ADMIN_CLIENT_AUTH="required")
    folder = world.remit.folder
    metadata = [("x-api-key", api_key(folder, "ops-admin"))]
    with with_key(world, "svc-demo") as gate:
        assert reason(gate.authorize("kubectl_get", "prod/web", agent=DEPLOYER)) == "TOKEN_REQUIRED"
    with Client(world.address("admin"), credentials(folder), metadata=metadata) as by_key:
        with fails_with(grpc.StatusCode.UNAVAILABLE):
            by_key.status()
    assert world.administrator().status(), "one with a certificate is let in"


def test_keys_come_and_go_while_it_runs(strict):
    key = add_key(strict, "new", COORDINATOR)
    with by(strict, ("x-api-key", key)) as coordinator:

        def is_known():
            try:
                return coordinator.delegate(DEPLOYER, ["kubectl_get"], ["prod/web"])
            except Exception:  # noqa: BLE001  Not yet.
                return None

        wait_until(is_known, "the new key is known", RELOAD_SECONDS)
        good = key_file(strict).read_text()
        put(key_file(strict), (good + "nonsense\n").encode())
        wait_until(lambda: "line 5" in strict.remit.log(), "the broken file is said", RELOAD_SECONDS)
        assert is_known(), "the last good file stays"
        put(key_file(strict), "".join(line for line in good.splitlines(True) if not line.startswith("new ")).encode())
        wait_until(lambda: not is_known(), "the key is gone", RELOAD_SECONDS)
        with fails_with(UNAUTHENTICATED):
            coordinator.delegate(DEPLOYER, ["kubectl_get"], ["prod/web"])


def test_a_stream_ends_with_its_key(strict):
    with with_key(strict, "ops-admin") as auditor, auditor.watch() as watching:
        deployer_token(strict)
        assert watching.take(1)
        put(key_file(strict), b"# none\n")
        with fails_with(UNAUTHENTICATED):
            while True:
                next(watching)


def test_a_bad_file_keeps_the_service_from_starting(folder):
    (folder / "api_keys.txt").write_text("one two\n")
    done = subprocess.run(
        [binary(), "serve", "--config", str(folder / "remit.toml")],
        env=environment(REMIT_GRPC_LISTEN="127.0.0.1:0", REMIT_HTTP_LISTEN="127.0.0.1:0", REMIT_ADMIN_LISTEN="127.0.0.1:0"),
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode == 2
    assert "api_keys.txt, line 1: write `id agent sha256`" in done.stderr


def test_a_key_is_made_and_taken(strict):
    made = subprocess.run(
        [binary(), "api-key", "new", "--id", "cli-1", "--agent", COORDINATOR, "--output", "json"],
        capture_output=True,
        text=True,
        check=True,
        env=environment(),
    )
    made = json.loads(made.stdout)
    assert made["line"] == f"cli-1 {COORDINATOR} {hashlib.sha256(made['key'].encode()).hexdigest()}"
    put(key_file(strict), (key_file(strict).read_text() + made["line"] + "\n").encode())
    with with_key(strict, "svc-demo") as gate:
        identity = wait_until(lambda: verified(gate, api_key=made["key"]), "the key is known", RELOAD_SECONDS)
    assert (identity.agent, identity.subject) == (COORDINATOR, "cli-1")
    assert identity_method(identity) == "API_KEY" and not identity.is_self_asserted
    assert identity.issuer == "remit:api-key"
    assert dict(identity.claims) == {"key_id": "cli-1", "agent": COORDINATOR}
    assert made["key"] not in strict.remit.log() + strict.remit.folder.joinpath("audit.jsonl").read_text()


def verified(client, **evidence):
    try:
        return verify(client, **evidence)
    except Exception:  # noqa: BLE001  Not yet.
        return None


# VerifyIdentity.


def test_one_may_ask_about_oneself_and_enforcement_points_about_others(strict):
    key = add_key(strict, "deployer", DEPLOYER)
    gate, deployer, analyst = strict["svc-demo"], strict[DEPLOYER], strict[ANALYST]
    wait_until(lambda: verified(gate, api_key=key), "the key is known", RELOAD_SECONDS)
    assert verify(deployer, api_key=key).agent == DEPLOYER
    with refused("CALLER_NOT_ENFORCEMENT_POINT"):
        verify(analyst, api_key=key)


def test_an_enforcement_point_is_told_of_the_agents_that_its_entry_lists(folder, serve):
    policy = json.loads((folder / "policy.json").read_text())
    policy["enforcement_points"] = [{"agent": ANALYST, "agents": [DEPLOYER]}]
    (folder / "policy.json").write_text(json.dumps(policy))
    world = serve(is_dev=False, REMIT_POLICY_POLL_SECONDS="1")
    of_deployer, of_validator = add_key(world, "deployer", DEPLOYER), add_key(world, "validator", VALIDATOR)
    wait_until(lambda: verified(world["svc-demo"], api_key=of_validator), "the keys are known", RELOAD_SECONDS)
    assert verify(world[ANALYST], api_key=of_deployer).agent == DEPLOYER
    with refused("CALLER_NOT_ENFORCEMENT_POINT"):
        verify(world[ANALYST], api_key=of_validator)
    # It is not the name that counts, but whom it was signed for.
    told = sign(world, aud=ANALYST, agent=VALIDATOR)
    assert verify(world[ANALYST], forwarded=told).agent == VALIDATOR


@pytest.mark.parametrize("evidence", ["bearer", "api_key", "forwarded"])
def test_evidence_that_is_not_good_is_nobodys(strict, evidence):
    for client in (strict["svc-demo"], strict[ANALYST]):
        for text in ("", "nonsense", "a.b.c"):
            with malformed(evidence):
                verify(client, **{evidence: text})
    with malformed("evidence"):
        verify(strict["svc-demo"])


# Forwarded identities: signed here as another node signs them that has the same key.


def signing_key(folder, name="forward.key"):
    return serialization.load_pem_private_key((folder / name).read_bytes(), password=None)


def introduction(**more):
    now = int(time.time())
    told = {
        "iss": ISSUER,
        "aud": ANALYST,
        "iat": now,
        "exp": now + 60,
        "jti": secrets.token_hex(8),
        "sub": spiffe_id(DEPLOYER),
        "idp": "CN=Remit development CA",
        "agent": DEPLOYER,
        "method": "SPIFFE",
        "verified_at": now,
        "is_self_asserted": False,
        "claims": {"team": "ops"},
        "act": {"sub": DEPLOYER, "act": {"sub": COORDINATOR}},
    }
    return {name: value for name, value in (told | more).items() if value is not None}


def sign(world, key=None, typ="remit-identity+jwt", kid=None, **more):
    headers = {"typ": typ, "kid": kid or keys(world)[0]["kid"]}
    return jwt.encode(introduction(**more), key or signing_key(world.remit.folder), algorithm="EdDSA", headers=headers)


def fetch(world, **headers):
    url = f"http://127.0.0.1:{world.remit.ports['http']}/.well-known/jwks.json"
    request = urllib.request.Request(url, headers=headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=5) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def keys(world):
    status, _, body = fetch(world)
    assert status == 200
    return json.loads(body)["keys"]


def test_the_published_keys_are_public_and_may_be_kept(strict):
    status, headers, body = fetch(strict)
    assert (status, headers["content-type"]) == (200, "application/jwk-set+json")
    assert headers["cache-control"] == "public, max-age=60"
    (key,) = json.loads(body)["keys"]
    assert set(key) == {"kty", "crv", "x", "use", "alg", "kid"}
    assert (key["kty"], key["crv"], key["use"], key["alg"]) == ("OKP", "Ed25519", "sig", "EdDSA")
    status, again, body = fetch(strict, **{"If-None-Match": headers["etag"]})
    assert (status, again["etag"], body) == (304, headers["etag"], b"")
    assert fetch(strict, **{"If-None-Match": '"other"'})[0] == 200
    public = jwt.PyJWK(key).key
    assert public == signing_key(strict.remit.folder).public_key()


def test_no_keys_are_published_where_none_signs(folder, serve):
    config = folder / "remit.toml"
    text = config.read_text()
    start = text.index("[identity.forward]")
    config.write_text(text[:start] + text[text.index("[audit]") :])
    assert fetch(serve(is_dev=False))[0] == 404


def test_the_receiver_learns_who_asks(strict):
    token = sign(strict)
    identity = verify(strict[ANALYST], forwarded=token)
    assert (identity.agent, identity.subject, identity.issuer) == (
        DEPLOYER,
        spiffe_id(DEPLOYER),
        "CN=Remit development CA",
    )
    assert identity_method(identity) == "FORWARDED" and not identity.is_self_asserted
    assert dict(identity.claims) == {"team": "ops"}
    for other in (strict[COORDINATOR], strict["svc-demo"]):
        with malformed("forwarded"):
            verify(other, forwarded=token)


def test_any_jwt_library_verifies_what_remit_signs():
    """A unit test holds Remit to signing this, byte for byte."""
    vector = json.loads((REPOSITORY / "src/identity/forwarded/vector.json").read_text())
    header = jwt.get_unverified_header(vector["jwt"])
    key = jwt.PyJWKSet.from_dict(vector["keys"])[header["kid"]]
    assert header == {"typ": "remit-identity+jwt", "alg": key.algorithm_name, "kid": key.key_id}
    when = {"verify_exp": False, "verify_iat": False, "require": ["iss", "aud", "exp", "iat", "sub"]}
    told = jwt.decode(
        vector["jwt"],
        key.key,
        algorithms=[key.algorithm_name],
        audience="svc-gate",
        issuer="https://remit.example",
        options=when,
    )
    assert told == vector["claims"]


def test_another_type_of_jwt_is_no_identity(strict):
    for typ in ("at+jwt", "remit-checkpoint+jwt", "JWT"):
        with malformed("forwarded"):
            verify(strict[ANALYST], forwarded=sign(strict, typ=typ))


HOSTILE = {
    "another key": lambda world: sign(world, key=ed25519.Ed25519PrivateKey.generate()),
    "another kid": lambda world: sign(world, kid="nobody"),
    "another issuer": lambda world: sign(world, iss="https://evil.example"),
    "several receivers": lambda world: sign(world, aud=[ANALYST]),
    "too long a life": lambda world: sign(world, exp=int(time.time()) + 61),
    "no end": lambda world: sign(world, exp=None),
    "an end in the past": lambda world: sign(world, exp=int(time.time()) - 1, iat=int(time.time()) - 30),
    "a start in the future": lambda world: sign(world, iat=int(time.time()) + 30),
    "a name that nobody verified": lambda world: sign(world, is_self_asserted=True),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_forwarded_identity_is_exact(strict, what):
    with malformed("forwarded"):
        verify(strict[ANALYST], forwarded=HOSTILE[what](strict))


def test_as_a_callers_evidence_it_has_to_be_meant_for_remit(strict):
    token = deployer_token(strict).token
    alone = {"aud": ISSUER, "act": None}
    with by(strict, ("x-remit-identity", sign(strict, **alone))) as deployer:
        answer = deployer.authorize("kubectl_get", "prod/web", token)
    assert reason(answer) == "ALLOWED" and identity_method(answer.agent) == "FORWARDED"
    of_more = ({"aud": ISSUER}, alone | {"obo": "jwt:https://idp#ada"}, alone | {"method": "ENFORCEMENT_POINT"})
    for told in (sign(strict), sign(strict, aud=DEPLOYER), "nonsense", *(sign(strict, **more) for more in of_more)):
        with by(strict, ("x-remit-identity", told)) as nobody, fails_with(UNAUTHENTICATED):
            nobody.authorize("kubectl_get", "prod/web", token)


def test_a_forwarded_identity_holds_no_role(strict):
    told = sign(strict, aud=ISSUER, act=None, agent="svc-demo", sub=spiffe_id("svc-demo"))
    with by(strict, ("x-remit-identity", told)) as gate:
        answer = gate.authorize("kubectl_get", "prod/web", agent=DEPLOYER)
    assert reason(answer) == "CALLER_NOT_ENFORCEMENT_POINT"


def test_evidence_for_the_agent_in_a_question(strict):
    gate = strict["svc-demo"]
    token = deployer_token(strict, max_uses=1).token

    def ask(credential, **more):
        return authorize_request("kubectl_get", "prod/web", token, agent_credential=credential, **more)

    for wrong in (
        ask(pb.AgentCredential(forwarded="nonsense"), agent=DEPLOYER),
        ask(pb.AgentCredential(bearer="nonsense"), agent=DEPLOYER),
        ask(pb.AgentCredential(), agent=DEPLOYER),
        ask(pb.AgentCredential(forwarded=sign(strict, aud="svc-demo")), agent=VALIDATOR),
        ask(pb.AgentCredential(forwarded=sign(strict, aud=ANALYST)), agent=DEPLOYER),
    ):
        with malformed("agent_credential"):
            gate.call(gate.decisions.Authorize, wrong)
        (answer,) = gate.batch_authorize([wrong])
        assert reason(answer) == "REQUEST_MALFORMED"
    with malformed("agent"):
        gate.call(gate.decisions.Authorize, ask(pb.AgentCredential(forwarded=sign(strict, aud="svc-demo"))))

    good = ask(pb.AgentCredential(forwarded=sign(strict, aud="svc-demo")), agent=DEPLOYER)
    answer = gate.call(gate.decisions.Authorize, good)
    assert reason(answer) == "ALLOWED"
    assert (answer.agent.subject, identity_method(answer.agent)) == (spiffe_id(DEPLOYER), "FORWARDED")
    event = recorded(strict, answer)
    assert (event["caller"], event["from_agent"], event["identity_method"]) == ("svc-demo", DEPLOYER, "FORWARDED")


def test_a_user_is_known_by_evidence_alone(strict):
    coordinator = strict[COORDINATOR]
    parent = deployer_token(strict, delegatable=True).token
    with malformed("obo_credential"):
        coordinator.delegate(DEPLOYER, ["kubectl_get"], ["prod/web"], obo_credential=pb.UserCredential(bearer="x"))
    with malformed("obo_credential"):
        coordinator.delegate(DEPLOYER, ["kubectl_get"], ["prod/web"], obo_credential=pb.UserCredential())
    with malformed("obo_credential"):
        strict[DEPLOYER].delegate(
            VALIDATOR, ["kubectl_get"], ["prod/web"], parent=parent, obo_credential=pb.UserCredential(bearer="x")
        )


# Keys change.


def pem(key):
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def test_a_new_signing_key_is_published_before_it_signs(serve):
    world = serve(is_dev=False, REMIT_POLICY_POLL_SECONDS="1", REMIT_IDENTITY_FORWARD_JWKS_CACHE_SECONDS="1")
    old, old_key = keys(world)[0], signing_key(world.remit.folder)
    _, headers, _ = fetch(world)
    assert headers["cache-control"] == "public, max-age=1"
    new_key = ec.generate_private_key(ec.SECP256R1())
    put(world.remit.folder / "forward.key", pem(new_key))
    published = wait_until(lambda: len(keys(world)) == 2 and keys(world), "both keys are published", RELOAD_SECONDS)
    assert published[0] == old and published[1]["alg"] == "ES256"
    assert set(published[1]) == {"kty", "crv", "x", "y", "use", "alg", "kid"}
    assert jwt.PyJWK(published[1]).key == new_key.public_key()
    assert fetch(world)[1]["etag"] != headers["etag"]
    assert verify(world[ANALYST], forwarded=sign(world, key=old_key, kid=old["kid"])).agent == DEPLOYER
    by_new = {"typ": "remit-identity+jwt", "kid": published[1]["kid"]}
    by_new = jwt.encode(introduction(), new_key, algorithm="ES256", headers=by_new)
    assert verify(world[ANALYST], forwarded=by_new).agent == DEPLOYER

    put(world.remit.folder / "forward.key", b"nonsense")
    wait_until(lambda: "has no Ed25519 or P-256 key" in world.remit.log(), "the broken key is said", RELOAD_SECONDS)
    assert keys(world) == published, "the last good keys stay"


def test_further_keys_are_published_and_verify(folder, serve):
    next_key = ed25519.Ed25519PrivateKey.generate()
    (folder / "next.pem").write_bytes(
        next_key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    world = serve(is_dev=False, REMIT_IDENTITY_FORWARD_ALSO_PUBLISHED=str(folder / "next.pem"))
    first, second = keys(world)
    assert first["kid"] != second["kid"] and jwt.PyJWK(second).key == next_key.public_key()
    assert verify(world[ANALYST], forwarded=sign(world, key=next_key, kid=second["kid"])).agent == DEPLOYER


def test_a_key_that_others_can_read_keeps_the_service_from_starting(folder):
    (folder / "forward.key").chmod(0o644)
    done = subprocess.run(
        [binary(), "serve", "--config", str(folder / "remit.toml")],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode == 2 and "chmod 600" in done.stderr
