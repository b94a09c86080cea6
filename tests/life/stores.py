"""Real Redis and Valkey servers, replicas, sentinels, and a wire between them that can be held.

Everything listens on 127.0.0.1, in a folder of its own, and ends with its `with` block.
"""

import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
from pathlib import Path

from waiting import wait_until

REPOSITORY = Path(__file__).resolve().parents[2]
START_SECONDS = 20
# What docs/operations.md asks of a store, for a quick one: a replica counts for two seconds after its last word.
SETTINGS = {
    "min-replicas-max-lag": 2,
    "maxmemory-policy": "noeviction",
    "repl-backlog-ttl": 0,
    "repl-ping-replica-period": 1,
    "repl-diskless-sync": "yes",
    "repl-diskless-sync-delay": 0,
    "appendonly": "no",
    "save": "",
}


def programs():
    """The kinds of server there are: "redis" and "valkey", as far as they are installed."""
    return [kind for kind in ("redis", "valkey") if program(kind)]


def program(kind):
    """The server's path, or nothing."""
    unpacked = REPOSITORY / f".cache/{kind}-server/usr/bin/{kind}-server"
    return shutil.which(f"{kind}-server") or (str(unpacked) if unpacked.exists() else None)


def missing(kind="redis"):
    """Why there is no such server, or nothing."""
    return None if program(kind) else f"there is no {kind}-server: tests/life/setup installs it"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Failed(Exception):
    """An error the server answered with; its first word is the code."""

    @property
    def code(self):
        return str(self).split(" ", 1)[0]


class Connection:
    """RESP2 over one socket. Answers are bytes, numbers, lists, nothing; errors are raised."""

    def __init__(self, port, password=None, tls=None, user=None, seconds=5.0, host="127.0.0.1"):
        plain = socket.create_connection((host, port), timeout=seconds)
        self.socket = tls.wrap_socket(plain, server_hostname="localhost") if tls else plain
        self.reader = self.socket.makefile("rb")
        if password:
            self.call("AUTH", *([user] if user else []), password)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.reader.close()
        self.socket.close()

    def call(self, *words):
        self.send(*words)
        return self.receive()

    def send(self, *words):
        parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        self.socket.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts))

    def receive(self):
        line = self.reader.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the store closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise Failed(rest.decode())
        if kind == b"+":
            return rest
        number = int(rest)
        if kind == b":":
            return number
        if number < 0:
            return None
        if kind == b"$":
            return self.reader.read(number + 2)[:-2]
        assert kind == b"*", line
        return [self._item() for _ in range(number)]

    def _item(self):
        try:
            return self.receive()
        except Failed as error:
            return error


