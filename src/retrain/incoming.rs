//! What came in since the model was trained: the store's labelled images, decoded.

use std::collections::HashSet;
use std::sync::Arc;

use crate::dataset::{Dataset, MAX_TENSOR_BYTES, Split};
use crate::model::Spec;
use crate::preprocess::{Limits, Preprocessor, decode, dhash};
use crate::store::Example;

use super::RetrainError;
use super::shelf::Shelf;

/// Labelled images of the store, as the model takes them.
pub struct Incoming {
    /// Each image with who said what it is.
    pub examples: Vec<Example>,
    /// The same images in the same order.
    pub data: Dataset,
    /// Which of them are trained on, and which are held out for ever.
    pub split: Split,
    /// How each looks: see [`dhash`].
    pub looks: Vec<u64>,
    /// Images that were left out because they cannot be read, or have a label that is no class.
    pub unreadable: usize,
}

impl Incoming {
    /// Reads and checks the bytes of each of `examples`.
    pub(super) fn read(
        shelf: &Shelf,
        examples: Vec<Example>,
        spec: &Spec,
        limits: &Limits,
    ) -> Result<Self, RetrainError> {
        let bytes = (examples.len() as u64).saturating_mul(4 * spec.input.len() as u64);
        if bytes > MAX_TENSOR_BYTES {
            let images = examples.len();
            return Err(RetrainError::Data(format!(
                "{images} images of feedback take {bytes} bytes; {MAX_TENSOR_BYTES} at most are held in memory"
            )));
        }
        let preprocessor = Preprocessor::new(Arc::new(spec.clone()));
        let all = examples.len();
        let (mut data, mut kept, mut looks) = (Dataset::empty(spec), Vec::with_capacity(all), Vec::new());
        for example in examples {
            if example.label as usize >= data.classes {
                continue;
            }
            // What is gone by now was erased while this went on.
            let Some(image) = shelf.image(&example.sha256)? else {
                continue;
            };
            let read =
                decode(&image, limits).and_then(|pixels| Ok((dhash(&pixels), preprocessor.tensor(pixels)?)));
            if let Ok((look, tensor)) = read {
                data.push(*example.sha256.bytes(), example.label, &tensor);
                kept.push(example);
                looks.push(look);
            }
        }
        Ok(Self {
            split: data.split(),
            unreadable: all - kept.len(),
            examples: kept,
            looks,
            data,
        })
    }

    /// Leaves out the images at these places.
    pub(super) fn leave_out(&mut self, places: &[usize]) {
        if places.is_empty() {
            return;
        }
        let out: HashSet<[u8; 32]> = places.iter().map(|&place| self.data.hashes[place]).collect();
        let stays = |example: &Example| !out.contains(example.sha256.bytes());
        let mut stay = self.examples.iter().map(stays).collect::<Vec<_>>().into_iter();
        self.looks.retain(|_| stay.next().unwrap_or(false));
        self.examples.retain(stays);
        self.data.retain(|hash| !out.contains(hash));
        self.split = self.data.split();
    }
}
