//! How ensembles look: `up`, `status`, `ls`, and what was done to nodes.

use tabled::builder::Builder;
use tabled::settings::object::{Columns, Rows};
use tabled::settings::{Alignment, Modify, Padding, Style};

use super::{Out, age, bytes, time};
use crate::ensemble::status::{NodeStatus, Status};
use crate::event::Role;
use crate::failure::Exit;
use crate::node::Membership;
use crate::observe::waterfall::join;
use crate::supervisor::protocol::{ActReport, DownReport, MemberReport, Step, StepNode, UpReport};

/// A table without borders: head in capitals, two spaces between columns, these columns to the right.
#[must_use]
pub fn table(head: &[&str], rows: Vec<Vec<String>>, right: &[usize]) -> String {
    let mut builder = Builder::default();
    builder.push_record(head.iter().copied());
    for row in rows {
        builder.push_record(row);
    }
    let mut table = builder.build();
    table
        .with(Style::empty())
        .with(Padding::new(1, 1, 0, 0))
        .with(Modify::new(Rows::first()).with(Alignment::left()));
    for column in right {
        table.with(Modify::new(Columns::one(*column)).with(Alignment::right()));
    }
    table.to_string()
}

/// A lab is up.
pub fn up(out: &Out, report: &UpReport) {
    out.json(report);
    let paint = out.paint;
    let count = report.nodes.len();
    let mut net = format!("net {}", report.net);
    if report.rootless {
        net.push_str(" (rootless)");
    }
    if report.net.has_namespaces() {
        net.push_str(&format!("  seed {}", report.seed));
    }
    out.line(&format!(
        "lab {}  {count} × {}  {net}  data {}",
        paint.bold(&report.lab),
        report.server,
        report.data
    ));
    let width = report.nodes.iter().map(|n| n.addr.len()).max().unwrap_or(0);
    for row in report.nodes.chunks(3) {
        let mut line = String::new();
        for node in row {
            let mut word = node.role.map_or("?".to_owned(), |role| role.to_string());
            if node.id == report.leader && word == "leader" {
                word = format!("leader  epoch {}", report.epoch);
            }
            let pad = " ".repeat(18_usize.saturating_sub(word.len()));
            let word = if node.id == report.leader {
                paint.green(&word)
            } else {
                word
            };
            line.push_str(&format!(
                "  {:<3} {:<width$}  {word}{pad}",
                node.id, node.addr
            ));
        }
        out.line(line.trim_end());
    }
    let serving = paint.bold(&time(report.serving_ms));
    if report.steps.is_empty() {
        let phases: Vec<String> = report
            .phases
            .iter()
            .map(|(name, ms)| format!("{name} {}", short(*ms)))
            .collect();
        out.line(&format!("serving in {serving}  ({})", phases.join(" · ")));
    } else {
        out.line(&format!("serving in {serving}, one by one"));
    }
}

/// Milliseconds without their unit, as short as is honest.
fn short(ms: f64) -> String {
    if ms < 10.0 {
        format!("{ms:.1}")
    } else {
        format!("{ms:.0}")
    }
}

/// One step of `up --one-by-one`, in one line.
#[must_use]
pub fn step(out: &Out, step: &Step) -> String {
    let paint = out.paint;
    let names = |keep: &dyn Fn(&StepNode) -> bool| -> String {
        let names: Vec<String> = step
            .running
            .iter()
            .filter(|n| keep(n))
            .map(|n| n.id.to_string())
            .collect();
        names.join(" ")
    };
    let took = time(crate::clock::ms(step.took_us));
    let me = step.running.iter().find(|node| node.id == step.node);
    let text = match (step.leader, me) {
        (Some(leader), Some(me)) if me.id == leader => format!(
            "{}: {} of {} votes needed, epoch {}; followers {}",
            paint.green("LEADING"),
            step.running.len(),
            step.need,
            step.epoch.unwrap_or(0),
            names(&|node| node.state == Role::Follower)
        ),
        (Some(leader), Some(me)) => {
            let state = match me.state {
                Role::Follower => "FOLLOWING",
                Role::Observer => "OBSERVING",
                _ => "LOOKING",
            };
            let why = if me.id > leader && me.state == Role::Follower {
                " although its id is higher: a leader with a quorum stays"
            } else {
                ""
            };
            format!("{state} {leader}{why}")
        }
        _ => {
            let vote = me
                .and_then(|node| node.vote.as_ref())
                .map(|vote| format!(", {} would elect {vote}", names(&|_| true)))
                .unwrap_or_default();
            format!(
                "{}: {} of {} votes needed{vote}",
                paint.yellow("LOOKING"),
                step.running.len(),
                step.need
            )
        }
    };
    format!(
        "{} started, {text}  ({took})",
        paint.bold(&step.node.to_string())
    )
}

