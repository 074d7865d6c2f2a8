//! Every reader of bytes that somebody else wrote. A target says in a line what became of its input; it panics where a
//! promise is broken.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http1::HeaderValue;
use sconce::config::Config;
use sconce::dataset::{Dataset, Source};
use sconce::http;
use sconce::model::{Spec, Weights};
use sconce::predict::Picture;
use sconce::preprocess::{Header, ImageError, Limits, Preprocessor, decode, dhash, header};

/// Something that reads bytes.
pub struct Target {
    pub name: &'static str,
    pub open: fn() -> Box<dyn FnMut(&[u8]) -> String>,
    /// What its inputs are made of.
    pub words: &'static [&'static [u8]],
    pub is_image: bool,
}

const fn target(
    name: &'static str,
    open: fn() -> Box<dyn FnMut(&[u8]) -> String>,
    words: &'static [&'static [u8]],
) -> Target {
    Target {
        name,
        open,
        words,
        is_image: false,
    }
}

/// All of them, in the order in which they run.
pub static TARGETS: [Target; 9] = [
    Target {
        name: "image",
        open: image,
        words: &[
            b"IHDR",
            b"PLTE",
            b"tRNS",
            b"IDAT",
            b"IEND",
            b"eXIf",
            b"acTL",
            b"fcTL",
            b"fdAT",
            b"iCCP",
            b"zTXt",
            b"\xff\xd8\xff",
            b"\xff\xc0",
            b"\xff\xc2",
            b"\xff\xda",
            b"\xff\xd9",
            b"\xff\xdd",
            b"\xff\xc4",
            b"\xff\xe1",
            b"\xff\xee\0\x0eAdobe",
            b"Exif\0\0II*\0",
            b"RIFF",
            b"WEBP",
            b"VP8 ",
            b"VP8L",
            b"VP8X",
            b"ALPH",
            b"ANMF",
            b"\x9d\x01\x2a",
            b"GIF89a",
            b"\x21\xf9\x04",
            b"\x2c",
            b"BM",
            b"\x28\0\0\0",
            b"\x0c\0\0\0",
        ],
        is_image: true,
    },
    target("multipart", form, FORM_WORDS),
    target("content-type", content_type, FORM_WORDS),
    target(
        "json",
        json,
        &[
            b"\"image\":",
            b"\"images\":",
            b"\"instances\":",
            b"\"b64\":",
            b"[[",
            b"]]",
            b"{",
            b"}",
            b"[",
            b"]",
            b"null",
            b"1e999",
            b"-0",
            b"0.5",
            b"256",
            b"\\u0000",
            b"\\ud800",
            b"data:image/png;base64,",
            b"http://",
            b"\xff",
        ],
    ),
    target(
        "config",
        config,
        &[
            b"[http]\n",
            b"[log]\n",
            b"filter = \"",
            b"= ",
            b"\n",
            b"\"",
            b"true",
            b"-1",
            b"1e9",
            b"inf",
            b"nan",
            b"9223372036854775807",
            b"{ a = 1 }",
            b"[[",
            b"'''",
            b"\xe3\x80\x80",
            b"[{",
            b"}]=",
        ],
    ),
    target(
        "model-toml",
        model_toml,
        &[
            b"architecture = 'layers'\n",
            b"[[layers]]\n",
            b"type = ",
            b"'conv2d'",
            b"'linear'",
            b"'max_pool'",
            b"'avg_pool'",
            b"'add'",
            b"'concat'",
            b"out = ",
            b"kernel = ",
            b"stride = ",
            b"padding = ",
            b"groups = ",
            b"from = ",
            b"name = ",
            b"4294967295",
            b"0",
            b"-1",
            b"1e30",
            b"nan",
            b"labels = []\n",
            b"'resnet18'",
            b"'mobilenet_v2'",
            b"'convnext_tiny'",
            b"input = { channels = 1, height = 1, width = 1 }\n",
        ],
    ),
    target(
        "safetensors",
        safetensors,
        &[
            b"\"dtype\":\"F32\"",
            b"\"F16\"",
            b"\"BF16\"",
            b"\"I64\"",
            b"\"shape\":[",
            b"\"data_offsets\":[",
            b"18446744073709551615",
            b"-1",
            b"0.5",
            b"{",
            b"}",
            b"[",
            b"]",
            b"\"fc.weight\":",
            b"\"__metadata__\":{",
            b"\0\0\xc0\x7f",
            b"\0\0\x80\x7f",
            b"\xff\xff\xff\xff\xff\xff\xff\x7f",
        ],
    ),
    target(
        "idx",
        idx,
        &[
            b"\0\0\x08\x03",
            b"\0\0\x08\x01",
            b"\xff\xff\xff\xff",
            b"\x1f\x8b\x08\0",
        ],
    ),
    target(
        "csv",
        csv,
        &[
            b"path,label\n",
            b"a.png",
            b"zero",
            b"\"",
            b"\"\"",
            b",",
            b"\r\n",
            b"../",
            b"/etc/passwd",
            b"\0",
            b"\xff",
            b"\xef\xbb\xbf",
            b"\n\n",
            b"file",
            b"image",
        ],
    ),
];

