//! The report of a run as one file: no script, font or picture from anywhere else, and all that matters is there
//! without scripts.
//!
//! Top to bottom in the order in which somebody asks: how did it end and what proves that; what happened when;
//! the elections; what was done; the numbers; where it ran.

mod broken;
mod diagram;
mod fate;
mod plots;
mod side_by_side;
mod tables;
mod timeline;
mod verdict;

pub use self::side_by_side::compare;
pub(super) use self::side_by_side::{rows, title};

use super::fate::Fate;
use super::folder::Folder;
use super::sheet;
use super::story::Story;
use super::witness;
use super::words::{length, moment};
use crate::report::markup::Markup;

/// What makes the timeline move; the page is whole without it.
const SCRIPT: &str = include_str!("script.js");

/// The page of a run.
#[must_use]
pub fn page(folder: &Folder) -> String {
    let story = Story::of(folder);
    let proofs = witness::of_run(&folder.run, &folder.load);
    let run = &folder.run;
    let mut page = Markup::default();
    sheet::begin(
        &mut page,
        &format!("{}: {} ({})", run.outcome.title(), run.name, run.seed),
        "",
    );
    verdict::header(&mut page, folder);
    let fate = Fate::of(folder, &story);
    verdict::what_went_wrong(&mut page, folder, &story, &proofs, &fate);
    page.open("section", &[("id", &"timeline")]);
    page.element("h2", &[], "What happened, over time");
    timeline::draw(&mut page, folder, &story, &proofs);
    page.close("section");
    diagram::all(&mut page, &story);
    tables::deeds(&mut page, folder);
    tables::expectations(&mut page, folder);
    tables::checks(&mut page, folder);
    tables::load(&mut page, folder);
    tables::links(&mut page, folder);
    tables::environment(&mut page, folder);
    end(&mut page);
    page.finish()
}

/// Everything after the content.
fn end(page: &mut Markup) {
    page.raw("<script>\n").raw(SCRIPT).raw("</script>\n");
    sheet::end(page);
}
