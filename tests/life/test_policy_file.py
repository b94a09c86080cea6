"""What can befall a policy file befalls it, under load: every answer is the old policy's or the new one's, and none fails.

`REMIT_FILE_FAULTS` says how often each (5), `REMIT_SEED` which random choices.
"""

import os
import random
import time

from assurance import assure
from test_identity import put
from test_reload import CHANGE_SECONDS, Questions, answer_under, digest, failures, policy
from waiting import wait_until

FAULTS = int(os.environ.get("REMIT_FILE_FAULTS", "5"))
SEED = int(os.environ.get("REMIT_SEED", "20261122"))
# Some faults are over before anybody looks, some while it looks.
LONGEST_HURRY = 0.15
GIBIBYTE = 1 << 30
# Much less than the file that is too large.
MOST_MEMORY = 256 << 20


# Each way hurts the file at `path`, waits as it is told, and leaves the new content there.


def truncate(path, content, pause):
    with path.open("r+b") as file:
        file.truncate(0)
        pause()
        file.write(content)


def half_write(path, content, pause):
    with path.open("wb") as file:
        file.write(content[: len(content) // 2])
        file.flush()
        pause()
        file.write(content[len(content) // 2 :])


def rename(path, content, pause):
    path.rename(path.with_suffix(".old"))
    pause()
    put(path, content)


def symlink_swap(path, content, pause):
    """As a ConfigMap: the name is a link into `..data`, which leads nowhere for a while and then to another folder."""
    volume = path.with_name(f"..{time.monotonic_ns()}")
    data, link = path.with_name("..data"), path.with_name("..data_new")
    data.unlink(missing_ok=True)
    path.unlink()
    path.symlink_to("..data/policy.json")
    pause()
    volume.mkdir()
    (volume / "policy.json").write_bytes(content)
    link.symlink_to(volume.name)
    os.replace(link, data)


def delete(path, content, pause):
    path.unlink()
    pause()
    path.write_bytes(content)


def chmod(path, content, pause):
    path.chmod(0)
    pause()
    path.chmod(0o600)
    put(path, content)


def fifo(path, content, pause):
    beside = path.with_suffix(".fifo")
    os.mkfifo(beside)
    os.replace(beside, path)
    pause()
    put(path, content)


def a_gibibyte(path, content, pause):
    beside = path.with_suffix(".large")
    with beside.open("wb") as file:
        file.truncate(GIBIBYTE)
    os.replace(beside, path)
    pause()
    put(path, content)


def nuls(path, content, pause):
    path.write_bytes(b"\0" * len(content))
    pause()
    put(path, content)


WAYS = [truncate, half_write, rename, symlink_swap, delete, chmod, fifo, a_gibibyte, nuls]


def goes_unseen(way):
    """Nobody keeps root from a file."""
    return way is chmod and os.geteuid() == 0


def one_after_the_other(answers, old, new):
    """Some of the old, then only the new."""
    first_new = answers.index(new)
    return set(answers[:first_new]) <= {old} and set(answers[first_new:]) == {new}


def most_memory(remit):
    """The most that the process ever had, in bytes."""
    lines = open(f"/proc/{remit.process.pid}/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def test_whatever_befalls_the_file_an_answer_is_the_old_policys_or_the_new_ones(serve, tmp_path):
    mount = tmp_path / "mount"
    mount.mkdir()
    path, chance, began = mount / "policy.json", random.Random(SEED), time.monotonic()
    contents = [policy(number, granted=number % 2 == 0) for number in range(2)]
    path.write_bytes(contents[0])
    world = serve(REMIT_POLICY_FILE=str(path), REMIT_POLICY_POLL_SECONDS="1")
    order = [way for way in WAYS for _ in range(FAULTS)]
    chance.shuffle(order)
    asked = noticed = 0

    def pause():
        """Until the fault is noticed, or in a hurry."""
        nonlocal noticed
        if goes_unseen(way) or chance.random() < 0.5:
            time.sleep(chance.random() * LONGEST_HURRY)
            return
        wait_until(lambda: failures(world) > before, f"{way.__name__} is noticed", CHANGE_SECONDS)
        noticed += 1

    with Questions(world) as questions, Questions(world) as others:
        for number, way in enumerate(order):
            old, new = contents[number % 2], contents[(number + 1) % 2]
            answers = [answer_under(old, number % 2 == 0), answer_under(new, number % 2 == 1)]
            for asker in (questions, others):
                asker.until(answers[0], "the old policy is in force")
                asker.answers.clear()
            before = failures(world)
            way(path, new, pause)
            for asker in (questions, others):
                asker.until(answers[1], f"the new policy is in force after {way.__name__} ({number}, seed {SEED})")
                asker.some_more(3)
                heard = list(asker.answers)
                assert one_after_the_other(heard, *answers), (way.__name__, number, SEED, set(heard))
                asked += len(heard)
    failed = questions.failures + others.failures
    assert not failed, failed[:3]
    status = world.administrator().status()
    assert status.policy_digest == digest(contents[len(order) % 2])
    assert noticed >= len(order) // 4 and most_memory(world.remit) < MOST_MEMORY
    assure(
        "policy file",
        ways=len(WAYS),
        faults_each=FAULTS,
        noticed=noticed,
        answers=asked,
        of_neither_policy=0,
        errors=0,
        seed=SEED,
        seconds=round(time.monotonic() - began, 1),
    )
