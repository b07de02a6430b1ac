//! The txn logs on disk: wherever two servers have a txn of one zxid, it is the same, and none has a hole that another
//! fills.
//!
//! Logs are compared record by record as decoded, never as bytes: a multi that failed carries the bytes of its
//! operations on the server that ordered it and not on one that got it in a DIFF, and digests are optional. A server
//! that was brought up by a snapshot begins later, and one that was killed ends earlier; both are allowed.
//!
//! A snapshot that a server got from its leader stands above the log that it had before: txns up to the snapshot may
//! be missing, and what the log holds of an earlier epoch than the snapshot's counts no more. An old leader whose last
//! proposals nobody else has may so get rid of them without touching its log, as Apache's does.

use std::fmt;
use std::path::Path;

use bytes::Bytes;
use zkd::error::ErrorCode;
use zkd::ids::{SessionId, Xid, Zxid};
use zkd::jute::Reader;
use zkd::record::opcode::OpCode;
use zkd::record::txn::{MultiOp, MultiTxn, Txn, TxnRecord};
use zkd::storage::{LogReader, RealDisk};

use crate::failure::Failure;

/// So much of a value is shown.
const VALUE_MAX: usize = 24;

/// One server's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSpan {
    /// The server, or its data directory.
    pub name: String,
    /// The txns in it.
    pub count: u64,
    /// The first.
    pub first: Option<Zxid>,
    /// The last.
    pub last: Option<Zxid>,
}

/// The result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogsVerdict {
    /// The servers.
    pub dirs: Vec<LogSpan>,
    /// How often a txn was compared with that of another server.
    pub compared: u64,
    /// Where they differ first.
    pub violation: Option<LogsViolation>,
}

/// Two logs that cannot both be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogsViolation {
    /// Where they differ.
    pub zxid: Zxid,
    /// How, in a sentence.
    pub what: String,
    /// The two txns that prove it, the one that most others contradict last.
    pub proof: [LoggedTxn; 2],
}

/// A txn in the log of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedTxn {
    /// The server, or its data directory.
    pub log: String,
    /// Where it is.
    pub zxid: Zxid,
    /// What it does, as people say it.
    pub what: String,
    /// The session whose request it was.
    pub session: SessionId,
    /// The number of that request.
    pub request: Xid,
    /// When its leader took it up, in milliseconds of the wall clock.
    pub time_ms: i64,
    /// The digest of the tree that it leaves, where the log has it.
    pub digest: Option<i64>,
}

impl LoggedTxn {
    fn of(log: &Log, record: &TxnRecord) -> Self {
        Self {
            log: log.span.name.clone(),
            zxid: record.header.zxid,
            what: told(&record.txn),
            session: record.header.client_id,
            request: record.header.cxid,
            time_ms: record.header.time,
            digest: record.digest.as_ref().map(|digest| digest.tree_digest),
        }
    }
}

impl fmt::Display for LoggedTxn {
    /// `setData /a version 5, 3 bytes "abc" (session 0x…, request 48, time 17…)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (session, request, time) = (self.session, self.request.0, self.time_ms);
        write!(
            f,
            "{} (session {session}, request {request}, time {time}",
            self.what
        )?;
        match self.digest {
            Some(digest) => write!(f, ", digest {digest:x})"),
            None => f.write_str(")"),
        }
    }
}

/// A log that is being read.
struct Log {
    span: LogSpan,
    reader: LogReader<RealDisk>,
    next: Option<TxnRecord>,
    /// The last record was read by this.
    previous: Option<Zxid>,
    /// The snapshots beside it.
    snapshots: Vec<Zxid>,
}

impl Log {
    fn open(name: &str, dir: &Path) -> Result<Self, Failure> {
        let cannot = |error: &dyn fmt::Display| {
            Failure::usage(format!("cannot read the log in {}: {error}", dir.display()))
                .hint("the servers have to be down: `zklab down --keep-data`")
        };
        let disk = RealDisk::open(dir, dir, false).map_err(|error| cannot(&error))?;
        let reader = LogReader::new(&disk, Zxid::ZERO).map_err(|error| cannot(&error))?;
        let span = LogSpan {
            name: name.to_owned(),
            count: 0,
            first: None,
            last: None,
        };
        let mut log = Self {
            span,
            reader,
            next: None,
            previous: None,
            snapshots: snapshots(dir),
        };
        log.advance()?;
        Ok(log)
    }

