"""Watches of every kind, their order against replies, removal and catch-up after a reconnect."""

import wire
from harness import everywhere, same
from wire import CHANGED, CHILDREN, CREATED, DELETED, NO_WATCHER, Event, Reader, Reply, i32, i64, ustring, vector


def shape(log):
    """The log as one word per item: events by type, replies as "reply"."""
    return [(e.type, e.path) if isinstance(e, Event) else "reply" for e in log]


@everywhere
def test_one_shot_watches(t):
    with t.client() as c:
        c.made(t.path)
        a = f"{t.path}/a"
        same("exists on a missing node", c.exists(a, watch=True), wire.NO_NODE)
        c.log.clear()
        c.made(a)
        same("event before the reply of the own write", shape(c.log), [(CREATED, a), "reply"])
        event = c.log[0]
        same("state", event.state, 3)
        same("event zxid", event.zxid, t.drift("event zxid", -1, c.log[1].zxid))
        c.take_events()
        c.set(a, b"1")
        same("fired once only", c.events(), [])
        c.get(a, watch=True)
        c.exists(a, watch=True)
        c.set(a, b"2")
        c.set(a, b"3")
        same("exists and getData on one node are one watch", c.events(), [(CHANGED, a)])
        c.children(t.path, watch=True)
        c.children2(a, watch=True)
        c.set(t.path, b"")
        same("a child watch sees no data change", c.events(), [])
        c.made(f"{a}/x")
        same("child made", c.events(), [(CHILDREN, a)])
        c.get(a, watch=True)
        c.delete(f"{a}/x")
        c.children(a, watch=True)
        c.delete(a)
        same("node deleted: one event, then the parent's", c.events(), [(DELETED, a), (CHILDREN, t.path)])
        same("nothing is armed by a failed getData", c.get(a, watch=True)[0], wire.NO_NODE)
        same("nor by a failed getChildren", c.children(a, watch=True), wire.NO_NODE)
        c.made(a)
        same("no event", c.events(), [])
        c.exists(a, watch=True)
        c.set_acl(a, wire.OPEN)
        same("setACL fires nothing", c.events(), [])


@everywhere
def test_watch_fires_before_the_new_state_is_seen(t):
    with t.client() as writer, t.client() as reader:
        writer.made(t.path, b"0")
        reader.sync()
        for n in range(1, 30):
            reader.log.clear()
            data, _ = reader.get(t.path, watch=True)
            writer.set(t.path, b"%d" % n)
            while reader.get(t.path)[0] == data:
                pass
            kinds = [i for i in reader.log if isinstance(i, Event)]
            same("one event", shape(kinds), [(CHANGED, t.path)])
            at = reader.log.index(kinds[0])
            for item in reader.log[:at]:
                if isinstance(item, Reply) and item.err == 0:
                    same("replies before the event show the old data", Reader(item.body).buffer(), data)


@everywhere
def test_persistent_watch(t):
    with t.client() as c:
        a = f"{t.path}/a"
        c.made(t.path)
        r = c.add_watch(a, 0)
        same("addWatch", (r.err, Reader(r.body).i32()), (0, 0))
        c.log.clear()
        c.made(a)
        c.set(a, b"1")
        c.set(a, b"2")
        c.made(f"{a}/b")
        c.set(f"{a}/b", b"")
        c.made(f"{a}/b/c")
        c.delete(f"{a}/b/c")
        c.delete(f"{a}/b")
        c.delete(a)
        c.made(a)
        want = [(CREATED, a), (CHANGED, a), (CHANGED, a), (CHILDREN, a), (CHILDREN, a), (DELETED, a), (CREATED, a)]
        same("stays armed, own node and own children", c.events(), want)
        same("a bad mode", c.add_watch(a, 2).err, wire.MARSHALLING)


@everywhere
def test_recursive_watch(t):
    with t.client() as c:
        a = f"{t.path}/a"
        c.made(t.path)
        c.made(a)
        c.add_watch(a, 1)
        c.children(a, watch=True)
        c.log.clear()
        c.made(f"{a}/b")
        c.made(f"{a}/b/c")
        c.set(f"{a}/b/c", b"1")
        c.made(f"{t.path}/beside")
        c.delete(f"{a}/b/c")
        c.delete(f"{a}/b")
        c.set(a, b"1")
        want = [(CREATED, f"{a}/b"), (CHILDREN, a), (CREATED, f"{a}/b/c"), (CHANGED, f"{a}/b/c"), (DELETED, f"{a}/b/c"),
                (DELETED, f"{a}/b"), (CHANGED, a)]
        same("the whole tree below, no child events of its own", c.events(), want)
        c.multi([(wire.CREATE, wire.create_body(f"{a}/m")), (wire.SET_DATA, ustring(a) + wire.buffer(b"2") + i32(-1)),
                 (wire.DELETE, ustring(f"{a}/m") + i32(-1))])
        same("events of a multi in its order", c.events(), [(CREATED, f"{a}/m"), (CHANGED, a), (DELETED, f"{a}/m")])


@everywhere
def test_order_of_created_and_children_changed(t):
    with t.client() as c:
        a = f"{t.path}/a"
        c.made(t.path)
        c.exists(a, watch=True)
        c.children(t.path, watch=True)
        c.log.clear()
        c.made(a)
        same("created first, then the parent", shape(c.log), [(CREATED, a), (CHILDREN, t.path), "reply"])


