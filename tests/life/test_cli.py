"""The command line as somebody types it."""

import json
import os
import re
import select
import subprocess
import time

import pytest
import seed_token
from cryptography import x509
from remit_process import binary, environment
from seed_policy import ANALYST, COORDINATOR, DEPLOYER, VALIDATOR, deployer_token
from waiting import wait_until

SECONDS = 20


def remit(*arguments, cwd=None, stdin="", **variables):
    """Runs it to its end."""
    return subprocess.run(
        [binary(), *map(str, arguments)],
        cwd=cwd,
        env=environment(**variables),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


class Console:
    """Commands against a running server, as agents of its folder; each answer is JSON."""

    def __init__(self, world):
        self.world = world
        self.folder = world.remit.folder

    def __call__(self, *arguments, code=0, **more):
        """One command with its answer in JSON, which ends with this code."""
        ran = remit(*arguments, "--dev-dir", self.folder, "--output", "json", **more)
        assert ran.returncode == code, (ran.returncode, ran.stdout, ran.stderr)
        return json.loads(ran.stdout) if ran.stdout else ran.stderr

    def token(self, name, *more, to=DEPLOYER, by=COORDINATOR, capability="kubectl_get", resource="prod/*"):
        """A file with a new token, and its answer."""
        path = self.folder.parent / name
        wish = ["--to", to, "--capability", capability, "--resource", resource, *more]
        answer = self("delegate", "--as", by, *wish)
        path.write_text(answer["token"])
        return path, answer


@pytest.fixture(scope="module")
def console(shared):
    return Console(shared)


# What a newcomer sees.


def printed_commands(text):
    """Each command that is printed to be pasted stands below a line that says what it shows."""
    lines = text.splitlines()
    pairs = zip(lines, lines[1:])
    return [command for comment, command in pairs if comment.startswith("# ") and not command.startswith("#")]


def paste(command, cwd):
    """A shell gets the line as it is."""
    return subprocess.Popen(
        ["bash", "-c", command],
        cwd=cwd,
        env=environment(PATH=f"{binary().parent}{os.pathsep}{os.environ['PATH']}"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def first_lines(process, count):
    """Lines of a process that goes on; then it is ended."""
    deadline, lines, rest = time.monotonic() + SECONDS, [], b""
    descriptor = process.stdout.fileno()
    try:
        while len(lines) < count and time.monotonic() < deadline:
            if select.select([descriptor], [], [], 0.5)[0]:
                more = os.read(descriptor, 65536)
                if not more:
                    break
                *whole, rest = (rest + more).split(b"\n")
                lines += [line.decode() for line in whole]
        return lines[:count]
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def test_the_three_commands_that_dev_prints(serve):
    world = serve()
    printed = world.remit.printed()
    assert "production" in printed.splitlines()[0].lower(), printed
    assert str(world.remit.folder) in printed
    commands = printed_commands(printed)
    assert len(commands) == 3, printed
    allow, refuse, watch = commands

    allowed, _ = (process := paste(allow, world.remit.folder)).communicate(timeout=SECONDS)
    assert process.returncode == 0 and "allowed" in allowed, allowed
    refused, _ = (process := paste(refuse, world.remit.folder)).communicate(timeout=SECONDS)
    assert process.returncode == 1 and "denied" in refused, refused
    why = re.search(r"\b[A-Z]+(_[A-Z]+)+\b", refused)[0]

    seen = first_lines(paste(watch, world.remit.folder), 5)
    assert len(seen) == 5, seen
    assert "policy" in seen.pop(0), "the first event is the policy that the service began with"
    assert "checkpoint" in seen.pop(0), "its signature of that"
    assert "accepted" in seen[0] and "delegate" in seen[0], seen
    assert "accepted" in seen[1] and "capability_request" in seen[1], seen
    assert "denied" in seen[2] and why in seen[2], seen


def commands_of(*path):
    """The commands below this one that its help names."""
    text = remit(*path, "--help").stdout
    part = re.search(r"^Commands:\n((?:  .*\n|\n)+)", text, re.MULTILINE)
    names = re.findall(r"^  ([a-z][a-z-]*)", part[1], re.MULTILINE) if part else []
    found = []
    for name in names:
        if name != "help":
            found += commands_of(*path, name) or [(*path, name)]
    return found


def test_every_command_has_help_with_an_example():
    commands = commands_of()
    assert {("serve",), ("keygen",), ("authorize",), ("delegate",), ("watch",), ("policy", "check")} <= set(commands)
    for command in commands:
        helped = remit(*command, "--help")
        assert helped.returncode == 0
        example = helped.stdout.partition("Example")[2]
        assert f"remit {' '.join(command)}" in example, command
        assert "--output" in helped.stdout, command


def test_a_token_is_never_an_argument():
    for command in commands_of():
        helped = remit(*command, "--help").stdout
        assert not re.search(r"--token(?!-file|-id)|<TOKEN>", helped), command
        for line in helped.partition("Example")[2].splitlines():
            assert not re.search(r"[A-Za-z0-9_=-]{40,}\.[0-9a-f]{8,}", line), line
    refused = remit("authorize", "x", "y", "--token", "secret.token")
    assert refused.returncode == 2


def test_wrong_usage_is_2():
    for arguments in [
        [],
        ["nothing"],
        ["authorize"],
        ["serve", "--nothing"],
        ["policy", "check"],
        ["delegate", "--to"],
    ]:
        ran = remit(*arguments)
        assert ran.returncode == 2 and ran.stderr and not ran.stdout, arguments


def test_a_server_that_is_not_there_is_2(folder):
    ran = remit("authorize", "x", "y", "--as", DEPLOYER, "--dev-dir", folder, "--server", "127.0.0.1:1")
    assert ran.returncode == 2 and "127.0.0.1:1" in ran.stderr


def test_an_agent_without_a_certificate_is_2(console):
    said = console("authorize", "x", "y", "--as", "agent-deploier", code=2)
    assert "agent-deploier" in said and DEPLOYER in said, "it says who there is"


# The verbs.


def test_delegate_and_authorize(console):
    path, given = console.token("one", "--ttl", "60s")
    assert given["delegation_chain"] == [COORDINATOR, DEPLOYER] and given["depth"] == 1 and given["max_uses"] == 1
    ask = ["authorize", "kubectl_get", "prod/web", "--as", DEPLOYER, "--token-file", path]
    dry = console(*ask, "--dry-run")
    assert dry["decision"] == "allow" and dry["dry_run"] is True
    allowed = console(*ask)
    assert (allowed["decision"], allowed["reason"]) == ("allow", "ALLOWED")
    assert allowed["token_id"] == given["token_id"] and allowed["agent"]["agent"] == DEPLOYER
    again = console(*ask, code=1)
    assert (again["decision"], again["reason"]) == ("deny", "TOKEN_USES_EXHAUSTED") and again["message"]


def test_the_token_from_standard_input_and_from_the_environment(console):
    ask = ["authorize", "kubectl_get", "prod/web", "--as", DEPLOYER]
    path, _ = console.token("stdin")
    assert console(*ask, "--token-file", "-", stdin=path.read_text() + "\n")["decision"] == "allow"
    path, _ = console.token("environment")
    assert console(*ask, REMIT_TOKEN=path.read_text())["decision"] == "allow"
    assert console(*ask, code=1)["reason"] == "TOKEN_REQUIRED"


def test_a_chain_of_two_hops(console):
    parent, _ = console.token("parent", "--delegatable")
    child, given = console.token("child", "--parent-file", parent, by=DEPLOYER, to=VALIDATOR, resource="prod/web")
    assert given["delegation_chain"] == [COORDINATOR, DEPLOYER, VALIDATOR]
    ask = ["authorize", "kubectl_get", "prod/web", "--token-file", child, "--as"]
    assert console(*ask, ANALYST, code=1)["reason"] == "TOKEN_WRONG_HOLDER"
    assert console(*ask, VALIDATOR)["decision"] == "allow"


def test_an_enforcement_point(console):
    path, _ = console.token("service")
    ask = ["authorize", "kubectl_get", "prod/web", "--as", "svc-demo", "--token-file", path]
    assert "agent" in console(*ask, code=2), "it has to name the agent"
    assert console(*ask, "--agent", DEPLOYER)["agent"]["method"] == "ENFORCEMENT_POINT"


def test_refusals_in_text(console):
    ran = remit(
        *["delegate", "--as", ANALYST, "--to", VALIDATOR, "--capability", "read_file", "--resource", "/data/x"],
        *["--dev-dir", console.folder],
    )
    assert ran.returncode == 1
    assert "DELEGATION_NOT_ALLOWED" in ran.stdout + ran.stderr and "parent" in ran.stdout + ran.stderr


def test_introspect_and_revoke(console):
    path, given = console.token("revoked")
    look = ["introspect", "--as", DEPLOYER, "--token-file", path]
    seen = console(*look)
    assert seen["active"] is True and seen["token_id"] == given["token_id"] and seen["holder"] == DEPLOYER
    assert console("revoke", "--as", ANALYST, "--token-file", path, code=1)["reason"] == "CALLER_NOT_AUTHORIZED"
    console("revoke", "--as", COORDINATOR, "--token-file", path, "--note", "over")
    gone = console(*look, code=1)
    assert gone["active"] is False and gone["reason"] == "TOKEN_REVOKED"
    by_id, given = console.token("revoked by id")
    console("revoke", "--as", "ops-admin", "--token-id", given["token_id"])
    ask = ["authorize", "kubectl_get", "prod/web", "--as", DEPLOYER, "--token-file", by_id]
    assert console(*ask, code=1)["reason"] == "TOKEN_REVOKED"


def test_quarantine_and_reinstate(serve):
    console = Console(serve())
    path, _ = console.token("before")
    ask = ["authorize", "kubectl_get", "prod/web", "--as", DEPLOYER, "--token-file", path]
    assert console("reinstate", "--as", COORDINATOR, "--agent", DEPLOYER, code=1)["reason"] == "CALLER_NOT_AUTHORIZED"
    console("revoke", "--as", "ops-admin", "--agent", DEPLOYER, "--quarantine", "--note", "odd")
    assert console(*ask, code=1)["reason"] == "AGENT_QUARANTINED"
    assert console("status", "--as", "ops-admin")["quarantined_agents"] == 1
    console("reinstate", "--as", "ops-admin", "--agent", DEPLOYER)
    assert console(*ask, code=1)["reason"] == "TOKEN_REVOKED"
    console.token("after")
    console("revoke", "--as", "ops-admin", "--all")


def test_status(console):
    status = console("status", "--as", "ops-admin")
    assert status["ready"] is True and status["policy_revision"] >= 1
    assert console("status", "--as", DEPLOYER, code=1)["reason"] == "CALLER_NOT_AUTHORIZED"
    text = remit("status", "--as", "ops-admin", "--dev-dir", console.folder)
    assert text.returncode == 0 and text.stdout.startswith("ready")


def test_watch(console):
    console.token("watched")
    command = [binary(), "watch", "--as", "ops-admin", "--after", "0", "--result", "accepted", "--output", "json"]
    watching = subprocess.Popen(
        [*command, "--dev-dir", console.folder], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    events = [json.loads(line) for line in first_lines(watching, 2)]
    assert len(events) == 2 and all(event["result"] == "accepted" for event in events)
    assert list(events[0])[:2] == ["timestamp", "event"] or {"timestamp", "event"} <= set(events[0])
    refused = console("watch", "--as", DEPLOYER, code=1)
    assert refused["reason"] == "CALLER_NOT_AUTHORIZED"


def test_watch_comes_back_and_goes_on(serve):
    """Over a restart: each event once, and standard error says what happens."""
    world = serve()
    token = deployer_token(world)
    client = ["--as", "ops-admin", "--dev-dir", world.remit.folder, "--output", "json"]
    errors = world.remit.folder / "errors"
    with errors.open("wb") as stderr:
        watching = subprocess.Popen(
            [binary(), "watch", *client, "--after", "0"], env=environment(), stdout=subprocess.PIPE, stderr=stderr
        )
    lines = iter(watching.stdout.readline, b"")
    try:
        seen = [json.loads(next(lines)) for _ in range(world.administrator().status().event_sequence)]
        assert seen[-1]["token_id"] == token.token_id
        world.close()
        assert world.remit.stop() == 0
        wait_until(lambda: "not connected" in errors.read_text(), "it says so")
        world.remit.start()
        world[DEPLOYER].authorize("kubectl_get", "prod/web", token.token)
        while seen[-1]["message_type"] != "capability_request":
            seen.append(json.loads(next(lines)))
        assert "connected again, going on after #" in errors.read_text()
    finally:
        watching.terminate()
        watching.wait()
        watching.stdout.close()
    assert not any("gap" in line for line in seen)
    log = [json.loads(line) for line in remit("audit", "show", world.remit.folder / "audit.jsonl", "--output", "json").stdout.splitlines()]
    places = [(line["stream_id"], line["sequence"]) for line in log]
    assert [(line["stream_id"], line["sequence"]) for line in seen] == places[: len(seen)]
    first = places[0][0]
    ran = remit("watch", *client, "--stream", first, "--after", "1", "--count", "2")
    assert [json.loads(line)["sequence"] for line in ran.stdout.splitlines()] == [2, 3] and places[2][0] == first


def test_an_explicit_server_and_certificate(console, shared):
    path = console.folder
    who = ["--cert", path / f"agents/{DEPLOYER}.pem", "--key", path / f"agents/{DEPLOYER}.key", "--ca", path / "ca.pem"]
    token = deployer_token(shared).token
    ran = remit(
        "authorize",
        "kubectl_get",
        "prod/web",
        "--server",
        shared.address(),
        *who,
        "--output",
        "json",
        REMIT_TOKEN=token,
    )
    assert ran.returncode == 0 and json.loads(ran.stdout)["decision"] == "allow", ran.stderr


# Without a server.


def test_token_inspect(console):
    path, given = console.token("inspected")
    seen = remit("token", "inspect", "--token-file", path, "--key", console.folder / "hmac.key", "--output", "json")
    assert seen.returncode == 0, seen.stderr
    assert given["token_id"] in seen.stdout and DEPLOYER in seen.stdout
    assert path.read_text().split(".")[1] not in seen.stdout, "it shows no seal"
    foreign = seed_token.issue(b"k" * 32, COORDINATOR, DEPLOYER, ["kubectl_get"], ["prod/*"])
    bad = remit("token", "inspect", "--key", console.folder / "hmac.key", "--output", "json", REMIT_TOKEN=foreign)
    assert bad.returncode == 1 and "TOKEN_SEAL_INVALID" in bad.stdout, bad
    json.loads(bad.stdout)


def test_keygen(tmp_path):
    made = remit("keygen")
    assert made.returncode == 0 and re.fullmatch(r"[0-9a-f]{64}\n", made.stdout)
    assert remit("keygen").stdout != made.stdout
    path = tmp_path / "new.key"
    assert remit("keygen", "--out", path).returncode == 0
    before = path.read_bytes()
    assert path.stat().st_mode & 0o077 == 0
    assert remit("keygen", "--out", path).returncode == 2 and path.read_bytes() == before, "it overwrites nothing"


def test_dev_certs(tmp_path):
    made = remit("dev-certs", "--dir", tmp_path / "certs", "--agent", "agent-a", "--output", "json")
    assert made.returncode == 0, made.stderr
    json.loads(made.stdout)
    certificate = x509.load_pem_x509_certificate((tmp_path / "certs/agents/agent-a.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [
        "spiffe://cluster.local/ns/ai-agents/sa/agent-a-sa"
    ]
    for key in (tmp_path / "certs").rglob("*.key"):
        assert key.stat().st_mode & 0o077 == 0, key


def test_policy_check_shows_the_place(tmp_path, folder):
    good = remit("policy", "check", folder / "policy.json")
    assert good.returncode == 0, good.stderr
    assert COORDINATOR in good.stdout, "it says who may start a chain"

    bad = tmp_path / "bad.json"
    bad.write_text((folder / "policy.json").read_text().replace("can_delegate_to", "can_delegat_to", 1))
    line = next(number for number, text in enumerate(bad.read_text().splitlines(), 1) if "can_delegat_to" in text)
    column = bad.read_text().splitlines()[line - 1].index('"can_delegat_to"') + 1
    ran = remit("policy", "check", bad)
    assert ran.returncode == 1
    shown = ran.stdout + ran.stderr
    assert "\x1b" not in shown, "no colours into a pipe"
    assert re.search(rf"bad\.json:{line}:({column}|{column + 1})", shown), shown
    assert '"can_delegat_to"' in shown and "^^^" in shown, shown
    assert "can_delegate_to" in shown.replace("can_delegat_to", ""), shown

    ran = remit("policy", "check", bad, "--output", "json")
    answer = json.loads(ran.stdout)
    assert ran.returncode == 1 and answer["valid"] is False and len(answer["errors"]) == 1
    assert remit("policy", "check", tmp_path / "missing.json").returncode == 2


def test_print_config_withholds_secrets(folder):
    shown = remit("serve", "--config", folder / "remit.toml", "--print-config")
    assert shown.returncode == 0, shown.stderr
    assert "hmac.key" in shown.stdout and (folder / "hmac.key").read_text().strip() not in shown.stdout


def test_a_config_with_a_misspelt_key(folder):
    config = folder / "remit.toml"
    config.write_text(config.read_text().replace("[grpc]\n", "[grpc]\nlissten = 1\n"))
    ran = remit("serve", "--config", config)
    assert ran.returncode == 2 and "lissten" in ran.stderr and "did you mean" in ran.stderr, ran.stderr


def test_dev_listens_on_loopback_alone(folder):
    ran = remit("serve", "--dev", "--dev-dir", folder, REMIT_GRPC_LISTEN="0.0.0.0:0")
    assert ran.returncode == 2 and "loopback" in ran.stderr, ran.stderr


def test_what_the_console_did_is_on_record(console, shared):
    """Each command was made by the agent it said, and no token went into the file."""
    path, given = console.token("recorded")
    answer = console("authorize", "kubectl_get", "prod/web", "--as", DEPLOYER, "--token-file", path)
    line = wait_until(
        lambda: next((line for line in shared.remit.audit() if line["decision_id"] == answer["decision_id"]), None),
        "the audit line",
    )
    assert line["caller"] == DEPLOYER and line["identity_method"] and line["token_id"] == given["token_id"]
    assert path.read_text() not in "\n".join(shared.remit.audit_lines())
