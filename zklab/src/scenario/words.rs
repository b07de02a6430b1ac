//! What a step's words ask for: the same words as on the command line, made into the same request.
//!
//! `kill leader`, `kill n2 as host`, `pause minority`, `partition isolate leader` (or shorter, `isolate leader`),
//! `link n1:n2 delay 20ms loss 1%`, `heal`, `start all`, `restart all rolling`. Whoever adds a fault to the lab adds
//! its word here, with the request it becomes and what it needs of the lab.

use nix::sys::signal::Signal;

use super::ailments;
use super::amount::Unit;
use super::message;
use crate::disk::Watch;
use crate::ensemble::select;
use crate::failure::nearest;
use crate::fault::{Clients, LinkChange, Profile, Style, change};
use crate::id::NodeId;
use crate::supervisor::network;
use crate::supervisor::protocol::{Death, NetworkRequest, PartitionRequest, Request};

/// What a step says beside its words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `kill`: as a `process` or as a `host`.
    pub as_: Option<String>,
    /// Partitions: what happens on the links.
    pub style: Option<String>,
    /// It undoes itself after so many microseconds.
    pub for_us: Option<u64>,
    /// `kill`: start again after so many microseconds.
    pub restart_after_us: Option<u64>,
}

/// What a fault needs of a lab, beside processes, which every lab has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Links that can be made bad.
    pub links: bool,
    /// What has to be watched of its disks.
    pub disks: Watch,
    /// Clocks that can be set wrong.
    pub clocks: bool,
}

impl Needs {
    /// Links and nothing else.
    pub(super) fn links() -> Self {
        Self {
            links: true,
            ..Self::default()
        }
    }
}

/// A step's words, understood.
#[derive(Clone, Debug)]
pub struct Deed {
    /// What the supervisor is asked.
    pub request: Request,
    /// What that takes.
    pub needs: Needs,
    /// How long it stays in force after it was done, in microseconds.
    pub lasts_us: u64,
}

/// What is wrong with a step's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// In one line.
    pub cause: String,
    /// What would be right.
    pub hint: Option<String>,
}

impl Wrong {
    pub(super) fn new(cause: impl Into<String>) -> Self {
        Self {
            cause: cause.into(),
            hint: None,
        }
    }

    /// A word that is none of `known`.
    pub(super) fn unknown(what: &str, word: &str, known: &[&str]) -> Self {
        let guess = nearest(word, known.iter().copied())
            .map(|near| format!("; did you mean {near}?"))
            .unwrap_or_default();
        Self {
            cause: format!("unknown {what} {word:?}{guess}"),
            hint: Some(format!("one of {}", known.join(", "))),
        }
    }
}

/// Words that a step can begin with.
pub const VERBS: [&str; 22] = [
    "kill",
    "stop",
    "start",
    "restart",
    "pause",
    "resume",
    "partition",
    "majority",
    "minority",
    "halves",
    "isolate",
    "leader",
    "bridge",
    "ring",
    "one-way",
    "flap",
    "link",
    "heal",
    "drop",
    "hold",
    "disk",
    "clock",
];

/// The kinds of partition, for the short form without `partition`.
const PARTITIONS: [&str; 8] = [
    "majority", "minority", "halves", "isolate", "bridge", "ring", "one-way", "flap",
];

/// What can be set on a link.
const LINK_KEYS: [&str; 10] = [
    "delay", "jitter", "loss", "burst", "dup", "reorder", "corrupt", "rate", "queue", "profile",
];

