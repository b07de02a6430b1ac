"""ACLs of every scheme, the identities of a connection, and the super user."""

import wire
from harness import everywhere, same
from wire import AUTH_FAILED, INVALID_ACL, NO_AUTH, OPEN, Raw, digest_id

READ, WRITE, CREATE, DELETE, ADMIN, ALL = 1, 2, 4, 8, 16, 31


@everywhere
def test_world_acl(t):
    with t.client() as c:
        c.made(t.path)
        c.made(f"{t.path}/ro", b"x", acl=[(READ, "world", "anyone")])
        ro = f"{t.path}/ro"
        same("read", c.get(ro)[0], b"x")
        same("refused", (c.set(ro, b""), c.create(f"{ro}/x")[0], c.set_acl(ro, OPEN)), (NO_AUTH,) * 3)
        c.made(f"{t.path}/no", acl=[(ADMIN, "world", "anyone")])
        no = f"{t.path}/no"
        same("no READ", (c.get(no)[0], c.children(no), c.children2(no)[0]), (NO_AUTH,) * 3)
        same("getACL by ADMIN", c.get_acl(no)[0], [(ADMIN, "world", "anyone")])
        exists = c.exists(no)
        same("exists without READ", exists if isinstance(exists, int) else 0, t.drift("exists needs READ", 0, NO_AUTH))
        same("getAllChildrenNumber needs READ", c.call(wire.GET_ALL_CHILDREN_NUMBER, wire.ustring(no)).err, NO_AUTH)
        same("NoNode before NoAuth", c.get(f"{no}/no")[0], wire.NO_NODE)
        c.made(f"{t.path}/nd", acl=[(CREATE | READ, "world", "anyone")])
        c.made(f"{t.path}/nd/x")
        same("DELETE is asked of the parent", c.delete(f"{t.path}/nd/x"), NO_AUTH)
        same("even for a missing child", c.delete(f"{t.path}/nd/no"), NO_AUTH)
        same("any bits are kept", (c.create(f"{t.path}/255", acl=[(255, "world", "anyone")])[0], c.get_acl(f"{t.path}/255")[0]),
             (0, [(255, "world", "anyone")]))


@everywhere
def test_digest_acl_and_redaction(t):
    with t.client() as joe, t.client() as other:
        same("auth", joe.auth("digest", b"joe:secret")[2:], (0, b""))
        mine = [(ALL, "digest", digest_id("joe:secret")), (READ, "digest", digest_id("ann:pw"))]
        joe.made(t.path, b"x", acl=mine)
        same("owner sees the hashes", joe.get_acl(t.path)[0], mine)
        other.sync()
        same("a stranger sees nothing", (other.get(t.path)[0], other.get_acl(t.path)[0]), (NO_AUTH, NO_AUTH))
        other.auth("digest", b"ann:pw", xid=77)
        same("the xid is echoed, zxid 0", other.last[:3], (77, 0, 0))
        same("ann reads", other.get(t.path)[0], b"x")
        same("ann does not write", other.set(t.path, b""), NO_AUTH)
        same("ann sees no hashes", other.get_acl(t.path)[0], [(ALL, "digest", "joe:x"), (READ, "digest", "ann:x")])
        same("the wrong password is nobody", (other.auth("digest", b"joe:wrong").err, other.set(t.path, b"")), (0, NO_AUTH))
        same("a user without a colon", other.auth("digest", b"blah").err, 0)
        same("whoAmI", [i for i in other.who_am_i() if i[0] == "digest"],
             [("digest", "ann"), ("digest", "blah"), ("digest", "joe")])
        same("always an address", [i[0] for i in joe.who_am_i()], ["digest", "ip"])
    with t.client() as again:
        same("identities go with their connection", again.get(t.path)[0], NO_AUTH)


@everywhere
def test_auth_acl(t):
    with t.client() as c:
        creator = [(ALL, "auth", "")]
        same("auth without an identity", c.create(t.path, acl=creator)[0], INVALID_ACL)
        c.auth("digest", b"a:1")
        c.auth("digest", b"b:2")
        c.made(t.path, acl=[(READ | ADMIN, "auth", None)])
        want = sorted((READ | ADMIN, "digest", digest_id(i)) for i in ("a:1", "b:2"))
        same("one entry for every identity", sorted(c.get_acl(t.path)[0]), want)
        same("setACL", c.set_acl(t.path, [(ALL, "auth", "whatever")]).aversion, 1)
        same("with all bits", {a[0] for a in c.get_acl(t.path)[0]}, {ALL})


