//! Images that are small as files and large as anything else, and honest photos.

use std::io::{Cursor, Write};

use flate2::Compression;
use flate2::write::ZlibEncoder;
use image::codecs::gif::GifEncoder;
use image::codecs::jpeg::JpegEncoder;
use image::{Frame, GrayImage, ImageFormat, Rgb, RgbImage, RgbaImage};

/// What is sent, and the statuses that it may be answered with.
pub(crate) struct Bomb {
    pub(crate) name: &'static str,
    pub(crate) bytes: Vec<u8>,
    pub(crate) statuses: &'static [u16],
}

/// An image within the limits, however much it unpacks to.
const TAKEN: &[u16] = &[200];
pub(crate) const REFUSED: &[u16] = &[422];

/// Every kind once.
pub(crate) fn bombs() -> Vec<Bomb> {
    let bomb = |name, bytes, statuses| Bomb {
        name,
        bytes,
        statuses,
    };
    vec![
        bomb("grey PNG of 20000×20000", png((20_000, 20_000), 0, &[]), REFUSED),
        bomb("RGB PNG of 6000×4000", png((6000, 4000), 2, &[]), TAKEN),
        bomb("RGBA PNG of 6000×4000", png((6000, 4000), 6, &[]), REFUSED),
        bomb(
            "colour profile of 256 MB",
            png((8, 8), 0, &[profile(256 << 20)]),
            TAKEN,
        ),
        bomb("text of 256 MB", png((8, 8), 0, &[text(256 << 20)]), TAKEN),
        bomb("JPEG of 65535×65535", jpeg_of((65_535, 65_535), false), REFUSED),
        // Too short for its size; what there is of it is decoded.
        bomb(
            "JPEG that says 6000×4000",
            jpeg_of((6000, 4000), false),
            &[200, 422, 504],
        ),
        bomb(
            "progressive JPEG that says 8000×3000",
            jpeg_of((8000, 3000), true),
            REFUSED,
        ),
        bomb("lossless WebP of 2400×2400", webp((2400, 2400)), TAKEN),
        bomb(
            "WebP that is larger inside",
            webp_within((10, 10), (16_383, 16_383)),
            REFUSED,
        ),
        bomb("GIF of 65535×65535", gif_of((65_535, 65_535)), REFUSED),
        bomb("GIF of 2900×2900", gif((2900, 2900)), TAKEN),
        bomb("BMP of 30000×30000", bmp((30_000, 30_000)), REFUSED),
        bomb("BMP of 5000×3700 in runs", bmp((5000, 3700)), TAKEN),
    ]
}

/// A PNG of zeros, with `chunks` before its image.
fn png((width, height): (u32, u32), color: u8, chunks: &[Vec<u8>]) -> Vec<u8> {
    let samples = match color {
        0 => 1,
        2 => 3,
        _ => 4,
    };
    let mut header = [width.to_be_bytes(), height.to_be_bytes()].concat();
    header.extend([8, color, 0, 0, 0]);
    let row = 1 + u64::from(width) * samples;
    let image = zeros(row * u64::from(height));
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    png.extend(chunk(b"IHDR", &header));
    chunks.iter().for_each(|chunk| png.extend(chunk));
    png.extend(chunk(b"IDAT", &image));
    png.extend(chunk(b"IEND", b""));
    png
}

fn profile(bytes: u64) -> Vec<u8> {
    chunk(b"iCCP", &[&b"profile\0\0"[..], &zeros(bytes)].concat())
}

fn text(bytes: u64) -> Vec<u8> {
    chunk(b"zTXt", &[&b"Comment\0\0"[..], &zeros(bytes)].concat())
}

fn chunk(name: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let body = [&name[..], data].concat();
    let mut crc = flate2::Crc::new();
    crc.update(&body);
    let length = (data.len() as u32).to_be_bytes();
    [&length[..], &body, &crc.sum().to_be_bytes()].concat()
}

/// So many zeros, compressed a thousand times.
fn zeros(bytes: u64) -> Vec<u8> {
    let mut packed = ZlibEncoder::new(Vec::new(), Compression::best());
    let part = vec![0; 1 << 20];
    let mut left = bytes as usize;
    while left > 0 {
        let count = left.min(part.len());
        packed.write_all(&part[..count]).unwrap();
        left -= count;
    }
    packed.finish().unwrap()
}

/// A small JPEG whose frame header says another size.
fn jpeg_of((width, height): (u16, u16), progressive: bool) -> Vec<u8> {
    let mut jpeg = Vec::new();
    let small = RgbImage::from_pixel(64, 64, Rgb([90, 120, 30]));
    JpegEncoder::new(&mut jpeg).encode_image(&small).unwrap();
    let at = jpeg.windows(2).position(|two| two == [0xff, 0xc0]).unwrap();
    if progressive {
        jpeg[at + 1] = 0xc2;
    }
    jpeg[at + 5..at + 7].copy_from_slice(&height.to_be_bytes());
    jpeg[at + 7..at + 9].copy_from_slice(&width.to_be_bytes());
    jpeg
}

