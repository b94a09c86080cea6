"""Concurrent spends, moves, revocations and checks over sockets: some order of them explains every answer."""

import contextlib
import copy
import os
import random
import threading
import time

import pytest
from assurance import assure
from cluster import Nodes
from conftest import cannot
from linearizable import ALLOWED, CHECK, EXHAUSTED, FEWER, MOVE, REVOKE, REVOKED, SPEND, UNKNOWN, Call, History, order
from remit_client import Refused, World, reason
from remit_process import Remit, copy_folder
from seed_policy import COORDINATOR, DEPLOYER, VALIDATOR, deployer_token
from stores import Store, missing
from waiting import wait_until

HISTORIES = int(os.environ.get("REMIT_HISTORIES", "60"))
THREADS = 6
STEPS = 6
USES = 5
ROOT = ("root",)
SEED = int(os.environ.get("REMIT_SEED", "20261122"))


# The checker itself.


def history(*calls, uses=1):
    return History(uses, list(calls))


def child(uses=1, **more):
    return Call(MOVE, ROOT, child=(*ROOT, "a"), uses=uses, **more)


POSSIBLE = {
    "two at once, one wins": [Call(SPEND, ROOT, 0, 9, ALLOWED), Call(SPEND, ROOT, 1, 8, EXHAUSTED)],
    "the loser ended first": [Call(SPEND, ROOT, 0, 9, ALLOWED), Call(SPEND, ROOT, 1, 2, EXHAUSTED)],
    "a lost call that took the use": [Call(SPEND, ROOT, 0), Call(SPEND, ROOT, 5, 6, EXHAUSTED)],
    "a lost call that took none": [Call(SPEND, ROOT, 0), Call(SPEND, ROOT, 5, 6, ALLOWED)],
    "a lost call that waits": [
        Call(SPEND, ROOT, 0),
        Call(CHECK, ROOT, 1, 2, ALLOWED, left=1),
        Call(SPEND, ROOT, 3, 4, EXHAUSTED),
    ],
    "a move takes the parent's": [
        child(began=0, ended=2, answer=ALLOWED),
        Call(SPEND, ROOT, 3, 4, EXHAUSTED),
        Call(SPEND, (*ROOT, "a"), 5, 6, ALLOWED),
    ],
    "more than there is": [child(uses=2, began=0, ended=1, answer=FEWER), Call(SPEND, ROOT, 2, 3, ALLOWED)],
    "a revocation beside a spend": [Call(REVOKE, ROOT, 0, 9, ALLOWED), Call(SPEND, ROOT, 1, 2, ALLOWED)],
}

IMPOSSIBLE = {
    "one use twice": [Call(SPEND, ROOT, 0, 9, ALLOWED), Call(SPEND, ROOT, 1, 8, ALLOWED)],
    "refused before it was spent": [Call(SPEND, ROOT, 0, 1, EXHAUSTED), Call(SPEND, ROOT, 2, 3, ALLOWED)],
    "spent and moved": [child(began=0, ended=9, answer=ALLOWED), Call(SPEND, ROOT, 1, 8, ALLOWED)],
    "allowed after a revocation": [Call(REVOKE, ROOT, 0, 1, ALLOWED), Call(SPEND, ROOT, 2, 3, ALLOWED)],
    "a child outlives its root's revocation": [
        child(began=0, ended=1, answer=ALLOWED),
        Call(REVOKE, ROOT, 2, 3, ALLOWED),
        Call(SPEND, (*ROOT, "a"), 4, 5, ALLOWED),
    ],
    "dead without a revocation": [Call(SPEND, ROOT, 0, 1, REVOKED)],
    "a check that looks back": [Call(SPEND, ROOT, 0, 1, ALLOWED), Call(CHECK, ROOT, 2, 3, ALLOWED, left=1)],
    "the uses of a child from nowhere": [
        child(began=0, ended=1, answer=ALLOWED),
        Call(SPEND, (*ROOT, "a"), 2, 3, ALLOWED),
        Call(SPEND, (*ROOT, "a"), 4, 5, ALLOWED),
    ],
}


@pytest.mark.parametrize("name", POSSIBLE)
def test_the_checker_finds_an_order(name):
    assert order(history(*POSSIBLE[name])) is not None


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_the_checker_finds_what_no_order_explains(name):
    assert order(history(*IMPOSSIBLE[name])) is None


# Real clients.


