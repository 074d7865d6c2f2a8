//! Numbers that begin on a cache line.

/// A fixed number of `f32`, zero at first, whose address is a multiple of 64 bytes.
#[derive(Debug, Default)]
pub struct Aligned {
    /// A line longer than needed. Its zeros are the system's own: memory that is written soon is not written twice.
    values: Vec<f32>,
    start: usize,
    len: usize,
}

/// Numbers of a cache line.
const LINE: usize = 16;

impl Aligned {
    /// `len` zeros.
    pub fn zeros(len: usize) -> Self {
        let values = vec![0.0f32; len + LINE - 1];
        let before = values.as_ptr().addr().wrapping_neg() % (LINE * size_of::<f32>());
        Self {
            values,
            start: before / size_of::<f32>(),
            len,
        }
    }

    /// A copy of `values`.
    pub fn copied(values: &[f32]) -> Self {
        let mut copy = Self::zeros(values.len());
        copy.copy_from_slice(values);
        copy
    }
}

impl Clone for Aligned {
    fn clone(&self) -> Self {
        Self::copied(self)
    }
}

impl std::ops::Deref for Aligned {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.values[self.start..][..self.len]
    }
}

impl std::ops::DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values[self.start..][..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_is_zero_and_aligned() {
        for len in 0..70 {
            let mut values = Aligned::zeros(len);
            assert_eq!(&*values, vec![0.0; len]);
            assert_eq!(values.as_ptr().addr() % 64, 0);
            values.iter_mut().zip(0u8..).for_each(|(v, i)| *v = f32::from(i));
            assert_eq!(&*Aligned::copied(&values), &*values);
        }
    }
}
