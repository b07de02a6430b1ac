//! A big tree: how much memory it needs, how long a server takes to come back with it after SIGKILL, and what clients
//! feel of its snapshots.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::in_turn;
use super::subject::{Subject, start, version_2};
use crate::bench::{self, Edge, Plan, Usage, Work, usage};
use crate::cli::bench::BenchArgs;
use crate::command::Context;
use crate::failure::{Context as _, Exit, Failure};
use crate::id::NodeId;
use crate::report::bench::{Kind, Report, Round, Unit};
use crate::supervisor::protocol::InfoNode;

/// How long a server may take until it answers the first read.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long servers and disk rest between making the tree and SIGKILL.
const REST: Duration = Duration::from_secs(3);
/// Operations a second while snapshots are taken, if none are asked for; half of them are writes.
const RATE: u32 = 2000;
/// Snapshots become due so many times while clients are watched: Apache throws dice about the moment.
const SNAPSHOTS_DUE: f64 = 4.0;
/// Sectors of st_blocks.
const BLOCK: u64 = 512;

pub(super) fn measure(
    context: &Context,
    args: &BenchArgs,
    subjects: &mut [Subject],
) -> Result<Report, Failure> {
    let sides = in_turn(context, args, subjects, |subject, round, measured| {
        if round == 0 {
            fill(args, subject, measured)?;
            lower_snap_count(args, &subject.nodes()?)?;
        }
        restart(args, subject, measured)?;
        snapshot(args, subject, u64::from(round), measured)
    })?;
    Ok(Report::new(args.describe(), notes(args), kinds(), sides))
}

fn kinds() -> Vec<Kind> {
    let micros = |key: &str, head: &str, name: &str| Kind::new(key, head, name, Unit::Micros);
    let bytes = |key: &str, head: &str, name: &str| Kind::new(key, head, name, Unit::Bytes);
    vec![
        Kind::new("fill", "MADE/S", "znodes made a second", Unit::PerSecond).more(),
        bytes(
            "memory",
            "MEMORY",
            "resident memory once the tree is made, all servers",
        ),
        micros(
            "first_read",
            "RESTART",
            "restart after kill -9, to the first read",
        ),
        bytes(
            "memory_after",
            "MEM AFTER",
            "resident memory after the restart, all servers",
        ),
        micros(
            "pause",
            "PAUSE",
            "slowest operation while snapshots are taken",
        ),
        micros(
            "pause_p99",
            "P99",
            "99th percentile while snapshots are taken",
        ),
        bytes(
            "memory_peak",
            "MEM PEAK",
            "most resident memory while snapshots are taken, all servers",
        ),
        Kind::new(
            "snapshots",
            "SNAPSHOTS",
            "snapshots taken meanwhile",
            Unit::Count,
        )
        .aside(),
        bytes("snapshot_size", "SNAP SIZE", "size of the newest snapshot").aside(),
        bytes("log_size", "LOG SIZE", "size of the txn logs on disk").aside(),
    ]
}

fn notes(args: &BenchArgs) -> Vec<String> {
    vec![
        format!(
            "The tree is made through the protocol, a thousand znodes below each parent, by {} clients; after a rest of \
             {} s, in which the disk finishes, the servers are killed with SIGKILL and started again. The restart counts \
             from the command until a new session has read the znode that was made last.",
            args.clients,
            REST.as_secs()
        ),
        format!(
            "While snapshots are taken, {} operations are due each second, half of them writes; the latency of each \
             counts from when it was due, so a pause shows in full.",
            args.rate.unwrap_or(RATE)
        ),
    ]
}

/// The clients that make a tree and read it.
pub(super) fn tree_plan(args: &BenchArgs, subject: &Subject) -> Plan {
    Plan {
        servers: subject.servers.clone(),
        clients: args.clients as usize,
        depth: 1,
        work: Work::Write,
        size: args.size as usize,
        keys: u64::from(args.keys()),
        warm_up: Duration::ZERO,
        length: Duration::ZERO,
        rate: None,
        session_timeout: args.session_timeout,
        // The loads of the rounds count from 1.
        seed: 0x7_0000,
    }
}

pub(super) fn fill(args: &BenchArgs, subject: &Subject, round: &mut Round) -> Result<(), Failure> {
    let took = bench::fill(&tree_plan(args, subject))?;
    round.put("fill", f64::from(args.keys()) / took.as_secs_f64());
    let memory = Usage::of(&subject.pids).resident;
    round.put("memory", memory as f64);
    Ok(())
}

