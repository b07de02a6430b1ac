//! jute: bytes to values and back, limits first.
//!
//! Big-endian integers; strings, buffers and vectors with a 32-bit count in front, -1 for null;
//! records are their fields in order, nothing between. Decoding is total: any input gives a value or
//! a [`DecodeError`], never a panic, and nothing is allocated before the bytes for it are known to be
//! there. What is left after a record is the caller's business ([`Reader::finish`]).
//! Counterpart: `BinaryInputArchive`, `BinaryOutputArchive`.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;

/// Why bytes are not the value they should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The input ended inside `what`.
    Truncated {
        /// The field or type being read.
        what: &'static str,
        /// Bytes it needed.
        needed: usize,
        /// Bytes that were left.
        left: usize,
    },
    /// A length is negative (and not the -1 of null) or over the limit.
    Length {
        /// The field or type being read.
        what: &'static str,
        /// The length as read.
        length: i32,
    },
    /// A null where the field must have a value.
    Null {
        /// The field.
        what: &'static str,
    },
    /// A number that is none of the allowed ones (opcode, txn type, magic …).
    Value {
        /// The field.
        what: &'static str,
        /// The number as read.
        value: i64,
    },
    /// A record that makes no sense where it stands.
    Invalid {
        /// What was found.
        what: &'static str,
    },
    /// Bytes left over where the record must fill its frame.
    Trailing {
        /// How many.
        count: usize,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { what, needed, left } => {
                write!(f, "{what} needs {needed} bytes, {left} are left")
            }
            Self::Length { what, length } => {
                write!(f, "{what} has the unreasonable length {length}")
            }
            Self::Null { what } => write!(f, "{what} is null"),
            Self::Value { what, value } => write!(f, "{what} has the unknown value {value}"),
            Self::Invalid { what } => write!(f, "{what} is not possible"),
            Self::Trailing { count } => write!(f, "{count} bytes follow the record"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Reads values off the front of a byte slice.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    /// The shared buffer `rest` is part of, if there is one: buffers are then sliced off it without
    /// a copy.
    shared: Option<&'a Bytes>,
}

impl<'a> Reader<'a> {
    /// Reads from a slice; buffers are copied out.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            shared: None,
        }
    }

    /// Reads from a shared buffer; buffers inside become slices of it.
    #[must_use]
    pub fn shared(bytes: &'a Bytes) -> Self {
        Self {
            rest: bytes,
            shared: Some(bytes),
        }
    }

    /// The bytes not read yet.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The bytes not read yet, as a buffer (a slice of the shared one where there is one).
    #[must_use]
    pub fn rest_bytes(&self) -> Bytes {
        self.to_bytes(self.rest)
    }

    /// Whether everything has been read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// # Errors
    /// [`DecodeError::Trailing`] if anything is left.
    pub fn finish(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::Trailing {
                count: self.rest.len(),
            })
        }
    }

    fn to_bytes(&self, part: &'a [u8]) -> Bytes {
        self.shared.map_or_else(
            || Bytes::copy_from_slice(part),
            |whole| whole.slice_ref(part),
        )
    }

    /// Takes the next `count` bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] if fewer are left.
    #[inline]
    pub fn take(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        if self.rest.len() < count {
            return Err(DecodeError::Truncated {
                what,
                needed: count,
                left: self.rest.len(),
            });
        }
        let (head, tail) = self.rest.split_at(count);
        self.rest = tail;
        Ok(head)
    }

    /// Takes the next bytes, as many as the array has.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] if fewer are left.
    #[inline]
    pub fn array<const N: usize>(
        &mut self,
        what: &'static str,
    ) -> Result<&'a [u8; N], DecodeError> {
        let Some((head, tail)) = self.rest.split_first_chunk() else {
            return Err(DecodeError::Truncated {
                what,
                needed: N,
                left: self.rest.len(),
            });
        };
        self.rest = tail;
        Ok(head)
    }

    /// A 32-bit integer.
    ///
    /// # Errors
    /// If fewer than 4 bytes are left.
    #[inline]
    pub fn int(&mut self, what: &'static str) -> Result<i32, DecodeError> {
        Ok(i32::from_be_bytes(*self.array(what)?))
    }

    /// A 64-bit integer.
    ///
    /// # Errors
    /// If fewer than 8 bytes are left.
    #[inline]
    pub fn long(&mut self, what: &'static str) -> Result<i64, DecodeError> {
        Ok(i64::from_be_bytes(*self.array(what)?))
    }

    /// A boolean; any byte but 0 is true, as in Apache.
    ///
    /// # Errors
    /// If no byte is left.
    pub fn bool(&mut self, what: &'static str) -> Result<bool, DecodeError> {
        Ok(self.array::<1>(what)?[0] != 0)
    }

    /// The length in front of a string or buffer: `None` for null.
    #[inline]
    fn length(&mut self, what: &'static str) -> Result<Option<usize>, DecodeError> {
        match self.int(what)? {
            -1 => Ok(None),
            length => usize::try_from(length)
                .map(Some)
                .map_err(|_| DecodeError::Length { what, length }),
        }
    }

    /// A buffer; `None` is jute's null, which is not the empty buffer.
    ///
    /// # Errors
    /// On a bad length or too few bytes.
    pub fn buffer(&mut self, what: &'static str) -> Result<Option<Bytes>, DecodeError> {
        match self.length(what)? {
            None => Ok(None),
            Some(length) => self
                .take(length, what)
                .map(|part| Some(self.to_bytes(part))),
        }
    }

    /// A string that may be null. Bytes that are not UTF-8 become U+FFFD, as in Apache; path
    /// validation then refuses them.
    ///
    /// # Errors
    /// On a bad length or too few bytes.
    pub fn opt_string(&mut self, what: &'static str) -> Result<Option<String>, DecodeError> {
        match self.length(what)? {
            None => Ok(None),
            Some(length) => Ok(Some(text(self.take(length, what)?).into_owned())),
        }
    }

    /// A string that must not be null.
    ///
    /// # Errors
    /// As [`Self::opt_string`], and on null.
    pub fn string(&mut self, what: &'static str) -> Result<String, DecodeError> {
        self.opt_string(what)?.ok_or(DecodeError::Null { what })
    }

    /// A string that must not be null, borrowed from the input where it is valid UTF-8.
    ///
    /// # Errors
    /// As [`Self::string`].
    #[inline]
    pub fn str(&mut self, what: &'static str) -> Result<Cow<'a, str>, DecodeError> {
        let length = self.length(what)?.ok_or(DecodeError::Null { what })?;
        Ok(text(self.take(length, what)?))
    }

    /// A vector; `None` is null. Any other count below 1 is empty, as in Apache.
    ///
    /// # Errors
    /// If an element cannot be read.
    pub fn vector<T: Record>(&mut self, what: &'static str) -> Result<Option<Vec<T>>, DecodeError> {
        let count = self.int(what)?;
        if count == -1 {
            return Ok(None);
        }
        // No capacity is reserved from the count: it is the sender's claim, the elements are the proof.
        let mut out = Vec::new();
        for _ in 0..count.max(0) {
            out.push(T::decode(self)?);
        }
        Ok(Some(out))
    }
}

