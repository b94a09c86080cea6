"""Three stores, three Remit nodes that share them, and a load that remembers what it was told.

Each node reaches the store over a wire of its own, which leads wherever the operator says. One replica follows over a
wire too, so that it can be made to lag while it goes on acknowledging.
"""

import contextlib
import random
import threading
import time
from collections import Counter

from remit_client import Refused, World, reason
from remit_process import Remit, copy_folder
from replay import replay
from seed_policy import ANALYST, COORDINATOR, DEPLOYER, VALIDATOR, WRITER
from stores import Store, Wire
from waiting import wait_until

USES = 4
TTL = 60
# After a change of primary nothing is answered for four seconds; then a node has five to notice.
SERVE_AFTER = 4
RECOVERY = 5
# The agents whose quarantine is watched. Nothing is allowed to the second one for the whole time.
WATCHED, ALWAYS = ANALYST, WRITER


class Nodes:
    """Remit processes with the keys of one folder, each with a wire to the store."""

    def __init__(self, stack, template, folder, count, primary, replicas=2, sentinels=(), cut=False, **more):
        self.wires = [stack.enter_context(Wire(primary.port)) for _ in range(count)]
        if cut:
            for wire in self.wires:
                wire.cut()
        self.worlds = []
        for number, wire in enumerate(self.wires):
            how = state(primary, folder, replicas) | more
            if sentinels:
                urls = ",".join(f"redis://127.0.0.1:{one.port}" for one in sentinels)
                how |= {"REMIT_STATE_SENTINELS": urls, "REMIT_STATE_SENTINEL_SERVICE": sentinels[0].name}
            else:
                host = "localhost" if primary.tls else "127.0.0.1"
                how["REMIT_STATE_URL"] = f"{primary.scheme}://{host}:{wire.port}"
            self.worlds.append(node(stack, copy_folder(template, folder / f"node{number}"), how))

    def __iter__(self):
        return iter(self.worlds)

    def __len__(self):
        return len(self.worlds)

    def __getitem__(self, index):
        return self.worlds[index]

    def lead_to(self, store, only=None, cut=True):
        """New connections of these nodes, by default of all, end at this store."""
        for number, wire in enumerate(self.wires):
            if only is not None and number not in only:
                continue
            wire.lead_to(store.port)
            if cut:
                wire.cut()
                wire.mend()

    def restart(self, number):
        """Kill -9 and a start, on the same ports, so that clients find it again."""
        world = self.worlds[number]
        ports = world.remit.ports
        world.remit.settings |= {f"REMIT_{name.upper()}_LISTEN": f"127.0.0.1:{ports[name]}" for name in ports}
        world.remit.kill()
        world.remit.start()

    def serve(self, seconds=SERVE_AFTER + RECOVERY, only=None):
        """Waits until a new token is minted and allowed at each node; the seconds that the slowest took."""
        began = time.monotonic()
        for world in self.worlds if only is None else [self.worlds[number] for number in only]:
            left = seconds - (time.monotonic() - began)
            wait_until(lambda world=world: is_served(world), f"it serves again: {problems(world)}", max(left, 0.1), 0.05)
        return time.monotonic() - began


def state(store, folder, replicas):
    """The settings of a node for such a store, without where it is."""
    how = {"REMIT_STATE_BACKEND": "valkey", "REMIT_STATE_REPLICAS": str(replicas)}
    if store.password:
        file = folder / f"{store.port}.password"
        file.write_text(store.password)
        file.chmod(0o600)
        how["REMIT_STATE_PASSWORD_FILE"] = str(file)
    if store.tls:
        how["REMIT_STATE_CA"] = str(store.tls.ca)
    return how


def node(stack, folder, settings):
    remit = Remit(folder, **settings)
    world = World(remit)
    stack.callback(remit.end)
    stack.callback(world.close)
    remit.start()
    for name in (COORDINATOR, DEPLOYER, VALIDATOR, WATCHED, ALWAYS, "ops-admin"):
        world[name]  # noqa: B018 - connected now, because threads share it
    world.administrator()
    return world


def is_served(world):
    with contextlib.suppress(Refused):
        made = world[COORDINATOR].delegate(DEPLOYER, ["kubectl_get"], ["prod/*"])
        return reason(world[DEPLOYER].authorize("kubectl_get", "prod/web", made.token)) == "ALLOWED"


