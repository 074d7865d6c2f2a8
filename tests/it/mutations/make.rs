//! A good file of weights, damaged in every way that somebody thought of.

use serde_json::{Map, Value, json};

/// What a damaged file may do at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Harm {
    /// It is refused whatever its manifest says.
    Wrong,
    /// Its numbers or its notes are others, and as possible as the right ones: only the manifest's sha256 tells.
    Plausible,
}

/// A damaged file.
pub(crate) struct Mutation {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) harm: Harm,
}

/// A safetensors file in its two parts.
#[derive(Clone)]
struct File {
    header: Map<String, Value>,
    data: Vec<u8>,
}

/// Where a parameter lies in the data.
fn span(entry: &Value) -> (usize, usize) {
    let offset = |at: usize| entry["data_offsets"][at].as_u64().unwrap() as usize;
    (offset(0), offset(1))
}

impl File {
    fn read(bytes: &[u8]) -> Self {
        let length = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
        Self {
            header: serde_json::from_slice(&bytes[8..8 + length]).unwrap(),
            data: bytes[8 + length..].to_vec(),
        }
    }

    fn write(&self) -> Vec<u8> {
        with_header(
            serde_json::to_string(&self.header).unwrap().as_bytes(),
            &self.data,
        )
    }

    fn entry(&mut self, name: &str) -> &mut Value {
        self.header.get_mut(name).unwrap()
    }

    /// The f32 numbers of a tensor, each as it is made of the one that was there.
    fn change(&mut self, name: &str, change: impl Fn(usize, f32) -> f32) {
        let (begin, end) = span(&self.header[name]);
        for (at, bytes) in self.data[begin..end]
            .as_chunks_mut::<4>()
            .0
            .iter_mut()
            .enumerate()
        {
            *bytes = change(at, f32::from_le_bytes(*bytes)).to_le_bytes();
        }
    }

    fn tensors(&self) -> Vec<String> {
        let names = self.header.keys().filter(|name| *name != "__metadata__");
        names.cloned().collect()
    }
}

fn with_header(header: &[u8], data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header, data].concat()
}

/// More than a hundred, of a file of `small-cnn`.
pub(crate) fn mutations(good: &[u8]) -> Vec<Mutation> {
    let mut all = Vec::new();
    let mut wrong = |name: String, bytes: Vec<u8>| {
        all.push(Mutation {
            name,
            bytes,
            harm: Harm::Wrong,
        });
    };
    cut(good, &mut wrong);
    headers(good, &mut wrong);
    entries(good, &mut wrong);
    values(good, &mut wrong);
    all.extend(flips(good));
    all
}

fn cut(good: &[u8], wrong: &mut impl FnMut(String, Vec<u8>)) {
    let header = u64::from_le_bytes(*good.first_chunk().unwrap()) as usize + 8;
    let places = [
        0,
        1,
        7,
        8,
        9,
        header / 2,
        header - 1,
        header,
        header + 1,
        good.len() - 1,
    ];
    for at in places
        .into_iter()
        .chain((1..12).map(|part| good.len() * part / 12))
    {
        wrong(format!("cut to {at} bytes"), good[..at].to_vec());
    }
    for more in [1, 1000] {
        wrong(
            format!("{more} bytes behind the end"),
            [good, &vec![0; more]].concat(),
        );
    }
}

fn headers(good: &[u8], wrong: &mut impl FnMut(String, Vec<u8>)) {
    let header = u64::from_le_bytes(*good.first_chunk().unwrap());
    let lengths = [
        0,
        1,
        header - 1,
        header + 1,
        header + 8,
        good.len() as u64,
        100_000_001,
        1 << 32,
        i64::MAX as u64,
        u64::MAX,
        u64::MAX - 7,
    ];
    for length in lengths {
        let bytes = [&length.to_le_bytes()[..], &good[8..]].concat();
        wrong(format!("a header of {length} bytes"), bytes);
    }
    let data = &good[8 + header as usize..];
    let nested = "[".repeat(100_000);
    let odd: [(&str, &[u8]); 10] = [
        ("no header", b""),
        ("a header that is an array", b"[]"),
        ("a header that is a number", b"7"),
        ("a header that is null", b"null"),
        ("a header without tensors", b"{}"),
        ("a header that is not closed", b"{\"a\":{\"dtype\":\"F32\""),
        (
            "a header that is not UTF-8",
            b"{\"\xff\xfe\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}",
        ),
        ("a header of zeros", &[0; 64]),
        ("a header that nests deep", nested.as_bytes()),
        ("two headers", b"{}{}"),
    ];
    for (name, header) in odd {
        wrong(name.to_owned(), with_header(header, data));
    }
}

