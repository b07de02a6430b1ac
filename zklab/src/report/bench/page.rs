//! The page of a bench: one file, no script, nothing from anywhere else.

use super::figure::Kind;
use super::{Report, Round, plots};
use crate::report::capital;
use crate::report::markup::Markup;
use crate::report::run::sheet;

/// The page.
#[must_use]
pub fn page(report: &Report) -> String {
    let mut page = Markup::default();
    sheet::begin(
        &mut page,
        &format!("bench: {}", report.what),
        plots::style(),
    );
    header(&mut page, report);
    let mut pictures = plots::pictures(report);
    pictures.sort_by_key(|picture| picture.name != "ratios");
    for picture in pictures.iter().filter(|picture| picture.name == "ratios") {
        section(&mut page, "How they compare", picture);
    }
    figures(&mut page, report);
    for picture in pictures.iter().filter(|picture| picture.name != "ratios") {
        let title = match picture.name {
            "rate" => "Rate over time",
            "latency" => "Latency",
            _ => "Measurements",
        };
        section(&mut page, title, picture);
    }
    rounds(&mut page, report);
    sheet::end(&mut page);
    page.finish()
}

fn header(page: &mut Markup, report: &Report) {
    page.element("h1", &[], &report.what);
    let names: Vec<&str> = report.sides.iter().map(|side| side.name.as_str()).collect();
    let rounds = report.sides.iter().map(|side| side.rounds.len()).max();
    let order = if names.len() > 1 { ", in turn" } else { "" };
    page.element(
        "p",
        &[("class", &"facts")],
        format!(
            "zklab bench · {} · {} · {} · {} rounds each{order}",
            names.join(" and "),
            report.machine,
            report.date,
            rounds.unwrap_or(0)
        ),
    );
    let complaints = report.complaints();
    if !complaints.is_empty() {
        page.open("section", &[("class", &"card missed")]);
        page.element(
            "p",
            &[("class", &"message")],
            "This is no good measurement.",
        );
        for complaint in complaints {
            page.element("p", &[("class", &"meaning")], complaint);
        }
        page.close("section");
    }
    for note in &report.notes {
        page.element("p", &[("class", &"meaning")], note);
    }
}

fn section(page: &mut Markup, title: &str, picture: &plots::Picture) {
    page.open("section", &[("id", &picture.name)]);
    page.element("h2", &[], title);
    page.open("div", &[("class", &"wide")]);
    page.raw(&picture.svg);
    page.close("div");
    page.element("p", &[("class", &"note")], picture.caption);
    page.close("section");
}

fn table(page: &mut Markup, columns: &[String]) {
    page.open("div", &[("class", &"wide")]).open("table", &[]);
    page.open("thead", &[]).open("tr", &[]);
    for column in columns {
        page.element("th", &[], column);
    }
    page.close("tr").close("thead").open("tbody", &[]);
}

fn end_table(page: &mut Markup) {
    page.close("tbody").close("table").close("div");
}

/// Medians with their extremes, and who is better.
fn figures(page: &mut Markup, report: &Report) {
    page.open("section", &[("id", &"figures")]);
    page.element("h2", &[], "Figures");
    let mut columns = vec!["median of the rounds (smallest – largest)".to_owned()];
    columns.extend(report.sides.iter().map(|side| side.name.clone()));
    if let [a, _] = report.sides.as_slice() {
        columns.push(format!("{} is better by", a.name));
    }
    table(page, &columns);
    for kind in &report.kinds {
        page.open("tr", &[]);
        page.element("th", &[("scope", &"row")], capital(&kind.name));
        for side in &report.sides {
            let text = side
                .spread(&kind.key)
                .map_or("–".to_owned(), |spread| told(kind, &spread));
            page.element("td", &[("class", &"number")], text);
        }
        if report.sides.len() == 2 {
            let text = match report.advantage(kind) {
                Some(advantage) if kind.compared => advantage.times(),
                _ => String::new(),
            };
            page.element("td", &[("class", &"number")], text);
        }
        page.close("tr");
    }
    end_table(page);
    page.element(
        "p",
        &[("class", &"note")],
        "Ratios are taken round by round, and their median is told: what slows the machine down for a while hits both \
         sides of a round. Above 1 the first one is better. p99: 99 of 100 operations took at most so long.",
    );
    page.close("section");
}

fn told(kind: &Kind, spread: &super::Spread) -> String {
    let text = |value| kind.unit.text(value);
    if spread.min == spread.max {
        return text(spread.median);
    }
    format!(
        "{} ({} – {})",
        text(spread.median),
        text(spread.min),
        text(spread.max)
    )
}

/// Every round by itself.
fn rounds(page: &mut Markup, report: &Report) {
    page.open("section", &[("id", &"rounds")]);
    page.element("h2", &[], "Every round");
    let mut columns = vec!["round".to_owned(), String::new()];
    columns.extend(report.kinds.iter().map(|kind| kind.head.clone()));
    table(page, &columns);
    let count = report.sides.iter().map(|side| side.rounds.len()).max();
    for number in 0..count.unwrap_or(0) {
        for side in &report.sides {
            let Some(round) = side.rounds.get(number) else {
                continue;
            };
            page.open("tr", &[]);
            page.element("td", &[("class", &"number")], number + 1);
            page.element("td", &[], &side.name);
            for kind in &report.kinds {
                page.element("td", &[("class", &"number")], cell(kind, round));
            }
            page.close("tr");
        }
    }
    end_table(page);
    page.close("section");
}

fn cell(kind: &Kind, round: &Round) -> String {
    let value = round.figures.get(&kind.key);
    value.map_or("–".to_owned(), |value| kind.unit.text(*value))
}
