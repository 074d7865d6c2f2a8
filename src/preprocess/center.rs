//! Brings a light object on dark ground to the middle, as the MNIST images were made.

use crate::model::spec::Filter;

use super::resize::Opaque;

/// Share of the shorter side that the object's longer side takes: 20 of 28 pixels in MNIST.
const OBJECT_SHARE: f64 = 20.0 / 28.0;
/// Least difference between ground and object, in levels; below it there is no object.
const MIN_CONTRAST: u8 = 24;
/// Where between ground and object black ends: paper is uneven, strokes are not faint.
const GROUND_SHARE: f64 = 0.35;

/// Cut to the object's box, scaled, placed with its centre of mass in the middle of `width` × `height`; `None` where
/// there is no object. One channel.
pub(super) fn by_mass(image: &Opaque, width: usize, height: usize, filter: Filter) -> Option<Opaque> {
    let ground = border_median(image);
    let most = image.bytes.iter().copied().max()?;
    let contrast = most.checked_sub(ground).filter(|&c| c >= MIN_CONTRAST)?;
    let floor = f64::from(ground) + GROUND_SHARE * f64::from(contrast);
    let stretch = 255.0 / (f64::from(most) - floor);
    let levels: [u8; 256] =
        std::array::from_fn(|v| ((v as f64 - floor) * stretch).round().clamp(0.0, 255.0) as u8);
    let object = cut_to_box(image, &levels)?;
    let scale = OBJECT_SHARE * width.min(height) as f64 / object.width.max(object.height) as f64;
    let side = |length: usize| ((length as f64 * scale).round() as usize).max(1);
    let (wide, high) = (side(object.width), side(object.height));
    let object = object.stretched(wide, high, filter);
    let (x, y) = center_of_mass(&object);
    let mut canvas = Opaque::filled(width, height, 1, 0);
    let place = |middle: usize, center: f64| (middle as f64 / 2.0 - center).round() as isize;
    canvas.paste(&object, place(width, x), place(height, y));
    Some(canvas)
}

/// Median of the outermost pixels.
pub(super) fn border_median(image: &Opaque) -> u8 {
    let (w, h) = (image.width, image.height);
    let level = |x: usize, y: usize| {
        let pixel = &image.bytes[(y * w + x) * image.channels..][..image.channels];
        (pixel.iter().map(|&v| usize::from(v)).sum::<usize>() / image.channels) as u8
    };
    let mut counts = [0usize; 256];
    for x in 0..w {
        counts[usize::from(level(x, 0))] += 1;
        counts[usize::from(level(x, h - 1))] += 1;
    }
    for y in 1..h.saturating_sub(1) {
        counts[usize::from(level(0, y))] += 1;
        counts[usize::from(level(w - 1, y))] += 1;
    }
    let half = counts.iter().sum::<usize>().div_ceil(2);
    let mut seen = 0;
    let median = counts.iter().position(|&count| {
        seen += count;
        seen >= half
    });
    median.unwrap_or(0) as u8
}

/// The smallest part that holds every pixel above 0 after `levels`.
fn cut_to_box(image: &Opaque, levels: &[u8; 256]) -> Option<Opaque> {
    let w = image.width;
    let lit = |index: usize| levels[usize::from(image.bytes[index])] > 0;
    let (mut left, mut right, mut top, mut bottom) = (w, 0, image.height, 0);
    for y in 0..image.height {
        for x in 0..w {
            if lit(y * w + x) {
                (left, right) = (left.min(x), right.max(x + 1));
                (top, bottom) = (top.min(y), bottom.max(y + 1));
            }
        }
    }
    if left >= right {
        return None;
    }
    let rows = (top..bottom).flat_map(|y| &image.bytes[y * w + left..y * w + right]);
    let bytes = rows.map(|&v| levels[usize::from(v)]).collect();
    Some(Opaque {
        width: right - left,
        height: bottom - top,
        channels: 1,
        bytes,
    })
}

/// Of pixel centres, from the upper left corner.
fn center_of_mass(image: &Opaque) -> (f64, f64) {
    let (mut mass, mut x_sum, mut y_sum) = (0.0, 0.0, 0.0);
    for (index, &value) in image.bytes.iter().enumerate() {
        let value = f64::from(value);
        mass += value;
        x_sum += value * ((index % image.width) as f64 + 0.5);
        y_sum += value * ((index / image.width) as f64 + 0.5);
    }
    if mass == 0.0 {
        (image.width as f64 / 2.0, image.height as f64 / 2.0)
    } else {
        (x_sum / mass, y_sum / mass)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_comes_to_the_middle_in_its_size() {
        let mut scan = Opaque::filled(200, 100, 1, 12);
        for y in 10..50 {
            for x in 150..170 {
                scan.bytes[y * 200 + x] = 200;
            }
        }
        let centred = by_mass(&scan, 28, 28, Filter::Bilinear).unwrap();
        let lit: Vec<(usize, usize)> = (0..784)
            .filter(|&i| centred.bytes[i] > 127)
            .map(|i| (i % 28, i / 28))
            .collect();
        let columns = (lit.iter().map(|p| p.0).min(), lit.iter().map(|p| p.0).max());
        let rows = (lit.iter().map(|p| p.1).min(), lit.iter().map(|p| p.1).max());
        assert_eq!((columns, rows), ((Some(9), Some(18)), (Some(4), Some(23))));
    }

    #[test]
    fn a_blank_image_has_no_object() {
        assert_eq!(
            by_mass(&Opaque::filled(40, 40, 1, 30), 28, 28, Filter::Bilinear),
            None
        );
        let mut uneven = Opaque::filled(40, 40, 1, 30);
        uneven
            .bytes
            .iter_mut()
            .enumerate()
            .for_each(|(i, v)| *v += (i % 20) as u8);
        assert_eq!(by_mass(&uneven, 28, 28, Filter::Bilinear), None);
    }

    #[test]
    fn the_border_tells_the_ground() {
        let mut image = Opaque::filled(5, 5, 3, 240);
        image.bytes[..9].fill(10);
        assert_eq!(border_median(&image), 240);
        assert_eq!(border_median(&Opaque::filled(1, 1, 1, 3)), 3);
    }
}
