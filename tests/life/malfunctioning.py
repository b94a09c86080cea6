"""The agent in a tight loop, in a process of its own, so that what a test measures is not its own interpreter."""

import json
import subprocess
import sys
import threading

from conftest import HERE, STUBS
from remit_process import environment


class Malfunctioning:
    """A process that loops when it is told to; `others` are asked about meanwhile."""

    def __enter__(self):
        self.process = subprocess.Popen(
            [sys.executable, HERE / "tight_loop.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(PYTHONPATH=f"{STUBS}:{HERE}"),
        )
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(20)

    def loop(self, world, agent, token, seconds, meanwhile, **how):
        """What it was told. `meanwhile(goes_on)` is called once it has begun, and returns when `goes_on()` is false."""
        question = dict(address=world.address(), folder=str(world.remit.folder), agent=agent, token=token, seconds=seconds)
        self.process.stdin.write(json.dumps(question | how) + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "begun\n", "it asks"
        told = []
        reader = threading.Thread(target=lambda: told.append(self.process.stdout.readline()))
        reader.start()
        meanwhile(reader.is_alive)
        reader.join()
        return json.loads(told[0])
