//! The reliability diagram: accuracy by confidence, over a histogram.

use super::super::{BINS, Bin, Interval};
use super::{Anchor, Rect, images, svg, text};

/// The square of accuracy against confidence, and the histogram under it.
const SIDE: f64 = 360.0;
const LEFT: f64 = 48.0;
const TOP: f64 = 12.0;
const HISTOGRAM: f64 = 70.0;
const HISTOGRAM_TOP: f64 = TOP + SIDE + 44.0;

pub(in super::super) fn reliability(bins: &[Bin]) -> String {
    let most = bins.iter().map(|bin| bin.n).max().unwrap_or(1);
    let bars: String = bins.iter().map(bar).collect();
    let histogram: String = bins.iter().map(|bin| column(bin, most)).collect();
    let ideal = format!(
        "<path class=\"ideal\" d=\"M{LEFT} {} L{} {TOP}\"/>\n",
        TOP + SIDE,
        LEFT + SIDE
    );
    let content = axes() + &bars + &ideal + &histogram;
    svg(
        LEFT + SIDE + 16.0,
        HISTOGRAM_TOP + HISTOGRAM + 8.0,
        "Reliability diagram",
        &content,
    )
}

fn x(confidence: f64) -> f64 {
    LEFT + SIDE * confidence
}

fn y(accuracy: f64) -> f64 {
    TOP + SIDE * (1.0 - accuracy)
}

fn axes() -> String {
    let ticks = (0..=5).map(|fifth| {
        let value = f64::from(fifth) / 5.0;
        let name = format!("{value:.1}");
        let lines = format!(
            "<path class=\"axis\" d=\"M{LEFT} {0:.1} H{1:.1} M{2:.1} {TOP} V{3:.1}\"/>\n",
            y(value),
            LEFT + SIDE,
            x(value),
            TOP + SIDE
        );
        let beside = text(LEFT - 8.0, y(value) + 4.0, Anchor::End, "class=\"muted\"", &name);
        let below = text(
            x(value),
            TOP + SIDE + 18.0,
            Anchor::Middle,
            "class=\"muted\"",
            &name,
        );
        lines + &beside + &below
    });
    let middle = TOP + SIDE / 2.0;
    let turned = format!("class=\"muted\" transform=\"rotate(-90 12 {middle})\"");
    let titles = text(12.0, middle, Anchor::Middle, &turned, "accuracy")
        + &text(
            x(0.5),
            TOP + SIDE + 36.0,
            Anchor::Middle,
            "class=\"muted\"",
            "confidence",
        );
    let ground = format!(
        "<path class=\"axis\" d=\"M{LEFT} {0:.1} h{SIDE}\"/>\n",
        HISTOGRAM_TOP + HISTOGRAM
    );
    ticks.collect::<String>() + &titles + &ground
}

fn bar(bin: &Bin) -> String {
    let (left, width) = (x(bin.low) + 1.0, SIDE / BINS as f64 - 2.0);
    let tip = format!(
        "confidence {:.3}, accuracy {:.3}, {}",
        bin.confidence,
        bin.accuracy,
        images(bin.n)
    );
    let from = |low: f64, high: f64| Rect {
        x: left,
        y: y(high),
        width,
        height: SIDE * (high - low),
    };
    let (low, high) = (bin.accuracy.min(bin.confidence), bin.accuracy.max(bin.confidence));
    let below = from(0.0, low).draw("class=\"right\"", &tip);
    let attributes = if bin.confidence > bin.accuracy {
        "class=\"wrong\" fill-opacity=\"0.8\""
    } else {
        "class=\"right\" fill-opacity=\"0.4\""
    };
    let gap = from(low, high).draw(attributes, &tip);
    let interval = Interval::wilson(bin.hits, bin.n);
    let whisker = format!(
        "<path class=\"whisker\" d=\"M{0:.1} {1:.1} V{2:.1}\"/>\n",
        left + width / 2.0,
        y(interval.high),
        y(interval.low)
    );
    below + &gap + &whisker
}

fn column(bin: &Bin, most: usize) -> String {
    // A bin that holds anything is seen.
    let height = (HISTOGRAM * bin.n as f64 / most as f64).max(1.0);
    let rect = Rect {
        x: x(bin.low) + 1.0,
        y: HISTOGRAM_TOP + HISTOGRAM - height,
        width: SIDE / BINS as f64 - 2.0,
        height,
    };
    let tip = format!("{:.3} to {:.3}: {}", bin.low, bin.high, images(bin.n));
    rect.draw("class=\"muted\" fill-opacity=\"0.6\"", &tip)
}
