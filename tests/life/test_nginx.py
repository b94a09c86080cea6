"""Through the real nginx, with the configuration of deploy/nginx: the same answers over HTTP."""

import http.client
import json
import shutil
import ssl
import subprocess

import pytest
from conftest import REPOSITORY, cannot
from envoy_process import RULES, Envoy, Upstream, free_port
from remit_client import World
from remit_process import Remit, copy_folder
from seed_policy import ANALYST, COORDINATOR, DEPLOYER, WRITER
from test_envoy import POLICY_MORE
from waiting import wait_until

CONFIG = REPOSITORY / "deploy/nginx/nginx.conf"
SETTINGS = REPOSITORY / "deploy/nginx/remit.toml"
TLS = {
    "REMIT_HTTP_TLS_CERTIFICATE": "server.pem",
    "REMIT_HTTP_TLS_KEY": "server.key",
    "REMIT_HTTP_CLIENT_CA": "ca.pem",
}


class Nginx(Envoy):
    """The process; it is asked as Envoy is."""

    def __init__(self, binary, folder, remit_port, upstream):
        self.binary, self.folder, self.upstream = binary, folder, upstream
        self.version, self.process, self.port = "nginx", None, free_port()
        text = CONFIG.read_text()
        for old, new in ((":10443", f":{self.port}"), (":7480", f":{remit_port}"), (":8080", f":{upstream.port}")):
            assert old in text
            text = text.replace(old, new)
        self.config = folder / "nginx.conf"
        self.config.write_text(text)
        self.log = folder / "nginx.log"

    def start(self):
        with self.log.open("wb") as log:
            arguments = [self.binary, "-p", self.folder, "-c", self.config, "-e", "stderr"]
            self.process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(self._listens, "nginx listens")
        return self


def nginx():
    unpacked = REPOSITORY / ".cache/nginx/usr/sbin/nginx"
    return shutil.which("nginx") or (unpacked.exists() and str(unpacked)) or cannot("nginx could not be installed")


class Guarded:
    """A service, Remit with TLS on its HTTP listener, and the proxy between them."""

    def __init__(self, folder, settings=SETTINGS):
        policy = json.loads((folder / "policy.json").read_text())
        (folder / "policy.json").write_text(json.dumps(policy | POLICY_MORE))
        with (folder / "remit.toml").open("a") as config:
            config.write(RULES.read_text() + settings.read_text())
        self.remit = Remit(folder, is_dev=False, **TLS)
        self.remit.start()
        self.world = World(self.remit)
        self.upstream = Upstream()
        self.proxy = None

    def token(self):
        return self.world[COORDINATOR].delegate(ANALYST, ["read_file"], ["/data/*"]).token

    def end(self):
        if self.proxy:
            self.proxy.end()
        self.world.close()
        self.remit.end()
        self.upstream.close()


@pytest.fixture(scope="module")
def guarded(template, tmp_path_factory):
    guarded = Guarded(copy_folder(template, tmp_path_factory.mktemp("nginx") / "dev"))
    yield guarded
    guarded.end()


@pytest.fixture(scope="module")
def behind_nginx(guarded):
    guarded.proxy = Nginx(nginx(), guarded.remit.folder, guarded.remit.ports["http"], guarded.upstream).start()
    return guarded


def status(guarded, agent, path, *headers):
    answer = guarded.proxy.ask(agent, "GET", path, headers)
    seen = guarded.upstream.take()
    assert bool(seen) == (answer.status == 200), (answer, seen)
    return answer.status, seen


def test_a_token_is_good_for_one_request(behind_nginx):
    token = behind_nginx.token()
    code, [seen] = status(behind_nginx, ANALYST, "/files/q3?x=1", ("x-remit-token", token), ("x-remit-agent", WRITER))
    headers = dict(seen["headers"])
    assert code == 200 and seen["path"] == "/files/q3?x=1"
    assert headers["x-remit-agent"] == ANALYST and headers["x-remit-chain"] == f"{COORDINATOR} {ANALYST}"
    assert headers["x-remit-identity"].count(".") == 2
    assert token not in str(seen) and WRITER not in str(seen)
    assert status(behind_nginx, ANALYST, "/files/q3", ("x-remit-token", token))[0] == 403


