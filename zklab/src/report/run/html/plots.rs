//! The plots below the lanes: operations a second, latency, how far followers lag, and how long the machine stood
//! still. Each has its own axis; what it shows is written at its left.

use serde_json::{Value, json};

use super::super::folder::Folder;
use super::super::load::{Column, Gap};
use super::super::story::{Lag, Stall, Story};
use super::timeline::{LEFT, SPAN, Scale, label, name, tick, zoomed};
use super::{length, moment};
use crate::report::history::count;
use crate::report::markup::{Markup, px};

/// Columns are at least as wide.
const COLUMN_MIN_US: u64 = 10_000;
/// There are at most so many.
const COLUMNS_MAX: u64 = 400;
/// A time without a write that is worth a word.
const GAP_MIN_US: u64 = 50_000;
const GAPS_MAX: usize = 12;
const OPS: f64 = 72.0;
const LATENCY: f64 = 84.0;
const LAG: f64 = 46.0;
const STALLS: f64 = 34.0;
const SPACE: f64 = 16.0;

/// What is plotted, and where.
#[derive(Debug)]
pub(super) struct Plots<'s> {
    columns: Vec<Column>,
    width_us: u64,
    gaps: Vec<Gap>,
    lags: &'s [Lag],
    stalls: &'s [Stall],
    top: f64,
}

/// The width of the columns of a run that ends there.
fn width_us(end_us: u64) -> u64 {
    let rough = (end_us / COLUMNS_MAX).max(COLUMN_MIN_US) as f64;
    tick(rough, 1.0) as u64
}

impl<'s> Plots<'s> {
    pub(super) fn new(folder: &Folder, story: &'s Story, top: f64) -> Self {
        let width_us = width_us(story.end_us);
        let columns = if folder.load.is_empty() {
            Vec::new()
        } else {
            folder.load.columns(width_us, story.end_us)
        };
        Self {
            columns,
            width_us,
            gaps: folder.load.gaps(GAP_MIN_US, GAPS_MAX),
            lags: &story.lags,
            stalls: &story.stalls,
            top,
        }
    }

    /// Where each plot begins, and where all end.
    fn places(&self) -> [f64; 5] {
        let load = !self.columns.is_empty();
        let mut at = self.top;
        let mut take = |height: f64, there: bool| {
            let begin = at;
            if there {
                at += height + SPACE;
            }
            begin
        };
        let ops = take(OPS, load);
        let latency = take(LATENCY, load);
        let lag = take(LAG, !self.lags.is_empty());
        let stalls = take(STALLS, !self.stalls.is_empty());
        [ops, latency, lag, stalls, at]
    }

    /// The lower end.
    pub(super) fn end(&self) -> f64 {
        self.places()[4]
    }

    pub(super) fn draw(&self, page: &mut Markup, scale: Scale) {
        let [ops, latency, lag, stalls, _] = self.places();
        if !self.columns.is_empty() {
            self.draw_ops(page, ops, scale);
            self.draw_latency(page, latency, scale);
        }
        if !self.lags.is_empty() {
            self.draw_lags(page, lag, scale);
        }
        if !self.stalls.is_empty() {
            self.draw_stalls(page, stalls, scale);
        }
    }

