"""JWTs of a real OpenID provider: who is let in, what its keys' rotation and its death cost, and whom nobody believes."""

import contextlib
import http.server
import json
import threading
import time

import grpc
import oidc
import pytest
from hostile import RULES, Forge
from oidc import Provider, new_key
from remit_client import Refused, World, fails_with, identity_method, reason, refused
from remit_process import Remit, copy_folder
from seed_policy import COORDINATOR, DEPLOYER
from waiting import wait_until

UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
CLIENTS = {
    COORDINATOR: {"team": "platform", "salary": "planted-and-not-carried"},
    DEPLOYER: {"team": "release"},
    "ops-admin": {},
    "svc-demo": {},
    "portal": {},
}
# An issuer is asked for an unknown key at most once in so many seconds.
SECONDS_BETWEEN_WISHES = 10
LOG = {"REMIT_TELEMETRY_LOG": "debug"}


@pytest.fixture(scope="module")
def provider(need_node, tmp_path_factory):
    """One that keeps its keys."""
    with Provider(tmp_path_factory.mktemp("provider"), CLIENTS) as provider:
        yield provider


@pytest.fixture
def own_provider(need_node, tmp_path):
    """One to rotate and to kill."""
    with Provider(tmp_path, CLIENTS) as provider:
        yield provider


def configure(folder, provider, **more):
    """Adds the provider to the folder's `remit.toml`."""
    keys = {
        "issuer": provider.issuer,
        "audience": oidc.AUDIENCE,
        "discovery": True,
        "agent_claim": "client_id",
        "forward_claims": ["team"],
        "max_lifetime_seconds": 900,
    } | more
    with (folder / "remit.toml").open("a") as config:
        config.write("\n[[identity.jwt]]\n")
        config.writelines(f"{name} = {json.dumps(value)}\n" for name, value in keys.items())


@contextlib.contextmanager
def serving(folder, provider, **more):
    """`serve --config` with this provider, ready when it has its keys."""
    configure(folder, provider, **more)
    with Remit(folder, is_dev=False, **LOG) as remit, World(remit) as world:
        token = provider.token(COORDINATOR)
        wait_until(lambda: may_ask(world, token), "the provider's keys are known", 15)
        yield world


@pytest.fixture(scope="module")
def trusting(provider, template, tmp_path_factory):
    """A server that trusts the provider, for the tests that change nothing."""
    folder = copy_folder(template, tmp_path_factory.mktemp("trusting") / "dev")
    with serving(folder, provider) as world:
        yield world


def bearer(world, token, *more):
    """A connection without a client certificate, and this token on each request."""
    root = (world.remit.folder / "ca.pem").read_bytes()
    metadata = [("authorization", f"Bearer {token}"), *more]
    return world.with_credentials(grpc.ssl_channel_credentials(root), metadata=metadata)


def trouble(world):
    """What the detail of `/readyz` says wants attention."""
    key = (world.remit.folder / "api_keys" / "ops-admin.key").read_text().strip()
    status, _, text = world.remit.http("/readyz", **{"x-api-key": key})
    assert status == 200, "it is ready without the provider"
    return " ".join(json.loads(text)["attention"])


def last_refresh(world, provider):
    return world.remit.metrics()[f'remit_jwks_last_refresh_timestamp_seconds{{issuer="{provider.issuer}"}}']


def ask(client):
    """What the coordinator may do."""
    return client.delegate(DEPLOYER, ["kubectl_get"], ["prod/*"])


def may_ask(world, token):
    with bearer(world, token) as client:
        try:
            return bool(ask(client).token)
        except Refused as refusal:
            assert refusal.code == UNAUTHENTICATED, refusal
            return False


# Who is let in.


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
def test_a_token_of_the_provider_is_a_caller(trusting, provider, algorithm):
    with bearer(trusting, provider.token(COORDINATOR, algorithm)) as coordinator:
        given = ask(coordinator)
    assert list(given.delegation_chain) == [COORDINATOR, DEPLOYER]
    with bearer(trusting, provider.token(DEPLOYER, algorithm)) as deployer:
        answer = deployer.authorize("kubectl_get", "prod/web", given.token)
    assert reason(answer) == "ALLOWED"
    identity = answer.agent
    assert (identity.agent, identity.subject, identity.issuer) == (DEPLOYER, DEPLOYER, provider.issuer)
    assert identity_method(identity) == "JWT" and not identity.is_self_asserted
    assert dict(identity.claims) == {"team": "release"}, "the configured claims, and no others"
    event = wait_until(
        lambda: next((e for e in trusting.remit.audit() if e["decision_id"] == answer.decision_id), None), "the event"
    )
    assert (event["identity_method"], event["issuer"]) == ("JWT", provider.issuer)
    assert not event.get("is_self_asserted")


def test_a_token_is_its_holders_alone(trusting, provider):
    with bearer(trusting, provider.token(COORDINATOR)) as coordinator:
        token = ask(coordinator).token
        assert reason(coordinator.authorize("kubectl_get", "prod/web", token)) == "TOKEN_WRONG_HOLDER"


