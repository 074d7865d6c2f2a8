//! The file that is imported, read whole.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::model::weights::MAX_FILE_BYTES;
use crate::registry;

use super::super::super::CliError;
use super::super::super::version::data;
use super::foreign;

/// A file of weights as it came.
pub(super) struct Source {
    /// Its name, without the folders that lead to it.
    pub(super) name: String,
    /// Of its bytes.
    pub(super) sha256: String,
    pub(super) bytes: Vec<u8>,
}

impl Source {
    /// Reads it; what is plainly another format is refused with the way to safetensors.
    pub(super) fn read(path: &Path) -> Result<Self, CliError> {
        let told = |problem: String| data(format!("{}: {problem}", path.display()));
        let bytes = read(path, MAX_FILE_BYTES).map_err(told)?;
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        if let Some(foreign) = foreign::recognise(&bytes) {
            return Err(data(format!("{name} {}", foreign.advice(&name))));
        }
        Ok(Self {
            name: name.into_owned(),
            sha256: registry::sha256(&bytes),
            bytes,
        })
    }
}

/// A whole file of at most `limit` bytes.
pub(super) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, String> {
    let file = File::open(path).map_err(|e| e.to_string())?;
    let mut bytes = Vec::new();
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| e.to_string())?;
    if bytes.len() as u64 > limit {
        return Err(format!("is larger than {limit} bytes"));
    }
    Ok(bytes)
}
