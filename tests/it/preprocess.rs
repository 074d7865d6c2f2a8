//! Photos become the tensors that torchvision makes of them.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use sconce::model::Spec;
use sconce::preprocess::{Limits, Pixels, Preprocessor, decode};
use serde::Deserialize;

/// How far the 8-bit pixels before normalisation may be from torchvision's.
struct Tolerance {
    /// Most levels of one value.
    levels: u8,
    /// Largest share of values that differ at all.
    share: f64,
    /// Largest difference of a channel's mean after normalisation.
    mean: f32,
}

/// Pillow keeps 22 bits of each tap's weight and the resampler here about 14, so a sum near one half may be rounded the
/// other way: 0.5 % of the values at most in these files.
const LOSSLESS: Tolerance = Tolerance {
    levels: 1,
    share: 0.01,
    mean: 5e-4,
};
/// libjpeg-turbo and the decoder here round the inverse transform and the chroma's enlargement differently before
/// anything is resized.
const JPEG: Tolerance = Tolerance {
    levels: 3,
    share: 0.3,
    mean: 5e-3,
};

/// An entry of the file that `tests/golden/preprocess.py` writes.
#[derive(Deserialize)]
struct Case {
    name: String,
    photo: String,
    /// Of `[preprocess]`.
    keys: String,
    height: usize,
    width: usize,
    /// Of torchvision's normalised tensor, by channel.
    means: Vec<f32>,
}

#[test]
fn photos_become_torchvisions_tensors() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../golden/preprocess/cases.json")).unwrap();
    assert!(cases.len() > 10);
    for case in cases {
        let tolerance = if case.photo.ends_with("jpg") {
            JPEG
        } else {
            LOSSLESS
        };
        check(&case, &tolerance);
    }
}

fn check(case: &Case, tolerance: &Tolerance) {
    let spec = spec(case);
    let tensor = Preprocessor::new(Arc::clone(&spec))
        .tensor(read(&case.photo))
        .unwrap();
    let golden = read(&format!("{}.golden.png", case.name));
    let plane = case.height * case.width;
    assert_eq!(golden.bytes.len(), 3 * plane, "{}", case.name);
    let mut differing = 0;
    for (channel, numbers) in tensor.chunks(plane).enumerate() {
        let (mean, std) = spec.preprocess.moments(channel);
        for (number, expected) in numbers.iter().zip(golden.bytes.iter().skip(channel).step_by(3)) {
            let level = ((number * std + mean) * 255.0).round() as u8;
            let off = level.abs_diff(*expected);
            assert!(
                off <= tolerance.levels,
                "{}: {level}, torchvision has {expected}",
                case.name
            );
            differing += usize::from(off > 0);
        }
        let found = numbers.iter().sum::<f32>() / plane as f32;
        let off = (found - case.means[channel]).abs();
        assert!(off < tolerance.mean, "{}: mean {found}, off by {off}", case.name);
    }
    let share = differing as f64 / tensor.len() as f64;
    assert!(
        share < tolerance.share,
        "{}: {share:.4} of the values differ",
        case.name
    );
}

fn spec(case: &Case) -> Arc<Spec> {
    let Case {
        keys, height, width, ..
    } = case;
    let text = format!(
        "architecture = 'small-cnn'\nlabels = ['a', 'b']\npreprocess = {{ {keys} }}\n\
         input = {{ channels = 3, height = {height}, width = {width} }}\n"
    );
    Arc::new(Spec::parse(&text).unwrap())
}

fn read(name: &str) -> Pixels {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/preprocess");
    decode(&fs::read(folder.join(name)).unwrap(), &Limits::default()).unwrap()
}
