"""The way in: the coordinator starts a chain for a user, the deployer lengthens it, the validator calls the gateway.

Each has an access token of the identity provider, and nothing else: `tokens.json` is {"agent": "JWT", …, "user": "JWT"}.
"""

import json
import sys
import urllib.request
from pathlib import Path

import grpc
from remit.v1 import decision_service_pb2 as pb
from remit.v1 import decision_service_pb2_grpc

address, dev_folder, tokens_file, gateway = sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4]
tokens = json.loads(Path(tokens_file).read_text())
channel = grpc.secure_channel(address, grpc.ssl_channel_credentials((dev_folder / "ca.pem").read_bytes()))
remit = decision_service_pb2_grpc.PolicyDecisionServiceStub(channel)


def delegate(agent, **wish):
    """What this agent hands on."""
    bearer = [("authorization", f"Bearer {tokens[agent]}")]
    return remit.Delegate(pb.DelegateRequest(**wish), metadata=bearer, timeout=5).token


first = delegate(
    "agent-coordinator",
    to_agent="agent-deployer",
    capabilities=["kubectl_get"],
    resources=["prod/*"],
    delegatable=True,
    obo_credential=pb.UserCredential(bearer=tokens["user"]),
)
second = delegate(
    "agent-deployer",
    to_agent="agent-validator",
    capabilities=["kubectl_get"],
    resources=["prod/web"],
    parent_token=first,
)
request = urllib.request.Request(
    f"{gateway}/prod/web",
    data=b"is it healthy?",
    headers={"authorization": f"Bearer {tokens['agent-validator']}", "x-remit-token": second},
)
with urllib.request.urlopen(request, timeout=10) as answer:
    print(answer.status, answer.read().decode())