class Process:
    """A server or a sentinel: its process, its port and its folder."""

    def __init__(self, folder, kind="redis", port=None, network=None):
        self.kind = kind
        # Where it runs, and listens: here, or in a network of its own.
        self.network = network
        self.host = network.address if network else "127.0.0.1"
        self.port = port or free_port()
        self.folder = Path(folder) / f"{kind}-{self.port}"
        self.folder.mkdir(parents=True)
        self.process = None

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.end()

    def _launch(self, *arguments):
        assert self.process is None, "it runs already"
        path = program(self.kind)
        assert path, missing(self.kind)
        libraries = Path(path).parents[1] / "lib/x86_64-linux-gnu"
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*(self.network.inside if self.network else ()), path, *map(str, arguments)],
                cwd=self.folder,
                env={**os.environ, "LD_LIBRARY_PATH": str(libraries)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_until(self._answers, f"{self.kind} answers\n{self.log()}", START_SECONDS)
        return self

    def _answers(self):
        if self.process.poll() is not None:
            raise AssertionError(f"it ended with {self.process.returncode} while starting:\n{self.log()}")
        with contextlib.suppress(OSError, Failed), self.connect() as connection:
            return connection.call("PING") == b"PONG"

    def connect(self):
        return Connection(self.port, host=self.host)

    def call(self, *words):
        """One command over a connection of its own."""
        with self.connect() as connection:
            return connection.call(*words)

    def info(self, section="replication"):
        lines = self.call("INFO", section).decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def log(self):
        return (self.folder / "log").read_text(errors="replace")

    # Endings and rests of this one process.

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process = None

    def end(self):
        """However it stands."""
        if self.process is not None:
            self.kill()


class Store(Process):
    """A server that holds data. `settings`: as in its configuration file, with `_` for `-`."""

    def __init__(self, folder, kind="redis", port=None, password=None, tls=None, network=None, **settings):
        super().__init__(folder, kind, port, network)
        self.password = password
        self.tls = tls
        self.settings = SETTINGS | {name.replace("_", "-"): value for name, value in settings.items()}
        if password:
            self.settings |= {"requirepass": password, "masterauth": password}
        if tls:
            self.settings |= tls.settings(self.port)

    def start(self):
        port = 0 if self.tls else self.port
        bind = "0.0.0.0" if self.network else "127.0.0.1"
        config = {"port": port, "bind": bind, "dir": self.folder, "databases": 1, "protected-mode": "no"}
        lines = [f'{name} "{value}"' for name, value in (config | self.settings).items()]
        # Sentinel has a server rewrite its file: what was there is kept over a restart.
        file = self.folder / "server.conf"
        if not file.exists():
            file.write_text("\n".join(lines) + "\n")
        return self._launch(file)

    @property
    def scheme(self):
        return "rediss" if self.tls else "redis"

    @property
    def url(self):
        """Where it is, without a password."""
        return f"{self.scheme}://{'localhost' if self.tls else self.host}:{self.port}"

    def connect(self):
        return Connection(self.port, self.password, self.tls and self.tls.context(), host=self.host)

    def stop(self, save=False):
        """An orderly stop, with or without a snapshot on disk."""
        with contextlib.suppress(OSError), self.connect() as connection:
            connection.call("SHUTDOWN", "SAVE" if save else "NOSAVE", "NOW")
        self.process.wait(15)
        self.process = None

    # Replication.

    def replicate(self, port):
        """Follows the server at `port`, or a wire to it; returns when the link stands."""
        self.follow(port)
        wait_until(self.follows, "the replica follows", START_SECONDS)

    def follow(self, port):
        self.call("REPLICAOF", "127.0.0.1", port)

    def follows(self):
        info = self.info()
        return info["role"] == "slave" and info["master_link_status"] == "up"

    def promote(self):
        """Makes it a primary, with what it has."""
        self.call("REPLICAOF", "NO", "ONE")
        assert self.info()["role"] == "master"

    def offset(self):
        return int(self.info()["master_repl_offset"])

    def replication_id(self):
        return self.info()["master_replid"]


class Tls:
    """What a store or a Sentinel needs to be asked over TLS alone. `authority` is a certificates.Authority.

    `asks_clients`: whoever shows no certificate of the same authority is refused.
    """

    def __init__(self, folder, authority, name="store", asks_clients=False):
        self.ca = Path(folder) / f"{name}-ca.pem"
        self.ca.write_bytes(authority.certificate)
        self.certificate, self.key = pem_files(folder, name, authority.server())
        self.client = pem_files(folder, f"{name}-client", authority.client(common_name="client"))
        self.asks_clients = asks_clients

    def settings(self, port):
        return {
            "tls-port": port,
            "tls-cert-file": self.certificate,
            "tls-key-file": self.key,
            "tls-client-cert-file": self.client[0],
            "tls-client-key-file": self.client[1],
            "tls-ca-cert-file": self.ca,
            "tls-auth-clients": "yes" if self.asks_clients else "no",
            "tls-replication": "yes",
        }

    def context(self):
        context = ssl.create_default_context(cafile=str(self.ca))
        context.load_cert_chain(*self.client)
        return context


def pem_files(folder, name, issued):
    """The files of a certificate and its key, which is closed to others."""
    certificate, key = (Path(folder) / f"{name}-{part}.pem" for part in ("crt", "key"))
    certificate.write_bytes(issued.certificate)
    key.write_bytes(issued.key)
    key.chmod(0o600)
    return certificate, key


class Sentinel(Process):
    """One sentinel that watches the primary `name`."""

    def __init__(
        self, folder, primary, kind="redis", name="remit", quorum=2, down_after_ms=500, password=None, tls=None, more=()
    ):
        super().__init__(folder, kind)
        self.name = name
        self.password = password
        self.tls = tls
        lines = [
            f"port {0 if tls else self.port}",
            "bind 127.0.0.1",
            f"dir {self.folder}",
            f"sentinel monitor {name} 127.0.0.1 {primary.port} {quorum}",
            f"sentinel down-after-milliseconds {name} {down_after_ms}",
            # Long, because a sentinel lets a replica behind a wire alone for that time.
            f"sentinel failover-timeout {name} 60000",
            f"sentinel parallel-syncs {name} 2",
        ]
        if primary.password:
            lines.append(f"sentinel auth-pass {name} {primary.password}")
        if password:
            lines.append(f"requirepass {password}")
        if tls:
            lines += [f"{setting} {value}" for setting, value in tls.settings(self.port).items()]
        lines += more
        (self.folder / "sentinel.conf").write_text("\n".join(lines) + "\n")

    def start(self):
        return self._launch(self.folder / "sentinel.conf", "--sentinel")

    def connect(self):
        return Connection(self.port, self.password, self.tls and self.tls.context())

    def primary_port(self):
        return int(self.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.name)[1])

    def knows(self, replicas, sentinels):
        """Whether it sees that many replicas and other sentinels."""
        answer = self.call("SENTINEL", "MASTER", self.name)
        state = dict(zip(answer[::2], answer[1::2], strict=True))
        return int(state[b"num-slaves"]) >= replicas and int(state[b"num-other-sentinels"]) >= sentinels


