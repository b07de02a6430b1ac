"""DIFF, TRUNC and SNAP between leaders and learners of every kind, each server leading once."""

import glob
import json
import os
import re

import wire
from harness import same, test
from test_failover import Load
from tree import converged
from wire import Raw, create_body, eventually

APACHE_SAYS = {"DIFF": "Getting a diff from the leader", "SNAP": "Getting a snapshot from leader",
               "TRUNC": "Truncating log to get in sync with the leader"}


def everywhere_three(function):
    for group in ("three", "mixed-apache", "mixed-zkd"):
        test(group)(function)
    return function


def write(server, path, count):
    """So many creates through one server, pipelined; gives the last zxid."""
    with Raw(server.host) as c:
        c.create(path)
        for start in range(0, count, 100):
            xids = [c.send(wire.CREATE, create_body(f"{path}/{n}", b"x")) for n in range(start, min(start + 100, count))]
            for xid in xids:
                same("create", c.reply(xid).err, 0)
        return c.zxid


def make_lead(ensemble, server, path):
    """Makes `server` the leader by the rules of the election: it alone of two has the newest txn."""
    leader = ensemble.leader()
    if leader is server:
        return
    third = next(s for s in ensemble.servers if s not in (leader, server))
    third.kill()
    write(server, path, 3)
    leader.kill()
    third.start()
    ensemble.ready()
    same("the server with the newest txn leads", ensemble.leader(), server)
    leader.start()
    ensemble.ready()


def one_of_each_kind(ensemble):
    return list({s.kind: s for s in ensemble.servers}.values())


def a_learner(ensemble, leader):
    """A follower of the other kind, if there is one."""
    others = [s for s in ensemble.servers if s is not leader]
    return next((s for s in others if s.kind != leader.kind), others[0])


class SyncsSince:
    """How a server was synchronized from now on: by Apache's log, by zkd's event feed."""

    def __init__(self, server):
        self.server = server
        self.file = server.log if server.kind == "apache" else server.events
        self.start = os.path.getsize(self.file) if os.path.exists(self.file) else 0

    def modes(self):
        with open(self.file, "rb") as f:
            f.seek(self.start)
            text = f.read().decode(errors="replace")
        if self.server.kind == "apache":
            return re.findall("|".join(APACHE_SAYS.values()), text)
        lines = [json.loads(line) for line in text.splitlines()]
        return [line["mode"] for line in lines if line["event"] == "sync" and line["learner"] == self.server.sid]

    def check(self, mode):
        want = APACHE_SAYS[mode] if self.server.kind == "apache" else mode
        assert want in self.modes(), f"{self.server} was to be synchronized by {mode}, it says {self.modes()}"


@everywhere_three
def test_each_server_leads_once(t):
    load = Load(t.ensemble, t.path, writers=2)
    try:
        for n, server in enumerate(t.ensemble.servers):
            make_lead(t.ensemble, server, f"{t.path}-{n}")
            load.progress(30)
    finally:
        load.end()
    load.verify(t.ensemble)
    for server in t.ensemble.servers:
        write(server, f"{t.path}-by-{server.sid}", 20)
    converged(t.ensemble)


@everywhere_three
def test_diff(t):
    for leader in one_of_each_kind(t.ensemble):
        make_lead(t.ensemble, leader, f"{t.path}-{leader.kind}-lead")
        learner = a_learner(t.ensemble, leader)
        learner.kill()
        write(leader, f"{t.path}-{leader.kind}", 50)
        syncs = SyncsSince(learner)
        learner.start()
        t.ensemble.ready()
        syncs.check("DIFF")
        converged(t.ensemble)


@everywhere_three
def test_snap(t):
    for leader in one_of_each_kind(t.ensemble):
        make_lead(t.ensemble, leader, f"{t.path}-{leader.kind}-lead")
        learner = a_learner(t.ensemble, leader)
        learner.kill()
        write(leader, f"{t.path}-{leader.kind}", 1100)
        syncs = SyncsSince(learner)
        learner.start()
        t.ensemble.ready()
        syncs.check("SNAP")
        write(learner, f"{t.path}-{leader.kind}-after", 50)
        converged(t.ensemble)
        learner.kill()  # what it wrote down of the snapshot has to be enough for a start
        learner.start()
        t.ensemble.ready()
        converged(t.ensemble)


def has_logged(server, text):
    for name in glob.glob(os.path.join(server.data, "version-2", "log.*")):
        with open(name, "rb") as f:
            if text.encode() in f.read():
                return True
    return False


def leave_a_tail(t, old, path):
    """`old` leads and logs three creates that reach nobody; then all are killed and the others start."""
    make_lead(t.ensemble, old, f"{path}-lead")
    write(old, path, 10)
    others = [s for s in t.ensemble.servers if s is not old]
    c = Raw(old.host)
    for server in others:
        server.pause()
    for n in range(3):
        c.send(wire.CREATE, create_body(f"{path}/lost{n}"))
    eventually("the leader has logged what nobody else has", lambda: has_logged(old, f"{path}/lost2"))
    for server in [*others, old]:
        server.kill()
    c.abandon()
    for server in others:
        server.start()
    t.ensemble.ready()


def judge_the_tail(t, old, path):
    tree = converged(t.ensemble)
    same("what was never acknowledged is gone", [p for p in tree if p.startswith(f"{path}/lost")], [])
    same("what was is there", len([p for p in tree if p.startswith(f"{path}/")]), 10)
    old.kill()  # and stays gone
    old.start()
    t.ensemble.ready()
    converged(t.ensemble)


@everywhere_three
def test_trunc(t):
    for old in one_of_each_kind(t.ensemble):
        path = f"{t.path}-{old.kind}"
        leave_a_tail(t, old, path)
        syncs = SyncsSince(old)
        old.start()
        t.ensemble.ready()
        syncs.check("TRUNC")
        judge_the_tail(t, old, path)


@everywhere_three
def test_tail_of_an_older_epoch(t):
    """The new leader has written meanwhile; Apache then sends a snapshot instead of a TRUNC."""
    for old in one_of_each_kind(t.ensemble):
        path = f"{t.path}-{old.kind}"
        leave_a_tail(t, old, path)
        write(t.ensemble.leader(), f"{path}-new", 10)
        old.start()
        t.ensemble.ready()
        judge_the_tail(t, old, path)
