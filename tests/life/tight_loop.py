"""An agent that malfunctions: it uses a token again and again, as fast as it can, until it is under quarantine.

`tight_loop.py ADDRESS FOLDER AGENT`, the token on standard input. Prints what it was told: each reason when it first
came, and how often it came.
"""

import json
import sys
import time
from collections import Counter

from remit_client import Client, authorize_request, certificate_credentials, reason

IN_FLIGHT = 16
SECONDS = 15


def main(address, folder, agent):
    token = sys.stdin.read()
    client = Client(address, certificate_credentials(folder, agent))
    question = authorize_request("kubectl_get", "prod/web", token)
    counts, began = Counter(), time.monotonic()
    # The first use alone, so that the order of what is told is known.
    counts[reason(client.authorize("kubectl_get", "prod/web", token))] += 1
    while "AGENT_QUARANTINED" not in counts and time.monotonic() - began < SECONDS:
        asked = [client.decisions.Authorize.future(question, timeout=10) for _ in range(IN_FLIGHT)]
        counts.update(reason(answer.result()) for answer in asked)
    seconds = time.monotonic() - began
    told = {"order": list(counts), "counts": counts, "seconds": round(seconds, 2), "per_second": round(counts.total() / seconds)}
    print(json.dumps(told))


main(*sys.argv[1:])
