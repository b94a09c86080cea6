"""Asks for every token again, in batches."""

from collections import Counter, defaultdict

from remit_client import authorize_request, reason

BATCH = 100


def replay(clients, texts, times):
    """Tries each (agent, token) that often. Returns, for each, how often which reason was given.

    `clients`: by agent, a World or a dictionary.
    """
    seen = {text: Counter() for text in texts}
    by_agent = defaultdict(list)
    for agent, token in texts:
        by_agent[agent] += [token] * times
    for agent, tokens in by_agent.items():
        for start in range(0, len(tokens), BATCH):
            some = tokens[start : start + BATCH]
            requests = [authorize_request("kubectl_get", "prod/web", token) for token in some]
            for token, answer in zip(some, clients[agent].batch_authorize(requests), strict=True):
                seen[agent, token][reason(answer)] += 1
    return seen