def test_what_may_not_pass_does_not(behind_nginx):
    token = behind_nginx.token()
    proof = ("x-remit-token", token)
    for agent, path, *headers in [
        (ANALYST, "/files/q3"),
        (DEPLOYER, "/files/q3", proof),
        (DEPLOYER, "/open", ("x-remit-agent", ANALYST)),
        (ANALYST, "/files/q3", proof, proof),
        (WRITER, "/a%2fb"),
        (WRITER, "//a"),
        (WRITER, "/a/..;/b"),
        (WRITER, "/a/../b"),
    ]:
        assert status(behind_nginx, agent, path, *headers)[0] == 403, (agent, path)
    assert status(behind_nginx, ANALYST, "/files/q3", proof)[0] == 200, "nothing was spent"
    spoofed = [("x-forwarded-uri", "/open"), ("x-remit-client-certificate", "x"), ("x-forwarded-method", "GET")]
    assert status(behind_nginx, DEPLOYER, "/open", *spoofed)[0] == 403
    assert behind_nginx.proxy.ask(None, "GET", "/open").status == 400


def ask(guarded, agent, **headers):
    """Remit itself, asked as a proxy with this agent's certificate."""
    folder = guarded.remit.folder
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    if agent:
        context.load_cert_chain(folder / f"agents/{agent}.pem", folder / f"agents/{agent}.key")
    connection = http.client.HTTPSConnection("localhost", guarded.remit.ports["http"], context=context, timeout=10)
    named = {name.replace("_", "-"): value for name, value in headers.items() if name != "query"}
    connection.request("GET", "/v1/check" + headers.get("query", ""), headers=named)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, json.loads(body)["reason"] if answer.status != 200 else ""


def certificate(guarded, agent):
    pem = (guarded.remit.folder / f"agents/{agent}.pem").read_text()
    return "".join(line for line in pem.splitlines() if "-----" not in line)


SAID = {"x_forwarded_method": "GET", "x_forwarded_uri": "/open", "x_forwarded_host": "h"}


def test_only_enforcement_points_may_ask(guarded):
    about = SAID | {"x_remit_client_certificate": certificate(guarded, ANALYST)}
    assert ask(guarded, "svc-demo", **about) == (200, "")
    for other in (ANALYST, None):
        assert ask(guarded, other, **about) == (403, "CALLER_NOT_ENFORCEMENT_POINT")


def test_nothing_passes_without_what_the_proxy_has_to_say(guarded):
    about = SAID | {"x_remit_client_certificate": certificate(guarded, ANALYST)}
    for missing in SAID:
        rest = {name: value for name, value in about.items() if name != missing}
        assert ask(guarded, "svc-demo", **rest) == (403, "REQUEST_MALFORMED"), missing
    assert ask(guarded, "svc-demo", **SAID) == (401, "IDENTITY_SELF_ASSERTED")
    assert ask(guarded, "svc-demo", **(SAID | {"x_remit_client_certificate": ""})) == (401, "IDENTITY_SELF_ASSERTED")


def test_the_path_says_what_a_route_means_and_the_clients_query_does_not(guarded):
    about = SAID | {"x_remit_client_certificate": certificate(guarded, ANALYST)}
    means = "/capability=read_file&resource=/data/q3"
    assert ask(guarded, "svc-demo", query=means, **about) == (403, "TOKEN_REQUIRED")
    assert ask(guarded, "svc-demo", query=means, **(about | {"x_remit_token": guarded.token()})) == (200, "")
    assert ask(guarded, "svc-demo", query="/destination=other", **about) == (403, "CALLER_NOT_ENFORCEMENT_POINT")
    said = "capability=read_file&resource=/data/q3"
    assert ask(guarded, "svc-demo", query="?" + said, **about) == (403, "REQUEST_MALFORMED")
    kept = about | {"x_forwarded_uri": "/open?" + said}
    assert ask(guarded, "svc-demo", query="?" + said, **kept) == (200, "")
    assert ask(guarded, "svc-demo", **(about | {"x_remit_new": "a"})) == (403, "REQUEST_MALFORMED")