    fn advance(&mut self) -> Result<(), Failure> {
        let wrong = |name: &str, error: &dyn fmt::Display| {
            Failure::usage(format!("the log of {name}: {error}"))
        };
        self.previous = self.next.as_ref().map(|record| record.header.zxid);
        let found = self
            .reader
            .next_record()
            .map_err(|error| wrong(&self.span.name, &error))?;
        self.next = match found {
            None => None,
            Some(found) => {
                let record = TxnRecord::from_bytes(&found.txn)
                    .map_err(|error| wrong(&self.span.name, &error))?;
                self.span.count += 1;
                self.span.first = self.span.first.or(Some(record.header.zxid));
                self.span.last = Some(record.header.zxid);
                Some(record)
            }
        };
        Ok(())
    }

    /// It has begun, and has more to come: what it lacks between is a hole, unless a snapshot holds it.
    fn has_hole(&self, zxid: Zxid) -> bool {
        let is_inside = self.previous.is_some() && self.next.is_some();
        is_inside && self.snapshots.iter().all(|snapshot| *snapshot < zxid)
    }

    /// A snapshot of a later epoch stands above this txn.
    fn is_superseded(&self, zxid: Zxid) -> bool {
        let later = |snapshot: &Zxid| snapshot.epoch() > zxid.epoch();
        self.snapshots.iter().any(later)
    }
}

/// What one server has on its disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// The server.
    pub name: String,
    /// The zxids in its log, in the order in which they stand there.
    pub zxids: Vec<Zxid>,
    /// The txns that were asked for.
    pub txns: Vec<LoggedTxn>,
    /// The zxids of its snapshots.
    pub snapshots: Vec<Zxid>,
}

/// Reads the log in a data directory, and keeps the txns that are wanted.
///
/// # Errors
/// If it cannot be read, is in use, or is corrupt.
pub fn read(name: &str, dir: &Path, wanted: impl Fn(&TxnRecord) -> bool) -> Result<Kept, Failure> {
    let mut log = Log::open(name, dir)?;
    let mut kept = Kept {
        name: name.to_owned(),
        snapshots: std::mem::take(&mut log.snapshots),
        ..Kept::default()
    };
    while let Some(record) = &log.next {
        kept.zxids.push(record.header.zxid);
        if wanted(record) {
            kept.txns.push(LoggedTxn::of(&log, record));
        }
        log.advance()?;
    }
    Ok(kept)
}

/// The zxids of the snapshots in a data directory.
fn snapshots(dir: &Path) -> Vec<Zxid> {
    let Ok(entries) = std::fs::read_dir(dir.join("version-2")) else {
        return Vec::new();
    };
    let zxid = |name: String| {
        // The name may go on with the way in which it is compressed.
        let digits = name
            .strip_prefix("snapshot.")?
            .split('.')
            .next()?
            .to_owned();
        let bits = u64::from_str_radix(&digits, 16).ok()?;
        Some(Zxid(bits.cast_signed()))
    };
    let names = entries.flatten().map(|entry| entry.file_name());
    names
        .filter_map(|name| zxid(name.to_string_lossy().into_owned()))
        .collect()
}

/// Compares the logs in these data directories, each with the name of its server.
///
/// # Errors
/// If one cannot be read, is in use, or is corrupt.
pub fn compare(dirs: &[(String, impl AsRef<Path>)]) -> Result<LogsVerdict, Failure> {
    let mut logs = dirs
        .iter()
        .map(|(name, dir)| Log::open(name, dir.as_ref()))
        .collect::<Result<Vec<_>, _>>()?;
    let (mut compared, mut violation) = (0, None);
    while let Some(zxid) = logs
        .iter()
        .filter_map(|log| Some(log.next.as_ref()?.header.zxid))
        .min()
    {
        let here: Vec<usize> = (0..logs.len())
            .filter(|index| {
                logs[*index]
                    .next
                    .as_ref()
                    .is_some_and(|record| record.header.zxid == zxid)
            })
            .collect();
        if violation.is_none() {
            let counts: Vec<usize> = here
                .iter()
                .copied()
                .filter(|index| !logs[*index].is_superseded(zxid))
                .collect();
            violation = differ(&logs, &counts, zxid, &mut compared);
        }
        for index in here {
            let log = &mut logs[index];
            log.advance()?;
            // What a learner repeated after a restart is the same txn again.
            while log
                .next
                .as_ref()
                .is_some_and(|record| record.header.zxid <= zxid)
            {
                log.advance()?;
            }
        }
    }
    let dirs = logs.into_iter().map(|log| log.span).collect();
    Ok(LogsVerdict {
        dirs,
        compared,
        violation,
    })
}