/// What is said of tensors.
fn entries(good: &[u8], wrong: &mut impl FnMut(String, Vec<u8>)) {
    let file = File::read(good);
    let mut changed = |name: &str, change: &dyn Fn(&mut File)| {
        let mut file = file.clone();
        change(&mut file);
        wrong(name.to_owned(), file.write());
    };
    let (begin, end) = span(&file.header["fc.weight"]);
    let offsets: [(&str, Value); 9] = [
        ("overlapping offsets", json!([begin - 8, end - 8])),
        ("reversed offsets", json!([end, begin])),
        ("offsets with a hole", json!([begin + 4, end])),
        (
            "offsets beyond the end",
            json!([begin + (1 << 30), end + (1 << 30)]),
        ),
        ("negative offsets", json!([-1, end])),
        ("broken offsets", json!([0.5, end])),
        ("huge offsets", json!([begin, u64::MAX])),
        ("one offset", json!([begin])),
        ("no offsets", json!(null)),
    ];
    for (name, value) in offsets {
        changed(name, &|file| {
            file.entry("fc.weight")["data_offsets"] = value.clone();
        });
    }
    for dtype in [
        "I32", "U32", "I64", "F64", "U8", "BOOL", "F8_E4M3", "F33", "f32", "",
    ] {
        changed(&format!("dtype '{dtype}'"), &|file| {
            file.entry("fc.weight")["dtype"] = json!(dtype);
        });
    }
    let shapes = [
        json!([64, 2]),
        json!([4, 32]),
        json!([1, 2, 64]),
        json!([2, 63]),
        json!([]),
        json!([0, 64]),
        json!([1_u64 << 63, 2]),
        json!([u64::MAX, u64::MAX]),
        json!([-2, -64]),
        json!("2x64"),
    ];
    for shape in shapes {
        changed(&format!("shape {shape}"), &|file| {
            file.entry("fc.weight")["shape"] = shape.clone();
        });
    }
    changed("a tensor is missing", &|file| {
        file.header.remove("fc.bias");
    });
    for name in ["fc.offset", "", "../../etc/passwd", "fc.bias\n", "FC.BIAS"] {
        changed(&format!("a tensor is called {name:?}"), &|file| {
            let entry = file.header.remove("fc.bias").unwrap();
            file.header.insert(name.to_owned(), entry);
        });
    }
    for count in [1, 100_000] {
        changed(&format!("{count} stray tensors"), &|file| {
            let end = file.data.len();
            for stray in 0..count {
                let empty = json!({"dtype": "F32", "shape": [0], "data_offsets": [end, end]});
                file.header.insert(format!("stray.{stray}"), empty);
            }
        });
    }
    // JSON's writer says no name twice, so it is put in by hand.
    let header = serde_json::to_string(&file.header).unwrap();
    let again = format!("{{\"fc.bias\":{},{}", file.header["fc.bias"], &header[1..]);
    wrong(
        "a name stands twice".to_owned(),
        with_header(again.as_bytes(), &file.data),
    );
    let twice = header.replacen("\"dtype\":\"F32\"", "\"dtype\":\"F32\",\"dtype\":\"F32\"", 1);
    wrong(
        "a dtype stands twice".to_owned(),
        with_header(twice.as_bytes(), &file.data),
    );
}

fn values(good: &[u8], wrong: &mut impl FnMut(String, Vec<u8>)) {
    let file = File::read(good);
    let mut changed = |name: &str, tensors: &[String], change: &dyn Fn(usize, f32) -> f32| {
        let mut file = file.clone();
        tensors.iter().for_each(|tensor| file.change(tensor, change));
        wrong(name.to_owned(), file.write());
    };
    let one = |name: &str| [name.to_owned()];
    for tensor in ["conv1.weight", "fc.bias", "bn1.running_var"] {
        for (name, odd) in [
            ("NaN", f32::NAN),
            ("negative NaN", -f32::NAN),
            ("infinity", f32::INFINITY),
            ("negative infinity", f32::NEG_INFINITY),
        ] {
            changed(&format!("{name} in {tensor}"), &one(tensor), &|at, value| {
                if at == 1 { odd } else { value }
            });
        }
    }
    let all = file.tensors();
    changed("all zeros", &all, &|_, _| 0.0);
    changed("a layer of zeros", &one("conv1.weight"), &|_, _| 0.0);
    changed("a layer of negative zeros", &one("fc.weight"), &|_, _| -0.0);
    changed("all denormal", &all, &|at, _| f32::from_bits(1 + at as u32));
    changed("a layer of denormals", &one("fc.weight"), &|_, value| {
        value.signum() * 1e-41
    });
    changed("all of 3e38", &all, &|_, _| 3e38);
    changed("a layer of 3e38", &one("fc.weight"), &|_, _| 3e38);
    changed("a negative variance", &one("bn1.running_var"), &|at, value| {
        if at == 0 { -1e-3 } else { value }
    });
}

/// One bit each.
fn flips(good: &[u8]) -> Vec<Mutation> {
    let header = u64::from_le_bytes(*good.first_chunk().unwrap()) as usize + 8;
    let in_header = (0..12).map(|at| (8 + at * (header - 8) / 12, at % 8));
    let in_data = (0..12).map(|at| (header + at * (good.len() - header) / 12, at % 8));
    in_header
        .chain(in_data)
        .map(|(at, bit)| {
            let mut bytes = good.to_vec();
            bytes[at] ^= 1 << bit;
            Mutation {
                name: format!("bit {bit} of byte {at}"),
                bytes,
                harm: Harm::Plausible,
            }
        })
        .collect()
}
