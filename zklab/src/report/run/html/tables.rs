//! What was done, and the numbers.

use serde_json::Value;

use super::super::folder::{Folder, Outcome};
use super::super::words;
use super::moment;
use crate::report::history::count;
use crate::report::markup::Markup;

/// The head of a table inside a section of its own.
fn begin(page: &mut Markup, id: &str, title: &str, columns: &[&str]) {
    page.open("section", &[("id", &id)]);
    page.element("h2", &[], title);
    page.open("div", &[("class", &"wide")]);
    page.open("table", &[]);
    page.open("thead", &[]).open("tr", &[]);
    for column in columns {
        page.element("th", &[], column);
    }
    page.close("tr").close("thead").open("tbody", &[]);
}

fn end(page: &mut Markup) {
    page.close("tbody")
        .close("table")
        .close("div")
        .close("section");
}

/// One row; the first column says good or bad where that is meant.
fn row(page: &mut Markup, mark: Option<(&str, &str)>, cells: &[&str]) {
    page.open("tr", &[]);
    if let Some((class, word)) = mark {
        let class = format!("mark {class}");
        page.element("td", &[("class", &class)], word);
    }
    for cell in cells {
        let class = if is_number(cell) { "number" } else { "" };
        page.element("td", &[("class", &class)], cell);
    }
    page.close("tr");
}

fn is_number(cell: &str) -> bool {
    let digits = cell
        .trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == '%' || c == 'µ')
        .trim_end();
    !digits.is_empty()
        && digits
            .chars()
            .all(|c| c.is_ascii_digit() || " .\u{202f}".contains(c))
}

/// What was done to the lab.
pub(super) fn deeds(page: &mut Markup, folder: &Folder) {
    if folder.deeds.is_empty() {
        return;
    }
    // Only where something was left to chance, there is a difference.
    let chosen = folder
        .deeds
        .iter()
        .any(|deed| !deed.resolved.is_empty() && deed.resolved != deed.what);
    let mut columns = vec!["", "when", "step", "asked"];
    if chosen {
        columns.push("with what was chosen");
    }
    columns.push("what came of it");
    begin(page, "deeds", "What was done", &columns);
    for deed in &folder.deeds {
        let mark = if deed.ok {
            ("ok", "ok")
        } else {
            ("fail", "no")
        };
        let at = moment(deed.t_us);
        let mut cells = vec![&at[..], &deed.step, &deed.what];
        if chosen {
            cells.push(&deed.resolved);
        }
        cells.push(&deed.text);
        row(page, Some(mark), &cells);
    }
    end(page);
}

/// What was expected, and what came.
pub(super) fn expectations(page: &mut Markup, folder: &Folder) {
    if folder.run.expects.is_empty() {
        return;
    }
    begin(
        page,
        "expectations",
        "Expectations",
        &["", "what", "wanted", "got"],
    );
    for expect in &folder.run.expects {
        let mark = if expect.ok {
            ("ok", "met")
        } else {
            ("fail", "missed")
        };
        let what = words::expectation(&expect.what);
        let (wanted, got) = (words::amount(&expect.wanted), words::amount(&expect.got));
        row(page, Some(mark), &[&what, &wanted, &got]);
    }
    end(page);
}

/// What the checkers found.
pub(super) fn checks(page: &mut Markup, folder: &Folder) {
    if folder.run.checks.is_empty() {
        return;
    }
    begin(
        page,
        "checks",
        "Checks",
        &["", "rule", "cases", "took", "promise and finding"],
    );
    for check in &folder.run.checks {
        let mark = match check.verdict.as_str() {
            "pass" => ("ok", "ok"),
            "fail" => ("fail", "BROKEN"),
            _ => ("skip", "skipped"),
        };
        page.open("tr", &[]);
        let class = format!("mark {}", mark.0);
        page.element("td", &[("class", &class)], mark.1);
        page.open("td", &[]).element("code", &[], &check.rule);
        page.close("td");
        page.element("td", &[("class", &"number")], count(check.count));
        page.element("td", &[("class", &"number")], format!("{:.0} ms", check.ms));
        page.open("td", &[]);
        if !check.message.is_empty() {
            page.element("b", &[], format!("{}. ", check.message));
        }
        if let Some(meaning) = words::meaning(&check.rule) {
            page.element("span", &[("class", &"promise")], meaning.promise);
        }
        page.close("td").close("tr");
    }
    end(page);
}

