//! A follower comes back to a big tree: far behind, and with nothing at all. How long it takes, and what everybody else
//! feels of it.

use std::fs;
use std::net::SocketAddr;
use std::time::Instant;

use super::subject::{Subject, version_2};
use super::tree::{fill, tree_plan};
use super::{in_turn, with_bystanders};
use crate::bench;
use crate::cli::bench::BenchArgs;
use crate::command::Context;
use crate::event::Role;
use crate::failure::{Context as _, Exit, Failure};
use crate::report::bench::{Kind, Report, Round, Unit};
use crate::supervisor::protocol::InfoNode;

pub(super) fn measure(
    context: &Context,
    args: &BenchArgs,
    subjects: &mut [Subject],
) -> Result<Report, Failure> {
    if args.nodes() < 3 {
        return Err(Failure::usage(format!(
            "with {} servers none can be away; --nodes must be at least 3",
            args.nodes()
        )));
    }
    let sides = in_turn(context, args, subjects, |subject, round, measured| {
        if round == 0 {
            fill(args, subject, measured)?;
        }
        let victim = follower(subject)?;
        let others = others(subject, &victim)?;
        behind(args, subject, &victim, &others, measured)?;
        empty(subject, &victim, &others, measured)
    })?;
    let notes = vec![
        format!(
            "One follower gets SIGKILL, {} writes are made without it, and it is started again. Then it gets SIGKILL \
             once more, loses all its data, and is started again: it has to be sent the whole tree. Time counts from \
             the start until it serves clients.",
            args.behind
        ),
        "Meanwhile other clients, three on each of the other servers, read and write every 20 ms and send heartbeats; \
         their latency counts from when each was due."
            .to_owned(),
    ];
    Ok(Report::new(args.describe(), notes, kinds(), sides))
}

fn kinds() -> Vec<Kind> {
    let micros = |key: &str, head: &str, name: &str| Kind::new(key, head, name, Unit::Micros);
    let count = |key: &str, head: &str, name: &str| Kind::new(key, head, name, Unit::Count).aside();
    vec![
        micros(
            "behind",
            "FAR BEHIND",
            "a follower that is far behind serves again",
        ),
        micros(
            "behind_others_p99",
            "OTHERS' P99",
            "others' 99th percentile while it catches up",
        ),
        micros(
            "behind_others_max",
            "OTHERS' MAX",
            "others' slowest operation while it catches up",
        ),
        count(
            "behind_late_beats",
            "LATE BEATS",
            "others' late heartbeats while it catches up",
        ),
        micros("empty", "EMPTY", "a follower that has nothing serves again"),
        micros(
            "empty_others_p99",
            "OTHERS' P99",
            "others' 99th percentile while it gets the tree",
        ),
        micros(
            "empty_others_max",
            "OTHERS' MAX",
            "others' slowest operation while it gets the tree",
        ),
        count(
            "empty_late_beats",
            "LATE BEATS",
            "others' late heartbeats while it gets the tree",
        ),
    ]
}

/// A server that follows.
fn follower(subject: &Subject) -> Result<InfoNode, Failure> {
    let status = subject.status()?;
    let follower = status
        .nodes
        .iter()
        .find(|node| node.role == Some(Role::Follower))
        .map(|node| node.id);
    let found = subject
        .nodes()?
        .into_iter()
        .find(|node| Some(node.id) == follower);
    found.ok_or_else(|| Failure::new(Exit::Missed, "no server says that it follows"))
}

/// Where all but this one answer clients.
fn others(subject: &Subject, victim: &InfoNode) -> Result<Vec<SocketAddr>, Failure> {
    let nodes = subject.nodes()?.into_iter();
    nodes
        .filter(|node| node.id != victim.id)
        .map(|node| {
            let cannot = || format!("{} has an address that is none", node.id);
            node.addr.parse().doing(cannot)
        })
        .collect()
}

fn behind(
    args: &BenchArgs,
    subject: &mut Subject,
    victim: &InfoNode,
    others: &[SocketAddr],
    round: &mut Round,
) -> Result<(), Failure> {
    subject.kill(&[victim.id])?;
    let plan = bench::Plan {
        servers: others.to_vec(),
        ..tree_plan(args, subject)
    };
    bench::overwrite(&plan, u64::from(args.behind))?;
    come_back("behind", subject, victim, others, round)
}

fn empty(
    subject: &mut Subject,
    victim: &InfoNode,
    others: &[SocketAddr],
    round: &mut Round,
) -> Result<(), Failure> {
    subject.kill(&[victim.id])?;
    let dir = version_2(victim);
    fs::remove_dir_all(&dir).doing(|| format!("cannot remove {}", dir.display()))?;
    come_back("empty", subject, victim, others, round)
}

fn come_back(
    name: &str,
    subject: &mut Subject,
    victim: &InfoNode,
    others: &[SocketAddr],
    round: &mut Round,
) -> Result<(), Failure> {
    let mut seen = Round::default();
    let took = with_bystanders(others, &mut seen, |bystanders| {
        bystanders.record();
        let begin = Instant::now();
        subject.start(&[victim.id])?;
        Ok(begin.elapsed())
    })?;
    round.put(name, took.as_secs_f64() * 1e6);
    for (key, value) in seen.figures {
        round.put(&format!("{name}_{key}"), value);
    }
    // Both times together, for the verdict.
    if let Some(now) = seen.bystanders {
        let before = round.bystanders.unwrap_or_default();
        let mut both = now;
        both.heartbeats += before.heartbeats;
        both.late += before.late;
        both.lost += before.lost;
        round.bystanders = Some(both);
    }
    Ok(())
}