def problems(world):
    with contextlib.suppress(Refused):
        return list(world.administrator().status().details)


class Stores:
    """A primary, a replica that lags when it is told to, and a steady one."""

    def __init__(self, stack, folder, kind="redis", **settings):
        settings = {"min_replicas_to_write": 1} | settings
        self.primary, self.lagging, self.steady = (
            stack.enter_context(Store(folder, kind, **settings)) for _ in range(3)
        )
        self.wire = stack.enter_context(Wire(self.primary.port))
        self.follow()

    def follow(self):
        """Both replicas follow the primary, the lagging one over the wire."""
        self.wire.cut()
        self.wire.lead_to(self.primary.port)
        self.wire.mend()
        self.lagging.follow(self.wire.port)
        self.steady.follow(self.primary.port)
        self.wait()

    def wait(self):
        for replica in (self.lagging, self.steady):
            wait_until(replica.follows, "the replicas follow", 20)
        wait_until(lambda: good_replicas(self.primary) == 2, "the primary counts both replicas", 20)

    def promote(self):
        """The lagging replica becomes the primary; whoever was it becomes the one that lags next."""
        self.wire.cut()
        self.lagging.promote()
        self.primary, self.lagging = self.lagging, self.primary


def good_replicas(store):
    """As its min-replicas-to-write counts them: in reach, and heard of lately."""
    return int(store.info()["min_slaves_good_slaves"])


class Family:
    """A root token and its children: what clients were told of them."""

    def __init__(self, made):
        self.texts = [(DEPLOYER, made.token)]
        self.root = made
        self.allowed = 0
        # When it had been revoked, and when the tokens of an agent in it had been.
        self.revoked_at = None
        self.ended_for = {}

    def ended_at(self, agent):
        moments = [moment for moment in (self.revoked_at, self.ended_for.get(agent)) if moment is not None]
        return min(moments, default=None)


class Oracle:
    """What was handed out, counted apart from the product: by root token."""

    def __init__(self):
        self.lock = threading.Lock()
        self.families = []
        self.quarantined = {}
        self.counts = Counter()
        # While an old primary may still answer, a revocation at the new one isn't heard there.
        self.two_primaries_until = 0.0

    def double_spends(self):
        return sum(max(0, family.allowed - USES) for family in self.families)

    def allowed(self, family, agent, answer, began, place):
        """Counts an answer; an ALLOW that began after its root's revocation had returned is a lost revocation."""
        with self.lock:
            self.counts[answer] += 1
            if answer != "ALLOWED":
                return
            family.allowed += 1
            ended_at = family.ended_at(agent)
            is_revoked = ended_at is not None and began > ended_at
            if is_revoked and began < self.two_primaries_until:
                self.counts["heard_late"] += 1
            elif is_revoked:
                self.counts["lost_revocations"] += 1
                print(f"LOST: allowed at {place} {began - ended_at:.3f} s after its revocation", flush=True)
            if family.allowed > USES:
                print(f"DOUBLE: allowed {family.allowed} times, the last time at {place}", flush=True)

    def live(self):
        """Families whose tokens have not expired yet."""
        now = time.time()
        return [family for family in self.families if family.root.expires_at.seconds > now]

    def try_everything(self, worlds, places):
        """Every token that has not expired is tried again at each of these nodes until it gives no more."""
        live = self.live()
        owner = {text: family for family in live for text in family.texts}
        for world, place in zip(worlds, places, strict=True):
            texts = list(owner)
            while texts:
                began = time.monotonic()
                seen = replay(world, texts, 1)
                texts = [text for text in texts if seen[text]["ALLOWED"]]
                for text, answers in seen.items():
                    for answer in answers:
                        self.allowed(owner[text], text[0], answer, began, place)
        with self.lock:
            self.counts["tried_again"] += len(owner) * len(worlds)
            self.families = live if self.double_spends() == 0 else self.families
        return len(owner)

    def forget_revocations(self, since):
        """What was revoked since then was revoked at a primary that is gone, without a majority: nobody promised it."""
        with self.lock:
            for family in self.families:
                family.ended_for = {agent: at for agent, at in family.ended_for.items() if at < since}
                if family.revoked_at is not None and family.revoked_at >= since:
                    family.revoked_at = None
                    self.counts["revoked_elsewhere"] += 1

    def check_quarantines(self, worlds, places):
        """Whoever was put under quarantine, and was not reinstated, gets nothing anywhere."""
        for agent, is_in_force in self.quarantined.items():
            for world, place in zip(worlds, places, strict=True):
                if is_in_force and (answer := asked_for(world, agent)) not in ("AGENT_QUARANTINED", "STATE_UNAVAILABLE"):
                    self.counts["lost_quarantines"] += 1
                    print(f"LOST: {agent} is not under quarantine at {place}: {answer}", flush=True)