fn webp((width, height): (u32, u32)) -> Vec<u8> {
    let mut webp = Cursor::new(Vec::new());
    RgbImage::new(width, height)
        .write_to(&mut webp, ImageFormat::WebP)
        .unwrap();
    webp.into_inner()
}

/// An extended WebP whose stream says another size than the file.
fn webp_within((outer, _): (u8, u8), (width, height): (u16, u16)) -> Vec<u8> {
    let mut stream = vec![0x10, 0, 0, 0x9d, 0x01, 0x2a];
    stream.extend(width.to_le_bytes());
    stream.extend(height.to_le_bytes());
    stream.extend([0; 64]);
    let chunk = |name: &[u8; 4], data: &[u8]| [name, &(data.len() as u32).to_le_bytes()[..], data].concat();
    let extended = chunk(b"VP8X", &[0, 0, 0, 0, outer - 1, 0, 0, outer - 1, 0, 0]);
    let chunks = [extended, chunk(b"VP8 ", &stream)].concat();
    chunk(b"RIFF", &[&b"WEBP"[..], &chunks].concat())
}

fn gif_of((width, height): (u16, u16)) -> Vec<u8> {
    let mut gif = gif((16, 16));
    gif[6..8].copy_from_slice(&width.to_le_bytes());
    gif[8..10].copy_from_slice(&height.to_le_bytes());
    gif
}

fn gif((width, height): (u32, u32)) -> Vec<u8> {
    let mut gif = Vec::new();
    let frame = Frame::new(RgbaImage::from_pixel(width, height, image::Rgba([9, 9, 9, 255])));
    GifEncoder::new_with_speed(&mut gif, 30)
        .encode_frame(frame)
        .unwrap();
    gif
}

/// 8 bits per pixel in runs of up to 255 (BI_RLE8), all of one colour.
fn bmp((width, height): (u32, u32)) -> Vec<u8> {
    let mut runs = Vec::new();
    // Where the size is refused, its runs do not matter.
    for _ in 0..if width > 8192 { 1 } else { height } {
        let mut left = width;
        while left > 0 {
            let run = left.min(255);
            runs.extend([run as u8, 1]);
            left -= run;
        }
        runs.extend([0, 0]);
    }
    runs.extend([0, 1]);
    let palette = [0, 0, 0, 0, 200, 200, 200, 0];
    let begin = 14 + 40 + palette.len();
    let mut bmp = b"BM".to_vec();
    bmp.extend((begin as u32 + runs.len() as u32).to_le_bytes());
    bmp.extend([0; 4]);
    bmp.extend((begin as u32).to_le_bytes());
    for number in [40, width, height] {
        bmp.extend(number.to_le_bytes());
    }
    bmp.extend([1, 0, 8, 0]);
    for number in [1, runs.len() as u32, 0, 0, 2, 0] {
        bmp.extend(u32::to_le_bytes(number));
    }
    bmp.extend(palette);
    bmp.extend(runs);
    bmp
}

/// 24 megapixels with shapes and a little noise, as a camera's are.
pub(crate) fn photo() -> RgbImage {
    let mut seed = 1u32;
    let mut noise = move || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 29) as u8
    };
    RgbImage::from_fn(6048, 4024, |x, y| {
        let far = ((x as i32 - 3000).pow(2) + (y as i32 - 2000).pow(2)) as u32 >> 15;
        let light = if far % 97 < 40 { 60 } else { 0 };
        Rgb([
            (x >> 5) as u8 / 2 + light + noise(),
            (y >> 5) as u8 / 2 + light + noise(),
            (far % 150) as u8 + noise(),
        ])
    })
}

/// The photo in the two formats that cameras and their programs write.
pub(crate) fn photos() -> [(&'static str, Vec<u8>); 2] {
    let photo = photo();
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, 92)
        .encode_image(&photo)
        .unwrap();
    let mut png = Cursor::new(Vec::new());
    photo.write_to(&mut png, ImageFormat::Png).unwrap();
    [("JPEG", turned(&jpeg)), ("PNG", png.into_inner())]
}

/// The JPEG with an EXIF block that says it lies on its side.
fn turned(jpeg: &[u8]) -> Vec<u8> {
    let exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    let length = (exif.len() as u16 + 2).to_be_bytes();
    [&jpeg[..2], b"\xff\xe1", &length, exif, &jpeg[2..]].concat()
}

/// A small image, as most are.
pub(crate) fn thumbnail() -> Vec<u8> {
    let mut png = Cursor::new(Vec::new());
    GrayImage::new(28, 28)
        .write_to(&mut png, ImageFormat::Png)
        .unwrap();
    png.into_inner()
}
