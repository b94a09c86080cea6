"""Three nodes on one shared store under load, while its primary dies, hangs, changes, forgets and comes back.

After each fault every token that was ever minted, and has not expired, is tried again everywhere. Beside that runs
the proof that the epoch's check is what keeps uses from being given twice, and what happens to foreign tokens.
`REMIT_FAILOVERS` sets how many faults each kind of store sees (3).
"""

import contextlib
import os
import random
import time

import pytest
from assurance import assure
from cluster import Load, Nodes, Oracle, Stores, good_replicas
from conftest import cannot
from epoch_check import prove
from side_by_side import side_by_side
from stores import missing
from test_store_faults import Scene, foreign_tokens_are_not_taken_again_after_a_failover
from waiting import wait_until

ROUNDS = int(os.environ.get("REMIT_FAILOVERS", "3"))
SEED = int(os.environ.get("REMIT_SEED", "20261122"))
LOAD_SECONDS = 1.0
SEEN = ("minted", "ALLOWED", "tried_again", "revoked", "quarantines")
LOSSES = ("double_spends", "lost_revocations", "lost_quarantines")


class Place:
    """Stores, nodes and an oracle, on which faults are tried one after the other."""

    def __init__(self, stack, template, folder, kind, seed):
        self.chance = random.Random(seed)
        self.seed = seed
        self.stores = Stores(stack, folder, kind, password="geheim")
        self.nodes = Nodes(stack, template, folder, 3, self.stores.primary)
        self.oracle = Oracle()
        self.recoveries = []
        self.nodes.serve()

    def round(self, fault, number):
        """A load, the fault in the middle of it, and then everything is tried again."""
        with Load(self.nodes, self.oracle, f"{self.seed} {number}"):
            time.sleep(self.chance.uniform(0.5, 1) * LOAD_SECONDS)
            getattr(self, fault)()
            self.recover()
            time.sleep(0.3)
        self.check(self.nodes, [f"node {index} after {fault}" for index in range(len(self.nodes))])
        self.stores.wait()

    def recover(self, only=None):
        self.recoveries.append(self.nodes.serve(only=only))

    def check(self, worlds, places):
        self.oracle.try_everything(worlds, places)
        self.oracle.check_quarantines(worlds, places)

    def let_lag(self):
        """What happens from now on does not reach the replica that is to be promoted."""
        self.stores.wire.hold()
        time.sleep(self.chance.uniform(0.2, 0.4))

    def promote(self):
        """By hand: the lagging replica, and everybody follows it."""
        self.stores.promote()
        self.stores.steady.follow(self.stores.primary.port)
        wait_until(lambda: good_replicas(self.stores.primary) >= 1, "the new primary has a replica")

    # Faults.

    def primary_is_killed(self):
        self.let_lag()
        old = self.stores.primary
        old.kill()
        self.promote()
        self.nodes.lead_to(self.stores.primary)
        self.recover()
        old.start()
        self.stores.follow()

    def primary_hangs_and_comes_back(self):
        """The old primary goes on where it was, with a node that still asks it."""
        self.let_lag()
        old = self.stores.primary
        old.pause()
        self.promote()
        self.nodes.lead_to(self.stores.primary, only=[1, 2])
        self.recover(only=[1, 2])
        old.go_on()
        # Until it misses its replicas.
        self.oracle.two_primaries_until = time.monotonic() + 4
        self.check(self.nodes, ["the old primary", "the new one", "the new one"])
        self.nodes.lead_to(self.stores.primary, only=[0])
        self.stores.follow()

    def brain_is_split(self):
        """Both are primaries that may write, and both are asked."""
        self.let_lag()
        old = self.stores.primary
        for store in (old, self.stores.lagging):
            store.call("CONFIG", "SET", "min-replicas-to-write", 0)
        # Without min-replicas nothing bounds when a revocation is heard on the other side.
        self.oracle.two_primaries_until = float("inf")
        self.stores.promote()
        self.nodes.lead_to(self.stores.primary, only=[2])
        self.recover(only=[2])
        time.sleep(0.3)
        self.check(self.nodes, ["the old primary", "the old primary", "the new one"])
        for store in (old, self.stores.primary):
            store.call("CONFIG", "SET", "min-replicas-to-write", 1)
        self.stores.follow()
        self.nodes.lead_to(self.stores.primary)
        self.oracle.two_primaries_until = time.monotonic()

    def store_fails_over_and_back(self):
        """To the replica, and back to the first one, which never heard of it."""
        self.let_lag()
        first = self.stores.primary
        self.stores.wire.cut()
        self.stores.lagging.call("CONFIG", "SET", "min-replicas-to-write", 0)
        self.stores.lagging.promote()
        away = time.monotonic()
        self.nodes.lead_to(self.stores.lagging)
        self.recover()
        self.check(self.nodes, ["the other store"] * 3)
        self.oracle.two_primaries_until = float("inf")
        self.nodes.lead_to(first)
        self.recover()
        self.oracle.forget_revocations(away)
        self.oracle.two_primaries_until = time.monotonic()
        self.stores.lagging.call("CONFIG", "SET", "min-replicas-to-write", 1)
        self.stores.follow()

    def primaries_change_places_twice(self):
        """To the replica, and in good order back to the first one, which followed meanwhile."""
        for _ in range(2):
            self.promote()
            self.nodes.lead_to(self.stores.primary, cut=False)
            self.stores.follow()
            self.nodes.lead_to(self.stores.primary)
            self.recover()

    def store_is_emptied(self):
        self.stores.primary.call("FLUSHALL")

    def store_starts_from_an_old_snapshot(self):
        primary = self.stores.primary
        primary.call("SAVE")
        time.sleep(self.chance.uniform(0.2, 0.5))
        primary.kill()
        primary.start()
        self.stores.follow()

    def node_is_killed(self):
        self.nodes.restart(self.chance.randrange(len(self.nodes)))


