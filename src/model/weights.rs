//! Weights: safetensors bytes ↔ the named, checked parameters of a graph.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{Device, Tensor};
use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::Graph;
use super::dialect::{self, Naming};
use super::graph::{Param, ParamKind};
use super::rng::{Rng, Stream};

mod names;

/// Largest weights file that is read, in bytes.
pub const MAX_FILE_BYTES: u64 = 4 << 30;
/// Largest safetensors header that is read, in bytes.
pub const MAX_HEADER_BYTES: u64 = 16 << 20;

/// Every parameter of one graph: f32, on the CPU, finite, of the graph's names and shapes.
#[derive(Clone, Debug)]
pub struct Weights {
    tensors: BTreeMap<String, Tensor>,
}

/// Why bytes are not the weights of a graph.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// Over [`MAX_FILE_BYTES`] or [`MAX_HEADER_BYTES`].
    #[error("weights: {0}")]
    TooLarge(String),
    /// Not a safetensors file.
    #[error("weights: not a safetensors file: {0}")]
    Format(String),
    /// Names or shapes differ from the architecture's; each list is complete, the text tells the first of many.
    #[error("weights do not fit the architecture:{}", describe(missing, extra, misshaped))]
    Mismatch {
        /// Expected and absent.
        missing: Vec<String>,
        /// Present and not expected.
        extra: Vec<String>,
        /// `name: expected [..], found [..]`.
        misshaped: Vec<String>,
    },
    /// A dtype other than f32, f16, bf16.
    #[error("weights: '{name}' is {dtype}; F32, F16 and BF16 are read")]
    Dtype {
        /// Parameter.
        name: String,
        /// What the file says.
        dtype: String,
    },
    /// NaN or infinity.
    #[error("weights: '{name}' holds {count} values that are not finite")]
    NonFinite {
        /// Parameter.
        name: String,
        /// How many.
        count: usize,
    },
    /// A convolution or a dense layer without a single weight that counts.
    #[error("weights: '{0}' holds nothing but zeros")]
    Zero(String),
    /// A running variance below 0.
    #[error("weights: '{0}' is a variance and holds values below 0")]
    Variance(String),
    /// candle refused.
    #[error("weights: {0}")]
    Tensor(#[from] candle_core::Error),
}

impl Weights {
    /// Reads `bytes` (a whole safetensors file) as the weights of `graph`; every rule above is checked. The names may
    /// be the graph's or those of one of its dialects, with a wrapper's prefix; batch-norms' counters are passed over.
    pub fn from_safetensors(bytes: &[u8], graph: &Graph) -> Result<Self, WeightsError> {
        check_sizes(bytes)?;
        let file = SafeTensors::deserialize(bytes)
            .map_err(|e| WeightsError::Format(names::shown(&e.to_string())))?;
        names::check_once(header(bytes)).map_err(WeightsError::Format)?;
        let found: BTreeMap<&str, Vec<usize>> = file
            .iter()
            .filter(|(name, _)| !dialect::is_counter(name))
            .map(|(name, t)| (name, t.shape().to_vec()))
            .collect();
        let naming = Naming::of(&found.keys().copied().collect(), graph);
        let expected: Vec<(String, &Param)> = graph.params.iter().map(|p| (naming.name_of(p), p)).collect();
        check_names(&found, &expected, dialect::same_layout)?;
        let read = |(name, param): &(String, &Param)| {
            let view = file
                .tensor(name)
                .map_err(|e| WeightsError::Format(e.to_string()))?;
            let tensor = Tensor::from_vec(values(name, &view)?, &*param.shape, &Device::Cpu)?;
            Ok((param.name.clone(), tensor))
        };
        let tensors = expected.iter().map(read).collect::<Result<_, WeightsError>>()?;
        let mut weights = Self { tensors }.checked(graph)?;
        weights.check_alive(graph)?;
        naming.adapt(&mut weights.tensors, graph)?;
        Ok(weights)
    }