/// What is wrong at this zxid, which these logs have.
fn differ(logs: &[Log], here: &[usize], zxid: Zxid, compared: &mut u64) -> Option<LogsViolation> {
    let at = |index: usize| {
        let log = &logs[index];
        Some((log, log.next.as_ref()?))
    };
    let (first, others) = here.split_first()?;
    let (one, ours) = at(*first)?;
    *compared += others.len() as u64;
    let is_other = |index: &usize| at(*index).is_some_and(|(_, theirs)| !is_same(ours, theirs));
    if let Some((two, theirs)) = others.iter().copied().find(is_other).and_then(at) {
        let mut proof = [LoggedTxn::of(one, ours), LoggedTxn::of(two, theirs)];
        // Whose txn fewer have is likely the one to be looked at.
        if others.iter().copied().filter(is_other).count() * 2 > here.len() {
            proof.reverse();
        }
        let [a, b] = &proof;
        let what = format!("{} has {a} and {} has {b}", a.log, b.log);
        return Some(LogsViolation { zxid, what, proof });
    }
    let hole = logs.iter().find(|log| {
        let next = log.next.as_ref();
        next.is_some_and(|next| next.header.zxid > zxid) && log.has_hole(zxid)
    })?;
    let proof = [
        LoggedTxn::of(one, ours),
        LoggedTxn::of(hole, hole.next.as_ref()?),
    ];
    let [a, b] = &proof;
    let what = format!(
        "{} has {a}, and {} goes on with {} without having it",
        a.log, b.log, b.zxid
    );
    Some(LogsViolation { zxid, what, proof })
}

/// Are they the same txn? Digests count only where both have one.
fn is_same(one: &TxnRecord, two: &TxnRecord) -> bool {
    let digests = match (&one.digest, &two.digest) {
        (Some(one), Some(two)) => one == two,
        _ => true,
    };
    one.header == two.header && digests && is_same_body(&one.txn, &two.txn)
}

/// Of a failed multi only the number of its operations is told apart. Apache's servers log one either as the leader
/// prepared it or as the tree left it, which marks every operation as failed (`DataTree.processTxn`), so two logs
/// of one ensemble differ in types and bytes that mean nothing.
fn is_same_body(one: &Txn, two: &Txn) -> bool {
    let (Txn::Multi(one), Txn::Multi(two)) = (one, two) else {
        return one == two;
    };
    let has_failed = |multi: &MultiTxn| {
        let is_error = |op: &MultiOp| op.kind == OpCode::Error.code();
        multi.ops.iter().any(is_error)
    };
    match (has_failed(one), has_failed(two)) {
        (true, true) => one.ops.len() == two.ops.len(),
        (false, false) => one == two,
        _ => false,
    }
}

/// A txn as people say it: `setData /a version 5, 3 bytes "abc"`.
fn told(txn: &Txn) -> String {
    match txn {
        Txn::Create(txn) => format!("create {}, {}", txn.path, value(txn.data.as_ref())),
        Txn::CreateTtl(txn) => format!("createTTL {}, {}", txn.path, value(txn.data.as_ref())),
        Txn::CreateContainer(txn) => {
            format!("createContainer {}, {}", txn.path, value(txn.data.as_ref()))
        }
        Txn::Delete(txn) => format!("delete {}", txn.path),
        Txn::SetData(txn) => {
            let value = value(txn.data.as_ref());
            format!("setData {} version {}, {value}", txn.path, txn.version)
        }
        Txn::SetAcl(txn) => format!("setACL {} version {}", txn.path, txn.version),
        Txn::Check(txn) => format!("check {} version {}", txn.path, txn.version),
        Txn::CreateSession(_) => "createSession".to_owned(),
        Txn::CloseSession(txn) => match txn.paths.as_deref() {
            None => "closeSession".to_owned(),
            Some([]) => "closeSession that deletes nothing".to_owned(),
            Some(paths) => format!("closeSession that deletes {}", paths.join(", ")),
        },
        Txn::Error(txn) => refusal(txn.code),
        Txn::Multi(txn) => {
            let parts: Vec<String> = txn.ops.iter().map(part).collect();
            format!("multi of {}", parts.join("; "))
        }
    }
}

