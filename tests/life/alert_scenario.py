"""Servers driven into every state that an alert tells of, and out of it again, under the eyes of a real Prometheus."""

import contextlib
import fcntl
import http.server
import json
import os
import socket
import subprocess
import threading
import time

import grpc
from certificates import Authority
from conftest import cannot
from envoy_process import free_port
from oidc import new_key
from otlp import Collector
from prometheus_process import SCRAPE_SECONDS, Prometheus
from remit_client import Refused, World, certificate_credentials, fails_with, pb, reason
from remit_process import Remit, copy_folder
from seed_policy import ANALYST, COORDINATOR, DEPLOYER, VALIDATOR, WRITER, deployer_token, validator_token
from stores import Store
from waiting import wait_until

TLS = {
    "REMIT_HTTP_TLS_CERTIFICATE": "server.pem",
    "REMIT_HTTP_TLS_KEY": "server.key",
    "REMIT_HTTP_CLIENT_CA": "ca.pem",
    "REMIT_POLICY_POLL_SECONDS": "1",
}
COMMUNICATION_RULES = [{"from": COORDINATOR, "to": "*"}, {"from": DEPLOYER, "to": VALIDATOR}]
RING = 64
LEDGER = 10


class Server:
    """A Remit that keeps its ports, so that what looks at it sees the same one after a restart."""

    def __init__(self, template, folder, is_dev=False, **settings):
        self.port = free_port()
        copy_folder(template, folder)
        named = TLS | {"REMIT_HTTP_LISTEN": f"127.0.0.1:{self.port}"} | settings
        self.remit = Remit(folder, is_dev=is_dev, **named)
        self.folder, self.world = folder, World(self.remit)

    @property
    def target(self):
        return f"127.0.0.1:{self.port}"

    def edit_policy(self, **changes):
        path = self.folder / "policy.json"
        put(path, json.dumps(json.loads(path.read_text()) | changes).encode())

    def end(self):
        self.world.close()
        self.remit.end()


def put(path, content):
    """At once, as one does it."""
    new = path.with_name(f"{path.name}.new")
    new.write_bytes(content)
    new.chmod(path.stat().st_mode if path.exists() else 0o600)
    os.replace(new, path)


class Pipe:
    """A pipe for an audit log. As long as nobody reads it is stuck as soon as it is full."""

    def __init__(self, path):
        os.mkfifo(path, 0o600)
        # Reading and writing: opening never waits, and it can be filled from here.
        self.end = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        fcntl.fcntl(self.end, fcntl.F_SETPIPE_SZ, 4096)
        self.is_read, self.is_over = threading.Event(), False
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.is_read.set()
        self.thread.start()

    def _read(self):
        while not self.is_over:
            self.is_read.wait(0.1)
            with contextlib.suppress(BlockingIOError):
                while self.is_read.is_set() and os.read(self.end, 65536):
                    pass
            time.sleep(0.01)

    def stick(self):
        self.is_read.clear()

    def flow(self):
        self.is_read.set()

    def close(self):
        self.is_over = True
        self.thread.join()
        os.close(self.end)


class Keys(http.server.ThreadingHTTPServer):
    """An issuer's published keys."""

    def __init__(self, port):
        text = json.dumps({"keys": [new_key("ES256").export_public(as_dict=True)]}).encode()

        class Page(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_):
                pass

        super().__init__(("127.0.0.1", port), Page)
        self.thread = threading.Thread(target=self.serve_forever, args=[0.05], daemon=True)
        self.thread.start()

    def close(self):
        self.shutdown()
        self.thread.join()
        self.server_close()


class SmallDisk:
    """A folder of one megabyte."""

    def __init__(self, path):
        self.path, self.filler = path, path / "filler"
        path.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)]
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
        if mounted.returncode:
            cannot(f"no small file system can be mounted: {mounted.stderr.strip()}")

    def fill(self):
        for block in (4096, 1):
            with contextlib.suppress(OSError), self.filler.open("ab", buffering=0) as file:
                while True:
                    file.write(bytes(block))

    def make_room(self):
        self.filler.unlink(missing_ok=True)

    def close(self):
        subprocess.run(["umount", "-l", str(self.path)], check=True)


