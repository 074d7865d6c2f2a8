//! Files that are weights, but not safetensors: told by their content, since names are free.

/// A format that is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Foreign {
    /// `torch.save`: a zip around a pickle, or a bare pickle of before torch 1.6.
    Pickle,
    /// A zip without a pickle: `.keras`, `.npz`.
    Zip,
    Onnx,
    Hdf5,
    TfLite,
    Numpy,
    Gguf,
    /// What `git clone` leaves where Git LFS is not installed.
    LfsPointer,
    /// A page that was saved in the file's stead.
    WebPage,
}

/// As much as holds the names of a zip's first entries.
const HEAD: usize = 4096;

/// What the bytes are, where they are something known that is no safetensors.
pub(super) fn recognise(bytes: &[u8]) -> Option<Foreign> {
    // A header's length below 4 GiB, then its JSON: whatever the length's bytes look like.
    if let [_, _, _, _, 0, 0, 0, 0, b'{', ..] = bytes {
        return None;
    }
    let head = &bytes[..bytes.len().min(HEAD)];
    // The central directory, which names every entry, stands last.
    let tail = &bytes[bytes.len().saturating_sub(HEAD)..];
    let text = String::from_utf8_lossy(&head[..head.len().min(64)]).to_ascii_lowercase();
    match head {
        [b'P', b'K', 3, 4, ..] if holds(head, b"data.pkl") || holds(tail, b"data.pkl") => {
            Some(Foreign::Pickle)
        }
        [b'P', b'K', 3, 4, ..] => Some(Foreign::Zip),
        // A pickle begins with its protocol's number.
        [0x80, 2..=5, ..] => Some(Foreign::Pickle),
        [0x89, b'H', b'D', b'F', b'\r', b'\n', 0x1a, b'\n', ..] => Some(Foreign::Hdf5),
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => Some(Foreign::Numpy),
        [b'G', b'G', b'U', b'F', ..] => Some(Foreign::Gguf),
        [_, _, _, _, b'T', b'F', b'L', b'3', ..] => Some(Foreign::TfLite),
        // ModelProto: field 1, the format's version; then the producer's name, an operator set or the graph.
        [0x08, 1..=20, 0x12 | 0x3a | 0x42, ..] => Some(Foreign::Onnx),
        _ if text.starts_with("version https://git-lfs") => Some(Foreign::LfsPointer),
        _ if text.trim_start().starts_with("<!doctype") || text.trim_start().starts_with("<html") => {
            Some(Foreign::WebPage)
        }
        _ => None,
    }
}

fn holds(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|window| window == word)
}

impl Foreign {
    /// What it is and what to do with `file`.
    pub(super) fn advice(self, file: &str) -> String {
        match self {
            Self::Pickle => format!(
                "is a PyTorch pickle, a program that runs when it is read, so it is not read. Convert it once, where torch is:\n  {}",
                conversion(file)
            ),
            Self::Zip => {
                "is a zip archive without torch weights (.keras and .npz are such); save the tensors under torch's names with safetensors.numpy.save_file"
                    .to_owned()
            }
            Self::Onnx => {
                "is an ONNX graph; export the weights of the torch model that it was made from with safetensors.torch.save_file"
                    .to_owned()
            }
            Self::Hdf5 => {
                "is an HDF5 file, as Keras writes; transpose its kernels to torch's layout, name them as torch does, and save them with safetensors.numpy.save_file"
                    .to_owned()
            }
            Self::TfLite => "is a TensorFlow Lite model; take the weights it was made from".to_owned(),
            Self::Numpy => {
                "is one NumPy array; put all arrays under torch's names into one file with safetensors.numpy.save_file"
                    .to_owned()
            }
            Self::Gguf => "is a GGUF file, made for language models".to_owned(),
            Self::LfsPointer => {
                "is a Git LFS pointer and not the file itself; fetch it with: git lfs pull".to_owned()
            }
            Self::WebPage => "is a web page; download the file behind the page".to_owned(),
        }
    }
}

/// A command that makes safetensors of a file that `torch.save` wrote, without running what it holds.
fn conversion(file: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_.+= ".contains(c);
    let file = if file.chars().all(plain) { file } else { "FILE.pth" };
    let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
    format!(
        "python3 -c 'import torch; from safetensors.torch import save_file; \
         w = torch.load(\"{file}\", map_location=\"cpu\", weights_only=True); w = w.get(\"state_dict\", w); \
         save_file({{k: v.clone().contiguous() for k, v in w.items()}}, \"{stem}.safetensors\")'"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_by_their_content() {
        let check = |bytes: &[u8], expected: Option<Foreign>| {
            assert_eq!(recognise(bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
        };
        check(
            b"PK\x03\x04\0\0\x08\x08\0\0resnet18/data.pklFB",
            Some(Foreign::Pickle),
        );
        let late = [
            &b"PK\x03\x04"[..],
            &[0; 9000],
            b"PK\x01\x02 archive/data.pkl PK\x05\x06",
        ]
        .concat();
        check(&late, Some(Foreign::Pickle));
        check(b"PK\x03\x04 metadata.json config.json", Some(Foreign::Zip));
        check(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", Some(Foreign::Pickle));
        check(b"\x80\x04\x95\x0b\0\0\0\0\0\0\0", Some(Foreign::Pickle));
        check(b"\x89HDF\r\n\x1a\n\0", Some(Foreign::Hdf5));
        check(b"\x08\x08\x12\x07pytorch", Some(Foreign::Onnx));
        check(b"\x1c\0\0\0TFL3\x14\0", Some(Foreign::TfLite));
        check(b"\x93NUMPY\x01\0", Some(Foreign::Numpy));
        check(b"GGUF\x03\0\0\0", Some(Foreign::Gguf));
        check(
            b"version https://git-lfs.github.com/spec/v1\n",
            Some(Foreign::LfsPointer),
        );
        check(b"\n<!DOCTYPE html><html>", Some(Foreign::WebPage));
        check(b"\x80\x02\0\0\0\0\0\0{\"fc.bias\":", None);
        check(b"\x80\x02\x01\0\0\0\0\0{\"fc.bias\":", None);
        check(b"\x08\x01\x12\0\0\0\0\0{\"fc.bias\":", None);
        check(b"", None);
        check(b"\x80", None);
    }

    #[test]
    fn a_pickle_comes_with_the_way_out() {
        let advice = Foreign::Pickle.advice("resnet18-f37072fd.pth");
        assert!(
            advice.contains("torch.load(\"resnet18-f37072fd.pth\", map_location=\"cpu\", weights_only=True)")
        );
        assert!(advice.ends_with("\"resnet18-f37072fd.safetensors\")'"));
        let strange = Foreign::Pickle.advice("a'); import os #.pth");
        assert!(strange.contains("\"FILE.pth\"") && !strange.contains("import os"));
    }
}