/// One operation of a multi.
fn part(op: &MultiOp) -> String {
    let body = op.data.clone().unwrap_or_default();
    if op.kind == OpCode::Error.code() {
        let code = body
            .first_chunk()
            .map_or(0, |code| i32::from_be_bytes(*code));
        return refusal(code);
    }
    Txn::decode(op.kind, &mut Reader::shared(&body)).map_or_else(
        |_| format!("type {}, {}", op.kind, value(Some(&body))),
        |txn| told(&txn),
    )
}

fn refusal(code: i32) -> String {
    let known = ErrorCode::from_code(code);
    known.map_or_else(|| format!("error {code}"), |code| format!("refusal {code}"))
}

/// The length of a value, and how it begins.
fn value(data: Option<&Bytes>) -> String {
    let Some(data) = data else {
        return "no value".to_owned();
    };
    let begin = &data[..data.len().min(VALUE_MAX)];
    let more = if begin.len() < data.len() { "…" } else { "" };
    format!("{} bytes \"{}{more}\"", data.len(), begin.escape_ascii())
}

#[cfg(test)]
mod tests {
    use zkd::jute::Record;
    use zkd::record::txn::{ErrorTxn, SetDataTxn, TxnHeader};
    use zkd::storage::{Storage, StorageOptions};

    use super::*;

    fn record(zxid: i64, txn: Txn) -> TxnRecord {
        let kind = match &txn {
            Txn::SetData(_) => OpCode::SetData,
            Txn::Multi(_) => OpCode::Multi,
            _ => OpCode::Error,
        };
        let header = TxnHeader {
            client_id: SessionId(1),
            cxid: Xid(1),
            zxid: Zxid(zxid),
            time: 5,
            kind: kind.code(),
        };
        TxnRecord {
            header,
            txn,
            digest: None,
        }
    }

    fn set(zxid: i64, version: i32) -> TxnRecord {
        record(
            zxid,
            Txn::SetData(SetDataTxn {
                path: "/a".to_owned(),
                data: None,
                version,
            }),
        )
    }

    #[test]
    fn a_failed_multi_may_be_logged_before_or_after_its_operations_are_marked() {
        let multi = |kinds: [i32; 2]| {
            let ops = kinds.map(|kind| MultiOp { kind, data: None });
            record(1, Txn::Multi(MultiTxn { ops: ops.into() }))
        };
        let (as_prepared, as_applied, good) = (multi([5, -1]), multi([-1, -1]), multi([5, 5]));
        let logs = [std::slice::from_ref(&as_prepared), &[as_applied]];
        assert_eq!(judge(&logs).violation, None);
        let found = judge(&[&[as_prepared], &[good]]).violation.unwrap();
        assert_eq!(found.zxid, Zxid(1));
        assert_eq!(
            found.proof.map(|txn| txn.what),
            [
                "multi of type 5, 0 bytes \"\"; refusal Ok",
                "multi of type 5, 0 bytes \"\"; type 5, 0 bytes \"\""
            ]
        );
    }

    fn failed_multi(zxid: i64, data: &'static [u8]) -> TxnRecord {
        let op = MultiOp {
            kind: -1,
            data: Some(Bytes::from_static(data)),
        };
        record(zxid, Txn::Multi(MultiTxn { ops: vec![op] }))
    }

    fn log(records: &[TxnRecord]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(dir.path(), dir.path(), true).unwrap();
        let (mut storage, _) = Storage::open(disk, StorageOptions::default()).unwrap();
        for record in records {
            storage
                .append(record.header.zxid, &record.to_vec())
                .unwrap();
        }
        storage.sync().unwrap();
        dir
    }

    fn judge(logs: &[&[TxnRecord]]) -> LogsVerdict {
        let dirs: Vec<_> = logs.iter().map(|records| log(records)).collect();
        let names = (1..).map(|number| format!("n{number}"));
        let named: Vec<_> = names
            .zip(dirs.iter().map(tempfile::TempDir::path))
            .collect();
        compare(&named).unwrap()
    }

    /// Where two logs differ, what each has there, and the sentence.
    fn proof(logs: &[&[TxnRecord]]) -> (Zxid, [String; 2], String) {
        let found = judge(logs).violation.unwrap();
        let told = |txn: &LoggedTxn| format!("{} {}: {}", txn.log, txn.zxid, txn.what);
        (found.zxid, found.proof.each_ref().map(told), found.what)
    }

