//! A GPU's stream of one instance, with the page-locked memory that batches pass through.
#![expect(
    unsafe_code,
    reason = "cudarc hands out page-locked memory and untracked streams by unsafe functions only"
)]

use std::sync::Arc;

use candle_core::cuda_backend::cudarc::driver::{CudaContext, CudaStream, DriverError, PinnedHostSlice, sys};
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, CudaStorage, Device, Error, Result, Storage, Tensor, bail};

use super::device::with_stream;

/// A device handle with a stream of its own. Everything its instance computes is ordered by that stream, and the host
/// waits for it at the end of each batch.
#[derive(Debug)]
pub(super) struct Stream {
    device: Device,
    handle: CudaDevice,
    stream: Arc<CudaStream>,
    /// Of a batch on its way to the device; the host only writes here.
    images: Pinned,
    /// Of a batch on its way back.
    logits: Pinned,
}

/// Page-locked host memory, which the device reads and writes by itself; kept from batch to batch.
#[derive(Debug)]
struct Pinned {
    /// None until the first batch.
    memory: Option<PinnedHostSlice<f32>>,
    /// Of `CU_MEMHOSTALLOC_…`.
    flags: u32,
}

impl Stream {
    /// A stream of its own on the GPU of `device`.
    pub(super) fn open(device: &Device) -> Result<Self> {
        let device = with_stream(device)?;
        let handle = device.as_cuda_device()?.clone();
        // SAFETY: events order what several streams do with one memory. Memory of this handle is allocated, used and freed
        // on this handle's one stream: its tensors stay in one instance, and candle refuses an operator over tensors of two
        // handles. Page-locked memory is touched by the host only after `synchronize`.
        unsafe { handle.disable_event_tracking() };
        Ok(Self {
            stream: handle.cuda_stream(),
            device,
            handle,
            // Quicker for the device, very slow for the host to read.
            images: Pinned::new(sys::CU_MEMHOSTALLOC_WRITECOMBINED),
            logits: Pinned::new(0),
        })
    }

    pub(super) fn device(&self) -> &Device {
        &self.device
    }

    /// One copy to the device, queued; N×C×H×W.
    pub(super) fn upload(&mut self, images: &[f32], shape: (usize, usize, usize, usize)) -> Result<Tensor> {
        // The batch before may have failed between its copy and the wait for its logits.
        self.stream.synchronize().map_err(Error::wrap)?;
        let staged = self.images.of(self.stream.context(), images.len())?;
        staged.copy_from_slice(images);
        let copied = self.stream.clone_htod(staged).map_err(Error::wrap)?;
        let storage = Storage::Cuda(CudaStorage::wrap_cuda_slice(copied, self.handle.clone()));
        Ok(Tensor::from_storage(storage, shape, BackpropOp::none(), false))
    }

    /// One copy from the device, waited for; appends the numbers of a contiguous f32 tensor.
    pub(super) fn download(&mut self, tensor: &Tensor, numbers: &mut Vec<f32>) -> Result<()> {
        let (storage, layout) = tensor.storage_and_layout();
        let (Storage::Cuda(storage), Some((start, end))) = (&*storage, layout.contiguous_offsets()) else {
            bail!("logits that are not one piece of a GPU's memory");
        };
        let computed = storage.as_cuda_slice::<f32>()?.slice(start..end);
        let staged = self.logits.of(self.stream.context(), end - start)?;
        let copied = self.stream.memcpy_dtoh(&computed, staged);
        // Waited for whatever came of the copy: the staging memory must not be read or released under it.
        let computed = self.stream.synchronize();
        copied.and(computed).map_err(Error::wrap)?;
        numbers.extend_from_slice(staged);
        Ok(())
    }
}

impl Drop for Stream {
    /// A batch that failed or panicked may have left a copy under way, and the staging memory is released next.
    fn drop(&mut self) {
        if let Err(error) = self.stream.synchronize() {
            tracing::error!(%error, "a GPU's stream ended in a fault");
        }
    }
}

impl Pinned {
    fn new(flags: u32) -> Self {
        Self { memory: None, flags }
    }

    /// The first `len` numbers. Nothing may be under way to or from the memory.
    fn of(&mut self, context: &Arc<CudaContext>, len: usize) -> Result<&mut [f32]> {
        let memory = match self.memory.take() {
            Some(memory) if memory.len() >= len => memory,
            _ => allocated(context, len, self.flags).map_err(Error::wrap)?,
        };
        let slice = self.memory.insert(memory).as_mut_slice().map_err(Error::wrap)?;
        Ok(&mut slice[..len])
    }
}

/// Page-locked zeros.
fn allocated(
    context: &Arc<CudaContext>,
    len: usize,
    flags: u32,
) -> std::result::Result<PinnedHostSlice<f32>, DriverError> {
    // SAFETY: the memory is unset, and is written over whole before anything reads it.
    let mut memory = unsafe { context.alloc_pinned_with_flags::<f32>(len, flags) }?;
    memory.as_mut_slice()?.fill(0.0);
    Ok(memory)
}

#[cfg(test)]
mod tests {
    use super::super::DeviceChoice;
    use super::*;

    #[test]
    #[ignore = "needs a GPU's driver; docs/gpu.md has the command"]
    fn what_goes_up_comes_down_in_batches_of_any_size() {
        let device = DeviceChoice::Cuda(0).open().unwrap();
        let mut streams = [Stream::open(&device).unwrap(), Stream::open(&device).unwrap()];
        let mut numbers = Vec::new();
        for items in [1, 7, 3, 7, 64, 1] {
            for (stream, sign) in streams.iter_mut().zip([1.0, -1.0]) {
                let images: Vec<f32> = (0..items * 6).map(|i| sign * i as f32).collect();
                let uploaded = stream.upload(&images, (items, 1, 2, 3)).unwrap();
                assert_eq!(uploaded.dims(), [items, 1, 2, 3]);
                numbers.clear();
                // A second batch on its way must not touch the first.
                let _ = stream.upload(&vec![0.5; items * 6], (items, 1, 2, 3)).unwrap();
                stream.download(&uploaded, &mut numbers).unwrap();
                assert_eq!(numbers, images);
            }
        }
        let last = streams[0].upload(&[1.0, 2.0, 3.0], (3, 1, 1, 1)).unwrap();
        stream_appends(&mut streams[0], &last, &mut numbers);
    }

    fn stream_appends(stream: &mut Stream, tensor: &Tensor, numbers: &mut Vec<f32>) {
        let before = numbers.len();
        let part = tensor.narrow(0, 1, 2).unwrap();
        stream.download(&part, numbers).unwrap();
        assert_eq!(numbers[before..], [2.0, 3.0]);
    }
}