    /// Stacked: ok, refused, never answered.
    fn draw_ops(&self, page: &mut Markup, y: f64, scale: Scale) {
        let per_second = 1e6 / self.width_us as f64;
        let total = |column: &Column| column.ok + column.refused + column.unknown;
        let most = self.columns.iter().map(total).max().unwrap_or(1).max(1) as f64 * per_second;
        titles(
            page,
            y,
            "ops / s",
            &[
                ("ok", "ok"),
                ("refused", "refused"),
                ("unknown", "no answer"),
            ],
        );
        frame(page, y, OPS);
        grid(
            page,
            &[
                (most, count(most as u64)),
                (most / 2.0, count((most / 2.0) as u64)),
            ],
            |v| y + OPS - v / most * OPS,
        );
        zoomed(page, |page| {
            type Upper = fn(&Column) -> u64;
            let layers: [(&str, Upper); 3] = [
                ("ops unknown", |c| c.ok + c.refused + c.unknown),
                ("ops refused", |c| c.ok + c.refused),
                ("ops ok", |c| c.ok),
            ];
            for (class, upper) in layers {
                let mut path = format!("M{LEFT} {}", px(y + OPS));
                for (index, column) in self.columns.iter().enumerate() {
                    let height = upper(column) as f64 * per_second / most * OPS;
                    let x = scale.x(index as u64 * self.width_us);
                    path.push_str(&format!("H{}V{}", px(x), px(y + OPS - height)));
                }
                path.push_str(&format!("H{}V{}Z", px(LEFT + SPAN), px(y + OPS)));
                page.empty("path", &[("class", &class), ("d", &path)]);
            }
            for gap in &self.gaps {
                page.titled(
                    "rect",
                    &[
                        ("class", &"gap"),
                        ("x", &px(scale.x(gap.from_us))),
                        ("y", &px(y)),
                        ("width", &px(scale.width(gap.from_us, gap.to_us))),
                        ("height", &OPS),
                    ],
                    format_args!(
                        "no write was acknowledged for {}, from {} to {}",
                        length(gap.length_us()),
                        moment(gap.from_us),
                        moment(gap.to_us)
                    ),
                );
            }
        });
        for gap in &self.gaps {
            let text = length(gap.length_us());
            let span = (gap.from_us, gap.to_us);
            label(page, ("ongap", &text), span, y + 13.0, scale);
        }
    }

    /// On a logarithmic axis, from a tenth of a millisecond.
    fn draw_latency(&self, page: &mut Markup, y: f64, scale: Scale) {
        let slowest = self.columns.iter().filter_map(|column| column.p99_us).max();
        let decades = (slowest.unwrap_or(1).max(10_000) as f64 / 100.0)
            .log10()
            .ceil();
        let place = |us: f64| {
            let share = (us.max(100.0) / 100.0).log10() / decades;
            y + LATENCY - share.clamp(0.0, 1.0) * LATENCY
        };
        titles(page, y, "latency", &[("p50", "p50"), ("p99", "p99")]);
        frame(page, y, LATENCY);
        let lines: Vec<(f64, String)> = (0..=decades as i32)
            .map(|power| 100.0 * 10_f64.powi(power))
            .map(|us| (us, short(us)))
            .collect();
        grid(page, &lines, place);
        type Of = fn(&Column) -> Option<u64>;
        let quantiles: [(&str, Of); 2] = [("p99", |c| c.p99_us), ("p50", |c| c.p50_us)];
        zoomed(page, |page| {
            for (class, of) in quantiles {
                let mut path = String::new();
                let mut drawn = false;
                for (index, column) in self.columns.iter().enumerate() {
                    let Some(us) = of(column) else {
                        drawn = false;
                        continue;
                    };
                    let middle = index as u64 * self.width_us + self.width_us / 2;
                    let (x, y) = (scale.x(middle), place(us as f64));
                    let step = if drawn { "L" } else { "M" };
                    path.push_str(&format!("{step}{} {}", px(x), px(y)));
                    if !drawn {
                        path.push_str("h0.5");
                    }
                    drawn = true;
                }
                let class = format!("line {class}");
                page.empty("path", &[("class", &class), ("d", &path)]);
            }
        });
    }

    fn draw_lags(&self, page: &mut Markup, y: f64, scale: Scale) {
        let points = self.lags.iter().flat_map(|lag| &lag.points);
        let most = points.map(|(_, lag)| *lag).max().unwrap_or(1).max(1) as f64;
        titles(page, y, "lag", &[]);
        name(page, "txns behind", y + 23.0);
        frame(page, y, LAG);
        grid(page, &[(most, count(most as u64))], |v| {
            y + LAG - v / most * LAG
        });
        zoomed(page, |page| {
            for lag in self.lags {
                let steps: Vec<String> = lag
                    .points
                    .iter()
                    .map(|(at_us, lag)| {
                        let height = *lag as f64 / most * LAG;
                        format!("{} {}", px(scale.x(*at_us)), px(y + LAG - height))
                    })
                    .collect();
                let worst = lag.points.iter().map(|(_, lag)| *lag).max().unwrap_or(0);
                page.titled(
                    "path",
                    &[
                        ("class", &"line lag"),
                        ("d", &format!("M{}", steps.join("L"))),
                    ],
                    format_args!("{} was behind the leader by up to {worst} txns", lag.node),
                );
            }
        });
    }

