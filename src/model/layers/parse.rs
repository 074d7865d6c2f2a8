//! One table of `[[layers]]` to a checked [`Layer`].

use std::ops::RangeInclusive;

use toml::{Table, Value};

use super::{Conv, IMAGE, Kind, Layer, LayersError, Out, wrong};
use crate::model::graph::{Activation, Pool};

/// Every `type`.
const TYPES: &[&str] = &[
    "conv2d",
    "batch_norm",
    "relu",
    "relu6",
    "silu",
    "hard_swish",
    "hard_sigmoid",
    "sigmoid",
    "gelu",
    "max_pool",
    "avg_pool",
    "global_avg_pool",
    "flatten",
    "linear",
    "dropout",
    "add",
    "mul",
    "concat",
    "pad",
];
/// Windows, steps, borders and dilations: no more than an image's longest side.
const SIDE: RangeInclusive<usize> = 1..=4096;
const BORDER: RangeInclusive<usize> = 0..=4096;
/// Output channels and features, and groups of them.
const CHANNELS: RangeInclusive<usize> = 1..=1 << 20;
const MAX_NAME: usize = 64;
/// Inputs of one `concat`.
const MAX_INPUTS: usize = 64;

impl TryFrom<Table> for Layer {
    type Error = LayersError;

    fn try_from(written: Table) -> Result<Self, LayersError> {
        let mut keys = Keys::new(written.clone());
        let name = keys.name()?;
        let kind_name = keys.kind_name()?;
        let kind = keys.kind(kind_name)?;
        let inputs = keys.inputs(&kind)?;
        let has_weights = matches!(kind, Kind::Conv2d(_) | Kind::BatchNorm | Kind::Linear { .. });
        if has_weights && name.is_none() {
            return Err(keys.wrong("needs a name, which its weights are called by".to_owned()));
        }
        keys.finish(kind_name)?;
        Ok(Self {
            name,
            kind,
            inputs,
            written,
        })
    }
}

impl From<Layer> for Table {
    fn from(layer: Layer) -> Self {
        layer.written
    }
}

/// ` (did you mean 'x'?)` where one of `known` is near.
pub(super) fn suggestion(word: &str, known: &[&str]) -> String {
    let scored = known
        .iter()
        .map(|known| (strsim::jaro_winkler(word, known), known));
    match scored.max_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((score, known)) if score > 0.8 => format!(" (did you mean '{known}'?)"),
        _ => String::new(),
    }
}

/// The keys of one layer that are still to be read.
struct Keys {
    /// What errors call the layer.
    label: String,
    table: Table,
    /// Read so far, present or not.
    known: Vec<&'static str>,
}

impl Keys {
    fn new(table: Table) -> Self {
        let text = |key: &str| table.get(key).and_then(Value::as_str).map(str::to_owned);
        let label = text("name").or_else(|| text("type")).unwrap_or_default();
        Self {
            label,
            table,
            known: Vec::new(),
        }
    }

    fn wrong(&self, problem: String) -> LayersError {
        wrong(&self.label, problem)
    }

    fn take(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        self.table.remove(key)
    }

    fn name(&mut self) -> Result<Option<String>, LayersError> {
        let Some(value) = self.take("name") else {
            return Ok(None);
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        match value {
            Value::String(name) if name == IMAGE => {
                Err(self.wrong("is what the image is called; take another name".to_owned()))
            }
            Value::String(name) if (1..=MAX_NAME).contains(&name.len()) && name.chars().all(plain) => {
                Ok(Some(name))
            }
            other => Err(self.wrong(format!(
                "name: {other}; 1 to {MAX_NAME} letters, digits, '_', '-' and '.'"
            ))),
        }
    }

    fn kind_name(&mut self) -> Result<&'static str, LayersError> {
        let value = self.take("type");
        let Some(Value::String(text)) = value else {
            return Err(self.wrong(format!("needs a type, one of {}", TYPES.join(", "))));
        };
        TYPES.iter().copied().find(|known| *known == text).ok_or_else(|| {
            self.wrong(format!(
                "no type '{text}'{}; known are {}",
                suggestion(&text, TYPES),
                TYPES.join(", ")
            ))
        })
    }

    fn kind(&mut self, name: &str) -> Result<Kind, LayersError> {
        Ok(match name {
            "conv2d" => Kind::Conv2d(self.convolution()?),
            "batch_norm" => Kind::BatchNorm,
            "relu" => Kind::Activation(Activation::Relu),
            "relu6" => Kind::Activation(Activation::Relu6),
            "silu" => Kind::Activation(Activation::Silu),
            "hard_swish" => Kind::Activation(Activation::HardSwish),
            "hard_sigmoid" => Kind::Activation(Activation::HardSigmoid),
            "sigmoid" => Kind::Activation(Activation::Sigmoid),
            "gelu" => Kind::Activation(Activation::Gelu),
            "max_pool" => Kind::MaxPool(self.pool()?),
            "avg_pool" => Kind::AvgPool(self.pool()?),
            "global_avg_pool" => Kind::GlobalAvgPool,
            "linear" => Kind::Linear { out: self.out()? },
            "dropout" => Kind::Dropout {
                p: self.probability()?,
            },
            "add" => Kind::Add,
            "mul" => Kind::Mul,
            "concat" => Kind::Concat,
            "pad" => Kind::Pad(self.border()?),
            _ => Kind::Flatten,
        })
    }

