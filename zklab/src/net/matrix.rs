//! The state of all links of a lab at one time: N × N directed links.
//!
//! A matrix is a value. Whoever changes something makes a new one from the old one and puts it in the
//! place of the old one in one step, so that a partition begins and ends on all links at once.

use super::link::LinkFaults;

/// Every link between the nodes `0..count`.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    count: usize,
    /// Row by row: from the first node to all, from the second to all, …
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

    /// The number of a link, row by row.
    ///
    /// # Panics
    /// If there are not that many nodes.
    #[must_use]
    pub fn number(&self, from: usize, to: usize) -> usize {
        assert!(from < self.count && to < self.count, "no such node");
        from * self.count + to
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
