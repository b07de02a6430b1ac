"""Znodes of every type, their data, Stats, versions, sequence numbers, multi and quotas."""

import wire
from harness import everywhere, same
from wire import OPEN, Raw, Reader, boolean, create_body, eventually, i32, ustring

TTL_MAX = (1 << 40) - 1


@everywhere
def test_create_every_type(t):
    with t.client() as c:
        c.made(t.path)
        for number, (flags, ephemeral) in enumerate(((0, False), (1, True), (2, False), (3, True))):
            asked = f"{t.path}/n{flags}"
            err, name, stat = c.create2(asked, b"x", flags)
            same(f"create2 with flags {flags}", err, 0)
            same("path made", name, asked if flags < 2 else f"{asked}{2 * number:010d}")
            same("ephemeralOwner", stat.ephemeral_owner, c.session if ephemeral else 0)
            same("Stat of create2 and exists", stat, c.exists(name))
            same("create answers with the path alone", c.create(f"{t.path}/p{flags}", b"", flags & 1), (0, f"{t.path}/p{flags}"))
        err, name, stat = c.create2(f"{t.path}/container", b"c", 4, op=wire.CREATE_CONTAINER)
        same("container", (err, name, stat.ephemeral_owner), (0, f"{t.path}/container", 0))
        err, name, stat = c.create2(f"{t.path}/ttl", b"t", 5, op=wire.CREATE_TTL, ttl=TTL_MAX)
        same("TTL node", (err, name, stat.ephemeral_owner), (0, f"{t.path}/ttl", 0))
        err, name, stat = c.create2(f"{t.path}/ttl-", b"t", 6, op=wire.CREATE_TTL, ttl=60000)
        same("sequential TTL node", (err, name[:-10], len(name)), (0, f"{t.path}/ttl-", len(f"{t.path}/ttl-") + 10))
        same("op 1 with flag 4 makes a plain node", c.create(f"{t.path}/flag4", b"", 4)[0], 0)
        same("container children", c.create(f"{t.path}/container/child")[0], 0)
        same("TTL node's children", c.create(f"{t.path}/ttl/child", b"", 1)[0], 0)


@everywhere
def test_create_errors(t):
    with t.client() as c:
        c.made(t.path)
        c.made(f"{t.path}/eph", flags=1)
        wanted = [
            ("node exists", t.path, 0, OPEN, wire.NODE_EXISTS),
            ("root", "/", 0, OPEN, wire.NODE_EXISTS),
            ("no parent", f"{t.path}/no/child", 0, OPEN, wire.NO_NODE),
            ("under an ephemeral", f"{t.path}/eph/child", 0, OPEN, wire.NO_CHILDREN_FOR_EPHEMERALS),
            ("ephemeral under an ephemeral", f"{t.path}/eph/child", 1, OPEN, wire.NO_CHILDREN_FOR_EPHEMERALS),
            ("unknown flags", f"{t.path}/x", 9, OPEN, wire.BAD_ARGUMENTS),
            ("TTL flags without a ttl", f"{t.path}/x", 5, OPEN, wire.BAD_ARGUMENTS),
            ("null ACL", f"{t.path}/x", 0, None, wire.INVALID_ACL),
            ("empty ACL", f"{t.path}/x", 0, [], wire.INVALID_ACL),
            ("bad ACL is seen before the missing parent", f"{t.path}/no/child", 0, [], wire.INVALID_ACL),
            ("empty path", "", 0, OPEN, wire.BAD_ARGUMENTS),
            ("relative path", "x", 0, OPEN, wire.BAD_ARGUMENTS),
            ("trailing slash", f"{t.path}/x/", 0, OPEN, wire.NO_NODE),
            ("dot", f"{t.path}/.", 0, OPEN, wire.BAD_ARGUMENTS),
            ("two dots", f"{t.path}/..", 0, OPEN, wire.BAD_ARGUMENTS),
            ("NUL", f"{t.path}/a\0b", 0, OPEN, wire.BAD_ARGUMENTS),
            ("control character", f"{t.path}/a\x1fb", 0, OPEN, wire.BAD_ARGUMENTS),
            ("C1 control", f"{t.path}/a\x85b", 0, OPEN, wire.BAD_ARGUMENTS),
            ("private use", f"{t.path}/a\ue000b", 0, OPEN, wire.BAD_ARGUMENTS),
            ("special", f"{t.path}/a\ufff0b", 0, OPEN, wire.BAD_ARGUMENTS),
            ("supplementary plane", f"{t.path}/a\U0001F600b", 0, OPEN, wire.BAD_ARGUMENTS),
        ]
        for what, path, flags, acl, err in wanted:
            before = c.zxid
            same(f"create: {what}", c.create(path, b"", flags, acl)[0], err)
            assert c.last.zxid > before, f"create: {what}: a refused write uses up a zxid"
            same(f"create: {what}: no body", c.last.body, b"")
        for name in ("a b", "a\u00a0b", "\u200b", "..f", ".f.", "\u00fcml\u00e4ut", "\u65e5\u672c"):
            same(f"create of {name!r}", c.create(f"{t.path}/{name}"), (0, f"{t.path}/{name}"))
        for what, flags, ttl, err in (("ttl 0", 5, 0, wire.BAD_ARGUMENTS), ("ttl 2^40", 5, TTL_MAX + 1, wire.BAD_ARGUMENTS),
                                      ("negative ttl", 5, -1, wire.BAD_ARGUMENTS), ("plain flags", 0, 1000, wire.BAD_ARGUMENTS)):
            same(f"createTTL: {what}", c.create2(f"{t.path}/ttl", b"", flags, op=wire.CREATE_TTL, ttl=ttl)[0], err)
        same("nothing was made by the refused ones", c.exists(f"{t.path}/x"), wire.NO_NODE)
        same("null path", c.call(wire.CREATE, create_body(None)).err, wire.MARSHALLING)
        same("body cut short", c.call(wire.CREATE, i32(99)).err, wire.MARSHALLING)
        same("serves on", c.exists(t.path).version, 0)


