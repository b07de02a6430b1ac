//! Reads a history with all processors: blocks of whole lines are understood side by side, and added one after the other.

use std::io::{self, BufRead, Read};
use std::num::NonZero;
use std::thread;

use super::{History, Line, Malformed};
use crate::failure::Failure;

/// About so many bytes are one block: enough that a thread for it is cheap, and little beside the history in memory.
const BLOCK: u64 = 1 << 20;
/// More would only wait for the one that adds the lines.
const SIDE_BY_SIDE_MAX: usize = 4;

/// One line, or that it is of a later version, or what is wrong with it.
type Understood<'a> = Result<Option<Line<'a>>, Malformed>;

pub(super) fn read(
    from: &mut impl BufRead,
    name: &str,
    history: &mut History,
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
    let mut blocks = vec![Vec::new(); processors.min(SIDE_BY_SIDE_MAX)];
    let mut number = 1;
    loop {
        for block in &mut blocks {
            read_block(from, block).map_err(cannot)?;
        }
        if blocks[0].is_empty() {
            return Ok(());
        }
        for (block, lines) in blocks.iter().zip(understand(&blocks)) {
            let (count, is_cut_off) = (lines.len(), block.last() != Some(&b'\n'));
            for (index, line) in lines.into_iter().enumerate() {
                number += 1;
                match line.and_then(|line| line.map_or(Ok(()), |line| history.push(&line))) {
                    Ok(()) => {}
                    // The writer was killed; there are no lines behind it.
                    Err(_) if is_cut_off && index + 1 == count => {}
                    Err(error) => return Err(wrong(number, &error)),
                }
            }
        }
    }
}

/// The next whole lines; none at the end of the file.
fn read_block(from: &mut impl BufRead, block: &mut Vec<u8>) -> io::Result<()> {
    block.clear();
    from.take(BLOCK).read_to_end(block)?;
    if block.last().is_some_and(|last| *last != b'\n') {
        from.read_until(b'\n', block)?;
    }
    Ok(())
}

/// The lines of every block, in order.
fn understand(blocks: &[Vec<u8>]) -> Vec<Vec<Understood<'_>>> {
    let Some((first, others)) = blocks.split_first() else {
        return Vec::new();
    };
    thread::scope(|scope| {
        let others: Vec<_> = others
            .iter()
            .filter(|block| !block.is_empty())
            .map(|block| scope.spawn(|| lines_of(block)))
            .collect();
        std::iter::once(lines_of(first))
            .chain(others.into_iter().map(|other| {
                other
                    .join()
                    .expect("a line that is not understood is an error")
            }))
            .collect()
    })
}

fn lines_of(block: &[u8]) -> Vec<Understood<'_>> {
    block
        .split_inclusive(|byte| *byte == b'\n')
        .map(Line::decode)
        .collect()
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
        assert!(text.len() as u64 > 2 * BLOCK * SIDE_BY_SIDE_MAX as u64);
        text
    }

    #[test]
    fn lines_keep_their_order_over_blocks() {
        let history = History::read(long().as_bytes(), "h").unwrap();
        assert!(history.ops.iter().map(|op| op.id).eq(1..=120_000));
        assert_eq!(history.paths.len(), 7);
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
