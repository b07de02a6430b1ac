"""Data directories change hands: what one kind of server wrote, the other opens, continues and gives back."""

import os

import wire
from harness import same, test
from servers import Ensemble
from test_failover import Load
from tree import compare, converged, dump
from wire import OPEN, Raw, create_body, digest_id, i32, ustring

KEYS = {"tickTime": 2000, "snapCount": 60}


def fill(host, path):
    """Something of everything, and enough of it for several snapshots; leaves a session with an ephemeral."""
    c = Raw(host, timeout_ms=40000)
    c.auth("digest", b"joe:secret")
    c.made(path, b"root of it")
    for n in range(120):
        c.made(f"{path}/n{n:03d}", b"%d" % n * n)
    for n in range(0, 120, 3):
        c.set(f"{path}/n{n:03d}", b"set")
    for n in range(1, 120, 10):
        c.delete(f"{path}/n{n:03d}")
    c.made(f"{path}/null", None)
    c.made(f"{path}/empty", b"")
    c.made(f"{path}/\u00fcml\u00e4ut \u65e5\u672c", "\u65e5".encode())
    c.made(f"{path}/large", bytes(range(256)) * 2000)
    c.made(f"{path}/container", op=wire.CREATE_CONTAINER, flags=4)
    c.made(f"{path}/container/child")
    c.made(f"{path}/ttl", op=wire.CREATE_TTL, flags=5, ttl=(1 << 40) - 1)
    for n in range(5):
        c.made(f"{path}/s-", flags=2)
    acls = [[(31, "auth", "")], [(1, "world", "anyone"), (31, "digest", digest_id("ann:pw"))], [(31, "ip", "127.0.0.0/8")], OPEN]
    for n, acl in enumerate(acls):
        c.made(f"{path}/acl{n}", acl=acl)
    c.set_acl(f"{path}/n000", [(1, "world", "anyone")])
    c.multi([(wire.CREATE, create_body(f"{path}/multi")), (wire.CREATE, create_body(f"{path}/multi/x", b"m")),
             (wire.SET_DATA, ustring(path) + wire.buffer(b"by multi") + i32(-1)), (wire.DELETE, ustring(f"{path}/n002") + i32(-1))])
    c.multi([(wire.CREATE, create_body(f"{path}/undone")), (wire.CHECK, ustring(path) + i32(99))])
    c.made(f"/zookeeper/quota{path}")
    c.made(f"/zookeeper/quota{path}/zookeeper_limits", b"count=1000,bytes=-1")
    c.made(f"/zookeeper/quota{path}/zookeeper_stats", b"count=0,bytes=0")
    c.made(f"{path}/counted", b"12345")
    c.made(f"{path}/ephemeral", b"e", 1)
    c.abandon()
    return c


def take_up(host, session, path):
    """The session of the previous server goes on at this one, and ends here with its ephemeral."""
    with Raw(host, timeout_ms=40000, session=session.session, passwd=session.passwd) as c:
        same("the session is known", c.session, session.session)
        same("its ephemeral", c.exists(f"{path}/ephemeral").ephemeral_owner, session.session)
        stat = c.exists(path)  # its cversion counts creates and deletes, the numbers count creates
        same("numbers go on", c.made(f"{path}/s-", flags=2)[-10:], f"{(stat.cversion + stat.num_children) // 2:010d}")
    with Raw(host) as c:
        same("the ephemeral ends with it", c.exists(f"{path}/ephemeral"), wire.NO_NODE)


@test("directories")
def test_standalone_directory_goes_back_and_forth(t):
    ensemble = Ensemble(t.run, "standalone-directory", ["apache"], keys=KEYS, standalone=True)
    server = ensemble[1]
    steps = [("apache", "stop", ""), ("zkd", "stop", ""), ("apache", "kill", "gz"), ("zkd", "kill", ""), ("apache", "stop", "snappy"),
             ("zkd", "stop", ""), ("apache", "stop", "")]
    before, session, previous = None, None, None
    try:
        for number, (kind, end, compression) in enumerate(steps):
            server.kind = kind if t.run.mode == "zkd" else "apache"
            ensemble.keys = KEYS | {"snapshot.compression.method": compression}
            ensemble.start()
            if before is not None:
                compare(f"step {number}, opened by {server.kind}", dump(server.host), before)
                take_up(server.host, session, previous)
            previous = f"/step{number}"
            session = fill(server.host, previous)
            before = dump(server.host)
            getattr(server, end)()
        files = os.listdir(os.path.join(server.data, "version-2"))
        for suffix in (".gz", ".snappy"):
            assert any(f.endswith(suffix) for f in files), f"no {suffix} snapshot among {files}"
    finally:
        ensemble.stop()


@test("directories")
def test_ensemble_directories_go_back_and_forth(t):
    ensemble = Ensemble(t.run, "ensemble-directories", ["apache"] * 3, keys=KEYS)
    kinds = ["apache", "zkd", "apache"] if t.run.mode == "zkd" else ["apache", "apache"]
    before, session, epoch = None, None, 0
    try:
        for number, kind in enumerate(kinds):
            for server in ensemble.servers:
                server.kind = kind
            ensemble.start()
            tree = converged(ensemble)
            if before is not None:
                compare(f"step {number}, opened by {kind}", tree, before)
                take_up(ensemble[1].host, session, f"/step{number - 1}")
            session = fill(ensemble[1 + number % 3].host, f"/step{number}")
            now = session.zxid >> 32
            assert now > epoch, f"the epoch rises: {now} after {epoch}"
            epoch, before = now, converged(ensemble)
            ensemble.stop()
            for server in ensemble.servers:
                for name in ("acceptedEpoch", "currentEpoch"):
                    with open(os.path.join(server.data, "version-2", name)) as f:
                        same(f"{name} of {server}", f.read(), str(epoch))
    finally:
        ensemble.stop()


@test("directories")
def test_rolling_migration_and_back(t):
    """A live Apache ensemble becomes one of zkd server by server, on the same directories, and Apache's again."""
    ensemble = Ensemble(t.run, "migration", ["apache"] * 3, keys={"snapCount": 100})
    kinds = ["zkd", "apache"] if t.run.mode == "zkd" else ["apache"]
    try:
        ensemble.start()
        fill(ensemble[1].host, "/before")
        load = Load(ensemble, t.path)
        try:
            load.progress()
            for kind in kinds:
                for server in ensemble.servers:
                    server.stop()
                    server.kind = kind
                    server.start().wait_mode("leader", "follower")
                    load.progress(30)
        finally:
            load.end()
        load.verify(ensemble)
        same("what was there before", dump(ensemble[3].host)["/before/n000"][0], b"set")
    finally:
        ensemble.stop()