/// Understands a step's words in a lab of `nodes` nodes.
///
/// # Errors
/// If a word is unknown, or does not go with the others.
pub fn parse(text: &str, options: &Options, nodes: u8) -> Result<Deed, Wrong> {
    let mut words: Vec<&str> = text.split_whitespace().collect();
    let options = &said_behind(&mut words, options)?;
    let Some((verb, rest)) = words.split_first() else {
        return Err(Wrong::new("a step has nothing to do"));
    };
    let deed = match *verb {
        "kill" | "stop" | "start" | "restart" | "pause" | "resume" => {
            on_nodes(verb, rest, options, nodes)?
        }
        "partition" => partition(rest, options, nodes)?,
        verb if PARTITIONS.contains(&verb) => partition(&words, options, nodes)?,
        "link" => link(rest, options, nodes)?,
        "heal" => heal(rest, nodes)?,
        "disk" => ailments::disk(rest, options, nodes)?,
        "clock" => ailments::clock(rest, options, nodes)?,
        "drop" | "hold" => message::withhold(verb, rest, options, nodes)?,
        other => return Err(Wrong::unknown("deed", other, &VERBS)),
    };
    fitting(text, options, &deed.request)?;
    Ok(deed)
}

/// Takes `for 1s`, `style jam`, `as host` and `restart-after 1s` off the end of the words.
fn said_behind(words: &mut Vec<&str>, options: &Options) -> Result<Options, Wrong> {
    let mut all = options.clone();
    while let [.., key, value] = words[..] {
        let time = || Unit::Time.parse(value).map(Some).map_err(Wrong::new);
        match key {
            "for" => all.for_us = time()?,
            "restart-after" => all.restart_after_us = time()?,
            "style" => all.style = Some(value.to_owned()),
            "as" => all.as_ = Some(value.to_owned()),
            _ => break,
        }
        words.truncate(words.len() - 2);
    }
    Ok(all)
}

/// Refuses options that this request knows nothing of.
fn fitting(text: &str, options: &Options, request: &Request) -> Result<(), Wrong> {
    let is_kill = matches!(request, Request::Kill { .. });
    let is_partition = matches!(request, Request::Network(NetworkRequest::Partition(_)));
    let lasts = is_partition
        || matches!(
            request,
            Request::Pause { .. }
                | Request::Disk(_)
                | Request::Clock(_)
                | Request::Stop { .. }
                | Request::Withhold(_)
                | Request::Network(NetworkRequest::LinkSet { .. })
        );
    let strangers = [
        ("as", options.as_.is_some() && !is_kill),
        ("style", options.style.is_some() && !is_partition),
        ("for", options.for_us.is_some() && !lasts),
        (
            "restart_after",
            options.restart_after_us.is_some() && !is_kill,
        ),
    ];
    match strangers.iter().find(|(_, strange)| *strange) {
        Some((name, _)) => Err(Wrong::new(format!("{text:?} takes no {name:?}"))),
        None => Ok(()),
    }
}

/// Whole milliseconds, at least one where there is anything.
pub(super) fn millis(us: u64) -> u64 {
    us.div_ceil(1000)
}

/// Takes a word out, wherever it stands; whether it was there.
fn taken(words: &mut Vec<&str>, wanted: &str) -> bool {
    let before = words.len();
    words.retain(|word| *word != wanted);
    words.len() < before
}

fn on_nodes(verb: &str, rest: &[&str], options: &Options, count: u8) -> Result<Deed, Wrong> {
    let mut rest = rest.to_vec();
    let is_restart = verb == "restart";
    let rolling = is_restart && taken(&mut rest, "rolling");
    let hard = is_restart && taken(&mut rest, "hard");
    let (lose_unsynced, torn) = if verb == "kill" {
        power_cut(&mut rest)?
    } else {
        (false, false)
    };
    let mut as_ = options.as_.as_deref();
    if let [.., "as", way] = rest[..] {
        if verb != "kill" {
            return Err(Wrong::new(format!("{verb:?} takes no \"as\"")));
        }
        as_ = Some(way);
        rest.truncate(rest.len() - 2);
    }
    if rest.is_empty() {
        return Err(Wrong::new(format!("{verb:?} has no node"))
            .hint("n1, n2 … or a role: leader, followers, minority, all"));
    }
    let nodes = checked_nodes(&rest, count)?;
    let request = match verb {
        "kill" => kill(nodes, as_, options, (lose_unsynced, torn))?,
        "stop" => Request::Stop {
            nodes,
            for_ms: options.for_us.map(millis),
            wait: false,
        },
        "start" => Request::Start { nodes },
        "resume" => Request::Resume { nodes },
        "pause" => Request::Pause {
            nodes,
            for_ms: options.for_us.map(millis),
            wait: false,
        },
        _ => Request::Restart {
            nodes,
            rolling,
            hard,
            server: None,
        },
    };
    let lasts = options.for_us.or(options.restart_after_us).unwrap_or(0);
    let cuts_links = matches!(
        request,
        Request::Kill {
            death: Death::Host,
            ..
        }
    );
    let needs = Needs {
        links: cuts_links,
        disks: if lose_unsynced {
            Watch::Syncs
        } else {
            Watch::No
        },
        clocks: false,
    };
    Ok(Deed {
        request,
        needs,
        lasts_us: lasts,
    })
}

