"""Handshake, passwords, re-attach, moved sessions, expiry; bad bytes on every port; four-letter words."""

import re
import socket
import struct

import wire
from harness import everywhere, same, test
from wire import Closed, Raw, eventually, four_letter, i32, session_password, ustring

SESSION_EXPIRED = -112
REFUSED = (0, 0, b"\0" * 16)


def connection_is_open(c):
    try:
        return c.flush() is not None
    except Closed:
        return False


@everywhere
def test_handshake(t):
    tick = 500
    for asked, got in ((10000, 10000), (1, 2 * tick), (0, 2 * tick), (-5, 2 * tick), (10**9, 20 * tick), (3000, 3000)):
        with Raw(t.host, timeout_ms=asked) as c:
            same(f"timeout for {asked}", c.timeout_ms, min(got, 20 * tick))
            same("answer", (len(c.answer), c.protocol, c.answer[-1]), (37, 0, 0))
            sid = 1 if t.ensemble.standalone else t.server.sid
            same("the session id starts with the server id", (c.session >> 56) & 0xFF, sid)
            same("the password is Apache's", c.passwd, session_password(c.session))
    with Raw(t.host, handshake=False) as c:
        c.connect(5000, read_only=None)
        same("44 bytes asked, 36 answered", len(c.answer), 36)
    for passwd in (None, b"", b"password", b"x" * 40):
        with Raw(t.host, passwd=passwd) as c:
            same(f"a new session with password {passwd}", (c.session != 0, len(c.passwd)), (True, 16))
    ids = []
    for _ in range(3):
        with Raw(t.host) as c:
            ids.append(c.session)
    same("ids count up", ids, list(range(ids[0], ids[0] + 3)))


@everywhere
def test_wrong_password(t):
    with Raw(t.host) as c:
        wrong = bytes([c.passwd[0] ^ 1]) + c.passwd[1:]
        for what, session, passwd in (("one bit off", c.session, wrong), ("empty", c.session, b""), ("null", c.session, None),
                                      ("unknown session", 0x7777, session_password(0x7777))):
            r = Raw(t.host, session=session, passwd=passwd)
            same(what, (r.timeout_ms, r.session, r.passwd), REFUSED)
            r.expect_closed()
    with Raw(t.host) as c:
        session, passwd = c.session, c.passwd
    r = Raw(t.host, session=session, passwd=passwd)
    same("a closed session", (r.timeout_ms, r.session, r.passwd), REFUSED)
    r.expect_closed()


@everywhere
def test_client_ahead_of_server(t):
    with Raw(t.host) as c:
        c.sync()
        ahead = Raw(t.host, last_zxid=c.zxid + (1 << 40), handshake=False)
        ahead.send_frame(i32(0) + struct.pack("!q", ahead.zxid) + i32(5000) + struct.pack("!q", 0) + wire.buffer(b"\0" * 16) + b"\0")
        same("closed without a byte", ahead.expect_closed(), b"")


@everywhere
def test_two_connections_for_one_session(t):
    first = t.client()
    first.made(t.path, flags=1)
    second = Raw(t.host, timeout_ms=4000, session=first.session, passwd=first.passwd)
    same("the same session", (second.session, second.passwd), (first.session, first.passwd))
    same("negotiated anew", second.timeout_ms, 4000)
    first.expect_closed()
    same("its ephemeral is kept", second.exists(t.path).ephemeral_owner, second.session)
    second.abandon()
    with Raw(t.host, session=second.session, passwd=second.passwd) as third:
        same("after a lost connection too", (third.session, third.exists(t.path).ephemeral_owner), (second.session,) * 2)
    with t.client() as c:
        same("closed with the session", c.exists(t.path), wire.NO_NODE)