FAULTS = {
    "redis": ["primary_is_killed", "primary_hangs_and_comes_back", "store_is_emptied"],
    "valkey": ["brain_is_split", "store_starts_from_an_old_snapshot", "store_fails_over_and_back"],
}
KINDS = list(FAULTS)
EVERY_FAULT = [*FAULTS["redis"], *FAULTS["valkey"], "primaries_change_places_twice", "node_is_killed"]


@pytest.fixture(scope="module")
def running(request, trusting, tmp_path_factory):
    for kind in KINDS:
        if why := missing(kind):
            cannot(why)

    def run(case):
        folder = tmp_path_factory.mktemp("case")
        if case == "epoch":
            return prove(folder)
        if case == "foreign":
            with contextlib.ExitStack() as stack:
                return foreign_tokens_are_not_taken_again_after_a_failover(Scene(stack, trusting, folder))
        return fail_over(trusting, folder, case)

    with side_by_side(request, run) as results:
        yield results


def fail_over(template, folder, kind):
    """As many rounds as there shall be; what the oracle counted."""
    faults = FAULTS[kind] + [fault for fault in EVERY_FAULT if fault not in FAULTS[kind]]
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        place = Place(stack, template, folder, kind, f"{SEED} {kind}")
        for number in range(ROUNDS):
            fault = faults[number % len(faults)]
            place.round(fault, number)
            print(f"\nPROGRESS {kind}: {number + 1} of {ROUNDS}, {fault}, {dict(place.oracle.counts)}", flush=True)
        oracle = place.oracle
    seen = {name: oracle.counts[name] for name in SEEN}
    losses = {"double_spends": oracle.double_spends()} | {name: oracle.counts[name] for name in LOSSES[1:]}
    assure(
        "failover",
        store=kind,
        failovers=ROUNDS,
        **seen,
        **losses,
        slowest_recovery=round(max(place.recoveries), 1),
        seed=SEED,
        seconds=round(time.monotonic() - began, 1),
    )
    return oracle, losses


@pytest.mark.parametrize("case", KINDS)
def test_nothing_is_given_twice_whatever_happens_to_the_store(running, case):
    oracle, losses = running[case].result()
    assert losses == dict.fromkeys(LOSSES, 0)
    assert min(oracle.counts[name] for name in SEEN) > 0
    assert oracle.counts["TOKEN_FENCED"] > 0, "tokens of before a failover were tried"


@pytest.mark.parametrize("case", ["epoch"])
def test_uses_are_given_twice_without_the_epochs_check_and_never_with_it(running, case):
    for kind, (without, with_it) in running[case].result().items():
        assure("epoch check", store=kind, double_spends_without=max(without.values()), double_spends_with=max(with_it.values()))
        assert set(with_it.values()) == {0}, with_it
        assert min(without.values()) > 0, without


@pytest.mark.parametrize("case", ["foreign"])
def test_tokens_of_other_issuers_are_not_taken_again(running, case):
    running[case].result()
