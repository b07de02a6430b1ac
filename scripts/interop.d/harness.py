"""The test registry and runner: one line per test, a count at the end.

Tests are plain functions in the `test_*.py` files beside this one, marked with `@test`. Tests of the
same ensemble run one after the other on the same processes, because a JVM takes seconds to start.
"""

import os
import shutil
import sys
import time
import traceback

from wire import Raw

# Where Apache 3.8.0 (Debian's) and 3.9.5 (which zkd follows) answer differently. A test names the
# entry it uses, and its line in the output shows it, so that no difference passes silently.
DRIFT = {
    "top-level check": "check outside multi is refused with -6 and a close since 3.8.5 and 3.9.3; before, it breaks the ensemble, so it is not sent",
    "exists needs READ": "exists on a node without READ is refused since 3.8.4 and 3.9.2",
    "event zxid": "watch events carry the zxid of their txn since 3.9.0, -1 before",
    "persistent watch types": "checkWatches/removeWatches know the types 4 and 5 since 3.9.0",
    "create2 in multi": "create2 in a multi is answered as type 15 with Stat since 3.7.2, 3.8.2, 3.9.0",
    "create2 in multi, applied": "3.8.0 and 3.8.1 do not apply a create2 that a newer leader sends in a multi (ZOOKEEPER-4026): not asked",
    "IPv6 in ip ACLs": "ids of the ip scheme may be IPv6 addresses since ZOOKEEPER-4240 (2025)",
    "client deleteContainer": "deleteContainer from a client is refused by zkd; Apache 3.8.0 reads raw path bytes",
}

_tests = []


def test(group, *places):
    """Registers a test. `group` names the ensemble; `places` the roles of the server it is run against."""
    def register(function):
        name = function.__name__.removeprefix("test_")
        for place in places or (None,):
            _tests.append((group, place, name + (f"@{place}" if place else ""), function))
        return function
    return register


def everywhere(function):
    """Registers a test against a server alone, each role of an ensemble, and both kinds in a mixed one."""
    test("single", "standalone")(function)
    test("quorum", "leader", "follower", "observer")(function)
    test("mixed-apache", "apache", "zkd")(function)
    return test("mixed-zkd", "apache", "zkd")(function)


def same(what, got, want):
    if got != want:
        raise AssertionError(f"{what}: got {_short(got)}, expected {_short(want)}")


def _short(value):
    text = repr(value)
    return text if len(text) <= 400 else text[:400] + "..."


class Case:
    """What a test function gets: its server, its ensemble, a path of its own."""

    def __init__(self, run, ensemble, server, name):
        self.run, self.ensemble, self.server, self.name = run, ensemble, server, name
        self.host = server.host if server else None
        self.path = "/" + name.replace("@", "-")
        self.drifts = []

    def client(self, **keywords):
        """A raw connection to the server under test, with the leader's writes so far visible on it."""
        connection = Raw(self.host, **keywords)
        if connection.session:
            connection.sync()
        return connection

    def drift(self, name, old, new, decided_by=None):
        """The value this server must show for a behaviour that changed between versions."""
        explanation = DRIFT[name]
        server = decided_by or self.server
        if server.kind == "zkd":
            return new
        if explanation not in self.drifts:
            self.drifts.append(explanation)
        return old

    def old_apache_follows(self):
        """Is there an Apache 3.8.0 that has to apply what a zkd leader proposes?"""
        return self.leader().kind == "zkd" and any(s.kind == "apache" for s in self.ensemble.servers)

    def leader(self):
        return self.server if self.ensemble.standalone else self.ensemble.leader()


class Run:
    def __init__(self, mode, net, directory, zkd, only, ensembles):
        self.mode, self.net, self.dir, self.zkd, self.only = mode, net, directory, zkd, only
        self.makers, self.passed, self.failed = ensembles, 0, 0

    def selected(self):
        return [t for t in _tests if t[0] in self.makers and (not self.only or any(o in f"{t[0]}/{t[2]}" for o in self.only))]

    def run(self):
        tests = self.selected()
        for group in dict.fromkeys(t[0] for t in tests):
            self.run_group(group, [t for t in tests if t[0] == group])
        kept = ""
        if self.failed or not tests:
            kept = f"logs and data are kept in {self.dir}"
            print(kept, flush=True)
        else:
            shutil.rmtree(self.dir, ignore_errors=True)
        print(f"{self.passed} passed, {self.failed} failed", flush=True)
        return 1 if self.failed or not tests else 0

    def run_group(self, group, tests):
        ensemble, problem = None, None
        try:
            ensemble = self.makers[group](self)
            if ensemble is not None:
                ensemble.start()
        except Exception as e:  # every test of the group reports it
            problem = f"{group} did not start: {e}"
        try:
            for _, place, name, function in tests:
                self.run_one(ensemble, place, f"{group}/{name}", name, function, problem)
        finally:
            if ensemble is not None:
                try:
                    ensemble.stop()
                except AssertionError as e:
                    self.report(f"{group}/stop", str(e), 0)

    def run_one(self, ensemble, place, title, name, function, problem):
        begin, case = time.monotonic(), None
        if problem is None:
            try:
                server = self.server_at(ensemble, place)
                case = Case(self, ensemble, server, name)
                function(case)
            except Exception as e:
                last = traceback.extract_tb(sys.exc_info()[2])
                at = next((f for f in reversed(last) if "test_" in os.path.basename(f.filename)), last[-1])
                problem = f"{type(e).__name__ + ': ' if not isinstance(e, AssertionError) else ''}{e}"
                problem += f" ({os.path.basename(at.filename)}:{at.lineno})"
                with open(os.path.join(self.dir, "failures.log"), "a") as f:
                    f.write(f"--- {title}\n{traceback.format_exc()}\n")
        self.report(title, problem, time.monotonic() - begin, case.drifts if case else [])

    def report(self, title, problem, seconds, drifts=()):
        if problem is None:
            self.passed += 1
            notes = "".join(f" [by version: {d}]" for d in drifts)
            slow = f" ({seconds:.1f} s)" if seconds >= 2 else ""
            print(f"ok {title}{slow}{notes}", flush=True)
        else:
            self.failed += 1
            line = " ".join(str(problem).split())
            print(f"FAIL {title}: {line}", flush=True)

    def server_at(self, ensemble, place):
        if ensemble is None:
            return None
        if place in (None, "standalone"):
            return ensemble.servers[0]
        if place in ("zkd", "apache"):
            return next(s for s in ensemble.live() if s.kind == place)
        found = ensemble.by_mode(place)
        assert found, f"no {place} in {ensemble.name}"
        return found[0]
