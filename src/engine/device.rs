//! The only place that opens a device.

use std::fmt;
use std::str::FromStr;

use candle_core::DeviceLocation;
use serde::{Deserialize, Serialize};

use super::{EngineError, Options, Precision, first_line};

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

/// What a plan is compiled for.
#[derive(Clone, Debug)]
pub struct Target {
    /// The device.
    pub device: Device,
    /// What it computes in; [`Precision::F32`] on the CPU.
    pub precision: Precision,
    /// How the CPU does.
    pub options: Options,
}

impl From<&Device> for Target {
    /// In f32, with the default options.
    fn from(device: &Device) -> Self {
        Self {
            device: device.clone(),
            precision: Precision::F32,
            options: Options::default(),
        }
    }
}

impl From<&Self> for Target {
    fn from(target: &Self) -> Self {
        target.clone()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.device.location() {
            DeviceLocation::Cuda { gpu_id } => write!(f, "cuda:{gpu_id} {}", self.precision),
            _ => write!(f, "cpu {}", self.precision),
        }
    }
}

impl Target {
    /// `choice` opened. Where `auto` fell back to the CPU, another precision than f32 is given up with a warning; where the
    /// CPU was asked for, it is [`EngineError::Precision`].
    pub(super) fn open(
        choice: DeviceChoice,
        precision: Precision,
        options: Options,
    ) -> Result<Self, EngineError> {
        let device = choice.open()?;
        let mut precision = precision;
        if device.is_cpu() && precision != Precision::F32 {
            if choice != DeviceChoice::Auto {
                return Err(EngineError::Precision(precision));
            }
            tracing::warn!(%precision, "engine.precision is for a GPU: the CPU computes in f32");
            precision = Precision::F32;
        }
        Ok(Self {
            device,
            precision,
            options,
        })
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
    // A library that is missing is a panic in some builds of the bindings.
    let opened = std::panic::catch_unwind(|| Device::new_cuda(n));
    let missing = missing_libraries(&std::fs::read_to_string("/proc/self/maps").unwrap_or_default());
    if !missing.is_empty() {
        return Err(format!(
            "the loader did not find {}: install what is missing or name its folder in LD_LIBRARY_PATH, or ask for device \
             auto or cpu",
            missing.join(", ")
        ));
    }
    match opened {
        Ok(Ok(device)) => Ok(device),
        Ok(Err(error)) => Err(format!(
            "no such GPU: {}; see what nvidia-smi lists, or ask for device auto or cpu",
            first_line(&error)
        )),
        Err(_) => Err("CUDA could not be started; ask for device auto or cpu".to_owned()),
    }
}

/// Of CUDA's libraries those that this process has not loaded, by the system's list of what is in its memory; none where
/// there is no such list.
fn missing_libraries(maps: &str) -> Vec<&'static str> {
    let needed = [
        ("libcuda.so", "libcuda.so.1 (NVIDIA's driver)"),
        ("libcublas.so", "libcublas.so (cuBLAS)"),
        ("libcurand.so", "libcurand.so (cuRAND)"),
        #[cfg(feature = "cudnn")]
        ("libcudnn.so", "libcudnn.so (cuDNN)"),
    ];
    let absent = |name: &str| !maps.is_empty() && !maps.contains(&format!("/{name}"));
    needed
        .into_iter()
        .filter_map(|(name, told)| absent(name).then_some(told))
        .collect()
}

/// Another handle to the GPU of `device`, with a stream of its own.
#[cfg(feature = "cuda")]
pub(super) fn with_stream(device: &Device) -> candle_core::Result<Device> {
    match device.location() {
        DeviceLocation::Cuda { gpu_id } => Device::new_cuda_with_stream(gpu_id),
        other => candle_core::bail!("{other:?} has no streams"),
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

    #[test]
    #[cfg(not(feature = "cuda"))]
    fn a_precision_is_refused_where_the_cpu_was_asked_for_and_given_up_where_it_was_not() {
        let open = |choice, precision| {
            Target::open(choice, precision, Options::default()).map(|target| target.precision)
        };
        let error = open(DeviceChoice::Cpu, Precision::F16).unwrap_err();
        assert!(error.to_string().contains("engine.precision"), "{error}");
        assert_eq!(open(DeviceChoice::Auto, Precision::Bf16).unwrap(), Precision::F32);
        assert_eq!(open(DeviceChoice::Cpu, Precision::F32).unwrap(), Precision::F32);
    }

    #[test]
    fn a_library_that_is_not_in_memory_is_missing() {
        let line = |path: &str| format!("7f00-7f01 r-xp 00000000 08:01 42   {path}\n");
        let driver = line("/usr/lib/x86_64-linux-gnu/libcuda.so.580.65.06");
        let missing = missing_libraries(&(driver.clone() + &line("/opt/cu13/lib/libcurand.so.10.4.0.35")));
        assert_eq!(missing[0], "libcublas.so (cuBLAS)");
        assert!(!missing.join(" ").contains("libcuda.so") && !missing.join(" ").contains("libcurand"));
        // cuBLAS's other half is not cuBLAS.
        assert!(missing_libraries(&line("/x/libcublasLt.so.13")).contains(&"libcublas.so (cuBLAS)"));
        assert!(missing_libraries("").is_empty());
    }
}
