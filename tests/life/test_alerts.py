"""The shipped alerts fire on real servers in trouble, and resolve when it is over; the dashboard's queries find data."""

import re

import pytest
import yaml
from alert_scenario import Scenario
from conftest import REPOSITORY
from prometheus_process import FASTER, RULES, SCRAPE_SECONDS, SHIPPED, promtool, shipped_alerts
from seed_policy import ANALYST, DEPLOYER, VALIDATOR

# By the mesh's metric: there is no Istio here. Its series below are as Istio documents them.
NOT_DRIVEN = {"istio_requests_total", "remit_store_", "remit_anomalies_", "remit_automatic_"}
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
    runbook = (REPOSITORY / "docs/runbook.md").read_text()
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