@everywhere
def test_sequence_numbers(t):
    with t.client() as c:
        c.made(t.path)
        same("first", c.made(f"{t.path}/s-", flags=2), f"{t.path}/s-0000000000")
        c.made(f"{t.path}/plain")
        same("plain children count too", c.made(f"{t.path}/q", flags=2), f"{t.path}/q0000000002")
        c.delete(f"{t.path}/q0000000002")
        same("numbers are not used twice", c.made(f"{t.path}/q", flags=3), f"{t.path}/q0000000003")
        same("a refused create uses none", c.create(f"{t.path}/plain", flags=0)[0], wire.NODE_EXISTS)
        same("only a number", c.made(f"{t.path}/", flags=2), f"{t.path}/0000000004")
        same("dot with a suffix", c.made(f"{t.path}/.", flags=2), f"{t.path}/.0000000005")
        same("two dots with a suffix", c.made(f"{t.path}/..", flags=2), f"{t.path}/..0000000006")
        xids = [c.send(wire.CREATE2, create_body(f"{t.path}/pipe-", b"", 2)) for _ in range(20)]
        names = [Reader(c.reply(xid).body).ustring() for xid in xids]
        same("pipelined", names, [f"{t.path}/pipe-{n:010d}" for n in range(7, 27)])


@everywhere
def test_null_and_empty_data(t):
    with t.client() as c:
        c.made(t.path)
        for what, data in (("null", None), ("empty", b""), ("bytes", bytes(range(256)))):
            c.made(f"{t.path}/{what}", data)
            got, stat = c.get(f"{t.path}/{what}")
            same(f"{what} data after create", (got, stat.data_length), (data, len(data or b"")))
        for what, data in (("null", b""), ("empty", None), ("bytes", None)):
            c.set(f"{t.path}/{what}", data)
            got, stat = c.get(f"{t.path}/{what}")
            same(f"{what} data after set", (got, stat.data_length, stat.version), (data, 0, 1))


