//! What goes wrong in a run, drawn from its seed.

use crate::ids::ServerId;
use crate::prng::Prng;

/// One thing that goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The host of these servers loses power: unsynced bytes are lost, nobody gets a FIN for a while.
    PowerCut(Vec<ServerId>),
    /// All hosts lose power, come back, and lose it again so many times, in the middle of it all.
    Blackouts(u64),
    /// The process dies; its machine and its files live on, its peers get a FIN.
    Kill(ServerId),
    /// The process stands still, and goes on by itself: its clock jumps.
    Pause(ServerId),
    /// These servers do not reach the others, or are not reached by them, or both.
    Partition {
        group: Vec<ServerId>,
        outwards: bool,
        inwards: bool,
    },
    /// The ensemble falls into parts that do not reach one another.
    Split(Vec<Vec<ServerId>>),
    /// A sync fails soon.
    FailSync(ServerId),
    /// The disk is full soon.
    FillDisk(ServerId),
    /// The disk is slow for a while.
    SlowDisk(ServerId),
    /// All client connections of these servers break.
    CutClients(Vec<ServerId>),
    /// The network is whole again.
    Heal,
}

/// Draws the next fault. `leader` is aimed at more often than chance would, and observers now and then.
pub(super) fn draw(
    prng: &mut Prng,
    servers: &[ServerId],
    observers: &[ServerId],
    leader: Option<ServerId>,
) -> Fault {
    let any = *prng.pick(servers);
    let one = match leader {
        Some(leader) if prng.one_in(2) => leader,
        _ => any,
    };
    let cut_off = |group, outwards, inwards| Fault::Partition {
        group,
        outwards,
        inwards,
    };
    match prng.below(24) {
        0..=2 => Fault::Kill(one),
        3..=5 => Fault::PowerCut(vec![one]),
        6 => Fault::PowerCut(some_of(prng, servers)),
        7 => Fault::PowerCut(servers.to_vec()),
        8 => Fault::Blackouts(prng.between(2, 4)),
        9 | 10 => Fault::Pause(one),
        11 | 12 => cut_off(vec![one], true, true),
        13 => cut_off(vec![one], true, false),
        14 => cut_off(vec![one], false, true),
        15 => cut_off(some_of(prng, servers), true, true),
        16 if !observers.is_empty() => cut_off(observers.to_vec(), true, true),
        16 => Fault::Split(parts_of(prng, servers)),
        17 => Fault::FailSync(one),
        18 => Fault::FillDisk(one),
        19 => Fault::SlowDisk(one),
        20 => Fault::CutClients(vec![one]),
        21 => Fault::CutClients(servers.to_vec()),
        _ => Fault::Heal,
    }
}

fn some_of(prng: &mut Prng, servers: &[ServerId]) -> Vec<ServerId> {
    servers.iter().copied().filter(|_| prng.one_in(2)).collect()
}

fn parts_of(prng: &mut Prng, servers: &[ServerId]) -> Vec<Vec<ServerId>> {
    let mut parts = vec![Vec::new(); 3];
    for server in servers {
        let part = usize::try_from(prng.below(3)).expect("one of three");
        parts[part].push(*server);
    }
    parts
}
