//! How long it takes to judge a million operations: `cargo run --release -p zklab --example check_bench [OPERATIONS]`.
//!
//! Writes a good history of eight clients on sixteen registers to a temporary file, reads and judges it as
//! `zklab check` does, and says how long that took and how much memory it needed.

use std::fmt::Write as _;
use std::fs;
use std::time::Instant;

use zkd::ids::{SessionId, Zxid};
use zkd::prng::Prng;
use zklab::observe::check::{Rule, judge};
use zklab::observe::history::{History, Kind, Line, OpLine, Outcome};

fn main() {
    let count: u32 = std::env::args()
        .nth(1)
        .map_or(1_000_000, |text| text.parse().expect("a number"));
    let path =
        std::env::temp_dir().join(format!("zklab-check-bench-{}.ndjson", std::process::id()));
    let text = good(count);
    fs::write(&path, &text).expect("the temporary directory is writable");
    let bytes = text.len();
    drop(text);
    let begun = Instant::now();
    let history = History::open(&path).expect("the history is good");
    let read = begun.elapsed();
    let verdict = judge(&history, &Rule::ALL);
    let all = begun.elapsed();
    let _ = fs::remove_file(&path);
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap_or("VmHWM unknown");
    eprintln!(
        "{count} operations, {} MB: read {read:.2?}, read and judged {all:.2?}, clean {}, {peak}",
        bytes >> 20,
        verdict.is_clean()
    );
}

/// Half reads, half sets; every hundredth operation makes a sequential znode.
fn good(count: u32) -> String {
    let mut prng = Prng::new(1);
    let mut text = String::from(
        "{\"k\":\"history\",\"v\":1,\"lab\":\"bench\",\"start_us\":0,\"root\":\"/load\"}\n",
    );
    let registers: Vec<String> = (0..16)
        .map(|number| format!("/load-0000000000/r/{number}"))
        .collect();
    let mut state = [(0_i64, 0_i64, -1_i32, 0_u32); 16];
    let (mut zxid, mut sequence) = (0_i64, 0);
    let mut frames = [0_u32; 8];
    for id in 1..=count {
        let client = prng.below(8);
        let at = usize::try_from(prng.below(16)).expect("below 16");
        let (czxid, mzxid, version, value) = &mut state[at];
        let kind = match (*version, prng.below(2)) {
            (-1, _) => Kind::Create,
            (_, 0) => Kind::Get,
            _ => Kind::Set,
        };
        let mut line = OpLine::new(kind);
        let mut made = String::new();
        line.path = Some(registers[at].as_str());
        if id % 100 == 99 {
            line.kind = Kind::Create;
            line.sequential = true;
            zxid += 1;
            let _ = write!(made, "/load-0000000000/s/q-{sequence:010}");
            sequence += 1;
            (line.path, line.made, line.value) =
                (Some("/load-0000000000/s/q-"), Some(made.as_str()), id);
        } else if kind == Kind::Get {
            line.value = *value;
        } else {
            zxid += 1;
            (*mzxid, *version, *value) = (zxid, *version + 1, id);
            if kind == Kind::Create {
                *czxid = zxid;
            }
            line.value = id;
        }
        if !line.sequential && kind != Kind::Create {
            (line.version, line.czxid, line.mzxid) = (*version, Zxid(*czxid), Zxid(*mzxid));
        }
        let frame = &mut frames[usize::try_from(client).expect("below 8")];
        *frame += 1;
        (line.id, line.xid, line.pos, line.conn) = (id, id.cast_signed(), *frame, 1);
        (line.client, line.session) = (
            u32::try_from(client).expect("below 8"),
            SessionId(0x100_0000_0000_0000 + client.cast_signed()),
        );
        (line.t0, line.t1) = (u64::from(id) * 10, u64::from(id) * 10 + 9);
        (line.zxid, line.outcome) = (Zxid(zxid), Outcome::Ok);
        Line::Op(line).encode(&mut text);
    }
    text
}