/// Bytes as text. That they are valid UTF-8 is seen faster than it is seen where they are not.
#[inline]
fn text(bytes: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

/// Appends values to a byte vector.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    /// Appends to `out`.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// Raw bytes, no length in front.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// A 32-bit integer.
    pub fn int(&mut self, value: i32) {
        self.raw(&value.to_be_bytes());
    }

    /// A 64-bit integer.
    pub fn long(&mut self, value: i64) {
        self.raw(&value.to_be_bytes());
    }

    /// A boolean.
    pub fn bool(&mut self, value: bool) {
        self.out.push(u8::from(value));
    }

    fn length(&mut self, length: usize) {
        self.int(
            i32::try_from(length)
                .expect("everything encoded is below the 2 GiB a jute length can say"),
        );
    }

    /// A buffer; `None` is null.
    pub fn buffer(&mut self, value: Option<&[u8]>) {
        match value {
            None => self.int(-1),
            Some(bytes) => {
                self.length(bytes.len());
                self.raw(bytes);
            }
        }
    }

    /// A string.
    pub fn string(&mut self, value: &str) {
        self.buffer(Some(value.as_bytes()));
    }

    /// A string; `None` is null.
    pub fn opt_string(&mut self, value: Option<&str>) {
        self.buffer(value.map(str::as_bytes));
    }

    /// A vector; `None` is null.
    pub fn vector<T: Record>(&mut self, value: Option<&[T]>) {
        match value {
            None => self.int(-1),
            Some(items) => {
                self.length(items.len());
                for item in items {
                    item.encode(self);
                }
            }
        }
    }
}

