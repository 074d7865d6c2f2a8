//! Mini-batches in a seeded order.

use crate::model::spec::Augment;

use super::Dataset;

/// How an epoch's batches are made.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    /// Images per batch, from 1; the last batch of an epoch may be smaller.
    pub batch_size: usize,
    /// Seed of shuffling and augmentation.
    pub seed: u64,
    /// Epoch, from 0: each has an order and changes of its own.
    pub epoch: u64,
    /// Random changes; all off leaves tensors as they are.
    pub augment: Augment,
    /// Per channel, what augmentation fills with: `Preprocessor::background`.
    pub background: Vec<f32>,
}

/// Some images and their classes.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Tensors end to end.
    pub images: Vec<f32>,
    /// Classes.
    pub labels: Vec<u32>,
}

/// One epoch over some images of a dataset. Yields the same batches for the same seed and epoch.
#[derive(Debug)]
pub struct Batches<'a> {
    _data: &'a Dataset,
}

impl<'a> Batches<'a> {
    /// A shuffled, augmented pass over `indices`.
    pub fn new(_data: &'a Dataset, _indices: &[usize], _order: Order) -> Self {
        todo!()
    }

    /// Batches in the epoch.
    pub fn count(&self) -> usize {
        todo!()
    }
}

impl Iterator for Batches<'_> {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        todo!()
    }
}
