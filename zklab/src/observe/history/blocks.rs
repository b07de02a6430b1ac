//! Reads a history with all processors: blocks of whole lines are understood side by side, and added one after the other.
//!
//! Each block becomes a small history of its own, with places for the paths and sessions that it names. What is left for
//! the one thread that adds them is to give those their places in the whole.

use std::io::{self, BufRead, Read};
use std::num::NonZero;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use super::{History, Line, Malformed};
use crate::failure::Failure;

/// About so many bytes are one block: few enough to stay in a processor's cache while they are read.
const BLOCK: u64 = 256 << 10;
/// More would only wait for the one that adds the blocks.
const SIDE_BY_SIDE_MAX: usize = 4;
/// So many blocks a thread has before it, so that it need not wait for the one that adds them.
const AHEAD: usize = 2;

/// Some lines, and what they say.
#[derive(Default)]
struct Block {
    bytes: Vec<u8>,
    piece: History,
    /// How many lines were understood.
    lines: u64,
    /// What is wrong with the line behind those.
    wrong: Option<Malformed>,
}

pub(super) fn read(
    from: &mut impl BufRead,
    name: &str,
    history: &mut History,
) -> Result<(), Failure> {
    read_in_blocks(from, name, history, BLOCK)
}

/// As [`read`], in blocks of about so many bytes.
fn read_in_blocks(
    from: &mut impl BufRead,
    name: &str,
    history: &mut History,
    size: u64,
) -> Result<(), Failure> {
    let cannot = |error: io::Error| Failure::usage(format!("cannot read {name}: {error}"));
    let wrong =
        |number: u64, error: &Malformed| Failure::usage(format!("{name}:{number}: {error}"));
    let mut header = Vec::new();
    if from.read_until(b'\n', &mut header).map_err(cannot)? == 0 {
        return Err(Failure::usage(format!("{name} is empty")));
    }
    if let Err(error) = history.take_header(&header) {
        return if header.ends_with(b"\n") {
            Err(wrong(1, &error))
        } else {
            Ok(())
        };
    }
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        // In turns: the n-th block is for the n-th thread, and comes back from it.
        let threads: Vec<_> = (0..processors.min(SIDE_BY_SIDE_MAX))
            .map(|_| {
                let (to, lines) = sync_channel(AHEAD);
                let (done, from) = sync_channel(AHEAD);
                scope.spawn(move || understand_all(&lines, &done));
                (to, from)
            })
            .collect();
        let mut spare: Vec<Block> = Vec::new();
        spare.resize_with(threads.len() * AHEAD, Block::default);
        let (mut sent, mut added, mut number) = (0, 0, 1);
        loop {
            while let Some(mut block) = spare.pop() {
                read_block(from, &mut block.bytes, size).map_err(cannot)?;
                if block.bytes.is_empty() {
                    break;
                }
                let (to, _) = &threads[sent % threads.len()];
                to.send(block).expect(LIVES);
                sent += 1;
            }
            if added == sent {
                return Ok(());
            }
            let (_, from) = &threads[added % threads.len()];
            let mut block = from.recv().expect(LIVES);
            added += 1;
            let begin = number + 1;
            number += block.lines;
            let fits = history.append(&mut block.piece);
            fits.map_err(|error| wrong(begin, &error))?;
            if let Some(error) = block.wrong.take() {
                return Err(wrong(number + 1, &error));
            }
            spare.push(block);
        }
    })
}

/// Why a thread that understands lines is there as long as blocks are sent to it.
const LIVES: &str = "a line that is not understood is an error and ends no thread";

/// The next whole lines; none at the end of the file.
fn read_block(from: &mut impl BufRead, block: &mut Vec<u8>, size: u64) -> io::Result<()> {
    block.clear();
    from.take(size).read_to_end(block)?;
    if block.last().is_some_and(|last| *last != b'\n') {
        from.read_until(b'\n', block)?;
    }
    Ok(())
}

/// What one thread does, until no blocks come or nobody wants them.
fn understand_all(lines: &Receiver<Block>, done: &SyncSender<Block>) {
    for mut block in lines {
        understand(&mut block);
        if done.send(block).is_err() {
            return;
        }
    }
}