/// Takes the words of a power cut off the end: `lose-unsynced`, `torn`.
fn power_cut(words: &mut Vec<&str>) -> Result<(bool, bool), Wrong> {
    let (mut lose_unsynced, mut torn) = (false, false);
    while let Some(word @ ("lose-unsynced" | "torn")) = words.last().copied() {
        lose_unsynced |= word == "lose-unsynced";
        torn |= word == "torn";
        words.pop();
    }
    if torn && !lose_unsynced {
        return Err(Wrong::new(
            "\"torn\" says what is left of what \"lose-unsynced\" takes",
        ));
    }
    Ok((lose_unsynced, torn))
}

fn kill(
    nodes: Vec<String>,
    as_: Option<&str>,
    options: &Options,
    (lose_unsynced, torn): (bool, bool),
) -> Result<Request, Wrong> {
    let death = match as_ {
        None | Some("process") => Death::Process,
        Some("host") => Death::Host,
        Some(way) => {
            let known = ["process", "host"];
            return Err(Wrong::unknown("way to kill", way, &known));
        }
    };
    Ok(Request::Kill {
        nodes,
        signal: Signal::SIGKILL as i32,
        restart_after_ms: options.restart_after_us.map(millis),
        lose_unsynced,
        torn,
        death,
        wait: false,
    })
}

impl Wrong {
    pub(super) fn hint(mut self, hint: &str) -> Self {
        self.hint = Some(hint.to_owned());
        self
    }
}

/// Words that name nodes of a lab of `count` nodes.
pub(super) fn checked_nodes(words: &[&str], count: u8) -> Result<Vec<String>, Wrong> {
    for word in words.iter().flat_map(|word| word.split(',')) {
        checked_node(word.trim(), count)?;
    }
    Ok(words.iter().map(|word| (*word).to_owned()).collect())
}

fn checked_node(word: &str, count: u8) -> Result<(), Wrong> {
    let is_there = match word.parse::<NodeId>() {
        Ok(id) => id.0 <= count,
        Err(_) => select::is_node_word(word),
    };
    if is_there {
        return Ok(());
    }
    let names: Vec<String> = (1..=count).map(|number| format!("n{number}")).collect();
    let known: Vec<&str> = names
        .iter()
        .map(String::as_str)
        .chain(select::ROLES)
        .collect();
    Err(Wrong::unknown("node", word, &known))
}

/// Words that name links.
fn checked_links(words: &[&str], count: u8) -> Result<Vec<String>, Wrong> {
    for word in words {
        for end in word.split([':', '>', ',']) {
            checked_node(end.trim(), count)?;
        }
    }
    Ok(words.iter().map(|word| (*word).to_owned()).collect())
}

fn style(options: &Options) -> Result<Style, Wrong> {
    options
        .style
        .as_deref()
        .map_or(Ok(Style::Drop), network::style)
        .map_err(Wrong::new)
}

