//! How it ended, what proves it, and how to see it again: the first thing on the page.

use super::super::fate::Fate;
use super::super::folder::{Event, Folder, Outcome};
use super::super::story::Story;
use super::super::witness::Proof;
use super::super::words;
use super::{broken, fate, length, moment};
use crate::report::capital;
use crate::report::markup::Markup;
use crate::scenario::Check;

/// How long before the proof something may have caused it.
const BEFORE_US: u64 = 1_500_000;
/// How much of that is told.
const BEFORE_MAX: usize = 14;

/// The verdict, in one glance.
pub(super) fn header(page: &mut Markup, folder: &Folder) {
    let run = &folder.run;
    let class = format!("verdict {}", run.outcome.word());
    page.open("header", &[]);
    page.open("p", &[("class", &class)]);
    page.element("strong", &[], run.outcome.title());
    if run.outcome == Outcome::Bug {
        let rule = first(folder).map_or(run.rule.as_str(), |check| &check.rule);
        if !rule.is_empty() {
            page.element("code", &[], rule);
        }
    }
    page.close("p");
    let name = if run.name.is_empty() {
        "A run"
    } else {
        &run.name
    };
    page.element("h1", &[], name);
    let mut facts = Vec::new();
    if !run.seed.is_empty() {
        facts.push(format!("seed {}", run.seed));
    }
    facts.push(run.server.clone());
    if run.nodes > 0 {
        let observers = match run.observers {
            0 => String::new(),
            1 => " and 1 observer".to_owned(),
            more => format!(" and {more} observers"),
        };
        facts.push(format!("{} voters{observers}", run.nodes));
    }
    if run.ms > 0.0 {
        facts.push(format!("{:.1} s long", run.ms / 1e3));
    }
    facts.push(run.started.clone());
    facts.retain(|fact| !fact.is_empty());
    page.element("p", &[("class", &"facts")], facts.join(" · "));
    page.close("header");
}

/// What went wrong and what proves it; of a run that passed, only how to run it again.
pub(super) fn what_went_wrong(
    page: &mut Markup,
    folder: &Folder,
    story: &Story,
    proofs: &[Proof],
    fate: &Fate,
) {
    let run = &folder.run;
    let class = format!("card {}", run.outcome.word());
    page.open("section", &[("id", &"verdict"), ("class", &class)]);
    if run.outcome == Outcome::Pass {
        page.element("p", &[], passed(folder));
    } else {
        page.element("h2", &[], question(run.outcome));
        let (rule, message) = match first(folder) {
            Some(check) => (&check.rule, format!("{}: {}", check.rule, check.message)),
            None => (&run.rule, run.message.clone()),
        };
        if !message.is_empty() {
            page.element("p", &[("class", &"message")], capital(&message));
        }
        if let Some(meaning) = words::meaning(rule) {
            said(page, "The promise", meaning.promise);
            if fate.findings.iter().all(|finding| !finding.is_wrong) {
                said(page, "This run does not show why", meaning.cause);
            }
        }
        missed(page, folder);
        fate::findings(page, fate);
        let proved = run
            .failed_check()
            .is_some_and(|check| !check.witness.is_empty());
        proof(page, proofs, proved);
        broken::others(page, folder, fate);
        fate::table(page, fate);
        around(page, folder, story, proofs, fate);
        if !fate.steps.is_empty() {
            fate::tale(page, &fate.steps);
        }
    }
    commands(page, folder);
    page.close("section");
}

/// The broken check that is told first, where it is another than the one that gave the verdict its name.
fn first(folder: &Folder) -> Option<&Check> {
    let run = &folder.run;
    let check = run.failed_check().filter(|_| run.outcome == Outcome::Bug);
    check.filter(|check| check.rule != run.rule)
}

fn question(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Bug => "What went wrong",
        Outcome::Missed => "What was missed",
        Outcome::Inconclusive => "Why nothing can be said",
        Outcome::Died => "Which server died",
        _ => "Why it could not be judged",
    }
}