@everywhere
def test_requests_sent_before_the_handshake_is_answered(t):
    c = Raw(t.host, handshake=False)
    c.sock.sendall(b"".join(i32(len(f)) + f for f in (
        i32(0) + bytes(8) + i32(5000) + bytes(8) + wire.buffer(bytes(16)) + b"\0",
        i32(1) + i32(wire.CREATE) + wire.create_body(t.path, b"", 1),
        i32(2) + i32(wire.GET_DATA) + ustring(t.path) + b"\0",
        i32(3) + i32(wire.CLOSE_SESSION),
        i32(4) + i32(wire.CREATE) + wire.create_body(t.path + "-after", b""),
    )))
    same("connect answered", len(c.recv_frame()), 37)
    got = [(r.xid, r.err) for r in (c.reply(), c.reply(), c.reply())]
    same("then the rest, up to the close", got, [(1, 0), (2, 0), (3, 0)])
    rest = c.expect_closed()
    assert rest in (b"",) or struct.unpack("!iiqi", rest)[1::2] == (4, SESSION_EXPIRED), f"behind the close came {rest!r}"
    with t.client() as c:
        same("nothing made after the close", c.exists(t.path + "-after"), wire.NO_NODE)


@everywhere
def test_expiry_removes_ephemerals(t):
    with t.client() as c:
        c.made(t.path)
        gone = Raw(t.host, timeout_ms=1000)
        gone.made(f"{t.path}/eph", flags=1)
        gone.abandon()
        idle = Raw(t.host, timeout_ms=1000)
        idle.made(f"{t.path}/idle", flags=1)
        c.sync()
        c.children(t.path, watch=True)
        while True:
            left = c.children(t.path)
            if not left:
                break
            c.event()
            c.log.clear()
            c.children(t.path, watch=True)
        same("a silent client is disconnected without a message", idle.expect_closed(), b"")
        r = Raw(t.host, session=gone.session, passwd=gone.passwd)
        same("an expired session", (r.timeout_ms, r.session, r.passwd), REFUSED)
        r.expect_closed()


@test("quorum")
def test_pings_keep_a_session_on_every_server(t):
    clients = [Raw(s.host, timeout_ms=1000) for s in t.ensemble.live()]
    with t.client() as c:
        end = c.exists("/")  # the leader's clock is not ours: let three rounds of an expiring session pass
        for n in range(3):
            brief = Raw(t.host, timeout_ms=1000)
            brief.made(f"{t.path}-{n}", flags=1)
            brief.abandon()
            def expired():
                for alive in clients:
                    alive.flush()
                return c.exists(f"{t.path}-{n}") == wire.NO_NODE
            eventually("a silent session expires", expired, every_s=0.1)
        assert end
    for alive in clients:
        same("still the same session", alive.call(wire.EXISTS, ustring("/") + b"\0").err, 0)
        alive.close()


@test("quorum")
@test("mixed-apache")
@test("mixed-zkd")
def test_session_moves_between_servers(t):
    servers = t.ensemble.live()
    c = Raw(servers[0].host)
    c.made(t.path)
    c.made(f"{t.path}/eph", flags=1)
    for old, server in zip(servers, servers[1:] + servers[:1]):
        moved = Raw(server.host, session=c.session, passwd=c.passwd, last_zxid=0)
        same(f"session taken to {server}", moved.session, c.session)
        moved.sync()
        same("ephemeral kept", moved.exists(f"{t.path}/eph").ephemeral_owner, c.session)
        same("the new owner writes", moved.create(f"{t.path}/by-{server.sid}")[0], 0)
        try:  # Apache's leader drops the old connection at once, its learners at the next write
            same("reads by the old one still work", c.call(wire.EXISTS, ustring("/") + b"\0").err, 0)
            c.send(wire.CREATE, wire.create_body(f"{t.path}/lost"))
        except Closed:
            same(f"what closed the connection before it wrote ({old})", (old.kind, old.mode()), ("apache", "leader"))
        same("a write by the old one closes it without a word", c.expect_closed(), b"")
        c = moved
    same("what it asked for was not done", c.exists(f"{t.path}/lost"), wire.NO_NODE)
    c.close()


@test("quorum")
def test_ephemeral_of_an_observers_client(t):
    """An ephemeral made through an observer is gone everywhere once its session closes on another server."""
    observer = t.ensemble.by_mode("observer")[0]
    c = Raw(observer.host)
    c.made(t.path, flags=1)
    c.abandon()
    leader = t.ensemble.leader()
    with Raw(leader.host, session=c.session, passwd=c.passwd) as again:
        same("taken to the leader", again.exists(t.path).ephemeral_owner, c.session)
    for server in t.ensemble.live():
        with Raw(server.host) as reader:
            reader.sync()
            same(f"gone on {server}", reader.exists(t.path), wire.NO_NODE)


