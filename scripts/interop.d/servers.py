"""Real server processes: zkd and Apache ZooKeeper, alone or in ensembles, also mixed.

Every server has a loopback address of its own and the standard ports on it. Readiness is asked for
with the four-letter word `srvr`; nothing sleeps and hopes. Only processes started here are signalled.
"""

import atexit
import fcntl
import os
import re
import signal
import socket
import subprocess
import tempfile

from wire import eventually, four_letter

JAVA_DIR = "/usr/share/java"
APACHE_JARS = ["zookeeper.jar", "slf4j-simple.jar", "netty-codec.jar", "netty-resolver.jar",
               "netty-transport-native-unix-common.jar"]
CLASSPATH = ":".join(f"{JAVA_DIR}/{jar}" for jar in APACHE_JARS)
JVM = ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]

# Keys Apache takes as bare system properties only; zkd reads them from zoo.cfg like every other key.
BARE_PROPERTIES = {"znode.container.checkIntervalMs", "jute.maxbuffer", "readonlymode.enabled"}

# super:test, as the documentation's generator prints it.
SUPER_DIGEST = "super:D/InIHSb7yEEbrWz8b9l71RjZJU="

BASE = {
    "tickTime": 500,
    "initLimit": 40,
    "syncLimit": 20,
    "maxClientCnxns": 0,
    "4lw.commands.whitelist": "*",
    "admin.enableServer": "false",
    "extendedTypesEnabled": "true",
    "preAllocSize": 16,
    "DigestAuthenticationProvider.superDigest": SUPER_DIGEST,
    "znode.container.checkIntervalMs": 500,
}

_running = set()


def end_all():
    """Ends whatever is still running of the processes started here."""
    for process in list(_running):
        if process.poll() is None:
            process.kill()
            process.wait()
        _running.discard(process)


atexit.register(end_all)


class Net:
    """A block of loopback addresses 127.0.N.*, claimed so that two runs on one machine do not meet."""

    def __init__(self):
        for n in range(41, 100):
            path = os.path.join(tempfile.gettempdir(), f"zkd-interop-127.0.{n}.lock")
            try:
                self.lock = open(path, "a")
                fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            if all(_free(f"127.0.{n}.{i}", port) for i in range(1, 10) for port in (2181, 2888, 3888)):
                self.prefix = f"127.0.{n}"
                return
        raise SystemExit("no free block of loopback addresses between 127.0.41.* and 127.0.99.*")


def _free(host, port):
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((host, port))
            return True
        except OSError:
            return False


