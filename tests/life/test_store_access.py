"""Getting into a store and past its Sentinels: users, passwords, certificates; and what is said to who gets none."""

import contextlib
import re

import pytest
from certificates import Authority
from cluster import RECOVERY, SERVE_AFTER, node
from conftest import REPOSITORY, cannot
from remit_process import copy_folder
from seed_policy import ANALYST, DEPLOYER, VALIDATOR, deployer_token
from store_nodes import details, get, nodes, ready, settings
from stores import Sentinel, Store, Tls, missing, pem_files
from waiting import wait_until


@pytest.fixture(params=["redis", "valkey"])
def kind(request):
    if why := missing(request.param):
        cannot(why)
    return request.param


@pytest.fixture
def redis():
    if why := missing("redis"):
        cannot(why)


def password_file(folder, text="a long password"):
    path = folder / "store.password"
    path.write_text(f"{text}\n")
    path.chmod(0o600)
    return str(path)


def test_a_user_with_the_documented_rules_and_no_more_is_enough(template, tmp_path, kind):
    with Store(tmp_path, kind) as store:
        rules = re.search(r"ACL SETUSER remit (.+)", documented())[1].split()
        rules = [rule.replace("PASSWORD", "a long password") for rule in rules]
        store.call("ACL", "SETUSER", "remit", "reset", *rules)
        store.call("ACL", "SETUSER", "remit", ">a long password")
        how = {"REMIT_STATE_USERNAME": "remit", "REMIT_STATE_PASSWORD_FILE": password_file(tmp_path)}
        with nodes(template, tmp_path, store, **how) as (world,):
            made = deployer_token(world, max_uses=2, delegatable=True)
            assert get(world, made.token) == "ALLOWED"
            world[DEPLOYER].delegate(VALIDATOR, ["kubectl_get"], ["prod/web"], parent=made.token)
            world["ops-admin"].introspect(token_id=made.token_id)
            world["ops-admin"].revoke(token_id="cd" * 16)
            world["ops-admin"].revoke(agent=ANALYST, quarantine=True)
            world["ops-admin"].reinstate(ANALYST)
            world["ops-admin"].revoke(all=True)
            assert details(world) == "" or "can't be read" not in details(world)
            denied = [entry for entry in store.call("ACL", "LOG")]
            assert denied == []
            # Each rule is needed: without the one for INFO no script can tell which epoch this is.
            store.call("ACL", "SETUSER", "remit", "-info")
            wait_until(lambda: not ready(world), "it is refused", 2)
            assert "+info" in details(world)
            store.call("ACL", "SETUSER", "remit", "+info", "-config|get")
            wait_until(lambda: ready(world), "it goes on", RECOVERY)


def documented():
    return (REPOSITORY / "docs/operations.md").read_text()


def test_a_wrong_password_is_said_and_shown_nowhere(template, tmp_path, redis):
    with Store(tmp_path, password="the right password") as store:
        how = {"REMIT_STATE_PASSWORD_FILE": password_file(tmp_path, "the wrong password")}
        with contextlib.ExitStack() as stack:
            world = node(stack, copy_folder(template, tmp_path / "node"), settings(store, **how))
            wait_until(lambda: "refuses the user" in details(world), "it is said", 3)
            assert not ready(world)
            password_file(tmp_path, "the right password")
            wait_until(lambda: ready(world), "the file is read again", SERVE_AFTER + RECOVERY)
            assert get(world, deployer_token(world).token) == "ALLOWED"
            written = world.remit.log() + "".join(world.remit.audit_lines()) + world.remit.http("/metrics")[2]
            assert "the right password" not in written and "the wrong password" not in written


def test_the_store_is_asked_over_tls_and_has_to_be_the_right_one(template, tmp_path, kind):
    ours, others = (tmp_path / name for name in ("ours", "others"))
    ours.mkdir()
    others.mkdir()
    tls = Tls(ours, Authority.new())
    strangers = Tls(others, Authority.new())
    with Store(tmp_path, kind, tls=tls) as store:
        with nodes(template, tmp_path, store, REMIT_STATE_CA=str(tls.ca)) as (world,):
            assert get(world, deployer_token(world).token) == "ALLOWED"
            assert world.administrator().status().store.address.startswith("rediss://")
        with contextlib.ExitStack() as stack:
            how = settings(store, REMIT_STATE_CA=str(strangers.ca))
            world = node(stack, copy_folder(template, tmp_path / "stranger"), how)
            wait_until(lambda: "can't be reached" in details(world), "it is said", 3)
            assert not ready(world)


