//! A report on labelled images: what cannot be read, what stands twice, what looks wrong.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use crate::model::Spec;
use crate::preprocess::{Limits, Pixels};

use super::labels::{Label, Labels};
use super::samples::{Image, Samples};
use super::{DatasetError, Source, hex, is_held_out};

mod report;

pub use report::{ClassCount, Group, Labelled, Report, Undecodable, WrongSize};

/// Looks at every image of `source`; with a spec, against that model's labels and size.
///
/// # Errors
/// When the source itself is broken: an idx file that is not one, a CSV file without its columns. Broken images are in
/// the report.
pub fn check(source: &Source, spec: Option<&Spec>, limits: &Limits) -> Result<Report, DatasetError> {
    let mut seen = Seen::default();
    for sample in Samples::open(source, limits)? {
        let sample = sample?;
        *seen.classes.entry(sample.label.clone()).or_default() += 1;
        match sample.image {
            Ok(image) => seen
                .readable
                .push(Readable::new(sample.place, sample.label, &image)),
            Err(why) => seen.undecodable.push(Undecodable {
                image: sample.place,
                problem: why.to_string(),
            }),
        }
    }
    Ok(seen.into_report(spec))
}

/// What is remembered of all images; never their pixels.
#[derive(Default)]
struct Seen {
    readable: Vec<Readable>,
    undecodable: Vec<Undecodable>,
    classes: BTreeMap<Label, usize>,
}

struct Readable {
    place: PathBuf,
    label: Label,
    hash: [u8; 32],
    width: u32,
    height: u32,
    blank: bool,
}

impl Readable {
    fn new(place: PathBuf, label: Label, image: &Image) -> Self {
        Self {
            place,
            label,
            hash: image.hash,
            width: image.pixels.width,
            height: image.pixels.height,
            blank: is_blank(&image.pixels),
        }
    }
}

impl Seen {
    fn into_report(self, spec: Option<&Spec>) -> Report {
        let labels = Labels::new(spec.map_or(&[], |spec| &spec.labels));
        let unknown = |label| labels.class(label).err();
        let unknown_labels = match spec {
            Some(_) => self.classes.keys().filter_map(unknown).collect(),
            None => Vec::new(),
        };
        let expected_size = match spec {
            Some(spec) => Some((spec.input.width as u32, spec.input.height as u32)),
            None => self.most_common_size(),
        };
        let copies = self.copies(&labels);
        Report {
            images: self.readable.len() + self.undecodable.len(),
            distinct: copies.distinct,
            hold_out: copies.hold_out,
            classes: self.class_counts(&labels, spec),
            unknown_labels,
            expected_size,
            wrong_size: self.of_other_size(expected_size),
            blank: self.blank(),
            undecodable: self.undecodable,
            duplicates: copies.duplicates,
            conflicting: copies.conflicting,
        }
    }

    fn of_other_size(&self, expected: Option<(u32, u32)>) -> Vec<WrongSize> {
        let others = self
            .readable
            .iter()
            .filter(|image| Some((image.width, image.height)) != expected);
        let wrong_size = others.map(|image| WrongSize {
            image: image.place.clone(),
            width: image.width,
            height: image.height,
        });
        wrong_size.collect()
    }

    fn blank(&self) -> Vec<PathBuf> {
        let blank = self.readable.iter().filter(|image| image.blank);
        blank.map(|image| image.place.clone()).collect()
    }

    /// Of equally common sizes the larger.
    fn most_common_size(&self) -> Option<(u32, u32)> {
        let mut counts: BTreeMap<(u32, u32), usize> = BTreeMap::new();
        for image in &self.readable {
            *counts.entry((image.width, image.height)).or_default() += 1;
        }
        counts
            .into_iter()
            .max_by_key(|&(size, count)| (count, size))
            .map(|(size, _)| size)
    }

    fn class_counts(&self, labels: &Labels, spec: Option<&Spec>) -> Vec<ClassCount> {
        let names = spec.map_or(&[][..], |spec| &spec.labels);
        let mut counts: Vec<ClassCount> = names
            .iter()
            .map(|label| ClassCount::new(label.clone(), 0))
            .collect();
        for (label, &images) in &self.classes {
            let class = labels.class(label).ok();
            match class.and_then(|class| counts.get_mut(class as usize)) {
                Some(count) => count.images = images,
                None => counts.push(ClassCount::new(label_text(label, labels), images)),
            }
        }
        counts
    }

    /// Everything that goes by sha256, in the order of each image's first copy.
    fn copies(&self, labels: &Labels) -> Copies {
        let mut groups: HashMap<&[u8; 32], Vec<&Readable>> = HashMap::new();
        for image in &self.readable {
            groups.entry(&image.hash).or_default().push(image);
        }
        let mut copies = Copies::default();
        for image in &self.readable {
            // The first copy takes its group out.
            let Some(members) = groups.remove(&image.hash) else {
                continue;
            };
            let conflicting = members.iter().any(|copy| copy.label != image.label);
            if !conflicting {
                copies.distinct += 1;
                copies.hold_out += usize::from(is_held_out(&image.hash));
            }
            if conflicting {
                copies.conflicting.push(group(&members, labels));
            } else if members.len() > 1 {
                copies.duplicates.push(group(&members, labels));
            }
        }
        copies
    }
}

/// What goes by sha256; fields as in [`Report`].
#[derive(Default)]
struct Copies {
    distinct: usize,
    hold_out: usize,
    duplicates: Vec<Group>,
    conflicting: Vec<Group>,
}

fn group(members: &[&Readable], labels: &Labels) -> Group {
    let images = members.iter().map(|image| Labelled {
        image: image.place.clone(),
        label: label_text(&image.label, labels),
    });
    Group {
        sha256: members.first().map_or_else(String::new, |image| hex(&image.hash)),
        images: images.collect(),
    }
}

/// The model's name of a class where it has one.
fn label_text(label: &Label, labels: &Labels) -> String {
    match label {
        Label::Class(class) => labels
            .name(*class)
            .map_or_else(|| class.to_string(), str::to_owned),
        Label::Name(name) => name.clone(),
    }
}

fn is_blank(pixels: &Pixels) -> bool {
    let mut each = pixels.bytes.chunks_exact(usize::from(pixels.channels).max(1));
    let first = each.next();
    each.all(|pixel| Some(pixel) == first)
}

#[cfg(test)]
mod tests;
