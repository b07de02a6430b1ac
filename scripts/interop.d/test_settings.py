"""Settings of zoo.cfg that clients notice: limits, timeouts, whitelist, TTL switch, enforced quotas."""

import wire
from harness import same, test
from wire import Closed, Raw, four_letter

QUOTA_EXCEEDED = -125

KEYS = {"maxClientCnxns": 3, "4lw.commands.whitelist": "srvr, ruok", "extendedTypesEnabled": "false", "jute.maxbuffer": 4096,
        "minSessionTimeout": 700, "maxSessionTimeout": 70000, "enforceQuota": "true", "tickTime": 1000}


@test("settings", "standalone")
def test_session_timeout_bounds(t):
    for asked, got in ((1, 700), (5000, 5000), (10**8, 70000)):
        with Raw(t.host, timeout_ms=asked) as c:
            same(f"timeout for {asked}", c.timeout_ms, got)


@test("settings", "standalone")
def test_connections_of_one_address(t):
    source = t.run.net.prefix + ".210"
    first = [Raw(t.host, source=source) for _ in range(3)]
    try:
        Raw(t.host, source=source)
        raise AssertionError("the fourth connection of one address got a session")
    except Closed:
        pass
    for c in first:
        c.flush()
    with Raw(t.host, source=t.run.net.prefix + ".211"):
        pass  # another address is not counted with them
    first.pop().close()
    wire.eventually("there is room again", lambda: room(t.host, source))
    for c in first:
        c.close()


def room(host, source):
    try:
        Raw(host, source=source).close()
        return True
    except Closed:
        return False


@test("settings", "standalone")
def test_four_letter_whitelist(t):
    same("ruok", four_letter(t.host, "ruok"), "imok")
    for word in ("stat", "mntr", "conf", "isro", "dump", "envi"):
        same(word, four_letter(t.host, word).rstrip("\n"), f"{word} is not executed because it is not in the whitelist.")


@test("settings", "standalone")
def test_ttl_switched_off(t):
    with t.client() as c:
        same("createTTL", c.create2(t.path, b"", 5, op=wire.CREATE_TTL, ttl=1000)[0], wire.UNIMPLEMENTED)
        same("containers are always on", c.create2(t.path, b"", 4, op=wire.CREATE_CONTAINER)[0], 0)


@test("settings", "standalone")
def test_small_frame_limit(t):
    with t.client() as c:
        room_for = 4096 - 8 - len(wire.create_body(t.path, b""))
        same("the largest frame", c.create(t.path, bytes(room_for))[0], 0)
        big = t.client()
        big.send(wire.CREATE, wire.create_body(t.path, bytes(room_for + 1)))
        same("one byte more", big.expect_closed(), b"")
        for n in range(300):
            c.made(f"{t.path}/a-rather-long-name-so-that-the-answer-grows-{n:04d}")
        same("answers are not limited", len(c.children(t.path)), 300)


@test("settings", "standalone")
def test_enforced_quota(t):
    with t.client() as c:
        c.made(t.path, b"12345")
        at = f"/zookeeper/quota{t.path}"
        c.made(at)
        c.made(f"{at}/zookeeper_limits", b"count=2,bytes=10=;byteHardLimit=20;countHardLimit=3")
        c.made(f"{at}/zookeeper_stats", b"count=0,bytes=0")
        c.made(f"{t.path}/a", b"1")
        c.made(f"{t.path}/b", b"1")
        same("one node too many", c.create(f"{t.path}/c")[0], QUOTA_EXCEEDED)
        same("bytes up to the limit", c.set(f"{t.path}/a", bytes(14)).data_length, 14)
        same("one byte too many", c.set(f"{t.path}/a", bytes(15)), QUOTA_EXCEEDED)
        same("nothing of it was kept", (c.exists(f"{t.path}/a").version, c.children(t.path)), (1, ["a", "b"]))
        same("deletes are free", c.delete(f"{t.path}/b"), 0)
        same("there is room again", c.create(f"{t.path}/c", b"1")[0], 0)
