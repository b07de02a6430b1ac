//! Writing HTML, SVG and XML: a string that grows, and in which no text can ever be taken for markup.

use std::fmt::{self, Display, Write};

/// Attributes: names and values.
pub(super) type Attributes<'a> = &'a [(&'a str, &'a dyn Display)];

/// A document that grows.
#[derive(Debug, Default)]
pub(super) struct Markup {
    out: String,
}

/// Passes text on with every character that means something in markup written as an entity, and without those that
/// XML has no way to say.
struct Escaped<'a>(&'a mut String);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                '\t' | '\n' => self.0.push(c),
                '\0'..='\u{1f}' | '\u{7f}' | '\u{fffe}' | '\u{ffff}' => self.0.push('\u{fffd}'),
                c => self.0.push(c),
            }
        }
        Ok(())
    }
}

impl Markup {
    /// What stands there already is markup: a document type, a style sheet of our own.
    pub(super) fn raw(&mut self, markup: &str) -> &mut Self {
        self.out.push_str(markup);
        self
    }

    /// Text.
    pub(super) fn text(&mut self, text: impl Display) -> &mut Self {
        // Writing into a string cannot fail.
        let _ = write!(Escaped(&mut self.out), "{text}");
        self
    }

    fn begin(&mut self, tag: &str, attributes: Attributes<'_>) {
        self.out.push('<');
        self.out.push_str(tag);
        for (name, value) in attributes {
            self.out.push(' ');
            self.out.push_str(name);
            self.out.push_str("=\"");
            let _ = write!(Escaped(&mut self.out), "{value}");
            self.out.push('"');
        }
    }

    /// Opens an element.
    pub(super) fn open(&mut self, tag: &str, attributes: Attributes<'_>) -> &mut Self {
        self.begin(tag, attributes);
        self.out.push('>');
        self
    }

    /// Closes one.
    pub(super) fn close(&mut self, tag: &str) -> &mut Self {
        self.out.push_str("</");
        self.out.push_str(tag);
        self.out.push_str(">\n");
        self
    }

    /// An element that holds text only.
    pub(super) fn element(
        &mut self,
        tag: &str,
        attributes: Attributes<'_>,
        text: impl Display,
    ) -> &mut Self {
        self.open(tag, attributes).text(text).close(tag)
    }

    /// An element that holds nothing, as SVG and XML write it.
    pub(super) fn empty(&mut self, tag: &str, attributes: Attributes<'_>) -> &mut Self {
        self.begin(tag, attributes);
        self.out.push_str("/>\n");
        self
    }

    /// A shape of SVG that says what it is when the pointer rests on it.
    pub(super) fn titled(
        &mut self,
        tag: &str,
        attributes: Attributes<'_>,
        title: impl Display,
    ) -> &mut Self {
        self.open(tag, attributes)
            .open("title", &[])
            .text(title)
            .raw("</title>")
            .close(tag)
    }

    /// The document.
    pub(super) fn finish(self) -> String {
        self.out
    }
}

/// A coordinate: three decimals at most, and none that say nothing.
pub(super) fn px(value: f64) -> String {
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" {
        "0".to_owned()
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_is_ever_markup() {
        let mut page = Markup::default();
        page.element(
            "p",
            &[("title", &"a\"b'<c>")],
            "<script>1 && 2</script>\u{1}",
        );
        assert_eq!(
            page.finish(),
            "<p title=\"a&quot;b&#39;&lt;c&gt;\">&lt;script&gt;1 &amp;&amp; 2&lt;/script&gt;\u{fffd}</p>\n"
        );
    }

    #[test]
    fn coordinates_are_short() {
        assert_eq!(px(1.0), "1");
        assert_eq!(px(1.250_04), "1.25");
        assert_eq!(px(-0.000_01), "0");
        assert_eq!(px(100.0), "100");
    }
}
