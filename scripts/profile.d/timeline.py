"""Where the time of one request goes: the system calls of three servers on one clock, while one client asks.

Usage: timeline.py sockets LEADER-PID                       while the client is connected
       timeline.py write|read SOCKETS LEADER-PID FOLLOWER-PID... < `perf script -F pid,tid,time,event,trace`

One request is on its way at any time, so what happens between two requests belongs to the first of them.
"""

import os
import re
import statistics
import sys

LINE = re.compile(r"\s*(\d+)/(\d+)\s+(\d+\.\d+):\s+syscalls:sys_(enter|exit)_(\w+):\s*(.*)")


def client_sockets(pid):
    """The descriptors of the process that are connections to its client port."""
    inodes = {}
    for line in open(f"/proc/{pid}/net/tcp").readlines()[1:]:
        fields = line.split()
        if int(fields[1].split(":")[1], 16) == 2181 and fields[3] == "01":
            inodes[fields[9]] = True
    found = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            link = os.readlink(f"/proc/{pid}/fd/{fd}")
        except OSError:
            continue
        if link.startswith("socket:[") and link[8:-1] in inodes:
            found.add(int(fd))
    return found


def events(lines):
    """(time in us, pid, tid, 'enter' or 'exit', call, first argument or result)."""
    for line in lines:
        match = LINE.match(line)
        if match:
            pid, tid, at, edge, call, rest = match.groups()
            word = re.search(r"0x([0-9a-f]+)", rest)
            value = int(word.group(1), 16) if word else 0
            yield float(at) * 1e6, int(pid), int(tid), edge, call, value


def requests(stream, leader, sockets):
    """Splits the events at the moments in which the leader has read a request."""
    current, reading = [], {}
    for event in stream:
        at, pid, tid, edge, call, value = event
        if pid == leader and call == "recvfrom":
            if edge == "enter":
                reading[tid] = value in sockets
            elif reading.pop(tid, False) and 0 < value < 1 << 31:
                if current:
                    yield current
                current = []
        current.append(event)


def first(window, pids, edge, call, after, fd=None):
    for at, pid, _, e, c, value in window:
        if at >= after and pid in pids and (e, c) == (edge, call) and (fd is None or value in fd):
            return at
    return None


def of_write(window, leader, followers, sockets):
    """The moments of one write in order; None if something is missing (a ping came in between)."""
    start = window[0][0]
    steps = [("the request is read", start)]
    proposal = first(window, {leader}, "enter", "sendto", start)
    written = first(window, {leader}, "enter", "fdatasync", start)
    if proposal is None or written is None:
        return None
    synced = first(window, {leader}, "exit", "fdatasync", written)
    at_follower = [first(window, {pid}, "enter", "fdatasync", start) for pid in followers]
    done = [first(window, {pid}, "exit", "fdatasync", t) for pid, t in zip(followers, at_follower) if t]
    acked = [first(window, {pid}, "enter", "sendto", start) for pid in followers]
    reply = first(window, {leader}, "enter", "sendto", start, sockets)
    if None in (synced, reply) or None in at_follower or None in done or None in acked or not done:
        return None
    steps += [
        ("judged, numbered, PROPOSAL sent to the first follower", proposal),
        ("the leader's own sync begins", written),
        ("the first follower's sync begins", min(at_follower)),
        ("the first sync of a follower ends", min(done)),
        ("the leader's own sync ends", synced),
        ("the first ACK is sent", min(acked)),
        ("the reply is sent", reply),
    ]
    return steps


def of_read(window, leader, sockets):
    start = window[0][0]
    reply = first(window, {leader}, "enter", "sendto", start, sockets)
    return None if reply is None else [("the request is read", start), ("the reply is sent", reply)]


def main():
    if sys.argv[1] == "sockets":
        sockets = client_sockets(int(sys.argv[2]))
        if not sockets:
            sys.exit(f"process {sys.argv[2]} has no client on port 2181")
        print(",".join(map(str, sockets)))
        return
    kind, sockets, leader, *followers = sys.argv[1:]
    sockets = {int(fd) for fd in sockets.split(",")}
    leader, followers = int(leader), [int(pid) for pid in followers]
    found = {}
    count = 0
    for window in requests(events(sys.stdin), leader, sockets):
        steps = of_write(window, leader, followers, sockets) if kind == "write" else of_read(window, leader, sockets)
        if steps is None:
            continue
        count += 1
        for name, at in steps:
            found.setdefault(name, []).append(at - steps[0][1])
    if count == 0:
        sys.exit("no request was seen from its beginning to its end")
    print(f"{count} requests; microseconds after the request was read, medians:")
    for name, times in sorted(found.items(), key=lambda item: statistics.median(item[1])):
        print(f"  {statistics.median(times):8.0f}  {name}")


main()
