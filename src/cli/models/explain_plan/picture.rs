//! Where the time goes, as a picture: blocks of layers above, their layers below, as wide as they take long.

use std::fmt::Write as _;

use crate::engine::LayerCost;
use crate::evaluate::escape;

const WIDTH: f64 = 1200.0;
const ROW: f64 = 34.0;
const TOP: f64 = 40.0;
/// Width of a character of the labels.
const CHARACTER: f64 = 6.6;

/// A stretch of layers.
struct Bar {
    label: String,
    seconds: f64,
    /// What the pointer sees over it.
    note: String,
    colour: &'static str,
}

/// An SVG document. Blocks are the layers whose names begin with the same two words: `layer1.0`.
pub(super) fn svg(title: &str, layers: &[LayerCost]) -> String {
    let total: f64 = layers.iter().map(|layer| layer.seconds).sum();
    let height = TOP + 3.0 * ROW + 34.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"ui-monospace, monospace\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"8\" y=\"24\" font-size=\"15\">{}</text>\n",
        escape(&format!("{title}: {:.3} ms for one image", total * 1e3))
    );
    let all = Bar {
        label: "plan".to_owned(),
        seconds: total,
        note: format!("{} layers", layers.len()),
        colour: "#d8dee9",
    };
    row(&mut out, 0, &[all], total);
    row(&mut out, 1, &blocks(layers), total);
    let bars: Vec<Bar> = layers.iter().map(bar).collect();
    row(&mut out, 2, &bars, total);
    legend(&mut out, TOP + 3.0 * ROW + 20.0);
    out + "</svg>\n"
}

/// The kinds of kernels with their colours.
const KINDS: [(&str, &str); 5] = [
    ("winograd", "#8fbcbb"),
    ("depthwise", "#ebcb8b"),
    ("dense", "#b48ead"),
    ("conv", "#a3be8c"),
    ("other", "#d08770"),
];

fn bar(layer: &LayerCost) -> Bar {
    let kind = KINDS.iter().find(|(kind, _)| layer.kernel.contains(kind));
    Bar {
        label: layer.name.clone(),
        seconds: layer.seconds,
        note: format!(
            "{}: {}, {}, {:.1} GFLOP/s",
            layer.name,
            layer.kernel,
            layer.output,
            layer.flops_per_second() / 1e9
        ),
        colour: kind.map_or(KINDS[4].1, |(_, colour)| colour),
    }
}

fn blocks(layers: &[LayerCost]) -> Vec<Bar> {
    let block = |name: &str| name.split('.').take(2).collect::<Vec<_>>().join(".");
    let mut bars: Vec<Bar> = Vec::new();
    for layer in layers {
        let label = block(&layer.name);
        match bars.last_mut() {
            Some(last) if last.label == label => last.seconds += layer.seconds,
            _ => bars.push(Bar {
                note: label.clone(),
                label,
                seconds: layer.seconds,
                colour: "#e5e9f0",
            }),
        }
    }
    bars
}

fn row(out: &mut String, index: u8, bars: &[Bar], total: f64) {
    let (mut x, y) = (0.0, TOP + f64::from(index) * ROW);
    for bar in bars {
        let width = WIDTH * bar.seconds / total.max(f64::MIN_POSITIVE);
        let room = ((width - 8.0) / CHARACTER).max(0.0) as usize;
        let label: String = bar.label.chars().take(room).collect();
        let share = 100.0 * bar.seconds / total.max(f64::MIN_POSITIVE);
        // Writing to a String does not fail.
        let _ = writeln!(
            out,
            "<g><title>{}: {:.1} µs, {share:.1} %</title><rect x=\"{x:.2}\" y=\"{y}\" width=\"{width:.2}\" height=\"{}\" \
             fill=\"{}\" stroke=\"#fff\"/><text x=\"{:.2}\" y=\"{:.1}\">{}</text></g>",
            escape(&bar.note),
            bar.seconds * 1e6,
            ROW - 2.0,
            bar.colour,
            x + 4.0,
            y + 20.0,
            escape(&label)
        );
        x += width;
    }
}

fn legend(out: &mut String, y: f64) {
    for ((kind, colour), place) in KINDS.iter().zip(0u8..) {
        let x = 8.0 + 110.0 * f64::from(place);
        let _ = writeln!(
            out,
            "<rect x=\"{x}\" y=\"{}\" width=\"12\" height=\"12\" fill=\"{colour}\"/><text x=\"{}\" y=\"{y}\">{kind}</text>",
            y - 10.0,
            x + 18.0
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_wide_as_layers_take_long() {
        let layer = |name: &str, seconds: f64| LayerCost {
            name: name.to_owned(),
            kernel: "conv 1×1".to_owned(),
            output: "8×4×4".to_owned(),
            flops: 10,
            bytes: 10,
            seconds,
        };
        let layers = [
            layer("layer1.0.conv1", 1e-6),
            layer("layer1.0.conv2", 2e-6),
            layer("a<b", 3e-6),
        ];
        let picture = svg("m & n", &layers);
        let widths: Vec<&str> = picture
            .split("width=\"")
            .skip(3)
            .filter_map(|rest| rest.split('"').next())
            .collect();
        // The plan, its two blocks, its three layers.
        assert_eq!(
            widths[..6],
            ["1200.00", "600.00", "600.00", "200.00", "400.00", "600.00"]
        );
        assert!(picture.contains("m &amp; n") && picture.contains("a&lt;b") && !picture.contains("a<b"));
    }

    #[test]
    fn a_plan_without_time_is_drawn() {
        assert!(svg("nothing", &[]).ends_with("</svg>\n"));
    }
}
