"""The examples do what their pages say."""

import re
import subprocess
import sys

from conftest import REPOSITORY, STUBS
from remit_process import environment
from seed_policy import deployer_token
from waiting import wait_until

EXAMPLE = REPOSITORY / "examples/python"


def test_the_python_client(shared):
    address = shared.address()
    command = [sys.executable, str(EXAMPLE / "client.py"), address, str(shared.remit.folder)]
    ran = subprocess.run(command, env=environment(PYTHONPATH=str(STUBS)), capture_output=True, text=True, timeout=30)
    assert ran.returncode == 0, ran.stderr
    shown = re.search(r"```text\n(.*?)```", (EXAMPLE / "README.md").read_text(), re.DOTALL)[1]
    wanted = [line.removesuffix(" …") for line in shown.splitlines()]
    printed = ran.stdout.splitlines()
    assert len(printed) == len(wanted) == 2
    assert all(line.strip().startswith(start) for line, start in zip(printed, wanted)), ran.stdout


def follower(world, place):
    """`follow.py`, and the lines that it prints."""
    key = world.remit.folder / "api_keys/ops-admin.key"
    url = f"http://127.0.0.1:{world.remit.ports['http']}"
    command = [sys.executable, str(REPOSITORY / "examples/events/follow.py"), url, str(key), str(place)]
    following = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return following, iter(following.stdout.readline, "")


def is_at(place, last):
    """The place is written after the line is printed; of another stream's line with this number it never is."""
    try:
        return wait_until(lambda: place.exists() and place.read_text() == last, "", seconds=0.5)
    except AssertionError:
        return False


def test_the_follower_of_events_goes_on_where_it_was(serve, tmp_path):
    world, place, printed = serve(), tmp_path / "place.txt", []
    for _ in range(2):
        deployer_token(world)
        status = world.administrator().status()
        last = f"{status.stream_id}:{status.event_sequence}"
        following, lines = follower(world, place)
        try:
            while not printed or printed[-1][0] != str(status.event_sequence) or not is_at(place, last):
                printed.append(next(lines).split())
        finally:
            following.kill()
            printed += [line.split() for line in lines]
            following.wait()
            following.stdout.close()
        world.close()
        assert world.remit.stop() == 0
        world.remit.start()
    log = world.remit.audit()[: len(printed)]
    assert [int(sequence) for sequence, *_ in printed] == [line["sequence"] for line in log]
    assert len({line["stream_id"] for line in log}) == 2
    shown = re.search(r"```text\n(.*?)```", (REPOSITORY / "examples/events/README.md").read_text(), re.DOTALL)[1]
    assert " ".join(printed[0]).startswith(shown.removesuffix(" …\n"))


def test_it_is_short():
    lines = [line for line in (EXAMPLE / "client.py").read_text().splitlines() if line.strip()]
    assert len(lines) <= 25, len(lines)