fn partition(words: &[&str], options: &Options, count: u8) -> Result<Deed, Wrong> {
    let (words, clients) = match words {
        [words @ .., "clients", "include"] => (words, Clients::Include),
        [words @ .., "clients", "exclude"] => (words, Clients::Exclude),
        [.., "clients", word] => {
            let known = ["include", "exclude"];
            return Err(Wrong::unknown("way with clients", word, &known));
        }
        words => (words, Clients::Between),
    };
    let (words, period_ms) = match words {
        [words @ .., "period", time] if words.first() == Some(&"flap") => {
            let us = Unit::Time.parse(time).map_err(Wrong::new)?;
            (words, Some(millis(us)))
        }
        words => (words, None),
    };
    let Some((kind, rest)) = words.split_first() else {
        return Err(Wrong::new("a partition has no kind").hint(
            "majority, minority, halves, isolate NODE, leader, bridge, ring, one-way A>B, flap NODE",
        ));
    };
    match (*kind, rest) {
        ("isolate", [_, ..]) => drop(checked_nodes(rest, count)?),
        ("one-way", [link]) if link.contains('>') => drop(checked_links(rest, count)?),
        ("flap", [link]) => drop(checked_links(&[*link], count)?),
        ("flap", _) => {
            return Err(Wrong::new("\"flap\" names no node and no link").hint("flap n1 period 1s"));
        }
        ("isolate", []) => return Err(Wrong::new("\"isolate\" has no node")),
        ("one-way", _) => {
            return Err(Wrong::new("\"one-way\" has no direction").hint("one-way leader>n2"));
        }
        ("majority" | "minority" | "halves" | "leader" | "bridge" | "ring", []) => {}
        ("majority" | "minority" | "halves" | "leader" | "bridge" | "ring", [word, ..]) => {
            return Err(Wrong::new(format!("{kind:?} takes no {word:?}")));
        }
        _ => return Err(Wrong::unknown("partition", kind, &PARTITIONS)),
    }
    let request = PartitionRequest {
        words: words.iter().map(|word| (*word).to_owned()).collect(),
        style: style(options)?,
        clients,
        period_ms,
        for_ms: options.for_us.map(millis),
        wait: false,
    };
    Ok(Deed {
        request: Request::Network(NetworkRequest::Partition(request)),
        needs: Needs::links(),
        lasts_us: options.for_us.unwrap_or(0),
    })
}

fn link(words: &[&str], options: &Options, count: u8) -> Result<Deed, Wrong> {
    let words = words.strip_prefix(&["set"]).unwrap_or(words);
    if let Some(links) = words.strip_prefix(&["reset"]) {
        let links = if links.is_empty() { &["all"] } else { links };
        let links = checked_links(links, count)?;
        return Ok(Deed {
            request: Request::Network(NetworkRequest::LinkReset { links }),
            needs: Needs::links(),
            lasts_us: 0,
        });
    }
    let first = words.iter().position(|word| LINK_KEYS.contains(word));
    let (links, settings) = words.split_at(first.unwrap_or(words.len()));
    let links = checked_links(links, count)?;
    if links.is_empty() {
        return Err(Wrong::new("\"link\" names no link").hint("link n1:n2 delay 20ms loss 1%"));
    }
    let (profile, settings) = match settings {
        ["profile", name, rest @ ..] => {
            let found = Profile::open(name).map_err(|failure| Wrong::new(failure.cause))?;
            (Some(Box::new(found)), rest)
        }
        settings => (None, settings),
    };
    let change = link_change(settings)?;
    if change.is_empty() && profile.is_none() {
        return Err(Wrong::new("\"link\" changes nothing").hint("link n1:n2 delay 20ms loss 1%"));
    }
    Ok(Deed {
        request: Request::Network(NetworkRequest::LinkSet {
            links,
            change,
            profile,
            trace: None,
            for_ms: options.for_us.map(millis),
            wait: false,
        }),
        needs: Needs::links(),
        lasts_us: options.for_us.unwrap_or(0),
    })
}

