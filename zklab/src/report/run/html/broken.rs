//! The other promises that were broken: each with its sentence and its proof, and whether it only follows from the first.

use super::super::fate::{self, Fate};
use super::super::folder::{Folder, Outcome};
use super::super::witness::Proof;
use super::verdict;
use crate::report::markup::Markup;
use crate::scenario::Check;

/// All broken checks but the first.
pub(super) fn others(page: &mut Markup, folder: &Folder, fate: &Fate) {
    let run = &folder.run;
    let broken = run.broken();
    let Some((first, others)) = broken.split_first() else {
        return;
    };
    if run.outcome != Outcome::Bug || others.is_empty() {
        return;
    }
    let title = match others.len() {
        1 => "One more promise was broken".to_owned(),
        count => format!("{count} more promises were broken"),
    };
    page.element("h3", &[], title);
    for check in others {
        page.open("details", &[]);
        page.open("summary", &[]);
        page.element("code", &[], &check.rule);
        page.text(format!(" {}", check.message));
        if let Some(why) = follows(first, check, fate) {
            page.open("span", &[("class", &"promise")]);
            page.text(format!(" – {why}")).close("span");
        }
        page.close("summary");
        let proofs: Vec<Proof> = check
            .witness
            .iter()
            .map(|line| Proof::of(line, run.lab_start_us, &folder.load))
            .collect();
        if !proofs.is_empty() {
            verdict::lines(page, &proofs, true);
        }
        page.close("details");
    }
}

/// Why a broken check says no more than the first, if so.
fn follows(first: &Check, check: &Check, fate: &Fate) -> Option<String> {
    let zxid = fate::subject_of(check);
    let known = fate.subject.as_ref().map(|subject| subject.zxid);
    if zxid.is_some() && zxid == known {
        return Some("it is about the same write".to_owned());
    }
    if let (Some(zxid), Some((after, before))) = (zxid, fate.lost)
        && after < zxid
        && zxid < before
    {
        return Some(format!(
            "it follows from the same loss: {zxid} was lost too"
        ));
    }
    match check.rule.as_str() {
        "digest" if first.rule == "logs" => {
            Some("it follows: trees differ where the logs do".to_owned())
        }
        "watches" => {
            let session = check.witness.iter().any(|line| {
                line["s"].is_string() && first.witness.iter().any(|other| other["s"] == line["s"])
            });
            session.then(|| "about a session of the first proof too".to_owned())
        }
        _ => None,
    }
}