/// Lets snapshots become due several times in one round; the servers read it when they start again.
fn lower_snap_count(args: &BenchArgs, nodes: &[InfoNode]) -> Result<(), Failure> {
    let writes = f64::from(args.rate.unwrap_or(RATE)) / 2.0 * args.for_.as_secs_f64();
    let count = ((writes / SNAPSHOTS_DUE) as u64).max(2);
    for node in nodes {
        let cannot = || format!("cannot change {}", node.config.display());
        let mut config = fs::File::options()
            .append(true)
            .open(&node.config)
            .doing(cannot)?;
        writeln!(config, "snapCount={count}").doing(cannot)?;
    }
    Ok(())
}

fn restart(args: &BenchArgs, subject: &mut Subject, round: &mut Round) -> Result<(), Failure> {
    let nodes = subject.nodes()?;
    let ids: Vec<NodeId> = nodes.iter().map(|node| node.id).collect();
    // A server that makes a million znodes writes a dozen snapshots. The session of the first read has to be synced;
    // what it waits for should be the restart, not a disk that is still busy with those.
    nix::unistd::sync();
    thread::sleep(REST);
    subject.kill(&ids)?;
    let dir = version_2(&nodes[0]);
    round.put("log_size", logs_on_disk(&dir)? as f64);
    let plan = tree_plan(args, subject);
    let lab = subject.lab()?.to_owned();
    let took = thread::scope(|scope| {
        let starting = scope.spawn(|| start(&lab, &ids));
        let took = bench::first_read(&plan, PATIENCE);
        let started = starting
            .join()
            .unwrap_or_else(|_| Err(Failure::environment("the start was not tried")));
        started.and(took)
    })?;
    round.put("first_read", took.as_secs_f64() * 1e6);
    subject.look_again()?;
    let memory = Usage::of(&subject.pids).resident;
    round.put("memory_after", memory as f64);
    Ok(())
}

fn snapshot(
    args: &BenchArgs,
    subject: &Subject,
    number: u64,
    round: &mut Round,
) -> Result<(), Failure> {
    let plan = Plan {
        work: Work::Mix {
            reads: 1,
            writes: 1,
        },
        keys: 1000,
        warm_up: args.warm_up,
        length: args.for_,
        rate: Some(f64::from(args.rate.unwrap_or(RATE))),
        seed: 1 + number,
        ..tree_plan(args, subject)
    };
    let nodes = subject.nodes()?;
    let dirs: Vec<PathBuf> = nodes.iter().map(version_2).collect();
    let (mut before, mut after) = (BTreeSet::new(), BTreeSet::new());
    let mut peak = 0;
    let outcome = bench::run(&plan, &mut |edge| match edge {
        Edge::Ready => {}
        Edge::Begin => {
            usage::forget_peaks(&subject.pids);
            before = snapshots(&dirs);
        }
        Edge::End => {
            peak = Usage::of(&subject.pids).peak;
            after = snapshots(&dirs);
        }
    })?;
    let taken = after.difference(&before).count();
    if taken == 0 {
        return Err(Failure::new(
            Exit::Missed,
            format!("{} took no snapshot while it was watched", subject.name),
        )
        .hint("a longer --for lets it"));
    }
    let newest = after.iter().max_by_key(|path| modified(path));
    let size = newest.and_then(|path| fs::metadata(path).ok());
    round.put("snapshots", taken as f64);
    round.put("pause", outcome.latency.max_us);
    round.put("pause_p99", outcome.latency.p99_us);
    round.put("memory_peak", peak as f64);
    round.put("snapshot_size", size.map(|size| size.len() as f64));
    round.outcome = Some(outcome);
    Ok(())
}

fn modified(path: &Path) -> i64 {
    fs::metadata(path).map_or(0, |metadata| metadata.mtime())
}

/// The files of snapshots there are; also of those that are being written.
fn snapshots(dirs: &[PathBuf]) -> BTreeSet<PathBuf> {
    let files = dirs.iter().filter_map(|dir| fs::read_dir(dir).ok());
    let files = files.flatten().filter_map(Result::ok);
    let is_snapshot = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("snapshot.")
    };
    files.map(|file| file.path()).filter(is_snapshot).collect()
}

/// What the txn logs occupy.
fn logs_on_disk(dir: &Path) -> Result<u64, Failure> {
    let files = fs::read_dir(dir).doing(|| format!("cannot read {}", dir.display()))?;
    let logs = files.filter_map(Result::ok).filter(|file| {
        let name = file.file_name();
        name.to_string_lossy().starts_with("log.")
    });
    let sizes = logs.filter_map(|file| file.metadata().ok());
    Ok(sizes.map(|metadata| metadata.blocks() * BLOCK).sum())
}