/// `delay 20ms loss 1%`.
fn link_change(words: &[&str]) -> Result<LinkChange, Wrong> {
    let mut change = LinkChange::default();
    for pair in words.chunks(2) {
        let [key, value] = pair else {
            return Err(Wrong::new(format!("{:?} has no value", pair[0])));
        };
        let time = || Unit::Time.parse(value).map(Some).map_err(Wrong::new);
        let chance = || change::chance(value).map(Some).map_err(Wrong::new);
        match *key {
            "delay" => change.delay_us = time()?,
            "jitter" => change.jitter_us = time()?,
            "loss" => change.loss = chance()?,
            "dup" => change.duplicate = chance()?,
            "reorder" => change.reorder = chance()?,
            "corrupt" => change.corrupt = chance()?,
            "burst" => change.burst = Some(change::burst(value).map_err(Wrong::new)?),
            "rate" => change.rate_bps = Some(change::rate(value).map_err(Wrong::new)?),
            "queue" => change.queue_bytes = Some(change::size(value).map_err(Wrong::new)?),
            other => return Err(Wrong::unknown("setting of a link", other, &LINK_KEYS)),
        }
    }
    Ok(change)
}

fn heal(words: &[&str], count: u8) -> Result<Deed, Wrong> {
    let (what, core) = match words {
        [] | ["all"] => (None, Vec::new()),
        ["core", nodes @ ..] if !nodes.is_empty() => {
            let split: Vec<&str> = nodes.iter().flat_map(|word| word.split(',')).collect();
            (None, checked_nodes(&split, count)?)
        }
        [id] => (Some((*id).to_owned()), Vec::new()),
        _ => {
            return Err(Wrong::new(
                "\"heal\" takes all, net, proc, disk, clock, one fault, or core n1,n2,n3",
            ));
        }
    };
    let needs = match what.as_deref() {
        Some("net") => Needs::links(),
        _ => Needs::default(),
    };
    Ok(Deed {
        request: Request::Network(NetworkRequest::Heal {
            what,
            core,
            wait: false,
        }),
        needs,
        lasts_us: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str, options: &Options) -> String {
        parse(text, options, 5).unwrap_err().cause
    }

    fn json(text: &str) -> String {
        let deed = parse(text, &Options::default(), 5).unwrap();
        serde_json::to_string(&deed.request).unwrap()
    }

    #[test]
    fn a_step_becomes_the_request_of_the_command() {
        assert_eq!(json("kill leader"), json("kill leader as process"),);
        assert_eq!(json("isolate n2"), json("partition isolate n2"));
        assert!(json("restart all rolling").contains("\"rolling\":true"));
        assert!(json("link n1:n2 delay 20ms loss 1%").contains("\"delay_us\":20000"));
        assert!(json("heal core n1,n2").contains("\"core\":[\"n1\",\"n2\"]"));
        assert!(json("link reset").contains("\"all\""));
        assert!(json("pause leader for 2s").contains("\"for_ms\":2000"));
        assert!(json("isolate n1 style jam for 1s").contains("\"style\":\"jam\""));
    }

    #[test]
    fn slips_are_named_with_the_nearest_right_word() {
        let none = Options::default();
        assert_eq!(
            wrong("kil leader", &none),
            "unknown deed \"kil\"; did you mean kill?"
        );
        assert_eq!(
            wrong("kill n9", &none),
            "unknown node \"n9\"; did you mean n1?"
        );
        assert_eq!(
            wrong("pause leadr", &none),
            "unknown node \"leadr\"; did you mean leader?"
        );
        assert_eq!(
            wrong("partition brigde", &none),
            "unknown partition \"brigde\"; did you mean bridge?"
        );
        assert_eq!(wrong("link n1:n2 delay", &none), "\"delay\" has no value");
        assert_eq!(wrong("kill", &none), "\"kill\" has no node");
        assert_eq!(wrong("", &none), "a step has nothing to do");
        for text in [
            "ring n2",
            "one-way n1",
            "isolate",
            "link n1:n2",
            "heal a b",
            "partition",
        ] {
            assert!(parse(text, &none, 5).is_err(), "{text}");
        }
        let lasting = Options {
            for_us: Some(1000),
            ..none
        };
        assert_eq!(wrong("kill n1", &lasting), "\"kill n1\" takes no \"for\"");
    }
}
