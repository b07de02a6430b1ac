//! A server whose znodes differ from the leader's says so.

use zkd::event::ServerState;
use zkd::ids::{SessionId, Xid, Zxid};
use zkd::pipeline::{Delivery, ServerOptions, ZkServer};
use zkd::record::opcode::OpCode;
use zkd::record::txn::{CreateSessionTxn, Txn, TxnDigest, TxnHeader, TxnRecord};
use zkd::time::{Instant, Now};

fn session_txn(zxid: i64, tree_digest: i64) -> Delivery {
    Delivery::Txn(TxnRecord {
        header: TxnHeader {
            client_id: SessionId(zxid),
            cxid: Xid(0),
            zxid: Zxid(zxid),
            time: 0,
            kind: OpCode::CreateSession.code(),
        },
        txn: Txn::CreateSession(CreateSessionTxn { timeout_ms: 10_000 }),
        digest: Some(TxnDigest {
            version: 2,
            tree_digest,
        }),
    })
}

#[test]
fn a_tree_that_differs_from_the_leaders_is_counted_while_serving() {
    let server = ZkServer::new(ServerOptions::default(), Instant(1));
    let right = server.tree().read().digest();
    let mismatches = || server.metrics().digest_mismatches_count.count();
    // Still synchronizing: the tree may be a fuzzy one.
    server.apply(&[session_txn(1, right + 1)], Now::default());
    assert_eq!(mismatches(), 0);
    server.start_serving(ServerState::Following);
    server.apply(&[session_txn(2, right)], Now::default());
    assert_eq!(mismatches(), 0);
    server.apply(
        &[session_txn(3, right + 1), session_txn(4, right + 1)],
        Now::default(),
    );
    assert_eq!(mismatches(), 2);
}
