"""An HTTP gateway in front of a queue. It asks Remit about each caller, and hands on who it was: never the caller's JWT."""

import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
from remit.v1 import decision_service_pb2 as pb
from remit.v1 import decision_service_pb2_grpc, types_pb2

import mailbox

address, dev_folder, queue, receiver = sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4]
ME = "svc-demo"  # listed in the policy's enforcement_points, with the receiver among its destinations
CAPABILITY = "kubectl_get"  # what a POST to this gateway amounts to; its path is the resource


def connect():
    files = [(dev_folder / name).read_bytes() for name in ("ca.pem", f"agents/{ME}.key", f"agents/{ME}.pem")]
    channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(*files))
    return decision_service_pb2_grpc.PolicyDecisionServiceStub(channel)


remit = connect()

# What a caller is told when Remit doesn't answer its question. Whatever happened, nothing passes.
STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: 401,  # no good evidence
    grpc.StatusCode.PERMISSION_DENIED: 403,  # good evidence of nobody who may
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
}


class Gateway(BaseHTTPRequestHandler):
    def do_POST(self):
        try:
            identity, answer = self.ask()
        except grpc.RpcError as error:
            return self.answer(STATUS.get(error.code(), 503), error.code().name)
        if answer.decision != types_pb2.DECISION_ALLOW:
            return self.answer(403, types_pb2.Reason.Name(answer.reason))
        if not answer.forwarded_identity:
            return self.answer(503, "there is nothing to hand on")
        body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
        # Only headers that this gateway makes: what the caller sent as x-remit-* or rb-auth-* stays outside, and its
        # JWT too, with which whoever reads the queue could act as the caller everywhere.
        headers = {
            "x-remit-identity": answer.forwarded_identity,
            "x-remit-decision-id": answer.decision_id,
            "rb-auth-token": answer.forwarded_identity,  # the same under the name that RockBot's envelope has for it
        }
        mailbox.put(queue, headers, body)
        return self.answer(202, identity.agent)

    def ask(self):
        scheme, _, bearer = self.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            bearer = ""
        identity = remit.VerifyIdentity(pb.VerifyIdentityRequest(bearer=bearer), timeout=5).identity
        wish = pb.AuthorizeRequest(
            agent=identity.agent,
            agent_credential=pb.AgentCredential(bearer=bearer),
            token=self.headers.get("x-remit-token", ""),
            capability=CAPABILITY,
            resource=self.path.lstrip("/"),
            destination=receiver,
            forward_identity=True,
        )
        return identity, remit.Authorize(wish, timeout=5)

    def answer(self, status, text):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "0"))), Gateway)
    print(server.server_address[1], flush=True)
    server.serve_forever()