class Scenario:
    """Servers: `agents` is asked by agents, `service`, `disks` and `watchful` lose what they rest on."""

    def __init__(self, template, folder):
        self.closing = contextlib.ExitStack()
        self.kept = {}
        self.fired = {}
        self.place = 0
        self.phases = {}
        self.calm = {}
        # Where and as the runbook has it.
        self.folder, trial = folder, folder / ".remit-dev"
        keys = {"REMIT_KEY_FILE": f"{trial}/hmac.key,{trial}/former.key"}
        self.agents = Server(template, trial, is_dev=True, **keys)
        put(trial / "former.key", os.urandom(32).hex().encode())
        self.agents.edit_policy(communication_rules=COMMUNICATION_RULES)
        self.pipe = self._closed(Pipe(folder / "pipe"))
        audited = {"REMIT_AUDIT_FILE": str(folder / "pipe"), "REMIT_EVENTS_RING": str(RING)}
        self.service = Server(template, folder / "service", REMIT_EVENTS_SUBSCRIBER_BUFFER="1", **audited)
        self.disk = self._closed(SmallDisk(folder / "small"))
        state = {"DIR": self.disk.path / "state", "CAPACITY": LEDGER, "PER_AGENT_SHARE": 1}
        settings = {f"REMIT_STATE_{name}": str(value) for name, value in state.items()}
        self.collector = Collector()
        self.closing.callback(self.collector.stop)
        self.disks = Server(template, folder / "disks", REMIT_TELEMETRY_OTLP_ENDPOINT=self.collector.url, **settings)
        self.watchful = self._watchful(template, folder)
        self.keys_port = free_port()
        with (self.disks.folder / "remit.toml").open("a") as config:
            config.write(
                '\n[[identity.jwt]]\nissuer = "https://idp.example"\naudience = "remit"\nagent_claim = "azp"\n'
                f'jwks_uri = "http://127.0.0.1:{self.keys_port}/keys"\n'
            )
        self.servers = [self.agents, self.service, self.disks, self.watchful]
        self.prometheus = Prometheus(folder, [server.target for server in self.servers], self.agents.folder / "ca.pem")

    def _watchful(self, template, folder):
        """On a store that evicts what it shouldn't; it learns what agents do, and pulls the kill switch, once."""
        (folder / "store").mkdir()
        self.store = Store(folder / "store", maxmemory_policy="allkeys-lru")
        state = {"BACKEND": "valkey", "URL": f"redis://127.0.0.1:{self.store.port}", "REPLICAS": 0}
        settings = {f"REMIT_STATE_{name}": str(value) for name, value in state.items()}
        settings |= {"REMIT_DETECTION_BASELINE": "true", "REMIT_DETECTION_LEARN_SECONDS": "2"}
        server = Server(template, folder / "watchful", **settings)
        limits = {"escalation_attempts": 3, "reuse_attempts": 3, "window_seconds": 60, "max_agents": 1}
        server.edit_policy(quarantine_after=limits)
        return server

    def _closed(self, thing):
        self.closing.callback(thing.close)
        return thing

    def __enter__(self):
        with self.closing:
            self.closing.callback(self.store.end)
            self.store.start()
            for server in self.servers:
                self.closing.callback(server.end)
                server.remit.start()
            self.closing.enter_context(self.agents.world["ops-admin"].watch(seconds=600))
            self.closing.enter_context(self.prometheus)
            self.closing = self.closing.pop_all()
        return self

    def __exit__(self, *_):
        self.closing.close()

    # What Prometheus says.

    def firing(self):
        found = {}
        for alert in self.prometheus.firing():
            found.setdefault(alert["labels"]["alertname"], []).append(alert)
        return found

    def run(self, name, drives, seconds=45):
        """Drives, again and again, until every alert was seen firing."""
        began, missing, seen = time.time(), set(drives), {}
        deadline = time.monotonic() + seconds
        while missing:
            assert time.monotonic() < deadline, f"never fired: {missing}"
            for alert in missing:
                drives[alert]()
            found = self.firing()
            for alert in set(drives) & set(found):
                seen.setdefault(alert, {}).update({json.dumps(one["labels"]): one for one in found[alert]})
            missing -= set(found)
            time.sleep(0.1)
        self.fired |= {alert: list(found.values()) for alert, found in seen.items()}
        self.phases[name] = (began, time.time(), sorted(drives))

    def wait_for_calm(self, name, but=()):
        """Until nothing fires any more, but these, for three evaluations."""
        deadline, since = time.monotonic() + 45, time.monotonic()
        while time.monotonic() < since + 3 * SCRAPE_SECONDS:
            if (found := set(self.firing())) != set(but):
                since = time.monotonic()
            assert time.monotonic() < deadline, f"never resolved: {sorted(found)}"
            time.sleep(0.1)
        # The one in the middle stands for it, as scrapes are a little early or late.
        self.calm[name] = (time.time() - 1.5 * SCRAPE_SECONDS, sorted(but))

    # Agents that do what they may not.

    def agent_drives(self):
        return {
            "AgentDelegationDepthExceeded": self.go_too_deep,
            "AgentCapabilityEscalation": self.escalate,
            "AgentUnauthorizedCommunication": self.call_whom_one_may_not,
            "AgentTokenReplayDetected": self.use_twice,
            "AgentTokenWrongHolder": self.take_anothers,
            "AgentQuarantined": lambda: self.agents.world["ops-admin"].revoke(agent=WRITER, quarantine=True),
            "AgentCertificateExpiring": lambda: self.show_certificate(valid_until=1800),
            "RemitDenialRateHigh": self.be_refused,
            "RemitHandshakesFailing": self.knock,
            "RemitUnauthenticatedRequests": self.ask_as_nobody,
        }

    def go_too_deep(self):
        _, child = validator_token(self.agents.world, delegatable=True)
        with contextlib.suppress(Refused):
            self.agents.world[VALIDATOR].delegate(ANALYST, ["kubectl_get"], ["prod/web"], parent=child.token)

    def escalate(self):
        token = deployer_token(self.agents.world).token
        assert reason(self.agents.world[DEPLOYER].authorize("kubectl_apply", "prod/web", token)) != "ALLOWED"

    def call_whom_one_may_not(self):
        for _ in range(5):
            answer = self.agents.world["svc-demo"].authorize("", "", agent=ANALYST, method="POST", path="/v1/delegate")
            assert reason(answer) == "COMMUNICATION_NOT_ALLOWED"

    def use_twice(self):
        _, child = validator_token(self.agents.world)
        answers = [self.agents.world[VALIDATOR].authorize("kubectl_get", "prod/web", child.token) for _ in range(2)]
        assert [reason(answer) for answer in answers] == ["ALLOWED", "TOKEN_USES_EXHAUSTED"]

    def take_anothers(self):
        token = deployer_token(self.agents.world).token
        assert reason(self.agents.world[ANALYST].authorize("kubectl_get", "prod/web", token)) == "TOKEN_WRONG_HOLDER"

    def show_certificate(self, **how):
        issued = Authority.of_folder(self.agents.folder).agent(ANALYST, **how)
        folder = self.agents.folder / "shown"
        (folder / "agents").mkdir(parents=True, exist_ok=True)
        (folder / "ca.pem").write_bytes((self.agents.folder / "ca.pem").read_bytes())
        (folder / "agents" / f"{ANALYST}.pem").write_bytes(issued.certificate)
        (folder / "agents" / f"{ANALYST}.key").write_bytes(issued.key)
        with self.agents.world.with_credentials(certificate_credentials(folder, ANALYST)) as analyst:
            assert reason(analyst.authorize("read_file", "/data/q3")) == "TOKEN_REQUIRED"

    def be_refused(self):
        for _ in range(20):
            assert reason(self.agents.world[DEPLOYER].authorize("kubectl_get", "prod/web")) == "TOKEN_REQUIRED"

    def knock(self):
        for _ in range(8):
            with socket.create_connection(("127.0.0.1", self.agents.remit.ports["grpc"]), timeout=5) as stranger:
                stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")

    def ask_as_nobody(self):
        root = grpc.ssl_channel_credentials((self.agents.folder / "ca.pem").read_bytes())
        with self.agents.world.with_credentials(root) as nobody:
            for _ in range(20):
                with fails_with(grpc.StatusCode.UNAUTHENTICATED):
                    nobody.authorize("kubectl_get", "prod/web")

    def calm_agents(self):
        self.agents.world["ops-admin"].reinstate(WRITER)
        self.show_certificate(valid_until=86400)
        # The metric is the deepest of five minutes; the alert follows the policy.
        self.agents.edit_policy(max_delegation_depth=3)

    # Agents under watch.

    def watched_drives(self):
        return {
            "AgentAnomaly": self.do_something_new,
            "AgentQuarantinedAutomatically": lambda: self.ask_for_more(ANALYST, "read_file"),
            "AgentQuarantineWithheld": lambda: self.ask_for_more(WRITER, "write_file"),
        }

    def do_something_new(self):
        """Each time in a place where it never was."""
        self.place += 1
        with contextlib.suppress(Refused):
            token = deployer_token(self.watchful.world, resources=[f"place-{self.place}/*"]).token
            self.watchful.world[DEPLOYER].authorize("kubectl_get", f"place-{self.place}/web", token)

    def ask_for_more(self, agent, capability):
        with contextlib.suppress(Refused):
            token = self.watchful.world[COORDINATOR].delegate(agent, [capability], ["/data/*"]).token
            for _ in range(5):
                self.watchful.world[agent].authorize(capability, "/etc/passwd", token)

    def lose_store(self):
        if self.store.process is not None:
            self.store.kill()

    def bring_store_back(self):
        """Without its memory, and as it has to be."""
        if self.store.process is None:
            (self.store.folder / "server.conf").unlink()
            self.store.settings["maxmemory-policy"] = "noeviction"
            self.store.start()

    def reinstates(self):
        """A new primary is not asked for some seconds. Whichever of the two came first is under quarantine."""
        try:
            self.watchful.world["ops-admin"].reinstate(WRITER)
            return self.watchful.world["ops-admin"].reinstate(ANALYST)
        except Refused:
            return None

    # A service that loses what it rests on.

    def service_drives(self):
        return {
            "RemitAuditFailing": self.stick,
            "RemitNotReady": self.stick,
            "RemitAuditDenialsUnrecorded": self.flood,
            "RemitPolicyBroken": lambda: self.keep(self.service, "policy.json", b"{"),
            "RemitPolicyStale": lambda: None,
            "RemitCertificateExpiring": self.short_certificate,
            "RemitCertificateExpiryImminent": lambda: None,
            "RemitClientCaExpiring": self.short_authority,
            "RemitStateUnwell": self.fill_disk,
            "RemitLedgerFilling": self.fill_ledger,
            "RemitExportDropping": self.refuse_exports,
            "RemitIssuerKeysStale": lambda: None,
            "RemitStoreMisconfigured": lambda: None,
        }

    def keep(self, server, name, content):
        """Puts it there once; `restore` brings the old one back."""
        path = server.folder / name
        if path not in self.kept:
            self.kept[path] = path.read_bytes()
            put(path, content)

    def short_certificate(self):
        issued = Authority.of_folder(self.service.folder).server(valid_until=1800)
        self.keep(self.service, "server.key", issued.key)
        self.keep(self.service, "server.pem", issued.certificate)

    def short_authority(self):
        path = self.service.folder / "ca.pem"
        self.keep(self.service, "ca.pem", path.read_bytes() + Authority.new().certificate)

    def stick(self):
        self.pipe.stick()
        with contextlib.suppress(Refused):
            self.service.world[DEPLOYER].authorize("kubectl_get", "prod/web", request_id="x" * 100)
            deployer_token(self.service.world)

    def flood(self):
        """Different denials, more than are held together while none can be recorded."""
        for batch in range(45):
            requests = [
                pb.AuthorizeRequest(capability="read_file", resource="/data/q3", agent=f"nobody-{batch}-{number}")
                for number in range(100)
            ]
            self.service.world["svc-demo"].batch_authorize(requests)

    def fill_disk(self):
        """What is left of the last page is filled by revocations."""
        self.disk.fill()
        with contextlib.suppress(Refused):
            for _ in range(200):
                self.disks.world["ops-admin"].revoke(agent=VALIDATOR)

    def refuse_exports(self):
        self.collector.codes["logs"] = "INVALID_ARGUMENT"
        with contextlib.suppress(Refused):
            self.disks.world[DEPLOYER].authorize("kubectl_get", "prod/web")

    def fill_ledger(self):
        with contextlib.suppress(Refused):
            while True:
                deployer_token(self.disks.world, ttl=12)

    def mend_service(self):
        self.pipe.flow()
        for path, content in self.kept.items():
            put(path, content)
        self.disk.make_room()
        self.collector.codes.clear()
        self._closed(Keys(self.keys_port))

    # A subscriber that comes too late, and a crash.

    def come_late(self):
        """To events that neither memory nor a file has any more."""
        ops = self.service.world["ops-admin"]
        with contextlib.suppress(Refused):
            for _ in range(2 * RING):
                ops.revoke(all=True)
            with ops.watch(after_sequence=1, seconds=5) as watching:
                next(watching)

    def kill(self):
        if self.service.remit.process is not None:
            self.service.world.close()
            self.service.remit.kill()

    def start_again(self):
        if self.service.remit.process is None:
            self.service.remit.start()

    def play(self):
        """All of it."""
        # Prometheus begins to scrape some seconds after its start. Then half a window without trouble, but that the
        # issuer's keys were never to be had.
        self.start = time.time()
        wait_until(lambda: len(self.prometheus.query("up == 1")) == len(self.servers), "all are scraped", 20, pause=0.2)
        time.sleep(2.5)
        self.wait_for_calm("before", but=["RemitIssuerKeysStale", "RemitStoreMisconfigured"])
        self.run("trouble", self.agent_drives() | self.watched_drives() | self.service_drives())
        self.calm_agents()
        self.mend_service()
        self.run("late", {"RemitEventGaps": self.come_late, "RemitStoreUnreachable": self.lose_store})
        self.run("killed", {"RemitDown": self.kill})
        back = {"RemitFenceMoved": self.start_again, "RemitStoreEpochChanged": self.bring_store_back}
        self.run("started again", back)
        wait_until(self.reinstates, "the store serves again", 30, pause=0.2)
        self.wait_for_calm("after")
        self.end = time.time()
