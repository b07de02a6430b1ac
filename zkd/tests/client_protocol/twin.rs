//! The same requests, committed at once or much later, make the same txns.

use std::collections::BTreeSet;

use zkd::pipeline::{PrepOptions, ServerOptions};
use zkd::prng::Prng;

use crate::harness::*;
use crate::refusals::plausible;

/// One server commits every txn before it prepares the next, the other prepares far ahead. Outstanding
/// changes have to hide the difference: txns (digests included) and answers are the same.
#[test]
fn prepared_ahead_or_one_by_one() {
    for seed in 0..150 {
        let mut prng = Prng::new(seed);
        let prep = PrepOptions {
            extended_types_enabled: true,
            ..PrepOptions::default()
        };
        let mut patient = TestServer::with(ServerOptions::default(), prep.clone());
        let mut eager = TestServer::with(ServerOptions::default(), prep);
        let clients = [(); 2].map(|()| (patient.connect(), eager.connect()));
        eager.hold = true;
        for xid in 0..200 {
            let bytes = plausible(&mut prng, xid);
            let (a, b) = *prng.pick(&clients);
            patient.send(a, &bytes);
            eager.send(b, &bytes);
            if prng.one_in(8) {
                let count = prng.below(eager.uncommitted.len() as u64 + 1);
                eager.commit(usize::try_from(count).unwrap());
            }
        }
        eager.release();
        for (number, (ours, theirs)) in eager.log.iter().zip(&patient.log).enumerate() {
            assert_eq!(ours, theirs, "seed {seed}, txn {number}");
        }
        assert_eq!(eager.log.len(), patient.log.len());
        let written: BTreeSet<i32> = patient.log.iter().map(|txn| txn.header.cxid.0).collect();
        for (a, b) in clients {
            // Reads may have been answered before or after a write of the other client.
            let writes = |mut replies: Vec<Reply>| {
                replies.retain(|reply| reply.xid >= 0 && written.contains(&reply.xid));
                replies
            };
            let (theirs, ours) = (writes(patient.replies(a)), writes(eager.replies(b)));
            assert_eq!(ours, theirs, "seed {seed}");
        }
        let (a, b) = (patient.server.tree().read(), eager.server.tree().read());
        assert_eq!(a.digest(), b.digest(), "seed {seed}");
        assert_eq!(a.node_count(), b.node_count(), "seed {seed}");
    }
}
