//! The picture: lanes that scroll to the left, what stands, two plots on the same axis of time, what happened, and the
//! keys. Every state has a letter of its own besides its colour, for terminals and eyes without colours.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};

use super::screen::{Lane, Screen};
use crate::command::events;
use crate::report::run::{Fault, LaneState};

/// Where the lanes begin: before it are the names.
const LEFT: u16 = 22;
/// The least that makes sense.
const LEAST: (u16, u16) = (60, 16);
/// Rows of a plot.
const PLOT: u16 = 3;
/// Everything but lanes and events.
const FIXED: u16 = 12;

/// Writes with a clip at the right edge.
struct Pen<'b> {
    buffer: &'b mut Buffer,
    area: Rect,
}

impl Pen<'_> {
    /// Writes at a column and row of the area; the column after the text.
    fn put(&mut self, x: u16, y: u16, text: &str, style: Style) -> u16 {
        if y >= self.area.height || x >= self.area.width {
            return x;
        }
        let room = usize::from(self.area.width - x);
        let (end, _) = self
            .buffer
            .set_stringn(self.area.x + x, self.area.y + y, text, room, style);
        end - self.area.x
    }
}

fn plain() -> Style {
    Style::default()
}

fn dim() -> Style {
    plain().fg(Color::DarkGray)
}

fn bold() -> Style {
    plain().add_modifier(Modifier::BOLD)
}

/// Draws all of it.
pub(super) fn screen(screen: &Screen, area: Rect, buffer: &mut Buffer) {
    let mut pen = Pen { buffer, area };
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let text = format!(
            "the terminal is too small: at least {} × {}",
            LEAST.0, LEAST.1
        );
        pen.put(0, 0, &text, plain());
        pen.put(0, 1, "q quits", dim());
        return;
    }
    header(&mut pen, screen);
    let room = usize::from(area.height - FIXED).saturating_sub(2).max(1);
    let shown = screen.lanes.len().min(room);
    // The selected lane is always among those that are shown.
    let first = screen
        .selected
        .map_or(0, |index| (index + 1).saturating_sub(shown));
    let mut y = 2;
    for (index, lane) in screen.lanes.iter().enumerate().skip(first).take(shown) {
        draw_lane(&mut pen, screen, lane, Some(index) == screen.selected, y);
        y += 1;
    }
    let hidden = screen.lanes.len() - shown;
    standing(&mut pen, screen, hidden, y);
    rates(&mut pen, screen, y + 1);
    latencies(&mut pen, screen, y + 1 + PLOT);
    let top = y + 1 + 2 * PLOT;
    let bottom = area.height - 2;
    happened(&mut pen, screen, top, bottom);
    footer(&mut pen, screen, bottom);
    if screen.help {
        help(&mut pen);
    }
}

fn header(pen: &mut Pen<'_>, screen: &Screen) {
    let reversed = bold().add_modifier(Modifier::REVERSED);
    let mut x = pen.put(0, 0, " zklab watch ", reversed);
    x = pen.put(x + 1, 0, screen.lab(), bold());
    let Some(status) = &screen.status else {
        pen.put(x + 2, 0, "asking every node …", dim());
        return;
    };
    let about = format!(
        "{} · net {} · up {}",
        status.server,
        status.net,
        crate::report::age(status.up_ms)
    );
    pen.put(x + 2, 0, &about, plain());
    let quorum = format!("quorum {}/{}", status.have, status.voters);
    let leader = status
        .leader
        .map_or("no leader".to_owned(), |leader| format!("leader {leader}"));
    let epoch = status
        .epoch
        .map_or(String::new(), |epoch| format!("  epoch {epoch}"));
    let text = format!(" {quorum}  {leader}{epoch} ");
    let style = if status.quorum {
        plain().fg(Color::Green)
    } else {
        bold().fg(Color::Red)
    };
    let width = u16::try_from(text.chars().count()).unwrap_or(u16::MAX);
    pen.put(pen.area.width.saturating_sub(width), 0, &text, style);
    ruler(pen, screen);
}