fn passed(folder: &Folder) -> String {
    let run = &folder.run;
    let checks = run.checks.iter().filter(|check| check.verdict == "pass");
    let mut text = format!(
        "{} checks found nothing, {} expectations were met",
        checks.count(),
        run.expects.iter().filter(|expect| expect.ok).count()
    );
    if let Some(load) = &run.load {
        text.push_str(&format!(
            "; {} operations, the longest time without an acknowledged write was {:.0} ms",
            load.ops, load.longest_gap_ms
        ));
    }
    text.push('.');
    text
}

fn said(page: &mut Markup, word: &str, text: &str) {
    page.open("p", &[("class", &"meaning")]);
    page.element("b", &[], format!("{word}:"));
    page.text(" ").text(text);
    page.close("p");
}

fn missed(page: &mut Markup, folder: &Folder) {
    let run = &folder.run;
    for expect in run.expects.iter().filter(|expect| !expect.ok) {
        page.open("p", &[("class", &"meaning")]);
        page.element("b", &[], format!("{}:", words::expectation(&expect.what)));
        let (wanted, got) = (words::amount(&expect.wanted), words::amount(&expect.got));
        page.text(format!(" wanted {wanted}, got {got}"));
        page.close("p");
    }
    if run.outcome == Outcome::Inconclusive && run.host_stall_limit_ms > 0.0 {
        let text = format!(
            "the machine stood still for {:.0} ms at a time; more than {:.0} ms is too much to judge a server by its \
             times",
            run.host_stall_max_ms, run.host_stall_limit_ms
        );
        said(page, "The machine", &text);
    }
}

/// The operations that prove it, the offending one last.
fn proof(page: &mut Markup, proofs: &[Proof], proved: bool) {
    if proofs.is_empty() {
        return;
    }
    let title = if proved {
        "What proves it, in the order of the story"
    } else {
        "The writes that this speaks of"
    };
    page.element("h3", &[], title);
    lines(page, proofs, proved);
}

/// The lines of a proof as a table.
pub(super) fn lines(page: &mut Markup, proofs: &[Proof], proved: bool) {
    page.open("div", &[("class", &"wide")]);
    page.open("table", &[("class", &"proof")]);
    page.open("thead", &[]).open("tr", &[]);
    for title in ["", "who", "server", "asked", "answered", "zxid", "when"] {
        page.element("th", &[], title);
    }
    page.close("tr").close("thead").open("tbody", &[]);
    for (index, proof) in proofs.iter().enumerate() {
        let last = proved && index + 1 == proofs.len();
        let class = if last { "offending" } else { "" };
        page.open("tr", &[("class", &class)]);
        page.element("td", &[], &proof.name);
        page.open("td", &[]).text(&proof.who);
        if !proof.session.is_empty() {
            page.element("div", &[("class", &"promise")], &proof.session);
        }
        page.close("td");
        page.element("td", &[], &proof.server);
        page.open("td", &[]).element("code", &[], &proof.asked);
        page.close("td");
        page.element("td", &[], &proof.answer);
        page.open("td", &[]).element("code", &[], &proof.zxid);
        page.close("td");
        page.element("td", &[("class", &"when")], proof.span());
        page.close("tr");
    }
    page.close("tbody").close("table").close("div");
}

