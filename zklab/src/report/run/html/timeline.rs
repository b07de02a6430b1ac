//! The timeline: faults, a lane for each node, epochs, elections and plots over one axis of time.
//!
//! It is drawn whole, in pixels, so that it needs no script. What lies on the axis of time stands in groups of the
//! class `zoom`, and every text that belongs to a time carries that time in milliseconds (`data-t`, until `data-u`),
//! so that the script can stretch the one and move the other.

use serde_json::json;

use super::super::elections::{Election, End};
use super::super::folder::Folder;
use super::super::story::{Fault, Lane, LaneState, Story};
use super::super::witness::Proof;
use super::{length, moment, plots};
use crate::report::markup::{Markup, px};

/// All of the drawing.
const WIDTH: f64 = 1120.0;
/// Where time 0 is; the names stand before it.
pub(super) const LEFT: f64 = 84.0;
/// The axis of time.
pub(super) const SPAN: f64 = WIDTH - LEFT - 50.0;
const LANE: f64 = 24.0;
const LANE_STEP: f64 = 29.0;
const FAULT_STEP: f64 = 18.0;
const FAULT_ROWS_MAX: usize = 16;
/// About what a letter takes.
const LETTER: f64 = 6.3;

/// From times to pixels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    /// The end of the axis, in microseconds.
    pub(super) end_us: u64,
}

impl Scale {
    pub(super) fn x(self, us: u64) -> f64 {
        LEFT + self.width(0, us.min(self.end_us))
    }

    pub(super) fn width(self, from_us: u64, to_us: u64) -> f64 {
        to_us.saturating_sub(from_us) as f64 / self.end_us.max(1) as f64 * SPAN
    }
}

/// Milliseconds, as the script reads them.
pub(super) fn ms(us: u64) -> String {
    px(us as f64 / 1e3)
}

/// Draws it, with its legend.
pub(super) fn draw(page: &mut Markup, folder: &Folder, story: &Story, proofs: &[Proof]) {
    let scale = Scale {
        end_us: story.end_us,
    };
    let rows = pack(&story.faults, scale);
    let fault_rows = rows.iter().max().map_or(0, |row| row + 1);
    // The names of the proofs stand above everything.
    let faults_y = if proofs.is_empty() { 28.0 } else { 62.0 };
    let lanes_y =
        faults_y + fault_rows as f64 * FAULT_STEP + if fault_rows > 0 { 8.0 } else { 0.0 };
    let lanes_end = lanes_y + story.lanes.len() as f64 * LANE_STEP;
    let epochs_y = lanes_end + 4.0;
    let marks_y = epochs_y + 24.0;
    let plots_y = marks_y + 26.0;
    let plots = plots::Plots::new(folder, story, plots_y);
    let height = plots.end() + 6.0;
    let marks = !story.elections.is_empty();
    legend(page, std::slice::from_ref(story), marks);
    page.open("div", &[("class", &"wide timeline")]);
    page.open(
        "svg",
        &[
            ("id", &"tl"),
            ("viewBox", &format!("0 0 {WIDTH} {}", px(height))),
            ("role", &"img"),
            (
                "aria-label",
                &"What every node was over time, with faults, elections and plots",
            ),
            ("data-end", &ms(story.end_us)),
            ("data-left", &LEFT),
            ("data-span", &SPAN),
            ("data-height", &px(height)),
        ],
    );
    definitions(page, height);
    axis(page, scale, height);
    stall_bands(page, story, scale, lanes_y, height);
    for (index, lane) in story.lanes.iter().enumerate() {
        draw_lane(page, lane, lanes_y + index as f64 * LANE_STEP, scale);
    }
    draw_faults(page, story, &rows, faults_y, lanes_y, scale);
    draw_epochs(page, story, epochs_y, scale);
    plots.draw(page, scale);
    election_marks(page, &story.elections, lanes_y, marks_y, scale);
    proof_marks(page, proofs, height, scale);
    page.raw("<line id=\"cursor\" class=\"cursor\" y1=\"20\" y2=\"");
    page.text(px(height)).raw("\" x1=\"-9\" x2=\"-9\"/>");
    page.raw("<rect id=\"band\" class=\"band\" y=\"20\" x=\"-9\" width=\"0\" height=\"");
    page.text(px(height)).raw("\"/>\n");
    page.close("svg").close("div");
    page.raw("<p id=\"now\" class=\"now\" hidden></p>\n");
    data(page, story, &plots, proofs);
}

