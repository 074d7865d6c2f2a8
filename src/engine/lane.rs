//! An instance's way to its device and back.

use candle_core::{Device, Result, Tensor};

#[cfg(feature = "cuda")]
use super::stream::Stream;

/// The device handle of one instance, with what its copies need.
#[derive(Debug)]
pub(super) enum Lane {
    /// The device is the host.
    Host,
    /// A GPU's stream.
    #[cfg(feature = "cuda")]
    Stream(Box<Stream>),
}

impl Lane {
    /// A lane of its own to `device`.
    pub(super) fn open(device: &Device) -> Result<Self> {
        match device {
            #[cfg(feature = "cuda")]
            Device::Cuda(_) => Ok(Self::Stream(Box::new(Stream::open(device)?))),
            Device::Cpu => Ok(Self::Host),
            _ => candle_core::bail!("there is no lane to {:?}", device.location()),
        }
    }

    /// The handle that the instance's tensors belong to.
    pub(super) fn device(&self) -> &Device {
        match self {
            Self::Host => &Device::Cpu,
            #[cfg(feature = "cuda")]
            Self::Stream(stream) => stream.device(),
        }
    }

    /// Images on the device, N×C×H×W.
    pub(super) fn upload(&mut self, images: &[f32], shape: (usize, usize, usize, usize)) -> Result<Tensor> {
        match self {
            Self::Host => Tensor::from_slice(images, shape, &Device::Cpu),
            #[cfg(feature = "cuda")]
            Self::Stream(stream) => stream.upload(images, shape),
        }
    }

    /// Appends the numbers of a contiguous f32 tensor to `numbers`, once they are computed.
    pub(super) fn download(&mut self, tensor: &Tensor, numbers: &mut Vec<f32>) -> Result<()> {
        match self {
            Self::Host => {
                numbers.extend(tensor.flatten_all()?.to_vec1::<f32>()?);
                Ok(())
            }
            #[cfg(feature = "cuda")]
            Self::Stream(stream) => stream.download(tensor, numbers),
        }
    }
}
