"""Reading whole trees over the client port, and judging that servers hold the same one."""

import wire
from harness import same
from wire import GET_ACL, GET_CHILDREN2, GET_DATA, Raw, Reader, boolean, ustring


def dump(host, ignore=("/zookeeper/config",)):
    """Every znode a super user sees: path -> (data, Stat, ACL). Requests of one level go out together."""
    with Raw(host) as c:
        c.auth("digest", b"super:test")
        c.sync()
        found, level = {}, ["/"]
        while level:
            below = []
            for start in range(0, len(level), 200):
                part = level[start:start + 200]
                xids = [(c.send(GET_CHILDREN2, ustring(p) + boolean(False)), c.send(GET_DATA, ustring(p) + boolean(False)),
                         c.send(GET_ACL, ustring(p))) for p in part]
                for path, (children, data, acl) in zip(part, xids):
                    children, data, acl = c.reply(children), c.reply(data), c.reply(acl)
                    if wire.NO_NODE in (children.err, data.err, acl.err):
                        continue  # deleted meanwhile
                    names = Reader(children.body).strings()
                    below += [f"{path.rstrip('/')}/{name}" for name in names]
                    r = Reader(data.body)
                    found[path] = (r.buffer(), r.stat(), Reader(acl.body).acl())
            level = below
        for path in ignore:
            found.pop(path, None)
        return found


def compare(what, got, want):
    """Names the first few differences instead of printing two trees."""
    if got == want:
        return
    missing, extra = sorted(want.keys() - got.keys()), sorted(got.keys() - want.keys())
    other = [f"{p}: {got[p]} against {want[p]}" for p in sorted(got.keys() & want.keys()) if got[p] != want[p]]
    raise AssertionError(f"{what}: {len(missing)} nodes missing {missing[:3]}, {len(extra)} too many {extra[:3]}, "
                         f"{len(other)} different {other[:2]}")


def converged(ensemble, attempts=3):
    """All live servers hold the same tree; gives it. Asked again where they differ: the reaper of
    containers may have been at work between two of them, but what has diverged stays so."""
    try:
        return converged_now(ensemble)
    except AssertionError:
        if attempts == 1:
            raise
        return converged(ensemble, attempts - 1)


def converged_now(ensemble):
    servers = ensemble.live()
    first = dump(servers[0].host)
    for server in servers[1:]:
        compare(f"{server} against {servers[0]}", dump(server.host), first)
    same("servers judged", len(servers) > 0, True)
    return first
