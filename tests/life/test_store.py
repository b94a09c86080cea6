"""`state.backend = "valkey"`: three nodes on one real store, and what an operator gets wrong about it."""

import contextlib
import json
import re
import threading
import time

import grpc
import pytest
from cluster import RECOVERY, SERVE_AFTER, node
from conftest import REPOSITORY, cannot
from remit_client import Refused, reason, refused
from remit_process import copy_folder
from seed_policy import ANALYST, COORDINATOR, DEPLOYER, VALIDATOR, deployer_token
from store_nodes import details, foreign, get, hears, listing, nodes, pairs, ready, rewrite_policy, settings, stored
from stores import Store, missing
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


# Uses.


def test_three_nodes_count_the_uses_of_one_token_together(template, tmp_path, kind):
    with Store(tmp_path, kind) as store, nodes(template, tmp_path, store, 3) as worlds:
        token = deployer_token(worlds[0], max_uses=3, delegatable=True).token
        made = worlds[1][DEPLOYER].delegate(VALIDATOR, ["kubectl_get"], ["prod/web"], parent=token)
        assert made.parent_remaining_uses == 2
        assert [get(world, token) for world in worlds] == ["ALLOWED", "ALLOWED", "TOKEN_USES_EXHAUSTED"]
        assert get(worlds[2], made.token, VALIDATOR) == "ALLOWED"
        assert get(worlds[0], made.token, VALIDATOR) == "TOKEN_USES_EXHAUSTED"
        with refused("TOKEN_USES_EXHAUSTED"):
            worlds[0][DEPLOYER].delegate(VALIDATOR, ["kubectl_get"], ["prod/web"], parent=token)


def test_looking_spends_nothing(template, tmp_path, redis):
    with Store(tmp_path) as store, nodes(template, tmp_path, store, 2) as (one, other):
        made = deployer_token(one, max_uses=2, delegatable=True)
        child = other[DEPLOYER].delegate(VALIDATOR, ["kubectl_get"], ["prod/web"], parent=made.token)
        for _ in range(2):
            assert reason(other[DEPLOYER].authorize("kubectl_get", "prod/web", made.token, dry_run=True)) == "ALLOWED"
            seen = other[DEPLOYER].introspect(token=made.token)
            assert (seen.active, seen.remaining_uses) == (True, 1)
        seen = one["ops-admin"].introspect(token_id=child.token_id)
        assert (seen.active, seen.remaining_uses) == (True, 1)
        assert list(seen.delegation_chain) == [COORDINATOR, DEPLOYER, VALIDATOR]
        assert set(seen.root_capabilities) >= {"kubectl_get"}


@contextlib.contextmanager
def asked(store):
    """What the store is asked meanwhile, a line a command: `time [database client] "COMMAND" "argument" …`."""
    lines = []
    with store.connect() as watching:
        watching.call("MONITOR")
        yield lines
        # Whatever came before this is there when this is.
        store.call("ECHO", "until here")
        seen = b""
        while b'"until here"' not in seen:
            seen += watching.socket.recv(65536)
    lines += seen.decode(errors="replace").splitlines()


def questions(lines, token_id):
    """Those about this token."""
    return [line for line in lines if '"EVAL' in line and f":t:{token_id}" in line]


def test_one_authorize_is_one_question_on_one_connection(template, tmp_path, redis):
    with Store(tmp_path) as store, nodes(template, tmp_path, store) as (world,):
        made = [deployer_token(world) for _ in range(40)]
        with asked(store) as lines:
            threads = [threading.Thread(target=get, args=(world, one.token)) for one in made[:20]]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert {get(world, one.token) for one in made[20:]} == {"ALLOWED"}
            # One for requests, one for what takes longer; and this one, and the one that watches.
            assert int(store.info("clients")["connected_clients"]) <= 4
        assert [len(questions(lines, one.token_id)) for one in made] == [1] * 40
        clients = {re.search(r"\[0 (\S+)\]", line)[1] for one in made for line in questions(lines, one.token_id)}
        assert len(clients) == 1, clients
        # A look is one question too; what is denied without the store, and what has no token, is none.
        with asked(store) as lines:
            world[DEPLOYER].authorize("kubectl_get", "prod/web", made[0].token, dry_run=True)
            assert reason(world[DEPLOYER].authorize("kubectl_get", "test/web", made[1].token)) == "RESOURCE_NOT_GRANTED"
        assert [len(questions(lines, one.token_id)) for one in made[:2]] == [1, 0]