/// The state of an ensemble.
pub fn status(out: &Out, status: &Status, wide: bool) {
    out.json(status);
    let mut head = vec![
        "NODE", "STATE", "ROLE", "EPOCH", "ZXID", "LAG", "SESS", "UP", "PID",
    ];
    let has_sync_times = status.nodes.iter().any(|node| node.fsync_p99_ms.is_some());
    if has_sync_times && wide {
        head.push("FSYNC p99");
    }
    if wide {
        head.extend(["MEMORY", "ADDRESS", "VERSION"]);
    }
    let faults = status.nodes.iter().any(|node| !node.faults.is_empty());
    if faults {
        head.push("FAULTS");
    }
    let notes = status.nodes.iter().any(|node| node.note.is_some());
    if notes {
        head.push("NOTE");
    }
    let rows = status
        .nodes
        .iter()
        .map(|node| status_row(node, wide, has_sync_times, (faults, notes)))
        .collect();
    for line in table(&head, rows, &[]).lines() {
        out.line(out.paint.states(line).trim_end());
    }
    out.line(&quorum_line(out, status));
}

fn status_row(
    node: &NodeStatus,
    wide: bool,
    sync_times: bool,
    (faults, notes): (bool, bool),
) -> Vec<String> {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "–".to_owned());
    let role = match (node.role, node.membership) {
        (Some(role), _) => Some(role.to_string()),
        (None, Membership::Observer) => Some("(observer)".to_owned()),
        (None, Membership::Voter) => None,
    };
    let mut row = vec![
        node.id.to_string(),
        node.state.to_string(),
        or_dash(role),
        or_dash(node.epoch.map(|epoch| epoch.to_string())),
        or_dash(node.zxid.map(|zxid| zxid.to_string())),
        or_dash(node.lag.map(|lag| lag.to_string())),
        or_dash(node.sessions.map(|count| count.to_string())),
        or_dash(node.up_ms.map(age)),
        or_dash(node.pid.map(|pid| pid.to_string())),
    ];
    if wide && sync_times {
        row.push(or_dash(node.fsync_p99_ms.map(|ms| format!("{ms:.1} ms"))));
    }
    if wide {
        let megabytes = node
            .rss
            .map(|bytes| format!("{} MB", bytes.div_ceil(1 << 20)));
        row.extend([
            or_dash(megabytes),
            node.addr.clone(),
            or_dash(node.version.clone()),
        ]);
    }
    if faults {
        row.push(or_dash(
            Some(node.faults.join(", ")).filter(|text| !text.is_empty()),
        ));
    }
    if notes {
        row.push(node.note.clone().unwrap_or_default());
    }
    row
}

fn quorum_line(out: &Out, status: &Status) -> String {
    let paint = out.paint;
    let mut parts = Vec::new();
    if status.quorum {
        let mut part = format!("quorum {}/{}", status.have, status.voters);
        if let (Some(leader), Some(epoch)) = (status.leader, status.epoch) {
            part.push_str(&format!(" · leader {leader}, epoch {epoch}"));
        }
        parts.push(part);
    } else {
        let lost = format!(
            "no quorum: {} of {} voters serve",
            status.have, status.voters
        );
        parts.push(format!("{}, {} needed", paint.red(&lost), status.need));
    }
    if let Some(digest) = &status.digest {
        let names = join(&digest.nodes);
        parts.push(match &digest.value {
            Some(value) => format!(
                "digest equal at {} ({}) on {names}",
                digest.zxid,
                brief(value)
            ),
            None => format!(
                "{} at {} on {names}",
                paint.red("digest DIFFERS"),
                digest.zxid
            ),
        });
    }
    parts.join(" · ")
}

