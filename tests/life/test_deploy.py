"""What deploy/ ships: manifests by their schemas, the chart by Helm, configuration and policy by the program itself."""

import json
import re
import shutil
import ssl
import subprocess
import tomllib
import urllib.request

import kubernetes_validate
import pytest
import yaml
from conftest import REPOSITORY, cannot
from remit_process import Remit
from test_cli import remit

DEPLOY = REPOSITORY / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
CHART = DEPLOY / "helm/remit"
VERSIONS = ["1.29", "1.37"]
NODE_FOLDER = REPOSITORY / ".cache/npm"
ISTIO = DEPLOY / "istio"
PATCHES = {"deployment-patch.yaml", "config-patch.yaml", "claim-patch.yaml"}
NOT_OBJECTS = PATCHES | {"kustomization.yaml"}
# By Helm, with the state in a store.
WITH_STORE = {
    "state": {"backend": "valkey", "valkey": {"url": "rediss://valkey.valkey.svc:6379", "username": "remit"}},
}


def objects(text):
    return [document for document in yaml.safe_load_all(text) if document]


def shipped():
    files = [path for path in sorted(KUBERNETES.rglob("*.yaml")) if path.name not in NOT_OBJECTS]
    return [item for path in files for item in objects(path.read_text())]


def one(items, kind, name):
    (found,) = [item for item in items if item["kind"] == kind and item["metadata"]["name"] == name]
    return found


def is_custom(item):
    return item["apiVersion"].startswith(("cert-manager.io/", "security.istio.io/", "networking.istio.io/"))