@everywhere
def test_frame_limits(t):
    limit = 0xFFFFF
    with t.client() as c:
        overhead = 8 + len(wire.create_body(t.path, b""))
        data = bytes(limit - overhead)
        same("a frame of exactly jute.maxbuffer", c.create(t.path, data), (0, t.path))
        got, stat = c.get(t.path)
        same("read back", (got == data, stat.data_length), (True, len(data)))
        c.set(t.path, None)
        big = t.client()
        try:
            big.send(wire.CREATE, wire.create_body(f"{t.path}/big", data + b"xx"))
        except Closed:
            pass
        same("one byte more is closed without an answer", big.expect_closed(), b"")
        for what, junk in (("negative length", b"\xff\xff\xff\xfe"), ("minimum int", b"\x80\0\0\0"), ("huge length", b"\x7f\xff\xff\xff"),
                           ("no header", i32(0)), ("half a header", i32(4) + i32(1))):
            bad = t.client()
            bad.sock.sendall(junk)
            same(what, bad.expect_closed(), b"")
        same("the server serves on", c.exists(t.path).version, 1)


@everywhere
def test_garbage_instead_of_a_handshake(t):
    junk = [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64), b"\xff" * 64,
            b"nope\n", i32(5) + b"abcde", i32(0), bytes(range(256))]
    for bytes_ in junk:
        c = Raw(t.host, handshake=False)
        c.sock.sendall(bytes_)
        try:
            c.sock.shutdown(socket.SHUT_WR)
        except OSError:
            continue  # closed already
        c.expect_closed()
    with t.client() as c:
        same("the server serves on", c.create(t.path), (0, t.path))


def garbage_on(t, port):
    """Junk from strangers on a port between servers: nobody falls over, nobody loses the leader."""
    leader = t.ensemble.leader()
    epoch = leader_zxid(leader) >> 32
    junk = [b"", b"x", b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100, bytes(100), struct.pack("!i", 0x7FFFFFFF) + b"a" * 50,
            # an election port greeting that announces a huge address, and one from a server nobody knows
            struct.pack("!qqi", -65536, 2, 0x7FFFFFFF), struct.pack("!qqi", -65536, 99, 14) + b"127.0.0.1:3888",
            # a quorum packet: FOLLOWERINFO of an unknown version, then one cut short
            struct.pack("!iqi", 11, 1 << 32, 20) + struct.pack("!qiq", 99, 1, 0) + struct.pack("!i", -1), struct.pack("!i", 11)]
    for server in t.ensemble.live():
        for bytes_ in junk:
            try:
                with socket.create_connection((server.host, port), 5) as s:
                    s.sendall(bytes_)
                    s.shutdown(socket.SHUT_WR)
                    s.settimeout(0.2)
                    try:
                        s.recv(1000)
                    except OSError:
                        pass
            except ConnectionRefusedError:
                break  # only the leader listens on the quorum port
            except OSError:
                pass
    with Raw(leader.host) as c:
        same("serves on", c.create(f"{t.path}")[0], 0)
        same("in the same epoch", c.last.zxid >> 32, epoch)
    same("the leader still leads", leader.mode(), "leader")
    t.ensemble.ready()
    for server in t.ensemble.live():
        with Raw(server.host) as c:
            c.sync()
            same(f"{server} has it", c.exists(t.path).version, 0)


def leader_zxid(server):
    return int(re.search(r"^Zxid: (0x[0-9a-f]+)", server.srvr(), re.M).group(1), 16)


@test("quorum")
@test("mixed-apache")
@test("mixed-zkd")
def test_garbage_on_the_election_port(t):
    garbage_on(t, 3888)


@test("quorum")
@test("mixed-apache")
@test("mixed-zkd")
def test_garbage_on_the_quorum_port(t):
    garbage_on(t, 2888)


LATENCY = r"Latency min/avg/max: \d+/\d+(\.\d+(E-?\d+)?)?/\d+\n"
COUNTS = LATENCY + r"Received: \d+\nSent: \d+\nConnections: \d+\nOutstanding: \d+\nZxid: 0x[0-9a-f]+\n" \
    r"Mode: (leader|follower|observer|standalone)\nNode count: \d+\n(Proposal sizes last/min/max: -?\d+/-?\d+/-?\d+\n)?"
