//! TensorBoard event files: scalars per epoch, framed and encoded by hand.
//!
//! A file is a row of TFRecords (length u64, its checksum, the bytes, their checksum; little-endian; checksums are
//! masked CRC-32C), each an `Event` of `tensorflow/core/util/event.proto` in protobuf's wire format.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::history::{EpochRecord, Score};

/// The beginning that TensorBoard looks for.
const PREFIX: &str = "events.out.tfevents.";
/// Tells our files from others in the same folder.
const SUFFIX: &str = ".sconce";

/// An open event file.
#[derive(Debug)]
pub struct EventFile {
    file: File,
}

impl EventFile {
    /// A new event file in `folder`, named by the time. Event files of earlier runs of Sconce there are removed:
    /// TensorBoard would join their points with the new ones.
    pub fn create(folder: &Path, now: SystemTime) -> io::Result<Self> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(PREFIX) && name.ends_with(SUFFIX) {
                fs::remove_file(entry.path())?;
            }
        }
        let seconds = since_epoch(now).as_secs();
        let path = folder.join(format!("{PREFIX}{seconds:010}{SUFFIX}"));
        let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
        file.write_all(&framed(&version(now)))?;
        Ok(Self { file })
    }

    /// Adds the figures of one epoch: `loss/train`, `accuracy/train`, both for `valid` where there is one, and
    /// `learning_rate`, at the epoch's number as step. What is written can be read at once.
    pub fn add(&mut self, record: &EpochRecord, now: SystemTime) -> io::Result<()> {
        self.file
            .write_all(&framed(&scalars(record.epoch as u64, &figures(record), now)))
    }
}

fn figures(record: &EpochRecord) -> Vec<(&'static str, f32)> {
    let Score { loss, accuracy } = record.train;
    let mut figures = vec![("loss/train", loss), ("accuracy/train", accuracy)];
    if let Some(Score { loss, accuracy }) = record.valid {
        figures.extend([("loss/valid", loss), ("accuracy/valid", accuracy)]);
    }
    figures.push(("learning_rate", record.learning_rate));
    figures
}

/// One TFRecord.
fn framed(event: &[u8]) -> Vec<u8> {
    let length = (event.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(event.len() + 16);
    record.extend(length);
    record.extend(masked_crc(&length).to_le_bytes());
    record.extend(event);
    record.extend(masked_crc(event).to_le_bytes());
    record
}

/// Masked, because a checksum of bytes that hold their own checksum is weak (tensorflow/core/lib/hash/crc32c.h).
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// `Event { wall_time, file_version }`, the first of every file.
fn version(now: SystemTime) -> Vec<u8> {
    let mut event = wall_time(now);
    bytes_field(&mut event, 3, b"brain.Event:2");
    event
}

/// `Event { wall_time, step, summary: [Value { tag, simple_value }] }`.
fn scalars(step: u64, figures: &[(&str, f32)], now: SystemTime) -> Vec<u8> {
    let mut summary = Vec::new();
    for (tag, value) in figures {
        let mut entry = Vec::new();
        bytes_field(&mut entry, 1, tag.as_bytes());
        entry.push(key(2, WireType::Fixed32));
        entry.extend(value.to_le_bytes());
        bytes_field(&mut summary, 1, &entry);
    }
    let mut event = wall_time(now);
    event.push(key(2, WireType::Varint));
    varint(&mut event, step);
    bytes_field(&mut event, 5, &summary);
    event
}

fn wall_time(now: SystemTime) -> Vec<u8> {
    let mut event = vec![key(1, WireType::Fixed64)];
    event.extend(since_epoch(now).as_secs_f64().to_le_bytes());
    event
}

/// 0 for a clock before 1970.
fn since_epoch(now: SystemTime) -> Duration {
    now.duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[derive(Clone, Copy)]
enum WireType {
    Varint = 0,
    Fixed64 = 1,
    Length = 2,
    Fixed32 = 5,
}

/// Of a field numbered below 16: one byte.
fn key(field: u8, wire: WireType) -> u8 {
    field << 3 | wire as u8
}

fn bytes_field(message: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    message.push(key(field, WireType::Length));
    varint(message, bytes.len() as u64);
    message.extend(bytes);
}

/// Seven bits a byte, lowest first; the top bit says that more follow.
fn varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push(value as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    fn at(seconds: f64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs_f64(seconds)
    }

    fn record(epoch: usize) -> EpochRecord {
        let score = Score {
            loss: 0.5,
            accuracy: 0.25,
        };
        EpochRecord {
            epoch,
            train: score,
            valid: Some(score),
            learning_rate: 0.1,
            seconds: 1.0,
        }
    }

    #[test]
    fn bytes_are_those_of_the_stock_writer() {
        let mut bytes = framed(&version(at(1_500_000_000.25)));
        let figures = [("loss/train", 0.5), ("accuracy/train", 0.0)];
        bytes.extend(framed(&scalars(1, &figures, at(1_500_000_001.0))));
        let figures = [("learning_rate", -1e-7)];
        bytes.extend(framed(&scalars(300, &figures, at(1_500_000_002.5))));
        let hex = bytes.iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").unwrap();
            hex
        });
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/golden/train_tensorboard.json")).unwrap();
        assert_eq!(hex, golden["hex"]);
    }

    #[test]
    fn the_checksum_is_masked_crc32c() {
        // RFC 3720, B.4: 32 bytes of zeros.
        assert_eq!(
            masked_crc(&[0; 32]),
            0x8a91_36aa_u32.rotate_right(15).wrapping_add(0xa282_ead8)
        );
    }

    #[test]
    fn a_folder_holds_the_events_of_one_run() {
        let folder = tempfile::tempdir().unwrap();
        let other = folder.path().join("events.out.tfevents.1.elsewhere");
        File::create(&other).unwrap();
        for start in [1e9, 1e9, 2e9] {
            let mut file = EventFile::create(folder.path(), at(start)).unwrap();
            file.add(&record(1), at(start + 1.0)).unwrap();
        }
        let mut names: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(
            names,
            [
                "events.out.tfevents.1.elsewhere",
                "events.out.tfevents.2000000000.sconce"
            ]
        );
    }

    #[test]
    fn runs_without_validation_have_no_such_series() {
        let tags = |record: &EpochRecord| figures(record).iter().map(|f| f.0).collect::<Vec<_>>();
        assert_eq!(
            tags(&record(1)),
            [
                "loss/train",
                "accuracy/train",
                "loss/valid",
                "accuracy/valid",
                "learning_rate"
            ]
        );
        let bare = EpochRecord {
            valid: None,
            ..record(1)
        };
        assert_eq!(tags(&bare), ["loss/train", "accuracy/train", "learning_rate"]);
    }
}