# Client certificates.


def shown(tls, pair=None):
    """The settings of a node that shows this certificate, by default a good one."""
    certificate, key = pair or tls.client
    files = {"CA": tls.ca, "CERTIFICATE": certificate, "KEY": key}
    return {f"REMIT_STATE_{name}": str(file) for name, file in files.items()}


@contextlib.contextmanager
def one_node(template, folder, how):
    """A node, whether it ever gets into the store or not."""
    with contextlib.ExitStack() as stack:
        yield node(stack, copy_folder(template, folder), how)


def says(world, *words):
    """That status and readiness name the trouble in these words, and nothing is answered."""
    wait_until(lambda: all(word in details(world) for word in words), f"{words} in {details(world)}", 5)
    assert not ready(world)


def test_a_store_that_asks_for_certificates_is_shown_one(template, tmp_path, kind):
    authority = Authority.new()
    tls = Tls(tmp_path, authority, asks_clients=True)
    with Store(tmp_path, kind, tls=tls) as store:
        pair = pem_files(tmp_path, "node", authority.client(common_name="node"))
        with nodes(template, tmp_path, store, **shown(tls, pair)) as (world,):
            assert get(world, deployer_token(world).token) == "ALLOWED"
            # Another takes its place: read for the next connection, and the old one is of no more use.
            pem_files(tmp_path, "node", authority.client(common_name="the next"))
            store.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            wait_until(lambda: world.remit.metrics()["remit_store_reconnects_total"] >= 1, "it connects again", 5)
            wait_until(lambda: ready(world), "it goes on", RECOVERY)
            assert get(world, deployer_token(world).token) == "ALLOWED"
            # One that can't be used is said, and the next good one is taken.
            key = pair[1].read_bytes()
            pair[1].write_bytes(authority.client(common_name="other").key)
            store.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            says(world, "belongs to another certificate", str(pair[1]))
            pair[1].write_bytes(key)
            wait_until(lambda: ready(world), "it goes on", RECOVERY)


def test_who_shows_no_certificate_or_a_wrong_one_is_told_what_to_write(template, tmp_path, kind):
    ours, others = tmp_path / "ours", tmp_path / "others"
    ours.mkdir()
    others.mkdir()
    tls, strangers = Tls(ours, Authority.new(), asks_clients=True), Tls(others, Authority.new("strangers"))
    with Store(tmp_path, kind, tls=tls) as store:
        how = settings(store, REMIT_STATE_CA=str(tls.ca))
        with one_node(template, tmp_path / "none", how) as world:
            says(world, "can't be reached", "write [state] certificate and key")
        with one_node(template, tmp_path / "wrong", settings(store, **shown(tls, strangers.client))) as world:
            says(world, "can't be reached", "does not take the certificate")
        with one_node(template, tmp_path / "misled", settings(store, **shown(strangers, tls.client))) as world:
            says(world, "can't be reached", "[state] ca")
    with Store(tmp_path, kind) as plain:
        url = f"rediss://localhost:{plain.port}"
        with one_node(template, tmp_path / "plain", settings(plain, **shown(tls)) | {"REMIT_STATE_URL": url}) as world:
            says(world, "can't be reached", "redis://")


def refuses_to_start(template, folder, how, *words):
    with pytest.raises(AssertionError, match="it ended with 2") as seen:
        with one_node(template, folder, how):
            pass
    assert all(word in str(seen.value) for word in words), seen.value


def test_files_that_cant_be_used_are_said_at_the_start(template, tmp_path, redis):
    tls = Tls(tmp_path, Authority.new())
    how = {"REMIT_STATE_BACKEND": "valkey", "REMIT_STATE_URL": "rediss://localhost:1", "REMIT_STATE_REPLICAS": "0"}
    certificate, key = tls.client
    key.chmod(0o644)
    refuses_to_start(template, tmp_path / "open", how | shown(tls), str(key), "everyone may read", "chmod")
    key.chmod(0o600)
    refuses_to_start(
        template, tmp_path / "other", how | shown(tls, (certificate, tls.key)), "belongs to another certificate"
    )
    refuses_to_start(template, tmp_path / "gone", how | {"REMIT_STATE_CA": str(tmp_path / "no.pem")}, "can't be read")
    password = tmp_path / "password"
    password.write_text("a long password")
    password.chmod(0o644)
    wrong = how | {"REMIT_STATE_PASSWORD_FILE": str(password)}
    refuses_to_start(template, tmp_path / "password-open", wrong, "[state] password_file", str(password))