    fn draw_stalls(&self, page: &mut Markup, y: f64, scale: Scale) {
        let most = self
            .stalls
            .iter()
            .map(|stall| stall.to_us - stall.from_us)
            .max();
        let most = most.unwrap_or(1).max(1) as f64;
        titles(page, y, "machine", &[]);
        name(page, "stood still", y + 23.0);
        frame(page, y, STALLS);
        grid(page, &[(most, length(most as u64))], |v| {
            y + STALLS - v / most * STALLS
        });
        zoomed(page, |page| {
            for stall in self.stalls {
                let took = stall.to_us - stall.from_us;
                let height = took as f64 / most * STALLS;
                page.titled(
                    "rect",
                    &[
                        ("class", &"stall"),
                        ("x", &px(scale.x(stall.from_us))),
                        ("y", &px(y + STALLS - height)),
                        (
                            "width",
                            &px(scale.width(stall.from_us, stall.to_us).max(1.5)),
                        ),
                        ("height", &px(height)),
                    ],
                    format_args!(
                        "the machine stood still for {} until {}",
                        length(took),
                        moment(stall.to_us)
                    ),
                );
            }
        });
    }

    /// What the script says of a moment.
    pub(super) fn data(&self) -> Value {
        let columns: Vec<Value> = self
            .columns
            .iter()
            .map(|c| json!([c.ok, c.refused, c.unknown, c.p50_us, c.p99_us]))
            .collect();
        json!({"width": self.width_us as f64 / 1e3, "columns": columns})
    }
}

/// `100 µs`, `1 ms`, `10 s`: powers of ten.
fn short(us: f64) -> String {
    if us < 1e3 {
        format!("{us:.0} µs")
    } else if us < 1e6 {
        format!("{:.0} ms", us / 1e3)
    } else {
        format!("{:.0} s", us / 1e6)
    }
}

/// The name of a plot and of what is in it.
fn titles(page: &mut Markup, y: f64, title: &str, series: &[(&str, &str)]) {
    page.element(
        "text",
        &[
            ("class", &"name title"),
            ("x", &(LEFT - 8.0)),
            ("y", &px(y + 10.0)),
        ],
        title,
    );
    for (index, (class, text)) in series.iter().enumerate() {
        let y = y + 25.0 + index as f64 * 13.0;
        let class = format!("key {class}");
        page.empty(
            "rect",
            &[
                ("class", &class),
                ("x", &8),
                ("y", &px(y - 8.0)),
                ("width", &8),
                ("height", &8),
            ],
        );
        page.element(
            "text",
            &[("class", &"keyname"), ("x", &20), ("y", &px(y))],
            text,
        );
    }
}

fn frame(page: &mut Markup, y: f64, height: f64) {
    page.empty(
        "rect",
        &[
            ("class", &"frame"),
            ("x", &LEFT),
            ("y", &px(y)),
            ("width", &SPAN),
            ("height", &px(height)),
        ],
    );
}

/// Lines with what they stand for at their right; the names have the left for themselves.
fn grid(page: &mut Markup, lines: &[(f64, String)], place: impl Fn(f64) -> f64) {
    for (value, text) in lines {
        let y = place(*value);
        page.empty(
            "line",
            &[
                ("class", &"gridline"),
                ("x1", &LEFT),
                ("x2", &px(LEFT + SPAN)),
                ("y1", &px(y)),
                ("y2", &px(y)),
            ],
        );
        page.element(
            "text",
            &[
                ("class", &"value"),
                ("x", &px(LEFT + SPAN + 5.0)),
                ("y", &px(y + 3.5)),
            ],
            text,
        );
    }
}
