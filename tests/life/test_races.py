"""Thirty-two clients, each with a connection of its own, race for one token."""

import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from assurance import assure
from remit_client import Refused, reason
from seed_policy import DEPLOYER, VALIDATOR, deployer_token
from test_durability import trust_deployer

RACERS = 32
ROUNDS = 20
# Of tokens of several uses.
SPENDING_ROUNDS = int(os.environ.get("REMIT_ROUNDS", "2000"))


def race(world, name, attempt):
    """What `attempt(client, racer)` returned for each racer, round by round; all begin at the same moment."""
    clients = [world.fresh(name) for _ in range(RACERS)]
    barrier = Barrier(RACERS)

    def run(racer):
        barrier.wait()
        return attempt(clients[racer], racer)

    try:
        with ThreadPoolExecutor(RACERS) as pool:
            yield from (list(pool.map(run, range(RACERS))) for _ in iter(int, 1))
    finally:
        for client in clients:
            client.close()


def test_a_single_use_is_given_once(shared):
    token = None
    rounds = race(shared, DEPLOYER, lambda client, _: reason(client.authorize("kubectl_get", "prod/web", token)))
    for _ in range(ROUNDS):
        token = deployer_token(shared).token
        answers = next(rounds)
        assert sorted(answers) == ["ALLOWED"] + ["TOKEN_USES_EXHAUSTED"] * (RACERS - 1)
    rounds.close()


def test_a_use_is_spent_or_moved_and_not_both(shared):
    token = None

    def attempt(client, racer):
        if racer % 2:
            return reason(client.authorize("kubectl_get", "prod/web", token)) == "ALLOWED", None
        try:
            return False, client.delegate(VALIDATOR, ["kubectl_get"], ["prod/web"], token).token
        except Refused as refusal:
            assert refusal.reason == "TOKEN_USES_EXHAUSTED"
            return False, None

    rounds = race(shared, DEPLOYER, attempt)
    for _ in range(ROUNDS):
        token = deployer_token(shared, delegatable=True).token
        answers = next(rounds)
        spent = sum(was_spent for was_spent, _ in answers)
        children = [child for _, child in answers if child]
        assert spent + len(children) == 1
        for child in children:
            validator = shared[VALIDATOR]
            assert reason(validator.authorize("kubectl_get", "prod/web", child)) == "ALLOWED"
            assert reason(validator.authorize("kubectl_get", "prod/web", child)) == "TOKEN_USES_EXHAUSTED"
    rounds.close()


@pytest.mark.parametrize("backend", ["memory", "journal"])
def test_uses_are_given_as_often_as_there_are(serve, folder, backend):
    trust_deployer(folder)
    world = serve(REMIT_STATE_BACKEND=backend)
    seed = int(os.environ.get("REMIT_SEED", "20261122"))
    chance, began, calls = random.Random(seed), time.monotonic(), 0
    clients = [world.fresh(DEPLOYER) for _ in range(8)]
    share = SPENDING_ROUNDS * (3 if backend == "memory" else 1) // 4
    with ThreadPoolExecutor(len(clients)) as pool:
        for number in range(share):
            uses = chance.randint(1, 5)
            token = deployer_token(world, max_uses=uses).token
            racers = chance.sample(clients, chance.randint(uses, len(clients)))
            spends = [pool.submit(racer.authorize, "kubectl_get", "prod/web", token) for racer in racers]
            answers = [reason(spend.result()) for spend in spends]
            expected = ["ALLOWED"] * uses + ["TOKEN_USES_EXHAUSTED"] * (len(racers) - uses)
            assert sorted(answers) == expected, (seed, number)
            calls += len(racers)
    for client in clients:
        client.close()
    assure("races", backend=backend, rounds=share, spends=calls, seed=seed, seconds=round(time.monotonic() - began, 1))
