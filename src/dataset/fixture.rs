//! Data sets written for the tests.

use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use image::{GrayImage, ImageFormat};

use crate::model::Spec;
use crate::preprocess::Limits;

pub(super) const LIMITS: Limits = Limits {
    max_side: 64,
    max_pixels: 4096,
    max_alloc_bytes: 8 << 20,
};

/// A model of 2×2 grey images.
pub(super) fn spec() -> Spec {
    Spec::parse(
        "architecture = 'seed-cnn'\nlabels = ['cat', 'dog']\ninput = { channels = 1, height = 2, width = 2 }",
    )
    .unwrap()
}

/// Writes a file and the folders above it.
pub(super) fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::File::create(path)
        .and_then(|mut file| file.write_all(bytes))
        .unwrap();
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An idx file.
pub(super) fn idx(magic: u32, lengths: &[u32], body: &[u8]) -> Vec<u8> {
    let header = std::iter::once(magic).chain(lengths.iter().copied());
    let mut bytes: Vec<u8> = header.flat_map(u32::to_be_bytes).collect();
    bytes.extend(body);
    bytes
}

/// `train-…` idx files of 2×2 images, each filled with its given value.
pub(super) fn write_idx(folder: &Path, images: &[(u8, u8)]) {
    let count = images.len() as u32;
    let pixels: Vec<u8> = images.iter().flat_map(|&(value, _)| [value; 4]).collect();
    let labels: Vec<u8> = images.iter().map(|&(_, label)| label).collect();
    write(
        &folder.join("train-images-idx3-ubyte"),
        &idx(0x803, &[count, 2, 2], &pixels),
    );
    write(
        &folder.join("train-labels-idx1-ubyte"),
        &idx(0x801, &[count], &labels),
    );
}

/// A grey PNG of width × height, its first pixel `first` and the others 0.
pub(super) fn png(width: u32, height: u32, first: u8) -> Vec<u8> {
    let mut image = GrayImage::new(width, height);
    image.get_pixel_mut(0, 0).0 = [first];
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}
