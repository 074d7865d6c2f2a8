//! The only place that opens a device.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{EngineError, first_line};

pub use candle_core::Device;

/// Which device serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceChoice {
    /// The first GPU where this build has CUDA and one is there; else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// GPU number n; an error where it is not there.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let cuda = |n: &str| n.parse().ok().map(Self::Cuda);
        match text {
            "auto" => Some(Self::Auto),
            "cpu" => Some(Self::Cpu),
            "cuda" => Some(Self::Cuda(0)),
            _ => text.strip_prefix("cuda:").and_then(cuda),
        }
        .ok_or_else(|| format!("'{text}' is not a device: auto, cpu or cuda:0"))
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(n) => write!(f, "cuda:{n}"),
        }
    }
}

impl TryFrom<String> for DeviceChoice {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<DeviceChoice> for String {
    fn from(choice: DeviceChoice) -> Self {
        choice.to_string()
    }
}

impl DeviceChoice {
    /// Opens the device. `auto` logs which one it chose.
    pub fn open(self) -> Result<Device, EngineError> {
        match self {
            Self::Auto => Ok(first_gpu_or_cpu()),
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(n) => cuda(n).map_err(|problem| EngineError::Device {
                device: self.to_string(),
                problem,
            }),
        }
    }
}

fn first_gpu_or_cpu() -> Device {
    match cuda(0) {
        Ok(device) => {
            tracing::info!(device = "cuda:0", "serving on the GPU");
            device
        }
        Err(reason) => {
            tracing::info!(device = "cpu", reason, "serving on the CPU");
            Device::Cpu
        }
    }
}

/// GPU number n, or what is missing and what to do.
fn cuda(n: usize) -> Result<Device, String> {
    if !candle_core::utils::cuda_is_available() {
        return Err(
            "this build has no CUDA: build with --features cuda, or ask for device auto or cpu".to_owned(),
        );
    }
    // A driver library that cannot be loaded panics in some builds of the bindings.
    match std::panic::catch_unwind(|| Device::new_cuda(n)) {
        Ok(Ok(device)) => Ok(device),
        Ok(Err(error)) => Err(format!(
            "no such GPU: {}; see what nvidia-smi lists, or ask for device auto or cpu",
            first_line(&error)
        )),
        Err(_) => Err("the CUDA driver is missing: install it, or ask for device auto or cpu".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_written_as_they_are_read() {
        let check = |text: &str, expected: Option<&str>| {
            let read = text.parse::<DeviceChoice>().map(|choice| choice.to_string());
            assert_eq!(read.ok().as_deref(), expected, "{text}");
        };
        check("auto", Some("auto"));
        check("cpu", Some("cpu"));
        check("cuda", Some("cuda:0"));
        check("cuda:3", Some("cuda:3"));
        check("cuda:", None);
        check("cuda:-1", None);
        check("gpu", None);
    }

    #[test]
    fn the_cpu_is_always_there() {
        assert!(DeviceChoice::Cpu.open().unwrap().is_cpu());
    }

    #[test]
    #[cfg(not(feature = "cuda"))]
    fn a_build_without_cuda_serves_on_the_cpu_and_says_what_is_missing() {
        assert!(DeviceChoice::Auto.open().unwrap().is_cpu());
        let error = DeviceChoice::Cuda(1).open().unwrap_err().to_string();
        assert_eq!(
            error,
            "device cuda:1: this build has no CUDA: build with --features cuda, or ask for device auto or cpu"
        );
    }
}