    /// Takes tensors of any device as the weights of `graph`; the same rules hold.
    pub fn from_tensors(tensors: BTreeMap<String, Tensor>, graph: &Graph) -> Result<Self, WeightsError> {
        let found: BTreeMap<&str, Vec<usize>> =
            tensors.iter().map(|(n, t)| (&**n, t.dims().to_vec())).collect();
        let expected: Vec<(String, &Param)> = graph.params.iter().map(|p| (p.name.clone(), p)).collect();
        check_names(&found, &expected, |expected, found| expected == found)?;
        let plain = |(name, tensor): (String, Tensor)| {
            let tensor = tensor
                .detach()
                .to_device(&Device::Cpu)?
                .to_dtype(candle_core::DType::F32)?;
            // A copy of its own: what trains on must not change these weights afterwards.
            Ok((
                name,
                Tensor::from_vec(
                    tensor.flatten_all()?.to_vec1::<f32>()?,
                    tensor.dims(),
                    &Device::Cpu,
                )?,
            ))
        };
        let tensors = tensors
            .into_iter()
            .map(plain)
            .collect::<Result<_, WeightsError>>()?;
        Self { tensors }.checked(graph)
    }

    /// A safetensors file of these weights, f32, subnormal values written as 0; the same weights and metadata give
    /// the same bytes.
    pub fn to_safetensors(&self, metadata: &BTreeMap<String, String>) -> Result<Vec<u8>, WeightsError> {
        let bytes_of = |tensor: &Tensor| -> Result<Vec<u8>, WeightsError> {
            let values = tensor.flatten_all()?.to_vec1::<f32>()?;
            Ok(values
                .into_iter()
                .map(|v| if v.is_subnormal() { 0.0 } else { v })
                .flat_map(f32::to_le_bytes)
                .collect())
        };
        let mut data = Vec::with_capacity(self.tensors.len());
        for (name, tensor) in &self.tensors {
            data.push((name.as_str(), tensor.dims().to_vec(), bytes_of(tensor)?));
        }
        let format = |e: safetensors::SafeTensorError| WeightsError::Format(e.to_string());
        let mut views = BTreeMap::new();
        for (name, shape, bytes) in &data {
            views.insert(
                *name,
                TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(format)?,
            );
        }
        // The file's own writer keeps metadata in a HashMap, whose order changes from run to run; one entry has one order.
        let metadata = serde_json::to_string(metadata).map_err(|e| WeightsError::Format(e.to_string()))?;
        let metadata = [("sconce".to_owned(), metadata)].into();
        safetensors::serialize(views, Some(metadata)).map_err(format)
    }

    /// Fresh weights by `seed`: He-normal where a ReLU follows (He et al., arXiv 1502.01852), Glorot-uniform else
    /// (Glorot, Bengio, AISTATS 2010); dense layers always Glorot-uniform, biases 0, batch-norms the identity.
    pub fn initialise(graph: &Graph, seed: u64) -> Result<Self, WeightsError> {
        let fresh = |(index, param): (usize, &Param)| {
            let mut rng = Rng::new(seed, Stream::Init, index as u64);
            let values = initial_values(param, &mut rng);
            Ok((
                param.name.clone(),
                Tensor::from_vec(values, &*param.shape, &Device::Cpu)?,
            ))
        };
        let tensors = graph
            .params
            .iter()
            .enumerate()
            .map(fresh)
            .collect::<Result<_, WeightsError>>()?;
        Ok(Self { tensors })
    }

    /// These weights with a fresh last layer, as [`Weights::initialise`] makes it.
    pub fn with_fresh_head(&self, graph: &Graph, seed: u64) -> Result<Self, WeightsError> {
        let fresh = Self::initialise(graph, seed)?;
        let mut tensors = self.tensors.clone();
        for id in graph.head() {
            let name = &graph.param(id).name;
            tensors.extend(fresh.get(name).map(|tensor| (name.clone(), tensor.clone())));
        }
        Ok(Self { tensors })
    }

    /// The tensor of a parameter.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// All parameters in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// No network is trained to a layer of zeros: such a file was never filled, or what it held is too small for f32. A
    /// layer scale or a batch-norm may be zero, and a pruned layer is mostly.
    fn check_alive(&self, graph: &Graph) -> Result<(), WeightsError> {
        for param in &graph.params {
            if !matches!(param.kind, ParamKind::Weight { .. }) {
                continue;
            }
            let values = self.tensors[&param.name].flatten_all()?.to_vec1::<f32>()?;
            if !values.iter().any(|value| value.is_normal()) {
                return Err(WeightsError::Zero(param.name.clone()));
            }
        }
        Ok(())
    }