@everywhere
def test_stat_fields(t):
    with t.client() as c:
        _, _, s0 = c.create2(t.path, b"12345")
        z = c.last.zxid
        same("new node", s0[:2] + s0[4:], (z, z, 0, 0, 0, 0, 5, 0, z))
        assert s0.ctime == s0.mtime > 1_500_000_000_000, f"times are wall-clock milliseconds, got {s0.ctime}"
        s1 = c.set(t.path, b"123")
        same("set", s1, s0._replace(mzxid=c.last.zxid, mtime=s1.mtime, version=1, data_length=3))
        assert s1.mtime >= s0.mtime
        s2 = c.set_acl(t.path, [(31, "world", "anyone")])
        same("setACL", s2, s1._replace(aversion=1))
        c.made(f"{t.path}/child")
        s3 = c.exists(t.path)
        z = c.exists(f"{t.path}/child").czxid
        same("child made", s3, s2._replace(pzxid=z, cversion=1, num_children=1))
        c.made(f"{t.path}/child/grandchild")
        c.set(f"{t.path}/child", b"new")
        same("grandchild made, child set", c.exists(t.path), s3)
        c.delete(f"{t.path}/child/grandchild")
        same("delete", c.delete(f"{t.path}/child"), 0)
        s4 = c.exists(t.path)
        same("child deleted", s4, s3._replace(pzxid=c.log[-2].zxid, cversion=2, num_children=0))
        data, stat = c.get(t.path)
        same("getData", (data, stat), (b"123", s4))
        same("getChildren2", c.children2(t.path), ([], s4))
        same("getACL", c.get_acl(t.path), ([(31, "world", "anyone")], s4))
        root = c.exists("/")
        same("root never changes itself", (root.czxid, root.mzxid, root.ctime, root.mtime), (0, 0, 0, 0))


@everywhere
def test_versions(t):
    with t.client() as c:
        c.made(t.path)
        c.made(f"{t.path}/v")
        same("set with the version", c.set(f"{t.path}/v", b"1", 0).version, 1)
        same("set with an old version", c.set(f"{t.path}/v", b"2", 0), wire.BAD_VERSION)
        same("set with any version", c.set(f"{t.path}/v", b"2", -1).version, 2)
        same("the refused set changed nothing", c.get(f"{t.path}/v")[0], b"2")
        same("setACL with an old version", c.set_acl(f"{t.path}/v", OPEN, 3), wire.BAD_VERSION)
        same("setACL", c.set_acl(f"{t.path}/v", OPEN, 0).aversion, 1)
        same("delete with an old version", c.delete(f"{t.path}/v", 1), wire.BAD_VERSION)
        same("delete with the version", c.delete(f"{t.path}/v", 2), 0)
        same("set of a missing node", c.set(f"{t.path}/v", b""), wire.NO_NODE)
        same("setACL of a missing node", c.set_acl(f"{t.path}/v", OPEN), wire.NO_NODE)


@everywhere
def test_delete_errors(t):
    with t.client() as c:
        c.made(t.path)
        c.made(f"{t.path}/a")
        for what, path, err in (("not empty", t.path, wire.NOT_EMPTY), ("missing", f"{t.path}/no", wire.NO_NODE),
                                ("no parent", f"{t.path}/no/no", wire.NO_NODE), ("root", "/", wire.BAD_ARGUMENTS),
                                ("/zookeeper", "/zookeeper", wire.BAD_ARGUMENTS),
                                ("quota", "/zookeeper/quota", wire.BAD_ARGUMENTS),
                                ("config", "/zookeeper/config", wire.BAD_ARGUMENTS),
                                ("empty path", "", wire.BAD_ARGUMENTS)):
            same(f"delete: {what}", c.delete(path), err)


@everywhere
def test_reads(t):
    with t.client() as c:
        c.made(t.path, b"d")
        for name in ("one", "two", "three"):
            c.made(f"{t.path}/{name}")
        same("getChildren", c.children(t.path), ["one", "three", "two"])
        same("getChildren2", c.children2(t.path), (["one", "three", "two"], c.exists(t.path)))
        for what, err in (("exists", c.exists(f"{t.path}/no")), ("getData", c.get(f"{t.path}/no")[0]),
                          ("getChildren", c.children(f"{t.path}/no")), ("getChildren2", c.children2(f"{t.path}/no")[0]),
                          ("getACL", c.get_acl(f"{t.path}/no")[0]), ("getData, bad path", c.get("no")[0]),
                          ("exists, trailing slash", c.exists(f"{t.path}/"))):
            same(f"{what} of a missing node", err, wire.NO_NODE)
        same("exists with NUL", c.exists(f"{t.path}\0"), wire.BAD_ARGUMENTS)
        same("null path", c.exists(None), wire.MARSHALLING)
        same("empty path is the root", c.children(""), c.children("/"))
        assert {"zookeeper", t.path[1:]} <= set(c.children("/"))
        same("the fixed nodes", c.children("/zookeeper"), ["config", "quota"])
        same("ACL of the config node", c.get_acl("/zookeeper/config")[0], [(1, "world", "anyone")])
        number = c.call(wire.GET_ALL_CHILDREN_NUMBER, ustring(t.path))
        same("getAllChildrenNumber", Reader(number.body).i32(), 3)
        same("getAllChildrenNumber of a missing node", c.call(wire.GET_ALL_CHILDREN_NUMBER, ustring("/no")).err, wire.NO_NODE)
        answer = c.sync(f"{t.path}/no")
        same("sync echoes its path", (answer.err, Reader(answer.body).ustring()), (0, f"{t.path}/no"))
        same("sync of null", c.call(wire.SYNC, ustring(None)).err, 0)


