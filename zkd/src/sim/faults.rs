//! What goes wrong in a run, drawn from its seed.

use crate::ids::ServerId;
use crate::prng::Prng;

/// One thing that goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The host of these servers loses power: unsynced bytes are lost, nobody gets a FIN for a while.
    PowerCut(Vec<ServerId>),
    /// The process dies; its machine and its files live on, its peers get a FIN.
    Kill(ServerId),
    /// The process stands still, and goes on by itself.
    Pause(ServerId),
    /// These servers do not reach the others, both ways or only outwards.
    Partition { group: Vec<ServerId>, one_way: bool },
    /// A sync fails soon.
    FailSync(ServerId),
    /// The disk is full soon.
    FillDisk(ServerId),
    /// All client connections of a server break.
    CutClients(ServerId),
    /// The network is whole again.
    Heal,
}

/// Draws the next fault. `leader` is aimed at more often than chance would.
pub(super) fn draw(prng: &mut Prng, servers: &[ServerId], leader: Option<ServerId>) -> Fault {
    let any = *prng.pick(servers);
    let one = match leader {
        Some(leader) if prng.one_in(2) => leader,
        _ => any,
    };
    match prng.below(16) {
        0..=2 => Fault::Kill(one),
        3..=5 => Fault::PowerCut(vec![one]),
        6 => Fault::PowerCut(some_of(prng, servers)),
        7 => Fault::PowerCut(servers.to_vec()),
        8 => Fault::Pause(one),
        9 => Fault::Partition {
            group: vec![one],
            one_way: false,
        },
        10 => Fault::Partition {
            group: vec![one],
            one_way: true,
        },
        11 => Fault::Partition {
            group: some_of(prng, servers),
            one_way: false,
        },
        12 => Fault::FailSync(one),
        13 => Fault::FillDisk(one),
        14 => Fault::CutClients(one),
        _ => Fault::Heal,
    }
}

fn some_of(prng: &mut Prng, servers: &[ServerId]) -> Vec<ServerId> {
    servers.iter().copied().filter(|_| prng.one_in(2)).collect()
}