def test_a_verified_stranger_is_nobody(trusting, provider):
    with bearer(trusting, provider.token("portal")) as portal, refused("IDENTITY_UNMAPPED"):
        ask(portal)


def test_the_policys_principals_name_the_agent(folder, provider):
    policy = json.loads((folder / "policy.json").read_text())
    policy["principals"] = {f"jwt:{provider.issuer}#portal": COORDINATOR}
    (folder / "policy.json").write_text(json.dumps(policy))
    with serving(folder, provider) as world, bearer(world, provider.token("portal")) as portal:
        assert ask(portal).delegation_chain[0] == COORDINATOR


def test_a_role_needs_an_issuer_of_privileged_word(folder, trusting, provider):
    def revoke(world):
        with bearer(world, provider.token("ops-admin")) as admin:
            return admin.revoke(agent=DEPLOYER)

    with pytest.raises(Refused) as refusal:
        revoke(trusting)
    assert refusal.value.code == grpc.StatusCode.PERMISSION_DENIED, refusal.value
    with serving(folder, provider, privileged=True) as world:
        revoke(world)


def test_readyz_tells_details_to_an_auditor_with_a_token(folder, trusting, provider):
    def page(world, token):
        status, _, text = world.remit.http("/readyz", authorization=f"Bearer {token}")
        assert status == 200, text
        return text

    token = provider.token("ops-admin")
    assert page(trusting, token) == "ready\n", "its issuer's word is not enough"
    with serving(folder, provider, privileged=True) as world:
        assert json.loads(page(world, token))["policy_revision"] == 1
        assert page(world, provider.token(DEPLOYER)) == "ready\n"
        assert page(world, token[:-8] + "AAAAAAAA") == "ready\n"


def test_evidence_of_two_agents_is_evidence_of_none(trusting, provider):
    token = provider.token(COORDINATOR)
    both = trusting.fresh(DEPLOYER)
    both.metadata = (("authorization", f"Bearer {token}"),)
    with both, fails_with(UNAUTHENTICATED):
        ask(both)
    same = trusting.fresh(COORDINATOR)
    same.metadata = both.metadata
    with same:
        assert ask(same).token
    with bearer(trusting, token, ("authorization", f"Bearer {token}")) as twice, fails_with(UNAUTHENTICATED):
        ask(twice)


# Whom nobody believes.


@pytest.fixture(scope="module")
def forge(provider, trusting):
    forge = Forge(provider)
    for algorithm in ("RS256", "ES256"):
        assert may_ask(trusting, forge.token(algorithm)), "what is wrong in nothing is believed"
    return forge


def whys(world, since):
    """What the log says of refused evidence, from this offset on."""
    lines = world.remit.log()[since:].splitlines()
    entries = (json.loads(line) for line in lines if '"identity"' in line)
    return [entry["why"] for entry in entries if "why" in entry]


@pytest.mark.parametrize("rule", RULES)
def test_not_believed(trusting, forge, rule):
    make, why = RULES[rule]
    since = len(trusting.remit.log())
    with bearer(trusting, make(forge)) as client, fails_with(UNAUTHENTICATED) as seen:
        ask(client)
    assert seen[0].reason is None, "it is told nothing more"
    said = wait_until(lambda: whys(trusting, since), "the log says why")
    assert any(why in each for each in said), said


def test_an_address_in_a_token_is_never_fetched(trusting, provider, forge):
    make, _ = RULES["an address of keys in the header"]
    fetches = provider.fetches()
    assert not may_ask(trusting, make(forge))
    wait_until(lambda: provider.fetches() > fetches, "the unknown key makes it fetch", 2 * SECONDS_BETWEEN_WISHES)
    assert provider.fetches("/strangers") == 0, "and from nowhere but the issuer"


def test_who_is_refused_is_counted_and_makes_no_event(trusting, provider, forge):
    def counts():
        metrics = trusting.remit.metrics()
        return [metrics.get(f'remit_unauthenticated_total{{method="{method}"}}', 0) for method in ("none", "unmapped")]

    def recorded():
        """So many lines after one more event: those of before are written."""
        with bearer(trusting, provider.token(COORDINATOR)) as coordinator:
            decision = ask(coordinator).decision_id
        wait_until(lambda: decision in trusting.remit.audit_lines()[-1], "the event is written")
        return len(trusting.remit.audit_lines())

    before, lines = counts(), recorded()
    assert not may_ask(trusting, forge.token(aud="somebody-else"))
    with bearer(trusting, provider.token("portal")) as portal, refused("IDENTITY_UNMAPPED"):
        ask(portal)
    assert [after - was for after, was in zip(counts(), before)] == [1, 1]
    assert recorded() == lines + 1


