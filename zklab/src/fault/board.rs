//! All network faults of a lab at one time, and the one way to change them.
//!
//! Every fault is a [`Layer`]: what it does to which links. What is in force is always composed anew from
//! all of them, so faults can be put in and taken out in any order. Changes of links (delay, loss, …) come
//! first, in the order in which they were put in; partitions stand on top of them.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use tokio::sync::oneshot;
use zkd::prng::Prng;

use super::change::LinkChange;
use super::partition::{Clients, Pair, Style};
use super::profile::Profile;
use crate::clock::now_us;
use crate::id::NodeId;
use crate::net::link::LinkFaults;
use crate::net::matrix::Matrix;
use crate::net::{Gate, Network};

/// What a fault does to one link.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Effect {
    /// Makes it slow, lossy, …
    Set(LinkChange),
    /// Blocks it, or nearly.
    Block(Style, Clients),
}

impl Effect {
    fn is_block(&self) -> bool {
        matches!(self, Self::Block(..))
    }

    fn apply(&self, link: &mut LinkFaults) {
        match self {
            Self::Set(change) => change.apply(link),
            Self::Block(style, clients) => style.apply(*clients, link),
        }
    }
}

/// One fault.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// Its name: `f1`.
    pub id: String,
    /// What it does to which links.
    pub links: Vec<(Pair, Effect)>,
    /// The nodes whose clients outside find this gate.
    pub clients: Vec<(NodeId, Gate)>,
    /// It is in force now; one that comes and goes is not all the time.
    pub is_on: bool,
    /// It ends by itself, so it is never taken for replaced by a later one.
    pub is_passing: bool,
}

impl Layer {
    /// The same effect on all of these links.
    #[must_use]
    pub fn new(id: String, links: &[Pair], effect: Effect) -> Self {
        Self {
            id,
            links: links.iter().map(|pair| (*pair, effect)).collect(),
            clients: Vec::new(),
            is_on: true,
            is_passing: false,
        }
    }

    /// Is all that it does done by `other` too, or undone by it?
    fn is_replaced_by(&self, other: &Self) -> bool {
        let covers = |(pair, effect): &(Pair, Effect)| {
            other.links.iter().any(|(known, new)| match (effect, new) {
                (Effect::Set(old), Effect::Set(new)) => known == pair && new.covers(old),
                _ => false,
            })
        };
        !self.is_passing && !other.is_passing && self.links.iter().all(covers)
    }
}

/// What was taken out, and when that was in force.
#[derive(Debug)]
pub struct Healed {
    /// The names of the faults that are gone.
    pub gone: Vec<String>,
    /// The names of those that stand on fewer links now.
    pub smaller: Vec<(String, Vec<Pair>)>,
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
    /// How the links are without any fault.
    base: Matrix,
    layers: Vec<Layer>,
    /// The gates that are not open.
    shut: BTreeMap<NodeId, Gate>,
    chances: Prng,
}

impl State {
    /// Everything together.
    fn compose(&self) -> Matrix {
        let mut matrix = self.base.clone();
        for is_block in [false, true] {
            let layers = self.layers.iter().filter(|layer| layer.is_on);
            let all = layers.flat_map(|layer| &layer.links);
            for ((from, to), effect) in all.filter(|(_, effect)| effect.is_block() == is_block) {
                effect.apply(matrix.link_mut(*from, *to));
            }
        }
        matrix
    }

    /// The nodes that clients outside do not reach as ever.
    fn gates(&self) -> BTreeMap<NodeId, Gate> {
        let mut gates = BTreeMap::new();
        for layer in self.layers.iter().filter(|layer| layer.is_on) {
            for (node, gate) in &layer.clients {
                let worst = gates.entry(*node).or_insert(*gate);
                *worst = (*worst).max(*gate);
            }
        }
        gates
    }

    fn put_in_force(&mut self, net: &dyn Network) -> oneshot::Receiver<u64> {
        let composed = self.compose();
        let gates = self.gates();
        let before = std::mem::replace(&mut self.shut, gates.clone());
        for node in before.keys().chain(gates.keys()) {
            net.set_gate(*node, gates.get(node).copied().unwrap_or_default());
        }
        if let Some(emulator) = net.links() {
            return emulator.change(|matrix| *matrix = composed);
        }
        let (tell, told) = oneshot::channel();
        // The receiver is right here.
        let _ = tell.send(now_us());
        told
    }
}

impl Board {
    /// No faults yet on links that are like this; what is left to chance comes from `seed`.
    #[must_use]
    pub fn new(base: Matrix, seed: u64) -> Self {
        Self {
            state: Mutex::new(State {
                base,
                layers: Vec::new(),
                shut: BTreeMap::new(),
                chances: Prng::new(seed),
            }),
        }
    }

