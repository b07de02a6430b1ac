//! What became of the write that the verdict is about: what follows, a row for every server, and the story.

use super::super::fate::{Fate, Held, ServerFate, Stay, Step, Subject};
use super::moment;
use crate::report::markup::Markup;

/// So many lines of one kind are told of one server.
const LINES_MAX: usize = 4;

/// What follows from the evidence, what is wrong by itself first in its look.
pub(super) fn findings(page: &mut Markup, fate: &Fate) {
    if fate.findings.is_empty() {
        return;
    }
    page.element(
        "h3",
        &[],
        "What the servers' disks, their messages and the clients show",
    );
    page.open("ul", &[("class", &"findings")]);
    for finding in &fate.findings {
        let class = if finding.is_wrong { "wrong" } else { "" };
        page.element("li", &[("class", &class)], format!("{}.", finding.text));
    }
    page.close("ul");
}

/// One row for every server.
pub(super) fn table(page: &mut Markup, fate: &Fate) {
    let Some(subject) = &fate.subject else {
        return;
    };
    page.open("h3", &[]).text("What became of ");
    page.element("code", &[], subject.zxid);
    page.text(" on every server").close("h3");
    page.element("p", &[("class", &"meaning")], about(subject));
    let was = match &subject.acked {
        Some((at_us, ..)) => format!("when the client was told ({})", moment(*at_us)),
        None => "when it was asked for".to_owned(),
    };
    let mut titles = vec!["server", was.as_str()];
    if fate.is_recorded {
        titles.extend(["proposed", "acknowledged (ACK)", "committed"]);
    }
    titles.extend(["brought up to date afterwards", "last zxid on its disk"]);
    if fate.servers.iter().any(|server| server.held.is_some()) {
        titles.push("in its log at the end");
    }
    page.open("div", &[("class", &"wide")]);
    page.open("table", &[("class", &"fate")]);
    page.open("thead", &[]).open("tr", &[]);
    for title in titles {
        page.element("th", &[], title);
    }
    page.close("tr").close("thead").open("tbody", &[]);
    for server in &fate.servers {
        row(page, fate, subject, server);
    }
    page.close("tbody").close("table").close("div");
    let note = if fate.is_recorded {
        "Messages were read on their way; an ACK says that its sender has the write safe on its disk. A leader's own disk \
         sends none. Times are those of the arrival."
    } else {
        "The messages about single writes were not recorded in this run: who proposed, acknowledged and committed it is \
         not known."
    };
    page.element("p", &[("class", &"note")], note);
}

/// `0x5 is the write that …: setData /a; client 3 was told by n2 at 4.118 s that it is done.`
fn about(subject: &Subject) -> String {
    let mut text = format!("{} is {}", subject.zxid, subject.why);
    if !subject.what.is_empty() {
        text.push_str(&format!(": {}", subject.what));
    }
    match &subject.acked {
        Some((at_us, server, who)) => {
            let server = if server.starts_with('n') {
                server
            } else {
                "its server"
            };
            text.push_str(&format!(
                "; {who} was told by {server} at {} that it is done.",
                moment(*at_us)
            ));
        }
        None => text.push_str(&format!("{}.", subject.otherwise)),
    }
    text
}

fn row(page: &mut Markup, fate: &Fate, subject: &Subject, server: &ServerFate) {
    let is_guilty = fate
        .findings
        .iter()
        .any(|finding| finding.is_wrong && finding.node == server.node);
    let class = if is_guilty { "offending" } else { "" };
    page.open("tr", &[("class", &class)]);
    page.element("td", &[], &server.node);
    page.element(
        "td",
        &[],
        if server.then.is_empty() {
            "not known"
        } else {
            &server.then
        },
    );
    if fate.is_recorded {
        for list in [&server.proposed, &server.acked, &server.committed] {
            let lines: Vec<String> = list
                .iter()
                .map(|(at_us, text)| format!("{} {text}", moment(*at_us)))
                .collect();
            cell(page, "", &lines, "not seen");
        }
    }
    let since = since(fate, subject);
    let syncs = server.syncs.iter().filter(|sync| sync.at_us >= since);
    let mut syncs: Vec<String> = syncs
        .map(|sync| {
            format!(
                "{} {} tells it {}",
                moment(sync.at_us),
                sync.leader,
                sync.text()
            )
        })
        .collect();
    let more = syncs.len().saturating_sub(LINES_MAX);
    syncs.truncate(LINES_MAX);
    if more > 0 {
        syncs.push(format!("and {more} times more"));
    }
    cell(page, "long", &syncs, "not again");
    cell(
        page,
        "long",
        &lives(server, subject, since),
        "not ended since",
    );
    if let Some(held) = server.held {
        let (class, text) = match held {
            Held::Yes => ("mark ok", "yes"),
            Held::No => ("mark fail", "no"),
            Held::Covered => ("mark skip", "not known (a later snapshot)"),
            Held::Unknown => ("mark skip", "not known (not kept)"),
        };
        page.element("td", &[("class", &class)], text);
    }
    page.close("tr");
}

/// From when on something can have become of the write.
fn since(fate: &Fate, subject: &Subject) -> u64 {
    let of_story = fate
        .steps
        .iter()
        .filter(|step| step.is_key)
        .map(|step| step.at_us);
    let acked = subject.acked.as_ref().map(|(at_us, ..)| *at_us);
    acked.or_else(|| of_story.min()).unwrap_or_default()
}

fn cell(page: &mut Markup, class: &str, lines: &[String], none: &str) {
    page.open("td", &[("class", &class)]);
    if lines.is_empty() {
        page.element("span", &[("class", &"promise")], none);
    }
    for line in lines {
        page.element("div", &[], line);
    }
    page.close("td");
}

/// How far a server was before and after every end of its process.
fn lives(server: &ServerFate, subject: &Subject, since_us: u64) -> Vec<String> {
    let mut lines = Vec::new();
    for (index, stay) in server.stays.iter().enumerate() {
        if stay.ended_us.is_some_and(|ended_us| ended_us < since_us) {
            continue;
        }
        if lines.len() >= 2 * LINES_MAX {
            lines.push("and so on".to_owned());
            break;
        }
        let is_later = |found: &(u64, _)| index > 0 && found.0 >= since_us;
        if let Some((at_us, zxid)) = stay.found.filter(is_later) {
            let lacks = if zxid < subject.zxid {
                " (before it)"
            } else {
                ""
            };
            lines.push(format!("{} back with {zxid}{lacks}", moment(at_us)));
        }
        if index + 1 < server.stays.len() {
            lines.extend(end(stay));
        }
    }
    lines
}

fn end(stay: &Stay) -> Option<String> {
    let how = if stay.power_cut {
        "killed, power cut"
    } else {
        "killed"
    };
    let far = match (stay.seen, stay.said) {
        (Some(zxid), _) => format!(", had ACKed or proposed {zxid}"),
        (None, Some((_, zxid))) => format!(", had applied {zxid} or more"),
        _ => String::new(),
    };
    Some(format!("{} {how}{far}", moment(stay.ended_us?)))
}

/// How it came to that.
pub(super) fn tale(page: &mut Markup, steps: &[Step]) {
    page.element("h3", &[], "How it came to that");
    page.open("ul", &[("class", &"before tale")]);
    for step in steps {
        let class = if step.is_key { "key" } else { "" };
        page.open("li", &[("class", &class)]);
        page.element("time", &[], moment(step.at_us));
        page.open("span", &[]);
        page.element("b", &[], step.who.join(" "));
        page.text(format!(" {}", step.text));
        page.close("span").close("li");
    }
    page.close("ul");
}
