//! Which vector instructions the kernels use.

use std::fmt;
use std::str::FromStr;

/// A set of vector instructions. [`Isa::detect`] and [`Isa::available`] give only what this processor has, and kernels
/// take theirs from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Isa(pub(super) Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// 16 lanes, 32 registers.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// 8 lanes, 16 registers, fused multiply-add.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// 4 lanes of whatever the compiler's target has: SSE2 on x86-64, NEON on aarch64.
    Portable,
}

impl Isa {
    /// The loops without instructions of their own; right on every processor.
    pub const PORTABLE: Self = Self(Kind::Portable);

    /// The widest set of this processor.
    pub fn detect() -> Self {
        Self::available()[0]
    }

    /// Every set of this processor, the widest first.
    pub fn available() -> Vec<Self> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            let fma = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            if fma && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl") {
                all.push(Self(Kind::Avx512));
            }
            if fma {
                all.push(Self(Kind::Avx2));
            }
        }
        all.push(Self::PORTABLE);
        all
    }

    /// Numbers in a vector. Channels are padded to a multiple of it.
    pub fn lanes(self) -> usize {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => 16,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => 8,
            Kind::Portable => 4,
        }
    }

    /// `count` rounded up to whole vectors.
    pub fn padded(self, count: usize) -> usize {
        count.next_multiple_of(self.lanes())
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            Kind::Portable => "portable",
        })
    }
}

impl FromStr for Isa {
    type Err = String;

    /// A set by its name; an error names those of this processor.
    fn from_str(text: &str) -> Result<Self, String> {
        let all = Self::available();
        all.iter()
            .copied()
            .find(|isa| isa.to_string() == text)
            .ok_or_else(|| {
                let names: Vec<String> = all.iter().map(Self::to_string).collect();
                format!(
                    "'{text}' is none of this processor's vector instructions: {}",
                    names.join(", ")
                )
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for isa in Isa::available() {
            assert_eq!(isa.to_string().parse(), Ok(isa));
            assert_eq!(isa.padded(0), 0);
            assert_eq!(isa.padded(1), isa.lanes());
            assert_eq!(isa.padded(isa.lanes()), isa.lanes());
        }
        assert!("mmx".parse::<Isa>().unwrap_err().ends_with("portable"));
    }

    #[test]
    fn the_widest_comes_first_and_the_portable_last() {
        let all = Isa::available();
        assert!(all.windows(2).all(|pair| pair[0].lanes() > pair[1].lanes()));
        assert_eq!(all.last(), Some(&Isa::PORTABLE));
        assert_eq!(Isa::detect(), all[0]);
    }
}
