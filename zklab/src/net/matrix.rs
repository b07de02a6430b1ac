//! The state of all links of a lab at one time: N × N directed links.
//!
//! A matrix is a value. Whoever changes something makes a new one from the old one and puts it in the
//! place of the old one in one step, so that a partition begins and ends on all links at once.

use super::link::LinkFaults;

/// Every link between the nodes `0..count`.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    count: usize,
    /// By their numbers.
    links: Vec<LinkFaults>,
}

impl Matrix {
    /// All links of `count` nodes, with nothing wrong.
    #[must_use]
    pub fn clean(count: usize) -> Self {
        Self {
            count,
            links: vec![LinkFaults::default(); count * count],
        }
    }

    /// How many nodes there are.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.count
    }

    /// The number of a link. Nodes that come later do not change it: first are the links among the first `n` nodes,
    /// then those of the next node.
    ///
    /// # Panics
    /// If there are not that many nodes.
    #[must_use]
    pub fn number(&self, from: usize, to: usize) -> usize {
        assert!(from < self.count && to < self.count, "no such node");
        if from >= to {
            from * from + to
        } else {
            to * to + to + 1 + from
        }
    }

    /// The sender and the receiver of the link with this number.
    #[must_use]
    pub fn ends(number: usize) -> (usize, usize) {
        let newer = number.isqrt();
        match number - newer * newer {
            to if to <= newer => (newer, to),
            from => (from - newer - 1, newer),
        }
    }

    /// Makes room for so many nodes, if there are fewer; the new links are clean.
    pub fn grow(&mut self, count: usize) {
        self.count = self.count.max(count);
        self.links
            .resize(self.count * self.count, LinkFaults::default());
    }

    /// A link.
    #[must_use]
    pub fn link(&self, from: usize, to: usize) -> &LinkFaults {
        &self.links[self.number(from, to)]
    }

    /// A link, to change it.
    pub fn link_mut(&mut self, from: usize, to: usize) -> &mut LinkFaults {
        let number = self.number(from, to);
        &mut self.links[number]
    }

    /// Every pair of different nodes.
    pub fn pairs(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let count = self.count;
        (0..count)
            .flat_map(move |from| (0..count).map(move |to| (from, to)))
            .filter(|(from, to)| from != to)
    }

    /// Must this node send real packets, because of a fault on a link that leads away from it?
    #[must_use]
    pub fn needs_real_packets(&self, from: usize) -> bool {
        (0..self.count).any(|to| self.link(from, to).needs_real_packets())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_link_has_its_number_and_keeps_it() {
        let mut matrix = Matrix::clean(3);
        let mut numbers: Vec<usize> = (0..9).map(|n| matrix.number(n / 3, n % 3)).collect();
        matrix.link_mut(2, 0).cut = true;
        matrix.grow(5);
        for (number, place) in numbers.iter().zip(0..) {
            assert_eq!(*number, matrix.number(place / 3, place % 3));
            assert_eq!(Matrix::ends(*number), (place / 3, place % 3));
        }
        assert!(matrix.link(2, 0).cut && matrix.link(4, 4).is_clean());
        numbers.extend((0..25).map(|n| matrix.number(n / 5, n % 5)));
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers, (0..25).collect::<Vec<_>>());
        matrix.grow(2);
        assert_eq!(matrix.node_count(), 5, "it never shrinks");
    }

    #[test]
    fn a_fault_is_on_one_directed_link_and_on_its_sender() {
        let mut matrix = Matrix::clean(3);
        assert_eq!(matrix.pairs().count(), 6);
        matrix.link_mut(1, 2).loss = 0.5;
        matrix.link_mut(0, 2).cut = true;
        assert!(matrix.link(2, 1).is_clean());
        assert!(!matrix.link(1, 2).is_clean());
        assert!(matrix.needs_real_packets(1));
        assert!(
            !matrix.needs_real_packets(2) && !matrix.needs_real_packets(0),
            "a cut needs no packets to be told apart"
        );
    }
}
