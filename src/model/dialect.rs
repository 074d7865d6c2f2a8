//! Other libraries' names for the parameters of a network.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use candle_core::{Result, Tensor};

use super::Graph;
use super::graph::{Op, Param};

/// What wrappers put before every name: torch's data parallelism, Lightning and the like, `torch.compile`.
const PREFIXES: [&str; 6] = [
    "",
    "module.",
    "model.",
    "_orig_mod.",
    "module.model.",
    "module._orig_mod.",
];

/// What one library calls the layers of a network.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dialect {
    /// The graph's name of a layer or parameter, to the library's; others are called the same.
    names: BTreeMap<String, String>,
    /// ε of the library's batch-norms, where it is not the graph's.
    eps: Option<f64>,
}

/// How the names of one file stand for the parameters of a graph.
#[derive(Clone, Copy, Debug)]
pub(super) struct Naming<'a> {
    prefix: &'static str,
    dialect: Option<&'a Dialect>,
}

impl Dialect {
    /// A dialect whose batch-norms add `eps` to the variance.
    pub fn with_eps(eps: f64) -> Self {
        Self {
            eps: Some(eps),
            ..Self::default()
        }
    }

    /// Says that the layer or parameter `own` is called `foreign`.
    pub fn rename(&mut self, own: impl Into<String>, foreign: impl Into<String>) {
        self.names.insert(own.into(), foreign.into());
    }

    /// The library's name of a parameter of the graph.
    fn name_of<'a>(&'a self, param: &'a str) -> Cow<'a, str> {
        if let Some(name) = self.names.get(param) {
            return name.into();
        }
        let renamed = param.rsplit_once('.').and_then(|(layer, field)| {
            let layer = self.names.get(layer)?;
            Some(format!("{layer}.{field}").into())
        });
        renamed.unwrap_or(param.into())
    }
}

impl<'a> Naming<'a> {
    /// The prefix and dialect under which most parameters of `graph` are in `file`; the graph's own where equal.
    pub(super) fn of(file: &BTreeSet<&str>, graph: &'a Graph) -> Self {
        let dialects = std::iter::once(None).chain(graph.dialects.iter().map(Some));
        let namings = dialects.flat_map(|dialect| PREFIXES.map(|prefix| Self { prefix, dialect }));
        let known = |naming: &Self| {
            let names = graph.params.iter().map(|param| naming.name_of(param));
            names.filter(|name| file.contains(name.as_str())).count()
        };
        // The last of equals would win, hence the reversal.
        let ranked: Vec<Self> = namings.collect();
        let best = ranked.into_iter().rev().max_by_key(known);
        best.unwrap_or(Self {
            prefix: "",
            dialect: None,
        })
    }

    /// The file's name of a parameter.
    pub(super) fn name_of(&self, param: &Param) -> String {
        let name = self
            .dialect
            .map_or(param.name.as_str().into(), |d| d.name_of(&param.name));
        format!("{}{name}", self.prefix)
    }

    /// Turns the values of the file into those with which `graph` computes the same: the library may divide by
    /// √(σ² + ε') where the graph divides by √(σ² + ε), which γ·√((σ² + ε)/(σ² + ε')) makes good.
    pub(super) fn adapt(&self, tensors: &mut BTreeMap<String, Tensor>, graph: &Graph) -> Result<()> {
        let Some(theirs) = self.dialect.and_then(|dialect| dialect.eps) else {
            return Ok(());
        };
        for node in &graph.nodes {
            let Op::BatchNorm {
                weight,
                running_var,
                eps,
                ..
            } = node.op
            else {
                continue;
            };
            let variance = &tensors[&graph.param(running_var).name];
            let factor = ((variance + eps)? / (variance + theirs)?)?.sqrt()?;
            let name = &graph.param(weight).name;
            let scaled = (&tensors[name] * factor)?;
            tensors.insert(name.clone(), scaled);
        }
        Ok(())
    }
}

/// Whether a file may hold something that is no parameter: the count that torch's batch-norms keep.
pub(super) fn is_counter(name: &str) -> bool {
    name.ends_with("num_batches_tracked")
}

