//! The state of a run after an epoch, in one file that is replaced whole.
//!
//! A safetensors file: `weights.*`, `first.*` and `second.*` (the optimiser's memory), `best.*` (the weights that early
//! stopping would keep), and one metadata entry of JSON with all the rest. Nothing random needs to be kept: every epoch
//! draws from generators of its own.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use candle_core::{Device, Tensor};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use crate::model::graph::Param;
use crate::model::weights::MAX_FILE_BYTES;
use crate::model::{Graph, Weights};
use crate::registry::atomic;

use super::identity::Identity;
use super::{History, TrainError};

/// What a run needs to go on as if it had never stopped.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// The run it belongs to.
    pub identity: Identity,
    /// Its epochs so far.
    pub history: History,
    /// Weights after the last of them.
    pub weights: Weights,
    /// The best epoch (from 1) and its weights, where early stopping watches.
    pub best: Option<(usize, Weights)>,
    /// The optimiser's steps.
    pub steps: u32,
    /// The optimiser's memory, in the order of the trained parameters; the second may be empty.
    pub memory: Vec<(Vec<f32>, Vec<f32>)>,
}

/// The metadata entry.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rest {
    format: u32,
    identity: Identity,
    history: History,
    best_epoch: Option<usize>,
    steps: u32,
}

const FORMAT: u32 = 1;
const ENTRY: &str = "sconce.checkpoint";

/// Shape and little-endian f32 by name.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<u8>)>;

impl Checkpoint {
    /// Replaces the file atomically.
    pub fn write(&self, path: &Path, graph: &Graph) -> Result<(), TrainError> {
        let bytes = self.to_bytes(graph).map_err(|e| broken(path, e))?;
        atomic::write(path, &bytes).map_err(|source| TrainError::Io {
            path: path.to_owned(),
            source,
        })
    }

    /// The checkpoint of a run over `graph`; `None` where there is no file.
    pub fn read(path: &Path, graph: &Graph) -> Result<Option<Self>, TrainError> {
        let io = |source| TrainError::Io {
            path: path.to_owned(),
            source,
        };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io(error)),
        };
        let mut bytes = Vec::new();
        file.take(MAX_FILE_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(io)?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(broken(path, format!("is larger than {MAX_FILE_BYTES} bytes")));
        }
        Self::from_bytes(&bytes, graph)
            .map(Some)
            .map_err(|problem| broken(path, problem))
    }

    fn to_bytes(&self, graph: &Graph) -> Result<Vec<u8>, String> {
        let mut tensors = Tensors::new();
        put_weights(&mut tensors, "weights", &self.weights)?;
        if let Some((_, best)) = &self.best {
            put_weights(&mut tensors, "best", best)?;
        }
        let trained = graph.params.iter().filter(|param| param.is_trained());
        for (param, (first, second)) in trained.zip(&self.memory) {
            for (prefix, values) in [("first", first), ("second", second)] {
                tensors.insert(
                    format!("{prefix}.{}", param.name),
                    (vec![values.len()], bytes_of(values)),
                );
            }
        }
        let rest = Rest {
            format: FORMAT,
            identity: self.identity.clone(),
            history: self.history.clone(),
            best_epoch: self.best.as_ref().map(|(epoch, _)| *epoch),
            steps: self.steps,
        };
        let rest = serde_json::to_string(&rest).map_err(text)?;
        let mut views = BTreeMap::new();
        for (name, (shape, bytes)) in &tensors {
            views.insert(
                name,
                TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(text)?,
            );
        }
        safetensors::serialize(views, Some([(ENTRY.to_owned(), rest)].into())).map_err(text)
    }

    fn from_bytes(bytes: &[u8], graph: &Graph) -> Result<Self, String> {
        let file = SafeTensors::deserialize(bytes).map_err(text)?;
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(text)?;
        let entry = header.metadata().as_ref().and_then(|entries| entries.get(ENTRY));
        let rest: Rest = serde_json::from_str(entry.ok_or("is no checkpoint")?).map_err(text)?;
        if rest.format != FORMAT {
            return Err(format!("has format {}; {FORMAT} is read", rest.format));
        }
        let best = match rest.best_epoch {
            Some(epoch) => Some((epoch, weights(&file, "best", graph)?)),
            None => None,
        };
        let trained = graph.params.iter().filter(|param| param.is_trained());
        let memory = trained.map(|param| {
            let slot = |prefix| numbers(&file, &format!("{prefix}.{}", param.name));
            Ok((slot("first")?, slot("second")?))
        });
        Ok(Self {
            weights: weights(&file, "weights", graph)?,
            best,
            memory: memory.collect::<Result<_, String>>()?,
            identity: rest.identity,
            history: rest.history,
            steps: rest.steps,
        })
    }
}

