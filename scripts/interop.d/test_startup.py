"""What zkd refuses to start with, and says about it; what it repairs. (Apache's ways here are its own.)"""

import glob
import os
import subprocess

from harness import same, test
from servers import Ensemble
from tree import compare, dump
from wire import Raw


def refused(t, server, status, *said, configure=True):
    """The process ends by itself with this status, and its log names the trouble."""
    if configure:
        server.configure()
    done = subprocess.run([server.zkd, "serve", server.cfg], capture_output=True, text=True, timeout=30, cwd=server.dir)
    same(f"exit status ({done.stderr.strip()[-300:]})", done.returncode, status)
    for text in said:
        assert text in done.stderr, f"it does not name {text!r}: {done.stderr.strip()[-500:]}"


def alone(t, name, **keys):
    return Ensemble(t.run, name, ["zkd"], keys=keys, standalone=True)


@test("startup")
def test_bad_configuration(t):
    server = alone(t, "bad-key", tickTime="soon")[1]
    refused(t, server, 2, server.cfg, "tickTime", "soon")
    server = alone(t, "no-file")[1]
    refused(t, server, 2, server.cfg, configure=False)


@test("startup")
def test_bad_myid(t):
    for n, text in enumerate(("9\n", "one\n", "")):
        server = Ensemble(t.run, f"myid{n}", ["zkd"] * 3)[1]
        server.configure()
        with open(os.path.join(server.data, "myid"), "w") as f:
            f.write(text)
        refused(t, server, 2, "myid", configure=False)


@test("startup")
def test_port_in_use(t):
    ensemble = alone(t, "port")
    try:
        ensemble.start()
        other = alone(t, "port-again")[1]
        refused(t, other, 14, f"{other.host}:2181")
    finally:
        ensemble.stop()


@test("startup")
def test_data_directory_that_is_none(t):
    server = alone(t, "file-for-directory")[1]
    os.rmdir(server.data)
    with open(server.data, "w") as f:
        f.write("not a directory")
    refused(t, server, 3, server.data)


@test("startup")
def test_data_directory_in_use(t):
    ensemble = alone(t, "shared")
    try:
        ensemble.start()
        other = alone(t, "shared-again")[1]
        os.rmdir(other.data)
        os.symlink(ensemble[1].data, other.data)
        other.host = t.run.net.prefix + ".8"
        refused(t, other, 3, "data")
    finally:
        ensemble.stop()


def log_of(server):
    return max(glob.glob(os.path.join(server.data, "version-2", "log.*")), key=os.path.getsize)


@test("startup")
def test_damaged_log(t):
    ensemble = alone(t, "damaged")
    server = ensemble[1]
    try:
        ensemble.start()
        with Raw(server.host) as c:
            for n in range(50):
                c.made(f"/n{n:02d}", b"data of node %d" % n)
        tree = dump(server.host)
        server.kill()
        log = log_of(server)
        with open(log, "rb") as f:
            whole = f.read()
        end = len(whole.rstrip(b"\0"))

        # half a record at the end: cut off, said, served on
        with open(log, "wb") as f:
            f.write(whole[:end] + whole[end - 60:end - 20])
        ensemble.start()
        compare("after a torn tail", dump(server.host), tree)
        server.kill()

        # a flipped bit in the middle: nothing is lost in silence
        at = whole.index(b"data of node 20")
        with open(log, "wb") as f:
            f.write(whole[:at] + b"Data of" + whole[at + 7:])
        refused(t, server, 3, os.path.basename(log))
        with open(log, "wb") as f:
            f.write(whole)
        ensemble.start()
        compare("the log as it was", dump(server.host), tree)
    finally:
        ensemble.stop()


@test("startup")
def test_two_servers_with_one_id(t):
    ensemble = Ensemble(t.run, "one-id", ["zkd"] * 3)
    try:
        ensemble.start()
        double = Ensemble(t.run, "one-id-again", ["zkd"] * 3)[1]
        refused(t, double, 14, f"{double.host}:")
        ensemble.ready()
    finally:
        ensemble.stop()
