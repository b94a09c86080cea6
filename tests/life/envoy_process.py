"""A real Envoy with the configuration of deploy/envoy, the service behind it, and a client that sends bytes as they are."""

import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from waiting import wait_until

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIG = REPOSITORY / "deploy/envoy/envoy.yaml"
RULES = REPOSITORY / "deploy/envoy/rules.toml"
START_SECONDS = 30


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Upstream:
    """A service that remembers exactly what reached it."""

    def __init__(self):
        self.seen = []
        seen = self.seen

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def parse_request(self):
                self.command = self.requestline = self.close_connection = None
                ok = super().parse_request()
                if ok and not hasattr(self, f"do_{self.command}"):
                    setattr(self, f"do_{self.command}", self.answer)
                return ok

            def answer(self):
                length = int(self.headers.get("content-length") or 0)
                body = self.rfile.read(length)
                headers = [(name.lower(), value) for name, value in self.headers.items()]
                seen.append({"method": self.command, "path": self.path, "headers": headers, "body": body})
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self):
        """What reached it since the last call."""
        taken = list(self.seen)
        self.seen.clear()
        return taken

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class Envoy:
    """The process, in a folder that `serve --dev` made. `edits`: texts of its configuration and what stands in their place."""

    # Whom the requests are for.
    host = "service.example"

    def __init__(self, version, folder, remit_port, upstream, edits=()):
        self.binary = REPOSITORY / ".cache/envoy" / version / "envoy/_bin/envoy"
        self.version = version
        self.folder = Path(folder)
        self.upstream = upstream
        self.port = free_port()
        text = CONFIG.read_text()
        ports = [("10000", self.port), ("7443", remit_port), ("8080", upstream.port)]
        for old, new in [*((f"port_value: {was}", f"port_value: {now}") for was, now in ports), *edits]:
            assert old in text, f"{old} is not in {CONFIG}"
            text = text.replace(old, new)
        self.config = self.folder / f"envoy.{self.port}.yaml"
        self.config.write_text(text)
        self.out = self.folder / f"envoy.{self.port}.out"
        self.log = self.folder / f"envoy.{self.port}.log"
        self.process = None

    def validate(self):
        command = [self.binary, "-c", self.config, "--mode", "validate"]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=60)

    def start(self):
        with self.out.open("wb") as out, self.log.open("wb") as log:
            arguments = ["-c", self.config, "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]
            self.process = subprocess.Popen(
                [self.binary, *arguments], cwd=self.folder, stdin=subprocess.DEVNULL, stdout=out, stderr=log
            )
        wait_until(self._listens, f"Envoy {self.version} listens", START_SECONDS)
        return self

    def _listens(self):
        assert self.process.poll() is None, f"Envoy ended while starting:\n{self.log.read_text()}"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def end(self):
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def access_log(self):
        return [json.loads(line) for line in self.out.read_text().splitlines() if line.startswith("{")]

    def tls(self, agent=None):
        """The client's side; `agent`: the certificate that it shows, of the folder or (certificate, key)."""
        context = ssl.create_default_context(cafile=self.folder / "ca.pem")
        context.set_alpn_protocols(["http/1.1"])
        if isinstance(agent, tuple):
            context.load_cert_chain(*agent)
        elif agent:
            context.load_cert_chain(self.folder / f"agents/{agent}.pem", self.folder / f"agents/{agent}.key")
        return context

    def send(self, agent, head, body=b"", seconds=15):
        """Bytes to Envoy, and what came back."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as raw:
            with self.tls(agent).wrap_socket(raw, server_hostname="localhost") as connection:
                connection.sendall(head + body)
                return Answer.read(connection)

    def ask(self, agent, method, path, headers=(), body=b"", **how):
        """A request with these headers, as pairs of text or bytes."""
        lines = [f"{method} {path} HTTP/1.1".encode(), f"host: {self.host}".encode(), b"connection: close"]
        if body:
            lines.append(f"content-length: {len(body)}".encode())
        lines += [octets(name) + b": " + octets(value) for name, value in headers]
        return self.send(agent, b"\r\n".join(lines) + b"\r\n\r\n", body, **how)


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @classmethod
    def read(cls, connection):
        received = b""
        while True:
            try:
                part = connection.recv(65536)
            except (ConnectionResetError, ssl.SSLEOFError):
                break
            if not part:
                break
            received += part
        head, _, body = received.partition(b"\r\n\r\n")
        if not head:
            raise ConnectionError("the connection was closed without an answer")
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        return cls(int(status.split()[1]), headers, body)

    def refusal(self):
        """Status and reason of Remit's own refusal."""
        assert self.headers["content-type"] == "application/json", self
        told = json.loads(self.body)
        assert set(told) == {"reason", "message", "decision_id"} and all(told.values()), told
        return self.status, told["reason"]

    def __repr__(self):
        return f"{self.status} {self.headers} {self.body[:300]}"


def octets(text):
    return text if isinstance(text, bytes) else text.encode()


def is_there(version):
    return os.access(REPOSITORY / ".cache/envoy" / version / "envoy/_bin/envoy", os.X_OK) and shutil.which("true")