@everywhere
def test_reply_zxids(t):
    with t.client() as c:
        c.made(t.path)
        made = c.last.zxid
        same("create's own zxid", made, c.exists(t.path).czxid)
        assert c.last.zxid >= made, "a read shows the last processed zxid"
        xid = c.send(wire.EXISTS, ustring(t.path) + boolean(False), xid=-77)
        same("any xid is echoed", c.reply().xid, xid)
        same("ping is always xid -2", (c.send(wire.PING, xid=12345), c.reply().xid), (12345, -2))
        order = [c.send(wire.SET_DATA, ustring(t.path) + i32(-1) + i32(-1)) for _ in range(10)]
        order += [c.send(wire.EXISTS, ustring(t.path) + boolean(False))]
        replies = [c.reply(xid) for xid in order]
        zxids = [r.zxid for r in replies]
        same("zxids rise", zxids, sorted(zxids))
        same("the read behind the writes sees them", Reader(replies[-1].body).stat().version, 10)


@everywhere
def test_ephemerals(t):
    with t.client() as owner, t.client() as other:
        owner.made(t.path)
        for name in ("a", "ab", "b"):
            owner.made(f"{t.path}/{name}", flags=1)
        other.made(f"{t.path}/other", flags=1)

        def mine(prefix):
            r = owner.call(wire.GET_EPHEMERALS, ustring(prefix))
            return sorted(Reader(r.body).strings())
        all_mine = [f"{t.path}/a", f"{t.path}/ab", f"{t.path}/b"]
        for prefix, want in ((None, all_mine), ("", all_mine), ("/", all_mine), (f"{t.path}/a", all_mine[:2]), ("/no", [])):
            same(f"getEphemerals of {prefix!r}", mine(prefix), want)
        other.sync()
        same("seen by others", other.exists(f"{t.path}/a").ephemeral_owner, owner.session)
        same("may be deleted by others", other.delete(f"{t.path}/b"), 0)
        before = other.exists(t.path)
        answer = owner.call(wire.CLOSE_SESSION)
        same("closeSession", (answer.err, answer.body), (0, b""))
        owner.expect_closed()
        other.sync()
        after = other.exists(t.path)
        same("gone with their session, in its one txn", (other.children(t.path), after.pzxid), (["other"], answer.zxid))
        same("cversion", after.cversion, before.cversion + 2)


@everywhere
def test_container_and_ttl_are_reaped(t):
    with t.client() as c:
        c.made(t.path)
        c.made(f"{t.path}/used", op=wire.CREATE_CONTAINER, flags=4)
        c.made(f"{t.path}/unused", op=wire.CREATE_CONTAINER, flags=4)
        c.made(f"{t.path}/full", op=wire.CREATE_CONTAINER, flags=4)
        c.made(f"{t.path}/full/child")
        c.made(f"{t.path}/used/child")
        c.made(f"{t.path}/ttl", op=wire.CREATE_TTL, flags=5, ttl=200)
        c.made(f"{t.path}/long", op=wire.CREATE_TTL, flags=5, ttl=600_000)
        assert not isinstance(c.exists(f"{t.path}/used", watch=True), int)
        c.log.clear()
        c.delete(f"{t.path}/used/child")
        eventually("the used container is reaped", lambda: c.flush() and c.exists(f"{t.path}/used") == wire.NO_NODE)
        same("told to the watcher", [e for e in c.take_events() if e[1] == f"{t.path}/used"], [(wire.DELETED, f"{t.path}/used")])
        eventually("the TTL node is reaped", lambda: c.exists(f"{t.path}/ttl") == wire.NO_NODE)
        same("the others stay", c.children(t.path), ["full", "long", "unused"])
        for server in t.ensemble.live():
            with Raw(server.host) as reader:
                reader.sync()
                same(f"the same on {server}", reader.children(t.path), ["full", "long", "unused"])