@everywhere
def test_remove_and_check_watches(t):
    with t.client() as c:
        def check(kind):
            return c.call(wire.CHECK_WATCHES, ustring(t.path) + i32(kind)).err

        def remove(kind):
            return c.call(wire.REMOVE_WATCHES, ustring(t.path) + i32(kind)).err
        c.made(t.path)
        same("none to begin with", [check(k) for k in (1, 2, 3)], [NO_WATCHER] * 3)
        same("none to remove", [remove(k) for k in (1, 2, 3)], [NO_WATCHER] * 3)
        same("a wrong type", (check(9), remove(0)), (wire.MARSHALLING, wire.MARSHALLING))
        c.get(t.path, watch=True)
        same("a data watch", [check(k) for k in (1, 2, 3)], [NO_WATCHER, 0, 0])
        same("removed", (remove(1), remove(2), remove(2)), (NO_WATCHER, 0, NO_WATCHER))
        c.children(t.path, watch=True)
        same("a child watch", [check(k) for k in (1, 2, 3)], [0, NO_WATCHER, 0])
        same("remove any", (remove(3), check(1)), (0, NO_WATCHER))
        c.add_watch(t.path, 0)
        same("any removes a persistent one", (check(3), remove(3), check(3)), (0, 0, NO_WATCHER))
        for mode, kind, other in ((0, 4, 5), (1, 5, 4)):
            c.add_watch(t.path, mode)
            want = t.drift("persistent watch types", (-5, -5, -5), (NO_WATCHER, 0, 0))
            same(f"type {kind}", (check(other), check(kind), remove(kind)), want)
            remove(3)
        c.log.clear()
        c.set(t.path, b"1")
        same("nothing left that fires", c.events(), [])


@everywhere
def test_set_watches_catch_up(t):
    with t.client() as c:
        for name in ("", "/changed", "/same", "/gone", "/children", "/children/old", "/samechildren"):
            c.made(t.path + name)
        rel = c.zxid
        c.set(f"{t.path}/changed", b"1")
        c.delete(f"{t.path}/gone")
        c.made(f"{t.path}/children/new")
        c.made(f"{t.path}/made")
        zxid = c.zxid
    with t.client(last_zxid=zxid) as c:
        names = lambda *n: vector([f"{t.path}/{x}" for x in n], ustring)
        body = i64(rel) + names("changed", "same", "gone") + names("made", "missing") + names("children", "samechildren", "gone")
        c.log.clear()
        r = c.call(wire.SET_WATCHES, body, xid=-8)
        same("reply", (r.xid, r.err, r.body), (-8, 0, b""))
        want = [(CHANGED, "changed"), (DELETED, "gone"), (CREATED, "made"), (CHILDREN, "children"), (DELETED, "gone")]
        same("what was missed comes before the reply", shape(c.log), [(k, f"{t.path}/{n}") for k, n in want] + ["reply"])
        same("catch-up events carry zxid -1", {e.zxid for e in c.log[:-1]}, {-1})
        c.log.clear()
        for name in ("changed", "same", "children"):
            c.set(f"{t.path}/{name}", b"2")
        c.made(f"{t.path}/missing")
        c.made(f"{t.path}/samechildren/x")
        c.made(f"{t.path}/children/x")
        want = [(CHANGED, f"{t.path}/same"), (CREATED, f"{t.path}/missing"), (CHILDREN, f"{t.path}/samechildren")]
        same("what had not fired is armed", c.events(), want)
        body = i64(c.zxid) + names() * 3 + names("same") + names("changed")
        same("setWatches2", c.call(wire.SET_WATCHES2, body, xid=-8).err, 0)
        c.log.clear()
        c.set(f"{t.path}/same", b"3")
        c.made(f"{t.path}/same/x")
        c.made(f"{t.path}/changed/x")
        want = [(CHANGED, f"{t.path}/same"), (CHILDREN, f"{t.path}/same"), (CREATED, f"{t.path}/changed/x")]
        same("persistent and recursive ones", c.events(), want)


@everywhere
def test_watch_needs_read(t):
    with t.client() as owner, t.client() as c:
        owner.auth("digest", b"o:o")
        owner.made(t.path)
        owner.made(f"{t.path}/hidden", acl=[(31, "digest", wire.digest_id("o:o"))])
        c.sync()
        c.add_watch(t.path, 1)
        c.log.clear()
        owner.set(f"{t.path}/hidden", b"1")
        owner.set(t.path, b"1")
        owner.delete(f"{t.path}/hidden")
        owner.made(f"{t.path}/seen")
        c.sync()
        same("no event of a node without READ", c.take_events(), [(CHANGED, t.path), (CREATED, f"{t.path}/seen")])


@everywhere
def test_session_end_fires_watches(t):
    with t.client() as c:
        c.made(t.path)
        other = t.client()
        for name in ("e1", "e2"):
            other.made(f"{t.path}/{name}", flags=1)
        c.sync()
        c.exists(f"{t.path}/e1", watch=True)
        c.children(t.path, watch=True)
        c.log.clear()
        other.close()
        c.sync()
        events = c.take_events()
        same("deleted, and the parent's children once", sorted(events), [(DELETED, f"{t.path}/e1"), (CHILDREN, t.path)])
