//! `doctor`: what works on this machine, and the one thing that fixes what does not.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::Context;
use crate::clock::now_us;
use crate::failure::{Exit, Failure};
use crate::id::NodeId;
use crate::net::{self, Emulated, Loopback, NetKind};
use crate::node::{ServerKind, kind};
use crate::observe::stall::StallMeter;
use crate::report::Out;
use crate::supervisor::home::Root;

/// How long the machine is watched for stalls.
const STALL_PROBE: Duration = Duration::from_millis(300);
/// A machine that stalls for longer than this blurs every measurement.
const STALL_MAX_US: u64 = 50_000;

/// One finding.
#[derive(Debug, Serialize)]
struct Finding {
    name: &'static str,
    /// Whether it works.
    ok: bool,
    /// Whether a lab needs it.
    needed: bool,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

pub(super) fn run(context: &Context) -> Exit {
    let out = &context.out;
    let findings = [
        finding(
            "zkd",
            true,
            ServerKind::find(None).map(|kind| match kind {
                ServerKind::Zkd(path) => path.display().to_string(),
                ServerKind::Apache(path) => path,
            }),
        ),
        finding("loopback network", true, loopback()),
        finding("tun network", false, namespaces(NetKind::Tun)),
        finding("packet network", false, namespaces(NetKind::Packet)),
        finding("disk faults", false, disks()),
        finding("lab directory", true, lab_directory()),
        finding("memory for data", false, memory()),
        finding("processes", true, processes()),
        finding("machine", false, stalls()),
        finding("Apache ZooKeeper", false, apache()),
    ];
    let exit = if findings.iter().any(|finding| finding.needed && !finding.ok) {
        Exit::Environment
    } else {
        Exit::Ok
    };
    out.json(&serde_json::json!({
        "v": 1,
        "cmd": "doctor",
        "ok": exit == Exit::Ok,
        "findings": findings,
    }));
    for finding in &findings {
        show(out, finding);
    }
    exit
}

fn finding(name: &'static str, needed: bool, found: Result<String, Failure>) -> Finding {
    let (ok, text, fix) = match found {
        Ok(text) => (true, text, None),
        Err(failure) => (false, failure.cause, failure.hint),
    };
    Finding {
        name,
        ok,
        needed,
        text,
        fix,
    }
}

fn show(out: &Out, finding: &Finding) {
    let mark = match (finding.ok, finding.needed) {
        (true, _) => out.paint.green("ok     "),
        (false, true) => out.paint.red("missing"),
        (false, false) => out.paint.yellow("without"),
    };
    out.line(&format!("{mark}  {:<17} {}", finding.name, finding.text));
    if let Some(fix) = &finding.fix {
        out.line(&format!("{:27}→ {fix}", ""));
    }
}

fn disks() -> Result<String, Failure> {
    crate::disk::check()?;
    Ok("the kernel hands syncs over (`up --disk-faults`)".to_owned())
}

fn lab_directory() -> Result<String, Failure> {
    let root = Root::open()?;
    let labs = root.labs()?.len();
    Ok(format!("{}, {labs} labs up", root.path().display()))
}

fn loopback() -> Result<String, Failure> {
    let nodes: Vec<NodeId> = (1..=5).map(NodeId).collect();
    let net = Loopback::claim(&nodes)?;
    Ok(format!("127.0.{}.1 and up are free", net.number()))
}

/// Makes such a network, small and for a moment. To be called while there is one thread.
fn namespaces(kind: NetKind) -> Result<String, Failure> {
    net::enter_user_namespace()?;
    let begin = now_us();
    Emulated::create(kind, &[NodeId(1), NodeId(2)], 0)?;
    let took = crate::clock::ms(now_us() - begin);
    let way = if net::is_in_own_user_namespace() {
        "in a user namespace"
    } else {
        "as root"
    };
    Ok(format!(
        "`zklab up --net {kind}` works here, {way}; two nodes made in {took} ms"
    ))
}

fn memory() -> Result<String, Failure> {
    if Path::new("/dev/shm").is_dir() {
        return Ok(
            "/dev/shm: fsync costs nothing there, use --data disk to measure a disk".to_owned(),
        );
    }
    Err(Failure::environment(
        "there is no /dev/shm: data go to /var/tmp",
    ))
}

/// Five servers need a few hundred descriptors and threads.
fn processes() -> Result<String, Failure> {
    use nix::sys::resource::{Resource, getrlimit};
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE)
        .map_err(|error| Failure::environment(format!("cannot read the limits: {error}")))?;
    if soft < 256 {
        return Err(
            Failure::environment(format!("only {soft} open files are allowed"))
                .hint("ulimit -n 1024"),
        );
    }
    Ok(format!("{soft} open files allowed"))
}

fn stalls() -> Result<String, Failure> {
    let meter = StallMeter::start(Duration::MAX, |_, _| ());
    let begin = now_us();
    std::thread::sleep(STALL_PROBE);
    let longest = meter.max_us(begin, now_us());
    let text = format!(
        "longest stall in {} ms was {} ms",
        STALL_PROBE.as_millis(),
        crate::clock::ms(longest)
    );
    if longest > STALL_MAX_US {
        return Err(Failure::environment(text)
            .hint("times measured now say little: something else keeps the machine busy"));
    }
    Ok(text)
}

fn apache() -> Result<String, Failure> {
    if kind::apache_is_installed() {
        return Ok("Debian's package: `zklab up --server apache`".to_owned());
    }
    Err(
        Failure::environment("not installed (only needed for `--server apache`)")
            .hint("apt-get install zookeeper, or --server apache:DIR with an unpacked release"),
    )
}