@everywhere
def test_multi(t):
    with t.client() as c:
        c.made(t.path)
        err, results = c.multi([])
        same("empty", (err, results), (0, []))
        err, results = c.multi([
            (wire.CREATE, create_body(f"{t.path}/a", b"1")),
            (wire.CREATE, create_body(f"{t.path}/a/b", b"nested")),
            (wire.CREATE, create_body(f"{t.path}/a/s-", b"", 2)),
            (wire.CREATE, create_body(f"{t.path}/a/s-", b"", 3)),
            (wire.SET_DATA, ustring(f"{t.path}/a") + wire.buffer(b"2") + i32(0)),
            (wire.CHECK, ustring(f"{t.path}/a") + i32(1)),
            (wire.DELETE, ustring(f"{t.path}/a/b") + i32(0)),
        ])
        same("header", err, 0)
        same("types", [(r[0], r[1]) for r in results], [(k, 0) for k in (1, 1, 1, 1, 5, 13, 2)])
        same("paths", [r[2] for r in results[:4]],
             [f"{t.path}/a", f"{t.path}/a/b", f"{t.path}/a/s-0000000001", f"{t.path}/a/s-0000000002"])
        same("Stat of the set", results[4][2].version, 1)
        z = c.multi_zxid
        stat = c.exists(f"{t.path}/a")
        same("one zxid for all", (stat.czxid, stat.mzxid, stat.pzxid), (z, z, z))
        same("the end of it", c.children(f"{t.path}/a"), ["s-0000000001", "s-0000000002"])
        if t.old_apache_follows():
            t.drift("create2 in multi, applied", None, None, decided_by=next(s for s in t.ensemble.servers if s.kind == "apache"))
        else:
            create2_in_multi(t, c)
        err, results = c.multi([(wire.CREATE_CONTAINER, create_body(f"{t.path}/cont", b"", 4)),
                                (wire.CREATE_TTL, create_body(f"{t.path}/ttl", b"", 5, OPEN, 60000))])
        same("container and TTL", (err, [r[1] for r in results]), (0, [0, 0]))
        same("they are there", [c.exists(f"{t.path}/{n}").ephemeral_owner for n in ("cont", "ttl")], [0, 0])


def create2_in_multi(t, c):
    err, results = c.multi([(wire.CREATE2, create_body(f"{t.path}/two", b"12"))])
    want = t.drift("create2 in multi", (wire.CREATE, f"{t.path}/two"), (wire.CREATE2, (f"{t.path}/two", c.exists(f"{t.path}/two"))),
                   decided_by=t.leader())
    same("create2", (err, results[0][0], results[0][2]), (0, *want))


@everywhere
def test_multi_failed(t):
    with t.client() as c:
        c.made(t.path)
        c.exists(f"{t.path}/a", watch=True)
        before, c.log = c.exists(t.path), []
        err, results = c.multi([
            (wire.CREATE, create_body(f"{t.path}/a")),
            (wire.CREATE, create_body(f"{t.path}/s-", b"", 2)),
            (wire.CHECK, ustring(t.path) + i32(7)),
            (wire.DELETE, ustring(f"{t.path}/a") + i32(0)),
        ])
        same("results", (err, results), (0, [(-1, 0, 0), (-1, 0, 0), (-1, wire.BAD_VERSION, wire.BAD_VERSION), (-1, -2, -2)]))
        same("nothing was applied", c.exists(t.path), before)
        same("no watch fired", c.events(), [])
        same("no number was used", c.made(f"{t.path}/s-", flags=2), f"{t.path}/s-0000000000")
        for what, ops in (("a read in it", [(wire.CREATE, create_body(f"{t.path}/x")), (wire.GET_DATA, ustring(t.path) + boolean(False))]),
                          ("only reads", [(wire.GET_DATA, ustring(t.path) + boolean(False))]),
                          ("setACL in it", [(wire.SET_ACL, ustring(t.path) + wire.acl_vector(OPEN) + i32(-1))])):
            same(f"multi with {what}", c.multi(ops)[0], wire.MARSHALLING)
        same("multi with TTL flags", c.multi([(wire.CREATE, create_body(f"{t.path}/x", b"", 5))])[0], wire.MARSHALLING)
        for what, body, old in (("unknown flags", create_body(f"{t.path}/x", b"", 9), wire.BAD_ARGUMENTS),
                                ("null ACL", create_body(f"{t.path}/x", b"", 0, None), wire.INVALID_ACL)):
            # a refused operation up to 3.9, a request that cannot be read in the development version
            got = c.multi([(wire.CREATE, body)])
            assert got in ((0, [(-1, old, old)]), (wire.MARSHALLING, [])), f"multi with {what} gave {got}"
        same("multiRead with a write", c.multi([(wire.CREATE, create_body(f"{t.path}/x"))], op=wire.MULTI_READ)[0], wire.MARSHALLING)
        same("nothing made", c.exists(f"{t.path}/x"), wire.NO_NODE)


