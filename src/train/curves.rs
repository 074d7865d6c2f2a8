//! Learning curves as a picture.

use std::ops::Range;

use plotters::coord::Shift;
use plotters::prelude::*;

use super::TrainError;
use super::history::{History, Score};

const SIZE: (u32, u32) = (960, 400);
const TRAIN: RGBColor = RGBColor(0x1f, 0x77, 0xb4);
const VALID: RGBColor = RGBColor(0xff, 0x7f, 0x0e);
const FONT: &str = "sans-serif";

/// Points (epoch, figure) of one line.
type Line = Vec<(f64, f64)>;

/// An SVG document: loss at the left, accuracy at the right, over the epochs, for training and validation.
pub fn svg(history: &History, title: &str) -> Result<String, TrainError> {
    let mut document = String::new();
    draw(history, title, &mut document).map_err(|error| TrainError::Curves(error.to_string()))?;
    Ok(document)
}

fn draw(history: &History, title: &str, document: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(document, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let halves = root.titled(title, (FONT, 20))?.split_evenly((1, 2));
    let losses = lines(history, |score| score.loss);
    let top = losses.iter().flatten().map(|point| point.1).fold(0.0, f64::max);
    // A chart of height 0 cannot be drawn.
    let range = 0.0..(top * 1.05).max(1e-3);
    chart(
        &halves[0],
        "loss (nats)",
        range,
        &losses,
        SeriesLabelPosition::UpperRight,
    )?;
    let accuracies = lines(history, |score| score.accuracy);
    let bottom = accuracies
        .iter()
        .flatten()
        .map(|point| point.1)
        .fold(1.0, f64::min);
    let range = (bottom - 0.02).clamp(0.0, 0.98)..1.0;
    chart(
        &halves[1],
        "accuracy",
        range,
        &accuracies,
        SeriesLabelPosition::LowerRight,
    )?;
    root.present()?;
    Ok(())
}

/// A figure's line for training and for validation; numbers that are not finite are left out.
fn lines(history: &History, figure: impl Fn(&Score) -> f32) -> [Line; 2] {
    let line = |score: fn(&super::EpochRecord) -> Option<Score>| {
        let point = |record| score(record).map(|score| f64::from(figure(&score)));
        let records = history.epochs.iter();
        records
            .filter_map(|record| Some((record.epoch as f64, point(record)?)))
            .filter(|point| point.1.is_finite())
            .collect()
    };
    [line(|record| Some(record.train)), line(|record| record.valid)]
}

fn chart(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    figure: &str,
    range: Range<f64>,
    lines: &[Line; 2],
    legend: SeriesLabelPosition,
) -> Result<(), Box<dyn std::error::Error>> {
    let last = lines.iter().flatten().map(|point| point.0).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(0.5..last + 0.5, range)?;
    chart
        .configure_mesh()
        .x_desc("epoch")
        .y_desc(figure)
        .x_label_formatter(&|epoch| format!("{epoch:.0}"))
        .x_labels((last as usize).clamp(2, 10))
        .light_line_style(WHITE)
        .draw()?;
    for (line, (name, color)) in lines.iter().zip([("training", TRAIN), ("validation", VALID)]) {
        if line.is_empty() {
            continue;
        }
        chart
            .draw_series(LineSeries::new(line.iter().copied(), color.stroke_width(2)).point_size(3))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(legend)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::EpochRecord;

    fn history(figures: &[(f32, Option<f32>)]) -> History {
        let record = |(epoch, &(train, valid)): (usize, &(f32, Option<f32>))| {
            let score = |loss| Score { loss, accuracy: 0.9 };
            EpochRecord {
                epoch,
                train: score(train),
                valid: valid.map(score),
                learning_rate: 0.1,
                seconds: 1.0,
            }
        };
        History {
            epochs: (1..).zip(figures).map(record).collect(),
        }
    }

    /// How many of each: lines of the chart, points.
    fn check(figures: &[(f32, Option<f32>)], [lines, points]: [usize; 2]) {
        let svg = svg(&history(figures), "digits & more").unwrap();
        assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"));
        for text in ["digits &amp; more", "loss (nats)", "accuracy", "epoch"] {
            assert!(svg.contains(text), "{text}");
        }
        assert_eq!(svg.contains("validation"), lines == 4);
        let count = |what: &str| svg.matches(what).count();
        assert_eq!(count("<circle"), points);
        assert!(!svg.contains("NaN"));
    }

    #[test]
    fn each_series_has_its_points() {
        check(&[(0.5, Some(0.6)), (0.3, Some(0.4)), (0.2, Some(0.35))], [4, 12]);
        check(&[(0.5, None), (0.3, None)], [2, 4]);
        check(&[(0.5, Some(0.5))], [4, 4]);
        check(&[(f32::NAN, Some(0.5))], [4, 3]);
        check(&[(0.0, Some(0.0))], [4, 4]);
        check(&[], [2, 0]);
    }
}
