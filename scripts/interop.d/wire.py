"""A small raw ZooKeeper client: the bytes as they are, in the order they come.

kazoo hides what these tests are about (null against empty strings, reply zxids, the order of events
and replies, opcodes it does not know), so the byte-level tests speak jute by themselves. Everything
that arrives is kept in `log`, events and replies in one list, so that a test can judge the order.
"""

import base64
import collections
import hashlib
import socket
import struct
import time

OPEN = [(31, "world", "anyone")]

CREATE, DELETE, EXISTS, GET_DATA, SET_DATA, GET_ACL, SET_ACL, GET_CHILDREN, SYNC = 1, 2, 3, 4, 5, 6, 7, 8, 9
PING, GET_CHILDREN2, CHECK, MULTI, CREATE2, RECONFIG = 11, 12, 13, 14, 15, 16
CHECK_WATCHES, REMOVE_WATCHES, CREATE_CONTAINER, DELETE_CONTAINER, CREATE_TTL, MULTI_READ = 17, 18, 19, 20, 21, 22
AUTH, SET_WATCHES, SASL, GET_EPHEMERALS, GET_ALL_CHILDREN_NUMBER = 100, 101, 102, 103, 104
SET_WATCHES2, ADD_WATCH, WHO_AM_I, CLOSE_SESSION = 105, 106, 107, -11

OK, MARSHALLING, UNIMPLEMENTED, BAD_ARGUMENTS, RUNTIME_INCONSISTENCY = 0, -5, -6, -8, -2
NO_NODE, NO_AUTH, BAD_VERSION, NO_CHILDREN_FOR_EPHEMERALS = -101, -102, -103, -108
NODE_EXISTS, NOT_EMPTY, INVALID_ACL, AUTH_FAILED, NO_WATCHER = -110, -111, -114, -115, -121

CREATED, DELETED, CHANGED, CHILDREN = 1, 2, 3, 4

Stat = collections.namedtuple(
    "Stat",
    "czxid mzxid ctime mtime version cversion aversion ephemeral_owner data_length num_children pzxid",
)
Reply = collections.namedtuple("Reply", "xid zxid err body")
Event = collections.namedtuple("Event", "zxid type state path")


class Closed(Exception):
    """The server closed the connection."""


def i32(value):
    return struct.pack("!i", value)


def i64(value):
    return struct.pack("!q", value)


def boolean(value):
    return b"\1" if value else b"\0"


def buffer(value):
    return i32(-1) if value is None else i32(len(value)) + value


def ustring(value):
    return buffer(None if value is None else value.encode("utf-8", "surrogatepass"))


def vector(values, encode):
    return i32(-1) if values is None else i32(len(values)) + b"".join(encode(v) for v in values)


def acl_vector(acl):
    return vector(acl, lambda a: i32(a[0]) + ustring(a[1]) + ustring(a[2]))


def digest_id(user_and_password):
    """The id of the digest scheme: user:base64(sha1(user:password))."""
    user = user_and_password.split(":", 1)[0]
    sum_ = base64.b64encode(hashlib.sha1(user_and_password.encode()).digest()).decode()
    return f"{user}:{sum_}"


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, fmt):
        size = struct.calcsize(fmt)
        if self.at + size > len(self.data):
            raise ValueError(f"reply too short: {size} more bytes wanted at {self.at} of {len(self.data)}")
        values = struct.unpack_from(fmt, self.data, self.at)
        self.at += size
        return values[0] if len(values) == 1 else values

    def i32(self):
        return self.take("!i")

    def i64(self):
        return self.take("!q")

    def boolean(self):
        return self.take("!B")

    def buffer(self):
        length = self.i32()
        return None if length == -1 else self.take(f"!{length}s")

    def ustring(self):
        value = self.buffer()
        return None if value is None else value.decode()

    def strings(self):
        return [self.ustring() for _ in range(self.i32())]

    def stat(self):
        return Stat(*self.take("!qqqqiiiqiiq"))

    def acl(self):
        return [(self.i32(), self.ustring(), self.ustring()) for _ in range(self.i32())]

    def end(self):
        if self.at != len(self.data):
            raise ValueError(f"{len(self.data) - self.at} bytes too many in the reply")