@contextlib.contextmanager
def sentinels(folder, primary, replicas, count=3, **how):
    """As many sentinels, all of which know each other and the replicas."""
    with contextlib.ExitStack() as stack:
        group = [stack.enter_context(Sentinel(folder, primary, **how)) for _ in range(count)]
        for one in group:
            wait_until(lambda one=one: one.knows(replicas, count - 1), "the sentinels know each other", START_SECONDS)
        yield group


class Wire:
    """A way to a port that can be held: while it is, what the port says waits, and what it is asked goes on.

    A replica that follows over a held wire acknowledges what it has and gets nothing new. `cut` ends what stands and
    drops what waits; new connections are refused until `mend`. `lead_to` lets new connections end elsewhere.
    """

    def __init__(self, target):
        self.target = target
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.flows = threading.Event()
        self.flows.set()
        self.is_whole = True
        self.lock = threading.Lock()
        self.sockets = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # A plain close leaves a thread that accepts, and with it the port.
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.cut()

    def hold(self):
        self.flows.clear()

    def let_go(self):
        self.flows.set()

    def cut(self):
        with self.lock:
            self.is_whole = False
            ended, self.sockets = self.sockets, set()
        for one in ended:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self.flows.set()

    def mend(self):
        self.is_whole = True

    def lead_to(self, target):
        self.target = target

    def _accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self.target), timeout=2)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            with self.lock:
                if not self.is_whole:
                    near.close()
                    far.close()
                    continue
                self.sockets |= {near, far}
            threading.Thread(target=self._pump, args=(near, far, None), daemon=True).start()
            threading.Thread(target=self._pump, args=(far, near, self.flows), daemon=True).start()

    def _pump(self, source, sink, gate):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if gate:
                    gate.wait()
                sink.sendall(data)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