def schemas_say(items):
    """What the schemas of cert-manager and Istio say of each; an empty text is no complaint."""
    if not shutil.which("node") or not (NODE_FOLDER / "node_modules/@kubernetes-models/istio").is_dir():
        cannot("the schemas of cert-manager and Istio need node and npm")
    # Packages are looked for beside the script, so it runs from beside them.
    script = NODE_FOLDER / "schemas.mjs"
    shutil.copy(REPOSITORY / "tests/life/schemas.mjs", script)
    ran = subprocess.run(["node", script], input=json.dumps(items), capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def are_valid(items):
    plain = [item for item in items if not is_custom(item)]
    custom = [item for item in items if is_custom(item)]
    for version in VERSIONS:
        for item in plain:
            kubernetes_validate.validate(item, version, strict=True)
    for item, complaint in zip(custom, schemas_say(custom), strict=True):
        assert not complaint, f"{item['kind']} {item['metadata']['name']}: {complaint}"


def test_the_manifests_fit_their_schemas():
    items = shipped()
    assert {item["kind"] for item in items} >= {"Deployment", "NetworkPolicy", "Certificate", "ClusterIssuer"}
    are_valid(items)
    # One process counts here: these are for the overlay with a store alone.
    base = [item for path in KUBERNETES.glob("*.yaml") if path.name not in NOT_OBJECTS for item in objects(path.read_text())]
    assert not {item["kind"] for item in base} & {"PodDisruptionBudget", "HorizontalPodAutoscaler"}


def test_the_schemas_would_complain():
    wrong = one(shipped(), "Certificate", "remit")
    wrong["spec"]["renewBeefore"] = wrong["spec"].pop("secretName")
    assert schemas_say([wrong])[0]
    deployment = one(shipped(), "Deployment", "remit")
    deployment["spec"]["replica"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, VERSIONS[-1], strict=True)


def test_every_manifest_stands_in_the_kustomization():
    for folder in (KUBERNETES, KUBERNETES / "vault-agent", KUBERNETES / "valkey"):
        kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
        named = set(kustomization["resources"]) | {patch["path"] for patch in kustomization.get("patches", [])}
        there = {path.name for path in folder.glob("*.yaml") if "example" not in path.name}
        assert named - {".."} == there - {"kustomization.yaml"}


def merged(old, new):
    """With a patch: lists by the `name` of their items, as Kubernetes merges those that are patched here."""
    if isinstance(old, dict) and isinstance(new, dict):
        both = old | {key: merged(old.get(key), value) for key, value in new.items()}
        return {key: value for key, value in both.items() if value is not None}
    if isinstance(old, list) and isinstance(new, list) and all("name" in item for item in old + new):
        names = {item["name"]: item for item in new}
        kept = [merged(item, names.pop(item["name"], {})) for item in old]
        return kept + list(names.values())
    return new


def overlaid(name):
    """All objects of an overlay, as its kustomization makes them."""
    folder = KUBERNETES / name
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    base = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["resources"]
    files = [KUBERNETES / file for file in base]
    files += [folder / file for file in kustomization["resources"] if file != ".."]
    items = [item for path in files for item in objects(path.read_text())]
    for patch in kustomization["patches"]:
        [change] = objects((folder / patch["path"]).read_text())
        target = one(items, change["kind"], change["metadata"]["name"])
        items.remove(target)
        if change.pop("$patch", None) != "delete":
            items.append(merged(target, change))
    return items


def test_the_key_from_vault_is_a_good_patch():
    items = overlaid("vault-agent")
    are_valid(items)
    deployment = one(items, "Deployment", "remit")
    is_closed(deployment["spec"]["template"]["spec"])
    volumes = {volume["name"]: volume for volume in deployment["spec"]["template"]["spec"]["volumes"]}
    assert set(volumes["key"]) == {"name", "emptyDir"} and volumes["key"]["emptyDir"]["medium"] == "Memory"


def test_with_a_store_there_are_several_replicas():
    items = overlaid("valkey")
    are_valid(items)
    assert not [item for item in items if item["kind"] == "PersistentVolumeClaim"]
    deployment = one(items, "Deployment", "remit")
    # The autoscaler says how many.
    assert "replicas" not in deployment["spec"] and deployment["spec"]["strategy"]["type"] == "RollingUpdate"
    pod = deployment["spec"]["template"]["spec"]
    is_closed(pod, {"store"})
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    # What is in it is the pod's own: two processes of one directory refuse to start.
    assert set(volumes["state"]) == {"name", "emptyDir"}
    assert volumes["store"]["secret"]["defaultMode"] == 0o440
    scaler, budget = one(items, "HorizontalPodAutoscaler", "remit"), one(items, "PodDisruptionBudget", "remit")
    assert scaler["spec"]["scaleTargetRef"]["name"] == "remit" and scaler["spec"]["minReplicas"] > 1
    assert budget["spec"]["selector"] == deployment["spec"]["selector"]


def test_the_sidecars_are_closed_and_find_their_files():
    items = objects((KUBERNETES / "sidecar/orders.example.yaml").read_text())
    pod = one(items, "Deployment", "orders")["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False and pod["securityContext"]["runAsNonRoot"]
    for container in pod["containers"] + pod["initContainers"]:
        assert container["securityContext"]["readOnlyRootFilesystem"], container["name"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}, container["name"]
    assert all(container["restartPolicy"] == "Always" for container in pod["initContainers"])
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    there = {item["path"] for item in volumes["tls"]["secret"]["items"]}
    named = set(re.findall(r"filename: (\S+) }", (DEPLOY / "envoy/envoy.yaml").read_text()))
    assert named == there, "Envoy's configuration names certificates from its working directory"
    config = tomllib.loads(one(items, "ConfigMap", "orders-remit")["data"]["remit.toml"])
    assert {config["tls"][key] for key in ("certificate", "key", "client_ca")} <= {f"/etc/remit/tls/{file}" for file in there}
    assert config["grpc"]["listen"].startswith("127.0.0.1:"), "it answers its own pod"
    assert config["policy"]["enforcement_points"] == ["orders"]


def is_closed(pod, more=frozenset()):
    assert pod["automountServiceAccountToken"] is False
    own = pod["securityContext"]
    assert own["runAsNonRoot"] and own["runAsUser"] and own["seccompProfile"] == {"type": "RuntimeDefault"}
    mounts = {mount["name"]: mount for mount in pod["containers"][0]["volumeMounts"]}
    for container in pod["containers"] + pod.get("initContainers", []):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert not any("subPath" in mount for mount in container["volumeMounts"])
    assert set(mounts) == {"config", "policy", "tls", "key", "state"} | more
    assert all(mount.get("readOnly") for name, mount in mounts.items() if name != "state")


def counts_in_one_place(deployment):
    assert deployment["spec"]["replicas"] == 1 and deployment["spec"]["strategy"] == {"type": "Recreate"}


def test_the_deployment_is_closed_and_alone():
    deployment = one(shipped(), "Deployment", "remit")
    counts_in_one_place(deployment)
    is_closed(deployment["spec"]["template"]["spec"])
    # No rights in the cluster, and no key in the repository.
    assert not {item["kind"] for item in shipped()} & {"Role", "ClusterRole", "RoleBinding", "Secret"}


def test_files_of_secrets_are_closed_as_the_program_wants_them():
    volumes = one(shipped(), "Deployment", "remit")["spec"]["template"]["spec"]["volumes"]
    modes = {volume["name"]: volume["secret"]["defaultMode"] for volume in volumes if "secret" in volume}
    assert modes == {"tls": 0o440, "key": 0o440}


def configurations():
    yield "kubernetes", one(shipped(), "ConfigMap", "remit-config")["data"]["remit.toml"]
    yield "systemd", (DEPLOY / "systemd/remit.toml").read_text()
    extra = '[[ext_authz.rules]]\npath = "/mcp"\nrpc = ["tools/call"]\ncapability = "{tool}"\nresource = "mcp:x"'
    more = {"extraConfig": extra, "state": {"backend": "journal"}, "administrators": ["a", "b"]}
    yield "helm", one(rendered(), "ConfigMap", "remit-config")["data"]["remit.toml"]
    yield "helm, with more", one(rendered(more), "ConfigMap", "remit-config")["data"]["remit.toml"]


def configurations_with_a_store():
    yield "valkey", one(overlaid("valkey"), "ConfigMap", "remit-config")["data"]["remit.toml"]
    sidecar = objects((KUBERNETES / "sidecar/orders.example.yaml").read_text())
    yield "sidecar", one(sidecar, "ConfigMap", "orders-remit")["data"]["remit.toml"]
    yield "helm", one(rendered(WITH_STORE), "ConfigMap", "remit-config")["data"]["remit.toml"]
    known = {"sentinels": ["rediss://a:26379", "rediss://b:26379"], "sentinelService": "remit"}
    sentinels = {"backend": "valkey", "valkey": known}
    yield "helm, sentinels", one(rendered({"state": sentinels}), "ConfigMap", "remit-config")["data"]["remit.toml"]
    closed = {"sentinelUsername": "remit", "sentinelPassword": True, "clientCertificate": True}
    sentinels = {"backend": "valkey", "valkey": known | closed}
    text = one(rendered({"state": sentinels}), "ConfigMap", "remit-config")["data"]["remit.toml"]
    state = tomllib.loads(text)["state"]
    assert {"sentinel_username", "sentinel_password_file", "certificate", "key"} <= set(state), state
    yield "helm, sentinels that ask who it is", text


def test_the_program_takes_every_shipped_configuration_with_a_store(tmp_path):
    for name, text in configurations_with_a_store():
        assert tomllib.loads(text)["state"]["backend"] == "valkey"
        (tmp_path / "remit.toml").write_text(text)
        ran = remit("serve", "--config", tmp_path / "remit.toml", "--print-config", cwd=tmp_path)
        assert ran.returncode == 0 and "warning" not in ran.stderr, f"{name}: {ran.stderr}"


def test_the_program_takes_every_shipped_configuration(tmp_path):
    for name, text in configurations():
        (tmp_path / "remit.toml").write_text(text)
        ran = remit("serve", "--config", tmp_path / "remit.toml", "--print-config", cwd=tmp_path)
        assert ran.returncode == 0 and "warning" not in ran.stderr, f"{name}: {ran.stderr}"


def test_the_program_takes_every_shipped_policy(tmp_path):
    policies = [
        one(shipped(), "ConfigMap", "agent-delegation-policy")["data"]["policy.json"],
        one(rendered(), "ConfigMap", "remit-policy")["data"]["policy.json"],
        one(rendered({"policy": '{"quarantined": []}'}), "ConfigMap", "remit-policy")["data"]["policy.json"],
    ]
    for text in policies:
        (tmp_path / "policy.json").write_text(text)
        ran = remit("policy", "check", tmp_path / "policy.json")
        assert ran.returncode == 0, ran.stderr
    example = json.loads((REPOSITORY / "examples/policy.json").read_text())
    assert [json.loads(text) for text in policies[:2]] == [example, example]


def test_the_probes_get_their_answer(folder):
    """The shipped configuration served, with only its paths changed to where the test has the files."""
    text = one(shipped(), "ConfigMap", "remit-config")["data"]["remit.toml"]
    moved = {"tls/tls.crt": "server.pem", "tls/tls.key": "server.key", "tls/ca.crt": "ca.pem"}
    moved |= {"policy/policy.json": "policy.json", "key/hmac.key": "hmac.key"}
    for there, here in moved.items():
        text = text.replace(f"/etc/remit/{there}", here)
    (folder / "remit.toml").write_text(text.replace("/var/lib/remit/state", "state"))
    container = one(shipped(), "Deployment", "remit")["spec"]["template"]["spec"]["containers"][0]
    # As the kubelet does, which verifies nothing and shows no certificate.
    context = ssl._create_unverified_context()
    with Remit(folder, is_dev=False) as server:
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            get = container[probe]["httpGet"]
            url = f"{get['scheme'].lower()}://127.0.0.1:{server.ports['http']}{get['path']}"
            with urllib.request.urlopen(url, context=context, timeout=5) as answer:
                assert answer.status == 200
        assert server.stop() == 0


# Helm


def rendered(values=None, name="remit", namespace="remit"):
    helm = pytest.importorskip("helm_python")
    with helm.Chart.load(str(CHART)) as chart:
        files = chart.render(values, name=name, namespace=namespace)
    return [item for path, text in sorted(files.items()) if path.endswith(".yaml") for item in objects(text)]


def test_the_chart_has_nothing_that_lint_names():
    helm = pytest.importorskip("helm_python")
    for values in ({}, {"state": {"backend": "journal"}, "ca": {"create": True}}, WITH_STORE):
        report = helm.lint(str(CHART), values, strict=True)
        assert not report["errors"] and all(message["severity"] < 2 for message in report["messages"]), report


def test_the_chart_renders_what_fits_the_schemas():
    are_valid(rendered())
    are_valid(rendered({"state": {"backend": "journal", "storageClassName": "fast"}}, "x", "elsewhere"))
    are_valid(rendered(WITH_STORE, "x", "elsewhere"))
    kinds = {item["kind"] for item in rendered({"networkPolicy": {"enabled": False}, "tls": {"certificate": False}})}
    assert not kinds & {"NetworkPolicy", "Certificate", "ClusterIssuer", "Namespace", "PodDisruptionBudget"}


def test_the_chart_makes_authority_and_namespace_where_it_is_asked_to():
    ours, chart = shipped(), rendered({"ca": {"create": True}, "namespace": {"create": True}})
    are_valid(chart)
    wanted = [("ClusterIssuer", "agent-ca-root"), ("ClusterIssuer", "agent-ca-issuer"), ("Certificate", "agent-ca")]
    for kind, name in [*wanted, ("Namespace", "remit")]:
        assert one(chart, kind, name) == one(ours, kind, name)


def test_the_chart_with_a_store_is_the_same_as_the_overlay():
    ours, chart = overlaid("valkey"), rendered(WITH_STORE)
    for kind in ("PodDisruptionBudget", "HorizontalPodAutoscaler", "Service"):
        assert one(chart, kind, "remit")["spec"] == one(ours, kind, "remit")["spec"], kind
    configs = [one(items, "ConfigMap", "remit-config")["data"]["remit.toml"] for items in (chart, ours)]
    assert tomllib.loads(configs[0]) == tomllib.loads(configs[1])
    deployment, wanted = one(chart, "Deployment", "remit")["spec"], one(ours, "Deployment", "remit")["spec"]
    assert comparable(deployment) == wanted
    assert not [item for item in chart if item["kind"] == "PersistentVolumeClaim"]


def test_the_chart_is_the_same_as_the_manifests():
    ours, chart = shipped(), rendered()
    for kind in ("NetworkPolicy", "Service", "Certificate", "PersistentVolumeClaim"):
        name = "remit-state" if kind == "PersistentVolumeClaim" else "remit"
        assert one(chart, kind, name)["spec"] == one(ours, kind, name)["spec"], kind
    config = one(ours, "ConfigMap", "remit-config")["data"]["remit.toml"]
    assert one(chart, "ConfigMap", "remit-config")["data"]["remit.toml"].split() == config.split()
    deployment, wanted = one(chart, "Deployment", "remit")["spec"], one(ours, "Deployment", "remit")["spec"]
    assert comparable(deployment) == wanted


def comparable(deployment):
    """The chart's Deployment without what a chart has more."""
    pod = deployment["template"]["spec"]
    pod["containers"][0].pop("imagePullPolicy")
    deployment["template"]["metadata"].pop("annotations")
    for volume in pod["volumes"]:
        if volume["name"] == "policy":
            volume["configMap"]["name"] = "agent-delegation-policy"
    return deployment


def test_the_chart_refuses_values_that_nobody_reads():
    helm = pytest.importorskip("helm_python")
    report = helm.lint(str(CHART), {"replicas": 3})
    assert any("replicas" in message["error"] for message in report["messages"]), report
    # A store that is nowhere, and an alias of one.
    for valkey in ({}, {"url": "redis-valkey:6379"}, {"sentinels": ["rediss://a:26379"]}, {"sentinels": ["a:26379"], "sentinelService": "remit"}):
        assert helm.lint(str(CHART), {"state": {"backend": "valkey", "valkey": valkey}})["errors"], valkey


# systemd


def test_the_unit_is_one_and_closed(tmp_path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("there is no systemd-analyze here")
    unit = tmp_path / "remit.service"
    # The program itself is not installed here.
    unit.write_text((DEPLOY / "systemd/remit.service").read_text().replace("/usr/bin/remit", "/bin/true"))
    ran = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0 and "remit.service" not in ran.stderr, ran.stderr
    rated = ["systemd-analyze", "security", "--offline=yes", "--threshold=15", unit]
    ran = subprocess.run(rated, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stdout


# Istio


def test_what_is_exported_for_istio_fits_its_schema(tmp_path):
    rules = [
        {"from": "*", "to": "agent-validator", "methods": ["POST"], "paths": ["/v1/*"]},
        {"from": "agent-coordinator", "to": "*"},
    ]
    (tmp_path / "policy.json").write_text(json.dumps({"communication_rules": rules}))
    out = remit("policy", "export-istio", "policy.json", "--namespace", "agents", "--provider", "pdp", cwd=tmp_path)
    assert out.returncode == 0 and not out.stderr, out.stderr
    items = objects(out.stdout)
    assert len(items) == 5 and {item["metadata"]["namespace"] for item in items} == {"agents"}
    are_valid(items)
    back = remit("policy", "import-istio", "-", "--provider", "pdp", cwd=tmp_path, stdin=out.stdout)
    assert back.returncode == 0 and not back.stderr, back.stderr
    by_called = lambda rule: rule["to"]  # noqa: E731
    assert sorted(json.loads(back.stdout)["communication_rules"], key=by_called) == sorted(rules, key=by_called)


def test_what_istio_cannot_say_ends_with_1(tmp_path):
    (tmp_path / "policy.json").write_text('{"communication_rules": [{"from": "user:x", "to": "*"}]}')
    out = remit("policy", "export-istio", "policy.json", cwd=tmp_path)
    assert out.returncode == 1 and "user:x has no SPIFFE ID" in out.stderr
    names = {item["metadata"]["name"] for item in objects(out.stdout)}
    assert names == {"remit-ask", "remit-strict", "remit-deny-by-default"}


def in_the_mesh():
    """What stands in a cluster whose sidecars ask Remit."""
    return [*(ISTIO / file for file in ("mesh.yaml", "service.yaml", "strict.yaml", "ask.yaml")), *sorted(KUBERNETES.glob("*.yaml"))]


def test_istios_objects_fit_their_schema_and_each_other():
    files = [path for path in sorted(ISTIO.glob("*.yaml")) if path.name != "mesh.yaml"]
    items = [item for path in files for item in objects(path.read_text())]
    are_valid(items)
    [provider] = yaml.safe_load((ISTIO / "mesh.yaml").read_text())["extensionProviders"]
    asked = provider["envoyExtAuthzGrpc"]
    service, rule = one(items, "Service", "remit-authz"), one(items, "DestinationRule", "remit-authz")
    assert rule["spec"]["host"] == asked["service"] == "remit-authz.remit.svc.cluster.local"
    assert [port["port"] for port in service["spec"]["ports"]] == [asked["port"]]
    deployment = one(shipped(), "Deployment", "remit")
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"]
    names = one(shipped(), "Certificate", "remit")["spec"]["dnsNames"]
    assert set(rule["spec"]["trafficPolicy"]["tls"]["subjectAltNames"]) <= set(names)
    assert one(items, "AuthorizationPolicy", "remit-ask")["spec"]["provider"]["name"] == provider["name"]
    # The certificate is where the rule looks for it.
    marks = one(items, "Deployment", "orders")["spec"]["template"]["metadata"]["annotations"]
    [mount] = json.loads(marks["sidecar.istio.io/userVolumeMount"])
    [volume] = json.loads(marks["sidecar.istio.io/userVolume"])
    assert rule["spec"]["trafficPolicy"]["tls"]["clientCertificate"] == mount["mountPath"] + "/tls.crt"
    assert volume["secret"]["secretName"] == one(items, "Certificate", "orders-identity")["spec"]["secretName"]


def test_the_mesh_has_no_hole(tmp_path):
    ran = remit("doctor", "--envoy", *in_the_mesh())
    assert (ran.returncode, ran.stdout) == (0, "nothing found\n"), ran.stdout
    # Nor has it with what the policy's own objects say in place of ask.yaml and strict.yaml.
    (tmp_path / "policy.json").write_text(json.dumps({"communication_rules": [{"from": "a", "to": "b"}]}))
    (tmp_path / "out.yaml").write_text(remit("policy", "export-istio", "policy.json", cwd=tmp_path).stdout)
    others = [path for path in in_the_mesh() if path.name not in ("ask.yaml", "strict.yaml")]
    ran = remit("doctor", "--envoy", *others, tmp_path / "out.yaml")
    assert (ran.returncode, ran.stdout) == (0, "nothing found\n"), ran.stdout
    # What is left out is missed.
    for missing in ("service.yaml", "strict.yaml"):
        ran = remit("doctor", "--envoy", *(path for path in in_the_mesh() if path.name != missing))
        assert ran.stdout != "nothing found\n", missing
