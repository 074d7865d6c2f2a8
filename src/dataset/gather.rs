//! Tensors collected without their copies.

use std::collections::HashMap;

use crate::model::Spec;

use super::{Dataset, Dropped};

/// The images kept so far, and how often each was seen.
pub(super) struct Gathered {
    tensors: Vec<f32>,
    labels: Vec<u32>,
    hashes: Vec<[u8; 32]>,
    seen: HashMap<[u8; 32], Seen>,
}

/// One image, by its sha256.
struct Seen {
    label: u32,
    copies: usize,
    conflicting: bool,
}

impl Gathered {
    /// Empty, with room for `images` tensors of `numbers` each.
    pub(super) fn with_capacity(images: usize, numbers: usize) -> Self {
        Self {
            tensors: Vec::with_capacity(images * numbers),
            labels: Vec::with_capacity(images),
            hashes: Vec::with_capacity(images),
            seen: HashMap::with_capacity(images),
        }
    }

    /// Counts an image; true when it was not seen before and wants to be added.
    pub(super) fn is_new(&mut self, hash: [u8; 32], label: u32) -> bool {
        let seen = self.seen.entry(hash).or_insert(Seen {
            label,
            copies: 0,
            conflicting: false,
        });
        seen.copies += 1;
        seen.conflicting |= seen.label != label;
        seen.copies == 1
    }

    /// Keeps an image.
    pub(super) fn add(&mut self, hash: [u8; 32], label: u32, tensor: &[f32]) {
        self.tensors.extend_from_slice(tensor);
        self.labels.push(label);
        self.hashes.push(hash);
    }

    /// The images without those whose labels conflict. Only at the end is it known which do.
    pub(super) fn into_dataset(self, spec: &Spec) -> Dataset {
        let mut dropped = Dropped::default();
        for seen in self.seen.values() {
            if seen.conflicting {
                dropped.conflicting += seen.copies;
            } else {
                dropped.duplicates += seen.copies - 1;
            }
        }
        let mut dataset = Dataset {
            input: spec.input,
            tensors: self.tensors,
            labels: self.labels,
            hashes: self.hashes,
            classes: spec.labels.len(),
            dropped,
        };
        if dropped.conflicting > 0 {
            dataset.retain(|hash| self.seen.get(hash).is_none_or(|seen| !seen.conflicting));
        }
        dataset
    }
}
