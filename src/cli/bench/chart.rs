//! A report as a picture.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::super::CliError;
use super::report::{Executor, Point, Report, threads};

const SIZE: (u32, u32) = (960, 420);
const FONT: &str = "sans-serif";
const COLORS: [RGBColor; 6] = [
    RGBColor(0x1f, 0x77, 0xb4),
    RGBColor(0xff, 0x7f, 0x0e),
    RGBColor(0x2c, 0xa0, 0x2c),
    RGBColor(0xd6, 0x27, 0x28),
    RGBColor(0x94, 0x67, 0xbd),
    RGBColor(0x8c, 0x56, 0x4b),
];

/// A line of the picture: an executor at a count of threads.
struct Series<'a> {
    name: String,
    points: Vec<&'a Point>,
}

/// An SVG document: images per second at the left, GFLOP/s beside the peak at the right, by batch.
pub(super) fn svg(report: &Report) -> Result<String, CliError> {
    let mut document = String::new();
    draw(report, &mut document).map_err(|e| CliError::Failed(format!("the chart: {e}")))?;
    Ok(document)
}

fn draw(report: &Report, document: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(document, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let halves = root.titled(&report.heading(), (FONT, 16))?.split_evenly((1, 2));
    let series = series(report);
    chart(&halves[0], "images per second", &series, |point| {
        Some(point.figures.images_per_second)
    })?;
    chart(&halves[1], "% of the peak", &series, |point| {
        point.figures.share_of_peak.map(|share| 100.0 * share)
    })?;
    root.present()?;
    Ok(())
}

fn series(report: &Report) -> Vec<Series<'_>> {
    let mut all: Vec<Series<'_>> = Vec::new();
    for point in &report.points {
        let executor = if point.executor == Executor::Candle {
            "stock candle, "
        } else {
            ""
        };
        let name = format!("{executor}{}", threads(point.threads));
        match all.iter_mut().find(|series| series.name == name) {
            Some(series) => series.points.push(point),
            None => all.push(Series {
                name,
                points: vec![point],
            }),
        }
    }
    all
}

fn chart(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    figure: &str,
    series: &[Series<'_>],
    value: impl Fn(&Point) -> Option<f64>,
) -> Result<(), Box<dyn std::error::Error>> {
    // Batches stand at equal distances, whatever their sizes.
    let batches: Vec<usize> = series.first().map_or_else(Vec::new, |first| {
        first.points.iter().map(|point| point.batch).collect()
    });
    let values = || {
        series
            .iter()
            .flat_map(|s| &s.points)
            .filter_map(|point| value(point))
    };
    // A chart of height 0 cannot be drawn.
    let top = values().fold(0.0, f64::max).max(1e-3) * 1.1;
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(72)
        .build_cartesian_2d(-0.5..batches.len() as f64 - 0.5, 0.0..top)?;
    chart
        .configure_mesh()
        .x_desc("batch")
        .y_desc(figure)
        .x_labels(2 * batches.len() + 1)
        .x_label_formatter(&|x| label(&batches, *x))
        .y_label_formatter(&|y| format!("{y:.0}"))
        .light_line_style(WHITE)
        .draw()?;
    for (line, &color) in series.iter().zip(COLORS.iter().cycle()) {
        let points = (0u32..).zip(&line.points);
        let points = points.filter_map(|(x, point)| Some((f64::from(x), value(point)?)));
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(2)).point_size(3))?
            .label(&line.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::MiddleRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}

/// The batch at a whole place of the axis; nothing between places.
fn label(batches: &[usize], x: f64) -> String {
    let place = x.round();
    let near = (x - place).abs() < 1e-6 && place >= 0.0;
    let batch = near.then(|| batches.get(place as usize)).flatten();
    batch.map_or_else(String::new, usize::to_string)
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::report;
    use super::*;

    #[test]
    fn each_series_has_its_points_in_both_halves() {
        let mut report = report();
        let svg = |report: &Report| svg(report).unwrap();
        let drawn = svg(&report);
        assert_eq!(drawn.matches("<circle").count(), 4);
        for text in [
            "images per second",
            "% of the peak",
            "stock candle, 1 thread",
            "batch",
            "seed-cnn",
        ] {
            assert!(drawn.contains(text), "{text}");
        }
        assert!(!drawn.contains("NaN"));
        report.peaks.clear();
        assert_eq!(svg(&report.with_figures()).matches("<circle").count(), 2);
    }

    #[test]
    fn only_places_of_batches_have_labels() {
        let check = |x, expected| assert_eq!(label(&[1, 8, 32], x), expected, "{x}");
        check(0.0, "1");
        check(2.0, "32");
        check(0.5, "");
        check(-1.0, "");
        check(3.0, "");
    }
}
