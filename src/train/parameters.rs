//! The trained numbers of a network, kept on the host beside its variables.

use candle_core::backprop::GradStore;
use candle_core::{DType, Result, Tensor, Var, bail};

use crate::model::autograd::Network;
use crate::model::graph::ParamKind;

/// Every trained parameter, in the graph's order.
#[derive(Debug)]
pub(super) struct Parameters {
    names: Vec<String>,
    vars: Vec<Var>,
    weights: Vec<bool>,
    /// What the variables hold, flat.
    pub(super) values: Vec<Vec<f32>>,
}

impl Parameters {
    /// Reads the network's variables as they are now.
    pub(super) fn of(network: &Network) -> Result<Self> {
        let trained = network.trained();
        let values = trained.iter().map(|(_, var)| flat(var)).collect::<Result<_>>()?;
        let (names, vars) = trained
            .into_iter()
            .map(|(name, var)| (name.to_owned(), var.clone()))
            .unzip();
        let params = network.graph().params.iter().filter(|param| param.is_trained());
        let weights = params.map(|param| matches!(param.kind, ParamKind::Weight { .. }));
        Ok(Self {
            names,
            vars,
            weights: weights.collect(),
            values,
        })
    }

    /// Whether each is a weight rather than a bias, of a norm or a scale: penalties and decay are for weights.
    pub(super) fn are_weights(&self) -> impl Iterator<Item = bool> {
        self.weights.iter().copied()
    }

    /// (length, is a weight) of each.
    pub(super) fn sizes(&self) -> Vec<(usize, bool)> {
        self.values.iter().map(Vec::len).zip(self.are_weights()).collect()
    }

    /// The gradient of each, flat.
    pub(super) fn gradients(&self, store: &GradStore) -> Result<Vec<Vec<f32>>> {
        let gradient = |(var, name): (&Var, &String)| match store.get(var) {
            Some(gradient) => flat(gradient),
            None => bail!("the loss does not depend on '{name}'"),
        };
        self.vars.iter().zip(&self.names).map(gradient).collect()
    }

    /// Writes the values over the variables.
    pub(super) fn write_back(&self) -> Result<()> {
        for (var, values) in self.vars.iter().zip(&self.values) {
            let values = Tensor::from_slice(values, var.dims(), var.device())?;
            var.set(&values.to_dtype(var.dtype())?)?;
        }
        Ok(())
    }
}

fn flat(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.flatten_all()?.to_dtype(DType::F32)?.to_vec1()
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::model::builder::{ConvOptions, GraphBuilder};
    use crate::model::{Input, Weights};

    #[test]
    fn only_convolutions_and_dense_layers_have_weights() {
        let input = Input {
            channels: 1,
            height: 2,
            width: 2,
        };
        let mut g = GraphBuilder::new(input);
        let x = g.input();
        let x = g.conv2d("conv", x, (2, [1, 1]), ConvOptions::default()).unwrap();
        let x = g.batch_norm("bn", x).unwrap();
        let x = g.layer_norm("ln", x, 1e-6).unwrap();
        let x = g.layer_scale("block", x).unwrap();
        let x = g.flatten("flatten", x).unwrap();
        g.linear("fc", x, 2, false).unwrap();
        let graph = g.finish().unwrap();
        let weights = Weights::initialise(&graph, 1).unwrap();
        let network = Network::new(graph, &weights, &Device::Cpu).unwrap();
        let parameters = Parameters::of(&network).unwrap();
        let named = parameters.names.iter().zip(parameters.are_weights());
        let weights: Vec<&String> = named.filter(|(_, is)| *is).map(|(name, _)| name).collect();
        assert_eq!(weights, ["conv.weight", "fc.weight"]);
    }
}
