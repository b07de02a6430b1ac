//! What the history says besides the proof: what else the clients in it did, and what they were told.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde_json::Value;

/// The lines of a history that have to do with a verdict, as they stand there.
#[derive(Clone, Debug, Default)]
pub(in crate::report::run) struct Trace {
    /// Watch events on the path or for the change, whoever got them.
    pub(in crate::report::run) events: Vec<Value>,
    /// Watch events on anything that the watch of the proof covers, over its connection.
    pub(in crate::report::run) told: Vec<Value>,
    /// Connections of the sessions that were opened, lost or over.
    pub(in crate::report::run) marks: Vec<Value>,
    /// The end states of the path.
    pub(in crate::report::run) finals: Vec<Value>,
    /// Operations on the path, whoever asked.
    pub(in crate::report::run) ops: Vec<Value>,
}

/// More lines of one kind say no more.
const LINES_MAX: usize = 4_000;

/// Does the watch that was left tell of this event, over the same connection?
fn covers(left: &Value, event: &Value) -> bool {
    let (Some(root), Some(path)) = (left["path"].as_str(), event["path"].as_str()) else {
        return false;
    };
    let is_below = path
        .strip_prefix(root)
        .is_some_and(|rest| rest.starts_with('/'));
    let is_meant = path == root || (is_below && left["op"] == "recursive");
    is_meant && left["s"] == event["s"] && left["conn"] == event["conn"]
}

impl Trace {
    /// Reads them: what is about this path, what became of these sessions, and what the watch that this operation left
    /// told, and who was told of the change with this zxid.
    pub(in crate::report::run) fn read(
        dir: &Path,
        path: &str,
        sessions: &[String],
        left: Option<(&Value, &str)>,
    ) -> Self {
        let mut trace = Self::default();
        let Ok(file) = File::open(dir.join("history.ndjson")) else {
            return trace;
        };
        let on_path = format!("\"path\":\"{path}\"");
        let of_change = left.map(|(_, zxid)| format!("\"z\":\"{zxid}\""));
        for line in BufReader::new(file).lines().map_while(Result::ok) {
            let kind = line.strip_prefix("{\"k\":\"").unwrap_or_default();
            let is_mark = ["open", "lost", "expired"]
                .iter()
                .any(|word| kind.starts_with(word));
            let is_of = |session: &String| line.contains(session.as_str());
            let is_meant = if is_mark {
                sessions.iter().any(is_of)
            } else if let Some(of_change) = of_change.as_ref().filter(|_| kind.starts_with("event"))
            {
                line.contains(&on_path) || line.contains(of_change) || sessions.iter().any(is_of)
            } else {
                !path.is_empty() && line.contains(&on_path)
            };
            if !is_meant {
                continue;
            }
            let Ok(value) = serde_json::from_str::<Value>(&line) else {
                continue;
            };
            if value["k"] == "event" && left.is_some_and(|(left, _)| covers(left, &value)) {
                trace.told.push(value.clone());
            }
            let list = match value["k"].as_str() {
                Some("event")
                    if value["path"] != path && left.is_none_or(|(_, zxid)| value["z"] != zxid) =>
                {
                    continue;
                }
                Some("event") => &mut trace.events,
                Some("final") => &mut trace.finals,
                Some("op") => &mut trace.ops,
                Some("open" | "lost" | "expired") => &mut trace.marks,
                _ => continue,
            };
            if list.len() < LINES_MAX {
                list.push(value);
            }
        }
        trace
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_watch_told_and_what_became_of_its_session_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let lines = [
            r#"{"k":"history","servers":[]}"#,
            r#"{"k":"open","c":5,"s":"0x30","conn":3,"at":1,"node":"n2"}"#,
            r#"{"k":"open","c":6,"s":"0x31","conn":1,"at":1,"node":"n2"}"#,
            r#"{"k":"event","c":5,"s":"0x30","conn":3,"ev":"created","path":"/e/1","z":"0x5"}"#,
            r#"{"k":"event","c":5,"s":"0x30","conn":2,"ev":"created","path":"/e/1","z":"0x5"}"#,
            r#"{"k":"event","c":5,"s":"0x30","conn":3,"ev":"created","path":"/ee","z":"0x6"}"#,
            r#"{"k":"event","c":6,"s":"0x31","conn":1,"ev":"created","path":"/e/0","z":"0x7"}"#,
            r#"{"k":"op","id":9,"c":6,"s":"0x31","op":"create","path":"/e/0","z":"0x7"}"#,
            r#"{"k":"final","path":"/e/0"}"#,
        ];
        std::fs::write(dir.path().join("history.ndjson"), lines.join("\n")).unwrap();
        let left = serde_json::json!({"op": "recursive", "path": "/e", "s": "0x30", "conn": 3});
        let trace = Trace::read(
            dir.path(),
            "/e/0",
            &["0x30".to_owned()],
            Some((&left, "0x5")),
        );
        let counts = (trace.told.len(), trace.events.len(), trace.marks.len());
        assert_eq!(
            (counts, trace.ops.len(), trace.finals.len()),
            ((1, 3, 1), 1, 1)
        );
        assert_eq!(
            (&trace.told[0]["z"], &trace.events[0]["c"]),
            (&"0x5".into(), &5.into())
        );
    }
}
