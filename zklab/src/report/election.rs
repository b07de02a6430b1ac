//! How re-elections look: the waterfall of one, a line each of many, and their summary.

use super::{Out, time};
use crate::event::Source;
use crate::observe::waterfall::{Reelection, join};
use crate::supervisor::protocol::KillReport;

/// Columns of the waterfall's bars.
const BARS: f64 = 24.0;

/// The waterfall of one re-election, as text of several lines.
#[must_use]
pub fn waterfall(out: &Out, one: &Reelection) -> String {
    let paint = out.paint;
    let mut lines = vec![format!(
        "killed {} (leader, epoch {}) as {} with SIG{} at {}",
        paint.bold(&one.victim.to_string()),
        one.old_epoch,
        one.death,
        one.signal,
        one.at
    )];
    let phases = [
        ("detect", one.ms.detect, &one.notes.detect),
        ("elect", one.ms.elect, &one.notes.elect),
        ("epoch", one.ms.epoch, &one.notes.epoch),
        ("sync", one.ms.sync, &one.notes.sync),
        ("serve", one.ms.serve, &one.notes.serve),
    ];
    let mut begin = 0.0;
    for (name, length, note) in phases {
        let Some(length) = length else {
            continue;
        };
        let bar = bar(begin, length, one.ms.no_writes);
        begin += length;
        lines.push(format!(
            "  {name:<7} ▏{} {:>9}   {note}",
            paint.cyan(&bar),
            format!("{length:.1} ms")
        ));
    }
    if one.ms.detect.is_none() {
        lines.push(
            "  (no phases: this server has no event feed, and nobody reads the wire)".to_owned(),
        );
    }
    lines.extend(feed_line(one).map(|line| format!("  {}", paint.dim(&line))));
    for attempt in &one.failed_attempts {
        lines.push(format!("  {} {attempt}", paint.yellow("extra epoch:")));
    }
    let leaderless = one
        .ms
        .no_leader
        .map(|ms| format!("{ms:.1} ms without a leader, "))
        .unwrap_or_default();
    lines.push(format!(
        "new leader {}  {leaderless}{} without writes; clients: {}",
        paint.green(&one.new_leader.to_string()),
        paint.bold(&format!("{:.1} ms", one.ms.no_writes)),
        clients(one),
    ));
    lines.push(stall(one));
    lines.join("\n")
}

/// The phases that the servers' own feed puts elsewhere than the wire, if it does by more than a millisecond.
fn feed_line(one: &Reelection) -> Option<String> {
    let feed = one.feed_ms.filter(|_| one.ms_from == Some(Source::Wire))?;
    let phases = [
        ("detect", one.ms.detect, feed.detect),
        ("elect", one.ms.elect, feed.elect),
        ("epoch", one.ms.epoch, feed.epoch),
        ("sync", one.ms.sync, feed.sync),
        ("serve", one.ms.serve, feed.serve),
    ];
    let differing = phases.into_iter().filter_map(|(name, wire, feed)| {
        let (wire, feed) = (wire?, feed?);
        ((wire - feed).abs() > 1.0).then(|| format!("{name} {feed:.1} ms"))
    });
    let differing: Vec<String> = differing.collect();
    (!differing.is_empty()).then(|| format!("the servers' own feed says: {}", differing.join(", ")))
}

fn clients(one: &Reelection) -> String {
    let tally = &one.clients;
    format!(
        "{} reconnects, {} errors, {} sessions lost",
        tally.reconnects, tally.errors, tally.sessions_lost
    )
}

fn stall(one: &Reelection) -> String {
    // Half of the pause being the machine's own is too much to say anything about the server.
    let verdict = if one.host_stall_max_ms * 2.0 < one.ms.no_writes {
        "ok"
    } else {
        "too much to judge the server by these times"
    };
    format!(
        "host stall during this: max {:.1} ms ({verdict})",
        one.host_stall_max_ms
    )
}

/// A bar from `begin` of `length`, where `total` is all columns; never empty.
fn bar(begin: f64, length: f64, total: f64) -> String {
    let column = |ms: f64| {
        let share = if total > 0.0 { ms / total } else { 0.0 };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of 24 columns"
        )]
        let column = (share.clamp(0.0, 1.0) * BARS).round() as usize;
        column
    };
    let all = column(total).max(1);
    let from = column(begin).min(all - 1);
    let to = column(begin + length).clamp(from + 1, all);
    format!(
        "{}{}{}",
        " ".repeat(from),
        "█".repeat(to - from),
        " ".repeat(all - to)
    )
}

