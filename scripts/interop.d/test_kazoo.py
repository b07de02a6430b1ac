"""kazoo as an application uses it: its API and its recipes, on an ensemble with several servers."""

import threading

from harness import same, test
from kazoo.client import TransactionRequest
from kazoo.exceptions import BadVersionError, NoNodeError, NodeExistsError, NotEmptyError, RolledBackError, RuntimeInconsistency
from kazoo.recipe.cache import TreeCache
from kazoo.security import make_acl, make_digest_acl
from test_failover import finish, kazoo
from wire import eventually


def raises(error, function, *args, **keywords):
    try:
        function(*args, **keywords)
    except error:
        return
    raise AssertionError(f"{function.__name__}{args} did not raise {error.__name__}")


@test("quorum")
@test("mixed-apache")
@test("mixed-zkd")
def test_kazoo_api(t):
    zk = kazoo(t.ensemble.servers, auth_data=[("digest", "joe:pw")])
    try:
        path, stat = zk.create(t.path, b"1", include_data=True)
        same("create", (path, stat.version, stat.dataLength), (t.path, 0, 1))
        raises(NodeExistsError, zk.create, t.path)
        same("makepath", zk.create(f"{t.path}/a/b/c", b"x", makepath=True), f"{t.path}/a/b/c")
        same("sequence", zk.create(f"{t.path}/s-", sequence=True, ephemeral=True), f"{t.path}/s-0000000001")
        raises(NotEmptyError, zk.delete, f"{t.path}/a")
        same("set", zk.set(t.path, b"2", version=0).version, 1)
        raises(BadVersionError, zk.set, t.path, b"3", version=0)
        same("get", zk.get(t.path)[0], b"2")
        same("get_children", sorted(zk.get_children(t.path)), ["a", "s-0000000001"])
        same("sync", zk.sync(t.path), t.path)
        acl = [make_digest_acl("joe", "pw", all=True), make_acl("world", "anyone", read=True)]
        zk.set_acls(t.path, acl)
        same("get_acls", sorted(zk.get_acls(t.path)[0]), sorted(acl))
        tx = zk.transaction()
        tx.create(f"{t.path}/tx", b"t")
        tx.set_data(f"{t.path}/tx", b"u", 0)
        tx.check(f"{t.path}/tx", 1)
        tx.delete(f"{t.path}/a/b/c")
        results = tx.commit()
        same("transaction", (results[0], results[1].version, results[2:]), (f"{t.path}/tx", 1, [True, True]))
        tx = TransactionRequest(zk)
        tx.create(f"{t.path}/tx2")
        tx.check(t.path, 99)
        tx.delete(t.path)
        same("failed transaction", [type(r) for r in tx.commit()], [RolledBackError, BadVersionError, RuntimeInconsistency])
        raises(NoNodeError, zk.get, f"{t.path}/tx2")
        zk.delete(t.path, recursive=True)
        same("gone", zk.exists(t.path), None)
    finally:
        finish(zk)


@test("quorum")
@test("mixed-apache")
@test("mixed-zkd")
def test_kazoo_watch_recipes(t):
    servers = t.ensemble.servers
    one, two = kazoo(servers), kazoo(servers[1:] + servers[:1])
    try:
        data, children, cached = [], [], []
        one.create(t.path, b"0")
        two.sync(t.path)
        two.DataWatch(t.path, lambda d, stat: data.append(d))
        two.ChildrenWatch(t.path, lambda names: children.append(sorted(names)))
        cache = TreeCache(two, t.path)
        cache.listen(lambda event: cached.append(event.event_type))
        cache.start()
        for n in range(1, 6):
            one.set(t.path, b"%d" % n)
            one.create(f"{t.path}/{n}", b"%d" % n)
        eventually("DataWatch saw the last", lambda: data[-1] == b"5")
        eventually("ChildrenWatch saw the last", lambda: children[-1] == ["1", "2", "3", "4", "5"])
        eventually("TreeCache holds them", lambda: cache.get_children(t.path, default=[]) and len(cache.get_children(t.path)) == 5
                   and cache.get_data(f"{t.path}/5") is not None and cache.get_data(t.path).data == b"5")
        same("in order", data, sorted(data))
        one.delete(t.path, recursive=True)
        eventually("DataWatch saw the delete", lambda: data[-1] is None)
        cache.close()
    finally:
        finish(one)
        finish(two)


@test("quorum")
@test("mixed-apache")
@test("mixed-zkd")
def test_kazoo_lock_election_counter_queue(t):
    servers = t.ensemble.live()
    clients = [kazoo(servers[n:] + servers[:n]) for n in range(len(servers))]
    clients[0].create(t.path)
    inside, most, turns, failures = [0], [0], [], []

    def work(number, zk):
        try:
            counter, lock = zk.Counter(f"{t.path}/counter"), zk.Lock(f"{t.path}/lock", str(number))
            for _ in range(5):
                with lock:
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    turns.append(number)
                    inside[0] -= 1
                counter += 1
            zk.Election(f"{t.path}/election", str(number)).run(lambda: turns.append(("leader", number)))
            zk.Queue(f"{t.path}/queue").put(b"%d" % number)
        except Exception as e:
            failures.append(f"client {number}: {type(e).__name__} {e}")
    try:
        threads = [threading.Thread(target=work, args=(n, c), daemon=True) for n, c in enumerate(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        same("failures", failures, [])
        same("threads left", [th for th in threads if th.is_alive()], [])
        same("one at a time", most[0], 1)
        same("everybody led once", sorted(x[1] for x in turns if isinstance(x, tuple)), list(range(len(clients))))
        clients[0].sync(t.path)
        same("counter", clients[0].Counter(f"{t.path}/counter").value, 5 * len(clients))
        queue, got = clients[0].Queue(f"{t.path}/queue"), []
        while len(queue):
            got.append(int(queue.get()))
        same("queue", sorted(got), list(range(len(clients))))
    finally:
        for zk in clients:
            finish(zk)