def test_no_token_and_no_claim_is_ever_written_down(trusting, provider, forge):
    good = provider.token(COORDINATOR)
    bad = forge.token(aud="somebody-else")
    assert may_ask(trusting, good) and not may_ask(trusting, bad)
    trusting.remit.http("/readyz", authorization=f"Bearer {bad}")
    remit = trusting.remit
    written = remit.log() + remit.printed() + "\n".join(remit.audit_lines()) + remit.http("/metrics")[2]
    assert COORDINATOR in written
    secrets = [forge.planted, "planted-and-not-carried", *good.split("."), *bad.split(".")]
    assert [secret for secret in secrets if secret in written] == []


# What happens to its keys.


class Callers:
    """Agents that ask all the time, each with the provider's newest token; what went wrong."""

    def __init__(self, world, provider, count=2):
        self.world = world
        self.provider = provider
        self.failures = []
        self.allowed = 0
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self._run) for _ in range(count)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        for thread in self.threads:
            thread.join()

    def _run(self):
        with bearer(self.world, "") as client:
            while not self.stopping.is_set():
                client.metadata = (("authorization", f"Bearer {self.provider.token(COORDINATOR)}"),)
                try:
                    ask(client)
                    self.allowed += 1
                except Refused as refusal:
                    self.failures.append(str(refusal))

    def ask_more(self, count=20):
        wanted = self.allowed + count
        wait_until(lambda: self.allowed >= wanted or self.failures, "requests are answered", 30)


def test_a_rotation_costs_no_request(folder, own_provider):
    provider = own_provider
    old, new = provider.key("RS256"), new_key("RS256")
    with serving(folder, provider, refresh_seconds=1) as world:
        old_token = provider.token(COORDINATOR)
        with Callers(world, provider) as callers:
            callers.ask_more()
            provider.publish(new)
            fetches = provider.fetches()
            wait_until(lambda: provider.fetches() >= fetches + 2, "the next key is fetched before it signs", 15)
            provider.sign_with(new)
            callers.ask_more()
        assert callers.failures == []
        assert may_ask(world, old_token), "the old key is still published"
        provider.retire(old)
        wait_until(lambda: not may_ask(world, old_token), "a retired key is good for nothing", 15)


def test_an_unknown_key_is_fetched_once_and_not_for_each_who_asks(folder, own_provider):
    provider = own_provider
    with serving(folder, provider) as world:
        # Long enough after the start that a wish is granted.
        time.sleep(1)
        fetches = provider.fetches()
        stranger = new_key("RS256")
        forge = Forge(provider)
        begun = time.monotonic()
        for _ in range(200):
            assert not may_ask(world, forge.token(key=stranger, header={"kid": new_key("EdDSA")["kid"]}))
        wishes = (time.monotonic() - begun) / SECONDS_BETWEEN_WISHES
        assert provider.fetches() - fetches <= wishes + 2


class Outage(http.server.ThreadingHTTPServer):
    """On the provider's port, and never an answer but 503; how often it was asked."""

    def __init__(self, port):
        outage = self
        self.asked = 0

        class Page(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outage.asked += 1
                self.send_error(503)

            def log_message(self, *_):
                pass

        super().__init__(("127.0.0.1", port), Page)

    def __enter__(self):
        self.thread = threading.Thread(target=self.serve_forever, args=[0.05])
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.thread.join()
        self.server_close()


def test_known_keys_are_good_while_the_provider_is_down(folder, own_provider):
    provider = own_provider
    with serving(folder, provider, refresh_seconds=1, max_stale_seconds=600) as world:
        forge = Forge(provider)
        begun = int(time.time()) - 30
        seen = provider.token(COORDINATOR)
        assert may_ask(world, seen)
        assert provider.issuer not in trouble(world) and last_refresh(world, provider) >= begun
        provider.end()
        new = new_key("RS256")
        begun = time.monotonic()
        while time.monotonic() < begun + 5:
            assert may_ask(world, seen), "seen before"
            assert may_ask(world, forge.token()), "never seen, by a known key"
            assert not may_ask(world, forge.token(key=new, header={"kid": new["kid"]})), "by an unknown key"
        assert provider.issuer in trouble(world)
        with Outage(provider.port) as outage:
            begun = time.monotonic()
            for _ in range(100):
                assert not may_ask(world, forge.token(key=new, header={"kid": new["kid"]}))
            seconds = time.monotonic() - begun
            # It goes on asking at its own pace, whoever shows what.
            assert outage.asked <= seconds / 1 + 3, (outage.asked, seconds)
        assert may_ask(world, forge.token())
        provider.keys.insert(0, new)
        provider.start()
        wait_until(lambda: may_ask(world, provider.token(COORDINATOR)), "the new key is fetched", 45, pause=0.5)
        assert provider.issuer not in trouble(world)


def test_keys_that_can_not_be_refreshed_are_too_old_at_last(folder, own_provider):
    provider = own_provider
    with serving(folder, provider, refresh_seconds=1, max_stale_seconds=4) as world:
        token = provider.token(COORDINATOR)
        provider.end()
        wait_until(lambda: not may_ask(world, token), "old keys are no evidence", 15)
        assert "are too old" in trouble(world)
        provider.start()
        wait_until(lambda: may_ask(world, token), "the keys are fetched again", 45, pause=0.5)