    #[test]
    fn the_proof_is_two_txns_and_the_odd_one_is_last() {
        let write = |version, data: &'static str| {
            let txn = SetDataTxn {
                path: "/a".to_owned(),
                data: Some(Bytes::from_static(data.as_bytes())),
                version,
            };
            record(7, Txn::SetData(txn))
        };
        let (good, bad) = (
            write(1, "good"),
            write(1, "evil\0and longer than what is shown"),
        );
        let (good, bad) = ([good], [bad]);
        let logs: [&[TxnRecord]; 3] = [&bad, &good, &good];
        let (zxid, txns, what) = proof(&logs);
        assert_eq!(zxid, Zxid(7));
        assert_eq!(
            txns,
            [
                "n2 0x7: setData /a version 1, 4 bytes \"good\"",
                "n1 0x7: setData /a version 1, 34 bytes \"evil\\x00and longer than wha…\""
            ]
        );
        assert!(what.starts_with("n2 has setData /a"), "{what}");
        assert!(what.ends_with("(session 0x1, request 1, time 5)"), "{what}");
    }

    #[test]
    fn a_part_of_the_same_history_is_allowed_and_anything_else_is_not() {
        let error = |zxid| record(zxid, Txn::Error(ErrorTxn { code: -101 }));
        let all = [set(1, 1), failed_multi(2, b"\0\0\0\0"), error(3), set(4, 2)];
        let other_bytes = [
            set(1, 1),
            failed_multi(2, b"\xff\xff\xff\x9bmore"),
            error(3),
        ];
        let good = judge(&[&all, &other_bytes, &all[2..], &[]]);
        assert_eq!(good.violation, None);
        assert_eq!(good.compared, 3 + 2);
        assert_eq!((good.dirs[1].count, good.dirs[1].last), (3, Some(Zxid(3))));
        assert_eq!(
            (good.dirs[2].first, good.dirs[3].first),
            (Some(Zxid(3)), None)
        );

        let differs = judge(&[&all, &[set(1, 1), failed_multi(2, b""), set(3, 9)]]);
        assert_eq!(differs.violation.unwrap().zxid, Zxid(3));
        let (zxid, proof, what) = proof(&[&all, &[set(1, 1), error(3)]]);
        assert_eq!(zxid, Zxid(2));
        assert_eq!(
            proof,
            ["n1 0x2: multi of refusal Ok", "n2 0x3: refusal NoNode"]
        );
        assert!(
            what.contains("n2 goes on with 0x3 without having it"),
            "{what}"
        );
    }

    #[test]
    fn a_snapshot_of_the_leader_stands_above_what_the_log_had_before() {
        let epoch = |epoch: i64, counter: i64| epoch << 32 | counter;
        let all = [
            set(epoch(1, 1), 1),
            set(epoch(2, 1), 2),
            set(epoch(2, 2), 3),
            set(epoch(2, 3), 4),
        ];
        // The old leader has a proposal that nobody else has, and lacks what came while it was cut off.
        let old = [
            set(epoch(1, 1), 1),
            set(epoch(1, 2), 9),
            set(epoch(2, 3), 4),
        ];
        let (one, two) = (log(&all), log(&old));
        let dirs = [("n1".to_owned(), one.path()), ("n2".to_owned(), two.path())];
        let judge = || compare(&dirs).unwrap().violation.map(|found| found.zxid);
        assert_eq!(judge(), Some(Zxid(epoch(1, 2))));
        let snapshot = two.path().join("version-2/snapshot.200000002");
        std::fs::write(&snapshot, "").unwrap();
        assert_eq!(judge(), None);
        // One that is too old for the hole does not help.
        std::fs::rename(&snapshot, two.path().join("version-2/snapshot.200000001")).unwrap();
        assert_eq!(judge(), Some(Zxid(epoch(2, 2))));
    }

    #[test]
    fn logs_in_use_or_missing_are_refused() {
        let dir = log(&[set(1, 1)]);
        let _in_use = RealDisk::open(dir.path(), dir.path(), false).unwrap();
        for dir in [dir.path(), Path::new("/nowhere/at/all")] {
            assert!(compare(&[("n1".to_owned(), dir)]).is_err());
        }
    }
}
