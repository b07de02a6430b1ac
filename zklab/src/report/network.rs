//! How faults of the network look.

use super::ensemble::table;
use super::{Out, bytes, time};
use crate::failure::Exit;
use crate::fault::change::{bits, percent, span};
use crate::supervisor::protocol::{
    FaultReport, HealReport, LinkReport, LinksReport, PcapReport, WithholdReport,
};

use std::io::Write as _;
use std::path::Path;

/// More links than this are counted, not listed.
const LISTED_MAX: usize = 6;

/// Faults were put in or links reset.
pub fn fault(out: &Out, report: &FaultReport) {
    out.json(report);
    let id = report
        .id
        .as_deref()
        .map_or(String::new(), |id| format!("{id} "));
    let mut listed = report.links.clone();
    if listed.len() > LISTED_MAX {
        listed.truncate(LISTED_MAX - 1);
        listed.push("…".to_owned());
    }
    let done = if report.cmd == "link reset" {
        "clean"
    } else {
        &report.done
    };
    out.line(&format!(
        "{id}{}: {} ({} of {} links {done}, took effect in {})",
        report.what,
        listed.join(" "),
        report.links.len(),
        report.of,
        short(report.effective_us)
    ));
    if let Some(healed) = &report.healed {
        heal_line(out, healed);
    }
}

/// Messages are withheld.
pub fn withheld(out: &Out, report: &WithholdReport, hold: bool) {
    out.json(report);
    let armed = format!("{} armed: {}", report.id, report.what);
    if report.caught.is_empty() {
        let wait = if report.exit == Exit::Ok {
            format!("; `zklab heal {}` takes it out", report.id)
        } else {
            "; nothing was caught".to_owned()
        };
        out.line(&format!("{armed}{wait}"));
    }
    for (number, catch) in report.caught.iter().enumerate() {
        let lead = if number == 0 {
            format!("{armed}; ")
        } else {
            "  ".to_owned()
        };
        let end = match (&report.healed, hold) {
            (Some(_), _) => String::new(),
            (None, true) => format!(", held; `zklab heal {}` lets it go", report.id),
            (None, false) => {
                format!(
                    ", dropped; `zklab heal {}` resets the connection",
                    report.id
                )
            }
        };
        out.line(&format!("{lead}{catch}{end}"));
    }
    if let Some(healed) = &report.healed {
        heal_line(out, healed);
    }
}

/// Packets were written into a file. Where stdout took them, stderr gets the words.
pub fn captured(out: &Out, report: &PcapReport, file: &Path) {
    out.json(report);
    let text = captured_line(report, file);
    if file != Path::new("-") {
        out.line(&text);
    } else if !out.quiet {
        // A terminal that is gone needs no words.
        let _ = writeln!(std::io::stderr().lock(), "{text}");
    }
}

fn captured_line(report: &PcapReport, file: &Path) -> String {
    let mut text = format!(
        "{} packets, {} in {}",
        report.packets,
        bytes(report.bytes),
        time(report.ms as f64)
    );
    if file != Path::new("-") {
        text = format!("{}: {text}", file.display());
    }
    if report.marked > 0 {
        text.push_str(&format!(
            "; {} did not simply arrive, and have a comment",
            report.marked
        ));
    }
    if report.left_out > 0 {
        text.push_str(&format!(
            "; {} left out, because more came than could be written",
            report.left_out
        ));
    }
    text
}

/// Faults were taken out.
pub fn heal(out: &Out, report: &HealReport) {
    out.json(report);
    heal_line(out, report);
}

fn heal_line(out: &Out, report: &HealReport) {
    if report.healed.is_empty() {
        return out.line("nothing to heal: no fault stands");
    }
    let mut line = format!("healed {}", report.healed.join(" "));
    if let Some(first) = report.first_delivery_ms {
        line.push_str(&format!("; first delivery +{}", time(first)));
    }
    line.push_str(&format!(
        ", {}/{} voters serve",
        report.serving, report.voters
    ));
    if let Some(after) = report.serving_ms {
        line.push_str(&format!(" +{}", time(after)));
    }
    out.line(&line);
}

/// The links as they are; JSON is one object a line.
pub fn links(out: &Out, report: &LinksReport) {
    for link in &report.links {
        out.json(link);
    }
    let head = [
        "LINK", "STATE", "DELAY", "JITTER", "LOSS", "RATE", "OTHER", "SENT", "DROPPED", "HELD",
    ];
    let rows = report.links.iter().map(row).collect();
    out.line(&table(&head, rows, &[7, 8, 9]));
}

fn row(link: &LinkReport) -> Vec<String> {
    let faults = &link.faults;
    let state = match () {
        () if faults.cut => "cut",
        () if faults.jam => "jam",
        () if faults.cut_servers => "cut servers",
        () if faults.jam_servers => "jam servers",
        () => "up",
    };
    let mut others = Vec::new();
    for (name, chance) in [
        ("dup", faults.duplicate),
        ("reorder", faults.reorder),
        ("corrupt", faults.corrupt),
    ] {
        if chance > 0.0 {
            others.push(format!("{name} {}", percent(chance)));
        }
    }
    if faults.burst > 1.0 {
        others.push(format!("burst {}", faults.burst));
    }
    vec![
        link.link.clone(),
        state.to_owned(),
        or_dash(faults.delay_us, span),
        or_dash(faults.jitter_us, span),
        if faults.loss > 0.0 {
            percent(faults.loss)
        } else {
            "–".to_owned()
        },
        or_dash(faults.rate_bps, bits),
        if others.is_empty() {
            "–".to_owned()
        } else {
            others.join(", ")
        },
        link.traffic.sent.to_string(),
        link.traffic.dropped.to_string(),
        link.traffic.held.to_string(),
    ]
}

fn or_dash(value: u64, shown: impl Fn(u64) -> String) -> String {
    if value == 0 {
        "–".to_owned()
    } else {
        shown(value)
    }
}

fn short(us: u64) -> String {
    if us < 1000 {
        format!("{us} µs")
    } else {
        time(crate::clock::ms(us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::emulator::Traffic;
    use crate::net::link::LinkFaults;

    #[test]
    fn a_link_is_shown_as_it_was_typed() {
        let link = LinkReport {
            v: 1,
            link: "n1>n2".to_owned(),
            faults: LinkFaults {
                delay_us: 20_000,
                jitter_us: 1_500,
                loss: 0.01,
                rate_bps: 10_000_000,
                corrupt: 0.0025,
                ..LinkFaults::default()
            },
            traffic: Traffic::default(),
        };
        let shown = row(&link).join(" ");
        assert_eq!(shown, "n1>n2 up 20ms 1500µs 1% 10mbit corrupt 0.25% 0 0 0");
    }
}