/// A value with a jute form.
pub trait Record: Sized {
    /// Appends the value.
    fn encode(&self, out: &mut Writer<'_>);

    /// Reads one off the front of `from`.
    ///
    /// # Errors
    /// Names the first field that could not be read.
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError>;

    /// The value's bytes.
    fn to_vec(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut Writer::new(&mut out));
        out
    }

    /// Reads a value that fills `bytes` to the end.
    ///
    /// # Errors
    /// As [`Self::decode`], and [`DecodeError::Trailing`].
    fn from_slice(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let value = Self::decode(&mut reader)?;
        reader.finish()?;
        Ok(value)
    }
}

/// A value that can stand in a field of a record; the name of the field goes into errors.
pub trait Field: Sized {
    /// Appends the value.
    fn put(&self, out: &mut Writer<'_>);
    /// Reads the value.
    ///
    /// # Errors
    /// Names `what`.
    fn get(from: &mut Reader<'_>, what: &'static str) -> Result<Self, DecodeError>;
}

macro_rules! field {
    ($type:ty, |$value:ident, $out:ident| $put:expr, |$from:ident, $what:ident| $get:expr) => {
        impl Field for $type {
            #[inline]
            fn put(&self, $out: &mut Writer<'_>) {
                let $value = self;
                $put;
            }

            #[inline]
            fn get($from: &mut Reader<'_>, $what: &'static str) -> Result<Self, DecodeError> {
                $get
            }
        }
    };
}

field!(i32, |v, out| out.int(*v), |from, what| from.int(what));
field!(i64, |v, out| out.long(*v), |from, what| from.long(what));
field!(bool, |v, out| out.bool(*v), |from, what| from.bool(what));
field!(String, |v, out| out.string(v), |from, what| from
    .string(what));
field!(
    Option<String>,
    |v, out| out.opt_string(v.as_deref()),
    |from, what| from.opt_string(what)
);
field!(
    Option<Bytes>,
    |v, out| out.buffer(v.as_deref()),
    |from, what| from.buffer(what)
);

impl Record for String {
    fn encode(&self, out: &mut Writer<'_>) {
        out.string(self);
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        from.string("string")
    }
}

impl<T: Record> Field for Option<Vec<T>> {
    fn put(&self, out: &mut Writer<'_>) {
        out.vector(self.as_deref());
    }

    fn get(from: &mut Reader<'_>, what: &'static str) -> Result<Self, DecodeError> {
        from.vector(what)
    }
}

/// A vector in which null and empty mean the same.
impl<T: Record> Field for Vec<T> {
    fn put(&self, out: &mut Writer<'_>) {
        out.vector(Some(self));
    }

    fn get(from: &mut Reader<'_>, what: &'static str) -> Result<Self, DecodeError> {
        Ok(from.vector(what)?.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_empty_and_negative_are_told_apart() {
        let mut r = Reader::new(&[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xfb]);
        assert_eq!(r.buffer("a"), Ok(None));
        assert_eq!(r.buffer("b"), Ok(Some(Bytes::new())));
        assert_eq!(
            r.buffer("c"),
            Err(DecodeError::Length {
                what: "c",
                length: -5
            })
        );
    }

    #[test]
    fn a_length_beyond_the_input_allocates_nothing() {
        let mut r = Reader::new(&[0x7f, 0xff, 0xff, 0xff, 1, 2]);
        assert_eq!(
            r.buffer("data"),
            Err(DecodeError::Truncated {
                what: "data",
                needed: 0x7fff_ffff,
                left: 2
            })
        );
        let mut r = Reader::new(&[0x7f, 0xff, 0xff, 0xff]);
        assert!(r.vector::<String>("list").is_err());
    }

    #[test]
    fn vector_counts_below_minus_one_are_empty() {
        let mut r = Reader::new(&[0xff, 0xff, 0xff, 0xf9]);
        assert_eq!(r.vector::<String>("list"), Ok(Some(vec![])));
    }

    #[test]
    fn bad_utf8_becomes_the_replacement_character() {
        let mut r = Reader::new(&[0, 0, 0, 2, b'/', 0xc3]);
        assert_eq!(r.string("path").as_deref(), Ok("/\u{fffd}"));
    }

    #[test]
    fn shared_buffers_are_sliced_not_copied() {
        let whole = Bytes::from_static(&[0, 0, 0, 3, 7, 8, 9]);
        let part = Reader::shared(&whole).buffer("data").unwrap().unwrap();
        assert_eq!(part.as_ptr(), whole[4..].as_ptr());
    }
}