/// How long ago.
fn ruler(pen: &mut Pen<'_>, screen: &Screen) {
    let width = pen.area.width - LEFT;
    let mut back = 12;
    while back < width {
        let us = u64::from(back) * screen.column_us();
        let text = format!("-{} s", us as f64 / 1e6);
        pen.put(pen.area.width - back, 1, &text, dim());
        back += 12;
    }
    if screen.frozen_us.is_some() {
        let style = bold().fg(Color::Black).bg(Color::Yellow);
        pen.put(0, 1, " FROZEN ", style);
        pen.put(9, 1, "space goes on", dim());
    }
}

/// A state's letter and colour.
fn glyph(state: Option<LaneState>) -> (&'static str, Style) {
    let style = plain();
    match state {
        Some(LaneState::Leader) => ("█", style.fg(Color::Green)),
        Some(LaneState::Follower) => ("▆", style.fg(Color::Blue)),
        Some(LaneState::Observer) => ("▃", style.fg(Color::Cyan)),
        Some(LaneState::Looking) => ("?", bold().fg(Color::Yellow)),
        Some(LaneState::Joining) => ("~", style.fg(Color::Yellow)),
        Some(LaneState::Paused) => ("=", bold().fg(Color::Magenta)),
        Some(LaneState::Down) => ("x", style.fg(Color::DarkGray)),
        None => (" ", style),
    }
}

/// The times of a column.
fn span(screen: &Screen, column: u16, columns: u16) -> Option<(u64, u64)> {
    let width = screen.column_us();
    // Columns have fixed borders, so that nothing flickers while they move.
    let edge = screen.edge_us() / width + 1;
    let back = u64::from(columns - column);
    let begin = edge.checked_sub(back)? * width;
    Some((begin, begin + width))
}

fn draw_lane(pen: &mut Pen<'_>, screen: &Screen, lane: &Lane, selected: bool, y: u16) {
    let now = lane.now();
    let mark = if selected { "▶" } else { " " };
    let style = if selected {
        bold().add_modifier(Modifier::REVERSED)
    } else {
        bold()
    };
    pen.put(0, y, mark, bold());
    pen.put(1, y, &lane.node, style);
    let word = now.map_or("", LaneState::word);
    pen.put(5, y, word, glyph(now).1);
    let lag = lane.status.as_ref().and_then(|status| status.lag);
    if let Some(lag) = lag.filter(|lag| *lag > 0) {
        pen.put(
            14,
            y,
            &format!("{:>7}", format!("-{lag}")),
            plain().fg(Color::Red),
        );
    }
    let columns = pen.area.width - LEFT;
    let faults: Vec<&Fault> = screen
        .faults
        .iter()
        .filter(|fault| fault.hits(&lane.node) && !matches!(fault.what.as_str(), "kill" | "pause"))
        .collect();
    for column in 0..columns {
        let Some((from, to)) = span(screen, column, columns) else {
            continue;
        };
        let (letter, mut style) = glyph(lane.between(from, to));
        if faults
            .iter()
            .any(|fault| fault.from_us < to && from < fault.to_us)
        {
            style = style.bg(Color::Red);
        }
        pen.put(LEFT + column, y, letter, style);
    }
}

fn standing(pen: &mut Pen<'_>, screen: &Screen, hidden: usize, y: u16) {
    let stands: Vec<String> = screen
        .faults
        .iter()
        .filter(|fault| fault.stands && fault.what != "kill")
        .map(Fault::name)
        .collect();
    let text = if stands.is_empty() {
        "none".to_owned()
    } else {
        stands.join(" · ")
    };
    let style = if stands.is_empty() {
        dim()
    } else {
        plain().fg(Color::Red)
    };
    let x = pen.put(1, y, "faults that stand:", dim());
    let x = pen.put(x + 1, y, &text, style);
    if hidden > 0 {
        pen.put(x + 2, y, &format!("({hidden} nodes are below)"), dim());
    }
}

