//! Messages between servers in a scenario: withholding them, and waiting for them.

use super::condition::MessageWish;
use super::words::{Deed, Needs, Options, Wrong, checked_nodes, millis};
use crate::event::HexZxid;
use crate::net::wire::Name;
use crate::supervisor::protocol::{MessageRequest, Request, WithholdRequest};

/// What can be said of a message.
const KEYS: [&str; 5] = ["from", "to", "nth", "count", "zxid"];

/// The name of a message.
///
/// # Errors
/// If there is none of this name.
pub(super) fn name(word: &str) -> Result<String, Wrong> {
    word.parse::<Name>()
        .map(|name| name.to_string())
        .map_err(Wrong::new)
}

/// `drop PROPOSAL from leader to follower[0] nth 3`.
///
/// # Errors
/// If a word names no message or no node.
pub(super) fn withhold(
    verb: &str,
    rest: &[&str],
    options: &Options,
    count: u8,
) -> Result<Deed, Wrong> {
    let Some((message, settings)) = rest.split_first() else {
        return Err(Wrong::new(format!("{verb:?} names no message"))
            .hint("drop PROPOSAL from leader to follower[0] nth 3"));
    };
    let mut asked = MessageRequest {
        message: name(message)?,
        from: Vec::new(),
        to: Vec::new(),
        zxid: None,
        nth: 1,
        count: 1,
    };
    for pair in settings.chunks(2) {
        let [key, value] = pair else {
            return Err(Wrong::new(format!("{:?} has no value", pair[0])));
        };
        let number = || {
            value
                .parse::<u32>()
                .ok()
                .filter(|number| *number > 0)
                .ok_or_else(|| Wrong::new(format!("{key} {value:?} is not a number from 1 on")))
        };
        match *key {
            "from" => asked.from = checked_nodes(&[value], count)?,
            "to" => asked.to = checked_nodes(&[value], count)?,
            "nth" => asked.nth = number()?,
            "count" => asked.count = number()?,
            "zxid" => {
                let zxid = HexZxid::parse(value);
                let no = || Wrong::new(format!("{value:?} is not a zxid such as 0x100000002"));
                asked.zxid = Some(zxid.ok_or_else(no)?);
            }
            other => return Err(Wrong::unknown("word about a message", other, &KEYS)),
        }
    }
    Ok(Deed {
        request: Request::Withhold(WithholdRequest {
            message: asked,
            hold: verb == "hold",
            for_ms: options.for_us.map(millis),
            wait: false,
            timeout_ms: 0,
        }),
        needs: Needs::links(),
        lasts_us: options.for_us.unwrap_or(0),
    })
}

/// The request that ends when such messages have been seen.
pub(super) fn watch(wish: &MessageWish) -> Request {
    let word = |node: &Option<String>| node.iter().cloned().collect();
    Request::Watch(MessageRequest {
        message: wish.message.clone(),
        from: word(&wish.from),
        to: word(&wish.to),
        zxid: None,
        nth: u32::try_from(wish.nth).unwrap_or(u32::MAX),
        count: 1,
    })
}
