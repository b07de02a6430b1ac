//! Several writes, all or none.
//!
//! One zxid and one time for all; later operations see earlier ones. At the first that is refused the
//! changes of the others are taken back, it becomes an error with its code, and those behind it errors
//! with -2; those before it keep their kind in the txn (quorum-and-storage facts, section 5).

use crate::error::ErrorCode;
use crate::jute::{DecodeError, Reader, Record, Writer};
use crate::planted::{self, Planted};
use crate::record::opcode::OpCode;
use crate::record::proto::MultiHeader;
use crate::record::txn::{ErrorTxn, MultiOp, MultiTxn, Txn};

use super::operation::Operation;
use super::{Context, Prep};

/// Reads the operations up to the terminator.
pub(super) fn decode(from: &mut Reader<'_>) -> Result<Vec<Operation>, DecodeError> {
    let mut operations = Vec::new();
    loop {
        let header = MultiHeader::decode(from)?;
        if header.done {
            return Ok(operations);
        }
        operations.push(Operation::decode_in_multi(header.kind, from)?);
    }
}

impl Prep {
    pub(super) fn multi(&mut self, context: &mut Context<'_>, operations: Vec<Operation>) -> Txn {
        let mut ops = Vec::with_capacity(operations.len());
        let mut failed = false;
        self.outstanding.begin();
        for operation in operations {
            let result = if failed {
                Err(ErrorCode::RuntimeInconsistency)
            } else {
                self.operation(context, operation)
            };
            ops.push(match result {
                Ok((kind, txn)) => sub_txn(kind, &txn),
                Err(err) => {
                    failed = true;
                    let code = err.code();
                    sub_txn(OpCode::Error, &Txn::Error(ErrorTxn { code }))
                }
            });
        }
        if failed && !planted::is(Planted::MultiHalf) {
            self.outstanding.roll_back();
        } else {
            self.outstanding.keep();
        }
        Txn::Multi(MultiTxn { ops })
    }
}

fn sub_txn(kind: OpCode, txn: &Txn) -> MultiOp {
    let mut data = Vec::new();
    txn.encode(&mut Writer::new(&mut data));
    MultiOp {
        kind: kind.code(),
        data: Some(data.into()),
    }
}