const BARS: [&str; 9] = [" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];

/// One column of a plot of [`PLOT`] rows, from the bottom up.
fn bar(pen: &mut Pen<'_>, x: u16, y: u16, share: f64, style: Style) {
    let eighths = (share.clamp(0.0, 1.0) * f64::from(PLOT) * 8.0).round() as usize;
    for row in 0..PLOT {
        let here = eighths.saturating_sub(usize::from(row) * 8).min(8);
        pen.put(x, y + PLOT - 1 - row, BARS[here], style);
    }
}

/// A plot's name, what it says now, and its largest value.
fn title(pen: &mut Pen<'_>, y: u16, name: &str, now: &str, most: &str) {
    pen.put(1, y, name, bold());
    pen.put(1, y + 1, now, plain());
    pen.put(1, y + 2, most, dim());
}

fn rates(pen: &mut Pen<'_>, screen: &Screen, y: u16) {
    let columns = pen.area.width - LEFT;
    // Over a second around the column, as answers and columns do not begin at the same time.
    let rate_at = |from: u64, to: u64| {
        let (from, to) = (from.saturating_sub(500_000), to + 500_000);
        let near = screen.rates.iter().rev();
        let near = near
            .skip_while(|rate| rate.0 >= to)
            .take_while(|rate| rate.1 > from);
        let (time, writes) = near.fold((0.0, 0.0), |(time, writes), (begin, end, rate)| {
            let length = ((*end).min(to) - (*begin).max(from)) as f64;
            (time + length, writes + rate * length)
        });
        (time > 0.0).then(|| writes / time)
    };
    let values: Vec<Option<f64>> = (0..columns)
        .map(|column| span(screen, column, columns).and_then(|(from, to)| rate_at(from, to)))
        .collect();
    let most = values.iter().flatten().copied().fold(1.0, f64::max);
    let now = values.iter().rev().flatten().next();
    let now = now.map_or("–".to_owned(), |rate| format!("{rate:.0} now"));
    title(pen, y, "writes/s", &now, &format!("{most:.0} at most"));
    for (column, value) in (0..columns).zip(&values) {
        if let Some(rate) = value {
            bar(pen, LEFT + column, y, rate / most, plain().fg(Color::Cyan));
        }
    }
}

/// How long a write of the probe took; one that was never answered is a red column.
fn latencies(pen: &mut Pen<'_>, screen: &Screen, y: u16) {
    let columns = pen.area.width - LEFT;
    let of = |from: u64, to: u64| {
        let begin = screen.probes.partition_point(|(at, _)| *at < from);
        let probes = screen.probes.range(begin..);
        let mut here = probes.take_while(|(at, _)| *at < to).map(|(_, took)| *took);
        let first = here.next()?;
        Some(here.fold(first, |worst, took| Some(worst?.max(took?))))
    };
    let values: Vec<Option<Option<u64>>> = (0..columns)
        .map(|column| span(screen, column, columns).and_then(|(from, to)| of(from, to)))
        .collect();
    let most = values
        .iter()
        .flatten()
        .flatten()
        .max()
        .copied()
        .unwrap_or(0);
    let now = match values.iter().rev().flatten().next() {
        None => "–".to_owned(),
        Some(None) => "NO ANSWER".to_owned(),
        Some(Some(us)) => format!("{} now", crate::report::time(*us as f64 / 1e3)),
    };
    let most_text = format!("{} at most", crate::report::time(most as f64 / 1e3));
    title(pen, y, "write latency", &now, &most_text);
    for (column, value) in (0..columns).zip(&values) {
        match value {
            None => {}
            Some(None) => {
                for row in 0..PLOT {
                    pen.put(LEFT + column, y + row, "!", bold().fg(Color::Red));
                }
            }
            Some(Some(us)) => {
                let share = *us as f64 / most.max(1) as f64;
                bar(pen, LEFT + column, y, share, plain().fg(Color::Yellow));
            }
        }
    }
}

fn happened(pen: &mut Pen<'_>, screen: &Screen, top: u16, bottom: u16) {
    let rows = usize::from(bottom.saturating_sub(top));
    let edge = screen.edge_us();
    let frozen = screen.frozen_us.is_some();
    let events = screen
        .events
        .iter()
        .filter(|event| !frozen || event.t_us <= edge);
    let events: Vec<_> = events.rev().take(rows).collect();
    for (row, event) in events.iter().rev().enumerate() {
        let y = top + u16::try_from(row).unwrap_or(u16::MAX);
        let at = format!(
            "+{}.{:03}",
            event.t_us / 1_000_000,
            event.t_us / 1000 % 1000
        );
        pen.put(1, y, &at, dim());
        let node = event.node.map_or("–".to_owned(), |node| node.to_string());
        pen.put(11, y, &node, bold());
        let kind = event.kind_name();
        let x = pen.put(15, y, &format!("{kind:<18}"), tone(&kind));
        pen.put(x + 1, y, &events::text(&event.kind), plain());
    }
}

fn tone(kind: &str) -> Style {
    let color = match kind {
        "node.serving" | "leader.elected" | "quorum.regained" | "fault.off" => Color::Green,
        "fault.on" | "node.exited" | "quorum.lost" | "node.stepped_down" => Color::Red,
        "election.started" | "host.stall" | "node.not_serving" => Color::Yellow,
        _ => Color::Reset,
    };
    plain().fg(color)
}

fn footer(pen: &mut Pen<'_>, screen: &Screen, y: u16) {
    let target = screen.target().map_or("–", |lane| lane.node.as_str());
    let whose = if screen.selected.is_some() {
        "selected"
    } else {
        "leader"
    };
    match screen.said() {
        Some((text, good)) => {
            let color = if good { Color::Green } else { Color::Red };
            pen.put(1, y, text, plain().fg(color));
        }
        None => {
            let text = format!("keys act on {target} ({whose})");
            pen.put(1, y, &text, dim());
        }
    }
    // The narrowest terminal still shows how to get help and how to get out.
    let keys = [
        ("q", "quit"),
        ("?", "help"),
        ("k", "kill"),
        ("p", "pause"),
        ("i", "isolate"),
        ("h", "heal"),
        ("↑↓", "select"),
        ("space", "freeze"),
        ("s", "save"),
        ("l", "leader"),
    ];
    let mut x = 1;
    for (key, word) in keys {
        x = pen.put(x, y + 1, key, bold());
        x = pen.put(x, y + 1, &format!(" {word}  "), dim());
    }
}

const HELP: [(&str, &str); 13] = [
    ("k", "kill the node; start it again if it is down"),
    ("p", "pause it (SIGSTOP); let it go on if it is paused"),
    ("i", "isolate it: it loses sight of all others"),
    ("h", "heal the network"),
    ("↑ ↓", "select a node; without one, keys act on the leader"),
    ("l", "select the leader of now"),
    ("esc", "select nothing"),
    ("+ -", "look closer, look further"),
    ("space", "freeze the picture, and go on"),
    ("s", "save what was done as a scenario (TOML)"),
    ("q", "quit; the lab stays"),
    ("", ""),
    ("█ ▆ ▃", "leader, follower, observer; red behind: a fault"),
];

fn help(pen: &mut Pen<'_>) {
    let width = 62;
    let height = u16::try_from(HELP.len()).unwrap_or(u16::MAX) + 3;
    let x = (pen.area.width.saturating_sub(width)) / 2;
    let y = (pen.area.height.saturating_sub(height)) / 2;
    let style = plain().add_modifier(Modifier::REVERSED);
    let blank = " ".repeat(usize::from(width));
    for row in 0..height {
        pen.put(x, y + row, &blank, style);
    }
    for (row, (key, text)) in (1..).zip(HELP) {
        pen.put(x + 2, y + row, key, style.add_modifier(Modifier::BOLD));
        pen.put(x + 10, y + row, text, style);
    }
    let last = "? looking   ~ joining   = paused   x down   any key: back";
    pen.put(x + 2, y + height - 2, last, style);
}