def test_a_use_that_was_not_answered_in_time_is_not_asked_for_again(template, tmp_path, redis):
    with Store(tmp_path) as store, nodes(template, tmp_path, store) as (world,):
        made = deployer_token(world, max_uses=3)
        with asked(store) as lines:
            store.pause()
            began = time.monotonic()
            denied = world[DEPLOYER].authorize("kubectl_get", "prod/web", made.token)
            assert reason(denied) == "STATE_UNAVAILABLE" and "counts as spent" in denied.message
            assert 0.19 < time.monotonic() - began < 1, "an operation has 200 ms"
            store.go_on()
            wait_until(lambda: ready(world), "it serves again", RECOVERY)
        assert len(questions(lines, made.token_id)) == 1
        assert world[DEPLOYER].introspect(token=made.token).remaining_uses == 2, "what was sent was done"


# Revocations.


def test_what_one_node_revokes_every_node_refuses(template, tmp_path, kind):
    with Store(tmp_path, kind) as store, nodes(template, tmp_path, store, 3) as worlds:
        one, other, third = worlds
        made = deployer_token(one, max_uses=3, delegatable=True)
        child = one[DEPLOYER].delegate(VALIDATOR, ["kubectl_get"], ["prod/web"], parent=made.token)
        other["ops-admin"].revoke(token_id=made.token_id)
        assert {get(world, made.token) for world in worlds} == {"TOKEN_REVOKED"}, "at once: the store is asked"
        assert get(third, child.token, VALIDATOR) == "TOKEN_REVOKED"

        mine = deployer_token(one, max_uses=2).token
        answer = other["ops-admin"].revoke(agent=DEPLOYER)
        assert get(third, mine) == "TOKEN_REVOKED"
        fresh = deployer_token(other).token
        assert get(third, fresh) == "ALLOWED", "a root that began after it is good at once, where it was revoked"
        wait_until(
            lambda: {world.administrator().status().state_revision for world in worlds} == {answer.state_revision},
            "every node knows of it",
            1.2,
        )
        mine = deployer_token(third).token
        one["ops-admin"].revoke(all=True)
        assert get(other, mine) == "TOKEN_REVOKED"


def test_a_quarantine_is_everywhere_within_a_second_and_outlives_every_node(template, tmp_path, redis):
    with Store(tmp_path) as store, nodes(template, tmp_path, store, 2) as (one, other):
        token = deployer_token(one, max_uses=3).token
        one["ops-admin"].revoke(agent=DEPLOYER, quarantine=True)
        began = time.monotonic()
        assert get(one, token) == "AGENT_QUARANTINED"
        wait_until(lambda: get(other, token) == "AGENT_QUARANTINED", "the other knows", 1.2)
        assert time.monotonic() - began < 1.2
        for world in (one, other):
            world.close()
            world.remit.kill()
            world.remit.start()
            wait_until(lambda world=world: ready(world), "it is ready", RECOVERY)
            assert hears(world, DEPLOYER)
        assert get(other, token) == "AGENT_QUARANTINED"
        other["ops-admin"].reinstate(DEPLOYER)
        wait_until(lambda: not hears(one, DEPLOYER), "the other knows", 1.2)
        assert get(one, token) == "TOKEN_REVOKED", "its old tokens stay dead"
        assert get(one, deployer_token(one).token) == "ALLOWED"