class Family:
    """One root token under several threads, each of which asks any node, and what they were told."""

    def __init__(self, worlds, seed):
        self.random = random.Random(seed)
        self.worlds = worlds
        self.root = wait_until(self._minted, "a root")
        self.texts = {ROOT: self.root}
        self.history = History(USES)

    def run(self, clients):
        seeds = [self.random.random() for _ in range(THREADS)]
        barrier = threading.Barrier(THREADS)
        failures = []

        def work(seed, own):
            chance = random.Random(seed)
            barrier.wait()
            try:
                for step in range(STEPS):
                    self._step(chance, own, step)
            except Exception as error:  # noqa: BLE001 - it is raised again below
                failures.append(error)

        threads = [threading.Thread(target=work, args=each) for each in zip(seeds, clients, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        if failures:
            raise failures[0]

    def _minted(self):
        with contextlib.suppress(Refused):
            return deployer_token(self.worlds[0], max_uses=USES, delegatable=True).token

    def _step(self, chance, clients, step):
        token = chance.choice(list(self.texts))
        holder = clients[DEPLOYER if token == ROOT else VALIDATOR]
        text = self.texts[token]
        what = chance.choices([SPEND, MOVE, CHECK, REVOKE], [5, 3, 2, 1 if step > STEPS / 2 else 0])[0]
        if what == MOVE:
            self._move(chance, clients)
        elif what == SPEND:
            self.history.record(SPEND, token, lambda: known(reason(holder.authorize("kubectl_get", "prod/web", text))))
        elif what == CHECK:
            self.history.record(CHECK, token, lambda: checked(holder, text))
        else:
            self.history.record(REVOKE, token, lambda: granted(lambda: holder.revoke(token=text)))

    def _move(self, chance, clients):
        uses = chance.choice([1, 1, 2])
        path = (*ROOT, f"{chance.random()}")

        def move():
            made = clients[DEPLOYER].delegate(
                VALIDATOR, ["kubectl_get"], ["prod/web"], parent=self.root, max_uses=uses
            )
            with self.history.lock:
                self.texts = self.texts | {path: made.token}

        self.history.record(MOVE, ROOT, lambda: granted(move), child=path, uses=uses)


def known(answer):
    return UNKNOWN if answer == "STATE_UNAVAILABLE" else answer


def granted(call):
    try:
        call()
        return ALLOWED
    except Refused as refusal:
        return known(refusal.reason)


def checked(holder, text):
    try:
        seen = holder.introspect(token=text)
    except Refused as refusal:
        return known(refusal.reason)
    answer = known(reason(seen))
    return (answer, seen.remaining_uses) if answer == ALLOWED else answer


def spoilt(good):
    """The same history with one answer turned: the last spend that was refused was allowed."""
    bad = copy.copy(good)
    bad.calls = [copy.copy(call) for call in good.calls]
    refused = [call for call in bad.calls if call.what == SPEND and call.answer in (EXHAUSTED, REVOKED)]
    if not refused:
        return None
    max(refused, key=lambda call: call.began).answer = ALLOWED
    return bad


def examine(worlds, backend, disturb=lambda number: None):
    began = time.monotonic()
    clients = [
        {name: worlds[index % len(worlds)].fresh(name) for name in (COORDINATOR, DEPLOYER, VALIDATOR)}
        for index in range(THREADS)
    ]
    calls = found = unknown = spoilable = 0
    try:
        for number in range(HISTORIES):
            family = Family(worlds, f"{SEED} {backend} {number}")
            disturber = threading.Thread(target=disturb, args=(number,))
            disturber.start()
            family.run(clients)
            disturber.join()
            assert order(family.history), (SEED, number, sorted(family.history.calls, key=lambda call: call.began))
            calls += len(family.history.calls)
            unknown += sum(call.answer == UNKNOWN for call in family.history.calls)
            if bad := spoilt(family.history):
                spoilable += 1
                found += order(bad) is None
    finally:
        for own in clients:
            for client in own.values():
                client.close()
    assure(
        "linearizability",
        backend=backend,
        histories=HISTORIES,
        calls=calls,
        unknown=unknown,
        not_linearizable=0,
        spoilt_and_found=f"{found}/{spoilable}",
        seed=SEED,
        seconds=round(time.monotonic() - began, 1),
    )
    assert unknown < calls / 10
    assert found > spoilable / 2 > 0, "the checker has teeth"


@pytest.mark.parametrize("backend", ["memory", "journal"])
def test_some_order_explains_what_clients_saw(trusting, tmp_path, backend):
    remit = Remit(copy_folder(trusting, tmp_path / "dev"), REMIT_STATE_BACKEND=backend)
    with remit, World(remit) as world:
        examine([world], backend)


def test_some_order_explains_what_clients_of_three_nodes_saw(trusting, tmp_path):
    if why := missing():
        cannot(why)
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(Store(tmp_path))
        nodes = Nodes(stack, trusting, tmp_path, 3, store, replicas=0)
        nodes.serve()

        def disturb(number):
            """Now and then a node loses its connection, and nobody knows what was still done."""
            if number % 10 == 9:
                time.sleep(random.uniform(0, 0.02))
                wire = random.choice(nodes.wires)
                wire.cut()
                wire.mend()
                nodes.serve()

        examine(nodes, "valkey", disturb)
