"""Thirty-two clients, each with a connection of its own, race for one token."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from remit_client import Refused, reason
from seed_policy import DEPLOYER, VALIDATOR, deployer_token

RACERS = 32
ROUNDS = 20


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
