//! Flat JSON objects, read field by field without building anything.
//!
//! A million lines have to be read in about half a second, so this knows only what the format uses: one object a
//! line, strings without escapes, whole numbers, booleans, and arrays of such objects.

use std::fmt;

/// A line that is not of the format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    what: String,
}

impl Malformed {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into() }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// A value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Text(&'a str),
    Number(i64),
    Bool(bool),
    /// An array or an object, as it stands.
    Nested(&'a [u8]),
    Null,
}

impl<'a> Value<'a> {
    pub(super) fn text(self) -> Result<&'a str, Malformed> {
        match self {
            Self::Text(text) => Ok(text),
            _ => Err(Malformed::new("a field that has to be a string is not")),
        }
    }

    pub(super) fn number<T: TryFrom<i64>>(self) -> Result<T, Malformed> {
        match self {
            Self::Number(number) => {
                T::try_from(number).map_err(|_| Malformed::new(format!("{number} is out of range")))
            }
            _ => Err(Malformed::new(
                "a field that has to be a whole number is not",
            )),
        }
    }

    pub(super) fn truth(self) -> Result<bool, Malformed> {
        match self {
            Self::Bool(truth) => Ok(truth),
            _ => Err(Malformed::new(
                "a field that has to be true or false is not",
            )),
        }
    }

    /// `"0x100000012"`; all 64 bits.
    pub(super) fn hex(self) -> Result<i64, Malformed> {
        let text = self.text()?;
        let digits = text.strip_prefix("0x").unwrap_or_default().as_bytes();
        if digits.is_empty() || digits.len() > 16 {
            return Err(Malformed::new(format!(
                "{text:?} is not a hexadecimal number"
            )));
        }
        let mut value = 0_u64;
        for digit in digits {
            let digit = char::from(*digit)
                .to_digit(16)
                .ok_or_else(|| Malformed::new(format!("{text:?} is not a hexadecimal number")))?;
            value = value << 4 | u64::from(digit);
        }
        Ok(value.cast_signed())
    }
}

/// The fields of one object, in the order in which they stand.
#[derive(Clone, Debug)]
pub(super) struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Something has been read, so that a comma has to come next.
    begun: bool,
}

impl<'a> Fields<'a> {
    /// The fields of the object that begins here.
    pub(super) fn of(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut fields = Self {
            bytes,
            at: 0,
            begun: false,
        };
        fields.expect(b'{')?;
        Ok(fields)
    }

    /// The next field; `None` after the last, when nothing but space may follow.
    pub(super) fn next(&mut self) -> Result<Option<(&'a str, Value<'a>)>, Malformed> {
        if self.peek() == Some(b'}') {
            self.at += 1;
            return match self.peek() {
                None => Ok(None),
                Some(_) => Err(self.wrong("something stands behind the object")),
            };
        }
        if self.begun {
            self.expect(b',')?;
        }
        self.begun = true;
        let key = self.string()?;
        self.expect(b':')?;
        Ok(Some((key, self.value()?)))
    }

    fn wrong(&self, what: &str) -> Malformed {
        Malformed::new(format!("{what} (at byte {})", self.at))
    }

    fn peek(&mut self) -> Option<u8> {
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        self.bytes.get(self.at).copied()
    }

    fn expect(&mut self, wanted: u8) -> Result<(), Malformed> {
        if self.peek() == Some(wanted) {
            self.at += 1;
            return Ok(());
        }
        Err(self.wrong(&format!("{:?} is missing", char::from(wanted))))
    }