# Sentinels.


USER = "user remit on >{} +sentinel|get-master-addr-by-name"


def behind(sentinel, **more):
    """The settings of a node that asks this Sentinel. A primary without replicas, which no quarantine is put into."""
    scheme, host = ("rediss", "localhost") if sentinel.tls else ("redis", "127.0.0.1")
    how = {
        "REMIT_STATE_BACKEND": "valkey",
        "REMIT_STATE_SENTINELS": f"{scheme}://{host}:{sentinel.port}",
        "REMIT_STATE_SENTINEL_SERVICE": sentinel.name,
        "REMIT_STATE_REPLICAS": "1",
    }
    return how | more


def secret(folder, name, text):
    path = folder / name
    path.write_text(f"{text}\n")
    path.chmod(0o600)
    return str(path)


def shows_no_secret(world, *secrets):
    log, metrics = world.remit.log(), world.remit.http("/metrics")[2]
    written = log + "".join(world.remit.audit_lines()) + metrics + details(world)
    assert not [word for word in secrets if word in written]


def test_sentinels_have_a_user_and_a_password_of_their_own(template, tmp_path, kind):
    with Store(tmp_path, kind, password="storekeepers") as store:
        sentinel = Sentinel(tmp_path, store, kind, quorum=1, password="watchers", more=[USER.format("askers")])
        own = secret(tmp_path, "sentinel.password", "askers")
        how = behind(
            sentinel,
            REMIT_STATE_PASSWORD_FILE=secret(tmp_path, "store.password", "storekeepers"),
            REMIT_STATE_SENTINEL_USERNAME="remit",
            REMIT_STATE_SENTINEL_PASSWORD_FILE=own,
        )
        with sentinel, one_node(template, tmp_path / "node", how) as world:
            wait_until(lambda: ready(world), f"it is ready: {details(world)}", SERVE_AFTER + RECOVERY)
            assert world.administrator().status().store.address == f"redis://127.0.0.1:{store.port}/0"
            assert sentinel.call("ACL", "LOG") == [], "the documented rule is enough"
            secret(tmp_path, "sentinel.password", "no longer")
            store.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            says(world, f"the Sentinel redis://127.0.0.1:{sentinel.port}", "refuses the user", "sentinel_password_file")
            secret(tmp_path, "sentinel.password", "askers")
            wait_until(lambda: ready(world), "the file is read again", RECOVERY)
            shows_no_secret(world, "askers", "no longer", "storekeepers")
        missing_one = {name: value for name, value in how.items() if "SENTINEL_PASSWORD" not in name and "USERNAME" not in name}
        with sentinel, one_node(template, tmp_path / "nobody", missing_one) as world:
            says(world, "refuses the user", "sentinel_username and sentinel_password_file")


def test_sentinels_are_asked_over_tls_with_a_certificate(template, tmp_path, kind):
    tls = Tls(tmp_path, Authority.new(), asks_clients=True)
    with Store(tmp_path, kind, tls=tls) as store:
        with Sentinel(tmp_path, store, kind, quorum=1, tls=tls) as sentinel:
            with one_node(template, tmp_path / "node", behind(sentinel, **shown(tls))) as world:
                wait_until(lambda: ready(world), f"it is ready: {details(world)}", SERVE_AFTER + RECOVERY)
                assert world.administrator().status().store.address == f"rediss://127.0.0.1:{store.port}/0"
                assert get(world, deployer_token(world).token) == "ALLOWED"
            with one_node(template, tmp_path / "none", behind(sentinel, REMIT_STATE_CA=str(tls.ca))) as world:
                says(world, "the Sentinel rediss://", "write [state] certificate and key")
            with one_node(template, tmp_path / "misled", behind(sentinel)) as world:
                says(world, "the Sentinel rediss://", "[state] ca")
