"""The coordinator hands a part of its authority to the deployer, which uses it, once."""

import sys
from pathlib import Path

import grpc
from remit.v1 import decision_service_pb2 as pb
from remit.v1 import decision_service_pb2_grpc, types_pb2

address, folder = sys.argv[1], Path(sys.argv[2])  # e.g. 127.0.0.1:7443 .remit-dev


def connect(agent):
    ca, key, certificate = ("ca.pem", f"agents/{agent}.key", f"agents/{agent}.pem")
    files = [(folder / name).read_bytes() for name in (ca, key, certificate)]
    channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(*files))
    return decision_service_pb2_grpc.PolicyDecisionServiceStub(channel)


wish = pb.DelegateRequest(to_agent="agent-deployer", capabilities=["kubectl_get"], resources=["prod/*"])
token = connect("agent-coordinator").Delegate(wish).token  # a secret: send it to the deployer and nobody else

deployer = connect("agent-deployer")
for _ in range(2):
    answer = deployer.Authorize(pb.AuthorizeRequest(capability="kubectl_get", resource="prod/web", token=token))
    print(types_pb2.Decision.Name(answer.decision), types_pb2.Reason.Name(answer.reason), answer.message)
