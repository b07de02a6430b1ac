//! `pcap`: copies of what passes the emulator, as a pcapng file, to whoever asked.
//!
//! Nobody in the lab waits for the one who writes: at most one piece is on its way to it, what comes meanwhile
//! waits in the emulator's queue, and what has no room there is left out and counted.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::protocol::{PcapReport, PcapRequest};
use super::{Lab, Talk};
use crate::clock::now_us;
use crate::ensemble::Ensemble;
use crate::failure::{Exit, Failure};
use crate::fault::words::Names;
use crate::net::capture::{Batch, Captured};
use crate::net::pcapng::Writer;

/// Packets are collected for so long before they are sent.
const GATHER: Duration = Duration::from_millis(10);
/// At the end, so long is waited for somebody who takes nothing.
const LAST_PATIENCE: Duration = Duration::from_secs(5);

/// Sends the file, piece by piece, and says at the end what it holds.
pub(super) async fn answer(lab: &Arc<Lab>, request: PcapRequest, mut talk: Talk) {
    let captured = match begin(&lab.ensemble, &request).await {
        Ok(captured) => captured,
        Err(failure) => return talk.finish(Err::<PcapReport, _>(failure)).await,
    };
    let begin_us = now_us();
    let mut file = File::begin(&lab.ensemble, request.count.unwrap_or(u64::MAX));
    let deadline = request
        .for_ms
        .and_then(|for_ms| Instant::now().checked_add(Duration::from_millis(for_ms)));
    loop {
        if !file.send(&talk).await {
            return;
        }
        if file.is_full() {
            break;
        }
        tokio::select! {
            () = captured.filled() => sleep(GATHER).await,
            () = until(deadline) => break,
            () = talk.hung_up() => break,
        }
        file.take(&captured);
    }
    file.take(&captured);
    drop(captured);
    file.writer.end(now_us(), &mut file.buffer);
    // Whoever has stopped to read and still holds the connection gets no more.
    let sent = timeout(LAST_PATIENCE, file.send(&talk)).await;
    if sent.is_ok_and(|sent| sent) {
        let report = file.report(&lab.ensemble, begin_us);
        talk.finish(Ok(report)).await;
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// From now on copies are kept.
///
/// # Errors
/// If a word names no node, or nothing passes an emulator here.
async fn begin(lab: &Ensemble, request: &PcapRequest) -> Result<Captured, Failure> {
    let emulator = lab.net.links().ok_or_else(|| {
        Failure::usage(format!(
            "nothing of lab {} can be captured: its network is {}, and its packets pass no emulator",
            lab.spec.name,
            lab.net.kind()
        ))
        .hint("`zklab up --net auto` makes a lab whose packets do; here `tcpdump -i lo` sees them")
    })?;
    let names = Names::of(lab, &request.nodes).await;
    let mut places = Vec::new();
    for word in &request.nodes {
        places.extend(names.nodes(word)?);
    }
    Ok(emulator.capture(places))
}

/// The file while it is being sent.
#[derive(Debug)]
struct File {
    writer: Writer,
    limit: u64,
    /// What was not sent yet.
    buffer: Vec<u8>,
    batch: Batch,
    bytes: u64,
}

impl File {
    fn begin(lab: &Ensemble, limit: u64) -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        let since_1970_us = since_1970.map_or(0, |since| {
            u64::try_from(since.as_micros())
                .unwrap_or(u64::MAX)
                .saturating_sub(now_us())
        });
        let comment = format!(
            "lab {}; an event of `zklab events` with t_us = T happened {} \u{b5}s + T after 1970",
            lab.spec.name,
            lab.start_us + since_1970_us
        );
        let mut buffer = Vec::new();
        Self {
            writer: Writer::begin(since_1970_us, &comment, &mut buffer),
            limit,
            buffer,
            batch: Batch::default(),
            bytes: 0,
        }
    }

    fn take(&mut self, captured: &Captured) {
        captured.take(&mut self.batch);
        self.writer
            .write(&mut self.batch, self.limit, &mut self.buffer);
    }

    fn is_full(&self) -> bool {
        self.writer.packets >= self.limit
    }

    /// Sends what there is; false if nobody takes it.
    async fn send(&mut self, talk: &Talk) -> bool {
        if self.buffer.is_empty() {
            return true;
        }
        self.bytes += self.buffer.len() as u64;
        match talk.bytes(std::mem::take(&mut self.buffer)).await {
            Some(buffer) => {
                self.buffer = buffer;
                true
            }
            None => false,
        }
    }

    fn report(&self, lab: &Ensemble, begin_us: u64) -> PcapReport {
        PcapReport {
            v: 1,
            cmd: "pcap".to_owned(),
            lab: lab.spec.name.clone(),
            packets: self.writer.packets,
            marked: self.writer.marked,
            bytes: self.bytes,
            left_out: self.writer.left_out.values().sum(),
            ms: now_us().saturating_sub(begin_us) / 1000,
            exit: Exit::Ok,
        }
    }
}