class Raw:
    """One connection. Requests are numbered 1, 2, ... like the Java client does."""

    def __init__(self, host, timeout_ms=10000, session=0, passwd=b"\0" * 16, last_zxid=0,
                 read_only=False, port=2181, handshake=True, source=None):
        self.sock = socket.create_connection((host, port), 20, source_address=(source, 0) if source else None)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.settimeout(30)
        self.pending, self.log, self.xid, self.zxid = b"", [], 0, last_zxid
        self.session, self.passwd = session, passwd
        if handshake:
            self.connect(timeout_ms, read_only)

    def connect(self, timeout_ms, read_only=False):
        """Sends a ConnectRequest and takes the answer; `read_only=None` leaves that byte out."""
        tail = b"" if read_only is None else boolean(read_only)
        self.send_frame(i32(0) + i64(self.zxid) + i32(timeout_ms) + i64(self.session) + buffer(self.passwd) + tail)
        self.answer = self.recv_frame()
        r = Reader(self.answer)
        self.protocol, self.timeout_ms, self.session = r.i32(), r.i32(), r.i64()
        self.passwd = r.buffer()

    def send_frame(self, payload):
        try:
            self.sock.sendall(i32(len(payload)) + payload)
        except OSError as e:
            raise Closed(str(e)) from e

    def recv_exact(self, size):
        while len(self.pending) < size:
            try:
                more = self.sock.recv(1 << 20)
            except ConnectionError as e:
                raise Closed(str(e)) from e
            if not more:
                raise Closed("end of stream")
            self.pending += more
        out, self.pending = self.pending[:size], self.pending[size:]
        return out

    def recv_frame(self):
        return self.recv_exact(struct.unpack("!i", self.recv_exact(4))[0])

    def send(self, op, body=b"", xid=None):
        if xid is None:
            self.xid += 1
            xid = self.xid
        self.send_frame(i32(xid) + i32(op) + body)
        return xid

    def recv(self):
        """The next thing that arrives: an Event or a Reply; also put into `log`."""
        frame = self.recv_frame()
        r = Reader(frame)
        xid, zxid, err = r.i32(), r.i64(), r.i32()
        if xid == -1:
            item = Event(zxid, r.i32(), r.i32(), r.ustring())
            r.end()
        else:
            item = self.last = Reply(xid, zxid, err, frame[16:])
            if zxid > 0 and xid not in (-2, -4):
                self.zxid = max(self.zxid, zxid)
        self.log.append(item)
        return item

    def reply(self, xid=None):
        while True:
            item = self.recv()
            if isinstance(item, Reply):
                if xid is not None and item.xid != xid:
                    raise AssertionError(f"reply to xid {item.xid}, expected xid {xid}")
                return item

    def call(self, op, body=b"", xid=None):
        return self.reply(self.send(op, body, xid))

    def event(self):
        """The next event; a reply in between is an error."""
        item = self.recv()
        assert isinstance(item, Event), f"expected an event, got {item}"
        return item

    def take_events(self):
        """The events logged so far as (type, path); the log is emptied."""
        out = [(e.type, e.path) for e in self.log if isinstance(e, Event)]
        self.log.clear()
        return out

    def flush(self):
        """A ping there and back: whatever was on its way before has arrived."""
        r = self.call(PING, xid=-2)
        assert (r.err, r.body) == (0, b""), f"ping answered {r}"
        return r

    def events(self):
        self.flush()
        return self.take_events()

    def expect_closed(self, within_s=20):
        """Reads until the server closes; gives the bytes that came before."""
        self.sock.settimeout(within_s)
        out, self.pending = self.pending, b""
        try:
            while True:
                more = self.sock.recv(65536)
                if not more:
                    return out
                out += more
        except ConnectionError:
            return out
        except TimeoutError:
            raise AssertionError(f"connection still open after {within_s} s") from None

    def abandon(self):
        """Closes the socket only: the session lives on until its timeout."""
        self.sock.close()

    def close(self):
        try:
            self.call(CLOSE_SESSION)
        except (Closed, OSError):
            pass
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # Requests with their answers taken apart. Each gives (err, ...) so that a test can compare.

    def create(self, path, data=b"", flags=0, acl=OPEN):
        r = self.call(CREATE, ustring(path) + buffer(data) + acl_vector(acl) + i32(flags))
        return r.err, (Reader(r.body).ustring() if r.err == 0 else None)

    def create2(self, path, data=b"", flags=0, acl=OPEN, op=CREATE2, ttl=None):
        r = self.call(op, create_body(path, data, flags, acl, ttl))
        if r.err:
            return r.err, None, None
        b = Reader(r.body)
        out = (0, b.ustring(), b.stat())
        b.end()
        return out

    def made(self, path, data=b"", flags=0, acl=OPEN, **kw):
        """Creates and insists on it; gives the path made."""
        err, name, _ = self.create2(path, data, flags, acl, **kw)
        assert err == 0, f"create {path} gave error {err}"
        return name

    def delete(self, path, version=-1):
        return self.call(DELETE, ustring(path) + i32(version)).err

    def exists(self, path, watch=False):
        r = self.call(EXISTS, ustring(path) + boolean(watch))
        return Reader(r.body).stat() if r.err == 0 else r.err

    def get(self, path, watch=False):
        r = self.call(GET_DATA, ustring(path) + boolean(watch))
        if r.err:
            return r.err, None
        b = Reader(r.body)
        return b.buffer(), b.stat()

    def set(self, path, data, version=-1):
        r = self.call(SET_DATA, ustring(path) + buffer(data) + i32(version))
        return Reader(r.body).stat() if r.err == 0 else r.err

    def children(self, path, watch=False):
        r = self.call(GET_CHILDREN, ustring(path) + boolean(watch))
        return sorted(Reader(r.body).strings()) if r.err == 0 else r.err

    def children2(self, path, watch=False):
        r = self.call(GET_CHILDREN2, ustring(path) + boolean(watch))
        if r.err:
            return r.err, None
        b = Reader(r.body)
        return sorted(b.strings()), b.stat()

    def get_acl(self, path):
        r = self.call(GET_ACL, ustring(path))
        if r.err:
            return r.err, None
        b = Reader(r.body)
        return b.acl(), b.stat()

    def set_acl(self, path, acl, version=-1):
        r = self.call(SET_ACL, ustring(path) + acl_vector(acl) + i32(version))
        return Reader(r.body).stat() if r.err == 0 else r.err

    def auth(self, scheme, data, xid=-4):
        return self.call(AUTH, i32(0) + ustring(scheme) + buffer(data), xid)

    def sync(self, path="/"):
        return self.call(SYNC, ustring(path))

    def add_watch(self, path, mode):
        return self.call(ADD_WATCH, ustring(path) + i32(mode))

    def multi(self, ops, op=MULTI):
        """ops: list of (type, body). Gives (header error, results); a result is (type, header error, value)."""
        body = b"".join(i32(t) + b"\0" + i32(-1) + b for t, b in ops) + i32(-1) + b"\1" + i32(-1)
        r = self.call(op, body)
        self.multi_zxid = r.zxid
        return (r.err, []) if r.err else (0, multi_results(r.body))

    def who_am_i(self):
        r = self.call(WHO_AM_I)
        assert r.err == 0, f"whoAmI gave {r.err}"
        b = Reader(r.body)
        return sorted((b.ustring(), b.ustring()) for _ in range(b.i32()))


