//! Which values are written over one that nobody reads any more.

use super::{Kernel, Layout, Lowering, Place};

impl Lowering<'_> {
    /// The input of `kernel` that it can write `value` over, if any: number by number, and dead afterwards.
    pub(super) fn overwritten(&self, value: usize, kernel: &Kernel, inputs: &[Place]) -> Option<usize> {
        let own = Layout::of(self.shapes[value], self.isa);
        let candidates = match kernel {
            Kernel::Affine(_) | Kernel::Scale if inputs[0].layout == own => 0..1,
            Kernel::Add(_) if inputs[0].layout == inputs[1].layout => 0..2,
            _ => 0..0,
        };
        // A kernel's other input must not change while it is read.
        let shared = |at: usize| {
            let others = inputs.iter().enumerate().filter(|&(other, _)| other != at);
            others
                .into_iter()
                .any(|(_, other)| other.storage == inputs[at].storage)
        };
        candidates
            .into_iter()
            .find(|&at| !shared(at) && self.dies(inputs[at].storage, value - 1))
    }

    /// Whether no step after `index` reads `storage`, under whatever name, and no join is to lie there.
    fn dies(&self, storage: usize, index: usize) -> bool {
        let lies_there = |place: &Option<Place>| place.is_some_and(|place| place.storage == storage);
        let read_later = |value: usize| self.readers[value].iter().any(|&reader| reader > index);
        let values = 0..self.values.len();
        let live = values
            .into_iter()
            .any(|value| lies_there(&self.values[self.seen[value].0]) && read_later(value));
        !live && !self.joins.iter().any(lies_there)
    }

    /// Says of the last layer that it reads its output too.
    pub(super) fn in_place(&mut self) {
        if let Some(layer) = self.layers.last_mut() {
            layer.in_place = true;
        }
    }
}
