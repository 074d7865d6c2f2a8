//! How many classes a weights file was trained for.

use std::collections::BTreeSet;

use safetensors::tensor::SafeTensors;

use super::{Spec, Weights};

/// Most sizes that are tried: a network has far fewer different ones.
const MAX_TRIED: usize = 256;

/// The number of classes with which `spec`'s network takes the weights of a safetensors file, whatever the file calls
/// them; `None` where no number makes it fit.
pub fn classes(bytes: &[u8], spec: &Spec) -> Option<usize> {
    let file = SafeTensors::deserialize(bytes).ok()?;
    // The last layer's weights and its biases have one entry per class.
    let sizes: BTreeSet<usize> = file
        .iter()
        .filter_map(|(_, tensor)| tensor.shape().first().copied())
        .filter(|&size| size >= 2)
        .collect();
    let fits = |&size: &usize| {
        let graph = spec.graph_of(size);
        graph.is_ok_and(|graph| Weights::from_safetensors(bytes, &graph).is_ok())
    };
    sizes.into_iter().take(MAX_TRIED).find(fits)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_last_layer_tells_the_classes() {
        let spec = |architecture: &str, side: usize| {
            let text = format!(
                "{architecture}\nlabels = ['a', 'b']\ninput = {{ channels = 1, height = {side}, width = {side} }}"
            );
            Spec::parse(&text).unwrap()
        };
        let check = |spec: &Spec, other: &Spec| {
            let weights = Weights::initialise(&spec.graph_of(7).unwrap(), 1).unwrap();
            let bytes = weights.to_safetensors(&BTreeMap::new()).unwrap();
            assert_eq!(classes(&bytes, spec), Some(7));
            assert_eq!(classes(&bytes, other), None);
        };
        let (seed, small) = ("architecture = 'seed-cnn'", "architecture = 'small-cnn'");
        check(&spec(seed, 12), &spec(seed, 16));
        check(&spec(small, 12), &spec(seed, 12));
        let own = "layers = [{ type = 'flatten' }, { type = 'linear', name = 'fc', out = 'classes' }]";
        check(&spec(own, 4), &spec(own, 5));
        assert_eq!(classes(b"not a file", &spec(seed, 12)), None);
    }
}
