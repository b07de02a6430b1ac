//! Reads a line of an operation that looks exactly as [`Line::encode`](super::Line::encode) writes it.
//!
//! Nearly all lines of a history do, and to judge a million of them most of the time went into reading fields that may
//! come in any order, with space between them. Here every field is looked for where it has to be. Whatever looks
//! otherwise is none of this reader's business: it says so, and the general reader ([`super::text`]) takes the line and
//! judges it. So this one knows no errors, and must never understand a line otherwise than the general one does.

use zkd::ids::{SessionId, Zxid};

use super::line::{OpLine, needs_path};
use super::{Kind, Outcome};

/// The operation at the beginning of these bytes, and what comes behind its line; `None` if the general reader has to
/// say what this line is.
pub(super) fn op(bytes: &[u8]) -> Option<(OpLine<'_>, &[u8])> {
    let mut at = Cursor { rest: bytes };
    let mut op = OpLine::new(Kind::Sync);
    at.asked(&mut op)?;
    at.answered(&mut op)?;
    at.shown(&mut op)?;
    if !at.literal(b"}") || !(at.literal(b"\n") || at.rest.is_empty()) {
        return None;
    }
    (op.path.is_some() || !needs_path(op.kind)).then_some((op, at.rest))
}

/// So many digits fit into 64 bits for sure.
const DIGITS_MAX: usize = 18;

struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// What was asked, up to `t0`.
    fn asked(&mut self, op: &mut OpLine<'a>) -> Option<()> {
        op.id = self.needed(b"{\"k\":\"op\",\"id\":")?;
        op.client = self.needed(b",\"c\":")?;
        if !self.literal(b",\"s\":") {
            return None;
        }
        op.session = SessionId(self.hex()?);
        op.conn = self.needed(b",\"conn\":")?;
        op.xid = self.needed(b",\"xid\":")?;
        if !self.literal(b",\"op\":") {
            return None;
        }
        op.kind = Kind::of_word(self.text()?)?;
        if self.literal(b",\"path\":") {
            op.path = Some(self.text()?);
        }
        if self.literal(b",\"made\":") {
            op.made = Some(self.text()?);
        }
        op.watch = self.literal(b",\"watch\":true");
        op.ephemeral = self.literal(b",\"eph\":true");
        op.sequential = self.literal(b",\"seq\":true");
        self.number(b",\"exp\":", &mut op.expected)?;
        self.number(b",\"val\":", &mut op.value)?;
        op.t0 = self.needed(b",\"t0\":")?;
        Some(())
    }

    /// How it ended.
    fn answered(&mut self, op: &mut OpLine<'a>) -> Option<()> {
        op.outcome = if self.literal(b",\"out\":\"ok\"") {
            Outcome::Ok
        } else if self.literal(b",\"out\":\"failed\"") {
            Outcome::Failed(self.needed(b",\"code\":")?)
        } else if self.literal(b",\"out\":\"unknown\"") {
            Outcome::Unknown
        } else {
            return None;
        };
        self.number(b",\"t1\":", &mut op.t1)?;
        self.number(b",\"pos\":", &mut op.pos)?;
        self.zxid(b",\"z\":", &mut op.zxid)
    }

    /// What came back.
    fn shown(&mut self, op: &mut OpLine<'a>) -> Option<()> {
        self.number(b",\"ver\":", &mut op.version)?;
        self.zxid(b",\"cz\":", &mut op.czxid)?;
        self.zxid(b",\"mz\":", &mut op.mzxid)?;
        self.zxid(b",\"pz\":", &mut op.pzxid)?;
        self.zxid(b",\"rel\":", &mut op.rel)?;
        if self.literal(b",\"owner\":") {
            op.owner = SessionId(self.hex()?);
        }
        if self.literal(b",\"kids\":") {
            op.kids = Some(self.text()?);
        }
        Some(())
    }

    /// Goes behind these bytes if they stand here.
    ///
    /// Their number is part of the type, so that the comparison becomes one or two of whole words.
    #[inline]
    fn literal<const N: usize>(&mut self, wanted: &[u8; N]) -> bool {
        match self.rest.split_first_chunk::<N>() {
            Some((first, behind)) if first == wanted => {
                self.rest = behind;
                true
            }
            _ => false,
        }
    }

    /// A number that has to be there.
    #[inline]
    fn needed<T: TryFrom<i64>, const N: usize>(&mut self, key: &[u8; N]) -> Option<T> {
        if self.literal(key) {
            self.digits()
        } else {
            None
        }
    }

    /// A number, if it is there.
    #[inline]
    fn number<T: TryFrom<i64>, const N: usize>(
        &mut self,
        key: &[u8; N],
        into: &mut T,
    ) -> Option<()> {
        if self.literal(key) {
            *into = self.digits()?;
        }
        Some(())
    }

    /// A zxid, if it is there.
    #[inline]
    fn zxid<const N: usize>(&mut self, key: &[u8; N], into: &mut Zxid) -> Option<()> {
        if self.literal(key) {
            *into = Zxid(self.hex()?);
        }
        Some(())
    }

    fn digits<T: TryFrom<i64>>(&mut self) -> Option<T> {
        let is_negative = self.literal(b"-");
        let mut value = 0_i64;
        let mut count = 0;
        while let Some(digit) = self.rest.get(count).filter(|byte| byte.is_ascii_digit()) {
            if count == DIGITS_MAX {
                return None;
            }
            value = value * 10 + i64::from(digit - b'0');
            count += 1;
        }
        self.rest = &self.rest[count..];
        // A number that goes on behind its digits is not whole; the next field or the end is not found then.
        (count > 0).then_some(())?;
        T::try_from(if is_negative { -value } else { value }).ok()
    }

    /// `"0x100000012"`; all 64 bits.
    fn hex(&mut self) -> Option<i64> {
        if !self.literal(b"\"0x") {
            return None;
        }
        let mut value = 0_u64;
        let mut count = 0;
        loop {
            let digit = match *self.rest.get(count)? {
                digit @ b'0'..=b'9' => digit - b'0',
                digit @ b'a'..=b'f' => digit - b'a' + 10,
                b'"' if count > 0 => break,
                _ => return None,
            };
            if count == 16 {
                return None;
            }
            value = value << 4 | u64::from(digit);
            count += 1;
        }
        self.rest = &self.rest[count + 1..];
        Some(value.cast_signed())
    }

    /// A string. Whatever could be an escape, the end of the line or no UTF-8 is left to the general reader.
    fn text(&mut self) -> Option<&'a str> {
        if !self.literal(b"\"") {
            return None;
        }
        let length = self
            .rest
            .iter()
            .position(|byte| matches!(byte, b'"' | b'\\' | b'\n'))?;
        let (text, behind) = self.rest.split_at(length);
        self.rest = behind;
        self.literal(b"\"").then_some(())?;
        std::str::from_utf8(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use zkd::prng::Prng;

    use super::*;
    use crate::observe::history::Line;

    /// A number of any length, so that every field is short, long and at its bounds.
    fn number(prng: &mut Prng) -> u64 {
        let bits = prng.below(65);
        prng.below(u64::MAX)
            .checked_shr(64 - u32::try_from(bits).unwrap())
            .unwrap_or(0)
    }

    fn some<T>(prng: &mut Prng, of: impl FnOnce(&mut Prng) -> T, otherwise: T) -> T {
        if prng.below(2) == 0 {
            of(prng)
        } else {
            otherwise
        }
    }

    /// Any operation that can be written down; no parts, for those are left to the general reader.
    fn any(prng: &mut Prng) -> OpLine<'static> {
        const TEXTS: [&str; 5] = ["/", "/load-0000000000/r/7", "/ä/ü", "", "/a b,\":{}"];
        let mut op = OpLine::new(*prng.pick(&Kind::ALL));
        let n32 = |prng: &mut Prng| (number(prng) >> 32) as u32;
        let i64s = |prng: &mut Prng| number(prng).cast_signed();
        // Times of more than 63 bits cannot be read.
        let time = |prng: &mut Prng| number(prng) >> 1;
        let text = |prng: &mut Prng| Some(*prng.pick(&TEXTS[..4]));
        (op.id, op.client, op.conn, op.pos) = (n32(prng), n32(prng), n32(prng), n32(prng));
        (op.session, op.xid) = (SessionId(i64s(prng)), n32(prng).cast_signed());
        (op.path, op.made) = (some(prng, text, None), some(prng, text, None));
        op.kids = some(prng, text, None);
        (op.watch, op.ephemeral) = (prng.below(2) == 0, prng.below(2) == 0);
        op.sequential = prng.below(2) == 0;
        op.expected = some(prng, |prng| n32(prng).cast_signed(), -1);
        op.version = some(prng, |prng| n32(prng).cast_signed(), -1);
        (op.value, op.t0, op.t1) = (some(prng, n32, 0), time(prng), time(prng));
        op.outcome = match prng.below(3) {
            0 => Outcome::Ok,
            1 => Outcome::Failed(n32(prng).cast_signed()),
            _ => Outcome::Unknown,
        };
        for zxid in [
            &mut op.zxid,
            &mut op.czxid,
            &mut op.mzxid,
            &mut op.pzxid,
            &mut op.rel,
        ] {
            *zxid = Zxid(some(prng, i64s, 0));
        }
        op.owner = SessionId(some(prng, i64s, 0));
        op
    }

    #[test]
    fn it_reads_what_is_written_as_the_general_reader_does() {
        let mut prng = Prng::new(11);
        let mut read = 0;
        for _ in 0..5_000 {
            let mut text = String::new();
            Line::Op(any(&mut prng)).encode(&mut text);
            match (op(text.as_bytes()), Line::decode_slowly(text.as_bytes())) {
                (Some((quick, rest)), slow) => {
                    assert_eq!(slow, Ok(Some(Line::Op(quick))), "{text}");
                    assert!(rest.is_empty());
                    read += 1;
                }
                // No path where there has to be one, or 19 digits.
                (None, Ok(Some(Line::Op(slow)))) => assert!(slow.t0.max(slow.t1) >= 10_u64.pow(18)),
                (None, slow) => assert!(slow.is_err(), "{text}"),
            }
        }
        assert!(read > 1_000, "{read}");
    }

    #[test]
    fn it_never_understands_a_line_otherwise_than_the_general_reader() {
        let mut prng = Prng::new(12);
        let strange = b"{}[]\":,\\-09tfn a\xff.eExX\n\r";
        let (mut understood, mut left) = (0, 0);
        for _ in 0..40_000 {
            let mut text = String::new();
            Line::Op(any(&mut prng)).encode(&mut text);
            let mut bytes = text.into_bytes();
            for _ in 0..=prng.below(2) {
                let at = usize::try_from(prng.below(bytes.len() as u64)).unwrap();
                match prng.below(4) {
                    0 => drop(bytes.remove(at)),
                    1 => bytes.insert(at, *prng.pick(strange)),
                    2 => bytes.truncate(at.max(1)),
                    _ => bytes[at] = *prng.pick(strange),
                }
            }
            let Some((quick, rest)) = op(&bytes) else {
                left += 1;
                continue;
            };
            let line = &bytes[..bytes.len() - rest.len()];
            assert_eq!(
                Line::decode_slowly(line),
                Ok(Some(Line::Op(quick))),
                "{}",
                String::from_utf8_lossy(line)
            );
            understood += 1;
        }
        assert!(understood > 1_000 && left > 1_000, "{understood} {left}");
    }

    #[test]
    fn it_stops_behind_the_line() {
        let mut text = String::new();
        let mut line = OpLine::new(Kind::Get);
        (line.id, line.path) = (3, Some("/a"));
        Line::Op(line).encode(&mut text);
        let whole = text.clone() + "next";
        assert_eq!(op(whole.as_bytes()).unwrap().1, b"next");
        assert!(op(text.trim_end().as_bytes()).is_some());
        assert!(op(text.replace('}', "} ").as_bytes()).is_none());
        assert!(op(b"").is_none());
    }
}
