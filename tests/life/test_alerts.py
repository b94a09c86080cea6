"""The shipped alerts fire on real servers in trouble, and resolve when it is over; the dashboard's queries find data."""

import contextlib
import json
import re
import shutil
import time

import pytest
import yaml
from alert_scenario import Scenario
from conftest import REPOSITORY, cannot
from prometheus_process import FASTER, RULES, SCRAPE_SECONDS, SHIPPED, hurried_text, promtool, shipped_alerts
from remit_client import Refused, reason
from runbook import PAGE, Operator, sections
from seed_policy import ANALYST, DEPLOYER, VALIDATOR, deployer_token, validator_token
from stores import missing as missing_store
from waiting import wait_until

# By the mesh's metric: there is no Istio here. Its series below are as Istio documents them.
NOT_DRIVEN = {"istio_requests_total"}
SEED = {
    "AgentDelegationDepthExceeded": ("critical", "Agent delegation chain exceeded maximum depth"),
    "AgentCapabilityEscalation": ("critical", "Agent {{ $labels.agent_id }} attempted capability escalation"),
    "AgentUnauthorizedCommunication": (
        "warning",
        "Agent {{ $labels.source_workload }} making unauthorized calls to {{ $labels.destination_workload }}",
    ),
    "AgentTokenReplayDetected": (
        "critical",
        "Capability token replay detected for agent {{ $labels.agent_id }}",
    ),
}


@pytest.fixture(scope="module")
def scenario(template, tmp_path_factory):
    if why := missing_store():
        cannot(why)
    with Scenario(template, tmp_path_factory.mktemp("alerts")) as scenario:
        scenario.play()
        yield scenario


def driven():
    return {rule["alert"] for rule in shipped_alerts() if not any(name in rule["expr"] for name in NOT_DRIVEN)}


# Without a server.


def test_promtool_finds_nothing_wrong_with_the_rules():
    checked = promtool("check", "rules", "--lint-fatal", RULES)
    assert checked.returncode == 0 and "SUCCESS" in checked.stdout, checked.stdout + checked.stderr


def test_promtool_takes_the_scrape_configuration(tmp_path):
    for name in ("prometheus.yaml", "remit.rules.yaml"):
        (tmp_path / name).write_text((SHIPPED / name).read_text())
    (tmp_path / "ca.pem").touch()
    checked = promtool("check", "config", tmp_path / "prometheus.yaml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_seeds_alerts_are_there_as_they_were():
    for name, (severity, summary) in SEED.items():
        rule = next(rule for rule in shipped_alerts() if rule["alert"] == name)
        assert (rule["labels"]["severity"], rule["annotations"]["summary"]) == (severity, summary)


def anchor(heading):
    return re.sub(r"[^\w -]", "", heading.strip().lower()).replace(" ", "-")


def test_each_alert_says_what_it_is_and_has_its_section_in_the_runbook():
    runbook = PAGE.read_text()
    anchors = {anchor(heading) for heading in re.findall(r"(?m)^#+ (.*)$", runbook)}
    for rule in shipped_alerts():
        notes = rule["annotations"]
        assert rule["labels"]["severity"] in ("critical", "warning"), rule
        assert notes["summary"] and notes["description"], rule
        path, found = notes["runbook_url"].split("#")
        assert (path, found) == ("docs/runbook.md", rule["alert"].lower()) and found in anchors, rule


def test_the_meshs_refusals_alert_by_istios_labels(tmp_path):
    """As Istio's standard metrics are documented: there is no mesh here whose series could be taken."""
    labels = (
        'reporter="destination",source_workload="agent-analyst",source_workload_namespace="ai-agents",'
        'source_principal="spiffe://cluster.local/ns/ai-agents/sa/agent-analyst-sa",'
        'destination_workload="agent-deployer",destination_workload_namespace="ai-agents",'
        'request_protocol="http",connection_security_policy="mutual_tls"'
    )
    series = [
        {"series": 'up{job="remit",instance="remit"}', "values": "1x40"},
        {"series": f'istio_requests_total{{{labels},response_code="403"}}', "values": "0x10 2+2x4 10x20"},
        {"series": f'istio_requests_total{{{labels},response_code="200"}}', "values": "0+9x40"},
    ]
    fires = 'group by (alertname, refused_by) (ALERTS{alertstate="firing"})'
    expected = [{"labels": '{alertname="AgentUnauthorizedCommunication", refused_by="mesh"}', "value": 1}]
    asked = [(240, []), (480, expected), (1080, [])]
    tests = [{"expr": fires, "eval_time": f"{at}s", "exp_samples": samples} for at, samples in asked]
    replay(tmp_path, series, tests)


def replay(folder, series, tests):
    """The shipped rules, as they are, over these series."""
    test = {"interval": "30s", "input_series": series, "promql_expr_test": tests}
    file = folder / "replay.yaml"
    whole = {"rule_files": [str(RULES)], "evaluation_interval": "30s", "tests": [test]}
    file.write_text(yaml.safe_dump(whole, width=1_000_000))
    ran = promtool("test", "rules", file)
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-4000:]


