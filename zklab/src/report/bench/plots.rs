//! The pictures: rate over time, latency by percentile, single measurements, ratios. Each is an SVG that stands for
//! itself, in light and dark, and goes into the page as it is.

use std::collections::BTreeSet;

use super::figure::{Spread, Unit};
use super::{Report, Side};
use crate::bench::Outcome;
use crate::report::markup::{Markup, px};

const STYLE: &str = include_str!("plot.css");
/// The colours, which a page has already.
const COLOURS: &str = include_str!("picture.css");
const WIDTH: f64 = 760.0;
const LEFT: f64 = 74.0;
const RIGHT: f64 = 18.0;
/// Room above the frame for the title and the names of the sides.
const TOP: f64 = 46.0;
const HEIGHT: f64 = 230.0;
/// Room below it for the axis.
const BOTTOM: f64 = 30.0;
const ROW: f64 = 26.0;
/// The least room for bars, however long their names are, and between the numbers below them.
const BARS_MIN: f64 = 300.0;
const TICK_MIN: f64 = 32.0;

/// A picture with a name for its file.
#[derive(Clone, Debug)]
pub struct Picture {
    /// `rate`, `latency`, `samples`, `ratios`.
    pub name: &'static str,
    /// What it shows and how to read it, for those who see it on the page.
    pub caption: &'static str,
    /// The picture.
    pub svg: String,
}

/// All pictures that this report has something for.
#[must_use]
pub fn pictures(report: &Report) -> Vec<Picture> {
    let all = [
        ratios(report),
        rate(report),
        latency(report),
        samples(report),
    ];
    all.into_iter().flatten().collect()
}

/// The style that a page needs for them.
pub(super) fn style() -> &'static str {
    STYLE
}

/// A picture that is being drawn.
struct Canvas {
    svg: Markup,
}

impl Canvas {
    fn new(height: f64, title: &str) -> Self {
        Self::of_size((WIDTH, height), title)
    }

    fn of_size((width, height): (f64, f64), title: &str) -> Self {
        let mut svg = Markup::default();
        let view = format!("0 0 {} {}", px(width), px(height));
        svg.open(
            "svg",
            &[
                ("xmlns", &"http://www.w3.org/2000/svg"),
                ("viewBox", &view),
                ("class", &"plot"),
                ("role", &"img"),
                ("aria-label", &title),
            ],
        );
        svg.raw("<style>\n")
            .raw(COLOURS)
            .raw(STYLE)
            .raw("</style>\n");
        let mut canvas = Self { svg };
        canvas.rect("back", (0.0, 0.0), (width, height));
        canvas.text("head", (12.0, 20.0), title);
        canvas
    }

    fn finish(mut self) -> String {
        self.svg.close("svg");
        self.svg.finish().trim_end().to_owned()
    }

    fn text(&mut self, class: &str, at: (f64, f64), text: &str) {
        let (x, y) = (px(at.0), px(at.1));
        self.svg
            .element("text", &[("class", &class), ("x", &x), ("y", &y)], text);
    }

    fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        self.svg.empty(
            "line",
            &[
                ("class", &class),
                ("x1", &px(from.0)),
                ("y1", &px(from.1)),
                ("x2", &px(to.0)),
                ("y2", &px(to.1)),
            ],
        );
    }

    fn rect(&mut self, class: &str, at: (f64, f64), size: (f64, f64)) {
        self.svg.empty(
            "rect",
            &[
                ("class", &class),
                ("x", &px(at.0)),
                ("y", &px(at.1)),
                ("width", &px(size.0)),
                ("height", &px(size.1)),
            ],
        );
    }

    fn path(&mut self, class: &str, points: &[(f64, f64)]) {
        let steps: Vec<String> = points
            .iter()
            .map(|(x, y)| format!("{} {}", px(*x), px(*y)))
            .collect();
        if !steps.is_empty() {
            let way = format!("M{}", steps.join("L"));
            self.svg.empty("path", &[("class", &class), ("d", &way)]);
        }
    }

    /// The names of the sides, each in its colour.
    fn sides(&mut self, sides: &[Side]) {
        let mut x = LEFT;
        for (number, side) in sides.iter().enumerate() {
            self.rect(&format!("f{number}"), (x, 30.0), (10.0, 10.0));
            self.text("", (x + 15.0, 39.0), &side.name);
            x += 40.0 + 7.2 * side.name.chars().count() as f64;
        }
    }

    /// A frame with lines across, each with what it stands for.
    fn frame(&mut self, rows: &[(f64, String)]) {
        for (y, text) in rows {
            self.line("grid", (LEFT, *y), (WIDTH - RIGHT, *y));
            self.text("tick end", (LEFT - 6.0, y + 4.0), text);
        }
        self.rect("frame", (LEFT, TOP), (WIDTH - LEFT - RIGHT, HEIGHT));
    }

    /// Lines upright, each with what it stands for, from `TOP` to `bottom`.
    fn columns(&mut self, columns: &[(f64, String)], bottom: f64) {
        for (x, text) in columns {
            self.line("grid", (*x, TOP), (*x, bottom));
            self.text("tick middle", (*x, bottom + 16.0), text);
        }
    }
}

/// A logarithmic axis.
#[derive(Clone, Copy)]
struct Log {
    /// The lowest value and its place.
    low: f64,
    from: f64,
    /// The length of a decade, negative if it goes up.
    decade: f64,
    decades: i32,
}

impl Log {
    /// Whole decades around the values.
    fn around(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Option<Self> {
        let spread = Spread::of(values.filter(|value| *value > 0.0))?;
        let low = spread.min.log10().floor();
        let decades = ((spread.max.log10() - low).ceil() as i32).max(1);
        Some(Self {
            low: 10_f64.powf(low),
            from,
            decade: (to - from) / f64::from(decades),
            decades,
        })
    }

    fn at(&self, value: f64) -> f64 {
        self.from + (value.max(self.low) / self.low).log10() * self.decade
    }

    fn ticks(&self, unit: Unit) -> Vec<(f64, String)> {
        let values = (0..=self.decades).map(|power| self.low * 10_f64.powi(power));
        values
            .map(|value| (self.at(value), tick(unit, value)))
            .collect()
    }
}

/// `10 µs`, `1 ms`: without decimals where there are none.
fn tick(unit: Unit, value: f64) -> String {
    match unit {
        Unit::Micros if value < 1e3 => format!("{value} µs"),
        Unit::Micros if value < 1e6 => format!("{} ms", value / 1e3),
        Unit::Micros => format!("{} s", value / 1e6),
        _ => unit.text(value),
    }
}

/// A round number near a fourth of it: 1, 2 or 5 times a power of ten.
fn step(most: f64) -> f64 {
    let rough = (most / 4.0).max(1e-9);
    let power = 10_f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 5.0].into_iter().map(|times| times * power);
    steps
        .into_iter()
        .find(|step| *step >= rough)
        .unwrap_or(10.0 * power)
}

fn outcomes(side: &Side) -> impl Iterator<Item = &Outcome> {
    side.rounds
        .iter()
        .filter_map(|round| round.outcome.as_ref())
}