    fn checked(self, graph: &Graph) -> Result<Self, WeightsError> {
        for param in &graph.params {
            let values = self.tensors[&param.name].flatten_all()?.to_vec1::<f32>()?;
            let count = values.iter().filter(|v| !v.is_finite()).count();
            if count > 0 {
                return Err(WeightsError::NonFinite {
                    name: param.name.clone(),
                    count,
                });
            }
            if param.kind == ParamKind::RunningVar && values.iter().any(|&v| v < 0.0) {
                return Err(WeightsError::Variance(param.name.clone()));
            }
        }
        Ok(self)
    }
}

fn check_sizes(bytes: &[u8]) -> Result<(), WeightsError> {
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(WeightsError::TooLarge(format!(
            "{} bytes; at most {MAX_FILE_BYTES}",
            bytes.len()
        )));
    }
    let header = bytes.first_chunk::<8>().map(|length| u64::from_le_bytes(*length));
    match header {
        Some(length) if length > MAX_HEADER_BYTES => Err(WeightsError::TooLarge(format!(
            "a header of {length} bytes; at most {MAX_HEADER_BYTES}"
        ))),
        Some(_) => Ok(()),
        None => Err(WeightsError::Format("shorter than 8 bytes".to_owned())),
    }
}

/// The header of a file that was found to be one.
fn header(bytes: &[u8]) -> &[u8] {
    let length = bytes
        .first_chunk::<8>()
        .map_or(0, |length| u64::from_le_bytes(*length));
    let end = usize::try_from(length).unwrap_or(usize::MAX).saturating_add(8);
    bytes.get(8..end.min(bytes.len())).unwrap_or_default()
}

/// Holds names and shapes against the parameters that are expected under their names.
fn check_names(
    found: &BTreeMap<&str, Vec<usize>>,
    expected: &[(String, &Param)],
    fits: fn(&[usize], &[usize]) -> bool,
) -> Result<(), WeightsError> {
    let names: BTreeSet<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
    let extra: Vec<String> = found
        .keys()
        .filter(|n| !names.contains(*n))
        .map(|n| (*n).to_owned())
        .collect();
    let (mut missing, mut misshaped) = (Vec::new(), Vec::new());
    for (name, Param { shape, .. }) in expected {
        match found.get(name.as_str()) {
            None => missing.push(name.clone()),
            Some(found) if !fits(shape, found) => {
                misshaped.push(format!("{name}: expected {shape:?}, found {found:?}"));
            }
            Some(_) => {}
        }
    }
    if missing.is_empty() && extra.is_empty() && misshaped.is_empty() {
        return Ok(());
    }
    Err(WeightsError::Mismatch {
        missing,
        extra,
        misshaped,
    })
}

fn values(name: &str, view: &TensorView<'_>) -> Result<Vec<f32>, WeightsError> {
    let bytes = view.data();
    let halves = || bytes.as_chunks::<2>().0.iter().copied();
    match view.dtype() {
        Dtype::F32 => Ok(bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| f32::from_le_bytes(*b))
            .collect()),
        Dtype::F16 => Ok(halves().map(|b| f16::from_le_bytes(b).to_f32()).collect()),
        Dtype::BF16 => Ok(halves().map(|b| bf16::from_le_bytes(b).to_f32()).collect()),
        other => Err(WeightsError::Dtype {
            name: name.to_owned(),
            dtype: format!("{other:?}"),
        }),
    }
}

fn initial_values(param: &Param, rng: &mut Rng) -> Vec<f32> {
    let count = param.shape.iter().product();
    match param.kind {
        ParamKind::Bias | ParamKind::Offset | ParamKind::RunningMean => vec![0.0; count],
        ParamKind::Scale | ParamKind::RunningVar => vec![1.0; count],
        ParamKind::LayerScale => vec![1e-6; count],
        ParamKind::Weight {
            fan_in,
            rectified: true,
            ..
        } if param.shape.len() == 4 => {
            let deviation = (2.0 / fan_in as f32).sqrt();
            (0..count).map(|_| deviation * rng.normal()).collect()
        }
        ParamKind::Weight { fan_in, fan_out, .. } => {
            let bound = (6.0 / (fan_in + fan_out) as f32).sqrt();
            (0..count).map(|_| rng.uniform(-bound, bound)).collect()
        }
    }
}

