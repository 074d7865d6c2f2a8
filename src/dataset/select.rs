//! Datasets made of parts of others.

use crate::model::Spec;

use super::{Dataset, Dropped};

impl Dataset {
    /// Without images, for a model.
    pub fn empty(spec: &Spec) -> Self {
        Self {
            input: spec.input,
            tensors: Vec::new(),
            labels: Vec::new(),
            hashes: Vec::new(),
            classes: spec.labels.len(),
            dropped: Dropped::default(),
        }
    }

    /// Adds an image at the end. The caller sees to it that it is not there already.
    ///
    /// # Panics
    /// When the tensor is not of the dataset's shape.
    pub fn push(&mut self, hash: [u8; 32], label: u32, tensor: &[f32]) {
        assert_eq!(tensor.len(), self.input.len(), "a tensor of another shape");
        self.hashes.push(hash);
        self.labels.push(label);
        self.tensors.extend_from_slice(tensor);
    }

    /// Adds images of `other`, a dataset for the same model, in the order of `indices`.
    pub fn extend_from(&mut self, other: &Self, indices: &[usize]) {
        self.tensors.reserve_exact(indices.len() * self.input.len());
        for &index in indices {
            self.push(other.hashes[index], other.labels[index], other.tensor(index));
        }
    }

    /// Keeps the images whose sha256 passes, in their order and in their memory.
    pub fn retain(&mut self, keeps: impl Fn(&[u8; 32]) -> bool) {
        let numbers = self.input.len();
        let mut kept = 0;
        for index in 0..self.len() {
            if keeps(&self.hashes[index]) {
                self.hashes[kept] = self.hashes[index];
                self.labels[kept] = self.labels[index];
                let tensor = index * numbers..(index + 1) * numbers;
                self.tensors.copy_within(tensor, kept * numbers);
                kept += 1;
            }
        }
        self.hashes.truncate(kept);
        self.labels.truncate(kept);
        self.tensors.truncate(kept * numbers);
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::spec;
    use super::*;

    #[test]
    fn parts_come_in_the_order_asked_for() {
        let mut whole = Dataset::empty(&spec());
        for image in 0..5u8 {
            whole.push([image; 32], u32::from(image % 2), &[f32::from(image); 4]);
        }
        let mut part = Dataset::empty(&spec());
        part.extend_from(&whole, &[4, 1, 2]);
        assert_eq!((part.hashes[0], part.labels[1]), ([4; 32], 1));
        assert_eq!((part.tensor(1), part.tensor(2)), (&[1.0; 4][..], &[2.0; 4][..]));
        part.retain(|hash| hash[0] != 1);
        assert_eq!((part.len(), part.labels.len()), (2, 2));
        assert_eq!((part.hashes[1], part.tensor(1)), ([2; 32], &[2.0; 4][..]));
    }
}