fn understand(block: &mut Block) {
    block.lines = 0;
    let mut rest = &block.bytes[..];
    while !rest.is_empty() {
        let (line, behind) = Line::decode_first(rest);
        match line.and_then(|line| line.map_or(Ok(()), |line| block.piece.push(&line))) {
            Ok(()) => {}
            // The writer was killed; there are no lines behind it.
            Err(_) if behind.is_empty() && !rest.ends_with(b"\n") => {}
            Err(error) => {
                block.wrong = Some(error);
                return;
            }
        }
        block.lines += 1;
        rest = behind;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "{\"k\":\"history\",\"v\":1}\n";

    /// A history of several rounds of blocks.
    fn long() -> String {
        let mut text = HEADER.to_owned();
        for id in 1..=120_000 {
            text += &format!(
                "{{\"k\":\"op\",\"id\":{id},\"op\":\"get\",\"path\":\"/r/{}\",\"out\":\"ok\",\"val\":7,\"t0\":1,\"t1\":2}}\n",
                id % 7
            );
        }
        assert!(text.len() as u64 > 2 * BLOCK * (SIDE_BY_SIDE_MAX * AHEAD) as u64);
        text
    }

    #[test]
    fn lines_keep_their_order_over_blocks() {
        let history = History::read(long().as_bytes(), "h").unwrap();
        assert!(history.ops.iter().map(|op| op.id).eq(1..=120_000));
        assert_eq!(history.paths.len(), 7);
    }

    #[test]
    fn blocks_make_the_history_that_single_lines_make() {
        let mut text = HEADER.to_owned();
        for id in 1..=400_u32 {
            let (path, session) = (id * 7 % 31, 5 + id % 3);
            let line = match id % 5 {
                0 => format!(
                    "\"op\",\"id\":{id},\"s\":\"0x{session}\",\"op\":\"children\",\"path\":\"/d/{path}\",\"out\":\"ok\",\"kids\":\"a,b{path}\""
                ),
                1 => format!(
                    "\"op\",\"id\":{id},\"s\":\"0x{session}\",\"op\":\"multi\",\"out\":\"unknown\",\"parts\":[{{\"op\":\"set\",\"path\":\"/m/{path}\"}},{{\"op\":\"delete\",\"path\":\"/d/{path}\"}}]"
                ),
                2 => format!(
                    "\"event\",\"s\":\"0x{session}\",\"ev\":\"deleted\",\"path\":\"/e/{path}\""
                ),
                3 => format!("\"expired\",\"s\":\"0x{session}\",\"at\":{id}"),
                _ => format!("\"final\",\"path\":\"/f/{path}\",\"owner\":\"0x{session}\""),
            };
            text += &format!("{{\"k\":{line}}}\n");
        }
        text += "{\"k\":\"end\",\"z\":\"0x9\"}\n{\"k\":\"lost\"}\n";
        let mut singly = History::default();
        let mut lines = text.split_inclusive('\n');
        singly
            .take_header(lines.next().unwrap().as_bytes())
            .unwrap();
        for line in lines {
            singly
                .push(&Line::decode(line.as_bytes()).unwrap().unwrap())
                .unwrap();
        }
        let told = |history: &History| {
            let History {
                paths,
                sessions,
                expired,
                ops,
                ..
            } = history;
            let History {
                parts,
                events,
                finals,
                end,
                ..
            } = history;
            format!(
                "{paths:?} {sessions:?} {expired:?} {ops:?} {parts:?} {events:?} {finals:?} {end:?}"
            )
        };
        for size in [1, 100, 3_000, BLOCK] {
            let mut history = History::default();
            read_in_blocks(&mut text.as_bytes(), "h", &mut history, size).unwrap();
            assert_eq!(told(&history), told(&singly), "blocks of {size} bytes");
            let paths = history.paths.iter().enumerate();
            for (index, path) in paths {
                assert_eq!(history.path_id(path).unwrap().0 as usize, index);
            }
        }
    }

    #[test]
    fn a_wrong_line_is_told_by_its_number() {
        let wrong = long().replace("\"id\":77777,\"op\":\"get\"", "\"id\":77777,\"op\":\"fly\"");
        let error = History::read(wrong.as_bytes(), "h").unwrap_err();
        assert!(error.to_string().starts_with("h:77778: "), "{error}");
        let without_id = format!("{HEADER}{{\"k\":\"op\",\"op\":\"sync\",\"out\":\"ok\"}}\n");
        let error = History::read(without_id.as_bytes(), "h").unwrap_err();
        assert!(error.to_string().starts_with("h:2: "), "{error}");
    }

    #[test]
    fn a_last_line_that_was_cut_off_is_passed_over() {
        let text = long();
        let history = History::read(&text.as_bytes()[..text.len() - 9], "h").unwrap();
        assert_eq!(history.ops.len(), 119_999);
        assert!(History::read(&HEADER.as_bytes()[..9], "h").is_ok());
        assert!(History::read(&b""[..], "h").is_err());
    }
}