fn definitions(page: &mut Markup, height: f64) {
    page.open("defs", &[]);
    page.open("clipPath", &[("id", &"plot")]);
    page.empty(
        "rect",
        &[
            ("x", &LEFT),
            ("y", &0),
            ("width", &SPAN),
            ("height", &px(height)),
        ],
    );
    page.close("clipPath");
    for (id, class) in [("hatch", "hatch"), ("pausing", "pausing")] {
        page.open(
            "pattern",
            &[
                ("id", &id),
                ("width", &7),
                ("height", &7),
                ("patternUnits", &"userSpaceOnUse"),
                ("patternTransform", &"rotate(45)"),
            ],
        );
        page.empty(
            "line",
            &[
                ("x1", &0),
                ("y1", &0),
                ("x2", &0),
                ("y2", &7),
                ("class", &class),
            ],
        );
        page.close("pattern");
    }
    page.close("defs");
}

/// A distance between ticks that people like, so that there are about ten.
pub(super) fn tick(span: f64, count: f64) -> f64 {
    let rough = (span / count).max(f64::MIN_POSITIVE);
    let power = 10_f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0];
    let step = steps.into_iter().find(|step| step * power >= rough);
    step.unwrap_or(10.0) * power
}

fn axis(page: &mut Markup, scale: Scale, height: f64) {
    page.open("g", &[("id", &"axis"), ("class", &"axis")]);
    let end = scale.end_us as f64 / 1e6;
    let step = tick(end, 10.0);
    let decimals = (-step.log10().floor()).max(0.0) as usize;
    let mut at = 0.0;
    while at <= end {
        let x = px(LEFT + at / end * SPAN);
        page.empty(
            "line",
            &[("x1", &x), ("x2", &x), ("y1", &20), ("y2", &px(height))],
        );
        let label = format!("{at:.decimals$} s");
        page.element("text", &[("x", &x), ("y", &14)], label);
        at += step;
    }
    page.close("g");
}

/// A group that is stretched along the axis of time.
pub(super) fn zoomed(page: &mut Markup, draw: impl FnOnce(&mut Markup)) {
    page.raw("<g clip-path=\"url(#plot)\"><g class=\"zoom\">\n");
    draw(page);
    page.raw("</g></g>\n");
}

/// A name at the left.
pub(super) fn name(page: &mut Markup, text: &str, y: f64) {
    page.element(
        "text",
        &[("class", &"name"), ("x", &(LEFT - 8.0)), ("y", &px(y))],
        text,
    );
}

/// A text that belongs to a time, and is hidden where there is no room for it.
pub(super) fn label(
    page: &mut Markup,
    (tone, text): (&str, &str),
    (from_us, to_us): (u64, u64),
    y: f64,
    scale: Scale,
) {
    let room = scale.width(from_us, to_us);
    let wanted = text.chars().count() as f64 * LETTER + 8.0;
    let off = if room < wanted { " off" } else { "" };
    let class = format!("label {tone}{off}");
    page.element(
        "text",
        &[
            ("class", &class),
            ("x", &px(scale.x(from_us) + 4.0)),
            ("y", &px(y)),
            ("data-t", &ms(from_us)),
            ("data-u", &ms(to_us)),
            ("data-w", &px(wanted)),
        ],
        text,
    );
}

fn draw_lane(page: &mut Markup, lane: &Lane, y: f64, scale: Scale) {
    name(page, &lane.node, y + 16.0);
    zoomed(page, |page| {
        for span in &lane.spans {
            let class = format!("lane {}", span.state.word());
            page.titled(
                "rect",
                &[
                    ("class", &class),
                    ("x", &px(scale.x(span.from_us))),
                    ("y", &px(y)),
                    ("width", &px(scale.width(span.from_us, span.to_us))),
                    ("height", &LANE),
                ],
                format_args!(
                    "{} {} for {}, from {} to {}",
                    lane.node,
                    span.state.word(),
                    length(span.to_us - span.from_us),
                    moment(span.from_us),
                    moment(span.to_us)
                ),
            );
        }
    });
    for span in &lane.spans {
        let tone = match span.state {
            LaneState::Leader => "onleader",
            LaneState::Down => "ondown",
            _ => "onlane",
        };
        let text = (tone, span.state.word());
        label(page, text, (span.from_us, span.to_us), y + 16.0, scale);
    }
}

/// About the room that the name of a fault takes.
fn named(fault: &Fault) -> f64 {
    fault.name().chars().count() as f64 * LETTER + 12.0
}

/// Does its name fit into its bar?
fn is_inside(fault: &Fault, scale: Scale) -> bool {
    scale.width(fault.from_us, fault.to_us) >= named(fault)
}

