//! Tests of networks spelled out in `model.toml`.

use proptest::prelude::*;

use super::*;
use crate::model::{Spec, arch};

const SEED_CNN: &str = r#"
    { type = "conv2d", name = "conv1", out = 32, kernel = 3 },
    { type = "relu", name = "relu1" },
    { type = "max_pool", name = "pool1", kernel = 2 },
    { type = "flatten", name = "flatten" },
    { type = "linear", name = "fc1", out = 64 },
    { type = "relu", name = "relu2" },
    { type = "dropout", name = "dropout" },
    { type = "linear", name = "fc2", out = "classes" },
"#;

/// A convolution, a block with two branches, a gate, and a head.
const BRANCHES: &str = r#"
    { type = "conv2d", name = "stem", out = 8, kernel = [3, 5], stride = [1, 2], padding = [1, 2], bias = false },
    { type = "batch_norm", name = "norm" },
    { type = "hard_swish" },
    { type = "conv2d", name = "left", out = 8, kernel = 3, padding = 2, dilation = 2, groups = 8 },
    { type = "pad", name = "wider", from = "hard_swish3", border = [1, 1, 1, 1] },
    { type = "avg_pool", name = "right", kernel = 3, stride = 1 },
    { type = "add", name = "sum", inputs = ["left", "right"] },
    { type = "global_avg_pool" },
    { type = "sigmoid", name = "gate" },
    { type = "mul", name = "gated", inputs = ["sum", "gate"] },
    { type = "concat", name = "both", inputs = ["gated", "norm"] },
    { type = "global_avg_pool" },
    { type = "flatten" },
    { type = "linear", name = "fc", out = "classes" },
"#;

fn spec(layers: &str) -> Result<Spec, String> {
    let text = format!(
        "labels = ['a', 'b', 'c']\ninput = {{ channels = 1, height = 12, width = 16 }}\nlayers = [{layers}]\n"
    );
    Spec::parse(&text).map_err(|e| e.to_string())
}

fn graph(layers: &str) -> Result<Graph, String> {
    let spec = spec(layers)?;
    spec.graph().map_err(|e| e.to_string())
}

#[test]
fn a_named_architecture_can_be_spelled_out() {
    let spec = spec(SEED_CNN).unwrap();
    let named = arch::build("seed-cnn", spec.input, 3).unwrap();
    assert_eq!(spec.graph().unwrap(), named);
    assert_eq!(spec.architecture, "layers");
}

#[test]
fn branches_meet_again() {
    let graph = graph(BRANCHES).unwrap();
    let shape = |name: &str| {
        let node = graph.nodes.iter().find(|node| node.name == name);
        node.unwrap().shape.to_string()
    };
    let shapes = ["stem", "left", "wider", "right", "sum", "gated", "both", "fc"].map(shape);
    let expected = [
        "8×12×8",
        "8×12×8",
        "8×14×10",
        "8×12×8",
        "8×12×8",
        "8×12×8",
        "16×12×8",
        "3",
    ];
    assert_eq!(shapes, expected);
    let names: Vec<&str> = graph.params.iter().map(|param| &*param.name).collect();
    assert_eq!(names[..3], ["stem.weight", "norm.weight", "norm.bias"]);
}

#[test]
fn layers_written_and_read_are_the_same() {
    let spec = spec(BRANCHES).unwrap();
    let text = toml::to_string(&spec).unwrap();
    assert_eq!(Spec::parse(&text).unwrap(), spec, "{text}");
    assert_eq!(
        serde_json::to_value(&spec).unwrap()["layers"][2]["type"],
        "hard_swish"
    );
}