class Server:
    def __init__(self, ensemble, sid, kind, host, zkd):
        self.ensemble, self.sid, self.kind, self.host, self.zkd = ensemble, sid, kind, host, zkd
        self.dir = os.path.join(ensemble.dir, f"server{sid}")
        self.data = os.path.join(self.dir, "data")
        self.cfg = os.path.join(self.dir, "zoo.cfg")
        self.log = os.path.join(self.dir, "server.log")
        self.events = os.path.join(self.dir, "events.jsonl")
        self.process = None
        os.makedirs(self.data)

    def __repr__(self):
        return f"{self.kind} server {self.sid}"

    @property
    def address(self):
        return f"{self.host}:2181"

    def configure(self):
        keys = {**BASE, **self.ensemble.keys}
        self.properties = []
        if self.kind == "apache":
            self.properties = [f"-D{k}={keys.pop(k)}" for k in BARE_PROPERTIES & keys.keys()]
        lines = [f"{k}={v}" for k, v in keys.items()]
        lines += [f"dataDir={self.data}", "clientPort=2181", f"clientPortAddress={self.host}"]
        lines += self.ensemble.membership()
        with open(self.cfg, "w") as f:
            f.write("\n".join(lines) + "\n")
        if self.ensemble.membership():
            with open(os.path.join(self.data, "myid"), "w") as f:
                f.write(f"{self.sid}\n")

    def start(self):
        assert not self.alive(), f"{self} is running"
        self.configure()
        if self.kind == "zkd":
            args = [self.zkd, "serve", self.cfg, "--events", self.events]
        else:
            args = JVM + ["-Xmx192m", "-Dorg.slf4j.simpleLogger.showDateTime=true",
                          "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS", "-Dzookeeper.jmx.log4j.disable=true"]
            args += self.properties
            args += ["-cp", CLASSPATH, "org.apache.zookeeper.server.quorum.QuorumPeerMain", self.cfg]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(args, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.dir)
        _running.add(self.process)
        return self

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def kill(self):
        self.end(signal.SIGKILL)

    def stop(self):
        """SIGTERM, waits for the end, gives the exit status."""
        return self.end(signal.SIGTERM)

    def end(self, how):
        if not self.alive():
            return None
        process, self.process = self.process, None
        process.send_signal(how)
        try:
            return process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"{self} did not end within 30 s of signal {how}") from None
        finally:
            _running.discard(process)

    def pause(self):
        """SIGSTOP, and waits until every thread stands still."""
        self.process.send_signal(signal.SIGSTOP)
        eventually(f"{self} stands still", self.stands_still)

    def stands_still(self):
        tasks = f"/proc/{self.process.pid}/task"
        for task in os.listdir(tasks):
            with open(f"{tasks}/{task}/stat") as f:
                if f.read().rpartition(") ")[2][0] not in "TZ":
                    return False
        return True

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def srvr(self):
        return four_letter(self.host, "srvr")

    def mode(self):
        """leader, follower, observer, standalone; "" while it does not serve."""
        found = re.search(r"^Mode: (\S+)", self.srvr(), re.M)
        return found.group(1) if found else ""

    def check_alive(self):
        if not self.alive():
            raise AssertionError(f"{self} ended with status {self.process.returncode}; {self.last_lines()}")

    def last_lines(self, count=4):
        with open(self.log, errors="replace") as f:
            return "its log ends: " + " | ".join(line.strip() for line in f.readlines()[-count:])

    def wait_mode(self, *modes, within_s=60):
        def serving():
            self.check_alive()
            mode = self.mode()
            return mode if mode in modes else None
        try:
            return eventually(f"{self} is {' or '.join(modes)}", serving, within_s)
        except AssertionError as e:
            raise AssertionError(f"{e}; {self.last_lines(2)}") from None


class Ensemble:
    """Servers of one configuration. `kinds` gives one server kind per sid, from 1 up."""

    def __init__(self, run, name, kinds, observers=(), keys=None, standalone=False):
        self.run, self.name, self.observers, self.keys = run, name, set(observers), dict(keys or {})
        self.standalone = standalone
        self.dir = os.path.join(run.dir, name)
        os.makedirs(self.dir)
        first = 9 if standalone else 1
        self.servers = [Server(self, sid, kind, f"{run.net.prefix}.{first + sid - 1}", run.zkd)
                        for sid, kind in enumerate(kinds, 1)]

    def membership(self):
        if self.standalone:
            return []
        return [f"server.{s.sid}={s.host}:2888:3888" + (":observer" if s.sid in self.observers else "")
                for s in self.servers]

    def __getitem__(self, sid):
        return self.servers[sid - 1]

    def start(self):
        for s in self.servers:
            s.start()
        return self.ready()

    def ready(self, within_s=90):
        """Waits until every server that was started, and not ended by us, serves in a role."""
        for s in [s for s in self.servers if s.process is not None]:
            if self.standalone:
                s.wait_mode("standalone", within_s=within_s)
            elif s.sid in self.observers:
                s.wait_mode("observer", within_s=within_s)
            else:
                s.wait_mode("leader", "follower", within_s=within_s)
        return self

    def live(self):
        return [s for s in self.servers if s.alive()]

    def hosts(self, servers=None):
        return ",".join(s.address for s in (servers or self.servers))

    def by_mode(self, mode):
        return [s for s in self.live() if s.mode() == mode]

    def leader(self):
        return eventually(f"{self.name} has a leader", lambda: next(iter(self.by_mode("leader")), None), 60)

    def followers(self):
        return self.by_mode("follower")

    def stop(self):
        for s in self.servers:
            if s.alive():
                s.resume()
                s.process.terminate()
        for s in self.servers:
            if s.alive():
                s.end(signal.SIGTERM)
