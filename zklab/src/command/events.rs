//! `events`: what happened, one line each.

use super::Context;
use crate::cli::EventsArgs;
use crate::event::{KINDS, LabEvent, LabEventKind, MessageFate, Source, WireNote};
use crate::failure::{Exit, Failure, nearest};
use crate::node::process::Ended;
use crate::supervisor::client::{Connection, Early};
use crate::supervisor::home::Root;
use crate::supervisor::protocol::{Info, Request};

pub(super) fn run(context: &Context, args: &EventsArgs) -> Result<Exit, Failure> {
    for kind in &args.kind {
        check_kind(kind)?;
    }
    let nodes: Vec<String> = if args.node.is_empty() {
        Vec::new()
    } else {
        let info: Info = context.ask(&Request::Info)?;
        let chosen = super::logs::chosen(&info, &args.node)?;
        chosen.iter().map(|node| node.id.to_string()).collect()
    };
    let now = crate::clock::now_us();
    let mut connection = Connection::open(&Root::open()?, &context.lab)?;
    let request = Request::Events {
        follow: args.follow,
    };
    // The stream counts from the start of the lab, which its newest event cannot tell; ages are judged
    // against the lab's own age.
    let since = match args.since {
        None => 0,
        Some(since) => {
            let status: crate::ensemble::status::Status = context.ask(&Request::Status)?;
            let asked = crate::clock::now_us() - now;
            (status.up_ms * 1000)
                .saturating_sub(asked)
                .saturating_sub(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
        }
    };
    let wanted = |event: &LabEvent| {
        let kind = event.kind_name();
        let of_wire = |word: &String| word == "wire" && event.src == Source::Wire;
        // Single messages are many; they are shown when they are asked for.
        let by_kind = if args.kind.is_empty() {
            !matches!(event.kind, LabEventKind::WireMessage(_))
        } else {
            args.kind
                .iter()
                .any(|word| is_of(&kind, word) || of_wire(word))
        };
        let by_node = nodes.is_empty()
            || event
                .node
                .is_some_and(|node| nodes.contains(&node.to_string()));
        by_kind && by_node && event.t_us >= since
    };
    let show = |event: &LabEvent| {
        context.out.json(event);
        context.out.line(&line(context, event));
    };
    // The servers' feeds arrive side by side: what is over can be told in the order in which it happened.
    let mut past = Vec::new();
    let told = connection.call::<u64>(&request, |early| {
        if let Early::Event(event) = early
            && wanted(&event)
        {
            if args.follow {
                show(&event);
            } else {
                past.push(event);
            }
        }
        true
    });
    if args.follow {
        // The stream ends with the lab, and that is no failure of this command.
        context.out.doing("the lab has ended");
        return Ok(Exit::Ok);
    }
    told?;
    past.sort_by_key(|event| event.t_us);
    past.iter().for_each(show);
    Ok(Exit::Ok)
}

/// Is this kind the word, or of the group it names?
fn is_of(kind: &str, word: &str) -> bool {
    word == "all" || kind == word || kind.split('.').next() == Some(word)
}

fn check_kind(word: &str) -> Result<(), Failure> {
    let known = || KINDS.into_iter().chain(["all"]);
    if known().any(|kind| is_of(kind, word)) {
        return Ok(());
    }
    let groups = known().map(|kind| kind.split('.').next().unwrap_or(kind));
    let guess = nearest(word, known().chain(groups))
        .map(|word| format!("; did you mean {word}?"))
        .unwrap_or_default();
    Err(
        Failure::usage(format!("there is no kind of event {word:?}{guess}"))
            .hint(format!("kinds: {}", known().collect::<Vec<_>>().join(" "))),
    )
}

/// `+4.118233 n3  election.started by n3 …`.
fn line(context: &Context, event: &LabEvent) -> String {
    let paint = context.out.paint;
    let node = event.node.map_or("–".to_owned(), |node| node.to_string());
    let kind = format!("{:<18}", event.kind_name());
    let kind = match event.kind {
        LabEventKind::NodeServing { .. }
        | LabEventKind::LeaderElected { .. }
        | LabEventKind::QuorumRegained { .. }
        | LabEventKind::WriteAcked { .. } => paint.green(&kind),
        LabEventKind::FaultOn(_)
        | LabEventKind::NodeExited { .. }
        | LabEventKind::QuorumLost { .. } => paint.red(&kind),
        LabEventKind::ElectionStarted { .. } | LabEventKind::HostStall { .. } => {
            paint.yellow(&kind)
        }
        _ => kind,
    };
    let text = format!(
        "+{}.{:06} {node:<3} {kind} {}",
        event.t_us / 1_000_000,
        event.t_us % 1_000_000,
        text(&event.kind)
    );
    text.trim_end().to_owned()
}

fn exited(code: Option<i32>, signal: Option<i32>, expected: bool) -> String {
    let own = if expected { "" } else { ", on its own" };
    format!("{}{own}", Ended { code, signal })
}

/// How much was sent, as far as it is known.
fn size(txns: Option<u64>, bytes: Option<u64>) -> String {
    let txns = txns.map_or_else(String::new, |txns| format!(", {txns} txns"));
    let bytes = bytes.map_or_else(String::new, |bytes| format!(", {bytes} bytes"));
    format!("{txns}{bytes}")
}

/// `ACKEPOCH n2 → n4 epoch 3 zxid 0x200000001`.
fn message(note: &WireNote) -> String {
    let mut text = format!("{} {} → {}", note.msg, note.from, note.to);
    if let (Some(vote), Some(round)) = (&note.vote, note.round) {
        text.push_str(&format!(" for {vote} in round {round}"));
    }
    if let Some(state) = note.state {
        text.push_str(&format!(", {state}"));
    }
    if let Some(epoch) = note.epoch {
        text.push_str(&format!(", epoch {epoch}"));
    }
    if let Some(zxid) = note.zxid {
        text.push_str(&format!(", zxid {zxid}"));
    }
    match note.fate {
        MessageFate::Delivered => {}
        MessageFate::Held => text.push_str(": held"),
        MessageFate::Dropped => text.push_str(": dropped"),
    }
    text
}

/// What an event says beyond its kind.
pub(super) fn text(kind: &LabEventKind) -> String {
    use LabEventKind as K;
    match kind {
        K::NodeAdded { membership } => format!("{membership}, new in the lab"),
        K::NodeRemoved { membership } => format!("{membership}, gone for good"),
        K::NodeSpawned { pid } => format!("process {pid}"),
        K::NodeStarting { version } => format!("version {version}"),
        K::NodeListening { port, address } => format!("{port} port at {address}"),
        K::NodeRecovered {
            zxid,
            znodes,
            took_us,
        } => {
            let took = crate::clock::ms(*took_us);
            format!("{znodes} znodes, zxid {zxid}, in {took} ms")
        }
        K::NodeRole { role, reason } => format!("{role} ({reason})"),
        K::NodeServing { role, epoch, zxid } => format!("as {role}, epoch {epoch}, zxid {zxid}"),
        K::NodeNotServing { why } => why.clone(),
        K::NodeStopping { why, code } => format!("{why}, exit code {code}"),
        K::NodeExited {
            code,
            signal,
            expected,
        } => exited(*code, *signal, *expected),
        K::ElectionStarted { reason } => reason.clone(),
        K::ElectionVote {
            round,
            vote,
            zxid,
            epoch,
        } => format!("for {vote} in round {round} (zxid {zxid}, epoch {epoch})"),
        K::ElectionEnded {
            winner,
            round,
            votes,
            early,
        } => {
            let early = if *early { ", everybody agreed" } else { "" };
            format!("{winner} wins round {round} after {votes} votes{early}")
        }
        K::EpochProposed { epoch } | K::EpochAcked { epoch } => format!("epoch {epoch}"),
        K::LeaderElected { epoch } => format!("a quorum is in sync, epoch {epoch}"),
        K::Sync {
            to,
            mode,
            from_zxid,
            to_zxid,
            txns,
            bytes,
            ..
        } => {
            let size = size(*txns, *bytes);
            let mode = format!("{mode:?}").to_uppercase();
            format!("{mode} to {to}, {from_zxid} → {to_zxid}{size}")
        }
        K::UpToDate { leader, epoch } => format!("by {leader}, epoch {epoch}"),
        K::WireMessage(note) => message(note),
        K::FirstCommit { zxid } | K::WriteAcked { zxid } => format!("zxid {zxid}"),
        K::SteppedDown { role, why } => format!("no longer {role}: {why}"),
        K::EpochBumped { from, to } => format!("{from} → {to}"),
        K::QuorumLost { have, need } | K::QuorumRegained { have, need } => {
            format!("voters that serve: {have}, needed: {need}")
        }
        K::NetReady { net, took_us } => {
            format!("{net} network made in {} ms", crate::clock::ms(*took_us))
        }
        K::FaultFlipped { id, on } => flipped(id, *on),
        K::FaultOn(fault) | K::FaultOff(fault) => format!("{} {}", fault.id, fault.fault),
        K::HostStall { ms } => format!("the machine stood still for {ms} ms"),
    }
}

fn flipped(id: &str, on: bool) -> String {
    format!("{id} {}", if on { "comes" } else { "goes" })
}