def test_every_node_says_who_entered_a_quarantine(template, tmp_path, redis):
    with Store(tmp_path) as store, nodes(template, tmp_path, store, 2) as (one, other):
        rewrite_policy(one, quarantine_after={"escalation_attempts": 1, "reuse_attempts": 3, "window_seconds": 60})
        sources = lambda world, agent: next(  # noqa: E731
            (list(entry.sources) for entry in listing(world).quarantines if entry.agent == agent), None
        )
        one[DEPLOYER].authorize("delete_everything", "prod/web", deployer_token(one).token)
        assert sources(one, DEPLOYER) == ["automatic"]
        one["ops-admin"].revoke(agent=ANALYST, quarantine=True)
        told = lambda world, *words: [sources(world, agent) for agent in (DEPLOYER, ANALYST)] == list(words)  # noqa: E731
        wait_until(lambda: told(other, ["automatic"], ["api"]), f"the other says the same: {listing(other)}", 2)
        other["ops-admin"].revoke(agent=DEPLOYER, quarantine=True)
        both = ["api", "automatic"]
        wait_until(lambda: told(other, both, ["api"]) and told(one, both, ["api"]), "and who else did", 2)
        # What is kept is kept with it, by a node that starts too, and by a store that is told anew.
        other.close()
        other.remit.kill()
        other.remit.start()
        wait_until(lambda: ready(other) and told(other, both, ["api"]), "it is read anew", RECOVERY)
        store.call("FLUSHALL")
        wait_until(lambda: not ready(other), "it is noticed", 2)
        wait_until(lambda: ready(one) and ready(other), "they serve again", SERVE_AFTER + RECOVERY)
        assert store.call("HGET", "remit:{0}:sources", DEPLOYER) == b"api,automatic"
        # A word that is missing is an administrator's, and lifts nothing.
        store.call("DEL", "remit:{0}:sources")
        one["ops-admin"].reinstate(DEPLOYER)
        wait_until(lambda: told(one, None, ["api"]) and told(other, None, ["api"]), "it is lifted", 2)


def test_a_quarantine_of_the_policy_file_ends_the_tokens_of_before(template, tmp_path, redis):
    with Store(tmp_path) as store, nodes(template, tmp_path, store, 2) as (one, other):
        token = deployer_token(one, max_uses=3).token
        path = one.remit.policy_file
        policy = json.loads(path.read_text())
        path.write_text(json.dumps(policy | {"quarantined": [DEPLOYER]}))
        wait_until(lambda: get(one, token) == "AGENT_QUARANTINED", "the file is read", 5)
        wait_until(lambda: get(other, token) == "TOKEN_REVOKED", "the store was told", 2)


def is_over(world, token):
    with contextlib.suppress(Refused):
        return not world[DEPLOYER].introspect(token=token).active


def test_what_the_policy_file_asks_for_while_the_store_is_away_is_made_good(template, tmp_path, redis):
    with Store(tmp_path) as store, nodes(template, tmp_path, store, 2) as (one, other):
        token = deployer_token(one, max_uses=3).token
        # It keeps its epoch, so that nothing but the revocation ends the token.
        store.pause()
        rewrite_policy(one, quarantined=[DEPLOYER])
        rewrite_policy(one, quarantined=[])
        assert get(one, token) == "AGENT_QUARANTINED", "until its tokens are ended it stays so"
        store.go_on()
        wait_until(lambda: is_over(other, token), "they are ended for everybody", RECOVERY)
        wait_until(lambda: get(one, token) == "TOKEN_REVOKED", "and it is let go", RECOVERY)


def test_what_the_policy_file_still_asks_for_after_a_crash_is_made_good_at_the_start(template, tmp_path, redis):
    with Store(tmp_path) as store, nodes(template, tmp_path, store, 2) as (one, other):
        token = deployer_token(one, max_uses=3).token
        store.pause()
        rewrite_policy(one, quarantined=[DEPLOYER])
        with refused("STATE_UNAVAILABLE", grpc.StatusCode.UNAVAILABLE):
            one["ops-admin"].revoke(agent=ANALYST, quarantine=True)
        one.close()
        one.remit.kill()
        one.remit.start()
        assert get(one, token) == "AGENT_QUARANTINED" and not ready(one)
        assert hears(one, ANALYST), "what an administrator asked for is on this node's disk"
        store.go_on()
        wait_until(lambda: ready(one), "it finds the store", RECOVERY)
        wait_until(lambda: is_over(other, token), "the file's agent has lost its tokens everywhere", RECOVERY)
        wait_until(lambda: hears(other, ANALYST), "and the administrator's is under quarantine everywhere", 2)