@everywhere
def test_multi_read(t):
    with t.client() as c:
        c.made(t.path, b"data")
        c.made(f"{t.path}/child")
        err, results = c.multi([(wire.GET_DATA, ustring(t.path) + boolean(True)), (wire.GET_CHILDREN, ustring(t.path) + boolean(True)),
                                (wire.GET_DATA, ustring(f"{t.path}/no") + boolean(False)),
                                (wire.GET_CHILDREN, ustring(f"{t.path}/child") + boolean(False))], op=wire.MULTI_READ)
        stat = c.exists(t.path)
        same("results", (err, results), (0, [(4, 0, (b"data", stat)), (8, 0, ["child"]), (-1, wire.NO_NODE, wire.NO_NODE), (8, 0, [])]))
        c.log.clear()
        c.set(t.path, b"x")
        same("its watch flags are ignored", c.events(), [])


@everywhere
def test_quota_bookkeeping(t):
    with t.client() as c:
        c.made(t.path, b"12345")
        c.made(f"{t.path}/a", b"123")
        at = f"/zookeeper/quota{t.path}"
        c.made(at)
        c.made(f"{at}/zookeeper_limits", b"count=100,bytes=1000")
        c.made(f"{at}/zookeeper_stats", b"count=0,bytes=0")

        def stats():
            text = c.get(f"{at}/zookeeper_stats")[0].decode()
            return dict(part.split("=", 1) for part in text.replace(";", ",").split(",") if part.strip("="))
        count = lambda: (stats()["count"], stats()["bytes"])
        same("counted when made", count(), ("2", "8"))
        c.made(f"{t.path}/a/deep", b"1")
        same("a create counts", count(), ("3", "9"))
        c.set(f"{t.path}/a", b"1234567890")
        same("a set counts", count(), ("3", "16"))
        c.delete(f"{t.path}/a/deep")
        same("a delete counts", count(), ("2", "15"))
        same("without a version", c.exists(f"{at}/zookeeper_stats").version, 0)
        c.delete(f"{at}/zookeeper_limits")
        c.made(f"{t.path}/b", b"1")
        same("no limits, no counting", count(), ("2", "15"))


@everywhere
def test_top_level_check_and_unknown_opcodes(t):
    with t.client() as c:
        c.made(t.path)
    for op in (10, 23, 99, 108, 888, -12):
        c = Raw(t.host)
        r = c.call(op, ustring(t.path) + i32(0))
        same(f"opcode {op}", (r.zxid, r.err, r.body), (-1, wire.UNIMPLEMENTED, b""))
        c.expect_closed()
    if t.drift("top-level check", False, True):
        c = Raw(t.host)
        same("check outside a multi", c.call(wire.CHECK, ustring(t.path) + i32(0)).err, wire.UNIMPLEMENTED)
        c.expect_closed()
    c = Raw(t.host)
    c.sync()
    same("the server serves on", c.exists(t.path).version, 0)
    c.send(wire.DELETE_CONTAINER, wire.buffer(t.path.encode()))
    try:
        item = c.reply()
        assert item.err != 0 or t.drift("client deleteContainer", True, False), "a client's deleteContainer is refused"
    except wire.Closed:
        pass
    with t.client() as c:
        same("it deleted nothing", c.exists(t.path).version, 0)
    if t.server.kind == t.leader().kind == "zkd":
        with t.client() as c:  # Apache 3.8 dies of this one
            r = c.create2(f"{t.path}/x", b"", 0, op=wire.CREATE_TTL, ttl=-1)
            assert r[0] != 0, "createTTL with plain flags and a negative ttl is refused"
            same("the server serves on", c.exists(t.path).version, 0)