fn rate(report: &Report) -> Option<Picture> {
    let slices = || {
        report
            .sides
            .iter()
            .flat_map(outcomes)
            .flat_map(|o| &o.slices)
    };
    let most = Spread::of(slices().map(|slice| slice.rate))?.max.max(1.0);
    let end_ms = slices().map(|slice| slice.at_ms).max().unwrap_or(1).max(1) as f64;
    let mut canvas = Canvas::new(
        TOP + HEIGHT + BOTTOM,
        "Operations a second, over the time of each round",
    );
    canvas.sides(&report.sides);
    let y = |rate: f64| TOP + HEIGHT * (1.0 - rate / (most * 1.05));
    let x = |ms: f64| LEFT + (WIDTH - LEFT - RIGHT) * ms / end_ms;
    let by = step(most);
    let rows = (0..=(most / by) as u32).map(|n| f64::from(n) * by);
    let rows: Vec<(f64, String)> = rows.map(|v| (y(v), Unit::PerSecond.text(v))).collect();
    let by_ms = step(end_ms);
    let columns = (0..=(end_ms / by_ms) as u32).map(|n| f64::from(n) * by_ms);
    let columns: Vec<(f64, String)> = columns
        .map(|ms| (x(ms), format!("{} s", ms / 1e3)))
        .collect();
    canvas.columns(&columns, TOP + HEIGHT);
    canvas.frame(&rows);
    for (number, side) in report.sides.iter().enumerate() {
        for outcome in outcomes(side) {
            let points = outcome.slices.iter();
            let points: Vec<(f64, f64)> = points
                .map(|slice| (x(slice.at_ms as f64), y(slice.rate)))
                .collect();
            canvas.path(&format!("all s{number}"), &points);
        }
    }
    Some(Picture {
        name: "rate",
        caption: "One line for each round, a point every quarter of a second. A line that is level is a server that \
                  works evenly; a notch is a pause.",
        svg: canvas.finish(),
    })
}

/// Where a share of all answers stands: 90 %, 99 % and 99.9 % are equally far from one another.
fn nines(share: f64) -> f64 {
    -(1.0 - share).log10()
}

fn latency(report: &Report) -> Option<Picture> {
    let told = || {
        let outcomes = report.sides.iter().flat_map(outcomes);
        outcomes.flat_map(|outcome| &outcome.percentiles)
    };
    let axis = Log::around(told().map(|p| p.us), TOP + HEIGHT, TOP)?;
    let last = told().map(|p| p.share).filter(|share| *share < 1.0);
    let last = nines(last.fold(0.9, f64::max));
    let scale = (WIDTH - LEFT - RIGHT - 24.0) / (last + 0.35);
    let x = |share: f64| match share {
        ..1.0 => LEFT + nines(share) * scale,
        _ => LEFT + (last + 0.35) * scale,
    };
    let mut canvas = Canvas::new(
        TOP + HEIGHT + BOTTOM,
        "Latency: this share of all operations took at most so long",
    );
    canvas.sides(&report.sides);
    let shares = [0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999];
    let shares = shares
        .into_iter()
        .filter(|share| nines(*share) <= last + 1e-9);
    let mut columns: Vec<(f64, String)> = shares
        .map(|share| {
            let percent = format!("{:.3}", share * 100.0);
            let percent = percent.trim_end_matches('0').trim_end_matches('.');
            (x(share), format!("{percent} %"))
        })
        .collect();
    columns.push((x(1.0), "all".to_owned()));
    canvas.columns(&columns, TOP + HEIGHT);
    canvas.frame(&axis.ticks(Unit::Micros));
    for (number, side) in report.sides.iter().enumerate() {
        for outcome in outcomes(side) {
            let points = outcome.percentiles.iter();
            let points: Vec<(f64, f64)> = points.map(|p| (x(p.share), axis.at(p.us))).collect();
            canvas.path(&format!("round s{number}"), &points);
        }
        let points: Vec<(f64, f64)> = middle(side)
            .into_iter()
            .map(|(share, us)| (x(share), axis.at(us)))
            .collect();
        canvas.path(&format!("all s{number}"), &points);
    }
    Some(Picture {
        name: "latency",
        caption: "Lower is better; both axes are logarithmic. Thin lines are the rounds, thick ones their medians. The \
                  right end shows the slowest operations of all.",
        svg: canvas.finish(),
    })
}

