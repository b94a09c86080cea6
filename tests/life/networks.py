"""A network of its own for a store, with a cable to each node that can be pulled."""

import os
import shutil
import subprocess


def missing():
    """Why there can be no network of its own, or nothing; and whether that is for want of a tool or of a right."""
    if not shutil.which("ip"):
        return "there is no ip: install iproute2"
    if os.geteuid() != 0:
        return "network namespaces need root"
    return None


def ip(*words):
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr.strip()}"


class Network:
    """A namespace with `cables` pairs of interfaces into this one. Its names and addresses are this process's own."""

    def __init__(self, cables):
        self.name = f"remit{os.getpid()}"
        self.cables = range(cables)
        # 10.x.y.0/24, a cable each, in a part that nothing else here uses.
        self.part = f"10.{200 + os.getpid() % 50}"

    @property
    def inside(self):
        """What a command that is to run in it begins with."""
        return ["ip", "netns", "exec", self.name]

    @property
    def address(self):
        """Where it is reached over its first cable."""
        return self.address_over(0)

    def address_over(self, cable):
        return f"{self.part}.{cable}.2"

    def __enter__(self):
        ip("netns", "add", self.name)
        try:
            ip("-n", self.name, "link", "set", "lo", "up")
            for cable in self.cables:
                here, there = self._ends(cable)
                ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", self.name)
                ip("addr", "add", f"{self.part}.{cable}.1/24", "dev", here)
                ip("-n", self.name, "addr", "add", f"{self.address_over(cable)}/24", "dev", there)
                ip("link", "set", here, "up")
                ip("-n", self.name, "link", "set", there, "up")
        except AssertionError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        # The pairs go with it.
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True, check=False)
        for cable in self.cables:
            subprocess.run(["ip", "link", "del", self._ends(cable)[0]], capture_output=True, check=False)

    def cut(self, cable):
        """Nothing gets through, and nobody is told."""
        ip("-n", self.name, "link", "set", self._ends(cable)[1], "down")

    def mend(self, cable):
        ip("-n", self.name, "link", "set", self._ends(cable)[1], "up")

    def _ends(self, cable):
        return f"rm{os.getpid()}h{cable}", f"rm{os.getpid()}n{cable}"