/// What the ensemble was like then, and what had happened to it just before.
fn around(page: &mut Markup, folder: &Folder, story: &Story, proofs: &[Proof], fate: &Fate) {
    let times = || proofs.iter().filter_map(|proof| proof.from_us);
    let (Some(first), Some(last)) = (times().min(), times().max()) else {
        return;
    };
    let roles: Vec<String> = story
        .lanes
        .iter()
        .filter_map(|lane| Some(format!("{} {}", lane.node, lane.at(last)?.word())))
        .collect();
    let faults: Vec<String> = story
        .standing(last)
        .map(|fault| format!("{} (since {})", fault.text, moment(fault.from_us)))
        .collect();
    let then = format!(
        "{}; {}",
        roles.join(", "),
        if faults.is_empty() {
            "no fault stood".to_owned()
        } else {
            format!("faults that stood: {}", faults.join(", "))
        }
    );
    said(page, &format!("At {}", moment(last)), &then);
    if !fate.steps.is_empty() {
        return;
    }
    let begin = first.saturating_sub(BEFORE_US);
    let before: Vec<&Event> = folder
        .events
        .iter()
        .filter(|event| begin <= event.t_us && event.t_us <= last && tells(event))
        .collect();
    if before.is_empty() {
        return;
    }
    page.element("h3", &[], "What had happened just before");
    let told = together(&before);
    page.open("ul", &[("class", &"before")]);
    for (at_us, nodes, text) in &told[told.len().saturating_sub(BEFORE_MAX)..] {
        page.open("li", &[]);
        page.element("time", &[], moment(*at_us));
        page.text(" ");
        page.element("b", &[], nodes.join(" "));
        page.text(format!(" {text}"));
        page.close("li");
    }
    page.close("ul");
}

/// What several nodes did at about the same time is told once.
fn together(events: &[&Event]) -> Vec<(u64, Vec<String>, String)> {
    let mut told: Vec<(u64, Vec<String>, String)> = Vec::new();
    for event in events {
        let text = sentence(event);
        let same = told
            .iter_mut()
            .rev()
            .take_while(|(at_us, ..)| event.t_us - at_us < 50_000)
            .find(|(_, _, other)| *other == text);
        match same {
            Some((_, nodes, _)) if !nodes.contains(&event.node) => nodes.push(event.node.clone()),
            Some(_) => {}
            None => told.push((event.t_us, vec![event.node.clone()], text)),
        }
    }
    told
}

fn tells(event: &Event) -> bool {
    // A sync is told by both ends; the leader's word is enough.
    let sync = event.kind == "sync" && event.text("to") != event.node;
    sync || matches!(
        event.kind.as_str(),
        "fault.on"
            | "fault.off"
            | "node.exited"
            | "node.spawned"
            | "node.stepped_down"
            | "leader.elected"
            | "quorum.lost"
            | "quorum.regained"
            | "session.expired"
            | "host.stall"
    )
}

/// An event as a sentence would say it.
pub(super) fn sentence(event: &Event) -> String {
    let text = |key: &str| event.text(key);
    match event.kind.as_str() {
        "fault.on" => format!("fault: {}", text("fault")),
        "fault.off" => format!("fault over: {}", text("fault")),
        "node.exited" if event.rest["expected"] == false => "ended ON ITS OWN".to_owned(),
        "node.exited" => "its process ended, as it was told to".to_owned(),
        "node.spawned" => "was started".to_owned(),
        "node.stepped_down" => format!("no longer {}: {}", text("role"), text("why")),
        "leader.elected" => format!("leads epoch {}", text("epoch")),
        "quorum.lost" => format!(
            "the quorum is lost: {} voters serve, {} are needed",
            text("have"),
            text("need")
        ),
        "quorum.regained" => "a quorum serves again".to_owned(),
        "sync" => format!(
            "brings {} up to date by {} from zxid {} to {}",
            text("to"),
            text("mode"),
            text("from_zxid"),
            text("to_zxid")
        ),
        "host.stall" => format!(
            "the machine stood still for {}",
            length((event.rest["ms"].as_f64().unwrap_or_default() * 1e3) as u64)
        ),
        kind => kind.replace('.', " "),
    }
}

/// The commands that show it again, to copy.
fn commands(page: &mut Markup, folder: &Folder) {
    let run = &folder.run;
    let mut commands = vec![("Run it again", &run.repro)];
    if run.outcome != Outcome::Pass {
        commands.push(("Make it small", &run.shrink));
    }
    if commands.iter().all(|(_, command)| command.is_empty()) {
        return;
    }
    page.open("dl", &[("class", &"commands")]);
    for (word, command) in commands {
        if command.is_empty() {
            continue;
        }
        page.element("dt", &[], word);
        page.open("dd", &[]).element("code", &[], command);
        page.close("dd");
    }
    page.close("dl");
}
