//! The syntax of `zoo.cfg`: Java's properties format.
//!
//! Law kept here: this file knows lines, escapes and separators, and no key at all. It accepts what
//! `java.util.Properties.load` accepts (comments with `#` or `!`, `=`, `:` or blanks as the separator,
//! a backslash before the line end joins lines, `\uXXXX`) and keeps order and line numbers, which
//! Java forgets. Values and keys are trimmed as `QuorumPeerConfig` does.

use super::error::Problem;

/// One `key=value` of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Property {
    /// The line on which the key stands, from 1.
    pub(super) line: usize,
    /// The key, unescaped and trimmed.
    pub(super) key: String,
    /// The value, unescaped and trimmed; empty when the line has only a key.
    pub(super) value: String,
}

/// Reads every property of `text`, in the order of the file, doubles included.
///
/// # Errors
/// The only thing that the format refuses is a `\u` without four hexadecimal digits.
pub(super) fn parse(text: &str) -> Result<Vec<Property>, Problem> {
    let mut properties = Vec::new();
    for (line, logical) in logical_lines(text) {
        let (key, value) = split(&logical);
        let key = unescape(key, line)?.trim().to_owned();
        let value = unescape(value, line)?.trim().to_owned();
        properties.push(Property { line, key, value });
    }
    Ok(properties)
}

/// Joins continued lines; drops comments and empty lines. The number is that of the first line.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    let mut continues = false;
    for (index, natural) in natural_lines(text).into_iter().enumerate() {
        let content = natural.trim_start_matches(is_blank);
        if !continues && (content.is_empty() || content.starts_with(['#', '!'])) {
            continue;
        }
        let backslashes = content.chars().rev().take_while(|c| *c == '\\').count();
        let open = backslashes % 2 == 1;
        let kept = if open {
            &content[..content.len() - 1]
        } else {
            content
        };
        match lines.last_mut() {
            Some((_, line)) if continues => line.push_str(kept),
            _ => lines.push((index + 1, kept.to_owned())),
        }
        continues = open;
    }
    lines.retain(|(_, line)| !line.is_empty());
    lines
}

/// Lines end with `\n`, `\r` or both.
fn natural_lines(text: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    for part in text.split('\n') {
        lines.extend(part.strip_suffix('\r').unwrap_or(part).split('\r'));
    }
    lines
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\u{c}')
}

/// Splits a logical line at its first separator that is not escaped.
fn split(line: &str) -> (&str, &str) {
    let mut escaped = false;
    let end = line
        .char_indices()
        .find(|(_, c)| {
            let found = !escaped && (is_blank(*c) || matches!(c, '=' | ':'));
            escaped = !escaped && *c == '\\';
            found
        })
        .map_or(line.len(), |(at, _)| at);
    let (key, rest) = line.split_at(end);
    let rest = rest.trim_start_matches(is_blank);
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (key, rest.trim_start_matches(is_blank))
}

fn unescape(text: &str, line: usize) -> Result<String, Problem> {
    if !text.contains('\\') {
        return Ok(text.to_owned());
    }
    // Java escapes UTF-16 units, so a character outside the basic plane is two escapes.
    let mut units: Vec<u16> = Vec::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            units.extend(c.encode_utf16(&mut [0; 2]).iter());
            continue;
        }
        match chars.next() {
            None => {}
            Some('t') => units.push(u16::from(b'\t')),
            Some('n') => units.push(u16::from(b'\n')),
            Some('r') => units.push(u16::from(b'\r')),
            Some('f') => units.push(0xc),
            Some('u') => {
                let digits: String = chars.by_ref().take(4).collect();
                let unit = (digits.len() == 4 && !digits.starts_with('+'))
                    .then(|| u16::from_str_radix(&digits, 16).ok())
                    .flatten();
                units.push(unit.ok_or_else(|| bad_escape(line, &digits))?);
            }
            Some(other) => units.extend(other.encode_utf16(&mut [0; 2]).iter()),
        }
    }
    Ok(String::from_utf16_lossy(&units))
}

fn bad_escape(line: usize, digits: &str) -> Problem {
    Problem {
        line: Some(line),
        key: None,
        value: None,
        what: format!("\\u{digits} is not an escape: expected four hexadecimal digits after \\u"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(usize, String, String)> {
        parse(text)
            .unwrap()
            .into_iter()
            .map(|p| (p.line, p.key, p.value))
            .collect()
    }

    fn one(text: &str) -> (String, String) {
        let mut all = pairs(text);
        assert_eq!(all.len(), 1, "{text:?}: {all:?}");
        let (_, key, value) = all.remove(0);
        (key, value)
    }

    #[test]
    fn separators_as_in_java() {
        for text in ["a=b", "a:b", "a b", "a = b", "  a\t:  b  ", "a\u{c}b"] {
            assert_eq!(one(text), ("a".into(), "b".into()), "{text:?}");
        }
        assert_eq!(one("a==b"), ("a".into(), "=b".into()));
        assert_eq!(one("a : = b"), ("a".into(), "= b".into()));
        assert_eq!(one("a"), ("a".into(), String::new()));
        assert_eq!(one("a="), ("a".into(), String::new()));
        assert_eq!(
            one("server.1=h:1:2;3"),
            ("server.1".into(), "h:1:2;3".into())
        );
    }

    #[test]
    fn comments_and_continuations() {
        let text = "# c \\\n! d\n\n \t\na = 1,\\\n    2,\\\r\n  # 3\nb=\\\\\nc=\\\n";
        assert_eq!(
            pairs(text),
            [
                (5, "a".into(), "1,2,# 3".into()),
                (8, "b".into(), "\\".into()),
                (9, "c".into(), String::new()),
            ]
        );
    }

    #[test]
    fn line_ends() {
        assert_eq!(
            pairs("a=1\rb=2\r\nc=3"),
            [
                (1, "a".into(), "1".into()),
                (2, "b".into(), "2".into()),
                (3, "c".into(), "3".into()),
            ]
        );
    }

    #[test]
    fn escapes() {
        assert_eq!(one("a\\ b\\=c=d"), ("a b=c".into(), "d".into()));
        assert_eq!(
            one("a=\\u00e9\\t\\q\\ud83d\\ude00x"),
            ("a".into(), "é\tq😀x".into())
        );
        assert_eq!(one("a=C:\\\\zk"), ("a".into(), "C:\\zk".into()));
        for text in ["a=\\u12", "a=\\u12g4", "a=\\u+123", "\nb\\u=1"] {
            let problem = parse(text).unwrap_err();
            assert!(problem.line.is_some(), "{text:?}");
            assert!(problem.what.contains("four hexadecimal digits"), "{text:?}");
        }
    }
}
