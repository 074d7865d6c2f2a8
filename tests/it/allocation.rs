//! What is allocated: nothing for a batch once the plan is warm, and for an image no more than its header tells.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;
use std::io::Cursor;
use std::path::Path;

use image::{ImageFormat, Rgb, RgbImage};
use sconce::engine::Plan;
use sconce::engine::device::Device;
use sconce::model::{Input, Version, Weights, arch};
use sconce::preprocess::{Limits, decode, header};

use crate::bombs::make::bombs;

/// The system's allocator, which counts what each thread asks for.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    /// Bytes that this thread holds more than it gave back, and the most that they ever were.
    static HELD: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

fn count() {
    // A thread that is ending may have lost its counter.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

fn hold(bytes: isize) {
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        MOST.try_with(|most| most.set(most.get().max(held.get())))
    });
}

#[expect(unsafe_code, reason = "an allocator is unsafe by its trait")]
// SAFETY: everything is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        hold(layout.size() as isize);
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        hold(layout.size() as isize);
        // SAFETY: the caller's.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        hold(size as isize - layout.size() as isize);
        // SAFETY: the caller's.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        hold(-(layout.size() as isize));
        // SAFETY: the caller's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

#[test]
fn a_warm_plan_allocates_nothing() {
    assert_eq!(allocations(|| drop(std::hint::black_box(vec![0u8; 9]))), 1);
    let photo = Input {
        channels: 3,
        height: 64,
        width: 64,
    };
    let digit = Input {
        channels: 1,
        height: 28,
        width: 28,
    };
    for (name, input) in [
        ("seed-cnn", digit),
        ("small-cnn", photo),
        ("resnet18", photo),
        ("mobilenet_v3_small", photo),
        ("densenet121", photo),
        ("convnext_tiny", photo),
    ] {
        let graph = arch::build(name, input, 10).unwrap();
        let weights = Weights::initialise(&graph, 1).unwrap();
        let plan = Plan::compile(Version::FIRST, &graph, &weights, &Device::Cpu).unwrap();
        let images = vec![0.5; 4 * input.len()];
        plan.warm_up(4).unwrap();
        let mut logits = Vec::with_capacity(4 * plan.classes());
        let found = allocations(|| {
            for items in [4, 1, 3, 4] {
                plan.run(&images[..items * input.len()], items, &mut logits)
                    .unwrap();
            }
        });
        assert_eq!(found, 0, "{name}");
    }
}

/// The most bytes that `work` held at once, beside those that were held before.
fn held(work: impl FnOnce()) -> u64 {
    let before = HELD.get();
    MOST.set(before);
    work();
    (MOST.get() - before) as u64
}

#[test]
fn an_image_takes_no_more_memory_than_its_header_tells() {
    let limits = Limits::default();
    let mut images: Vec<(String, Vec<u8>)> = Vec::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/variants");
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        images.push((path.display().to_string(), fs::read(&path).unwrap()));
    }
    let picture = RgbImage::from_fn(1500, 1000, |x, y| {
        Rgb([(x / 7) as u8, (y / 5) as u8, ((x * y) >> 8) as u8])
    });
    for format in [
        ImageFormat::Png,
        ImageFormat::Jpeg,
        ImageFormat::WebP,
        ImageFormat::Bmp,
        ImageFormat::Gif,
    ] {
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, format).unwrap();
        images.push((format!("{format:?} of 1500×1000"), bytes.into_inner()));
    }
    for bomb in bombs() {
        images.push((bomb.name.to_owned(), bomb.bytes));
    }
    let mut taken = 0;
    for (name, bytes) in &images {
        let Ok(told) = header(bytes, &limits) else {
            continue;
        };
        let most = held(|| drop(std::hint::black_box(decode(bytes, &limits))));
        assert!(
            most <= told.memory_bytes,
            "{name}: {most} bytes; its header tells {}",
            told.memory_bytes
        );
        taken += 1;
    }
    assert!(taken > 30, "{taken}");
}
