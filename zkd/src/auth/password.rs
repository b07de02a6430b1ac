//! Session passwords: what Java's `Random` makes of a session id.
//!
//! It is a checksum, not a secret: every server of an ensemble, Apache's too, must find the same 16
//! bytes without having seen the session before. Counterpart: `ZooKeeperServer.generatePasswd`.

use crate::ids::SessionId;

/// What a session id is mixed with to become the seed.
const SALT: i64 = 0xB341_5C00;
const MULTIPLIER: u64 = 0x5_DEEC_E66D;
const MASK: u64 = (1 << 48) - 1;

/// The password of a session.
#[must_use]
pub fn session_password(session: SessionId) -> [u8; 16] {
    let mut state = ((session.0 ^ SALT).cast_unsigned() ^ MULTIPLIER) & MASK;
    let mut out = [0; 16];
    for word in out.chunks_exact_mut(4) {
        state = (state.wrapping_mul(MULTIPLIER).wrapping_add(0xB)) & MASK;
        // `nextBytes` takes the upper 32 of the 48 bits, lowest byte first.
        word.copy_from_slice(&(state >> 16).to_le_bytes()[..4]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_apache_answered() {
        assert_eq!(
            session_password(SessionId(0x0100_0011_9138_0000)),
            [
                0xba, 0x73, 0xb1, 0x39, 0xbf, 0x93, 0x94, 0xc6, 0x28, 0x4e, 0x15, 0x88, 0xa0, 0x7f,
                0xcc, 0x67
            ]
        );
    }
}
