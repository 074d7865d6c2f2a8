//! Mini-batches in a seeded order.

use crate::model::rng::{Rng, Stream};
use crate::model::spec::Augment;

use super::Dataset;
use super::augment::Augmenter;

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
    data: &'a Dataset,
    /// Indices in the order of this epoch.
    indices: Vec<usize>,
    /// Where the next batch begins.
    next: usize,
    batch_size: usize,
    seed: u64,
    epoch: u64,
    augmenter: Augmenter,
}

impl<'a> Batches<'a> {
    /// A shuffled, augmented pass over `indices`.
    ///
    /// # Panics
    /// When the batch size is 0, or when `background` has not one value per channel.
    pub fn new(data: &'a Dataset, indices: &[usize], order: Order) -> Self {
        assert!(order.batch_size > 0, "a batch holds at least one image");
        let mut indices = indices.to_vec();
        Rng::new(order.seed, Stream::Shuffle, order.epoch).shuffle(&mut indices);
        Self {
            data,
            indices,
            next: 0,
            batch_size: order.batch_size,
            seed: order.seed,
            epoch: order.epoch,
            augmenter: Augmenter::new(order.augment, data.input, order.background),
        }
    }

    /// A generator for each position of each epoch, so that no image's draws depend on another's.
    fn rng(&self, position: usize) -> Rng {
        // Positions are below 2^32 by MAX_IMAGES; 2^24 epochs fit above them.
        Rng::new(self.seed, Stream::Augment, (self.epoch << 32) | position as u64)
    }
}

impl Iterator for Batches<'_> {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        let end = self.indices.len().min(self.next + self.batch_size);
        let positions = self.next..end;
        if positions.is_empty() {
            return None;
        }
        let numbers = self.data.input.len();
        let mut images = Vec::with_capacity(positions.len() * numbers);
        let mut labels = Vec::with_capacity(positions.len());
        for position in positions {
            let index = self.indices[position];
            images.extend_from_slice(self.data.tensor(index));
            labels.push(self.data.labels[index]);
            if self.augmenter.is_active() {
                let mut rng = self.rng(position);
                let start = images.len() - numbers;
                self.augmenter.apply(&mut images[start..], &mut rng);
            }
        }
        self.next = end;
        Some(Batch { images, labels })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.indices.len() - self.next).div_ceil(self.batch_size);
        (left, Some(left))
    }

    /// Counts without making the batches.
    fn count(self) -> usize {
        self.len()
    }
}

/// `len` is the number of batches still to come; of a new epoch, all of them.
impl ExactSizeIterator for Batches<'_> {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::dataset::Dropped;
    use crate::model::Input;

    use super::*;

    /// Image `i` is filled with `i`, of class `i`.
    fn dataset(images: usize) -> Dataset {
        let input = Input {
            channels: 1,
            height: 3,
            width: 2,
        };
        let numbered = |i: usize| std::iter::repeat_n(i as f32, input.len());
        Dataset {
            input,
            tensors: (0..images).flat_map(numbered).collect(),
            labels: (0..images as u32).collect(),
            hashes: vec![[0; 32]; images],
            classes: images,
            dropped: Dropped::default(),
        }
    }

    fn order(batch_size: usize, seed: u64, epoch: u64) -> Order {
        Order {
            batch_size,
            seed,
            epoch,
            augment: Augment::default(),
            background: vec![0.0],
        }
    }

    proptest! {
        #[test]
        fn every_index_comes_exactly_once(
            size in 1usize..9, seed: u64, epoch in 0u64..1 << 24, picked in prop::collection::btree_set(0usize..40, 0..40)
        ) {
            let data = dataset(40);
            let indices: Vec<usize> = picked.into_iter().collect();
            let batches = Batches::new(&data, &indices, order(size, seed, epoch));
            let count = batches.len();
            let batches: Vec<Batch> = batches.collect();
            prop_assert_eq!(batches.len(), count);
            let mut seen = Vec::new();
            for (number, batch) in batches.iter().enumerate() {
                let expected = size.min(indices.len() - number * size);
                prop_assert_eq!(batch.labels.len(), expected);
                for (image, &label) in batch.images.chunks(6).zip(&batch.labels) {
                    prop_assert_eq!(image, data.tensor(label as usize));
                }
                seen.extend(batch.labels.iter().map(|&label| label as usize));
            }
            seen.sort_unstable();
            prop_assert_eq!(seen, indices);
        }

        #[test]
        fn seed_and_epoch_say_everything(seed: u64, epoch in 0u64..1000, size in 1usize..9) {
            let data = dataset(40);
            let indices: Vec<usize> = (0..40).collect();
            let augment = Augment { shift: 1, flip: true, rotate: 30.0, erase: 0.5 };
            let run = |seed, epoch, size| {
                let order = Order { augment, ..order(size, seed, epoch) };
                let batches = Batches::new(&data, &indices, order);
                batches.fold((Vec::new(), Vec::new()), |(mut images, mut labels), batch| {
                    images.extend(batch.images.iter().map(|v| v.to_bits()));
                    labels.extend(batch.labels);
                    (images, labels)
                })
            };
            let first = run(seed, epoch, size);
            prop_assert_eq!(&first, &run(seed, epoch, size));
            // Draws go by position and not by batch.
            prop_assert_eq!(&first, &run(seed, epoch, 40));
            for other in [run(seed, epoch + 1, size), run(seed.wrapping_add(1), epoch, size)] {
                prop_assert_ne!(&first.1, &other.1);
            }
        }
    }

    #[test]
    fn each_epoch_and_position_has_changes_of_its_own() {
        let data = dataset(1);
        let augment = Augment {
            erase: 1.0,
            rotate: 90.0,
            ..Augment::default()
        };
        let image = |epoch, indices: &[usize]| {
            let order = Order {
                augment,
                background: vec![9.0],
                ..order(8, 5, epoch)
            };
            let mut batches = Batches::new(&data, indices, order);
            batches.next().unwrap().images
        };
        let twice = image(0, &[0, 0]);
        assert_ne!(twice[..6], twice[6..]);
        assert_ne!(image(0, &[0]), image(1, &[0]));
    }

    #[test]
    fn no_images_make_no_batch() {
        let data = dataset(3);
        let mut batches = Batches::new(&data, &[], order(4, 0, 0));
        assert_eq!((batches.len(), batches.next()), (0, None));
        assert_eq!(Batches::new(&data, &[0, 1, 2], order(2, 0, 0)).count(), 2);
    }
}
