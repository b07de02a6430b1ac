//! Elections, each with what was said from whom to whom: a line down for every node, time goes down, and a row for
//! each thing said or done. Only the times at the left tell how long things took.

use std::collections::BTreeSet;

use super::super::elections::{Election, End, Row, Tone};
use super::super::story::Story;
use super::{length, moment};
use crate::report::markup::{Markup, px};

/// So many rows of one election are drawn.
const ROWS_MAX: usize = 160;
/// So many rows of all together; elections beyond have only their line.
const ALL_ROWS_MAX: usize = 5_000;
const ROW: f64 = 17.0;
const LEFT: f64 = 92.0;
const COLUMN: f64 = 74.0;

/// All of them.
pub(super) fn all(page: &mut Markup, story: &Story) {
    if story.elections.is_empty() {
        return;
    }
    let nodes: Vec<&str> = story.lanes.iter().map(|lane| lane.node.as_str()).collect();
    page.open("section", &[("id", &"elections")]);
    page.element("h2", &[], "Elections, and what was said in them");
    let mut drawn = 0;
    for (index, election) in story.elections.iter().enumerate() {
        let rows = election.rows.len().min(ROWS_MAX);
        let room = drawn + rows <= ALL_ROWS_MAX;
        one(page, index + 1, election, &nodes, room);
        drawn += if room { rows } else { 0 };
    }
    page.close("section");
}

/// The line that says how it went.
fn summary(election: &Election) -> String {
    let who: Vec<&str> = election.looking.iter().map(String::as_str).collect();
    let who = match who.as_slice() {
        [] => "nobody was heard looking".to_owned(),
        [one] => format!("{one} looked for a leader"),
        many => format!("{} looked for a leader", many.join(" ")),
    };
    let end = match &election.end {
        End::Won {
            leader,
            epoch,
            at_us,
        } => {
            let took = length(at_us.saturating_sub(election.from_us));
            let write = election.write_us.map_or_else(String::new, |write| {
                format!(
                    ", first write acknowledged after {}",
                    length(write.saturating_sub(election.from_us))
                )
            });
            format!("{leader} leads epoch {epoch} after {took}{write}")
        }
        End::Joined => "the leader that reigned took it in".to_owned(),
        End::Lost => format!(
            "no leader was found in {}",
            length(election.to_us - election.from_us)
        ),
    };
    format!("{who}; {end}")
}

fn one(page: &mut Markup, number: usize, election: &Election, nodes: &[&str], room: bool) {
    let id = format!("election-{number}");
    let from = px(election.from_us as f64 / 1e3);
    let to = px(election.to_us as f64 / 1e3);
    page.open(
        "details",
        &[
            ("id", &id),
            ("class", &"electing"),
            ("data-from", &from),
            ("data-to", &to),
        ],
    );
    page.open("summary", &[]);
    page.element("b", &[], number);
    page.element("time", &[], moment(election.from_us));
    page.text(" ").text(summary(election)).close("summary");
    if !election.reason.is_empty() {
        page.element(
            "p",
            &[("class", &"reason")],
            format!("Called by {}", election.reason),
        );
    }
    if room {
        diagram(page, election, nodes);
        if election.rows.len() > ROWS_MAX {
            let more = election.rows.len() - ROWS_MAX;
            page.element(
                "p",
                &[("class", &"note")],
                format!("{more} more are in events.ndjson."),
            );
        }
    } else {
        page.element(
            "p",
            &[("class", &"note")],
            "What was said is in events.ndjson.",
        );
    }
    page.close("details");
}

fn diagram(page: &mut Markup, election: &Election, nodes: &[&str]) {
    let said: BTreeSet<&str> = election
        .rows
        .iter()
        .flat_map(|row| row.to.iter().chain([&row.from]))
        .map(String::as_str)
        .collect();
    let nodes: Vec<&str> = nodes
        .iter()
        .copied()
        .filter(|node| said.contains(node))
        .collect();
    let rows = &election.rows[..election.rows.len().min(ROWS_MAX)];
    let height = 34.0 + rows.len() as f64 * ROW + 8.0;
    let texts = LEFT + nodes.len() as f64 * COLUMN;
    let width = texts + 430.0;
    page.open("div", &[("class", &"wide")]);
    page.open(
        "svg",
        &[
            ("class", &"diagram"),
            ("viewBox", &format!("0 0 {} {}", px(width), px(height))),
            ("width", &px(width)),
            ("height", &px(height)),
            ("role", &"img"),
            (
                "aria-label",
                &"Messages of this election, from top to bottom",
            ),
        ],
    );
    let x = |node: &str| {
        let place = nodes.iter().position(|known| *known == node);
        place.map(|place| LEFT + (place as f64 + 0.5) * COLUMN)
    };
    for node in &nodes {
        let at = px(x(node).unwrap_or(LEFT));
        page.element("text", &[("class", &"head"), ("x", &at), ("y", &16)], node);
        page.empty(
            "line",
            &[
                ("class", &"life"),
                ("x1", &at),
                ("x2", &at),
                ("y1", &24),
                ("y2", &px(height - 4.0)),
            ],
        );
    }
    let mut told_us = None;
    for (index, row) in rows.iter().enumerate() {
        let y = 40.0 + index as f64 * ROW;
        // A time is told when it differs visibly from the one above.
        if told_us.is_none_or(|told| row.at_us - told >= 100) {
            let since = row.at_us - election.from_us;
            let text = format!("+{}", length(since));
            page.element(
                "text",
                &[
                    ("class", &"time"),
                    ("x", &(LEFT - 10.0)),
                    ("y", &px(y + 4.0)),
                ],
                text,
            );
            told_us = Some(row.at_us);
        }
        draw(page, row, y, texts + 8.0, &x);
    }
    page.close("svg").close("div");
}

fn draw(page: &mut Markup, row: &Row, y: f64, text_x: f64, x: &impl Fn(&str) -> Option<f64>) {
    let class = format!("said {}", row.tone.word());
    page.open("g", &[("class", &class)]);
    if let Some(from) = x(&row.from) {
        for to in row.to.iter().filter_map(|to| x(to)) {
            // A message that never arrived ends on the way.
            let lost = row.tone == Tone::Bad;
            let end = if lost { from + (to - from) * 0.6 } else { to };
            let class = if lost { "arrow lostarrow" } else { "arrow" };
            page.empty(
                "line",
                &[
                    ("class", &class),
                    ("x1", &px(from)),
                    ("x2", &px(end)),
                    ("y1", &px(y)),
                    ("y2", &px(y)),
                ],
            );
            let back = (from - end).signum() * 7.0;
            let tip = format!("M{} {}l{} -3.5v7Z", px(end), px(y), px(back));
            page.empty("path", &[("class", &"tip"), ("d", &tip)]);
            if lost {
                page.element(
                    "text",
                    &[("class", &"cross"), ("x", &px(end)), ("y", &px(y + 4.5))],
                    "✕",
                );
            }
        }
        page.empty("circle", &[("cx", &px(from)), ("cy", &px(y)), ("r", &3.6)]);
    }
    let to = if row.to.is_empty() {
        String::new()
    } else {
        format!(" → {}", row.to.join(" "))
    };
    let text = format!("{}{to}: {}", row.from, row.text);
    page.element(
        "text",
        &[("class", &"what"), ("x", &px(text_x)), ("y", &px(y + 4.0))],
        text,
    );
    page.close("g");
}
