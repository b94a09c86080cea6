"""A real `remit serve`, in a folder of its own, on ports that were free."""

import json
import os
import re
import shutil
import signal
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

from waiting import wait_until

REPOSITORY = Path(__file__).resolve().parents[2]
START_SECONDS = 20
ANY_PORT = {f"REMIT_{name}_LISTEN": "127.0.0.1:0" for name in ("GRPC", "HTTP", "ADMIN")}


def binary():
    """The program that `cargo test` built; for figures of time, with `REMIT_PROFILE=release`, the release build."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
    profile = os.environ.get("REMIT_PROFILE", "debug")
    path = (REPOSITORY / target) / profile / "remit"
    build = "`make test`, or `cargo test --no-run`" if profile == "debug" else f"`cargo build --profile {profile}`"
    assert path.exists(), f"{path} is missing: run {build} before pytest"
    return path


def environment(**more):
    """This process's environment without settings of Remit's, and with these."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("REMIT_")}
    return kept | more


class Remit:
    """The process and everything it writes. `is_dev`: `serve --dev`, else `serve --config FOLDER/remit.toml`."""

    def __init__(self, folder, is_dev=True, **settings):
        self.folder = Path(folder)
        self.is_dev = is_dev
        self.settings = settings
        self.process = None
        self.ports = None
        self.starts = 0

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.end()

    def start(self):
        assert self.process is None, "it runs already"
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "ports.json").unlink(missing_ok=True)
        self.starts += 1
        with self._stream("out").open("wb") as out, self._stream("log").open("wb") as log:
            self.process = subprocess.Popen(
                [binary(), *self._arguments()],
                cwd=self.folder,
                env=environment(**(ANY_PORT | {"REMIT_TELEMETRY_FORMAT": "json"} | self.settings)),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
            )
        wait_until(self._listens, f"the server listens\n{self.log()}", START_SECONDS)
        return self

    def _arguments(self):
        if self.is_dev:
            return ["serve", "--dev", "--dev-dir", str(self.folder)]
        return ["serve", "--config", str(self.folder / "remit.toml")]

    def _stream(self, name):
        return self.folder.with_name(f"{self.folder.name}.{self.starts}.{name}")

    def _listens(self):
        if self.process.poll() is not None:
            raise AssertionError(f"it ended with {self.process.returncode} while starting:\n{self.log()}")
        if self.is_dev:
            self.ports = self._ports_file()
        else:
            self.ports = next(filter(None, map(listening, self.log().splitlines())), None)
        return self.ports

    def _ports_file(self):
        try:
            ports = json.loads((self.folder / "ports.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        assert set(ports) == {"grpc", "http", "admin"} and all(isinstance(port, int) for port in ports.values()), ports
        return ports

    # Endings. Each ends this one process and no other.

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def hang_up(self):
        self.process.send_signal(signal.SIGHUP)

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process = None

    def stop(self, seconds=15):
        """SIGTERM; its exit code."""
        self.terminate()
        return self.wait(seconds)

    def wait(self, seconds=15):
        code = self.process.wait(seconds)
        self.process = None
        return code

    def end(self):
        """However it stands."""
        if self.process is None:
            return
        self.terminate()
        try:
            self.wait(5)
        except subprocess.TimeoutExpired:
            self.kill()

    # What it writes.

    def log(self):
        return self._stream("log").read_text(errors="replace")

    def printed(self):
        return self._stream("out").read_text(errors="replace")

    def audit_lines(self):
        path = self.folder / "audit.jsonl"
        text = path.read_text() if path.exists() else ""
        assert text == "" or text.endswith("\n") or self.process is not None, "the audit file ends in half a line"
        return [line for line in text.split("\n")[:-1]]

    def audit(self):
        return [json.loads(line) for line in self.audit_lines()]

    def http(self, path, **headers):
        """Status, content type and text of a page."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.ports['http']}{path}", headers=headers)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=5) as answer:
                return answer.status, answer.headers["content-type"], answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.headers["content-type"], error.read().decode()

    def metrics(self):
        """The samples of /metrics: series as it is written → number."""
        status, _, text = self.http("/metrics")
        assert status == 200, text
        samples = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
        return {series: float(value) for series, value in samples}

    # Its folder.

    @property
    def policy_file(self):
        return self.folder / "policy.json"

    def hmac_key(self):
        return (self.folder / "hmac.key").read_bytes().removesuffix(b"\n")


def listening(line):
    """The ports of a log line that says `listening`."""
    try:
        entry = json.loads(line)
    except json.JSONDecodeError:
        return None
    if entry.get("message") != "listening":
        return None
    return {name: int(re.search(r":(\d+)$", entry[name])[1]) for name in ("grpc", "http", "admin")}


def copy_folder(template, folder):
    """A dev folder like `template`, which no server has used: same keys and certificates, no history."""
    shutil.copytree(template, folder, symlinks=True)
    for leftover in ("ports.json", "audit.jsonl"):
        (Path(folder) / leftover).unlink(missing_ok=True)
    shutil.rmtree(Path(folder) / "state", ignore_errors=True)
    return Path(folder)