def test_unknown_ids_can_be_revoked_and_are_listed_everywhere(template, tmp_path, redis):
    with Store(tmp_path) as store, nodes(template, tmp_path, store, 2) as (one, other):
        name = "ab" * 16
        one["ops-admin"].revoke(token_id=name)
        listed = lambda world: [entry.target for entry in listing(world).revocations]  # noqa: E731
        assert name in listed(one)
        wait_until(lambda: name in listed(other), "the other has it", 1.2)
        other.close()
        other.remit.kill()
        other.remit.start()
        wait_until(lambda: ready(other) and name in listed(other), "it is read anew", RECOVERY)


# Epochs.


def test_an_emptied_store_ends_every_token_and_no_quarantine(template, tmp_path, kind):
    with Store(tmp_path, kind) as store, nodes(template, tmp_path, store, 3) as worlds:
        token = deployer_token(worlds[0], max_uses=3).token
        worlds[1]["ops-admin"].revoke(agent=ANALYST, quarantine=True)
        wait_until(lambda: all(hears(world, ANALYST) for world in worlds), "all know", 1.2)
        before = worlds[0].administrator().status()
        store.call("FLUSHALL")
        began = time.monotonic()
        # An agent with grants of its own would need no token: nothing at all is allowed for the time.
        wait_until(lambda: not any(ready(world) for world in worlds), "all notice", 1.5)
        assert get(worlds[0], token) == "STATE_UNAVAILABLE"
        with refused("STATE_UNAVAILABLE", grpc.StatusCode.UNAVAILABLE):
            worlds[2]["ops-admin"].revoke(agent=DEPLOYER)
        wait_until(lambda: all(ready(world) for world in worlds), "all serve again", SERVE_AFTER + RECOVERY)
        assert time.monotonic() - began > SERVE_AFTER - 0.5
        assert {get(world, token) for world in worlds} == {"TOKEN_FENCED"}
        assert all(hears(world, ANALYST) for world in worlds)
        after = worlds[0].administrator().status()
        assert after.fence.ToSeconds() > before.fence.ToSeconds()
        assert after.store.epoch != before.store.epoch
        assert worlds[0].remit.metrics()["remit_store_epoch_changes_total"] == 1
        assert get(worlds[2], deployer_token(worlds[1]).token) == "ALLOWED"


def test_a_store_that_forgot_who_is_revoked_ends_its_epoch(template, tmp_path, redis):
    with Store(tmp_path) as store, nodes(template, tmp_path, store) as (world,):
        token = deployer_token(world, max_uses=3).token
        world["ops-admin"].revoke(agent=DEPLOYER)
        (revoked,) = store.call("KEYS", "*:revoked")
        # As an eviction would: the next revocation would hide that one is missing.
        store.call("DEL", revoked)
        with refused("STATE_UNAVAILABLE", grpc.StatusCode.UNAVAILABLE):
            world["ops-admin"].revoke(agent=ANALYST)
        assert get(world, token) != "ALLOWED"
        wait_until(lambda: ready(world), "it serves again", SERVE_AFTER + RECOVERY)
        assert get(world, token) == "TOKEN_FENCED"
        assert get(world, deployer_token(world).token) == "ALLOWED"