/// What the clients did.
pub(super) fn load(page: &mut Markup, folder: &Folder) {
    let Some(load) = &folder.run.load else {
        return;
    };
    begin(
        page,
        "load",
        "What the clients did",
        &[
            "clients",
            "operations",
            "ok",
            "refused",
            "never answered",
            "p50",
            "p99",
            "longest time without a write",
            "connections lost",
            "sessions expired",
        ],
    );
    let clients = match load.foreign {
        0 => load.clients.to_string(),
        foreign => format!(
            "{}, {foreign} of them through zookeeper-client",
            load.clients
        ),
    };
    let cells = [
        &clients[..],
        &count(load.ops),
        &count(load.ok),
        &count(load.failed),
        &count(load.unknown),
        &format!("{:.1} ms", load.p50_ms),
        &format!("{:.1} ms", load.p99_ms),
        &format!("{:.0} ms", load.longest_gap_ms),
        &count(folder.load.lost_us.len() as u64),
        &count(folder.load.expired_us.len() as u64),
    ];
    row(page, None, &cells);
    end(page);
}

/// What the links carried, where the run tells it.
pub(super) fn links(page: &mut Markup, folder: &Folder) {
    let links = &folder.run.links;
    let Some(Value::Object(first)) = links.first() else {
        return;
    };
    // Faults that no link had need no column.
    let always = ["link", "sent", "dropped", "held"];
    let nothing = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        _ => false,
    };
    let keys: Vec<&str> = first
        .keys()
        .map(String::as_str)
        .filter(|key| !matches!(*key, "v" | "queue_bytes" | "first_us"))
        .filter(|key| always.contains(key) || !links.iter().all(|link| nothing(&link[*key])))
        .collect();
    let titles: Vec<String> = keys.iter().map(|key| key.replace('_', " ")).collect();
    let titles: Vec<&str> = titles.iter().map(String::as_str).collect();
    begin(page, "links", "Links", &titles);
    for link in links {
        let cells: Vec<String> = keys
            .iter()
            .map(|key| match &link[*key] {
                Value::Null => "–".to_owned(),
                Value::String(text) => text.clone(),
                Value::Number(number) => number.as_u64().map_or(number.to_string(), count),
                Value::Bool(true) => "yes".to_owned(),
                Value::Bool(false) => "–".to_owned(),
                other => other.to_string(),
            })
            .collect();
        let cells: Vec<&str> = cells.iter().map(String::as_str).collect();
        row(page, None, &cells);
    }
    end(page);
}

/// Where it ran, and what could not be read.
pub(super) fn environment(page: &mut Markup, folder: &Folder) {
    let run = &folder.run;
    page.open("section", &[("id", &"environment")]);
    page.element("h2", &[], "Where it ran");
    page.open("dl", &[("class", &"facts")]);
    let mut fact = |word: &str, text: &str| {
        if !text.is_empty() {
            page.element("dt", &[], word).element("dd", &[], text);
        }
    };
    fact("scenario", &run.file);
    fact("seed", &run.seed);
    fact("started", &run.started);
    fact("server", &run.server);
    for (node, server) in &run.servers {
        fact(node, server);
    }
    fact("network", &run.net);
    for (tool, version) in &run.versions {
        fact(tool, version);
    }
    fact("machine", &run.machine);
    if run.host_stall_limit_ms > 0.0 || run.host_stall_max_ms > 0.0 {
        let text = format!(
            "{:.1} ms at most beside the clients, while the steps ran; times are judged up to {:.0} ms",
            run.host_stall_max_ms, run.host_stall_limit_ms
        );
        fact("machine stood still", &text);
    }
    fact("folder", &folder.dir.display().to_string());
    page.close("dl");
    if run.outcome != Outcome::Environment {
        for note in &folder.notes {
            page.element("p", &[("class", &"note")], format!("Note: {note}."));
        }
    }
    if !folder.scenario.is_empty() {
        page.open("details", &[]);
        page.element("summary", &[], "The scenario, with every choice made");
        page.element("pre", &[], &folder.scenario);
        page.close("details");
    }
    page.close("section");
}