    /// A node came, and the network has its links: without any fault they are as `profile` says.
    pub fn join(&self, net: &dyn Network, node: NodeId, profile: Option<&Profile>) {
        let mut state = self.lock();
        let place = node.place();
        state.base.grow(place + 1);
        if let Some(profile) = profile {
            let links = state
                .base
                .pairs()
                .filter(|(a, b)| *a == place || *b == place);
            for (from, to) in links {
                let change = profile.change(from, to);
                change.apply(state.base.link_mut(from, to));
            }
        }
        // Its server starts later than that is in force.
        drop(state.put_in_force(net));
    }

    /// A node is gone, and what was wrong with its links and clients with it: the names of faults of which nothing
    /// is left, and what is left of the others.
    pub fn leave(&self, net: &dyn Network, node: NodeId) -> Healed {
        {
            let mut state = self.lock();
            for layer in &mut state.layers {
                layer.clients.retain(|(id, _)| *id != node);
            }
        }
        let place = node.place();
        self.take_out(
            net,
            |_| true,
            |(from, to), _| *from == place || *to == place,
        )
    }

    /// Lets chance choose something.
    pub fn draw<T>(&self, draw: impl FnOnce(&mut Prng) -> T) -> T {
        draw(&mut self.lock().chances)
    }

    /// Puts a fault in. Earlier changes that it replaces altogether are taken out; their names.
    pub fn put(&self, net: &dyn Network, layer: Layer) -> (Vec<String>, oneshot::Receiver<u64>) {
        let mut state = self.lock();
        let (gone, kept) = std::mem::take(&mut state.layers)
            .into_iter()
            .partition(|old| old.is_replaced_by(&layer));
        state.layers = kept;
        state.layers.push(layer);
        (ids(gone), state.put_in_force(net))
    }

    /// Changes a fault that stands; `None` if it does not stand any more.
    pub fn alter(
        &self,
        net: &dyn Network,
        id: &str,
        alter: impl FnOnce(&mut Layer),
    ) -> Option<oneshot::Receiver<u64>> {
        let mut state = self.lock();
        alter(state.layers.iter_mut().find(|layer| layer.id == id)?);
        Some(state.put_in_force(net))
    }

    /// Takes out the faults that `is_meant` names.
    pub fn heal(&self, net: &dyn Network, is_meant: impl Fn(&str) -> bool) -> Healed {
        self.take_out(net, |layer| is_meant(&layer.id), |_, _| true)
    }

    /// Of the faults that `is_meant` names, takes out what is on the links between these nodes, and leaves the
    /// rest broken.
    pub fn heal_core(
        &self,
        net: &dyn Network,
        core: &[usize],
        is_meant: impl Fn(&str) -> bool,
    ) -> Healed {
        let inside = |(from, to): &Pair| core.contains(from) && core.contains(to);
        self.take_out(net, |layer| is_meant(&layer.id), |pair, _| inside(pair))
    }

    /// Undoes every change of these links; partitions stay.
    pub fn reset(&self, net: &dyn Network, links: &[Pair]) -> Healed {
        let is_set = |pair: &Pair, effect: &Effect| links.contains(pair) && !effect.is_block();
        self.take_out(net, |_| true, is_set)
    }

    /// Does such a fault stand?
    #[must_use]
    pub fn has(&self, id: &str) -> bool {
        self.lock().layers.iter().any(|layer| layer.id == id)
    }