/// One of many re-elections, in one line.
#[must_use]
pub fn one_line(out: &Out, number: usize, one: &Reelection) -> String {
    let ms = |phase: Option<f64>| phase.map_or("–".to_owned(), |ms| format!("{ms:.1}"));
    let extra = if one.failed_attempts.is_empty() {
        String::new()
    } else {
        format!("  {}", out.paint.yellow(&one.failed_attempts.join("; ")))
    };
    let stalled = if one.host_stall_max_ms * 2.0 < one.ms.no_writes {
        String::new()
    } else {
        format!(
            "  {}",
            out.paint
                .dim(&format!("host stall {:.1} ms", one.host_stall_max_ms))
        )
    };
    format!(
        "{number:>3}  {} → {:<4} epoch {:<8} {} ms without writes  (detect {} · elect {} · epoch {} · sync {} · serve {}){extra}{stalled}",
        one.victim,
        one.new_leader.to_string(),
        format!("{} → {}", one.old_epoch, one.new_epoch),
        out.paint.bold(&format!("{:>6.1}", one.ms.no_writes)),
        ms(one.ms.detect),
        ms(one.ms.elect),
        ms(one.ms.epoch),
        ms(one.ms.sync),
        ms(one.ms.serve),
    )
}

/// What is said after the re-elections themselves; as JSON, everything.
pub fn killed(out: &Out, report: &KillReport) {
    if out.json {
        json(out, report);
        return;
    }
    if report.kills.len() > 1 {
        summary(out, report);
    }
    if report.findings.is_empty() {
        out.line(&format!(
            "every acknowledged write is there: {} acked, {} unknown, read on {}",
            report.clients.acked,
            report.clients.unknown,
            join(&report.read_on)
        ));
    }
    for finding in &report.findings {
        out.line(&format!("{} {finding}", out.paint.red("BUG:")));
    }
    for node in &report.died {
        out.line(&out.paint.red(&format!(
            "{node} died on its own; `zklab logs {node} -n 20` may say why"
        )));
    }
}

fn summary(out: &Out, report: &KillReport) {
    let mut pauses: Vec<f64> = report.kills.iter().map(|kill| kill.ms.no_writes).collect();
    pauses.sort_by(f64::total_cmp);
    // The nearest rank: the smallest pause that at least this share of all does not exceed.
    let at = |percent: usize| pauses[(pauses.len() * percent).div_ceil(100) - 1];
    let extra = report
        .kills
        .iter()
        .filter(|kill| !kill.failed_attempts.is_empty())
        .count();
    let epochs = if extra == 0 {
        "exactly one epoch each".to_owned()
    } else {
        format!("{extra} took more than one epoch")
    };
    out.line(&format!(
        "{} leaders killed, {epochs}; without writes: p50 {}, p99 {}, max {}",
        report.kills.len(),
        time(at(50)),
        time(at(99)),
        time(at(100)),
    ));
    out.line(&format!(
        "clients: {} reconnects, {} errors, {} sessions lost",
        report.clients.reconnects, report.clients.errors, report.clients.sessions_lost
    ));
}

/// One kill is told flat, with what was found at the end; several as a list.
fn json(out: &Out, report: &KillReport) {
    let [one] = report.kills.as_slice() else {
        out.json(report);
        return;
    };
    if let Ok(mut value) = serde_json::to_value(one) {
        value["lab"] = report.lab.clone().into();
        value["verdict"] = report.verdict.clone().into();
        value["findings"] = report.findings.clone().into();
        value["died"] = serde_json::json!(report.died);
        value["writes"] = serde_json::json!({
            "acked": report.clients.acked,
            "unknown": report.clients.unknown,
            "read_on": report.read_on,
        });
        out.json(&value);
    }
}

#[cfg(test)]
mod tests {
    use super::bar;

    #[test]
    fn bars_follow_one_another_and_are_never_empty() {
        assert_eq!(
            bar(0.0, 12.0, 24.0),
            format!("{}{}", "█".repeat(12), " ".repeat(12))
        );
        assert_eq!(
            bar(12.0, 12.0, 24.0),
            format!("{}{}", " ".repeat(12), "█".repeat(12))
        );
        assert_eq!(bar(24.0, 0.0, 24.0).trim_start(), "█");
        assert_eq!(bar(0.0, 0.0, 0.0), "█");
    }
}