/// A row for each fault, so that no two and none of their names lie on one another.
fn pack(faults: &[Fault], scale: Scale) -> Vec<usize> {
    let mut ends: Vec<f64> = Vec::new();
    faults
        .iter()
        .map(|fault| {
            let begin = scale.x(fault.from_us);
            let end = scale.x(fault.to_us).max(begin + 1.5);
            let text = named(fault);
            let end = if is_inside(fault, scale) {
                end
            } else {
                end + text
            };
            let free = ends.iter().position(|end| *end <= begin);
            let row = free.unwrap_or(ends.len()).min(FAULT_ROWS_MAX - 1);
            if row == ends.len() {
                ends.push(end);
            } else {
                ends[row] = end.max(ends[row]);
            }
            row
        })
        .collect()
}

/// A bar with its name above the lanes, and a band across the lanes of the nodes that it hit.
fn draw_faults(
    page: &mut Markup,
    story: &Story,
    rows: &[usize],
    faults_y: f64,
    lanes_y: f64,
    scale: Scale,
) {
    if !story.faults.is_empty() {
        name(page, "faults", faults_y + 11.0);
    }
    for (fault, row) in story.faults.iter().zip(rows) {
        let y = faults_y + *row as f64 * FAULT_STEP;
        let until = if fault.stands {
            "to the end".to_owned()
        } else {
            format!("to {}", moment(fault.to_us))
        };
        let title = format!(
            "{}: from {} {until}{}{}",
            fault.name(),
            moment(fault.from_us),
            listed("; nodes ", &fault.nodes),
            listed("; links ", &fault.links),
        );
        zoomed(page, |page| {
            let (x, width) = (
                scale.x(fault.from_us),
                scale.width(fault.from_us, fault.to_us),
            );
            let class = format!("fault {}", fault.what);
            page.titled(
                "rect",
                &[
                    ("class", &class),
                    ("x", &px(x)),
                    ("y", &px(y)),
                    ("width", &px(width.max(1.5))),
                    ("height", &14),
                ],
                &title,
            );
            // A dead or paused node shows that by itself.
            if matches!(fault.what.as_str(), "kill" | "pause") {
                return;
            }
            for (index, lane) in story.lanes.iter().enumerate() {
                if fault.hits(&lane.node) {
                    let y = lanes_y + index as f64 * LANE_STEP - 2.0;
                    page.titled(
                        "rect",
                        &[
                            ("class", &"struck"),
                            ("x", &px(x)),
                            ("y", &px(y)),
                            ("width", &px(width.max(1.5))),
                            ("height", &(LANE + 4.0)),
                        ],
                        &title,
                    );
                }
            }
        });
        // A name that is longer than its fault stands behind it.
        let name_us = (named(fault) / SPAN * scale.end_us as f64) as u64;
        let times = if is_inside(fault, scale) {
            (fault.from_us, fault.to_us)
        } else {
            (fault.to_us, fault.to_us + name_us)
        };
        // In the last row faults may lie on one another; their names are told by the pointer.
        if row + 1 < FAULT_ROWS_MAX {
            let text = ("onpage", &fault.name()[..]);
            label(page, text, times, y + 11.0, scale);
        }
    }
}

fn listed(word: &str, names: &[String]) -> String {
    if names.is_empty() {
        String::new()
    } else {
        format!("{word}{}", names.join(" "))
    }
}

fn draw_epochs(page: &mut Markup, story: &Story, y: f64, scale: Scale) {
    let epochs = &story.epochs;
    name(page, "epoch", y + 13.0);
    for (index, epoch) in epochs.iter().enumerate() {
        let to_us = epochs
            .get(index + 1)
            .map_or(story.end_us, |next| next.at_us);
        let class = if index % 2 == 0 { "reign" } else { "reign odd" };
        let under = if epoch.leader.is_empty() {
            String::new()
        } else {
            format!(" · {}", epoch.leader)
        };
        zoomed(page, |page| {
            page.titled(
                "rect",
                &[
                    ("class", &class),
                    ("x", &px(scale.x(epoch.at_us))),
                    ("y", &px(y)),
                    ("width", &px(scale.width(epoch.at_us, to_us))),
                    ("height", &18),
                ],
                format_args!("epoch {}{under} from {}", epoch.epoch, moment(epoch.at_us)),
            );
        });
        let text = format!("{}{under}", epoch.epoch);
        label(
            page,
            ("onpage", &text),
            (epoch.at_us, to_us),
            y + 13.0,
            scale,
        );
    }
}