/// The median of the rounds at each share that all of them tell.
fn middle(side: &Side) -> Vec<(f64, f64)> {
    let rounds: Vec<&Outcome> = outcomes(side).collect();
    let first = rounds
        .first()
        .map_or(&[][..], |outcome| &outcome.percentiles);
    let medians = first.iter().filter_map(|point| {
        let same = |outcome: &&Outcome| {
            let found = outcome
                .percentiles
                .iter()
                .find(|other| (other.share - point.share).abs() < 1e-9);
            found.map(|other| other.us)
        };
        let values: Option<Vec<f64>> = rounds.iter().map(same).collect();
        Some((point.share, Spread::of(values?)?.median))
    });
    medians.collect()
}

/// Single measurements, each a dot.
fn samples(report: &Report) -> Option<Picture> {
    let rounds = || report.sides.iter().flat_map(|side| &side.rounds);
    let names: BTreeSet<&String> = rounds().flat_map(|round| round.samples.keys()).collect();
    let values = rounds().flat_map(|round| round.samples.values().flatten().copied());
    let labels = report.sides.iter().flat_map(|side| {
        let labels = names.iter().map(|name| format!("{}, {name}", side.name));
        labels.collect::<Vec<_>>()
    });
    let labels: Vec<String> = labels.collect();
    let left = names_width(labels.iter().map(String::as_str));
    let axis = Log::around(values, left, WIDTH - RIGHT - 20.0)?;
    let rows = names.len() * report.sides.len();
    let bottom = TOP + ROW * rows as f64;
    let mut canvas = Canvas::new(bottom + BOTTOM, "Every single measurement");
    canvas.columns(&axis.ticks(Unit::Micros), bottom);
    let mut y = TOP + ROW / 2.0;
    for name in names {
        for (number, side) in report.sides.iter().enumerate() {
            let of = |round: &super::Round| round.samples.get(name).cloned().unwrap_or_default();
            let values: Vec<f64> = side.rounds.iter().flat_map(of).collect();
            let label = format!("{}, {name}", side.name);
            canvas.text("end", (left - 12.0, y + 4.0), &label);
            for value in &values {
                let (x, y) = (px(axis.at(*value)), px(y));
                let class = format!("dot f{number}");
                canvas.svg.empty(
                    "circle",
                    &[("class", &class), ("cx", &x), ("cy", &y), ("r", &4)],
                );
            }
            if let Some(spread) = Spread::of(values) {
                let x = axis.at(spread.median);
                canvas.line("whisker", (x, y - 9.0), (x, y + 9.0));
            }
            y += ROW;
        }
    }
    Some(Picture {
        name: "samples",
        caption: "Each dot is one measurement, the upright line their median. The axis is logarithmic; further left is \
                  better.",
        svg: canvas.finish(),
    })
}

/// How many times better the first side is, figure by figure.
fn ratios(report: &Report) -> Option<Picture> {
    let [a, b] = report.sides.as_slice() else {
        return None;
    };
    let kinds = report.kinds.iter().filter(|kind| kind.compared);
    let bars: Vec<(String, Spread)> = kinds
        .filter_map(|kind| {
            let way = if kind.more_is_better { "more" } else { "less" };
            Some((format!("{}, {way}", kind.name), report.advantage(kind)?))
        })
        .collect();
    let title = format!("How many times better {} is than {}", a.name, b.name);
    Some(Picture {
        name: "ratios",
        caption: "A bar to the right of the dashed line means that the first one is so many times better in that \
                  figure, to the left that it is worse. The thin line spans the rounds; the axis is logarithmic.",
        svg: bars_of(&title, &bars, &[])?,
    })
}

/// Room for the longest of these names.
fn names_width<'n>(names: impl Iterator<Item = &'n str>) -> f64 {
    let longest = names.map(|name| name.chars().count()).max().unwrap_or(0);
    (longest as f64 * 6.6 + 26.0).max(120.0)
}