const FORM_WORDS: &[&[u8]] = &[
    b"multipart/form-data",
    b"application/json",
    b"image/",
    b"boundary=",
    b"; ",
    b"\"",
    b"\\",
    b"\r\n",
    b"\r\n\r\n",
    b"--",
    b"--XX",
    b"--XX--",
    b"Content-Disposition: ",
    b"form-data",
    b"name=",
    b"name=\"image\"",
    b"filename*=UTF-8''x",
    b":",
    b"=",
    b";",
    b"\n",
    b"\t",
    b"\xff",
    b"\0",
];

const GREY: &str = "architecture = 'small-cnn'\nlabels = ['zero', 'one']\ninput = { channels = 1, height = 8, width = 8 }\n\
preprocess = { invert = 'auto', center = 'mass' }\n";
const COLOUR: &str = "architecture = 'small-cnn'\nlabels = ['zero', 'one']\ninput = { channels = 3, height = 8, width = 8 }\n\
preprocess = { resize = 'crop', crop_pct = 0.9 }\n";

fn spec(text: &str) -> Spec {
    Spec::parse(text).expect("the spec is right")
}

/// Small, so that the time goes into reading and not into pixels.
fn limits() -> Limits {
    Limits {
        max_side: 512,
        max_pixels: 100_000,
        max_alloc_bytes: 64 << 20,
    }
}

fn image() -> Box<dyn FnMut(&[u8]) -> String> {
    let models = [GREY, COLOUR].map(|text| Preprocessor::new(Arc::new(spec(text))));
    Box::new(move |bytes| {
        let limits = limits();
        let told = header(bytes, &limits);
        match decode(bytes, &limits) {
            Ok(pixels) => {
                let header = told.expect("what decodes has a header that is taken");
                let (width, height) = (pixels.width, pixels.height);
                let count = width as usize * height as usize * usize::from(pixels.channels);
                assert_eq!(pixels.bytes.len(), count);
                assert!(
                    [(header.width, header.height), (header.height, header.width)].contains(&(width, height))
                );
                let _ = dhash(&pixels);
                for model in &models {
                    let tensor = model.tensor(pixels.clone()).expect("pixels become a tensor");
                    assert!(tensor.len() == model.len() && tensor.iter().all(|number| number.is_finite()));
                }
                let sum: u64 = pixels.bytes.iter().map(|&byte| u64::from(byte)).sum();
                let mean = sum / (pixels.bytes.len() as u64).max(1);
                format!("{} channels {} {}", pixels.channels, shape(&header), letter(mean))
            }
            Err(ImageError::Panicked) => panic!("a decoder panicked"),
            // Decoders say little of how far they came: what the header told tells some of it.
            Err(error) => match told {
                Ok(header) => format!("{error} {}", shape(&header)),
                Err(_) => error.to_string(),
            },
        }
    })
}

/// Sizes and memory of a header, roughly.
fn shape(header: &Header) -> String {
    let sizes = [
        u64::from(header.width),
        u64::from(header.height),
        header.memory_bytes,
    ];
    sizes.map(letter).iter().collect()
}

/// A number's length in bits, as a letter: digits are not told apart.
fn letter(number: u64) -> char {
    char::from(b'a' + (64 - number.leading_zeros()).min(25) as u8)
}

fn shown(result: Result<Vec<Picture>, http::problem::Problem>) -> String {
    match result {
        Ok(pictures) => {
            let kind = |picture: &Picture| match picture {
                Picture::Encoded(_) => "file".to_owned(),
                Picture::Pixels(pixels) => format!("{} channels", pixels.channels),
                Picture::Refused(error) => error.to_string(),
            };
            let mut kinds: Vec<String> = pictures.iter().map(kind).collect();
            kinds.sort();
            kinds.dedup();
            kinds.join("; ")
        }
        Err(problem) => {
            assert!(problem.kind.status().as_u16() < 500, "{}", problem.detail);
            assert!(
                problem.detail.len() < 2000 && !problem.detail.contains('\n'),
                "{}",
                problem.detail
            );
            format!("{}: {}", problem.kind.name(), problem.detail)
        }
    }
}

fn pictures(content_type: &[u8], body: &[u8]) -> String {
    let config = http::Config {
        max_images: 4,
        ..http::Config::default()
    };
    // What a connection lets through as a header.
    let Ok(content_type) = HeaderValue::from_bytes(content_type) else {
        return "no header".to_owned();
    };
    shown(http::pictures_of(
        Some(&content_type),
        Bytes::copy_from_slice(body),
        &config,
    ))
}