/// The two ends of a long digest, without the zeros in front.
fn brief(value: &str) -> String {
    let value = value.trim_start_matches('0');
    if value.len() <= 10 {
        return value.to_owned();
    }
    let head = value.get(..4).unwrap_or(value);
    let tail = value.get(value.len() - 2..).unwrap_or_default();
    format!("{head}…{tail}")
}

/// The labs of this machine.
pub fn labs(out: &Out, labs: &[Status]) {
    if labs.is_empty() {
        out.line("no lab is up; `zklab up` makes one");
        return;
    }
    let rows = labs
        .iter()
        .map(|lab| {
            let running = lab.nodes.iter().filter(|node| node.pid.is_some()).count();
            vec![
                lab.lab.clone(),
                format!("{running}/{}", lab.nodes.len()),
                if lab.quorum { "yes" } else { "no" }.to_owned(),
                lab.leader.map_or("–".to_owned(), |id| id.to_string()),
                lab.server.clone(),
                lab.net.clone(),
                age(lab.up_ms),
                lab.faults.len().to_string(),
            ]
        })
        .collect();
    let head = [
        "NAME", "NODES", "QUORUM", "LEADER", "SERVER", "NET", "UP", "FAULTS",
    ];
    for line in table(&head, rows, &[]).lines() {
        out.line(line.trim_end());
    }
}

/// One thing that was done, in one line.
#[must_use]
pub fn act(out: &Out, act: &crate::supervisor::protocol::Act) -> String {
    let leader = if act.leader { " (leader)" } else { "" };
    let took = act
        .ms
        .map(|ms| format!(", {}", time(ms)))
        .unwrap_or_default();
    format!(
        "{}{leader} {}{took}",
        out.paint.bold(&act.id.to_string()),
        act.text
    )
}

/// What was done to nodes.
pub fn acted(out: &Out, report: &ActReport, told: bool) {
    out.json(report);
    if !told {
        for one in &report.nodes {
            out.line(&act(out, one));
        }
    }
    if let Some(paused) = report.writes_paused_ms {
        out.line(&format!("longest pause of writes {}", time(paused)));
    }
    if !report.quorum {
        let text = format!(
            "no quorum is possible: {} of {} voters needed run",
            report.have, report.need
        );
        out.line(&format!(
            "{}; `zklab start all` starts what is down",
            out.paint.red(&text)
        ));
    } else if report.exit == Exit::Missed {
        out.line(
            &out.paint
                .red("not every node serves; `zklab status` shows them"),
        );
    }
}

/// A node came or went. What was done to the others was told before.
pub fn changed(out: &Out, report: &MemberReport) {
    out.json(report);
    out.line(&changed_line(out, report));
    if let Some(paused) = report.writes_paused_ms {
        out.line(&format!(
            "{} voters, {} make a quorum; longest pause of writes {}",
            report.voters,
            report.need,
            time(paused)
        ));
    }
}

/// `n6 10.77.0.6 observer, synced by SNAP 1.2 MB in 14 ms, serving after 31 ms`.
fn changed_line(out: &Out, report: &MemberReport) -> String {
    let id = out.paint.bold(&report.id.to_string());
    let took = time(report.ms);
    let role = report.role.map(|role| role.to_string());
    let Some(addr) = &report.addr else {
        let was = role.unwrap_or_else(|| report.membership.to_string());
        return format!("{id} is gone for good after {took} (it was {was})");
    };
    let role = role.unwrap_or_else(|| report.membership.to_string());
    let synced = report.synced.as_ref().map_or_else(String::new, |synced| {
        let mode = format!("{:?}", synced.mode).to_uppercase();
        let much = match synced.bytes {
            Some(count) => bytes(count),
            None if synced.txns == 1 => "of 1 txn".to_owned(),
            None => format!("of {} txns", synced.txns),
        };
        format!(", synced by {mode} {much} in {}", time(synced.ms))
    });
    format!("{id} {addr} {role}{synced}, serving after {took}")
}

/// A lab was ended.
pub fn down(out: &Out, report: &DownReport) {
    out.json(report);
    let left = match &report.kept {
        Some(dir) => format!("data left in {}", dir.display()),
        None => "nothing left".to_owned(),
    };
    let s = if report.nodes == 1 { "" } else { "s" };
    out.line(&format!(
        "down: {} node{s}, {}, {left}",
        report.nodes,
        time(report.ms)
    ));
}