def test_a_store_that_was_away_is_found_within_five_seconds(template, tmp_path, kind):
    with Store(tmp_path, kind) as store, nodes(template, tmp_path, store, 2) as worlds:
        token = deployer_token(worlds[0], max_uses=3).token
        store.stop()
        assert get(worlds[0], token) == "STATE_UNAVAILABLE"
        with refused("STATE_UNAVAILABLE", grpc.StatusCode.UNAVAILABLE):
            deployer_token(worlds[1])
        wait_until(lambda: not ready(worlds[0]), "readiness says so", 2)
        assert "can't be reached" in details(worlds[0])
        assert worlds[0].remit.metrics()["remit_store_up"] == 0
        time.sleep(2)
        store.start()
        began = time.monotonic()
        wait_until(lambda: all(map(ready, worlds)), "all serve again", SERVE_AFTER + RECOVERY)
        assert time.monotonic() - began < SERVE_AFTER + RECOVERY
        assert get(worlds[0], token) == "TOKEN_FENCED", "a store that was started again is another primary"
        samples = worlds[0].remit.metrics()
        assert (samples["remit_store_up"], samples["remit_state_well"]) == (1, 1)
        assert samples["remit_store_last_contact_seconds"] < 1


def test_a_store_that_stands_still_is_believed_again_when_it_goes_on(template, tmp_path, redis):
    with Store(tmp_path) as store, nodes(template, tmp_path, store) as (world,):
        token = deployer_token(world, max_uses=4).token
        assert get(world, token) == "ALLOWED"
        store.pause()
        began = time.monotonic()
        assert get(world, token) == "STATE_UNAVAILABLE"
        assert time.monotonic() - began < 1, "an operation has 200 ms"
        time.sleep(2)
        assert get(world, token) == "STATE_UNAVAILABLE"
        store.go_on()
        wait_until(lambda: ready(world), "it serves again", RECOVERY)
        allowed = 0
        while get(world, token) == "ALLOWED":
            allowed += 1
        assert allowed in (2, 3), "the use in doubt may be spent, and none comes back"


def test_a_store_that_forgot_the_scripts_is_told_them_again(template, tmp_path, redis):
    with Store(tmp_path) as store, nodes(template, tmp_path, store) as (world,):
        token = deployer_token(world, max_uses=3).token
        for _ in range(2):
            store.call("SCRIPT", "FLUSH")
            assert get(world, token) == "ALLOWED"
        store.call("SCRIPT", "FLUSH")
        assert deployer_token(world).token
        assert get(world, token) == "ALLOWED" and get(world, token) == "TOKEN_USES_EXHAUSTED"


# What an operator sees.


def test_status_readiness_and_metrics_say_how_the_store_is(template, tmp_path, redis):
    with Store(tmp_path) as store, nodes(template, tmp_path, store) as (world,):
        deployer_token(world)
        status = world.administrator().status()
        assert (status.state_backend, status.ready) == ("valkey", True)
        assert status.store.address == f"redis://127.0.0.1:{store.port}/0"
        assert status.store.settings["maxmemory-policy"] == "noeviction"
        assert re.fullmatch("[0-9a-f]{32}", status.store.epoch)
        assert status.store.reconnects == 0
        assert status.fence.ToSeconds() > time.time() - 60
        samples = world.remit.metrics()
        assert samples['remit_state_info{backend="valkey"}'] == 1
        assert samples["remit_store_up"] == 1 and samples["remit_store_copy_age_seconds"] < 1
        assert "remit_ledger_entries" not in samples, "this process counts no token"


def test_settings_that_cant_hold_the_promise_are_named_and_cost_foreign_tokens(template, tmp_path, redis):
    wrong = {"maxmemory_policy": "allkeys-lru", "repl_backlog_ttl": 3600}
    with Store(tmp_path, **wrong) as store, nodes(template, tmp_path, store) as (world,):
        wait_until(lambda: "allkeys-lru" in details(world), "it is said", 2)
        assert "CONFIG SET maxmemory-policy noeviction" in details(world)
        assert "repl-backlog-ttl" in details(world)
        assert ready(world), "tokens of its own are counted all the same"
        key = world.remit.hmac_key()
        token = foreign(key)
        assert get(world, token) == "STATE_UNAVAILABLE"
        assert get(world, deployer_token(world).token) == "ALLOWED"


