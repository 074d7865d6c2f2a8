//! Latency distributions as a picture.

use std::error::Error;

use plotters::coord::Shift;
use plotters::prelude::*;

use super::histogram::Histogram;

const SIZE: (u32, u32) = (960, 480);
const FONT: &str = "sans-serif";
const COLORS: [RGBColor; 4] = [
    RGBColor(0x1f, 0x77, 0xb4),
    RGBColor(0xff, 0x7f, 0x0e),
    RGBColor(0x2c, 0xa0, 0x2c),
    RGBColor(0xd6, 0x27, 0x28),
];
/// Of a line, for each factor of ten on the axis.
const POINTS_PER_DECADE: u32 = 60;

/// A latency distribution with its name.
pub(super) type Line = (String, Histogram);

/// An SVG document: latency in milliseconds over the share of requests that took no longer. The axis is logarithmic in the
/// share that took longer, so that each further nine has the same width. Each line of `title` is one of the picture.
pub(super) fn svg(lines: &[Line], title: &str) -> Result<String, String> {
    let mut document = String::new();
    draw(lines, title, &mut document).map_err(|error| error.to_string())?;
    Ok(document)
}

fn draw(lines: &[Line], title: &str, document: &mut String) -> Result<(), Box<dyn Error>> {
    let root = SVGBackend::with_string(document, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut area = root.margin(8, 0, 0, 0);
    for line in title.lines() {
        area = area.titled(line, (FONT, 15))?;
    }
    chart(&area, lines)?;
    root.present()?;
    Ok(())
}

fn chart(area: &DrawingArea<SVGBackend<'_>, Shift>, lines: &[Line]) -> Result<(), Box<dyn Error>> {
    let all: Vec<Vec<(f64, f64)>> = lines.iter().map(|(_, histogram)| points(histogram)).collect();
    let greatest = |of: fn(&(f64, f64)) -> f64| all.iter().flatten().map(of).fold(0.0, f64::max);
    // A chart of width or height 0 cannot be drawn.
    let (right, top) = (greatest(|p| p.0).max(10.0), (greatest(|p| p.1) * 1.05).max(1e-3));
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(64)
        .build_cartesian_2d((1.0..right).log_scale(), 0.0..top)?;
    chart
        .configure_mesh()
        .x_desc("answers that took no longer")
        .y_desc("milliseconds")
        .x_label_formatter(&|x| percent(*x))
        .light_line_style(WHITE)
        .draw()?;
    for ((points, (name, _)), color) in all.iter().zip(lines).zip(COLORS.iter().cycle()) {
        let style = color.stroke_width(2);
        chart
            .draw_series(LineSeries::new(points.iter().copied(), style))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}

/// (x, milliseconds) from the least to the last of n latencies; x is one over the share above, from 1 to n.
fn points(histogram: &Histogram) -> Vec<(f64, f64)> {
    let last = histogram.count() as f64;
    let steps = (last.max(1.0).log10() * f64::from(POINTS_PER_DECADE)).ceil() as u32;
    let at = |step| {
        10_f64
            .powf(f64::from(step) / f64::from(POINTS_PER_DECADE))
            .min(last)
    };
    let point = |x: f64| Some((x, histogram.quantile(1.0 - 1.0 / x)?.as_secs_f64() * 1e3));
    (0..=steps).map(at).filter_map(point).collect()
}

/// `90%` of 10, `99%` of 100, `99.9%` of 1000.
fn percent(x: f64) -> String {
    let text = format!("{:.6}", 100.0 * (1.0 - 1.0 / x));
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn histogram(count: u64) -> Histogram {
        let mut histogram = Histogram::default();
        (1..=count).for_each(|ms| histogram.add(Duration::from_millis(ms)));
        histogram
    }

    #[test]
    fn lines_go_from_the_least_to_the_last() {
        let check = |count: u64| {
            let points = points(&histogram(count));
            assert_eq!((points[0].0, points[points.len() - 1].0), (1.0, count as f64));
            assert!(points.is_sorted_by(|a, b| a.0 <= b.0 && a.1 <= b.1), "{points:?}");
            assert!((points[0].1 - 1.0).abs() < 0.01);
        };
        check(1);
        check(10);
        check(1234);
        assert!(points(&histogram(0)).is_empty());
    }

    #[test]
    fn shares_are_told_with_the_digits_they_need() {
        for (x, expected) in [
            (1.0, "0%"),
            (10.0, "90%"),
            (100.0, "99%"),
            (1e3, "99.9%"),
            (1e6, "99.9999%"),
        ] {
            assert_eq!(percent(x), expected);
        }
    }

    #[test]
    fn each_distribution_has_its_line() {
        let check = |counts: &[u64]| {
            let line = |&count| (format!("of {count} & more"), histogram(count));
            let lines: Vec<Line> = counts.iter().map(line).collect();
            let svg = svg(&lines, "a <b>\nc").unwrap();
            assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"));
            assert!(svg.contains("a &lt;b&gt;") && !svg.contains("NaN"));
            for count in counts {
                assert!(svg.contains(&format!("of {count} &amp; more")));
            }
            let drawn = COLORS.iter().filter(|color| {
                let RGBColor(r, g, b) = color;
                svg.contains(&format!("stroke=\"#{r:02X}{g:02X}{b:02X}\""))
            });
            assert_eq!(drawn.count(), counts.len());
        };
        check(&[1000]);
        check(&[1]);
        check(&[0]);
        check(&[10, 1000, 30, 500]);
    }
}
