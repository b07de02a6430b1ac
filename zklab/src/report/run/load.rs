//! What the clients did over time: a history of any length, folded into a few hundred columns.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde_json::Value;
use zkd::ids::{SessionId, Zxid};

use crate::observe::history::{Line, MarkLine, OpLine, Outcome};

/// So many writes that the verdict speaks of are kept.
const NAMED_MAX: usize = 4;

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Ok,
    Refused,
    Unknown,
}

/// An operation, as far as plots need it.
#[derive(Clone, Copy, Debug)]
struct Point {
    /// When it was answered, or sent if it never was; since the start of the lab.
    at_us: u64,
    took_us: u64,
    end: End,
}

/// A history, as far as plots need it. Times are in microseconds since the start of the lab.
#[derive(Clone, Debug, Default)]
pub struct Load {
    points: Vec<Point>,
    /// When writes were acknowledged.
    acks_us: Vec<u64>,
    /// Connections that ended.
    pub lost_us: Vec<u64>,
    /// Sessions that ended because the servers said so.
    pub expired_us: Vec<u64>,
    /// The node of every connection.
    nodes: HashMap<(SessionId, u32), String>,
    /// Clients whose server is not known: their library chooses it.
    pub(super) foreign: HashSet<u64>,
    /// The writes that the verdict speaks of by their zxid, as they stand in the file.
    pub named: Vec<Value>,
}

/// Some of the time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Column {
    /// Operations with a good answer.
    pub ok: u64,
    /// Operations that were refused.
    pub refused: u64,
    /// Operations that were never answered.
    pub unknown: u64,
    /// Median of the time to an answer.
    pub p50_us: Option<u64>,
    /// Its 99th percentile.
    pub p99_us: Option<u64>,
}

/// A time without an acknowledged write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The last acknowledgement before.
    pub from_us: u64,
    /// The first after.
    pub to_us: u64,
}

impl Gap {
    /// How long it was.
    #[must_use]
    pub fn length_us(self) -> u64 {
        self.to_us - self.from_us
    }
}

impl Load {
    /// Reads a history whose clock says `lab_start_us` where the events count 0, and keeps the writes with one of
    /// these zxids.
    pub(super) fn read(
        path: &Path,
        lab_start_us: u64,
        wanted: &HashSet<Zxid>,
        notes: &mut Vec<String>,
    ) -> Self {
        let mut load = Self::default();
        let Ok(file) = File::open(path) else {
            notes.push("history.ndjson is not in the folder: there is nothing to plot".to_owned());
            return load;
        };
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let mut names = HashMap::new();
        let mut line = Vec::with_capacity(512);
        let (mut number, mut wrong) = (0_u64, 0_u64);
        loop {
            line.clear();
            match reader.read_until(b'\n', &mut line) {
                Ok(0) => break,
                Ok(_) => number += 1,
                Err(_) => {
                    notes.push("history.ndjson could only be read in part".to_owned());
                    break;
                }
            }
            if number == 1 {
                names = servers(&line);
                continue;
            }
            match Line::decode(&line) {
                Ok(Some(told)) => {
                    load.take(&told, lab_start_us, &names);
                    if let Line::Op(op) = told
                        && op.kind.is_write()
                        && wanted.contains(&op.zxid)
                        && load.named.len() < NAMED_MAX
                    {
                        load.named.extend(serde_json::from_slice(&line).ok());
                    }
                }
                Ok(None) => {}
                // The last line may be cut off.
                Err(_) if line.last() != Some(&b'\n') => {}
                Err(_) => wrong += 1,
            }
        }
        if wrong > 0 {
            notes.push(format!(
                "history.ndjson has {wrong} lines that are not understood"
            ));
        }
        load.acks_us.sort_unstable();
        load
    }

    fn take(&mut self, line: &Line<'_>, start_us: u64, names: &HashMap<String, String>) {
        match line {
            Line::Op(op) => self.take_op(op, start_us),
            Line::Open(MarkLine {
                session,
                conn,
                node,
                client,
                ..
            }) => {
                if node.is_empty() {
                    self.foreign.insert(u64::from(*client));
                }
                let name = names.get(*node).cloned();
                let name = name.unwrap_or_else(|| node_of(node));
                self.nodes.insert((*session, *conn), name);
            }
            Line::Lost(mark) => self.lost_us.push(mark.at.saturating_sub(start_us)),
            Line::Expired(mark) => self.expired_us.push(mark.at.saturating_sub(start_us)),
            Line::Event(_) | Line::Final(_) | Line::End { .. } => {}
        }
    }

    fn take_op(&mut self, op: &OpLine<'_>, start_us: u64) {
        let (at, end) = match op.outcome {
            Outcome::Ok => (op.t1, End::Ok),
            Outcome::Failed(_) => (op.t1, End::Refused),
            Outcome::Unknown => (op.t0, End::Unknown),
        };
        let at_us = at.saturating_sub(start_us);
        if op.kind.is_write() && end == End::Ok {
            self.acks_us.push(at_us);
        }
        self.points.push(Point {
            at_us,
            took_us: at.saturating_sub(op.t0),
            end,
        });
    }

    /// One in which these sessions had these connections.
    #[cfg(test)]
    pub(super) fn connected(connections: &[(i64, u32, &str)]) -> Self {
        let nodes = connections
            .iter()
            .map(|(session, conn, node)| ((SessionId(*session), *conn), (*node).to_owned()));
        Self {
            nodes: nodes.collect(),
            ..Self::default()
        }
    }