# With servers in trouble.


def test_each_alert_fires_and_resolves(scenario):
    assert set(scenario.fired) == driven()
    assert not scenario.firing()


def test_an_alert_names_who_it_is_about(scenario):
    about = {
        "AgentDelegationDepthExceeded": {"agent_id": VALIDATOR, "severity": "critical"},
        "AgentCapabilityEscalation": {"agent_id": DEPLOYER},
        "AgentUnauthorizedCommunication": {"source": ANALYST, "destination": "svc-demo", "refused_by": "remit"},
        "AgentTokenReplayDetected": {"agent_id": VALIDATOR},
        "AgentTokenWrongHolder": {"agent_id": ANALYST},
        "AgentCertificateExpiring": {"agent_id": ANALYST, "instance": scenario.agents.target},
        "RemitDown": {"instance": scenario.service.target, "job": "remit"},
        "RemitStateUnwell": {"instance": scenario.disks.target},
        "RemitIssuerKeysStale": {"issuer": "https://idp.example"},
    }
    for name, labels in about.items():
        seen = [alert["labels"] for alert in scenario.fired[name]]
        assert any(labels.items() <= alert.items() for alert in seen), (name, seen)
    for name, alerts in scenario.fired.items():
        for text in alerts[0]["annotations"].values():
            assert "{{" not in text and "<no value>" not in text and "error" not in text, (name, text)


def recorded(scenario):
    """What Prometheus scraped, for the metrics that rules ask for: as promtool's tests want it, a scrape every 30 s."""
    start, end = scenario.start, scenario.end
    steps = int((end - start) / SCRAPE_SECONDS) + 2
    names = sorted(set(re.findall(r"\b(?:agent|remit)_[a-z_]+|\bup\b", RULES.read_text())))
    seconds = int(end - start) + 2
    # Times that rules compare with the time are moved to the time of the replay.
    against_now = set(re.findall(r"(\w+)(?:\{[^}]*\})? - time\(\)|time\(\) - (\w+)", RULES.read_text()))
    moved = {name for pair in against_now for name in pair if name}
    for found in scenario.prometheus.query(f'{{__name__=~"{"|".join(names)}",job="remit"}}[{seconds}s]'):
        name = found["metric"].pop("__name__")
        values = ["_"] * steps
        for at, value in found["values"]:
            step = min(max(round((at - start) / SCRAPE_SECONDS), 0), steps - 1)
            values[step] = repr(float(value) - at + step * 30) if name in moved else value
        for step, (before, value) in enumerate(zip(values, values[1:]), 1):
            if before not in ("_", "stale") and values[step : step + 3] == ["_"] * 3:
                values[step] = "stale"
        labels = ",".join(f'{label}="{value}"' for label, value in found["metric"].items())
        yield {"series": f"{name}{{{labels}}}", "values": " ".join(values)}


def test_the_rules_as_shipped_fire_on_what_was_scraped(scenario, tmp_path):
    """The same series, each scrape 30 s after the one before, so that every window and `for` is what is shipped."""
    group = "group by (alertname)"
    tests = []

    def expect(expression, at, alerts):
        samples = [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in alerts]
        seconds = int((at - scenario.start) * FASTER) // 30 * 30
        tests.append({"expr": expression, "eval_time": f"{seconds}s", "exp_samples": samples})

    for at, alerts in scenario.calm.values():
        expect(f'{group} (ALERTS{{alertstate="firing"}})', at, alerts)
    for began, ended, alerts in scenario.phases.values():
        seconds = int((ended - began + 1) * FASTER)
        for alert in alerts:
            fired = f'ALERTS{{alertstate="firing",alertname="{alert}"}}[{seconds}s]'
            expect(f"{group} (count_over_time({fired}))", ended + 1, [alert])
    series = list(recorded(scenario))
    assert len(series) > 100
    replay(tmp_path, series, tests)


# The runbook, with the trial's server of the scenario.


DRILL = "Drill: a compromised agent"


@pytest.fixture(scope="module")
def operator(scenario):
    """After one of each incident that an alert about agents tells of."""
    scenario.agents.edit_policy(max_delegation_depth=2)
    world = scenario.agents.world
    limit = "remit_policy_max_delegation_depth"
    wait_until(lambda: scenario.prometheus.query(f'{limit}{{instance="{scenario.agents.target}"}} == 2'), "it is in force")
    for cause in (scenario.go_too_deep, scenario.escalate, scenario.call_whom_one_may_not, scenario.use_twice):
        cause()
    scenario.take_anothers()
    _, parent = validator_token(world, delegatable=True)
    with pytest.raises(Refused):
        world[VALIDATOR].delegate(ANALYST, ["kubectl_get"], ["prod/web"], parent=parent.token)
    # The metric of the depth has five minutes' memory, the alert follows the policy.
    scenario.agents.edit_policy(max_delegation_depth=3)
    (scenario.folder / "policy.good").write_bytes(scenario.agents.remit.policy_file.read_bytes())
    if not shutil.which("openssl"):
        cannot("the runbook looks at certificates with openssl")
    return Operator(scenario.folder, TOKEN_ID=parent.token_id)