/// Whether the same numbers in the same order may stand for a parameter of shape `expected`: one of the two is the other
/// with all but the first axis joined, as a dense layer is to a convolution over its whole input.
pub(super) fn same_layout(expected: &[usize], found: &[usize]) -> bool {
    let joined = expected.len().min(found.len()) <= 2;
    let count = |shape: &[usize]| shape.iter().product::<usize>();
    expected == found || (joined && expected.first() == found.first() && count(expected) == count(found))
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::model::builder::{BatchNormOptions, GraphBuilder};
    use crate::model::graph::NodeId;
    use crate::model::{Input, Weights, WeightsError};

    /// A batch-norm of one channel with ε 3, called `norm` elsewhere, where ε is 0; and a dense layer.
    fn graph() -> Graph {
        let input = Input {
            channels: 1,
            height: 1,
            width: 2,
        };
        let mut g = GraphBuilder::new(input);
        let options = BatchNormOptions {
            eps: 3.0,
            momentum: 0.1,
        };
        let x = g.batch_norm_with("bn", NodeId::INPUT, options).unwrap();
        let x = g.flatten("flatten", x).unwrap();
        g.linear("fc", x, 2, false).unwrap();
        let mut dialect = Dialect::with_eps(0.0);
        dialect.rename("bn", "layers.norm");
        dialect.rename("fc.bias", "head.offset");
        g.also_named(dialect);
        g.finish().unwrap()
    }

    fn read(names: &[(&str, &[usize])]) -> std::result::Result<Weights, WeightsError> {
        let file = names.iter().map(|&(name, shape)| {
            let ones = Tensor::ones(shape, candle_core::DType::F32, &Device::Cpu).unwrap();
            (name, ones)
        });
        let bytes = safetensors::serialize(file, None).unwrap();
        Weights::from_safetensors(&bytes, &graph())
    }

    const OWN: [(&str, &[usize]); 6] = [
        ("bn.weight", &[1]),
        ("bn.bias", &[1]),
        ("bn.running_mean", &[1]),
        ("bn.running_var", &[1]),
        ("fc.weight", &[2, 2]),
        ("fc.bias", &[2]),
    ];
    const FOREIGN: [(&str, &[usize]); 6] = [
        ("layers.norm.weight", &[1]),
        ("layers.norm.bias", &[1]),
        ("layers.norm.running_mean", &[1]),
        ("layers.norm.running_var", &[1]),
        ("fc.weight", &[2, 2]),
        ("head.offset", &[2]),
    ];

    fn gamma(weights: &Weights) -> f32 {
        weights.get("bn.weight").unwrap().to_vec1::<f32>().unwrap()[0]
    }

    #[test]
    fn own_and_foreign_names_load_with_and_without_a_wrapper() {
        for prefix in PREFIXES {
            // √((1 + 3)/(1 + 0)): the graph divides by twice as much as the other library.
            for (names, expected) in [(OWN, 1.0), (FOREIGN, 2.0)] {
                let named: Vec<(String, &[usize])> =
                    names.iter().map(|(n, s)| (format!("{prefix}{n}"), *s)).collect();
                let mut named: Vec<(&str, &[usize])> = named.iter().map(|(n, s)| (n.as_str(), *s)).collect();
                let counter = format!("{prefix}bn.num_batches_tracked");
                named.push((&counter, &[]));
                assert_eq!(gamma(&read(&named).unwrap()), expected, "{named:?}");
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_told_in_the_files_own_terms() {
        let mut names = FOREIGN.map(|(name, shape)| (format!("module.{name}"), shape));
        names[0].0 = "module.layers.norm.gamma".to_owned();
        names[4].1 = &[2, 3];
        let names: Vec<(&str, &[usize])> = names.iter().map(|(n, s)| (n.as_str(), *s)).collect();
        let error = read(&names).unwrap_err().to_string();
        for part in [
            "missing: module.layers.norm.weight;",
            "not expected: module.layers.norm.gamma;",
            "of another shape: module.fc.weight: expected [2, 2], found [2, 3];",
        ] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_dense_layer_may_be_stored_as_a_convolution() {
        let check = |expected: &[usize], found: &[usize], same: bool| {
            assert_eq!(same_layout(expected, found), same, "{expected:?} {found:?}");
            assert_eq!(same_layout(found, expected), same, "{found:?} {expected:?}");
        };
        check(&[8, 4], &[8, 4, 1, 1], true);
        check(&[8, 36], &[8, 4, 3, 3], true);
        check(&[8], &[8, 1, 1], true);
        check(&[8, 4], &[4, 8], false);
        check(&[8, 4], &[8, 5], false);
        check(&[8, 4, 1, 3], &[8, 4, 3, 1], false);
        check(&[1], &[], false);
    }
}