fn put_weights(tensors: &mut Tensors, prefix: &str, weights: &Weights) -> Result<(), String> {
    for (name, tensor) in weights.iter() {
        let values = tensor
            .flatten_all()
            .and_then(|t| t.to_vec1::<f32>())
            .map_err(text)?;
        tensors.insert(
            format!("{prefix}.{name}"),
            (tensor.dims().to_vec(), bytes_of(&values)),
        );
    }
    Ok(())
}

fn weights(file: &SafeTensors<'_>, prefix: &str, graph: &Graph) -> Result<Weights, String> {
    let tensor = |param: &Param| {
        let name = format!("{prefix}.{}", param.name);
        let shape = file.tensor(&name).map_err(text)?.shape().to_vec();
        let tensor = Tensor::from_vec(numbers(file, &name)?, shape, &Device::Cpu).map_err(text)?;
        Ok((param.name.clone(), tensor))
    };
    let tensors = graph.params.iter().map(tensor).collect::<Result<_, String>>()?;
    Weights::from_tensors(tensors, graph).map_err(text)
}

fn numbers(file: &SafeTensors<'_>, name: &str) -> Result<Vec<f32>, String> {
    let view = file.tensor(name).map_err(text)?;
    if view.dtype() != Dtype::F32 {
        return Err(format!("'{name}' is {:?}, not F32", view.dtype()));
    }
    let chunks = view.data().as_chunks::<4>().0;
    Ok(chunks.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[expect(clippy::needless_pass_by_value, reason = "map_err hands the error over")]
fn text(error: impl ToString) -> String {
    error.to_string()
}

fn broken(path: &Path, problem: String) -> TrainError {
    TrainError::Checkpoint {
        path: path.to_owned(),
        problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::spec::Augment;
    use crate::model::{Input, arch};
    use crate::train::{EpochRecord, Recipe, Score};

    fn graph() -> Graph {
        let input = Input {
            channels: 1,
            height: 8,
            width: 8,
        };
        arch::build("small-cnn", input, 2).unwrap()
    }

    fn checkpoint(graph: &Graph) -> Checkpoint {
        let config = Recipe::Fast.config(Augment::default(), 3);
        let trained = graph.params.iter().filter(|param| param.is_trained());
        let memory = trained.map(|param| {
            let length = param.shape.iter().product();
            // Numbers that a text or a flush to zero would lose.
            (vec![f32::MIN_POSITIVE / 4.0; length], vec![1.0 / 3.0; length])
        });
        let record = EpochRecord {
            epoch: 1,
            train: Score {
                loss: 0.1,
                accuracy: 1.0 / 3.0,
            },
            valid: None,
            learning_rate: 1e-7,
            seconds: 2.5,
        };
        Checkpoint {
            identity: Identity::new(&config, "images".to_owned(), "initial".to_owned()),
            history: History { epochs: vec![record] },
            weights: Weights::initialise(graph, 1).unwrap(),
            best: Some((1, Weights::initialise(graph, 2).unwrap())),
            steps: 17,
            memory: memory.collect(),
        }
    }

    fn bytes(weights: &Weights) -> Vec<u8> {
        weights.to_safetensors(&BTreeMap::new()).unwrap()
    }

    #[test]
    fn a_checkpoint_comes_back_bit_for_bit() {
        let (folder, graph) = (tempfile::tempdir().unwrap(), graph());
        let path = folder.path().join("checkpoint");
        let written = checkpoint(&graph);
        written.write(&path, &graph).unwrap();
        let read = Checkpoint::read(&path, &graph).unwrap().unwrap();
        assert_eq!(read.identity, written.identity);
        assert_eq!(read.history, written.history);
        assert_eq!(bytes(&read.weights), bytes(&written.weights));
        let best = |checkpoint: &Checkpoint| checkpoint.best.as_ref().map(|(epoch, w)| (*epoch, bytes(w)));
        assert_eq!(best(&read), best(&written));
        assert_eq!((read.steps, read.memory), (written.steps, written.memory));
    }

    #[test]
    fn what_is_no_checkpoint_of_this_network_is_refused() {
        let (folder, graph) = (tempfile::tempdir().unwrap(), graph());
        let path = folder.path().join("checkpoint");
        assert!(Checkpoint::read(&path, &graph).unwrap().is_none());

        let check = |content: &[u8], graph: &Graph, expected: &str| {
            atomic::write(&path, content).unwrap();
            let error = Checkpoint::read(&path, graph).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        let whole = checkpoint(&graph).to_bytes(&graph).unwrap();
        check(&whole[..whole.len() / 2], &graph, "checkpoint");
        check(b"", &graph, "checkpoint");
        check(
            &bytes(&Weights::initialise(&graph, 1).unwrap()),
            &graph,
            "is no checkpoint",
        );
        let other = arch::build("seed-cnn", graph.input, 2).unwrap();
        check(&whole, &other, "conv1.bias");
    }
}