/// A line through all lanes for each election, with a number that leads to its diagram.
fn election_marks(page: &mut Markup, elections: &[Election], top: f64, y: f64, scale: Scale) {
    if elections.is_empty() {
        return;
    }
    name(page, "elections", y + 10.0);
    for (index, election) in elections.iter().enumerate() {
        let number = index + 1;
        let (word, class) = match &election.end {
            End::Won { leader, epoch, .. } => (format!("{leader} leads epoch {epoch}"), "won"),
            End::Joined => ("a node joined its leader".to_owned(), "joined"),
            End::Lost => ("no leader was found".to_owned(), "lost"),
        };
        let title = format!(
            "election {number} at {}: {word}; click for what was said",
            moment(election.from_us)
        );
        let target = format!("#election-{number}");
        let class = format!("election {class}");
        page.open("a", &[("href", &target), ("class", &class)]);
        let x = px(scale.x(election.from_us));
        let t = ms(election.from_us);
        page.open(
            "g",
            &[("data-g", &t), ("transform", &format!("translate({x},0)"))],
        );
        page.empty(
            "line",
            &[
                ("x1", &0),
                ("x2", &0),
                ("y1", &px(top - 2.0)),
                ("y2", &px(y)),
            ],
        );
        page.titled(
            "circle",
            &[("cx", &0), ("cy", &px(y + 6.0)), ("r", &8)],
            title,
        );
        page.element("text", &[("x", &0), ("y", &px(y + 9.6))], number);
        page.close("g").close("a");
    }
}

/// The operations that prove the verdict.
fn proof_marks(page: &mut Markup, proofs: &[Proof], height: f64, scale: Scale) {
    for (index, proof) in proofs.iter().enumerate() {
        let Some(from_us) = proof.from_us else {
            continue;
        };
        let to_us = proof.to_us.unwrap_or(from_us);
        let last = index + 1 == proofs.len();
        let class = if last { "proof offending" } else { "proof" };
        page.open("g", &[("class", &class)]);
        zoomed(page, |page| {
            page.titled(
                "rect",
                &[
                    ("x", &px(scale.x(from_us))),
                    ("y", &22),
                    ("width", &px(scale.width(from_us, to_us).max(1.2))),
                    ("height", &px(height - 24.0)),
                ],
                proof.line(),
            );
        });
        // Names of proofs that lie close together stand above one another.
        let y = 31.0 + (index % 3) as f64 * 11.0;
        let x = scale.x(from_us);
        page.element(
            "text",
            &[
                ("x", &px(x + 3.0)),
                ("y", &px(y)),
                ("data-t", &ms(from_us)),
                ("data-u", &ms(scale.end_us)),
                ("data-w", &0),
            ],
            &proof.name,
        );
        page.close("g");
    }
}

/// Long stalls of the machine are grey through everything.
fn stall_bands(page: &mut Markup, story: &Story, scale: Scale, top: f64, height: f64) {
    zoomed(page, |page| {
        for stall in &story.stalls {
            let took = stall.to_us - stall.from_us;
            if took < 20_000 {
                continue;
            }
            page.titled(
                "rect",
                &[
                    ("class", &"stalled"),
                    ("x", &px(scale.x(stall.from_us))),
                    ("y", &px(top)),
                    (
                        "width",
                        &px(scale.width(stall.from_us, stall.to_us).max(1.0)),
                    ),
                    ("height", &px(height - top)),
                ],
                format_args!("the machine stood still for {}", length(took)),
            );
        }
    });
}

fn legend(page: &mut Markup, stories: &[Story], marks: bool) {
    let seen = |state: LaneState| {
        let lanes = stories.iter().flat_map(|story| &story.lanes);
        let mut spans = lanes.flat_map(|lane| &lane.spans);
        spans.any(|span| span.state == state)
    };
    page.open("ul", &[("class", &"legend")]);
    for state in LaneState::ALL.into_iter().filter(|state| seen(*state)) {
        let class = format!("swatch {}", state.word());
        page.open("li", &[]);
        page.element("i", &[("class", &class)], "");
        page.element("b", &[], state.word());
        page.text(" ").text(state.meaning()).close("li");
    }
    let mut more = vec![];
    if stories.iter().any(|story| !story.faults.is_empty()) {
        more.push((
            "struck",
            "fault",
            "put in on purpose, on the nodes that are hatched",
        ));
    }
    if stories.iter().any(|story| !story.stalls.is_empty()) {
        more.push(("stalled", "stall", "the machine itself stood still"));
    }
    if marks {
        more.push(("election", "election", "click the number for what was said"));
    }
    for (class, word, meaning) in more {
        let class = format!("swatch {class}");
        page.open("li", &[]);
        page.element("i", &[("class", &class)], "");
        page.element("b", &[], word);
        page.text(" ").text(meaning).close("li");
    }
    page.close("ul");
    page.raw(
        "<p class=\"hint\" id=\"hint\" hidden>Drag across the timeline to look closer, \
         <button type=\"button\" id=\"whole\">show all of it</button>, or \
         <button type=\"button\" id=\"failure\" hidden>look at the failure</button></p>\n",
    );
}

