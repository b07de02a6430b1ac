"""Curator's recipes, as Java applications use them."""

import os
import subprocess

import servers
from harness import same, test

JARS = ["curator-client", "curator-framework", "curator-recipes", "guava"]


@test("quorum")
@test("mixed-apache")
@test("mixed-zkd")
def test_curator(t):
    live = t.ensemble.live()
    classpath = ":".join(f"{servers.JAVA_DIR}/{jar}.jar" for jar in JARS) + ":" + servers.CLASSPATH
    args = servers.JVM + ["-Xmx128m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", classpath,
                          os.path.join(os.path.dirname(os.path.abspath(__file__)), "Recipes.java"),
                          t.ensemble.hosts(live[:1]), t.ensemble.hosts(live[-1:]), t.path]
    done = subprocess.run(args, capture_output=True, text=True, timeout=180)
    want = [f"ok {name}" for name in ("leader latch", "lock", "cache", "node, number, transaction")]
    same(f"what the recipes said ({done.stderr.strip()[-600:]})", done.stdout.splitlines(), want)
    same("exit status", done.returncode, 0)