def asked_for(world, agent):
    try:
        world[COORDINATOR].delegate(agent, ["read_file"], ["/data/*"])
        return "ALLOWED"
    except Refused as refusal:
        return refusal.reason


class Load:
    """Threads that delegate, spend, move, revoke and quarantine at any node, whatever the answers are."""

    def __init__(self, nodes, oracle, seed):
        self.nodes = nodes
        self.oracle = oracle
        self.over = threading.Event()
        works = [self._use] * 4 + [self._revoke, self._revoke_agent, self._quarantine]
        self.threads = [
            threading.Thread(target=self._run, args=(work, random.Random(f"{seed} {number}")))
            for number, work in enumerate(works)
        ]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join(30)
            assert not thread.is_alive()

    def _run(self, work, chance):
        while not self.over.is_set():
            try:
                work(chance)
            except Refused as refusal:
                with self.oracle.lock:
                    self.oracle.counts[refusal.reason or refusal.code.name] += 1
                self.over.wait(0.02)

    def _use(self, chance):
        world = chance.choice(list(self.nodes))
        made = world[COORDINATOR].delegate(
            DEPLOYER, ["kubectl_get"], ["prod/*"], max_uses=USES, delegatable=True, ttl=TTL
        )
        family = Family(made)
        with self.oracle.lock:
            self.oracle.families.append(family)
            self.oracle.counts["minted"] += 1
        for _ in range(chance.randrange(USES)):
            with self.oracle.lock:
                family = chance.choice([family, family, chance.choice(self.oracle.families[-200:])])
            self._step(chance, family)
        # So that what is made can be tried again in a few seconds.
        self.over.wait(0.02)

    def _step(self, chance, family):
        number = chance.randrange(len(self.nodes))
        world = self.nodes[number]
        agent, token = chance.choice(family.texts)
        if agent == DEPLOYER and chance.random() < 0.25:
            made = world[DEPLOYER].delegate(VALIDATOR, ["kubectl_get"], ["prod/web"], parent=token)
            family.texts.append((VALIDATOR, made.token))
            return
        began = time.monotonic()
        answer = reason(world[agent].authorize("kubectl_get", "prod/web", token))
        self.oracle.allowed(family, agent, answer, began, f"node {number} under load")

    def _revoke(self, chance):
        self.over.wait(0.03)
        with self.oracle.lock:
            family = chance.choice(self.oracle.families[-200:]) if self.oracle.families else None
        if family:
            chance.choice(list(self.nodes))[COORDINATOR].revoke(token=family.root.token)
            with self.oracle.lock:
                family.revoked_at = time.monotonic()
                self.oracle.counts["revoked"] += 1

    def _revoke_agent(self, chance):
        """Ends what the validator got from roots that there are by now."""
        self.over.wait(0.3)
        with self.oracle.lock:
            minted = list(self.oracle.families)
        chance.choice(list(self.nodes))["ops-admin"].revoke(agent=VALIDATOR)
        with self.oracle.lock:
            self.oracle.counts["revoked_agents"] += 1
            for family in minted:
                family.ended_for.setdefault(VALIDATOR, time.monotonic())

    def _quarantine(self, chance):
        """One agent goes in and out; the other one stays in from its first success."""
        agent = chance.choice([WATCHED, ALWAYS])
        ops = chance.choice(list(self.nodes))["ops-admin"]
        in_force = self.oracle.quarantined
        if agent == WATCHED and in_force.get(agent):
            in_force[agent] = None
            ops.reinstate(agent)
            in_force[agent] = False
        else:
            # In doubt it may be in force or not; one that was in force stays so.
            in_force[agent] = in_force.get(agent) or None
            ops.revoke(agent=agent, quarantine=True)
            in_force[agent] = True
            with self.oracle.lock:
                self.oracle.counts["quarantines"] += 1
        self.over.wait(0.1)