/// What the script needs to say what was when.
fn data(page: &mut Markup, story: &Story, plots: &plots::Plots<'_>, proofs: &[Proof]) {
    let lanes: Vec<_> = story
        .lanes
        .iter()
        .map(|lane| {
            let spans = lane
                .spans
                .iter()
                .map(|span| json!([span.from_us / 1000, span.to_us / 1000, span.state.word()]));
            json!({"n": lane.node, "s": spans.collect::<Vec<_>>()})
        })
        .collect();
    let times = || proofs.iter().filter_map(|proof| proof.from_us);
    let ends = proofs.iter().filter_map(|proof| proof.to_us);
    let failure = times().min().map(|from| {
        let to = ends.chain(times()).max().unwrap_or(from);
        let around = (to - from).max(50_000);
        json!([
            from.saturating_sub(around) as f64 / 1e3,
            (to + around).min(story.end_us) as f64 / 1e3
        ])
    });
    let value = json!({"lanes": lanes, "load": plots.data(), "failure": failure});
    // Inside a script nothing may look like the end of one.
    let text = value.to_string().replace('<', "\\u003c");
    page.raw("<script type=\"application/json\" id=\"data\">");
    page.raw(&text).raw("</script>\n");
}

/// The lanes of several runs under one another, on one scale.
pub(super) fn lanes_of(page: &mut Markup, titles: &[String], stories: &[Story], end_us: u64) {
    const TITLE: f64 = 26.0;
    let scale = Scale { end_us };
    let mut places = Vec::new();
    let mut y = 24.0;
    for story in stories {
        let rows = pack(&story.faults, scale);
        let fault_rows = rows.iter().max().map_or(0, |row| row + 1);
        let lanes_y = y + TITLE + fault_rows as f64 * FAULT_STEP + 6.0;
        places.push((y, lanes_y, rows));
        y = lanes_y + story.lanes.len() as f64 * LANE_STEP + 56.0;
    }
    legend(page, stories, false);
    page.open("div", &[("class", &"wide timeline")]);
    page.open(
        "svg",
        &[
            ("id", &"tl"),
            ("viewBox", &format!("0 0 {WIDTH} {}", px(y))),
            ("role", &"img"),
            ("aria-label", &"What every node of each run was over time"),
            ("data-end", &ms(end_us)),
            ("data-left", &LEFT),
            ("data-span", &SPAN),
            ("data-height", &px(y)),
        ],
    );
    definitions(page, y);
    axis(page, scale, y);
    for ((title, story), (top, lanes_y, rows)) in titles.iter().zip(stories).zip(&places) {
        let at = px(top + 16.0);
        page.element(
            "text",
            &[("class", &"runname"), ("x", &LEFT), ("y", &at)],
            title,
        );
        stall_bands(
            page,
            story,
            scale,
            *lanes_y,
            lanes_y + story.lanes.len() as f64 * LANE_STEP,
        );
        for (index, lane) in story.lanes.iter().enumerate() {
            draw_lane(page, lane, lanes_y + index as f64 * LANE_STEP, scale);
        }
        draw_faults(page, story, rows, top + TITLE, *lanes_y, scale);
        let epochs_y = lanes_y + story.lanes.len() as f64 * LANE_STEP + 4.0;
        draw_epochs(page, story, epochs_y, scale);
    }
    page.close("svg").close("div");
    page.raw("<p id=\"now\" class=\"now\" hidden></p>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_does_not_fit_stands_behind_its_fault_and_keeps_its_room() {
        let scale = Scale { end_us: 1_000_000 };
        let fault = |text: &str, from_us, to_us| Fault {
            text: text.to_owned(),
            from_us,
            to_us,
            ..Fault::default()
        };
        let (long, short) = (
            fault("pause n1", 0, 400_000),
            fault("pause n2", 400_000, 440_000),
        );
        assert!(is_inside(&long, scale) && !is_inside(&short, scale));
        // Behind the short one stands its name, so what begins there goes to a row of its own.
        let next = fault("pause n3", 450_000, 900_000);
        let late = fault("pause n1", 560_000, 900_000);
        assert_eq!(pack(&[long, short, next, late], scale), [0, 0, 1, 0]);
    }
}