VERSION = r"Zookeeper version: \d+\.\d+\.\d+-\S*, built on [^\n]+\n"
CLIENT = r" /[0-9.]+:\d+\[\d+\]\(queued=\d+,recved=\d+,sent=\d+\)\n"
ALWAYS = ("avg_latency max_latency min_latency packets_received packets_sent num_alive_connections outstanding_requests "
          "server_state znode_count watch_count ephemerals_count approximate_data_size open_file_descriptor_count "
          "max_file_descriptor_count uptime global_sessions local_sessions").split()
LEADER_ONLY = ("learners synced_followers synced_observers synced_non_voting_followers pending_syncs quorum_size "
               "leader_uptime last_proposal_size min_proposal_size max_proposal_size").split()


def shaped(what, text, pattern):
    assert re.fullmatch(pattern, text), f"{what} has another shape: {text!r}"


@everywhere
def test_four_letter_words(t):
    same("ruok", four_letter(t.host, "ruok"), "imok")
    same("isro", four_letter(t.host, "isro"), "rw")
    same("a newline after it", four_letter(t.host, "ruok\n"), "imok")
    with socket.create_connection((t.host, 2181), 5) as s:
        s.sendall(b"ru")
        s.sendall(b"ok")
        same("in two pieces", s.makefile("rb").read(), b"imok")
    mode = t.server.mode()
    with t.client() as c:
        srvr = four_letter(t.host, "srvr")
        shaped("srvr", srvr, VERSION + COUNTS)
        same("Proposal sizes are the leader's", "Proposal sizes" in srvr, mode == "leader")
        shaped("stat", four_letter(t.host, "stat"), VERSION + "Clients:\n(" + CLIENT + ")+\n" + COUNTS)
        c.made(t.path)
        same("the zxid in srvr", leader_zxid(t.server) >= c.last.zxid, True)
    lines = four_letter(t.host, "mntr").splitlines()
    assert lines[0].startswith("zk_version\t"), f"mntr starts with {lines[0]!r}"
    same("the state is second", lines[1], f"zk_server_state\t{mode}")
    values = dict(line.split("\t", 1) for line in lines)
    if mode != "standalone":
        same("peer state", values["zk_peer_state"], {"leader": "leading", "follower": "following", "observer": "observing"}[mode] + " - broadcast")
    missing = [k for k in ALWAYS + (LEADER_ONLY if mode == "leader" else []) if f"zk_{k}" not in values]
    same("missing in mntr", missing, [])
    for key, value in list(values.items())[2:]:
        if key not in ("zk_peer_state", "zk_observer_master_id"):
            float(int(value, 16) if value.startswith("0x") else value)
    conf = dict(line.split("=", 1) for line in four_letter(t.host, "conf").splitlines() if "=" in line)
    wanted = {"clientPort": "2181", "tickTime": "500", "maxClientCnxns": "0", "minSessionTimeout": "1000", "maxSessionTimeout": "10000",
              "serverId": "0" if mode == "standalone" else str(t.server.sid)}
    if mode != "standalone":
        wanted |= {"initLimit": "40", "syncLimit": "20", "electionAlg": "3", "electionPort": "3888", "quorumPort": "2888",
                   "peerType": "1" if mode == "observer" else "0"}
        assert all(f"server.{s.sid}" in conf for s in t.ensemble.servers), f"conf lists the servers: {conf}"
    same("conf", {k: conf.get(k) for k in wanted}, wanted)
    for key in ("dataDir", "dataDirSize", "dataLogDir", "dataLogSize"):
        assert key in conf, f"conf has no {key}"
    if mode != "standalone":
        with t.client() as c:
            text, stat = c.get("/zookeeper/config")
            lines = text.decode().split("\n")
            same("servers in /zookeeper/config", [l.split("=")[0] for l in lines], [f"server.{s.sid}" for s in t.ensemble.servers] + ["version"])
            same("its version", (lines[-1], stat.version), ("version=0", -1))
            same("its shape", lines[0], f"server.1={t.ensemble[1].host}:2888:3888:participant")
