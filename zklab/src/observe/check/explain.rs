//! An operation as people read it.

use std::fmt::Write;

use zkd::error::ErrorCode;
use zkd::ids::Zxid;

use crate::observe::history::{History, Kind, Op, Outcome};

/// `op 8812  client 3  get /e/3-1 → ok, zxid 0x100000731, version 4, value of op 17  (1.204–1.206 s)`.
pub(super) fn op(history: &History, op: &Op) -> String {
    let mut text = format!("op {}  client {}  ", op.id, op.client);
    if history.own_clients.is_some_and(|own| op.client > own) {
        text.push_str("(zookeeper-client)  ");
    }
    asked(history, op, &mut text);
    answered(history, op, &mut text);
    let from = seconds(history, op.t0);
    let _ = if op.is_answered() {
        write!(text, "  ({from}–{} s)", seconds(history, op.t1))
    } else {
        write!(text, "  (from {from} s)")
    };
    text
}

fn asked(history: &History, op: &Op, text: &mut String) {
    let mut say = |arguments: std::fmt::Arguments<'_>| {
        let _ = text.write_fmt(arguments);
    };
    if op.sequential {
        say(format_args!("sequential "));
    }
    if op.ephemeral {
        say(format_args!("ephemeral "));
    }
    say(format_args!("{}", op.kind.word()));
    if let Some(path) = op.path {
        say(format_args!(" {}", history.path_text(path)));
    }
    if op.kind == Kind::Children {
        say(format_args!(" ({} of them)", op.part_count));
    }
    let parts = history.parts_of(op).iter();
    for part in parts.filter(|_| op.kind != Kind::Children) {
        say(format_args!(
            " {} {}",
            part.kind.word(),
            history.path_text(part.path)
        ));
    }
    if op.rel != Zxid::ZERO {
        say(format_args!(" after {}", op.rel));
    }
    if op.watch {
        say(format_args!(" with a watch"));
    }
    if op.expected != -1 {
        say(format_args!(" if version {}", op.expected));
    }
}

fn answered(history: &History, op: &Op, text: &mut String) {
    let mut say = |arguments: std::fmt::Arguments<'_>| {
        let _ = text.write_fmt(arguments);
    };
    match op.outcome {
        Outcome::Ok => say(format_args!(" → ok")),
        Outcome::Unknown => say(format_args!(" → never answered")),
        Outcome::Failed(code) => match ErrorCode::from_code(code) {
            Some(code) => say(format_args!(" → {code}")),
            None => say(format_args!(" → error {code}")),
        },
    }
    if let Some(made) = op.made {
        say(format_args!(" {}", history.path_text(made)));
    }
    if op.is_answered() && op.zxid > Zxid::ZERO {
        say(format_args!(", zxid {}", op.zxid));
    }
    if op.mzxid != Zxid::ZERO {
        say(format_args!(
            ", version {}, changed at {}",
            op.version, op.mzxid
        ));
    }
    if op.kind.is_read() && op.value != 0 {
        say(format_args!(", value of op {}", op.value));
    }
    if let Some(owner) = op.owner {
        say(format_args!(
            ", owner {}",
            history.sessions[owner.0 as usize]
        ));
    }
}

/// Seconds since the history began.
#[expect(clippy::cast_precision_loss, reason = "a lab runs less than 2^52 µs")]
fn seconds(history: &History, at: u64) -> String {
    format!("{:.6}", at.saturating_sub(history.start_us) as f64 / 1e6)
}
