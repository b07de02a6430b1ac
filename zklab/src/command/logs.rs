//! `logs`: what the servers write.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::thread::sleep;
use std::time::Duration;

use super::Context;
use crate::cli::LogsArgs;
use crate::failure::{Exit, Failure, nearest};
use crate::id::NodeId;
use crate::supervisor::protocol::{Info, InfoNode, Request};

/// How often a growing log is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// One log and how far it was read.
#[derive(Debug)]
struct Log {
    id: NodeId,
    file: std::path::PathBuf,
    read: u64,
    /// The beginning of a line whose end is not written yet.
    partial: String,
}

pub(super) fn run(context: &Context, args: &LogsArgs) -> Result<Exit, Failure> {
    let info: Info = context.ask(&Request::Info)?;
    let mut logs: Vec<Log> = chosen(&info, &args.nodes)?
        .into_iter()
        .map(|node| Log {
            id: node.id,
            file: node.log.clone(),
            read: 0,
            partial: String::new(),
        })
        .collect();
    let wanted = |line: &str| args.grep.as_ref().is_none_or(|text| line.contains(text));
    let mut lines: Vec<(NodeId, Vec<String>)> = Vec::new();
    for log in &mut logs {
        let mut new: Vec<String> = log.new_lines();
        new.retain(|line| wanted(line));
        if let Some(count) = args.lines {
            new.drain(..new.len().saturating_sub(count));
        }
        lines.push((log.id, new));
    }
    let alone = logs.len() == 1;
    if args.merge {
        for (id, line) in merged(lines) {
            show(context, id, &line, alone);
        }
    } else {
        for (id, line) in lines
            .into_iter()
            .flat_map(|(id, l)| l.into_iter().map(move |l| (id, l)))
        {
            show(context, id, &line, alone);
        }
    }
    if !args.follow {
        return Ok(Exit::Ok);
    }
    while logs.iter().any(|log| log.file.exists()) {
        sleep(LOOK_AGAIN);
        for log in &mut logs {
            for line in log.new_lines().iter().filter(|line| wanted(line)) {
                show(context, log.id, line, alone);
            }
        }
    }
    context.out.doing("the lab has ended");
    Ok(Exit::Ok)
}

fn show(context: &Context, id: NodeId, line: &str, alone: bool) {
    let out = &context.out;
    out.json(&serde_json::json!({ "v": 1, "node": id, "line": line }));
    if alone {
        out.line(line);
    } else {
        out.line(&format!("{} {line}", out.paint.bold(&format!("{id:<3}"))));
    }
}

impl Log {
    /// The whole lines written since the last look; a log that is not there has none.
    fn new_lines(&mut self) -> Vec<String> {
        let mut bytes = Vec::new();
        if let Ok(mut file) = File::open(&self.file)
            && file.seek(SeekFrom::Start(self.read)).is_ok()
            && let Ok(count) = file.read_to_end(&mut bytes)
        {
            self.read += count as u64;
        }
        self.partial.push_str(&String::from_utf8_lossy(&bytes));
        let Some(end) = self.partial.rfind('\n') else {
            return Vec::new();
        };
        let rest = self.partial.split_off(end + 1);
        let whole = std::mem::replace(&mut self.partial, rest);
        whole.lines().map(str::to_owned).collect()
    }
}

/// All lines by the time they begin with. A line without one belongs to the line before it.
fn merged(logs: Vec<(NodeId, Vec<String>)>) -> Vec<(NodeId, String)> {
    let mut timed: Vec<(String, NodeId, String)> = Vec::new();
    for (id, lines) in logs {
        let mut time = String::new();
        for line in lines {
            let first = line.split_whitespace().next().unwrap_or_default();
            if first.starts_with(|c: char| c.is_ascii_digit()) {
                first.clone_into(&mut time);
            }
            timed.push((time.clone(), id, line));
        }
    }
    timed.sort_by(|a, b| a.0.cmp(&b.0));
    timed.into_iter().map(|(_, id, line)| (id, line)).collect()
}

/// The nodes named, or all.
pub(super) fn chosen<'a>(info: &'a Info, words: &[String]) -> Result<Vec<&'a InfoNode>, Failure> {
    if words.is_empty() {
        return Ok(info.nodes.iter().collect());
    }
    let mut chosen: Vec<&InfoNode> = Vec::new();
    for word in words.iter().flat_map(|word| word.split(',')) {
        let found: Vec<&InfoNode> = info
            .nodes
            .iter()
            .filter(|node| match word {
                "all" => true,
                "leader" => node.leads,
                "not-leader" => !node.leads,
                _ => node.id.to_string() == word,
            })
            .collect();
        if found.is_empty() {
            return Err(unknown(info, word));
        }
        chosen.extend(found);
    }
    Ok(chosen)
}

fn unknown(info: &Info, word: &str) -> Failure {
    let names: Vec<String> = info.nodes.iter().map(|node| node.id.to_string()).collect();
    let known = names
        .iter()
        .map(String::as_str)
        .chain(["leader", "not-leader", "all"]);
    let guess = nearest(word, known)
        .map(|word| format!("; did you mean {word}?"))
        .unwrap_or_default();
    Failure::usage(format!("lab {} has no node {word:?} now{guess}", info.lab)).hint(format!(
        "its nodes are {}; leader, not-leader and all work too",
        names.join(" ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_lines_keep_what_belongs_together() {
        let lines = |text: &[&str]| text.iter().map(|line| (*line).to_owned()).collect();
        let merged = merged(vec![
            (
                NodeId(1),
                lines(&["2026-01-01T00:00:01 a", "  at b", "2026-01-01T00:00:03 c"]),
            ),
            (NodeId(2), lines(&["2026-01-01T00:00:02 d"])),
        ]);
        let order: Vec<&str> = merged.iter().map(|(_, line)| line.as_str()).collect();
        assert_eq!(
            order,
            [
                "2026-01-01T00:00:01 a",
                "  at b",
                "2026-01-01T00:00:02 d",
                "2026-01-01T00:00:03 c"
            ]
        );
    }
}
