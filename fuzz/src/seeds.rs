//! What each target begins with: files of the repository, small ones written here, and what was found before.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::targets::{Target, two};

/// Larger files are slow to change and to read.
const MAX_SEED: u64 = 64 << 10;

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// At least one. What lies in `fuzz/corpus/TARGET` is among them.
pub fn of(target: &Target) -> io::Result<Vec<Vec<u8>>> {
    let mut seeds = match target.name {
        "image" => images()?,
        "multipart" | "content-type" => multiparts()?,
        "json" => texts(&[
            r#"{"image":"iVBORw0KGgo="}"#,
            r#"{"image":[[0,255],[1,2]]}"#,
            r#"{"images":["YQ",{"b64":"Yg"},[[[1,2,3]]]]}"#,
            r#"{"instances":[{"image":[[[1,2,3,4]]]},{"b64":"data:image/png;base64,YQ=="},[[1.0,2e1]]]}"#,
        ]),
        "config" => read(&["config/default.toml"])?,
        "model-toml" => {
            let mut all = read(&["models/mnist/model.toml", "models/fashion-mnist/model.toml"])?;
            all.extend(texts(&[LAYERS, PRESETS]));
            all
        }
        "safetensors" => vec![crate::targets::weights()],
        "idx" => {
            let images = [&[0, 0, 8, 3, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 2][..], &[7; 12]].concat();
            let labels = [0, 0, 8, 1, 0, 0, 0, 3, 0, 1, 1];
            let packed = ["images-idx3", "labels-idx1"]
                .map(|part| fs::read(top().join(format!("tests/fixtures/mnist/t10k-{part}-ubyte.gz"))));
            let [packed_images, packed_labels] = packed;
            // Their beginnings are enough to come into the unpacking.
            let mut packed_images = packed_images?;
            packed_images.truncate(4096);
            vec![two(&images, &labels), two(&packed_images, &packed_labels?)]
        }
        "csv" => texts(&[
            "path,label\na.png,zero\na.png,one\n",
            "label,path,split\n\"zero\",\"a.png\",train\n",
            "\u{feff}path,label\r\n./a.png,zero\r\n",
        ]),
        other => panic!("the target {other} has no seeds"),
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target.name);
    if folder.is_dir() {
        for file in files(&folder)? {
            seeds.push(fs::read(file)?);
        }
    }
    Ok(seeds)
}

const LAYERS: &str = "architecture = 'layers'\nlabels = ['a', 'b']\ninput = { channels = 1, height = 8, width = 8 }\n\
[[layers]]\ntype = 'conv2d'\nout = 4\nkernel = 3\npadding = 1\n[[layers]]\ntype = 'batch_norm'\n[[layers]]\ntype = 'relu'\n\
[[layers]]\ntype = 'max_pool'\nkernel = 2\n[[layers]]\ntype = 'flatten'\n[[layers]]\ntype = 'linear'\nout = 2\n";
const PRESETS: &str = "architecture = 'resnet18'\ndescription = 'x'\nlabels = ['a', 'b', 'c']\ndefault = true\n\
input = { channels = 3, height = 64, width = 64 }\n\
preprocess = { resize = 'crop', crop_pct = 0.875, filter = 'bicubic', mean = [0.5, 0.5, 0.5], std = [0.2, 0.2, 0.2], \
invert = 'auto', background = 255, alpha = 'ignore' }\ncollect = { rate = 0.5, images = true }\n";

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn read(names: &[&str]) -> io::Result<Vec<Vec<u8>>> {
    names.iter().map(|name| fs::read(top().join(name))).collect()
}

fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.metadata()?.is_file() && entry.metadata()?.len() <= MAX_SEED {
            files.push(entry.path());
        }
    }
    // The order of a folder is the system's.
    files.sort();
    Ok(files)
}

fn images() -> io::Result<Vec<Vec<u8>>> {
    let mut images = Vec::new();
    for folder in ["tests/fixtures/variants", "examples"] {
        for file in files(&top().join(folder))? {
            if !file.extension().is_some_and(|end| end == "rs") {
                images.push(fs::read(file)?);
            }
        }
    }
    Ok(images)
}

/// A content type, a line's end, a body.
fn multiparts() -> io::Result<Vec<Vec<u8>>> {
    let image = fs::read(top().join("examples/digit.png"))?;
    let head = b"multipart/form-data; boundary=XX\n--XX\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a\"\r\n\
Content-Type: image/png\r\n\r\n";
    let one = [&head[..], &image, b"\r\n--XX--\r\n"].concat();
    let many = "Multipart/Form-Data; charset=x; boundary=\"a b\"\npreamble\r\n--a b\r\nContent-Disposition: form-data; name=image\r\n\r\n1\r\n\
--a b\t\r\ncontent-disposition:form-data;name=\"images\"\r\n\r\n\r\n--a b--epilogue";
    let mut all = vec![one];
    all.extend(texts(&[
        many,
        "application/json; charset=utf-8\n{\"image\":\"YQ\"}",
        "image/png\nx",
        "application/octet-stream\nx",
        "\nx",
    ]));
    Ok(all)
}