@contextlib.contextmanager
def stuck_log(server):
    """Its audit log can't be written: a folder stands in the file's place."""
    audit, aside = server.folder / "audit.jsonl", server.folder.parent / "audit.aside"

    def is_refused():
        try:
            return not deployer_token(server.world)
        except Refused as refusal:
            return refusal.reason == "AUDIT_UNAVAILABLE"

    audit.rename(aside)
    audit.mkdir()
    try:
        # Whether the file is still there is looked up once a second, when something is to be written.
        wait_until(is_refused, "the log is stuck")
        yield
    finally:
        audit.rmdir()
        aside.rename(audit)
        wait_until(lambda: not is_refused(), "it goes on")


@contextlib.contextmanager
def trouble(scenario, heading):
    """What happened when somebody opens the page here; a log is mended after the first look."""
    if heading == "Drill: a broken policy":
        scenario.agents.remit.policy_file.write_text('{"max_delegation_dept": 2}')
    if heading == "Drill: a compromised HMAC key":
        (scenario.folder / "old-token").write_text(deployer_token(scenario.agents.world).token)
    with stuck_log(scenario.agents) if heading == "Drill: the audit log is stuck" else contextlib.nullcontext():
        yield


@pytest.mark.parametrize("heading", [heading for heading in sections() if heading != DRILL])
def test_each_command_of_the_runbook_answers_as_shown(scenario, operator, heading):
    first, *others = sections()[heading]
    with trouble(scenario, heading):
        look(scenario, operator, *first)
    for block in others:
        look(scenario, operator, *block)


def look(scenario, operator, kind, text):
    if kind == "console":
        operator.run(text)
    else:
        assert kind == "promql"
        finds_data(scenario, text)


def finds_data(scenario, expression):
    found = scenario.prometheus.query_range(hurried_text(expression), scenario.start, scenario.end)
    assert any(value != "NaN" for series in found for _, value in series["values"]), expression


def test_the_drill_from_alert_to_reinstatement(scenario, operator):
    wait_until(lambda: not scenario.firing(), "all is calm", 20)
    began = time.time()
    scenario.run("drill", {"AgentCapabilityEscalation": scenario.escalate})
    (alert,) = scenario.fired["AgentCapabilityEscalation"]
    assert alert["labels"]["agent_id"] == DEPLOYER and alert["annotations"]["runbook_url"].startswith("docs/runbook.md#")
    token = deployer_token(scenario.agents.world, max_uses=1).token

    see, stop, check, find_out, reinstate = [text for _, text in sections()[DRILL]]
    operator.run(see)
    operator.run(stop)
    assert reason(scenario.agents.world[DEPLOYER].authorize("kubectl_get", "prod/web", token)) == "AGENT_QUARANTINED"
    wait_until(lambda: "AgentQuarantined" in scenario.firing(), "the quarantine shows", 10)
    operator.run(check)
    operator.run(find_out)
    operator.run(reinstate)
    assert reason(scenario.agents.world[DEPLOYER].authorize("kubectl_get", "prod/web", token)) == "TOKEN_REVOKED"
    wait_until(lambda: not scenario.firing(), "all is calm again", 20)
    assert time.time() - began < 60


# The dashboard.


def dashboard():
    return json.loads((SHIPPED.parent / "grafana/remit.json").read_text())


def queries():
    """(title, query) of each panel and annotation."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for annotation in dashboard()["annotations"]["list"]:
        if "expr" in annotation:
            yield annotation["name"], annotation["expr"]


def test_the_dashboard_is_one():
    board = dashboard()
    assert board["uid"] == "remit" and board["title"] and board["schemaVersion"] >= 39 and board["id"] is None
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource" and variables["datasource"]["query"] == "prometheus"
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    taken = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {
            (place["x"] + right, place["y"] + down) for right in range(place["w"]) for down in range(place["h"])
        }
        assert place["x"] + place["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] == "row":
            continue
        assert panel["title"] and panel["description"] and panel["fieldConfig"]["defaults"]["unit"], panel
        names = [target["refId"] for target in panel["targets"]]
        assert len(set(names)) == len(names) and all(target["legendFormat"] for target in panel["targets"]), panel
        for thing in (panel, *panel["targets"]):
            assert thing["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel
    used = set(re.findall(r"\$(?:\{)?(\w+)", json.dumps(board)))
    assert used <= {*variables, "__rate_interval", "__all"}, used


@pytest.mark.parametrize(("title", "query"), list(queries()))
def test_each_query_of_the_dashboard_finds_data(scenario, title, query):
    for variable, value in {"$__rate_interval": "2m", "$job": "remit", "$instance": ".*"}.items():
        query = query.replace(variable, value)
    # At some time it shows that something happened, and not only that nothing did.
    finds_data(scenario, f"({query}) != 0")