    /// Of the layers that `is_meant` names, takes out what `is_over` names.
    fn take_out(
        &self,
        net: &dyn Network,
        is_meant: impl Fn(&Layer) -> bool,
        is_over: impl Fn(&Pair, &Effect) -> bool,
    ) -> Healed {
        let mut state = self.lock();
        let before = state.compose();
        let mut smaller = Vec::new();
        for layer in state.layers.iter_mut().filter(|layer| is_meant(layer)) {
            let count = layer.links.len();
            layer.links.retain(|(pair, effect)| !is_over(pair, effect));
            if layer.links.len() < count && !layer.links.is_empty() {
                let left = layer.links.iter().map(|(pair, _)| *pair).collect();
                smaller.push((layer.id.clone(), left));
            }
        }
        let (gone, kept) = std::mem::take(&mut state.layers)
            .into_iter()
            .partition(|layer| layer.links.is_empty());
        state.layers = kept;
        let now = state.compose();
        let opened = now
            .pairs()
            .filter(|(a, b)| before.link(*a, *b).is_blocked() && !now.link(*a, *b).is_blocked())
            .collect();
        Healed {
            gone: ids(gone),
            smaller,
            opened,
            in_force: state.put_in_force(net),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("nobody panics while holding the faults")
    }
}

fn ids(layers: Vec<Layer>) -> Vec<String> {
    layers.into_iter().map(|layer| layer.id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Loopback;

    fn delay(us: u64) -> Effect {
        Effect::Set(LinkChange {
            delay_us: Some(us),
            ..LinkChange::default()
        })
    }

    fn layer(id: &str, links: &[Pair], effect: Effect) -> Layer {
        Layer::new(id.to_owned(), links, effect)
    }

    fn link(board: &Board, pair: Pair) -> LinkFaults {
        *board.lock().compose().link(pair.0, pair.1)
    }

    #[test]
    fn partitions_stand_on_top_of_what_was_set() {
        let net = Loopback::claim(&[]).unwrap();
        let board = Board::new(Matrix::clean(3), 1);
        let one = [(0, 1)];
        board.put(
            &net,
            layer("f1", &one, Effect::Block(Style::Drop, Clients::Between)),
        );
        board.put(
            &net,
            layer("f2", &one, Effect::Block(Style::Slow, Clients::Between)),
        );
        board.put(&net, layer("l3", &one, delay(7)));
        let both = link(&board, (0, 1));
        assert!(both.cut && both.delay_us > 7);
        let healed = board.heal(&net, |id| id == "f1");
        assert_eq!(
            (healed.gone, healed.opened),
            (vec!["f1".to_owned()], vec![(0, 1)])
        );
        assert!(!link(&board, (0, 1)).cut);
        board.heal(&net, |id| id == "f2");
        assert_eq!(link(&board, (0, 1)).delay_us, 7);
        assert!(board.has("l3") && !board.has("f2"));
    }

    #[test]
    fn a_change_that_says_all_that_an_earlier_one_said_replaces_it() {
        let net = Loopback::claim(&[]).unwrap();
        let board = Board::new(Matrix::clean(3), 1);
        let loss = Effect::Set(LinkChange {
            loss: Some(0.5),
            ..LinkChange::default()
        });
        board.put(&net, layer("l1", &[(0, 1), (1, 0)], delay(7)));
        board.put(&net, layer("l2", &[(0, 1), (1, 0)], loss));
        let (gone, _) = board.put(&net, layer("l3", &[(0, 1)], delay(8)));
        assert!(gone.is_empty(), "the way back is still slow by l1");
        let (gone, _) = board.put(&net, layer("l4", &[(1, 0), (0, 1), (1, 2)], delay(9)));
        assert_eq!(gone, ["l1", "l3"]);
        let mut passing = layer("l5", &[(1, 0), (0, 1), (1, 2)], delay(10));
        passing.is_passing = true;
        assert!(
            board.put(&net, passing).0.is_empty(),
            "it will give way again"
        );
        board.heal(&net, |id| id == "l5");
        assert_eq!(link(&board, (0, 1)).delay_us, 9);
        assert_eq!(link(&board, (1, 0)).loss, 0.5);
    }

    #[test]
    fn a_node_that_goes_takes_its_part_of_the_faults_with_it() {
        let net = Loopback::claim(&[]).unwrap();
        let board = Board::new(Matrix::clean(3), 1);
        let block = Effect::Block(Style::Drop, Clients::Between);
        let mut isolated = layer("f1", &[(0, 2), (2, 0)], block);
        isolated.clients = vec![(NodeId(3), Gate::Shut)];
        board.put(&net, isolated);
        board.put(&net, layer("l2", &[(0, 2), (0, 1)], delay(7)));
        let healed = board.leave(&net, NodeId(3));
        assert_eq!(healed.gone, ["f1"]);
        assert_eq!(healed.smaller, [("l2".to_owned(), vec![(0, 1)])]);
        assert!(board.lock().shut.is_empty());
        board.join(&net, NodeId(4), None);
        assert!(link(&board, (3, 0)).is_clean());
        assert_eq!(link(&board, (0, 1)).delay_us, 7);
    }

    #[test]
    fn a_core_heals_and_a_reset_leaves_partitions() {
        let net = Loopback::claim(&[]).unwrap();
        let board = Board::new(Matrix::clean(3), 1);
        let all: Vec<Pair> = Matrix::clean(3).pairs().collect();
        board.put(
            &net,
            layer("f1", &all, Effect::Block(Style::Drop, Clients::Between)),
        );
        board.put(&net, layer("l2", &[(0, 1), (1, 0)], delay(7)));
        let healed = board.heal_core(&net, &[0, 1], |_| true);
        assert_eq!(healed.gone, ["l2"]);
        assert_eq!(healed.smaller.len(), 1);
        assert_eq!(healed.smaller[0].1.len(), 4);
        assert!(link(&board, (0, 1)).is_clean() && link(&board, (0, 2)).cut);
        board.put(&net, layer("l3", &all, delay(7)));
        let healed = board.reset(&net, &[(0, 2)]);
        assert_eq!(healed.smaller[0].0, "l3");
        let both = link(&board, (0, 2));
        assert!(both.cut && both.delay_us == 0);
        let flapping = board.alter(&net, "f1", |layer| layer.is_on = false);
        assert!(flapping.is_some() && !link(&board, (0, 2)).cut);
        assert!(board.alter(&net, "f9", |_| ()).is_none());
    }
}
