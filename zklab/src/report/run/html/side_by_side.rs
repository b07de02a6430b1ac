//! Several runs side by side: the same scenario on several servers, or before and after a change.

use super::super::elections::End;
use super::super::folder::{Folder, Outcome};
use super::super::story::Story;
use super::super::words;
use super::{end, length, sheet, timeline};
use crate::report::history::count;
use crate::report::markup::Markup;
use crate::scenario::LoadRecord;

/// A row: what it is about, and what each run has to say to it.
pub(in crate::report::run) type Compared = (String, Vec<String>);

/// The name of a run among others: what differs.
#[must_use]
pub(in crate::report::run) fn title(folder: &Folder) -> String {
    let run = &folder.run;
    let parts = [run.server.clone(), run.seed.clone()];
    let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join(" · ")
}

/// What differs between runs, in rows.
#[must_use]
pub(in crate::report::run) fn rows(folders: &[Folder], stories: &[Story]) -> Vec<Compared> {
    let mut rows: Vec<Compared> = Vec::new();
    let mut row = |what: &str, of: &dyn Fn(&Folder, &Story) -> String| {
        let cells = folders.iter().zip(stories);
        let cells = cells.map(|(folder, story)| of(folder, story)).collect();
        rows.push((what.to_owned(), cells));
    };
    row("scenario", &|folder, _| folder.run.name.clone());
    row("verdict", &|folder, _| {
        let run = &folder.run;
        match run.outcome {
            Outcome::Bug => format!("{}: {}", run.outcome.title(), run.rule),
            outcome => outcome.title().to_owned(),
        }
    });
    row("operations", &|folder, _| {
        of_load(folder, |load| count(load.ops))
    });
    row("never answered", &|folder, _| {
        of_load(folder, |load| count(load.unknown))
    });
    row("median latency", &|folder, _| {
        of_load(folder, |load| format!("{:.1} ms", load.p50_ms))
    });
    row("99th percentile", &|folder, _| {
        of_load(folder, |load| format!("{:.1} ms", load.p99_ms))
    });
    row("longest time without a write", &|folder, _| {
        of_load(folder, |load| format!("{:.0} ms", load.longest_gap_ms))
    });
    row("elections with a new leader", &|_, story| {
        won(story).len().to_string()
    });
    row("time to a leader, median", &|_, story| {
        quantile(won(story), 50)
    });
    row("time to a leader, longest", &|_, story| {
        quantile(won(story), 100)
    });
    row("epochs", &|_, story| story.epochs.len().to_string());
    row("machine stood still, longest", &|folder, _| {
        format!("{:.0} ms", folder.run.host_stall_max_ms)
    });
    judged(folders, &mut rows);
    rows
}

/// The expectations and checks of all of them.
fn judged(folders: &[Folder], rows: &mut Vec<Compared>) {
    let mut row = |what: &str, of: &dyn Fn(&Folder) -> String| {
        rows.push((what.to_owned(), folders.iter().map(of).collect()));
    };
    let mut whats: Vec<&str> = Vec::new();
    for expect in folders.iter().flat_map(|folder| &folder.run.expects) {
        if !whats.contains(&expect.what.as_str()) {
            whats.push(&expect.what);
        }
    }
    for what in whats {
        let name = format!("expected: {}", words::expectation(what));
        row(&name, &|folder| {
            let found = folder.run.expects.iter().find(|expect| expect.what == what);
            found.map_or("–".to_owned(), |expect| {
                let mark = if expect.ok { "" } else { " (MISSED)" };
                let got = words::amount(&expect.got);
                format!("{got} of {}{mark}", words::amount(&expect.wanted))
            })
        });
    }
    let mut rules: Vec<&str> = Vec::new();
    for check in folders.iter().flat_map(|folder| &folder.run.checks) {
        if !rules.contains(&check.rule.as_str()) {
            rules.push(&check.rule);
        }
    }
    for rule in rules {
        row(&format!("check: {rule}"), &|folder| {
            let found = folder.run.checks.iter().find(|check| check.rule == rule);
            found.map_or("–".to_owned(), |check| {
                format!("{} ({} cases)", check.verdict, count(check.count))
            })
        });
    }
}

fn of_load(folder: &Folder, of: impl Fn(&LoadRecord) -> String) -> String {
    folder.run.load.as_ref().map_or("–".to_owned(), of)
}

/// How long each election took that had a winner, without the first.
fn won(story: &Story) -> Vec<u64> {
    let mut times: Vec<u64> = story
        .elections
        .iter()
        .filter_map(|election| match election.end {
            End::Won { at_us, .. } => Some(at_us.saturating_sub(election.from_us)),
            _ => None,
        })
        .skip(1)
        .collect();
    times.sort_unstable();
    times
}

fn quantile(times: Vec<u64>, percent: usize) -> String {
    let rank = (times.len() * percent).div_ceil(100);
    let time = times.get(rank.saturating_sub(1));
    time.map_or("–".to_owned(), |us| length(*us))
}

/// The page of several runs.
#[must_use]
pub fn compare(folders: &[Folder]) -> String {
    let stories: Vec<Story> = folders.iter().map(Story::of).collect();
    let end_us = stories.iter().map(|story| story.end_us).max().unwrap_or(1);
    let titles: Vec<String> = folders.iter().map(title).collect();
    let mut page = Markup::default();
    let title = format!("Compared: {}", titles.join(" and "));
    sheet::begin(&mut page, &title, "");
    page.open("header", &[]);
    page.element("h1", &[], "Side by side");
    page.element("p", &[("class", &"facts")], titles.join("  |  "));
    page.close("header");
    page.open("section", &[("id", &"differences")]);
    page.open("div", &[("class", &"wide")]);
    page.open("table", &[("class", &"compare")]);
    page.open("thead", &[])
        .open("tr", &[])
        .element("th", &[], "");
    for title in &titles {
        page.element("th", &[], title);
    }
    page.close("tr").close("thead").open("tbody", &[]);
    for (what, cells) in rows(folders, &stories) {
        page.open("tr", &[]).element("th", &[], what);
        for cell in cells {
            let class = if cell.contains("MISSED")
                || cell.starts_with("fail")
                || cell.starts_with("Product bug")
            {
                "mark fail"
            } else {
                ""
            };
            page.element("td", &[("class", &class)], cell);
        }
        page.close("tr");
    }
    page.close("tbody")
        .close("table")
        .close("div")
        .close("section");
    page.open("section", &[("id", &"timeline")]);
    page.element("h2", &[], "The lanes, on the same time scale");
    timeline::lanes_of(&mut page, &titles, &stories, end_us);
    page.close("section");
    end(&mut page);
    page.finish()
}