def create_body(path, data=b"", flags=0, acl=OPEN, ttl=None):
    return ustring(path) + buffer(data) + acl_vector(acl) + i32(flags) + (b"" if ttl is None else i64(ttl))


def multi_results(body):
    r, out = Reader(body), []
    while True:
        kind, done, err = r.i32(), r.boolean(), r.i32()
        if done:
            assert (kind, err) == (-1, -1), f"multi terminator is {kind} {err}"
            r.end()
            return out
        if kind == -1:
            value = r.i32()
        elif kind == CREATE:
            value = r.ustring()
        elif kind == CREATE2:
            value = (r.ustring(), r.stat())
        elif kind == SET_DATA:
            value = r.stat()
        elif kind == GET_DATA:
            value = (r.buffer(), r.stat())
        elif kind == GET_CHILDREN:
            value = sorted(r.strings())
        elif kind in (DELETE, CHECK):
            value = None
        else:
            raise AssertionError(f"multi result of type {kind}")
        out.append((kind, err, value))


def four_letter(host, word, port=2181, timeout_s=5):
    """Sends a four-letter word and reads to the end; "" when nobody answers."""
    try:
        with socket.create_connection((host, port), timeout_s) as s:
            s.settimeout(timeout_s)
            s.sendall(word if isinstance(word, bytes) else word.encode())
            out = b""
            while True:
                more = s.recv(65536)
                if not more:
                    return out.decode()
                out += more
    except OSError:
        return ""


def session_password(session):
    """What Apache derives from the session id: java.util.Random seeded with id ^ 0xB3415C00."""
    state = ((session ^ 0xB3415C00) ^ 0x5DEECE66D) & ((1 << 48) - 1)
    out = b""
    for _ in range(4):
        state = (state * 0x5DEECE66D + 0xB) & ((1 << 48) - 1)
        out += struct.pack("<I", (state >> 16) & 0xFFFFFFFF)
    return out


def eventually(what, condition, within_s=30, every_s=0.02):
    """Polls an outside process for a state; the deadline is only there to fail instead of hanging."""
    end = time.monotonic() + within_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {within_s} s")
        time.sleep(every_s)