/// The content type up to the first line's end, then the body.
fn form() -> Box<dyn FnMut(&[u8]) -> String> {
    Box::new(|bytes| {
        let end = bytes.iter().position(|&b| b == b'\n').unwrap_or(bytes.len());
        pictures(&bytes[..end], bytes.get(end + 1..).unwrap_or_default())
    })
}

/// As above, with a body that never changes.
fn content_type() -> Box<dyn FnMut(&[u8]) -> String> {
    Box::new(|bytes| {
        let end = bytes.iter().position(|&b| b == b'\n').unwrap_or(bytes.len());
        pictures(
            &bytes[..end],
            b"--XX\r\nContent-Disposition: form-data; name=image\r\n\r\n1\r\n--XX--",
        )
    })
}

fn json() -> Box<dyn FnMut(&[u8]) -> String> {
    Box::new(|bytes| pictures(b"application/json", bytes))
}

/// A folder in memory that each run writes anew; it stays until the machine forgets it.
fn folder(name: &str) -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    let base = if memory.is_dir() {
        memory
    } else {
        std::env::temp_dir()
    };
    let folder = base.join(format!("sconce-fuzz-{}-{name}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder can be made");
    folder
}

fn write(path: &PathBuf, bytes: &[u8]) {
    fs::write(path, bytes).expect("a file can be written");
}

/// One line, whatever was given.
fn line(error: &impl ToString) -> String {
    let text = error.to_string();
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

fn config() -> Box<dyn FnMut(&[u8]) -> String> {
    let file = folder("config").join("sconce.toml");
    Box::new(move |bytes| {
        write(&file, bytes);
        match Config::load(Some(&file), &[]) {
            Ok(config) => {
                config.check().expect("what was taken is right");
                "taken".to_owned()
            }
            Err(error) => line(&error).replace(&*file.to_string_lossy(), ""),
        }
    })
}

fn model_toml() -> Box<dyn FnMut(&[u8]) -> String> {
    Box::new(|bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return "not UTF-8".to_owned();
        };
        let spec = match Spec::parse(text) {
            Ok(spec) => spec,
            Err(error) => return error.to_string(),
        };
        let _ = Preprocessor::new(Arc::new(spec.clone())).background();
        match spec.graph() {
            Ok(graph) => format!("a network of {}", spec.architecture.len().min(graph.parameters())),
            Err(error) => error.to_string(),
        }
    })
}

/// A good file of a small network.
pub fn weights() -> Vec<u8> {
    let graph = spec(GREY).graph().expect("the network is right");
    let weights = Weights::initialise(&graph, 1).expect("weights can be drawn");
    weights
        .to_safetensors(&BTreeMap::new())
        .expect("weights can be written")
}

fn safetensors() -> Box<dyn FnMut(&[u8]) -> String> {
    let graph = spec(GREY).graph().expect("the network is right");
    Box::new(move |bytes| match Weights::from_safetensors(bytes, &graph) {
        Ok(weights) => {
            let again = weights
                .to_safetensors(&BTreeMap::new())
                .expect("what was read can be written");
            Weights::from_safetensors(&again, &graph).expect("and read again");
            "weights".to_owned()
        }
        Err(error) => line(&error),
    })
}

/// Two files as one input.
pub fn two(first: &[u8], second: &[u8]) -> Vec<u8> {
    [&(first.len() as u32).to_le_bytes()[..], first, second].concat()
}

fn idx() -> Box<dyn FnMut(&[u8]) -> String> {
    let folder = folder("idx");
    let (images, labels) = (folder.join("images"), folder.join("labels"));
    let spec = spec(GREY);
    Box::new(move |bytes| {
        let length = bytes
            .first_chunk()
            .map_or(0, |length| u32::from_le_bytes(*length) as usize);
        let rest = bytes.get(4..).unwrap_or_default();
        let (first, second) = rest.split_at(length.min(rest.len()));
        write(&images, first);
        write(&labels, second);
        let source = Source::Idx {
            images: images.clone(),
            labels: labels.clone(),
        };
        read(&source, &spec, &folder)
    })
}

fn csv() -> Box<dyn FnMut(&[u8]) -> String> {
    let folder = folder("csv");
    let picture = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/digit.png");
    fs::copy(picture, folder.join("a.png")).expect("a file can be copied");
    let file = folder.join("list.csv");
    let spec = spec(GREY);
    Box::new(move |bytes| {
        write(&file, bytes);
        read(&Source::Csv(file.clone()), &spec, &folder)
    })
}

fn read(source: &Source, spec: &Spec, folder: &PathBuf) -> String {
    match Dataset::read(source, spec, &limits()) {
        Ok(data) => {
            assert!((0..data.len()).all(|index| data.tensor(index).iter().all(|number| number.is_finite())));
            format!("{} images", data.len())
        }
        Err(error) => line(&error).replace(&*folder.to_string_lossy(), ""),
    }
}