#[test]
fn what_is_wrong_names_its_layer() {
    let check = |(from, to): (&str, &str), expected: &str| {
        let text = BRANCHES.replace(from, to);
        assert_ne!(text, BRANCHES, "{from} stands nowhere");
        let error = graph(&text).unwrap_err();
        assert!(error.contains(expected), "{to} gave: {error}");
    };
    // Keys.
    check(
        ("kernel = [3, 5]", "kernal = 3"),
        "layer 'stem': needs kernel, a number or",
    );
    check(
        ("dilation = 2", "dilation = 2, kernal = 3"),
        "layer 'left': a conv2d has no key 'kernal' (did you mean 'kernel'?); it has name, type, out,",
    );
    check(
        ("\"batch_norm\"", "\"batchnorm\""),
        "layer 'norm': no type 'batchnorm' (did you mean 'batch_norm'?)",
    );
    check(
        ("type = \"pad\", ", ""),
        "layer 'wider': needs a type, one of conv2d",
    );
    check(
        (", name = \"norm\"", ""),
        "layer 'batch_norm': needs a name, which its weights",
    );
    check(
        ("name = \"norm\"", "name = \"a b\""),
        "name: \"a b\"; 1 to 64 letters",
    );
    check(("name = \"norm\"", "name = \"input\""), "take another name");
    check(
        ("dilation = 2", "dilation = 0"),
        "dilation: 0; a whole number of 1 to 4096",
    );
    check(
        ("dilation = 2", "dilation = [1, 2, 3]"),
        "dilation: a number or [rows",
    );
    check(
        ("dilation = 2", "dilation = 2.5"),
        "dilation: 2.5; a whole number",
    );
    check(
        ("bias = false", "bias = 0"),
        "layer 'stem': bias: 0; true or false",
    );
    check(
        ("[1, 1, 1, 1]", "[1, 1]"),
        "layer 'wider': needs border, [top, bottom",
    );
    check(
        ("[\"sum\", \"gate\"]", "[\"sum\"]"),
        "layer 'gated': needs inputs, the names of two",
    );
    check(
        ("name = \"right\"", "name = \"right\", inputs = [\"norm\"]"),
        "has no key 'inputs'",
    );
    check(
        ("\"hard_swish\" }", "\"dropout\", p = 1.0 }"),
        "layer 'dropout': p: 1.0; 0 up to",
    );
    // Connections.
    check(
        ("[\"sum\", \"gate\"]", "[\"sum\", \"gat\"]"),
        "layer 'gated': takes 'gat', which is no layer (did you mean 'gate'?)",
    );
    check(
        ("[\"left\", \"right\"]", "[\"left\", \"gated\"]"),
        "layer 'sum': takes 'gated', which does not stand before it",
    );
    check(
        ("from = \"hard_swish3\"", "from = \"wider\""),
        "takes 'wider', which does not",
    );
    check(
        ("name = \"right\"", "name = \"left\""),
        "layer 'left' is named twice",
    );
    check(
        ("[\"gated\", \"norm\"]", "[\"sum\", \"norm\"]"),
        "layer 'gated': no later layer takes",
    );
    // Shapes.
    check(
        ("padding = 2, ", ""),
        "layer 'sum': 8×8×4 and 8×12×8 cannot be added",
    );
    check(
        ("groups = 8", "groups = 3"),
        "layer 'left': 8 to 8 channels do not divide into 3",
    );
    check(
        ("    { type = \"flatten\" },\n", ""),
        "layer 'fc': needs flat features, got 16×1×1",
    );
    check(
        ("out = \"classes\"", "out = 4"),
        "layer 'fc': gives 4 numbers for 3 labels",
    );
    check(
        ("{ type = \"linear\", name = \"fc\", out = \"classes\" },", ""),
        "gives 16 numbers for 3",
    );
}

#[test]
fn sizes_are_bounded_before_anything_is_made() {
    let check = |layers: &str, expected: &str| {
        let error = graph(layers).unwrap_err();
        assert!(error.contains(expected), "{error}");
    };
    let flat = "{ type = 'flatten' },";
    let linear = |name: &str, out: &str| format!("{{ type = 'linear', name = '{name}', out = {out} }},");
    let most = "1048576";
    check(
        &format!("{flat} {}", linear("fc", "9223372036854775807")),
        "layer 'fc': out: 9223372036854775807; a whole number of 1 to 1048576",
    );
    let wide = [linear("a", most), linear("b", most), linear("fc", "'classes'")].concat();
    check(
        &format!("{flat} {wide}"),
        "layer 'b': with its weights [1048576, 1048576] the network has over",
    );
    let conv = "{ type = 'conv2d', name = 'c', out = 1048576, kernel = 4096, padding = 4096 },";
    check(
        conv,
        "layer 'c': gives 1048576×4109×4113 numbers for each image; at most 268435456",
    );
    let doubled: String = (0..60)
        .map(|i| {
            let before = if i == 0 {
                "input".to_owned()
            } else {
                format!("d{}", i - 1)
            };
            format!("{{ type = 'concat', name = 'd{i}', inputs = ['{before}', '{before}'] }},")
        })
        .collect();
    check(&doubled, "layer 'd20': gives 2097152×12×16 numbers");
    check(
        &"{ type = 'relu' },".repeat(1001),
        "1001 layers; at most 1000 are possible",
    );
    check(&"{ type = 'relu' },".repeat(1000), "the last layer gives 1×12×16");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn no_numbers_panic(numbers in prop::collection::vec(prop_oneof![0i64..6, any::<i64>(), 4090i64..4100], 9)) {
        let [out, kernel, stride, padding, dilation, groups, pool, border, wide] = numbers[..] else { unreachable!() };
        let layers = format!(
            "{{ type = 'conv2d', name = 'c', out = {out}, kernel = {kernel}, stride = {stride}, padding = {padding}, \
             dilation = {dilation}, groups = {groups} }}, {{ type = 'pad', border = [{border}, 0, {border}, 1] }}, \
             {{ type = 'max_pool', kernel = {pool} }}, {{ type = 'flatten' }}, \
             {{ type = 'linear', name = 'a', out = {wide} }}, {{ type = 'linear', name = 'fc', out = 'classes' }}"
        );
        if let Ok(graph) = graph(&layers) {
            prop_assert!(graph.parameters() <= MAX_PARAMETERS);
        }
    }
}
