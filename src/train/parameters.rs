//! The trained numbers of a network, kept on the host beside its variables.

use candle_core::backprop::GradStore;
use candle_core::{DType, Result, Tensor, Var, bail};

use crate::model::autograd::Network;

/// Every trained parameter, in the graph's order.
#[derive(Debug)]
pub(super) struct Parameters {
    names: Vec<String>,
    vars: Vec<Var>,
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
        Ok(Self { names, vars, values })
    }

    /// Whether each is a weight rather than a bias or of a batch-norm: penalties and decay are for weights.
    pub(super) fn are_weights(&self) -> impl Iterator<Item = bool> {
        self.vars.iter().map(|var| var.rank() > 1)
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
