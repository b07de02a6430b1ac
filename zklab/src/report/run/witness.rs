//! The operations that prove a verdict, as people read them.

use std::collections::HashSet;

use serde_json::Value;
use zkd::error::ErrorCode;
use zkd::ids::SessionId;

use super::folder::RunJson;
use super::load::Load;

/// One line of a proof.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// `op 8812`, or the kind of an event.
    pub name: String,
    /// `client 3`, or the node of an event.
    pub who: String,
    /// The server that was asked, where that is known.
    pub server: String,
    /// The session, as hexadecimal digits.
    pub session: String,
    /// What was asked.
    pub asked: String,
    /// What was answered.
    pub answer: String,
    /// The zxid in the answer.
    pub zxid: String,
    /// When it was sent, in microseconds since the start of the lab.
    pub from_us: Option<u64>,
    /// When it was answered.
    pub to_us: Option<u64>,
}

impl Proof {
    /// Of an object as it stands in `history.ndjson` or `events.ndjson`.
    #[must_use]
    pub fn of(value: &Value, lab_start_us: u64, load: &Load) -> Self {
        let since_start = |key: &str| {
            let at = value[key].as_u64()?;
            Some(at.saturating_sub(lab_start_us))
        };
        if let Value::String(text) = value {
            return Self {
                asked: text.clone(),
                ..Self::default()
            };
        }
        let word = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let client = value["c"].as_u64();
        let who = client.map_or_else(|| word("node"), |number| format!("client {number}"));
        let session = session_of(&word("s"));
        let conn = value["conn"]
            .as_u64()
            .and_then(|conn| u32::try_from(conn).ok());
        let server = session
            .zip(conn)
            .and_then(|(session, conn)| load.node(session, conn))
            .filter(|node| !node.is_empty())
            .map_or_else(|| maker(&load.foreign, session, client), ToOwned::to_owned);
        let session = word("s");
        match value["k"].as_str() {
            Some("op") => Self {
                name: format!("op {}", value["id"]),
                who,
                server,
                session,
                asked: asked(value),
                answer: answer(value),
                zxid: word("z"),
                from_us: since_start("t0"),
                to_us: since_start("t1"),
            },
            Some("event") => Self {
                name: "watch event".to_owned(),
                who,
                server,
                session,
                asked: format!("{} {}", word("ev"), word("path")),
                zxid: word("z"),
                from_us: since_start("at"),
                to_us: since_start("at"),
                ..Self::default()
            },
            _ => Self::of_state(value, &who)
                .unwrap_or_else(|| Self::of_other(value, who, server, since_start("at"))),
        }
    }

    /// Of what was found on a server, or at the end.
    fn of_state(value: &Value, who: &str) -> Option<Self> {
        let word = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        Some(match value["k"].as_str()? {
            "final" => Self {
                name: "end state".to_owned(),
                asked: word("path"),
                answer: state(value).join(", "),
                zxid: word("z"),
                ..Self::default()
            },
            "znode" => Self {
                name: "its tree".to_owned(),
                who: who.to_owned(),
                asked: word("path"),
                answer: word("differs"),
                zxid: word("z"),
                ..Self::default()
            },
            "txn" => Self {
                name: "in its log".to_owned(),
                who: who.to_owned(),
                asked: word("txn"),
                answer: asked_by(value),
                zxid: word("z"),
                ..Self::default()
            },
            _ => return None,
        })
    }

    /// Of an event of the lab, or of whatever else a checker may show.
    fn of_other(value: &Value, who: String, server: String, at_us: Option<u64>) -> Self {
        const TOLD: [&str; 12] = [
            "v", "k", "c", "s", "conn", "seq", "t_us", "at", "lab", "node", "src", "kind",
        ];
        let name = value["kind"].as_str().or(value["k"].as_str());
        let rest = value.as_object().into_iter().flatten();
        let rest: Vec<String> = rest
            .filter(|(key, _)| !TOLD.contains(&key.as_str()))
            .map(|(key, value)| match value {
                Value::String(text) => format!("{key} {text}"),
                value => format!("{key} {value}"),
            })
            .collect();
        let at_us = value["t_us"].as_u64().or(at_us);
        Self {
            name: name.unwrap_or_default().to_owned(),
            who,
            server,
            asked: rest.join(", "),
            from_us: at_us,
            to_us: at_us,
            ..Self::default()
        }
    }

    /// All of it in one line.
    #[must_use]
    pub fn line(&self) -> String {
        let mut parts = vec![self.name.clone(), self.who.clone()];
        if !self.server.is_empty() {
            parts.push(format!("at {}", self.server));
        }
        parts.push(self.asked.clone());
        if !self.answer.is_empty() {
            parts.push(format!("→ {}", self.answer));
        }
        if !self.zxid.is_empty() {
            parts.push(format!("zxid {}", self.zxid));
        }
        let span = self.span();
        if !span.is_empty() {
            parts.push(format!("({span})"));
        }
        parts.retain(|part| !part.is_empty());
        parts.join("  ")
    }

    /// When it was.
    #[must_use]
    pub fn span(&self) -> String {
        match (self.from_us, self.to_us) {
            (Some(from), Some(to)) if from == to => format!("{} s", seconds(from)),
            (Some(from), Some(to)) => format!("{} – {} s", seconds(from), seconds(to)),
            (Some(from), None) => format!("from {} s, never answered", seconds(from)),
            _ => String::new(),
        }
    }
}

