//! Nested arrays of pixel levels to pixels.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};

use crate::predict::Picture;
use crate::preprocess::{ImageError, Pixels};

/// An image of nested arrays while it is read: rows × columns (grey) or rows × columns × levels (grey; grey, alpha;
/// RGB; RGB, alpha), each level a whole number 0…255. Levels go straight to their bytes.
#[derive(Debug, Default)]
pub(super) struct Levels {
    bytes: Vec<u8>,
    rows: u32,
    /// Bytes of the first row, which every row must have.
    row_bytes: Option<usize>,
    /// Levels of the first pixel, which every pixel must have.
    channels: Option<usize>,
    /// The first thing that is wrong; the rest of the image is then read only to find its end.
    fault: Option<String>,
}

/// What the array being read holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Array {
    Image,
    Row,
    Pixel,
}

/// Reads one element of an array.
struct Element<'a> {
    levels: &'a mut Levels,
    of: Array,
}

impl Levels {
    /// Reads the rows of an image. Arrays that nest deeper, and what is neither array nor number, are errors of the
    /// whole document; every other fault is the picture's own.
    pub(super) fn picture<'de, A: SeqAccess<'de>>(mut rows: A) -> Result<Picture, A::Error> {
        let mut levels = Self::default();
        while rows.next_element_seed(levels.element(Array::Image))?.is_some() {}
        Ok(match levels.pixels() {
            Ok(pixels) => Picture::Pixels(pixels),
            Err(fault) => Picture::Refused(ImageError::Invalid(fault)),
        })
    }

    fn pixels(self) -> Result<Pixels, String> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let (row_bytes, channels) = (self.row_bytes.unwrap_or(0), self.channels.unwrap_or(0));
        if row_bytes == 0 {
            return Err("the image has no pixels".to_owned());
        }
        let Some(channels @ 1..=4) = u8::try_from(channels).ok() else {
            return Err(format!(
                "a pixel has 1 level (grey), 2 (grey, alpha), 3 (red, green, blue) or 4 (with alpha), not {channels}"
            ));
        };
        Ok(Pixels {
            width: u32::try_from(row_bytes / usize::from(channels)).unwrap_or(u32::MAX),
            height: self.rows,
            channels,
            bytes: self.bytes,
        })
    }

    fn element(&mut self, of: Array) -> Element<'_> {
        Element { levels: self, of }
    }

    fn wrong(&mut self, fault: impl FnOnce() -> String) {
        self.fault.get_or_insert_with(fault);
    }

    /// A level was read; a bare one in a row is a grey pixel.
    fn level(&mut self, level: Option<u8>, of: Array, shown: impl fmt::Display) {
        match level {
            Some(level) => self.bytes.push(level),
            None => self.wrong(|| format!("pixel levels are whole numbers from 0 to 255; {shown} is none")),
        }
        match of {
            Array::Image => {
                self.wrong(|| "an image is an array of rows, a row an array of pixels".to_owned());
            }
            Array::Row => self.pixel_ends(1),
            Array::Pixel => {}
        }
    }

    fn pixel_ends(&mut self, channels: usize) {
        if *self.channels.get_or_insert(channels) != channels {
            self.wrong(|| "the pixels do not all have the same number of levels".to_owned());
        }
    }

    fn row_ends(&mut self, bytes: usize) {
        self.rows = self.rows.saturating_add(1);
        if *self.row_bytes.get_or_insert(bytes) != bytes {
            self.wrong(|| "the rows are not all of the same length".to_owned());
        }
    }
}

impl<'de> DeserializeSeed<'de> for Element<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Element<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("rows of pixels of levels from 0 to 255")
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.levels.level(u8::try_from(value).ok(), self.of, value);
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.levels.level(u8::try_from(value).ok(), self.of, value);
        Ok(())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        let whole = value.fract() == 0.0 && (0.0..=255.0).contains(&value);
        let level = whole.then_some(value as u8);
        // `{:?}` writes 1e300 so, and not in 301 digits.
        self.levels.level(level, self.of, format_args!("{value:?}"));
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self { levels, of } = self;
        let before = levels.bytes.len();
        let inner = match of {
            Array::Image => Array::Row,
            Array::Row => Array::Pixel,
            Array::Pixel => {
                return Err(A::Error::custom(
                    "pixel levels nest no deeper than rows, pixels and levels",
                ));
            }
        };
        while seq.next_element_seed(levels.element(inner))?.is_some() {}
        let bytes = levels.bytes.len() - before;
        match inner {
            Array::Row => levels.row_ends(bytes),
            _ => levels.pixel_ends(bytes),
        }
        Ok(())
    }
}
