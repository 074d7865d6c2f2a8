//! How a plan is compiled: which instructions, which ways, how many threads.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::kernels::Isa;

/// How plans are compiled for the CPU; a GPU heeds none of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The vector instructions of the kernels.
    pub instructions: Instructions,
    /// Whether 3×3 convolutions may take Winograd's way, whose sums differ from the plain ones by about 4·10⁻⁶ of the
    /// largest.
    pub winograd: bool,
    /// Threads that share each batch of an instance, at least 1.
    pub threads: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            instructions: Instructions::Auto,
            winograd: true,
            threads: 1,
        }
    }
}

/// Vector instructions asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Instructions {
    /// The widest of this processor.
    #[default]
    Auto,
    /// These, which this processor has.
    Only(Isa),
}

impl Instructions {
    /// The instructions chosen.
    pub fn isa(self) -> Isa {
        match self {
            Self::Auto => Isa::detect(),
            Self::Only(isa) => isa,
        }
    }
}

impl FromStr for Instructions {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            name => name
                .parse()
                .map(Self::Only)
                .map_err(|problem| format!("{problem}, or auto")),
        }
    }
}

impl fmt::Display for Instructions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Only(isa) => isa.fmt(f),
        }
    }
}

impl TryFrom<String> for Instructions {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Instructions> for String {
    fn from(instructions: Instructions) -> Self {
        instructions.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_written_as_they_are_read() {
        let check = |text: &str, expected: Isa| {
            let read: Instructions = text.parse().unwrap();
            assert_eq!((read.to_string().as_str(), read.isa()), (text, expected));
        };
        check("auto", Isa::detect());
        for isa in Isa::available() {
            check(&isa.to_string(), isa);
        }
        let error = "mmx".parse::<Instructions>().unwrap_err();
        assert!(error.ends_with("portable, or auto"), "{error}");
    }
}
