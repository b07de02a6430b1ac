"""Entry: picks the ensembles for the chosen kind of server, runs every test on them."""

import argparse
import logging
import os
import signal
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import servers  # noqa: E402
from harness import Run  # noqa: E402
from servers import Ensemble  # noqa: E402

import test_nodes  # noqa: E402,F401
import test_watches  # noqa: E402,F401
import test_acls  # noqa: E402,F401
import test_sessions  # noqa: E402,F401
import test_failover  # noqa: E402,F401
import test_zkcli  # noqa: E402,F401
import test_kazoo  # noqa: E402,F401
import test_curator  # noqa: E402,F401
import test_settings  # noqa: E402
import test_sync  # noqa: E402,F401
import test_twins  # noqa: E402,F401
import test_startup  # noqa: E402,F401
import test_directories  # noqa: E402,F401


# Small enough that logs roll, snapshots are taken and a learner left behind needs one.
SMALL = {"snapshotSizeFactor": -1, "snapCount": 400}


def of_one_kind(kind):
    return {
        "single": lambda run: Ensemble(run, "single", [kind], standalone=True),
        "settings": lambda run: Ensemble(run, "settings", [kind], keys=test_settings.KEYS, standalone=True),
        "quorum": lambda run: Ensemble(run, "quorum", [kind] * 4, observers=(4,)),
        "five": lambda run: Ensemble(run, "five", [kind] * 5, keys={"snapCount": 200, "syncLimit": 6}),
        "three": lambda run: Ensemble(run, "three", [kind] * 3, keys=SMALL),
        "twins": lambda run: None,
        "directories": lambda run: None,
    }


MIXED = {
    "mixed-apache": lambda run: Ensemble(run, "mixed-apache", ["apache", "apache", "zkd"], keys=SMALL),
    "mixed-zkd": lambda run: Ensemble(run, "mixed-zkd", ["zkd", "zkd", "apache"], keys=SMALL),
}


def main():
    parser = argparse.ArgumentParser(prog="interop", description="Drives zkd, Apache ZooKeeper, or both in one ensemble, with real clients.")
    parser.add_argument("--server", choices=("zkd", "apache", "mixed", "all"), default="zkd", help="whose servers (default: zkd)")
    parser.add_argument("--zkd", default=os.environ.get("ZKD"), help="the zkd binary (default: the one scripts/interop builds)")
    parser.add_argument("--list", action="store_true", help="list the tests and stop")
    parser.add_argument("--record", action="store_true", help="write what zkCli prints against Apache into zkcli.expected")
    parser.add_argument("only", nargs="*", help="run only the tests whose group/name contains one of these")
    args = parser.parse_args()
    args.zkd = args.zkd and os.path.abspath(args.zkd)
    logging.basicConfig(level=logging.CRITICAL)
    makers = {}
    if args.server == "mixed":
        makers = MIXED
    else:
        kind = args.server.replace("all", "zkd")
        makers = of_one_kind(kind)
        if kind == "zkd":
            makers["startup"] = lambda run: None
        if args.server == "all":
            makers |= MIXED
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    directory = tempfile.mkdtemp(prefix="zkd-interop-")
    run = Run(args.server.replace("all", "zkd"), servers.Net(), directory, args.zkd, args.only, makers)
    run.record = args.record
    if args.list:
        for group, _, name, _ in run.selected():
            print(f"{group}/{name}")
        os.rmdir(directory)
        return 0
    try:
        return run.run()
    finally:
        servers.end_all()


if __name__ == "__main__":
    sys.exit(main())