fn describe(missing: &[String], extra: &[String], misshaped: &[String]) -> String {
    let mut text = String::new();
    for (what, list) in [
        ("missing", missing),
        ("not expected", extra),
        ("of another shape", misshaped),
    ] {
        if !list.is_empty() {
            text.push_str(&format!(" {what}: {};", names::told(list)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Input, arch};

    fn graph() -> Graph {
        arch::build(
            "small-cnn",
            Input {
                channels: 1,
                height: 8,
                width: 8,
            },
            2,
        )
        .unwrap()
    }

    fn good() -> Vec<u8> {
        Weights::initialise(&graph(), 1)
            .unwrap()
            .to_safetensors(&BTreeMap::new())
            .unwrap()
    }

    fn flat(weights: &Weights) -> Vec<(String, Vec<f32>)> {
        weights
            .iter()
            .map(|(n, t)| (n.to_owned(), t.flatten_all().unwrap().to_vec1().unwrap()))
            .collect()
    }

    /// A file of `graph`'s shapes, each tensor changed by `change`.
    fn file(
        change: impl Fn(&str, Vec<usize>, Vec<u8>) -> Option<(String, Dtype, Vec<usize>, Vec<u8>)>,
    ) -> Vec<u8> {
        let weights = Weights::initialise(&graph(), 1).unwrap();
        let parts: Vec<_> = flat(&weights)
            .into_iter()
            .filter_map(|(name, values)| {
                let shape = weights.get(&name).unwrap().dims().to_vec();
                change(
                    &name,
                    shape,
                    values.into_iter().flat_map(f32::to_le_bytes).collect(),
                )
            })
            .collect();
        let view = |(name, dtype, shape, data): &(String, Dtype, Vec<usize>, Vec<u8>)| {
            (
                name.clone(),
                TensorView::new(*dtype, shape.clone(), data)
                    .unwrap()
                    .data()
                    .to_vec(),
                *dtype,
                shape.clone(),
            )
        };
        let owned: Vec<_> = parts.iter().map(view).collect();
        let views = owned
            .iter()
            .map(|(n, d, t, s)| (n.as_str(), TensorView::new(*t, s.clone(), d).unwrap()));
        safetensors::serialize(views, None).unwrap()
    }

    #[test]
    fn weights_survive_a_file_bit_for_bit() {
        let bytes = good();
        let weights = Weights::from_safetensors(&bytes, &graph()).unwrap();
        assert_eq!(weights.to_safetensors(&BTreeMap::new()).unwrap(), bytes);
        assert_eq!(flat(&weights), flat(&Weights::initialise(&graph(), 1).unwrap()));
        assert_ne!(flat(&weights), flat(&Weights::initialise(&graph(), 2).unwrap()));
    }

    #[test]
    fn metadata_does_not_change_the_bytes_from_run_to_run() {
        let metadata: BTreeMap<_, _> = (0..20)
            .map(|i| (format!("key {i}"), "value".to_owned()))
            .collect();
        let weights = Weights::initialise(&graph(), 1).unwrap();
        let first = weights.to_safetensors(&metadata).unwrap();
        assert!((0..5).all(|_| weights.to_safetensors(&metadata).unwrap() == first));
    }

    #[test]
    fn initial_values_have_their_deviation() {
        let graph = arch::build(
            "seed-cnn",
            Input {
                channels: 1,
                height: 28,
                width: 28,
            },
            10,
        )
        .unwrap();
        let weights = Weights::initialise(&graph, 3).unwrap();
        let deviation = |name: &str| {
            let values = weights
                .get(name)
                .unwrap()
                .flatten_all()
                .unwrap()
                .to_vec1::<f32>()
                .unwrap();
            (values.iter().map(|v| v * v).sum::<f32>() / values.len() as f32).sqrt()
        };
        assert!((deviation("conv1.weight") / (2.0f32 / 9.0).sqrt() - 1.0).abs() < 0.1);
        assert!((deviation("fc1.weight") / (2.0f32 / (5408.0 + 64.0)).sqrt() - 1.0).abs() < 0.01);
        assert_eq!(deviation("fc1.bias"), 0.0);
    }

    #[test]
    fn subnormals_become_zero_in_a_file() {
        let mut tensors: BTreeMap<_, _> = Weights::initialise(&graph(), 1).unwrap().tensors;
        tensors.insert(
            "fc.bias".to_owned(),
            Tensor::new(&[1e-40f32, -1.5], &Device::Cpu).unwrap(),
        );
        let weights = Weights::from_tensors(tensors, &graph()).unwrap();
        let read =
            Weights::from_safetensors(&weights.to_safetensors(&BTreeMap::new()).unwrap(), &graph()).unwrap();
        assert_eq!(
            read.get("fc.bias").unwrap().to_vec1::<f32>().unwrap(),
            [0.0, -1.5]
        );
    }

    #[test]
    fn half_precision_files_are_read() {
        for (dtype, convert) in [
            (
                Dtype::F16,
                (|v| f16::from_f32(v).to_le_bytes()) as fn(f32) -> [u8; 2],
            ),
            (Dtype::BF16, |v| bf16::from_f32(v).to_le_bytes()),
        ] {
            let bytes = file(|name, shape, data| {
                let values = data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
                Some((name.to_owned(), dtype, shape, values.flat_map(convert).collect()))
            });
            let read = flat(&Weights::from_safetensors(&bytes, &graph()).unwrap());
            for ((_, read), (_, full)) in read.iter().zip(flat(&Weights::initialise(&graph(), 1).unwrap())) {
                assert!(
                    read.iter()
                        .zip(full)
                        .all(|(a, b)| (a - b).abs() <= b.abs() / 128.0 + 1e-7),
                    "{dtype:?}"
                );
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_listed_whole() {
        let bytes = file(|name, shape, data| match name {
            "fc.bias" => Some(("fc.offset".to_owned(), Dtype::F32, shape, data)),
            "fc.weight" => Some((name.to_owned(), Dtype::F32, vec![64, 2], data)),
            "bn1.weight" => None,
            _ => Some((name.to_owned(), Dtype::F32, shape, data)),
        });
        let error = Weights::from_safetensors(&bytes, &graph())
            .unwrap_err()
            .to_string();
        for part in [
            "missing: bn1.weight, fc.bias;",
            "not expected: fc.offset;",
            "fc.weight: expected [2, 64], found [64, 2];",
        ] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn bad_values_and_types_are_refused() {
        let with = |target: &'static str, dtype, first: f32| {
            file(move |name, shape, mut data| {
                if name == target {
                    data[..4].copy_from_slice(&first.to_le_bytes());
                    return Some((name.to_owned(), dtype, shape, data));
                }
                Some((name.to_owned(), Dtype::F32, shape, data))
            })
        };
        let check = |bytes: &[u8], expected: &str| {
            let error = Weights::from_safetensors(bytes, &graph())
                .unwrap_err()
                .to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(
            &with("fc.bias", Dtype::F32, f32::NAN),
            "'fc.bias' holds 1 values that are not finite",
        );
        check(&with("fc.bias", Dtype::F32, f32::INFINITY), "not finite");
        check(&with("bn2.running_var", Dtype::F32, -1.0), "variance");
        check(&with("fc.bias", Dtype::I32, 1.0), "'fc.bias' is I32");
        check(&[], "shorter than 8 bytes");
        check(&u64::MAX.to_le_bytes(), "a header of");
        check(b"\x02\0\0\0\0\0\0\0{}", "missing: conv1.weight");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn broken_files_never_panic_nor_give_values_that_are_not_finite(
            cut in 0usize..4000, flips in prop::collection::vec((0usize..100_000, 0u8..8), 0..4)
        ) {
            let mut bytes = good();
            for (at, bit) in flips {
                let at = at % bytes.len();
                bytes[at] ^= 1 << bit;
            }
            bytes.truncate(bytes.len() - cut.saturating_sub(2000));
            if let Ok(weights) = Weights::from_safetensors(&bytes, &graph()) {
                prop_assert!(flat(&weights).iter().all(|(_, values)| values.iter().all(|v| v.is_finite())));
            }
        }
    }
}