def test_tokens_of_other_issuers_are_counted_in_the_store(template, tmp_path, redis):
    with Store(tmp_path) as store, nodes(template, tmp_path, store, 2) as (one, other):
        key = one.remit.hmac_key()
        fence = one.administrator().status().fence.ToSeconds()
        old = foreign(key, ttl_seconds=100, iat=int(time.time()) - 1)
        assert get(one, old) == "TOKEN_FENCED", "made before the fence, so that it may have been used"
        wait_until(lambda: time.time() > fence + 1, "the fence is past", 20)
        token = foreign(key)
        assert get(one, token) == "ALLOWED"
        assert get(other, token) == "TOKEN_USES_EXHAUSTED"
        other["ops-admin"].revoke(all=True)
        token = foreign(key, ttl_seconds=100)
        assert get(one, token) == "TOKEN_REVOKED", "its issuer's clock may be 10 s off"


def test_a_full_store_mints_nothing_and_spends_and_revokes_on(template, tmp_path, redis):
    with Store(tmp_path) as store, nodes(template, tmp_path, store) as (world,):
        made = deployer_token(world, max_uses=2)
        store.call("CONFIG", "SET", "maxmemory", "1mb")
        with refused("CAPACITY_EXHAUSTED", grpc.StatusCode.RESOURCE_EXHAUSTED):
            deployer_token(world)
        assert get(world, made.token) == "ALLOWED"
        world["ops-admin"].revoke(agent=DEPLOYER)
        assert get(world, made.token) == "TOKEN_REVOKED"
        store.call("CONFIG", "SET", "maxmemory", "0")
        assert get(world, deployer_token(world).token) == "ALLOWED"


def test_too_few_replicas_allow_nothing(template, tmp_path, redis):
    with Store(tmp_path) as store, Store(tmp_path) as replica:
        replica.replicate(store.port)
        with nodes(template, tmp_path, store, REMIT_STATE_REPLICAS="1") as (world,):
            wait_until(lambda: "min-replicas-to-write" in details(world), "the setting is missed", 2)
            store.call("CONFIG", "SET", "min-replicas-to-write", "1")
            token = deployer_token(world, max_uses=3).token
            world["ops-admin"].revoke(agent=ANALYST, quarantine=True)
            replica.stop()
            wait_until(lambda: not ready(world), "it has stopped", 5)
            assert get(world, token) == "STATE_UNAVAILABLE"
            assert "too few replicas" in details(world)
            with refused("STATE_UNAVAILABLE", grpc.StatusCode.UNAVAILABLE):
                world["ops-admin"].revoke(agent=VALIDATOR, quarantine=True)
            assert hears(world, VALIDATOR), "it is in force where it was asked for"
            replica.start()
            replica.replicate(store.port)
            wait_until(lambda: ready(world), "it goes on", RECOVERY)
            assert get(world, token) == "ALLOWED"
            wait_until(lambda: stored(store).get(VALIDATOR.encode(), b"").endswith(b":q"), "the store was told", 2)


def test_a_quarantine_that_too_few_replicas_have_says_so(template, tmp_path, redis):
    with Store(tmp_path) as store, nodes(template, tmp_path, store, REMIT_STATE_REPLICAS="2") as (world,):
        token = deployer_token(world).token
        with refused("STATE_UNAVAILABLE", grpc.StatusCode.UNAVAILABLE) as seen:
            world["ops-admin"].revoke(agent=DEPLOYER, quarantine=True)
        assert "may not survive" in seen[0].message
        assert get(world, token) == "AGENT_QUARANTINED"


# Beginnings and neighbours.


def test_a_store_may_be_missing_at_the_start(template, tmp_path, redis):
    with Store(tmp_path) as store:
        store.stop()
        with contextlib.ExitStack() as stack:
            world = node(stack, copy_folder(template, tmp_path / "node"), settings(store))
            assert not ready(world)
            assert reason(world[DEPLOYER].authorize("kubectl_get", "prod/web", "")) != "ALLOWED"
            store.start()
            wait_until(lambda: ready(world), "it is found", SERVE_AFTER + RECOVERY)
            assert get(world, deployer_token(world).token) == "ALLOWED"


