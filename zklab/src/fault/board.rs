//! All network faults of a lab at one time, and the one way to change them.

use std::sync::{Mutex, MutexGuard};

use tokio::sync::oneshot;
use zkd::prng::Prng;

use super::change::LinkChange;
use super::partition::{Pair, Style};
use crate::net::emulator::Emulator;
use crate::net::link::LinkFaults;
use crate::net::matrix::Matrix;

/// A partition that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its name: `f1`.
    pub id: String,
    /// What it is, as people say it.
    pub what: String,
    /// What happens on its links.
    pub style: Style,
    /// Its links.
    pub links: Vec<Pair>,
}

/// What was taken out, and when that was in force.
#[derive(Debug)]
pub struct Healed {
    /// The names of the partitions, and `links` for what was set on single links.
    pub names: Vec<String>,
    /// Links that were blocked before and are not any more.
    pub opened: Vec<Pair>,
    /// The time since when it is in force.
    pub in_force: oneshot::Receiver<u64>,
}

/// The faults of a lab.
#[derive(Debug)]
pub struct Board {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// What was set on single links.
    set: Matrix,
    /// What stands on top of it.
    partitions: Vec<Partition>,
    count: u32,
    chances: Prng,
}

impl State {
    /// Everything together.
    fn compose(&self) -> Matrix {
        let mut matrix = self.set.clone();
        for partition in &self.partitions {
            for (from, to) in &partition.links {
                partition.style.apply(matrix.link_mut(*from, *to));
            }
        }
        matrix
    }

    fn put_in_force(&self, emulator: &Emulator) -> oneshot::Receiver<u64> {
        let composed = self.compose();
        emulator.change(|matrix| *matrix = composed)
    }
}

impl Board {
    /// No faults between so many nodes; what is left to chance comes from `seed`.
    #[must_use]
    pub fn new(nodes: usize, seed: u64) -> Self {
        Self {
            state: Mutex::new(State {
                set: Matrix::clean(nodes),
                partitions: Vec::new(),
                count: 0,
                chances: Prng::new(seed),
            }),
        }
    }

    /// Changes single links. The faults they had before come back too.
    pub fn set(
        &self,
        emulator: &Emulator,
        links: &[Pair],
        change: &LinkChange,
    ) -> (Vec<(Pair, LinkFaults)>, oneshot::Receiver<u64>) {
        let mut state = self.lock();
        let mut before = Vec::new();
        for (from, to) in links {
            let link = state.set.link_mut(*from, *to);
            before.push(((*from, *to), *link));
            change.apply(link);
        }
        (before, state.put_in_force(emulator))
    }

    /// Gives single links these faults.
    pub fn restore(
        &self,
        emulator: &Emulator,
        links: &[(Pair, LinkFaults)],
    ) -> oneshot::Receiver<u64> {
        let mut state = self.lock();
        for ((from, to), faults) in links {
            *state.set.link_mut(*from, *to) = *faults;
        }
        state.put_in_force(emulator)
    }

    /// Puts a partition in; `draw` chooses its links.
    pub fn partition(
        &self,
        emulator: &Emulator,
        what: String,
        style: Style,
        draw: impl FnOnce(&mut Prng) -> Vec<Pair>,
    ) -> (Partition, oneshot::Receiver<u64>) {
        let mut state = self.lock();
        let links = draw(&mut state.chances);
        state.count += 1;
        let partition = Partition {
            id: format!("f{}", state.count),
            what,
            style,
            links,
        };
        state.partitions.push(partition.clone());
        (partition, state.put_in_force(emulator))
    }

    /// Takes one partition out; `None` if there is no such one any more.
    pub fn heal_one(&self, emulator: &Emulator, id: &str) -> Option<Healed> {
        self.heal(emulator, |state| {
            let place = state.partitions.iter().position(|one| one.id == id)?;
            Some(vec![state.partitions.remove(place).id])
        })
    }

    /// Takes everything out.
    ///
    /// # Panics
    /// Never: there is always an answer.
    pub fn heal_all(&self, emulator: &Emulator) -> Healed {
        self.heal(emulator, |state| {
            let partitions = std::mem::take(&mut state.partitions);
            let mut names: Vec<String> = partitions.into_iter().map(|one| one.id).collect();
            let clean = Matrix::clean(state.set.node_count());
            if std::mem::replace(&mut state.set, clean.clone()) != clean {
                names.push("links".to_owned());
            }
            Some(names)
        })
        .expect("the change above answers")
    }

    /// Takes everything out on the links between these nodes, and leaves the rest broken.
    ///
    /// # Panics
    /// Never: there is always an answer.
    pub fn heal_core(&self, emulator: &Emulator, core: &[usize]) -> Healed {
        let inside = |(from, to): &Pair| core.contains(from) && core.contains(to);
        self.heal(emulator, |state| {
            let mut names = Vec::new();
            for partition in &mut state.partitions {
                let before = partition.links.len();
                partition.links.retain(|link| !inside(link));
                if partition.links.len() < before {
                    names.push(partition.id.clone());
                }
            }
            state.partitions.retain(|one| !one.links.is_empty());
            let pairs: Vec<Pair> = state.set.pairs().filter(inside).collect();
            let mut was_set = false;
            for (from, to) in pairs {
                let link = state.set.link_mut(from, to);
                was_set |= !std::mem::take(link).is_clean();
            }
            names.extend(was_set.then(|| "links".to_owned()));
            Some(names)
        })
        .expect("the change above answers")
    }

    /// The ids of the partitions that stand.
    #[must_use]
    pub fn standing(&self) -> Vec<String> {
        let state = self.lock();
        state.partitions.iter().map(|one| one.id.clone()).collect()
    }

    fn heal(
        &self,
        emulator: &Emulator,
        take_out: impl FnOnce(&mut State) -> Option<Vec<String>>,
    ) -> Option<Healed> {
        let mut state = self.lock();
        let before = state.compose();
        let names = take_out(&mut state)?;
        let now = state.compose();
        let opened = now
            .pairs()
            .filter(|(a, b)| before.link(*a, *b).is_blocked() && !now.link(*a, *b).is_blocked())
            .collect();
        Some(Healed {
            names,
            opened,
            in_force: state.put_in_force(emulator),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("nobody panics while holding the faults")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_stand_on_top_of_what_was_set() {
        let board = Board::new(3, 1);
        let mut state = board.lock();
        state.set.link_mut(0, 1).delay_us = 7;
        for (id, style) in [("f1", Style::Drop), ("f2", Style::Slow)] {
            state.partitions.push(Partition {
                id: id.to_owned(),
                what: String::new(),
                style,
                links: vec![(0, 1)],
            });
        }
        let both = *state.compose().link(0, 1);
        assert!(both.cut && both.delay_us > 7);
        state.partitions.remove(0);
        assert!(!state.compose().link(0, 1).cut);
        state.partitions.clear();
        assert_eq!(state.compose().link(0, 1).delay_us, 7);
    }
}
