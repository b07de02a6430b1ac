//! The rest of a long body with two threads: this one reads and makes the tree, a second one unpacks the znodes.
//!
//! The buffers go round between the two, and none is made on the way: memory that one thread gets from the system and gives
//! back holds the other one up, too. The second thread ends before the function that began it, does nothing but to turn
//! bytes into znodes, and sees the pieces in the order of the file, so that nobody can tell from a tree how many threads
//! there were.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use super::{CHUNK, Input, StorageError};
use crate::jute::DecodeError;
use crate::storage::DiskFile;
use crate::tree::{Progress, SnapshotLoader, Unpacked, Unpacker};

/// So many pieces go round. With two of them the threads wait for each other; with six a load took as long as with four.
const PIECES: usize = 4;

/// A part of the file, and the znodes in it once they are unpacked.
struct Piece {
    /// The first `filled` bytes are of the file.
    bytes: Vec<u8>,
    filled: usize,
    unpacked: Unpacked,
    progress: Result<Progress, DecodeError>,
}

impl Piece {
    fn empty() -> Self {
        Self {
            bytes: vec![0; CHUNK],
            filled: 0,
            unpacked: Unpacked::default(),
            progress: Ok(Progress {
                consumed: 0,
                done: false,
            }),
        }
    }

    /// Reads until it is full or the file is over.
    fn fill(&mut self, from: &mut impl Read) -> io::Result<()> {
        self.filled = 0;
        while self.filled < self.bytes.len() {
            match from.read(&mut self.bytes[self.filled..])? {
                0 => break,
                count => self.filled += count,
            }
        }
        Ok(())
    }
}

/// Loads the rest of the body. Any error may only mean that the file is unusual.
pub(super) fn rest_of_body<F: DiskFile>(
    input: &mut Input<F>,
    unpacker: Unpacker,
    loader: &mut SnapshotLoader,
) -> Result<(), StorageError> {
    thread::scope(|scope| {
        let (to_unpack, packed) = sync_channel(PIECES);
        let (hand_back, unpacked) = sync_channel(PIECES);
        let other = scope.spawn(move || unpack_all(unpacker, &packed, &hand_back));
        let built = build(input, loader, &to_unpack, &unpacked);
        drop(to_unpack);
        let unpacker = match other.join() {
            Ok(unpacker) => unpacker,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        built?;
        loader
            .join(unpacker)
            .map_err(|e| input.corrupt(e.to_string()))
    })
}

/// The second thread: until no more pieces come.
fn unpack_all(mut unpacker: Unpacker, from: &Receiver<Piece>, to: &SyncSender<Piece>) -> Unpacker {
    for mut piece in from {
        piece.progress = unpacker.unpack(&piece.bytes[..piece.filled], &mut piece.unpacked);
        if to.send(piece).is_err() {
            break;
        }
    }
    unpacker
}

/// The first thread: reads pieces, and puts what comes back into the tree.
fn build<F: DiskFile>(
    input: &mut Input<F>,
    loader: &mut SnapshotLoader,
    to: &SyncSender<Piece>,
    from: &Receiver<Piece>,
) -> Result<(), StorageError> {
    let mut idle: Vec<Piece> = (0..PIECES).map(|_| Piece::empty()).collect();
    let mut is_over = false;
    while !is_over || idle.len() < PIECES {
        while !is_over && let Some(mut piece) = idle.pop() {
            piece
                .fill(&mut input.source)
                .map_err(|e| StorageError::io("read", &input.path, e))?;
            is_over = piece.filled == 0;
            if is_over {
                idle.push(piece);
            } else if to.send(piece).is_err() {
                return Err(input.corrupt(GONE));
            }
        }
        if idle.len() == PIECES {
            break;
        }
        let piece = from.recv().map_err(|_| input.corrupt(GONE))?;
        let progress = match &piece.progress {
            Ok(progress) => *progress,
            Err(e) => return Err(input.corrupt(e.to_string())),
        };
        loader
            .add(&piece.unpacked)
            .map_err(|e| input.corrupt(e.to_string()))?;
        input.adler.write(&piece.bytes[..progress.consumed]);
        input.offset += progress.consumed as u64;
        if progress.done {
            // What was read ahead of the seal.
            input.chunk.clear();
            input
                .chunk
                .extend_from_slice(&piece.bytes[progress.consumed..piece.filled]);
            for _ in idle.len() + 1..PIECES {
                let piece = from.recv().map_err(|_| input.corrupt(GONE))?;
                input.chunk.extend_from_slice(&piece.bytes[..piece.filled]);
            }
            (input.taken, input.filled) = (0, input.chunk.len());
            input.chunk.resize(input.filled.max(CHUNK), 0);
            return Ok(());
        }
        idle.push(piece);
    }
    Err(input.corrupt("the snapshot ends inside the tree"))
}

/// Only a panic of the other thread, which is passed on, can be the reason.
const GONE: &str = "nobody unpacks the snapshot any more";