def test_nodes_with_other_prefixes_dont_meet(template, tmp_path, redis):
    with Store(tmp_path) as store, nodes(template, tmp_path / "a", store) as (one,):
        with nodes(template, tmp_path / "b", store, REMIT_STATE_PREFIX="remit-test") as (other,):
            assert one.administrator().status().store.epoch != other.administrator().status().store.epoch
            one["ops-admin"].revoke(agent=DEPLOYER, quarantine=True)
            time.sleep(0.5)
            assert not hears(other, DEPLOYER)
        names = store.call("KEYS", "*")
        assert {name.split(b":")[0] for name in names} == {b"remit", b"remit-test"}
        assert all(b"{0}" in name for name in names)
        # What can't expire by itself is the record, and the quarantines with who entered them.
        lasting = {name.rsplit(b":", 1)[1] for name in names if store.call("TTL", name) == -1}
        assert lasting <= {b"epoch", b"quarantines", b"sources"}


# What comes late, or is forgotten.


def test_a_reinstatement_that_comes_late_lifts_no_newer_quarantine(template, tmp_path, redis):
    with Store(tmp_path) as store, nodes(template, tmp_path, store) as (world,):
        versions = []
        for _ in range(2):
            world["ops-admin"].revoke(agent=ANALYST, quarantine=True)
            versions.append(stored(store)[ANALYST.encode()].removesuffix(b":q"))
        epoch = world.administrator().status().store.epoch
        assert reinstate_by_hand(store, epoch, ANALYST, versions[0])[0] == b"changed", "it was meant for the one before"
        assert stored(store)[ANALYST.encode()] == versions[1] + b":q"
        assert hears(world, ANALYST)
        world["ops-admin"].reinstate(ANALYST)
        assert not hears(world, ANALYST)


def reinstate_by_hand(store, epoch, agent, version):
    folder = REPOSITORY / "src/state/valkey/lua"
    text = "#!lua\n" + "".join((folder / f"{name}.lua").read_text() for name in ("prelude", "news", "revoke"))
    own = f"remit:{{0}}:{epoch[:16]}"
    keys = ["remit:{0}:epoch", f"{own}:revoked", f"{own}:log", "remit:{0}:quarantines"]
    return store.call("EVAL", text, len(keys), *keys, "cd" * 16, epoch, 0, 0, "reinstate", agent, version, "")


def test_a_store_that_forgot_a_quarantine_is_told_it_again(template, tmp_path, redis):
    with Store(tmp_path) as store, nodes(template, tmp_path, store) as (world,):
        world["ops-admin"].revoke(agent=ANALYST, quarantine=True)
        before = world.administrator().status().store.epoch
        store.call("DEL", "remit:{0}:quarantines")
        wait_until(lambda: not ready(world), "it is noticed", 1.5)
        wait_until(lambda: ready(world), "it serves again", SERVE_AFTER + RECOVERY)
        assert stored(store)[ANALYST.encode()].endswith(b":q")
        assert hears(world, ANALYST)
        assert world.administrator().status().store.epoch != before
        world["ops-admin"].reinstate(ANALYST)
        assert not hears(world, ANALYST)


def test_a_token_that_would_outlive_its_revocation_is_not_minted(template, tmp_path, redis):
    with Store(tmp_path) as store, nodes(template, tmp_path, store) as (world,):
        # What a store does whose clock is an hour behind: the script's own time, set so.
        with store.connect() as connection:
            epoch = world.administrator().status().store.epoch
            late = mint_by_hand(connection, epoch, int(time.time()) + 3620)
            good = mint_by_hand(connection, epoch, int(time.time()) + 3600)
        assert (late[0], good[0]) == (b"clocks", b"left")


