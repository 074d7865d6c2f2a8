//! `application/json` to pictures, without a tree of values between.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::levels::Levels;
use super::{base64, too_many};
use crate::http::problem::{Kind, Problem, excerpt};
use crate::predict::Picture;

const ONE_KEY: &str = "an object with exactly one of the keys image, images and instances";
const ONE_ITEM_KEY: &str = "an object with exactly one of the keys b64 and image";

/// The pictures of `{"image": …}`, `{"images": […]}` or `{"instances": […]}`. Each is a string of base64,
/// `{"b64": "…"}`, `{"image": …}` or nested pixel levels.
pub(super) fn pictures(body: &[u8], max_images: usize) -> Result<Vec<Picture>, Problem> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let listed = Document(max_images)
        .deserialize(&mut json)
        .and_then(|listed| json.end().map(|()| listed))
        .map_err(|error| {
            let detail = format!("the JSON is not understood: {}", excerpt(&error.to_string()));
            Problem::new(Kind::BadRequest, detail)
        })?;
    listed.ok_or_else(|| too_many(max_images))
}

/// The whole body; holds the most images it may list.
struct Document(usize);

/// An array of images, read up to that many; `None` where there are more.
struct List(usize);

/// One image.
struct Item;

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Key {
    Image,
    Images,
    Instances,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum ItemKey {
    B64,
    Image,
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> DeserializeSeed<'de> for Document {
    type Value = Option<Vec<Picture>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Document {
    type Value = Option<Vec<Picture>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(ONE_KEY)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let pictures = match map.next_key()? {
            Some(Key::Image) => Some(vec![map.next_value_seed(Item)?]),
            Some(Key::Images | Key::Instances) => map.next_value_seed(List(self.0))?,
            None => return Err(A::Error::invalid_length(0, &self)),
        };
        match map.next_key::<Key>()? {
            None => Ok(pictures),
            Some(_) => Err(A::Error::invalid_length(2, &self)),
        }
    }
}

impl<'de> DeserializeSeed<'de> for List {
    type Value = Option<Vec<Picture>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for List {
    type Value = Option<Vec<Picture>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of images")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut pictures = Vec::new();
        while pictures.len() < self.0 {
            match seq.next_element_seed(Item)? {
                Some(picture) => pictures.push(picture),
                None => return Ok(Some(pictures)),
            }
        }
        let mut beyond = false;
        while seq.next_element::<IgnoredAny>()?.is_some() {
            beyond = true;
        }
        Ok((!beyond).then_some(pictures))
    }
}

impl<'de> DeserializeSeed<'de> for Item {
    type Value = Picture;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Picture, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Item {
    type Value = Picture;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an image: a string of base64, {\"b64\": …} or nested pixel levels")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Picture, E> {
        Ok(base64::picture(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Picture, A::Error> {
        Levels::picture(seq)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Picture, A::Error> {
        let picture = match map.next_key()? {
            Some(ItemKey::B64) => base64::picture(&map.next_value::<Text<'_>>()?.0),
            // TensorFlow Serving's form, where the instance names the network's input.
            Some(ItemKey::Image) => map.next_value_seed(Item)?,
            None => return Err(A::Error::invalid_length(0, &ONE_ITEM_KEY)),
        };
        match map.next_key::<ItemKey>()? {
            None => Ok(picture),
            Some(_) => Err(A::Error::invalid_length(2, &ONE_ITEM_KEY)),
        }
    }
}