    /// Is there anything?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    /// How many operations there are.
    #[must_use]
    pub fn op_count(&self) -> usize {
        self.points.len()
    }

    /// The last time at which anything was answered or sent.
    #[must_use]
    pub fn end_us(&self) -> u64 {
        let last = self.points.iter().map(|point| point.at_us).max();
        last.unwrap_or_default()
    }

    /// The node that a session was connected with.
    #[must_use]
    pub fn node(&self, session: SessionId, conn: u32) -> Option<&str> {
        self.nodes.get(&(session, conn)).map(String::as_str)
    }

    /// Folds everything before `end_us` into columns of `width_us`.
    #[must_use]
    pub fn columns(&self, width_us: u64, end_us: u64) -> Vec<Column> {
        let width_us = width_us.max(1);
        let len = usize::try_from(end_us / width_us + 1).unwrap_or(1);
        let mut columns = vec![Column::default(); len];
        let mut times: Vec<Vec<u64>> = vec![Vec::new(); len];
        for point in &self.points {
            let at = usize::try_from(point.at_us / width_us).unwrap_or(usize::MAX);
            let Some(column) = columns.get_mut(at) else {
                continue;
            };
            match point.end {
                End::Ok => column.ok += 1,
                End::Refused => column.refused += 1,
                End::Unknown => column.unknown += 1,
            }
            if point.end != End::Unknown {
                times[at].push(point.took_us);
            }
        }
        for (column, times) in columns.iter_mut().zip(&mut times) {
            times.sort_unstable();
            let rank = |percent: usize| {
                let rank = (times.len() * percent).div_ceil(100);
                times.get(rank.saturating_sub(1)).copied()
            };
            (column.p50_us, column.p99_us) = (rank(50), rank(99));
        }
        columns
    }

    /// The longest times without an acknowledged write, of at least `min_us`; in the order of time.
    #[must_use]
    pub fn gaps(&self, min_us: u64, max_count: usize) -> Vec<Gap> {
        let mut gaps: Vec<Gap> = self
            .acks_us
            .windows(2)
            .map(|pair| Gap {
                from_us: pair[0],
                to_us: pair[1],
            })
            .filter(|gap| gap.length_us() >= min_us)
            .collect();
        gaps.sort_by_key(|gap| std::cmp::Reverse(gap.length_us()));
        gaps.truncate(max_count);
        gaps.sort_by_key(|gap| gap.from_us);
        gaps
    }
}

/// The nodes of the addresses in the first line: they stand there in the order of the nodes.
fn servers(line: &[u8]) -> HashMap<String, String> {
    let header: Value = serde_json::from_slice(line).unwrap_or_default();
    let addresses = header["servers"].as_array().into_iter().flatten();
    addresses
        .enumerate()
        .filter_map(|(index, address)| {
            Some((address.as_str()?.to_owned(), format!("n{}", index + 1)))
        })
        .collect()
}

/// A lab numbers its nodes by the last part of their address.
fn node_of(address: &str) -> String {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    match host.rsplit_once('.') {
        Some((net, number)) if net != "127.0.0" => format!("n{number}"),
        _ => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(ops: &[(u64, u64, End)]) -> Load {
        let points = ops.iter().map(|&(t0, t1, end)| Point {
            at_us: t1,
            took_us: t1 - t0,
            end,
        });
        Load {
            points: points.collect(),
            acks_us: ops.iter().map(|op| op.1).collect(),
            ..Load::default()
        }
    }

    #[test]
    fn columns_count_and_rank() {
        let load = load(&[
            (0, 5, End::Ok),
            (1, 9, End::Refused),
            (12, 12, End::Unknown),
            (10, 25, End::Ok),
        ]);
        let columns = load.columns(10, 29);
        assert_eq!(columns.len(), 3);
        assert_eq!((columns[0].ok, columns[0].refused), (1, 1));
        assert_eq!((columns[0].p50_us, columns[0].p99_us), (Some(5), Some(8)));
        assert_eq!((columns[1].unknown, columns[1].p50_us), (1, None));
        assert_eq!(columns[2].p99_us, Some(15));
    }

    #[test]
    fn the_longest_gaps_are_told_in_the_order_of_time() {
        let load = load(&[
            (0, 0, End::Ok),
            (0, 50, End::Ok),
            (0, 60, End::Ok),
            (0, 160, End::Ok),
        ]);
        let lengths = |min, max| -> Vec<u64> {
            let gaps = load.gaps(min, max);
            gaps.iter().map(|gap| gap.length_us()).collect()
        };
        assert_eq!(lengths(20, 5), [50, 100]);
        assert_eq!(lengths(1, 1), [100]);
    }

    #[test]
    fn nodes_are_known_by_their_address() {
        assert_eq!(node_of("10.77.0.3:2181"), "n3");
        assert_eq!(node_of("127.0.4.2:2181"), "n2");
        assert_eq!(node_of("127.0.0.1:2181"), "127.0.0.1:2181");
        let names = servers(br#"{"k":"history","servers":["127.0.0.1:2181","127.0.0.1:2182"]}"#);
        assert_eq!(names["127.0.0.1:2182"], "n2");
    }
}