/// Bars on a logarithmic axis around 1; a goal is a mark on its bar.
pub(super) fn bars_of(
    title: &str,
    bars: &[(String, Spread)],
    goals: &[Option<f64>],
) -> Option<String> {
    let ends = bars.iter().flat_map(|(_, bar)| [bar.min, bar.max]);
    let goal_values = goals.iter().flatten().copied();
    let whole = Spread::of(ends.chain(goal_values).chain([1.0]).filter(|v| *v > 0.0))?;
    if bars.is_empty() {
        return None;
    }
    let (low, high) = (whole.min.min(0.8) * 0.9, whole.max.max(2.0) * 1.1);
    let names = names_width(bars.iter().map(|(name, _)| name.as_str()));
    let width = WIDTH.max(names + BARS_MIN + 130.0 + RIGHT);
    let room = width - RIGHT - 130.0 - names;
    let x = |value: f64| names + (value / low).ln() / (high / low).ln() * room;
    let bottom = TOP + ROW * bars.len() as f64;
    let mut canvas = Canvas::of_size((width, bottom + BOTTOM), title);
    let ticks = [
        0.01, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 1000.0,
    ];
    let mut columns: Vec<(f64, String)> = Vec::new();
    for value in ticks.into_iter().filter(|v| (low..=high).contains(v)) {
        let is_free = |(before, _): &(f64, String)| x(value) - before >= TICK_MIN;
        if columns.last().is_none_or(is_free) {
            columns.push((x(value), format!("{value}×")));
        }
    }
    canvas.columns(&columns, bottom);
    for (number, (name, bar)) in bars.iter().enumerate() {
        let y = TOP + ROW * number as f64;
        let goal = goals.get(number).copied().flatten();
        let class = match (goal, bar.median) {
            (Some(goal), median) if median >= goal => "met",
            (Some(_), _) | (None, ..1.0) => "worse",
            (None, _) => "f0",
        };
        canvas.text("end", (names - 12.0, y + 17.0), name);
        let (from, to) = (x(bar.median.min(1.0)), x(bar.median.max(1.0)));
        canvas.rect(class, (from, y + 5.0), ((to - from).max(1.5), ROW - 10.0));
        let middle = y + ROW / 2.0;
        canvas.line("whisker", (x(bar.min), middle), (x(bar.max), middle));
        if let Some(goal) = goal {
            canvas.line("goal", (x(goal), y + 2.0), (x(goal), y + ROW - 2.0));
        }
        let right = x(bar.max.max(1.0)).max(goal.map_or(0.0, x)) + 8.0;
        canvas.text("", (right, y + 17.0), &bar.times());
    }
    canvas.line("one", (x(1.0), TOP), (x(1.0), bottom));
    Some(canvas.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_have_room() {
        let name = "w".repeat(120);
        let spread = Spread::of([40.0, 90.0]).unwrap();
        let svg = bars_of("t", &[(name, spread)], &[None]).unwrap();
        let view = svg.split("viewBox=\"0 0 ").nth(1).unwrap();
        let width: f64 = view.split(' ').next().unwrap().parse().unwrap();
        assert!(width > 120.0 * 6.6 + BARS_MIN, "{width}");
        // 1, 2, 5 and so on up to 50 are too many for it.
        assert!(svg.matches("×</text>").count() < 7, "{svg}");
    }

    #[test]
    fn steps_are_round() {
        assert!((step(100.0) - 50.0).abs() < 1e-9);
        assert!((step(7.0) - 2.0).abs() < 1e-9);
        assert!((step(121_763.0) - 50_000.0).abs() < 1e-6);
    }

    #[test]
    fn an_axis_has_whole_decades() {
        let axis = Log::around([30.0, 2_000.0].into_iter(), 0.0, 300.0).unwrap();
        assert_eq!(axis.decades, 3);
        assert!((axis.at(10.0)).abs() < 1e-9 && (axis.at(10_000.0) - 300.0).abs() < 1e-6);
        let ticks: Vec<String> = axis.ticks(Unit::Micros).into_iter().map(|t| t.1).collect();
        assert_eq!(ticks, ["10 µs", "100 µs", "1 ms", "10 ms"]);
    }
}
