//! What a check of labelled images found, as data and as text.

use std::path::PathBuf;

use serde::Serialize;

/// What was found in a source. Nothing in it is changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Labelled images the source names.
    pub images: usize,
    /// Different images among the readable ones, those with conflicting labels left out: what training gets.
    pub distinct: usize,
    /// Of the distinct ones, those never trained on (`Dataset::split`).
    pub hold_out: usize,
    /// Images per label: the model's labels in their order where a model is given, all others after them.
    pub classes: Vec<ClassCount>,
    /// Labels that the given model does not have, each with what would be right.
    pub unknown_labels: Vec<String>,
    /// Images that cannot be read.
    pub undecodable: Vec<Undecodable>,
    /// Columns and rows that images should have: the given model's input, or the most common size.
    pub expected_size: Option<(u32, u32)>,
    /// Images of another size. They are resized when they are read.
    pub wrong_size: Vec<WrongSize>,
    /// Images whose pixels are all the same.
    pub blank: Vec<PathBuf>,
    /// Images of the same bytes under one label: one of each is kept.
    pub duplicates: Vec<Group>,
    /// Images of the same bytes under different labels: none of them is kept.
    pub conflicting: Vec<Group>,
}

/// How many images a label has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClassCount {
    /// The label.
    pub label: String,
    /// Its images, readable or not.
    pub images: usize,
}

/// An image that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Undecodable {
    /// The file.
    pub image: PathBuf,
    /// Why not.
    pub problem: String,
}

/// An image of an unusual size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WrongSize {
    /// The file; `FILE#<index>` in an idx file.
    pub image: PathBuf,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// Images of the same bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    /// Of the bytes, lower-case hex.
    pub sha256: String,
    /// In the order of the source.
    pub images: Vec<Labelled>,
}

/// An image and what it is said to show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Labelled {
    /// The file; `FILE#<index>` in an idx file.
    pub image: PathBuf,
    /// The label.
    pub label: String,
}

/// Findings of one kind that [`Report::text`] shows.
const SHOWN: usize = 10;
/// Classes that it shows.
const SHOWN_CLASSES: usize = 100;
/// Copies of one image that it shows.
const SHOWN_COPIES: usize = 4;

impl ClassCount {
    pub(super) fn new(label: String, images: usize) -> Self {
        Self { label, images }
    }

    fn text(&self) -> String {
        format!("{:>8}  {}", self.images, self.label)
    }
}

impl Report {
    /// Why these data should not be trained on as they are, in one line; `None` when nothing speaks against it.
    /// Duplicates, blank images and other sizes do not.
    pub fn objection(&self) -> Option<String> {
        let reasons = [
            (self.undecodable.len(), "undecodable images"),
            (self.conflicting.len(), "images under conflicting labels"),
            (self.unknown_labels.len(), "labels that the model does not have"),
        ];
        let reasons: Vec<String> = reasons
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{what}: {count}"))
            .collect();
        (!reasons.is_empty()).then(|| reasons.join(", "))
    }

    /// For a terminal; long lists are cut.
    pub fn text(&self) -> String {
        let mut text = format!(
            "{} images, {} distinct, {} of them held out (sha256 mod 10 = 0)\n",
            self.images, self.distinct, self.hold_out
        );
        let unlike = match self.expected_size {
            Some((width, height)) => format!("other size than {width}×{height}"),
            None => "other size".to_owned(),
        };
        let out = &mut text;
        section(out, "classes", &self.classes, SHOWN_CLASSES, ClassCount::text);
        section(out, "unknown labels", &self.unknown_labels, SHOWN, String::clone);
        section(out, "undecodable", &self.undecodable, SHOWN, Undecodable::text);
        section(out, "conflicting labels", &self.conflicting, SHOWN, Group::text);
        section(out, "duplicates", &self.duplicates, SHOWN, Group::text);
        section(out, &unlike, &self.wrong_size, SHOWN, WrongSize::text);
        section(out, "blank", &self.blank, SHOWN, |image| {
            image.display().to_string()
        });
        text
    }
}

impl Undecodable {
    fn text(&self) -> String {
        format!("{}: {}", self.image.display(), self.problem)
    }
}

impl WrongSize {
    fn text(&self) -> String {
        format!("{}: {}×{}", self.image.display(), self.width, self.height)
    }
}

impl Group {
    fn text(&self) -> String {
        let shown = self.images.iter().take(SHOWN_COPIES);
        let shown: Vec<String> = shown
            .map(|i| format!("{} ({})", i.image.display(), i.label))
            .collect();
        let more = match self.images.len().saturating_sub(SHOWN_COPIES) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("{}{more}", shown.join(" = "))
    }
}

/// A heading with the count, then a line for each of the first `most`.
fn section<T>(out: &mut String, heading: &str, found: &[T], most: usize, text: impl Fn(&T) -> String) {
    let mut lines = vec![format!("{heading}: {}", found.len())];
    lines.extend(found.iter().take(most).map(|one| format!("  {}", text(one))));
    if found.len() > most {
        lines.push(format!("  and {} more", found.len() - most));
    }
    out.push_str(&lines.join("\n"));
    out.push('\n');
}
