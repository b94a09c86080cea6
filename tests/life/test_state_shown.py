"""How the state is stands in GetStatus, in the details of /readyz and in /metrics, and all three say the same."""

import contextlib
import json
import re
import time

import pytest
from cluster import RECOVERY, SERVE_AFTER
from conftest import cannot
from remit_client import Refused
from seed_policy import ANALYST, deployer_token
from stores import Store, missing
from waiting import wait_until


@pytest.fixture(params=["memory", "journal", "valkey"])
def shown(request, serve, folder, tmp_path):
    """The backend, a node that uses it, and its store if it has one."""
    how, store = {"REMIT_STATE_BACKEND": request.param}, None
    with contextlib.ExitStack() as stack:
        if request.param == "valkey":
            if why := missing():
                cannot(why)
            store = stack.enter_context(Store(tmp_path))
            how |= {"REMIT_STATE_URL": store.url, "REMIT_STATE_REPLICAS": "0"}
        world = serve(**how)
        wait_until(lambda: world.administrator().status().ready, "it is ready", SERVE_AFTER + RECOVERY)
        yield request.param, world, store


def detail(world):
    """The details of /readyz."""
    key = (world.remit.folder / "api_keys" / "ops-admin.key").read_text().strip()
    return json.loads(world.remit.http("/readyz", **{"x-api-key": key})[2])


def test_every_backend_says_what_it_is_how_much_it_has_and_what_waits(shown, folder):
    backend, world, _ = shown
    for _ in range(3):
        deployer_token(world)
    world["ops-admin"].revoke(agent=ANALYST, quarantine=True)
    status, page, samples = world.administrator().status(), detail(world), world.remit.metrics()
    assert status.state_backend == page["state_backend"] == backend
    assert samples[f'remit_state_info{{backend="{backend}"}}'] == samples["remit_state_well"] == 1
    assert (status.ready, page["ready"], page["not_ready"]) == (True, True, [])
    # How many changes are on their way to the disk: the mark is renewed each second.
    assert status.state_waiting <= 1 and page["state_waiting"] <= 1 and samples["remit_state_waiting"] <= 1
    assert status.state_failures == samples["remit_state_failures_total"] == 0
    assert status.fence.seconds == page["fence_seconds"] == int(samples["remit_fence_timestamp_seconds"])
    assert abs(status.fence.seconds - time.time()) < 60
    assert status.state_directory == str(folder / "state")
    assert (status.state_revision, status.quarantined_agents) == (status.state_revision or 1, 1)
    assert samples["remit_quarantined_agents"] == 1
    if backend == "valkey":
        assert page["ledger_entries"] is None and "remit_ledger_entries" not in samples
    else:
        assert status.ledger_entries == page["ledger_entries"] == samples["remit_ledger_entries"] == 3
        assert status.ledger_capacity == 2_000_000
        assert page["store"] is None and not status.HasField("store") and "remit_store_up" not in samples


@pytest.mark.parametrize("shown", ["valkey"], indirect=True)
def test_a_store_is_shown_with_its_epoch_its_settings_and_when_it_last_answered(shown):
    _, world, store = shown
    deployer_token(world)
    # The settings are looked at when it connects, and after so many polls.
    wait_until(lambda: world.administrator().status().store.settings, "they are looked at", 3)
    status, page, samples = world.administrator().status().store, detail(world)["store"], world.remit.metrics()
    assert (status.up, page["up"], samples["remit_store_up"]) == (True, True, 1)
    assert status.address == page["address"] == f"redis://127.0.0.1:{store.port}/0"
    assert status.epoch == page["epoch"] and re.fullmatch("[0-9a-f]{32}", status.epoch)
    assert status.epoch.encode() == store.call("HGET", "remit:{0}:epoch", "id")
    assert dict(status.settings) == page["settings"]
    wanted = {"maxmemory-policy": "noeviction", "min-replicas-to-write": "0", "min-replicas-max-lag": "2"}
    assert page["settings"] == wanted | {"repl-backlog-ttl": "0"} and samples["remit_store_wrong_settings"] == 0
    assert status.reconnects == page["reconnects"] == samples["remit_store_reconnects_total"] == 0
    assert status.epoch_changes == page["epoch_changes"] == samples["remit_store_epoch_changes_total"] == 0
    ages = [status.last_contact.ToTimedelta().total_seconds(), page["last_contact_seconds"]]
    ages += [status.copy_age.ToTimedelta().total_seconds(), page["copy_age_seconds"]]
    ages += [samples["remit_store_last_contact_seconds"], samples["remit_store_copy_age_seconds"]]
    assert all(0 <= age < 1 for age in ages), ages
    assert status.keys == page["keys"] == samples["remit_store_keys"]
    # And what is wrong, when it is.
    store.call("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    store.pause()
    wait_until(lambda: not detail(world)["ready"], "it is noticed", 3)
    page, samples = detail(world), world.remit.metrics()
    assert page["store"]["up"] is False and samples["remit_store_up"] == 0 and page["not_ready"]
    wait_until(lambda: detail(world)["store"]["last_contact_seconds"] > 1, "and since when", 3)
    store.go_on()
    with contextlib.suppress(Refused):
        wait_until(lambda: world.remit.metrics()["remit_store_wrong_settings"] == 1, "it is looked at again", 15)
    assert any("CONFIG SET maxmemory-policy noeviction" in text for text in detail(world)["attention"])
