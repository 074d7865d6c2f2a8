//! What a team writes is what one thread writes.

use super::*;
use crate::kernels::testing::numbers;
use crate::kernels::{Filters, Square};

/// Threads made for each kernel.
#[derive(Debug)]
struct Three;

impl Team for Three {
    fn threads(&self) -> usize {
        3
    }

    fn run(&self, work: &(dyn Fn() + Sync)) {
        std::thread::scope(|scope| {
            (0..2).for_each(|_| drop(scope.spawn(work)));
            work();
        });
    }
}

const ITEMS: usize = 2;

fn map(isa: Isa, side: usize, channels: usize) -> Map {
    Map {
        height: side,
        width: side,
        channels,
        stride: isa.padded(channels),
    }
}

fn check(isa: Isa, kernel: Kernel<'_>, map: Map) {
    let task = Task {
        isa,
        kernel,
        items: ITEMS,
        map,
    };
    let scratch = match kernel {
        Kernel::Winograd(conv, _) => conv.scratch_len(ITEMS, map),
        _ => 0,
    };
    let run = |team: &dyn Team| {
        let mut out = numbers(ITEMS * map.item(), 9);
        task.run(&mut out, &mut vec![0.0; scratch * team.threads()], team);
        out
    };
    let (alone, shared) = (run(&crate::kernels::Alone), run(&Three));
    assert!(alone == shared, "{isa} {kernel:?}");
    assert!(
        alone != numbers(ITEMS * map.item(), 9),
        "{isa} {kernel:?} wrote nothing"
    );
}

#[test]
fn a_team_writes_what_one_thread_writes() {
    for isa in Isa::available() {
        every_kernel(isa);
    }
}

fn every_kernel(isa: Isa) {
    // Miri needs minutes for the products of the larger layers.
    const SIDE: usize = if cfg!(miri) { 3 } else { 7 };
    const CHANNELS: usize = if cfg!(miri) { 9 } else { 19 };
    let (from, one) = (map(isa, SIDE, CHANNELS), map(isa, 1, CHANNELS));
    let values = numbers(ITEMS * from.item(), 1);
    let source = Source {
        values: &values,
        map: from,
    };
    let square = Windows {
        kernel: [3; 2],
        padding: [1; 2],
        ..Windows::POINT
    };
    let weight = numbers(CHANNELS * CHANNELS * 9, 2);
    let filters = Filters {
        weight: &weight,
        bias: &[],
        out: CHANNELS,
        channels: CHANNELS,
        groups: 1,
    };
    let job = Job {
        values: &values,
        map: from,
        items: ITEMS,
        residual: None,
        function: Some(Activation::Relu),
    };
    let conv = Conv::pack(isa, filters, square, false);
    check(isa, Kernel::Conv(&conv, job), from);
    for side in [Square::Two, Square::Four] {
        let winograd = Winograd::pack(isa, filters, [1; 2], side);
        check(isa, Kernel::Winograd(&winograd, job), from);
    }
    let depthwise = Depthwise::pack(isa, &weight[..CHANNELS * 9], None, square, None);
    check(isa, Kernel::Depthwise(&depthwise, source), from);
    check(isa, Kernel::MaxPool(square, source), from);
    check(isa, Kernel::AvgPool(square, source), from);
    check(isa, Kernel::GlobalAvgPool(source), one);
    let affine = Affine::pack(isa, &weight[..CHANNELS], &weight[1..=CHANNELS], None);
    check(isa, Kernel::Affine(&affine, source), from);
    let norm = LayerNorm::pack(isa, &weight[..CHANNELS], &weight[1..=CHANNELS], 1e-6);
    check(isa, Kernel::LayerNorm(&norm, source), from);
    check(isa, Kernel::Add([source; 2], Some(Activation::Silu)), from);
    let factors = numbers(ITEMS * isa.padded(CHANNELS), 3);
    check(isa, Kernel::Scale(source, &factors), from);
    check(isa, Kernel::AddInPlace(source, None), from);
    check(isa, Kernel::ScaleInPlace(&factors), from);
    check(isa, Kernel::AffineInPlace(&affine), from);
    check(isa, Kernel::CopyChannels(source, 0), from);
    check(isa, Kernel::Pad(source, [1, 2]), map(isa, SIDE + 3, CHANNELS));
    check(isa, Kernel::Activate(Activation::Gelu), from);
    planes(isa, from);
    first(isa);
}

fn planes(isa: Isa, from: Map) {
    let numbers = numbers(ITEMS * from.pixels() * from.channels, 4);
    let planes = Planes {
        values: &numbers,
        height: from.height,
        width: from.width,
    };
    check(isa, Kernel::FromPlanes(planes), from);
    let values = crate::kernels::testing::numbers(ITEMS * from.item(), 5);
    let source = Source {
        values: &values,
        map: from,
    };
    let flat = Map {
        stride: from.channels,
        ..from
    };
    check(isa, Kernel::ToPlanes(source), flat);
}

fn first(isa: Isa) {
    let image = Image {
        channels: 3,
        height: 9,
        width: 8,
    };
    let weight = numbers(5 * 3 * 9, 6);
    let filters = Filters {
        weight: &weight,
        bias: &[],
        out: 5,
        channels: 3,
        groups: 1,
    };
    let windows = Windows {
        kernel: [3; 2],
        padding: [1; 2],
        ..Windows::POINT
    };
    let first = First::pack(isa, filters, windows, [1; 2], false);
    let mut packed = vec![0.0; first.packed_len(ITEMS, image)];
    first.pack_image(&numbers(ITEMS * image.len(), 7), image, &mut packed);
    let to = Map {
        height: 9,
        ..map(isa, 8, 5)
    };
    check(isa, Kernel::First(&first, (&packed, image), None), to);
}

#[test]
fn scratch_for_too_few_threads_is_refused() {
    let isa = Isa::PORTABLE;
    let weight = numbers(9, 1);
    let filters = Filters {
        weight: &weight,
        bias: &[],
        out: 1,
        channels: 1,
        groups: 1,
    };
    let winograd = Winograd::pack(isa, filters, [1; 2], Square::Four);
    let to = map(isa, 8, 1);
    let values = numbers(to.item(), 2);
    let job = Job {
        values: &values,
        map: to,
        items: 1,
        residual: None,
        function: None,
    };
    let task = Task {
        isa,
        kernel: Kernel::Winograd(&winograd, job),
        items: 1,
        map: to,
    };
    let len = 3 * winograd.scratch_len(1, to);
    let refused = |len: usize| {
        let run = || task.run(&mut vec![0.0; to.item()], &mut vec![0.0; len], &Three);
        std::panic::catch_unwind(run).is_err()
    };
    assert!(!refused(len) && refused(len - 1));
}
