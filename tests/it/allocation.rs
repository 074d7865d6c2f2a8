//! Answering a batch allocates nothing once the plan is warm.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use sconce::engine::Plan;
use sconce::engine::device::Device;
use sconce::model::{Input, Version, Weights, arch};

/// The system's allocator, which counts what each thread asks for.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

fn count() {
    // A thread that is ending may have lost its counter.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

#[expect(unsafe_code, reason = "an allocator is unsafe by its trait")]
// SAFETY: everything is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
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
