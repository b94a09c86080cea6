"""Through the real Caddy, with the configuration of deploy/caddy: the same answers over HTTP, by `forward_auth`."""

import os
import ssl
import subprocess

import pytest
from conftest import REPOSITORY, cannot
from envoy_process import Envoy, free_port
from remit_process import copy_folder
from seed_policy import ANALYST, COORDINATOR, DEPLOYER, WRITER
from test_nginx import Guarded, certificate, status
from waiting import wait_until

VERSION = "2.11.7"
FOLDER = REPOSITORY / "deploy/caddy"


class Caddy(Envoy):
    """The process; it is asked as Envoy is."""

    # By its certificate's name: Caddy refuses another than was shaken hands for.
    host = "localhost"

    def __init__(self, folder, remit_port, upstream):
        self.binary = REPOSITORY / f".cache/caddy/{VERSION}/bin/caddy"
        if not os.access(self.binary, os.X_OK):
            cannot(f"Caddy {VERSION} could not be installed")
        self.folder, self.upstream = folder, upstream
        self.version, self.process, self.port = VERSION, None, free_port()
        text = (FOLDER / "Caddyfile").read_text()
        for old, new in ((":10443", f":{self.port}"), (":7480", f":{remit_port}"), (":8080", f":{upstream.port}")):
            assert old in text
            text = text.replace(old, new)
        self.config = folder / "Caddyfile"
        self.config.write_text(text)
        self.log = folder / "caddy.log"

    def start(self):
        # What it keeps, it keeps in the test's folder.
        own = {"HOME": str(self.folder), "PATH": "/usr/bin:/bin"}
        with self.log.open("wb") as log:
            arguments = [self.binary, "run", "--config", self.config, "--adapter", "caddyfile"]
            self.process = subprocess.Popen(
                arguments, cwd=self.folder, env=own, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        wait_until(self._listens, "Caddy listens")
        return self


@pytest.fixture(scope="module")
def guarded(template, tmp_path_factory):
    guarded = Guarded(copy_folder(template, tmp_path_factory.mktemp("caddy") / "dev"), FOLDER / "remit.toml")
    guarded.proxy = Caddy(guarded.remit.folder, guarded.remit.ports["http"], guarded.upstream).start()
    yield guarded
    guarded.end()


def refuses(guarded, agent, path, *headers, method="GET"):
    """Remit's own refusal, which Caddy passes on."""
    answer = guarded.proxy.ask(agent, method, path, headers)
    assert guarded.upstream.take() == []
    return answer.refusal()


def test_a_token_is_good_for_one_request(guarded):
    token = guarded.token()
    code, [seen] = status(guarded, ANALYST, "/files/q3?x=1", ("x-remit-token", token), ("x-remit-agent", WRITER))
    headers = dict(seen["headers"])
    assert code == 200 and (seen["method"], seen["path"]) == ("GET", "/files/q3?x=1")
    assert headers["x-remit-agent"] == ANALYST and headers["x-remit-chain"] == f"{COORDINATOR} {ANALYST}"
    assert headers["x-remit-identity"].count(".") == 2
    ours = sorted(name for name, _ in seen["headers"] if "remit" in name)
    assert ours == ["x-remit-agent", "x-remit-chain", "x-remit-decision-id", "x-remit-identity"]
    assert token not in str(seen) and WRITER not in str(seen)
    assert refuses(guarded, ANALYST, "/files/q3", ("x-remit-token", token)) == (403, "TOKEN_USES_EXHAUSTED")


def test_what_may_not_pass_does_not(guarded):
    token = guarded.token()
    proof = ("x-remit-token", token)
    for agent, path, reason, *headers in [
        (ANALYST, "/files/q3", "TOKEN_REQUIRED"),
        (DEPLOYER, "/files/q3", "TOKEN_WRONG_HOLDER", proof),
        (DEPLOYER, "/open", "COMMUNICATION_NOT_ALLOWED", ("x-remit-agent", ANALYST)),
        (ANALYST, "/files/q3", "REQUEST_MALFORMED", proof, proof),
        (WRITER, "/a%2fb", "RESOURCE_NOT_CANONICAL"),
        (WRITER, "//a", "RESOURCE_NOT_CANONICAL"),
        (WRITER, "/a/..;/b", "RESOURCE_NOT_CANONICAL"),
        (WRITER, "/a/../b", "RESOURCE_NOT_CANONICAL"),
        (WRITER, "/a%252fb", "RESOURCE_NOT_CANONICAL"),
        (WRITER, "/open", "REQUEST_MALFORMED", ("x-other", b"a\xff")),
    ]:
        assert refuses(guarded, agent, path, *headers) == (403, reason), (agent, path)
    assert refuses(guarded, WRITER, "/open", method="POST") == (403, "COMMUNICATION_NOT_ALLOWED")
    assert status(guarded, ANALYST, "/files/q3", proof)[0] == 200, "nothing was spent"


def test_what_the_client_says_for_the_proxy_counts_for_nothing(guarded):
    mine = ("x-remit-client-certificate", certificate(guarded, WRITER))
    spoofed = [("x-forwarded-uri", "/open"), ("x-forwarded-method", "GET"), ("x-forwarded-host", "h"), mine]
    assert refuses(guarded, DEPLOYER, "/secret", *spoofed) == (403, "COMMUNICATION_NOT_ALLOWED")
    assert refuses(guarded, DEPLOYER, "/secret?capability=read_file&resource=/data/q3", *spoofed)[0] == 403
    assert refuses(guarded, WRITER, "/open", ("x-remit-new", COORDINATOR)) == (403, "REQUEST_MALFORMED")
    for name in ("x_remit_agent", "x-remit_chain", "x_remit_new"):
        answer = guarded.proxy.ask(WRITER, "GET", "/open", [(name, COORDINATOR)])
        # Caddy takes some of them out with those that it is told to.
        assert answer.status in (200, 403) and COORDINATOR not in str(guarded.upstream.take()), name
    _, [seen] = status(guarded, WRITER, "/open", ("x-remit-chain", COORDINATOR), ("x-remit-identity", "e30.e30.e30"))
    assert COORDINATOR not in str(seen) and "e30.e30" not in str(seen)


def test_the_client_can_not_hide_what_remit_says(guarded):
    for hidden in ("x-remit-agent", "close, X-Remit-Identity"):
        answer = guarded.proxy.ask(WRITER, "GET", "/open", [("connection", hidden)])
        assert (answer.status, guarded.upstream.take()) == (400, [])


def test_no_certificate_does_not_even_connect(guarded):
    with pytest.raises((ssl.SSLError, ConnectionError)):
        guarded.proxy.ask(None, "GET", "/open")
    assert guarded.upstream.take() == []


def test_a_connect_does_not_pass(guarded):
    answer = guarded.proxy.send(WRITER, b"CONNECT localhost:443 HTTP/1.1\r\nhost: localhost:443\r\nconnection: close\r\n\r\n")
    assert answer.status >= 400 and guarded.upstream.take() == []


def test_without_an_answer_nothing_passes(guarded):
    guarded.remit.end()
    try:
        answer = guarded.proxy.ask(WRITER, "GET", "/open")
        assert answer.status in (502, 503) and guarded.upstream.take() == []
    finally:
        guarded.remit.settings["REMIT_HTTP_LISTEN"] = f"127.0.0.1:{guarded.remit.ports['http']}"
        guarded.remit.start()
    assert status(guarded, WRITER, "/open")[0] == 200


