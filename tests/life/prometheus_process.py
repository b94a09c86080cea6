"""A real Prometheus with what deploy/prometheus ships: only addresses are others, and time runs faster."""

import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path

import yaml
from conftest import REPOSITORY, cannot
from envoy_process import free_port
from waiting import wait_until

SHIPPED = REPOSITORY / "deploy/prometheus"
RULES = SHIPPED / "remit.rules.yaml"
# A second here is a minute there: windows of 5m are 5 s, and scrapes every 30 s are two a second.
FASTER = 60
SCRAPE_SECONDS = 30 / FASTER
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
UNITS = {"s": 1, "m": 60, "h": 3600}


def program(name):
    unpacked = REPOSITORY / ".cache/prometheus/usr/bin" / name
    found = shutil.which(name) or (unpacked.exists() and str(unpacked))
    return found or cannot(f"{name} could not be installed")


def promtool(*arguments, stdin=None):
    command = [program("promtool"), *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60)


def faster(duration):
    number, unit = re.fullmatch(r"(\d+)([smh])", duration).groups()
    return f"{int(number) * UNITS[unit] * 1000 // FASTER}ms"


def hurried_text(expression):
    """With shorter windows and offsets."""
    window = re.compile(r"(\[|\boffset )(\d+[smh])\b")
    return window.sub(lambda found: found[1] + faster(found[2]), expression)


def hurried(rules):
    """The rules with shorter windows, offsets and `for`; nothing else is changed."""
    for rule in (rule for group in rules["groups"] for rule in group["rules"]):
        rule["expr"] = hurried_text(rule["expr"])
        if "for" in rule:
            rule["for"] = faster(rule["for"])
    return rules


def shipped_alerts():
    rules = yaml.safe_load(RULES.read_text())
    return [rule for group in rules["groups"] for rule in group["rules"] if "alert" in rule]


class Prometheus:
    """The process. `targets`: host and port of servers whose certificates `ca` issued."""

    def __init__(self, folder, targets, ca):
        self.folder, self.port, self.process = Path(folder), free_port(), None
        rules = self.folder / RULES.name
        rules.write_text(yaml.safe_dump(hurried(yaml.safe_load(RULES.read_text())), width=1000))
        config = yaml.safe_load((SHIPPED / "prometheus.yaml").read_text())
        config["global"] = {name: faster(value) for name, value in config["global"].items()}
        config["rule_files"] = [str(rules)]
        (job,) = config["scrape_configs"]
        job["static_configs"] = [{"targets": targets}]
        job["tls_config"]["ca_file"] = str(ca)
        self.config = self.folder / "prometheus.yaml"
        self.config.write_text(yaml.safe_dump(config))

    def __enter__(self):
        with (self.folder / "prometheus.log").open("wb") as log:
            arguments = {
                "config.file": self.config,
                "storage.tsdb.path": self.folder / "data",
                "web.listen-address": f"127.0.0.1:{self.port}",
                "query.lookback-delta": faster("5m"),
                "log.level": "warn",
            }
            options = [f"--{name}={value}" for name, value in arguments.items()]
            command = [program("prometheus"), *options]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(self._is_ready, "Prometheus is ready", 20)
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(20)

    def _is_ready(self):
        assert self.process.poll() is None, (self.folder / "prometheus.log").read_text()
        try:
            with OPENER.open(f"http://127.0.0.1:{self.port}/-/ready", timeout=5) as page:
                return page.status == 200
        except OSError:
            return False

    def _ask(self, path, **parameters):
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with OPENER.open(url, timeout=20) as page:
            answer = json.load(page)
        assert answer["status"] == "success", answer
        return answer["data"]

    def firing(self):
        """The alerts that fire: labels with annotations."""
        return [alert for alert in self._ask("alerts")["alerts"] if alert["state"] == "firing"]

    def query(self, expression):
        return self._ask("query", query=expression)["result"]

    def query_range(self, expression, start, end):
        return self._ask("query_range", query=expression, start=start, end=end, step=SCRAPE_SECONDS)["result"]
