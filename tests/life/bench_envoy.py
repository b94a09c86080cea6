"""What the check adds to a request through Envoy: `make bench-envoy`. Prints a table for docs/envoy.md.

Three Envoys with the configuration of deploy/envoy stand before one service: one asks Remit, one asks an authorizer that
answers without deciding, one asks nobody. They get the same load in turns, at random times, so that no answer is waited for
before the next request is sent.
"""

import argparse
import datetime
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parent))

# Makes the stubs and the paths that the others need.
import conftest  # noqa: E402, F401
import remit_process  # noqa: E402
from envoy_process import RULES, Envoy, is_there  # noqa: E402
from remit_client import World  # noqa: E402
from remit_process import REPOSITORY, Remit, copy_folder  # noqa: E402
from seed_policy import ANALYST, COORDINATOR  # noqa: E402

VERSION = "1.40.0"
MANY = 4_000_000_000
# What a busy machine holds up is slow, and not refused.
PATIENT = (("timeout: 0.5s", "timeout: 5s"),)
FORMS = ["with Remit", "with a no-op authorizer", "without ext_authz"]


class Part:
    """A part of `benches/envoy.rs` that tells its port."""

    def __init__(self, bench, *arguments):
        self.process = subprocess.Popen([bench, *map(str, arguments)], stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline())

    def end(self):
        self.process.terminate()
        self.process.wait(10)


class Bare(Envoy):
    """Envoy that asks nobody: the same configuration without its filter and what routes say to it."""

    def start(self):
        config = yaml.safe_load(self.config.read_text())
        [listener] = config["static_resources"]["listeners"]
        connections = listener["filter_chains"][0]["filters"][0]["typed_config"]
        connections["http_filters"] = [
            each for each in connections["http_filters"] if each["name"] != "envoy.filters.http.ext_authz"
        ]
        for host in connections["route_config"]["virtual_hosts"]:
            for route in host["routes"]:
                route.pop("typed_per_filter_config", None)
        self.config.write_text(yaml.safe_dump(config))
        return super().start()


def built(profile):
    """The bench's program, as cargo made it last."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
    found = [path for path in (REPOSITORY / target / profile / "deps").glob("envoy-*") if not path.suffix]
    if not found:
        raise SystemExit(f"there is no bench in {target / profile}: run `make bench-envoy`")
    return max(found, key=lambda path: path.stat().st_mtime)


def prepared(folder):
    """A dev folder with a policy under which one token is good for all requests, each of which spends one use."""
    with Remit(folder) as first:
        first.stop()
    folder = copy_folder(folder, folder.with_name("bench"))
    policy = json.loads((folder / "policy.json").read_text())
    policy["delegation_rules"][COORDINATOR]["trusted_pairs"] = [ANALYST]
    policy["token"] = {"max_uses_trusted_pair": MANY, "max_ttl_seconds": 3600}
    (folder / "policy.json").write_text(json.dumps(policy))
    with (folder / "remit.toml").open("a") as config:
        config.write(RULES.read_text())
    return folder


def load(bench, envoy, folder, token, rate, seconds):
    url = f"https://localhost:{envoy.port}/files/reports/q3"
    command = [bench, "load", url, folder, ANALYST, token, str(rate), str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=True)
    told = json.loads(done.stdout)
    if told["failed"]:
        lost = f"{told['failed']} of {told['requests']} requests did not pass"
        raise SystemExit(f"{lost}: the machine is too busy for this rate, so nothing was measured; try --rate {rate // 2}")
    return told


def measured(bench, envoys, folder, token, options):
    rounds = {form: [] for form in FORMS}
    for turn in range(options.rounds):
        # Each form comes first and last as often as the others.
        for place in range(len(FORMS)):
            form = FORMS[(turn + place) % len(FORMS)]
            told = load(bench, envoys[form], folder, token, options.rate, options.seconds)
            rounds[form].append(told)
            print(f"round {turn + 1}, {form}: p50 {told['p50']:.3f} ms, p99 {told['p99']:.3f} ms", file=sys.stderr)
    return rounds


def table(rounds, options):
    def middle(form, name):
        return statistics.median(told[name] for told in rounds[form])

    no_op = FORMS[1]
    ratios = {
        name: statistics.median(
            ours[name] / theirs[name] for ours, theirs in zip(rounds[FORMS[0]], rounds[no_op], strict=True)
        )
        for name in ("p50", "p99")
    }
    print(f"\n{options.rate} requests a second at random times, medians of {options.rounds} rounds of ", end="")
    print(f"{options.seconds} s in turns; Envoy {VERSION} with one worker, {machine()}, {datetime.date.today()}:\n")
    print("| | p50 | p90 | p99 |\n|---|---|---|---|")
    for form in FORMS:
        print(f"| {form} | {middle(form, 'p50'):.2f} ms | {middle(form, 'p90'):.2f} ms | {middle(form, 'p99'):.2f} ms |")
    print(f"| Remit to no-op | {ratios['p50']:.2f} | | {ratios['p99']:.2f} |")


def machine():
    try:
        name = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())[1]
    except (OSError, TypeError):
        name = platform.processor() or platform.machine()
    return f"{os.cpu_count()} cores ({name})"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=int, default=500, help="requests a second")
    parser.add_argument("--seconds", type=int, default=10, help="a round of one form")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--profile", default="release", help="of what cargo built: release or debug")
    parser.add_argument("--remit", type=Path, help="this program in place of the built one")
    parser.add_argument("--bench", type=Path, help="likewise")
    return parser.parse_args()


def main():
    options = arguments()
    if not is_there(VERSION):
        raise SystemExit(f"Envoy {VERSION} could not be installed")
    bench = options.bench or built(options.profile)
    target = REPOSITORY / os.environ.get("CARGO_TARGET_DIR", "target")
    program = options.remit or target / options.profile / "remit"
    remit_process.binary = lambda: program
    with tempfile.TemporaryDirectory() as temporary:
        folder = prepared(Path(temporary) / "dev")
        started = [Remit(folder, is_dev=False, REMIT_AUDIT_FILE="audit.jsonl").start()]
        try:
            [remit] = started
            service, no_op = Part(bench, "service"), Part(bench, "authorizer", folder)
            started += [service, no_op]
            kinds = [(Envoy, remit.ports["grpc"]), (Envoy, no_op.port), (Bare, remit.ports["grpc"])]
            envoys = {}
            for form, (kind, port) in zip(FORMS, kinds, strict=True):
                envoys[form] = kind(VERSION, folder, port, service, PATIENT).start()
                started.append(envoys[form])
            with World(remit) as world:
                token = world[COORDINATOR].delegate(ANALYST, ["read_file"], ["/data/*"], max_uses=MANY, ttl=3600).token
            began = time.monotonic()
            rounds = measured(bench, envoys, folder, token, options)
            table(rounds, options)
            print(f"(took {time.monotonic() - began:.0f} s)", file=sys.stderr)
        finally:
            for part in reversed(started):
                part.end()


if __name__ == "__main__":
    main()