def mint_by_hand(connection, epoch, expires):
    folder = REPOSITORY / "src/state/valkey/lua"
    text = "#!lua\n" + "".join((folder / f"{name}.lua").read_text() for name in ("prelude", "token", "mint"))
    own = f"remit:{{0}}:{epoch[:16]}"
    keys = ["remit:{0}:epoch", f"{own}:revoked", f"{own}:unknown", f"{own}:t:by hand {expires}"]
    counter = connection.call("HGET", keys[0], "counter")
    token = ["tag", 1, expires, "", counter, "ab" * 16, 0, 2, "a", "b", "get"]
    return connection.call("EVAL", text, len(keys), *keys, "cd" * 16, epoch, 0, *token)


def test_a_clock_that_is_set_back_begins_one_new_epoch(template, tmp_path, redis):
    with Store(tmp_path) as store, nodes(template, tmp_path, store) as (world,):
        token = deployer_token(world, max_uses=3).token
        seen = lambda: int(store.call("HGET", "remit:{0}:epoch", "seen"))  # noqa: E731
        wait_until(lambda: abs(seen() - time.time()) < 2, "the time is noted", 3)
        store.call("HSET", "remit:{0}:epoch", "seen", int(time.time()) + 3640)
        wait_until(lambda: not ready(world), "it is noticed", 1.5)
        wait_until(lambda: ready(world), "it serves again", SERVE_AFTER + RECOVERY)
        assert get(world, token) == "TOKEN_FENCED"
        assert world.administrator().status().fence.ToSeconds() > time.time() + 3600, "what was spent stays spent"
        time.sleep(2)
        assert ready(world) and world.remit.metrics()["remit_store_epoch_changes_total"] == 1


def test_everything_can_be_revoked_when_there_is_room_for_nothing_more(template, tmp_path, redis):
    with Store(tmp_path) as store, nodes(template, tmp_path, store) as (world,):
        token = deployer_token(world).token
        world["ops-admin"].revoke(agent=ANALYST)
        (revoked,) = store.call("KEYS", "*:revoked")
        fill = "for i = 1, 1000000 do redis.call('HSET', KEYS[1], i, '1:1') end"
        with store.connect() as connection:
            connection.socket.settimeout(60)
            connection.call("CONFIG", "SET", "busy-reply-threshold", "60000")
            connection.call("EVAL", fill, 1, revoked)
        wait_until(lambda: ready(world), "it goes on", SERVE_AFTER + RECOVERY)
        with refused("CAPACITY_EXHAUSTED", grpc.StatusCode.RESOURCE_EXHAUSTED) as seen:
            world["ops-admin"].revoke(agent=VALIDATOR)
        assert "[state] capacity" not in seen[0].message
        with contextlib.suppress(Refused):
            # To free so much may take longer than an operation has.
            world["ops-admin"].revoke(all=True)
        wait_until(lambda: store.call("HLEN", revoked) == 1, "all is revoked", 5)
        # What was asked while the store stood still may be told after it: in doubt nothing is allowed.
        seen = []
        is_in_doubt = lambda: seen.append(get(world, token)) or seen[-1] == "STATE_UNAVAILABLE"  # noqa: E731
        wait_until(lambda: not is_in_doubt(), "it goes on", SERVE_AFTER + RECOVERY)
        assert seen[-1] == "TOKEN_REVOKED", seen


def test_replicas_that_were_not_configured_are_named_and_cost_foreign_tokens(template, tmp_path, redis):
    with Store(tmp_path) as store, Store(tmp_path) as replica:
        replica.replicate(store.port)
        # Later than the replica says so. Who connects before that hears of it at the next look, ten seconds on.
        wait_until(lambda: "state=online" in store.info().get("slave0", ""), "the primary lists its replica", 10)
        with nodes(template, tmp_path, store) as (world,):
            wait_until(lambda: "[state] replicas is 0" in details(world), "it is said", 3)
            assert get(world, foreign(world.remit.hmac_key())) == "STATE_UNAVAILABLE"
