//! Numbers that begin on a cache line.

/// A fixed number of `f32`, zero at first, whose address is a multiple of 64 bytes.
#[derive(Clone, Debug, Default)]
pub struct Aligned {
    lines: Vec<Line>,
    len: usize,
}

#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([f32; 16]);

impl Aligned {
    /// `len` zeros.
    pub fn zeros(len: usize) -> Self {
        Self {
            lines: vec![Line([0.0; 16]); len.div_ceil(16)],
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

impl std::ops::Deref for Aligned {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: a Line is 16 f32 without padding, and `len` is at most 16 per line.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl std::ops::DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above; the lines are borrowed for as long as the slice.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
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
