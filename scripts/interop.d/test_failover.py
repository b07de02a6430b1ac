"""Servers die and come back: nothing acknowledged is lost, sessions live on, a minority refuses."""

import re
import threading

import wire
from harness import same, test
from kazoo.client import KazooClient, KazooState
from kazoo.exceptions import ConnectionClosedError, ConnectionLoss, NodeExistsError, OperationTimeoutError
from kazoo.retry import KazooRetry
from tree import converged
from wire import Closed, Raw, eventually


def kazoo(servers, **keywords):
    hosts = ",".join(s.address for s in servers)
    retry = KazooRetry(max_tries=-1, delay=0.02, backoff=1, max_jitter=0, max_delay=0.1, ignore_expire=False)
    client = KazooClient(hosts=hosts, timeout=8, connection_retry=retry, randomize_hosts=keywords.pop("randomize_hosts", False), **keywords)
    client.start(timeout=30)
    return client


def finish(client):
    client.stop()
    client.close()


def zxid_of(server):
    found = re.search(r"^Zxid: (0x[0-9a-f]+)", server.srvr(), re.M)
    return int(found.group(1), 16) if found else 0


class Load:
    """Writers that create numbered nodes and remember which were acknowledged."""

    def __init__(self, ensemble, path, writers=3):
        self.path, self.acknowledged, self.attempted, self.stopping, self.errors = path, set(), set(), threading.Event(), []
        self.clients = [kazoo(ensemble.servers, randomize_hosts=True) for _ in range(writers)]
        self.clients[0].ensure_path(path)
        self.threads = [threading.Thread(target=self.write, args=(n, c), daemon=True) for n, c in enumerate(self.clients)]
        for thread in self.threads:
            thread.start()

    def write(self, writer, client):
        number = 0
        try:
            while not self.stopping.is_set():
                name = f"{writer}-{number}"
                self.attempted.add(name)
                try:
                    client.create(f"{self.path}/{name}", name.encode())
                except NodeExistsError:
                    pass  # the answer to an earlier attempt was lost, the node is there
                except (ConnectionLoss, OperationTimeoutError, ConnectionClosedError):
                    self.stopping.wait(0.01)
                    continue
                self.acknowledged.add(name)
                number += 1
        except Exception as e:
            self.errors.append(f"writer {writer}: {type(e).__name__} {e}")

    def progress(self, count=20):
        """Waits until so many more writes were acknowledged."""
        goal = len(self.acknowledged) + count
        eventually(f"{count} more writes are acknowledged", lambda: self.errors or len(self.acknowledged) >= goal, 60)
        same("errors of the writers", self.errors, [])

    def end(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(60)
        for client in self.clients:
            finish(client)

    def verify(self, ensemble):
        ensemble.ready()
        prefix = self.path + "/"
        nodes = {p[len(prefix):]: v[0].decode() for p, v in converged(ensemble).items() if p.startswith(prefix)}
        lost = sorted(self.acknowledged - nodes.keys())
        same("acknowledged writes that are gone", lost, [])
        same("nodes nobody wrote", sorted(nodes.keys() - self.attempted), [])
        same("data", [n for n, data in nodes.items() if n != data], [])


def restart(server):
    server.start().wait_mode("leader", "follower")


@test("five")
def test_leader_killed_under_load(t):
    load, rounds = Load(t.ensemble, t.path), 4
    try:
        load.progress()
        for _ in range(rounds):
            old = t.ensemble.leader()
            epoch = zxid_of(old) >> 32
            old.kill()
            load.progress()
            new = t.ensemble.leader()
            assert new is not old
            eventually("the epoch has risen", lambda: (zxid_of(new) >> 32) > epoch)
            restart(old)
    finally:
        load.end()
    load.verify(t.ensemble)


@test("five")
def test_follower_killed_and_paused_under_load(t):
    load = Load(t.ensemble, t.path)
    try:
        load.progress()
        first, second = t.ensemble.followers()[:2]
        first.kill()
        second.pause()
        load.progress()
        second.resume()
        restart(first)
        load.progress()
        first.stop()
        load.progress()
        restart(first)
    finally:
        load.end()
    load.verify(t.ensemble)


@test("five")
def test_leader_paused(t):
    load = Load(t.ensemble, t.path)
    try:
        load.progress()
        old = t.ensemble.leader()
        old.pause()
        others = [s for s in t.ensemble.servers if s is not old]
        eventually("another one leads", lambda: next((s for s in others if s.mode() == "leader"), None), 60)
        load.progress()
        old.resume()
        old.wait_mode("follower")
        load.progress()
    finally:
        load.end()
    load.verify(t.ensemble)


@test("five")
def test_two_of_five_killed_serves_three_refuses(t):
    leader = t.ensemble.leader()
    followers = t.ensemble.followers()
    client = kazoo([followers[3]] + [s for s in t.ensemble.servers if s is not followers[3]])
    lost = []
    client.add_listener(lambda state: lost.append(state) if state == KazooState.LOST else None)
    client.create(t.path, b"0")
    for n, server in enumerate(followers[:2]):
        server.kill()
        client.retry(client.set, t.path, b"killed %d" % (n + 1))
    followers[2].kill()
    survivors = t.ensemble.live()
    same("two are left", sorted(s.sid for s in survivors), sorted([leader.sid, followers[3].sid]))
    eventually("the survivors stop serving", lambda: not any(s.mode() for s in survivors))
    for server in survivors:
        said = wire.four_letter(server.host, "stat")
        same(f"{server} says so", said, "This ZooKeeper instance is not currently serving requests\n")
        refused = Raw(server.host, handshake=False)
        try:
            refused.connect(5000)
            raise AssertionError(f"{server} gave out a session without a quorum")
        except Closed:
            pass
    followers[2].start()
    t.ensemble.ready()
    client.retry(client.set, t.path, b"back")
    for server in followers[:2]:
        restart(server)
    same("the session lived through it", lost, [])
    for server in t.ensemble.servers:
        with Raw(server.host) as c:
            c.sync()
            same(f"{server} has the last write", c.get(t.path)[0], b"back")
    finish(client)
    converged(t.ensemble)


@test("five")
def test_sequence_numbers_across_failover(t):
    client = kazoo(t.ensemble.servers)
    client.create(t.path)
    names = [client.create(f"{t.path}/n-", sequence=True) for _ in range(10)]
    for _ in range(2):
        old = t.ensemble.leader()
        old.kill()
        t.ensemble.ready()
        for _ in range(5):
            while True:
                try:
                    names.append(client.create(f"{t.path}/n-", sequence=True))
                    break
                except (ConnectionLoss, ConnectionClosedError):
                    pass
        restart(old)
    numbers = [int(n[-10:]) for n in names]
    same("rising, none twice", numbers, sorted(set(numbers)))
    children = sorted(client.retry(client.get_children, t.path))
    same("every name returned exists", set(n.rsplit("/", 1)[1] for n in names) <= set(children), True)
    same("without holes", [int(c[-10:]) for c in children], list(range(len(children))))
    finish(client)


@test("five")
def test_session_reattaches_when_its_server_is_killed(t):
    for role in ("follower", "leader"):
        server = t.ensemble.by_mode(role)[0]
        others = [s for s in t.ensemble.servers if s is not server]
        client = kazoo([server] + others)
        states = []
        client.add_listener(states.append)
        path = f"{t.path}-{role}"
        client.create(path, b"", ephemeral=True)
        seen = []
        client.exists(path, watch=seen.append)  # kazoo tells a lost connection to watchers and forgets them
        session = client.client_id
        server.kill()
        stat = client.retry(client.exists, path)
        same("same session", client.client_id, session)
        same("its ephemeral is kept", stat.ephemeralOwner, session[0])
        t.ensemble.ready()
        client.retry(client.exists, path, watch=seen.append)
        client.retry(client.set, path, b"1")
        eventually("the watch fires", lambda: ("CHANGED", path) in [(e.type, e.path) for e in seen])
        same("never lost", KazooState.LOST in states, False)
        finish(client)
        restart(server)
        with Raw(server.host) as c:
            c.sync()
            same("gone with its session on the restarted server", c.exists(path), wire.NO_NODE)


@test("five")
def test_watches_move_with_their_session(t):
    server = t.ensemble.followers()[0]
    other = next(s for s in t.ensemble.servers if s is not server)
    c = Raw(server.host)
    for name in ("", "/a", "/b"):
        c.made(t.path + name)
    c.get(f"{t.path}/a", watch=True)
    c.get(f"{t.path}/b", watch=True)
    c.children(t.path, watch=True)
    server.kill()
    with Raw(other.host) as writer:
        writer.sync()
        writer.set(f"{t.path}/a", b"meanwhile")
        writer.made(f"{t.path}/c")
        again = Raw(other.host, session=c.session, passwd=c.passwd, last_zxid=c.zxid)
        names = [wire.vector([f"{t.path}{n}" for n in group], wire.ustring) for group in (("/a", "/b"), (), ("",))]
        again.log.clear()
        again.call(wire.SET_WATCHES, wire.i64(c.zxid) + b"".join(names), xid=-8)
        same("what happened meanwhile", again.take_events(), [(wire.CHANGED, f"{t.path}/a"), (wire.CHILDREN, t.path)])
        writer.set(f"{t.path}/b", b"later")
        again.sync()
        same("what happens later", again.take_events(), [(wire.CHANGED, f"{t.path}/b")])
    again.close()
    restart(server)


@test("five")
def test_ephemerals_of_a_dead_client_go_after_a_failover(t):
    leader = t.ensemble.leader()
    c = Raw(t.ensemble.followers()[0].host, timeout_ms=2000)
    c.made(t.path, flags=1)
    c.abandon()
    leader.kill()
    t.ensemble.ready()
    with Raw(t.ensemble.leader().host) as reader:
        eventually("the new leader expires the session", lambda: reader.exists(t.path) == wire.NO_NODE)
    restart(leader)
    again = Raw(leader.host, session=c.session, passwd=c.passwd)
    same("the session is refused", again.session, 0)


@test("five")
def test_whole_ensemble_killed_and_restarted(t):
    load = Load(t.ensemble, t.path)
    try:
        load.progress(100)
        for server in t.ensemble.servers:
            server.kill()
        for server in t.ensemble.servers:
            server.start()
        t.ensemble.ready()
        load.progress()
    finally:
        load.end()
    load.verify(t.ensemble)


@test("five")
def test_rolling_restart(t):
    load = Load(t.ensemble, t.path)
    try:
        for server in t.ensemble.servers:
            status = server.stop()
            if server.kind == "zkd":
                same(f"exit status of {server} after SIGTERM", status, 0)
            load.progress(10)
            restart(server)
    finally:
        load.end()
    load.verify(t.ensemble)