@everywhere
def test_ip_acl(t):
    with t.client() as c:
        c.made(t.path)
        me = c.sock.getsockname()[0]
        net = t.run.net.prefix + ".0/24"
        for name, acl, allowed in (("me", me, True), ("net", "127.0.0.0/8", True), ("other", "127.9.9.9", False),
                                   ("othernet", "10.0.0.0/8", False), ("any", "0.0.0.0/0", True)):
            c.made(f"{t.path}/{name}", acl=[(ALL, "ip", acl)])
            got = c.get(f"{t.path}/{name}")[0]
            same(f"ip ACL {acl} for {me}", got, b"" if allowed else NO_AUTH)
        got = c.create(f"{t.path}/v6", acl=[(ALL, "ip", "::1")])[0]
        same("an IPv6 address", got, t.drift("IPv6 in ip ACLs", INVALID_ACL, 0, t.leader()))
        if got == 0:
            same("does not match an IPv4 client", c.get(f"{t.path}/v6")[0], NO_AUTH)
        same("kept as given", c.get_acl(f"{t.path}/net")[0], [(ALL, "ip", "127.0.0.0/8")])
        same("the block of this run", c.create(f"{t.path}/block", acl=[(ALL, "ip", net)])[0], 0)
        same("the ip op adds nothing and succeeds", c.auth("ip", b"junk").err, 0)
    source = t.run.net.prefix + ".200"
    with Raw(t.host, source=source) as far:
        far.sync()
        same("another address of the block", (far.get(f"{t.path}/block")[0], far.get(f"{t.path}/me")[0] == b""), (b"", me == source))


@everywhere
def test_invalid_acls(t):
    with t.client() as c:
        c.made(t.path)
        bad = [[], None, [(ALL, "nosuch", "x")], [(ALL, "world", "someone")], [(ALL, "digest", "nocolon")],
               [(ALL, "digest", "a:b:c")], [(ALL, "digest", "u:")], [(ALL, "ip", "1.2.3")], [(ALL, "ip", "1.2.3.4/33")],
               [(ALL, "ip", "host")], [(ALL, None, "x")], [(ALL, "super", "")], [(ALL, "world", "anyone"), (ALL, "nosuch", "")]]
        for acl in bad:
            same(f"create with {acl}", c.create(f"{t.path}/x", acl=acl)[0], INVALID_ACL)
            same(f"setACL with {acl}", c.set_acl(t.path, acl), INVALID_ACL)
        same("world with a null id", c.create(f"{t.path}/x", acl=[(ALL, "world", None)])[0], wire.MARSHALLING)
        double = [(READ, "world", "anyone"), (ALL, "digest", "a:b"), (READ, "world", "anyone")]
        c.made(f"{t.path}/double", acl=double)
        same("duplicates collapse", c.get_acl(f"{t.path}/double")[0], [(READ, "world", "anyone"), (ALL, "digest", "a:x")])
        same("nothing was made", c.children(t.path), ["double"])


@everywhere
def test_super_user(t):
    with t.client() as c, t.client() as root:
        c.auth("digest", b"me:me")
        c.made(t.path, b"x", acl=[(READ, "digest", digest_id("me:me"))])
        root.sync()
        root.auth("digest", b"super:wrong")
        same("the wrong password", root.get(t.path)[0], NO_AUTH)
        root.auth("digest", b"super:test")
        same("super reads", root.get(t.path)[0], b"x")
        same("super sees the hashes", root.get_acl(t.path)[0], [(READ, "digest", digest_id("me:me"))])
        same("super writes", root.set(t.path, b"y").version, 1)
        same("super sets ACLs", root.set_acl(t.path, OPEN).aversion, 1)
        assert ("super", "") in root.who_am_i(), "whoAmI tells super"


@everywhere
def test_failed_auth_closes(t):
    for scheme, data in (("nosuch", b"x"), ("world", b"anyone"), ("super", b"test"), ("auth", b""), ("digest", None)):
        c = Raw(t.host)
        r = c.auth(scheme, data)
        same(f"auth with {scheme}", (r.xid, r.zxid, r.err), (-4, 0, AUTH_FAILED))
        same("then the end", c.expect_closed(), b"")