    fn convolution(&mut self) -> Result<Conv, LayersError> {
        Ok(Conv {
            out: self.out()?,
            kernel: self.pair("kernel", SIDE, None)?,
            stride: self.pair("stride", SIDE, Some([1; 2]))?,
            padding: self.pair("padding", BORDER, Some([0; 2]))?,
            dilation: self.pair("dilation", SIDE, Some([1; 2]))?,
            groups: match self.take("groups") {
                None => 1,
                Some(value) => self.number("groups", &value, CHANNELS)?,
            },
            bias: match self.take("bias") {
                None => true,
                Some(Value::Boolean(bias)) => bias,
                Some(other) => return Err(self.wrong(format!("bias: {other}; true or false"))),
            },
        })
    }

    fn pool(&mut self) -> Result<Pool, LayersError> {
        let kernel = self.pair("kernel", SIDE, None)?;
        Ok(Pool {
            kernel,
            stride: self.pair("stride", SIDE, Some(kernel))?,
            padding: self.pair("padding", BORDER, Some([0; 2]))?,
        })
    }

    fn out(&mut self) -> Result<Out, LayersError> {
        match self.take("out") {
            Some(Value::String(text)) if text == "classes" => Ok(Out::Classes),
            Some(value) => self.number("out", &value, CHANNELS).map(Out::Count),
            None => Err(self.wrong("needs out, a number or \"classes\"".to_owned())),
        }
    }

    fn probability(&mut self) -> Result<f32, LayersError> {
        match self.take("p") {
            None => Ok(0.5),
            Some(Value::Float(p)) if (0.0..1.0).contains(&p) => Ok(p as f32),
            Some(Value::Integer(0)) => Ok(0.0),
            Some(other) => Err(self.wrong(format!("p: {other}; 0 up to, not including, 1"))),
        }
    }

    fn border(&mut self) -> Result<[usize; 4], LayersError> {
        let problem = "needs border, [top, bottom, left, right]";
        let Some(Value::Array(values)) = self.take("border") else {
            return Err(self.wrong(problem.to_owned()));
        };
        let sides: Vec<usize> = values
            .iter()
            .map(|value| self.number("border", value, BORDER))
            .collect::<Result<_, _>>()?;
        sides.try_into().map_err(|_| self.wrong(problem.to_owned()))
    }

    /// `n` for both, or `[rows, columns]`.
    fn pair(
        &mut self,
        key: &'static str,
        range: RangeInclusive<usize>,
        default: Option<[usize; 2]>,
    ) -> Result<[usize; 2], LayersError> {
        match self.take(key) {
            None => default.ok_or_else(|| self.wrong(format!("needs {key}, a number or [rows, columns]"))),
            Some(Value::Array(values)) => match &values[..] {
                [rows, columns] => Ok([
                    self.number(key, rows, range.clone())?,
                    self.number(key, columns, range)?,
                ]),
                _ => Err(self.wrong(format!("{key}: a number or [rows, columns]"))),
            },
            Some(value) => self.number(key, &value, range).map(|number| [number; 2]),
        }
    }

    fn number(&self, key: &str, value: &Value, range: RangeInclusive<usize>) -> Result<usize, LayersError> {
        let number = value.as_integer().and_then(|number| usize::try_from(number).ok());
        number.filter(|number| range.contains(number)).ok_or_else(|| {
            self.wrong(format!(
                "{key}: {value}; a whole number of {} to {}",
                range.start(),
                range.end()
            ))
        })
    }

    /// `from` of a layer that takes one value, `inputs` of one that joins several.
    fn inputs(&mut self, kind: &Kind) -> Result<Vec<String>, LayersError> {
        let count = match kind {
            Kind::Add | Kind::Mul => 2..=2,
            Kind::Concat => 2..=MAX_INPUTS,
            _ => {
                return match self.take("from") {
                    None => Ok(Vec::new()),
                    Some(Value::String(name)) => Ok(vec![name]),
                    Some(other) => Err(self.wrong(format!("from: {other}; the name of a layer before"))),
                };
            }
        };
        let names = match self.take("inputs") {
            Some(Value::Array(values)) => values
                .iter()
                .map(|value| value.as_str().map(str::to_owned))
                .collect::<Option<Vec<_>>>(),
            _ => None,
        };
        names.filter(|names| count.contains(&names.len())).ok_or_else(|| {
            let many = if count == (2..=2) {
                "two".to_owned()
            } else {
                format!("2 to {MAX_INPUTS}")
            };
            self.wrong(format!("needs inputs, the names of {many} layers before it"))
        })
    }

    fn finish(self, kind_name: &str) -> Result<(), LayersError> {
        let Some(key) = self.table.keys().next() else {
            return Ok(());
        };
        Err(self.wrong(format!(
            "a {kind_name} has no key '{key}'{}; it has {}",
            suggestion(key, &self.known),
            self.known.join(", ")
        )))
    }
}
