"""Apache's own shell against the server: what it prints must be what it prints against Apache.

`zkcli.expected` was recorded from Apache 3.8.0 by `scripts/interop --server apache --record zkcli`;
times, zxids, session ids and addresses are normalised in both.
"""

import os
import re
import subprocess
import threading

import servers
from harness import same, test

HERE = os.path.dirname(os.path.abspath(__file__))
EXPECTED = os.path.join(HERE, "zkcli.expected")
MARK = "==="


class Shell:
    """One zkCli process; every command's output ends where an unknown command is complained about."""

    def __init__(self, host):
        args = servers.JVM + ["-Xmx96m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=off", "-cp", servers.CLASSPATH,
                              "org.apache.zookeeper.ZooKeeperMain", "-waitforconnection", "-server", f"{host}:2181"]
        self.process = subprocess.Popen(args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        servers._running.add(self.process)
        self.events = []
        self.watchdog = threading.Timer(120, self.process.kill)
        self.watchdog.start()
        self.run("version")

    def run(self, command):
        self.process.stdin.write(f"{command}\n{MARK}\n")
        self.process.stdin.flush()
        lines = []
        while True:
            line = self.process.stdout.readline()
            if not line:
                raise AssertionError(f"zkCli ended at {command!r} after {lines[-3:]}")
            if line.startswith(f"Command not found: Command not found {MARK}"):
                break
            line = line.rstrip("\n")
            if line.startswith("WatchedEvent "):
                self.events.append(line)  # printed by a thread of its own, anywhere between the other lines
            elif line not in ("", "WATCHER::"):
                lines.append(line)
        # what was printed last is the usage text, given because the mark is no command
        usage = max(n for n, line in enumerate(lines) if line.startswith("ZooKeeper -server host:port"))
        return lines[:usage]

    def end(self):
        self.watchdog.cancel()
        try:
            self.process.communicate("quit\n", timeout=30)
        finally:
            if self.process.poll() is None:
                self.process.kill()
            servers._running.discard(self.process)


class Names:
    """Gives every zxid, session id and time of a session the same short name wherever it turns up."""

    def __init__(self):
        self.zxids = {}

    def clean(self, line, prefix):
        line = re.sub(r"\b(\w?[cC]time|\w?[mM]time) = .*", r"\1 = TIME", line)
        line = re.sub(r"(ephemeralOwner) = 0x[0-9a-f]{3,}", r"\1 = SESSION", line)
        line = re.sub(r"([cmp]Zxid) = (0x[0-9a-f]+)", self.name, line)
        return line.replace(prefix, "NET")

    def name(self, match):
        field, zxid = match.groups()
        if zxid == "0x0":
            return f"{field} = 0x0"
        return f"{field} = Z{self.zxids.setdefault(zxid, len(self.zxids) + 1)}"


@test("quorum", "follower")
@test("mixed-apache", "zkd")
@test("mixed-zkd", "zkd")
def test_zkcli(t):
    with open(os.path.join(HERE, "zkcli.commands")) as f:
        commands = [line.strip() for line in f if line.strip() and not line.startswith("#")]
    shell, names, blocks = Shell(t.host), Names(), []
    try:
        for command in commands:
            output = shell.run(command.replace("@host", t.host))
            if command in ("config", "config -s", "config -w"):  # as many lines as there are servers
                output = [re.sub(r"^server\.\d+=NET\.\d+", "server.N=NET.N", names.clean(line, t.run.net.prefix)) for line in output]
                output = [re.sub(r"^dataLength = .*", "dataLength = N", line.replace(":observer", ":participant")) for line in output]
                output = [line for n, line in enumerate(output) if line not in output[:n]]
            if command == "whoami":  # in no fixed order
                output = sorted(output)
            if command == "ls /":
                output = ["[...]" if output and output[-1].startswith("[") and "zookeeper]" in output[-1] else str(output)]
            blocks.append([f"> {command}"] + [names.clean(line, t.run.net.prefix) for line in output])
    finally:
        shell.end()
    blocks.append(["> (watch events)"] + shell.events)
    if t.run.record:
        with open(EXPECTED, "w") as f:
            f.write("\n".join("\n".join(block) for block in blocks) + "\n")
    with open(EXPECTED) as f:
        expected = split(f.read())
    same("commands recorded", [b[0] for b in expected], [b[0] for b in blocks])
    wrong = [(want[0], got[1:], want[1:]) for got, want in zip(blocks, expected) if got != want]
    if wrong:
        command, got, want = wrong[0]
        line = next((f"{g!r} against {w!r}" for g, w in zip(got, want) if g != w), f"{len(got)} lines against {len(want)}: {got}")
        raise AssertionError(f"{len(wrong)} commands print something else: {[w[0][2:] for w in wrong]}; the first: {command} gives {line}")


def split(text):
    blocks = []
    for line in text.rstrip("\n").split("\n"):
        if line.startswith("> "):
            blocks.append([])
        blocks[-1].append(line)
    return blocks
