"""Who asks is settled before a message is read: nobody's messages take no room, and nobody's are waited for long."""

import threading
import time
from pathlib import Path

import grpc
import pytest
from remit_client import OPTIONS
from seed_policy import DEPLOYER

SERVICE = "/remit.v1.PolicyDecisionService/"
HUGE_BATCH = b"\x0a\x00" * 524_000
MIB = 1024 * 1024


@pytest.fixture
def nobody(shared):
    """Connections that show no certificate."""
    root = (shared.remit.folder / "ca.pem").read_bytes()
    credentials = grpc.ssl_channel_credentials(root_certificates=root)
    channels = [grpc.secure_channel(shared.address(), credentials, OPTIONS) for _ in range(4)]
    yield channels
    for channel in channels:
        channel.close()


def resident(remit, what="VmRSS"):
    """Bytes of the process's memory: now, or at its highest."""
    lines = Path(f"/proc/{remit.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{what}:")) * 1024


def ends_with(call):
    with pytest.raises(grpc.RpcError) as error:
        call.result()
    return error.value.code()


@pytest.mark.parametrize("method", ["BatchAuthorize", "BatchDelegate"])
def test_nobodys_batches_take_no_room(shared, nobody, method):
    before = resident(shared.remit, "VmHWM")
    calls = [channel.unary_unary(SERVICE + method).future(HUGE_BATCH, timeout=10) for channel in nobody for _ in range(8)]
    assert {ends_with(call) for call in calls} == {grpc.StatusCode.UNAUTHENTICATED}
    assert resident(shared.remit, "VmHWM") - before < 64 * MIB


@pytest.mark.parametrize("method", ["BatchAuthorize", "BatchDelegate"])
def test_somebodys_huge_batch_is_counted_and_not_unfolded(serve, method):
    # A process of its own: in a shared one an earlier test may have set the high-water mark.
    world = serve()
    before = resident(world.remit, "VmHWM")
    call = world[DEPLOYER].channel.unary_unary(SERVICE + method).future(HUGE_BATCH, timeout=10)
    assert ends_with(call) == grpc.StatusCode.INVALID_ARGUMENT
    assert "at most 100 in a batch" in call.details()
    assert resident(world.remit, "VmHWM") - before < 64 * MIB


def test_half_a_request_ends_by_itself(shared):
    """The message is there, and the stream is not ended: who is somebody is waited for, and not for long."""
    done = threading.Event()

    def half():
        yield b"\x0a\x03get"
        done.wait(60)

    began = time.monotonic()
    calls = [shared[DEPLOYER].channel.stream_unary(SERVICE + "Authorize").future(half(), timeout=50) for _ in range(20)]
    try:
        assert {ends_with(call) for call in calls} == {grpc.StatusCode.DEADLINE_EXCEEDED}
        assert time.monotonic() - began < 25, "the server ended it, long before the client would"
    finally:
        done.set()


def test_probes_are_no_failures_and_bad_credentials_are(shared):
    def failures():
        return shared.remit.metrics().get('remit_unauthenticated_total{method="none"}', 0)

    before = failures()
    assert shared.remit.http("/readyz")[2] == "ready\n"
    assert failures() == before
    assert shared.remit.http("/readyz", authorization="Bearer nonsense")[2] == "ready\n"
    assert failures() == before + 1