    fn string(&mut self) -> Result<&'a str, Malformed> {
        self.expect(b'"')?;
        let rest = &self.bytes[self.at..];
        let length = rest
            .iter()
            .position(|byte| matches!(byte, b'"' | b'\\'))
            .ok_or_else(|| self.wrong("a string does not end"))?;
        if rest[length] == b'\\' {
            return Err(self.wrong("a string has an escape"));
        }
        self.at += length + 1;
        std::str::from_utf8(&rest[..length]).map_err(|_| self.wrong("a string is not UTF-8"))
    }

    fn value(&mut self) -> Result<Value<'a>, Malformed> {
        let first = self
            .peek()
            .ok_or_else(|| self.wrong("a value is missing"))?;
        match first {
            b'"' => Ok(Value::Text(self.string()?)),
            b'-' | b'0'..=b'9' => self.number(),
            b'[' | b'{' => self.nested(),
            _ => {
                let rest = &self.bytes[self.at..];
                for (word, value) in [
                    (&b"true"[..], Value::Bool(true)),
                    (b"false", Value::Bool(false)),
                    (b"null", Value::Null),
                ] {
                    if rest.starts_with(word) {
                        self.at += word.len();
                        return Ok(value);
                    }
                }
                Err(self.wrong("a value is not understood"))
            }
        }
    }

    fn number(&mut self) -> Result<Value<'a>, Malformed> {
        let negative = self.bytes[self.at] == b'-';
        let begin = self.at + usize::from(negative);
        let mut at = begin;
        let mut value = 0_i64;
        while let Some(digit) = self.bytes.get(at).filter(|byte| byte.is_ascii_digit()) {
            value = value
                .checked_mul(10)
                .and_then(|value| value.checked_add(i64::from(digit - b'0')))
                .ok_or_else(|| self.wrong("a number is too large"))?;
            at += 1;
        }
        if at == begin || matches!(self.bytes.get(at), Some(b'.' | b'e' | b'E')) {
            return Err(self.wrong("a number is not whole"));
        }
        self.at = at;
        Ok(Value::Number(if negative { -value } else { value }))
    }

    /// An array or object is passed over as a whole.
    fn nested(&mut self) -> Result<Value<'a>, Malformed> {
        let begin = self.at;
        let mut depth = 0_u32;
        while let Some(byte) = self.peek() {
            match byte {
                b'"' => {
                    self.string()?;
                    continue;
                }
                b'[' | b'{' => depth += 1,
                b']' | b'}' => depth -= 1,
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                return Ok(Value::Nested(&self.bytes[begin..self.at]));
            }
        }
        Err(self.wrong("an array or object does not end"))
    }
}

/// The objects in an array of objects.
pub(super) fn objects(array: &[u8]) -> Result<Vec<Fields<'_>>, Malformed> {
    let wrong = || Malformed::new("not an array of objects");
    let inside = array
        .strip_prefix(b"[")
        .and_then(|rest| rest.strip_suffix(b"]"))
        .ok_or_else(wrong)?;
    let mut walk = Fields {
        bytes: inside,
        at: 0,
        begun: false,
    };
    let mut found = Vec::new();
    while walk.peek().is_some() {
        if walk.begun {
            walk.expect(b',')?;
        }
        walk.begun = true;
        match walk.value()? {
            Value::Nested(object) => found.push(Fields::of(object)?),
            _ => return Err(wrong()),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use zkd::prng::Prng;

    use super::*;

    fn all(text: &str) -> Result<Vec<(String, String)>, Malformed> {
        let mut fields = Fields::of(text.as_bytes())?;
        let mut found = Vec::new();
        while let Some((key, value)) = fields.next()? {
            found.push((key.to_owned(), format!("{value:?}")));
        }
        Ok(found)
    }

    #[test]
    fn fields_are_read_as_json_means_them() {
        let text = r#" {"a":"x y", "b" : -12,"c":true,"d":[{"e":1},{"f":"]}"}],"g":null} "#;
        let found = all(text).unwrap();
        let keys: Vec<&str> = found.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["a", "b", "c", "d", "g"]);
        assert_eq!(found[1].1, "Number(-12)");
        assert!(all("{}").unwrap().is_empty());
        let parts = objects(br#"[{"e":1},{"f":"]}"}]"#).unwrap();
        assert_eq!(parts.len(), 2);
        assert_eq!(Value::Text("0xffffffffffffffff").hex(), Ok(-1));
    }

    #[test]
    fn what_is_not_of_the_format_is_refused() {
        for wrong in [
            "",
            "{",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1",
            "{\"a\":1}x",
            "{\"a\":1.5}",
            "{\"a\":\"\\n\"}",
            "{\"a\":1 \"b\":2}",
            "{\"a\":99999999999999999999}",
            "{\"a\":[}",
            "[1]",
            "{\"a\":nul}",
            "{\"a\":-}",
        ] {
            assert!(all(wrong).is_err(), "{wrong}");
        }
        assert!(Value::Text("0x").hex().is_err());
        assert!(Value::Text("12").hex().is_err());
        assert!(Value::Text("0x11112222333344445").hex().is_err());
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut prng = Prng::new(7);
        let alphabet = b"{}[]\":,\\-09tfn a\xff";
        for _ in 0..20_000 {
            let length = prng.below(24);
            let bytes: Vec<u8> = (0..length).map(|_| *prng.pick(alphabet)).collect();
            if let Ok(mut fields) = Fields::of(&bytes) {
                while let Ok(Some((_, value))) = fields.next() {
                    if let Value::Nested(inside) = value {
                        let _ = objects(inside);
                    }
                }
            }
        }
    }
}
