//! What all pages have in common: one file, one style, light and dark.

use crate::report::markup::Markup;

/// The style sheet.
const STYLE: &str = include_str!("html/style.css");

/// Everything before the content; `style` is what this kind of page needs besides.
pub(in crate::report) fn begin(page: &mut Markup, title: &str, style: &str) {
    page.raw("<!DOCTYPE html>\n");
    page.open("html", &[("lang", &"en")]);
    page.open("head", &[]);
    page.empty("meta", &[("charset", &"utf-8")]);
    page.empty(
        "meta",
        &[
            ("name", &"viewport"),
            ("content", &"width=device-width, initial-scale=1"),
        ],
    );
    page.empty(
        "meta",
        &[("name", &"color-scheme"), ("content", &"light dark")],
    );
    page.element("title", &[], title);
    page.raw("<style>\n").raw(STYLE).raw(style);
    page.raw("</style>\n");
    page.close("head");
    page.open("body", &[]);
    page.open("main", &[]);
}

/// Everything after it.
pub(in crate::report) fn end(page: &mut Markup) {
    page.close("main");
    page.close("body");
    page.close("html");
}