/// The proof of a run's verdict: that of the check that explains it, or else the writes it speaks of.
#[must_use]
pub(super) fn of_run(run: &RunJson, load: &Load) -> Vec<Proof> {
    let witness = run.failed_check().map(|check| check.witness.as_slice());
    let witness = match witness {
        Some([]) | None => &load.named,
        Some(witness) => witness,
    };
    witness
        .iter()
        .map(|value| Proof::of(value, run.lab_start_us, load))
        .collect()
}

/// Microseconds as seconds: `4.118233`.
#[must_use]
pub(super) fn seconds(us: u64) -> String {
    format!("{}.{:06}", us / 1_000_000, us % 1_000_000)
}

pub(super) fn session_of(text: &str) -> Option<SessionId> {
    let bits = u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()?;
    Some(SessionId(bits.cast_signed()))
}

fn asked(op: &Value) -> String {
    let mut parts = Vec::new();
    for (key, word) in [("seq", "sequential"), ("eph", "ephemeral")] {
        if op[key] == true {
            parts.push(word.to_owned());
        }
    }
    parts.extend(op["op"].as_str().map(|word| deed(word).to_owned()));
    parts.extend(op["path"].as_str().map(ToOwned::to_owned));
    for part in op["parts"].as_array().into_iter().flatten() {
        let word = |key: &str| part[key].as_str().unwrap_or_default().to_owned();
        parts.push(format!("{} {}", word("op"), word("path")));
    }
    if op["watch"] == true {
        parts.push("with a watch".to_owned());
    }
    if let Some(version) = op["exp"].as_i64() {
        parts.push(format!("if version {version}"));
    }
    parts.join(" ")
}

fn answer(op: &Value) -> String {
    let mut parts = vec![match op["out"].as_str() {
        Some("ok") => "ok".to_owned(),
        Some("failed") => {
            let code = op["code"]
                .as_i64()
                .and_then(|code| i32::try_from(code).ok());
            let known = code.and_then(ErrorCode::from_code);
            known.map_or_else(
                || format!("refused ({})", op["code"]),
                |code| code.to_string(),
            )
        }
        Some("unknown") => "never answered".to_owned(),
        other => other.unwrap_or_default().to_owned(),
    }];
    if let Some(made) = op["made"].as_str() {
        parts.push(format!("made {made}"));
    }
    parts.extend(state(op));
    parts.retain(|part| !part.is_empty());
    parts.join(", ")
}

/// An operation's word in a history as a sentence would say it.
fn deed(word: &str) -> &str {
    match word {
        "persistent" => "add a persistent watch on",
        "recursive" => "add a persistent recursive watch on",
        "rewatch" => "leave its watches again:",
        "close" => "close its session",
        word => word,
    }
}

/// Of a client that does not tell which server it is connected with: the one that made its session, which the session's
/// first byte names.
fn maker(foreign: &HashSet<u64>, session: Option<SessionId>, client: Option<u64>) -> String {
    let is_foreign = client.is_some_and(|client| foreign.contains(&client));
    let sid = session.map_or(0, |session| session.0.cast_unsigned() >> 56);
    if is_foreign && (1..=250).contains(&sid) {
        format!("any (session made at n{sid})")
    } else {
        String::new()
    }
}

/// Whose request a logged txn was.
fn asked_by(txn: &Value) -> String {
    let mut parts = Vec::new();
    for (key, word) in [
        ("s", "session"),
        ("xid", "request"),
        ("digest", "leaves digest"),
    ] {
        match &txn[key] {
            Value::Null => {}
            Value::String(text) => parts.push(format!("{word} {text}")),
            value => parts.push(format!("{word} {value}")),
        }
    }
    parts.join(", ")
}

/// What was told of a znode.
fn state(value: &Value) -> Vec<String> {
    let mut parts = Vec::new();
    let reads = matches!(value["op"].as_str(), Some("get") | None);
    if let Some(writer) = value["val"].as_u64().filter(|_| reads) {
        parts.push(format!("value of op {writer}"));
    }
    if let Some(version) = value["ver"].as_i64() {
        parts.push(format!("version {version}"));
    }
    for (key, word) in [("mz", "changed at"), ("owner", "owner")] {
        if let Some(text) = value[key].as_str() {
            parts.push(format!("{word} {text}"));
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_proof_reads_like_a_sentence() {
        let op = json!({"k": "op", "id": 9, "c": 1, "s": "0x100", "conn": 1, "op": "get", "path": "/r/1",
            "t0": 1_000_130, "t1": 1_200_145, "out": "ok", "z": "0x100000012", "ver": 5, "val": 7,
            "mz": "0x100000011"});
        assert_eq!(
            Proof::of(&op, 1_000_000, &Load::default()).line(),
            "op 9  client 1  get /r/1  → ok, value of op 7, version 5, changed at 0x100000011  \
             zxid 0x100000012  (0.000130 – 0.200145 s)"
        );
        let op = json!({"k": "op", "id": 3, "c": 2, "op": "delete", "path": "/r/1", "t0": 50, "out": "unknown"});
        assert_eq!(
            Proof::of(&op, 0, &Load::default()).line(),
            "op 3  client 2  delete /r/1  → never answered  (from 0.000050 s, never answered)"
        );
        let txn = json!({"k": "txn", "node": "n3", "z": "0x7", "txn": "delete /a", "s": "0x100", "xid": 9});
        assert_eq!(
            Proof::of(&txn, 0, &Load::default()).line(),
            "in its log  n3  delete /a  → session 0x100, request 9  zxid 0x7"
        );
        let event = json!({"v": 1, "t_us": 5, "node": "n3", "kind": "digest", "value": "9c41"});
        assert_eq!(
            Proof::of(&event, 7, &Load::default()).line(),
            "digest  n3  value 9c41  (0.000005 s)"
        );
    }
}
