//! Convolution in `f64`, one product after another: what the kernels are tested against.

use super::{Activation, Aligned, Filters, Isa, Job, Map, Output, Part, Windows};

/// What no kernel may overwrite.
const CANARY: f32 = -7.5e18;
/// What stands in lanes that no kernel may read as values.
const PADDING: f32 = 1e18;

/// A layer and the numbers that it is tested with.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub(super) items: usize,
    /// Rows, columns and channels of the input.
    pub(super) size: [usize; 3],
    pub(super) out: usize,
    pub(super) groups: usize,
    pub(super) windows: Windows,
    /// Rows below and columns right of the input beyond the windows' padding.
    pub(super) more: [usize; 2],
    pub(super) pooled: bool,
    pub(super) residual: bool,
    pub(super) function: Option<Activation>,
    /// Vectors from a pixel's end to the next pixel, in input, output and residual.
    pub(super) apart: usize,
}

impl Layer {
    /// One item, one group, whole windows, nothing added.
    pub(super) fn new(size: [usize; 3], out: usize, windows: Windows) -> Self {
        Self {
            items: 1,
            size,
            out,
            groups: 1,
            windows,
            more: [0; 2],
            pooled: false,
            residual: false,
            function: None,
            apart: 0,
        }
    }

    /// Rows and columns before pooling.
    fn unpooled(&self) -> [usize; 2] {
        let Windows {
            kernel,
            stride,
            padding,
            dilation,
        } = self.windows;
        [0, 1].map(|axis| {
            let window = (kernel[axis] - 1) * dilation[axis] + 1;
            (self.size[axis] + 2 * padding[axis] + self.more[axis])
                .checked_sub(window)
                .map_or(0, |rest| rest / stride[axis] + 1)
        })
    }

    fn map(&self, isa: Isa, [height, width]: [usize; 2], channels: usize) -> Map {
        Map {
            height,
            width,
            channels,
            stride: isa.padded(channels) + self.apart * isa.lanes(),
        }
    }

    /// The output's layout.
    pub(super) fn to(&self, isa: Isa) -> Map {
        let size = self.unpooled().map(|n| if self.pooled { n / 2 } else { n });
        self.map(isa, size, self.out)
    }
}

/// A layer with numbers that depend on nothing but `seed` and their place.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) isa: Isa,
    pub(super) layer: Layer,
    pub(super) map: Map,
    pub(super) to: Map,
    /// Item × row × column × channel, without padding.
    pub(super) values: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    residual: Vec<f32>,
}

impl Check {
    pub(super) fn new(isa: Isa, layer: Layer, seed: u64) -> Self {
        let mut random = Random(seed | 1);
        let [height, width, channels] = layer.size;
        let (map, to) = (layer.map(isa, [height, width], channels), layer.to(isa));
        let weights = layer.out * channels / layer.groups * layer.windows.tap_count();
        Self {
            isa,
            values: random.numbers(layer.items * height * width * channels),
            weight: random.numbers(weights),
            bias: random.numbers(layer.out),
            residual: random.numbers(layer.items * to.pixels() * layer.out),
            layer,
            map,
            to,
        }
    }

    pub(super) fn filters(&self) -> Filters<'_> {
        Filters {
            weight: &self.weight,
            bias: &self.bias,
            out: self.layer.out,
            channels: self.layer.size[2],
            groups: self.layer.groups,
        }
    }

    /// Runs a kernel over items `items` of the batch in `parts` parts, on slices that begin beside a cache line and end
    /// with their last number. Returns item × row × column × channel; what lies between is checked to be untouched.
    pub(super) fn run(
        &self,
        items: std::ops::Range<usize>,
        parts: usize,
        kernel: impl Fn(Job<'_>, &Output<'_>, Part),
    ) -> Vec<f32> {
        let (isa, to) = (self.isa, self.to);
        let input = laid_out(isa, &self.values, self.map, items.clone());
        let residual = laid_out(isa, &self.residual, to, items.clone());
        let reach = to.reach(items.len(), isa.padded(self.layer.out));
        let mut buffer = Aligned::zeros(reach + 3);
        buffer.fill(CANARY);
        let source = Job {
            values: &input[1..],
            map: self.map,
            items: items.len(),
            residual: self.layer.residual.then_some((&residual[1..], to)),
            function: self.layer.function,
        };
        {
            let out = Output::from(&mut buffer[1..1 + reach]);
            for index in 0..parts {
                kernel(source, &out, Part { index, of: parts });
            }
        }
        let mut results = Vec::new();
        for (at, value) in buffer.iter().enumerate() {
            let place = at.checked_sub(1).filter(|&place| place < reach);
            match place.map(|place| place % to.stride) {
                Some(channel) if channel < self.layer.out => results.push(*value),
                Some(channel) if channel < isa.padded(self.layer.out) => {
                    assert!(
                        value.is_finite() && *value != CANARY,
                        "number {at} is not written"
                    );
                }
                _ => assert_eq!(*value, CANARY, "number {at} of {} is overwritten", buffer.len()),
            }
        }
        results
    }

    /// Asserts that a kernel is right, and gives the same bits for any parts and batch. `allowed` is the error relative to
    /// the sum of the products' sizes.
    pub(super) fn check(&self, allowed: f64, kernel: impl Fn(Job<'_>, &Output<'_>, Part)) {
        self.check_near(|size, _| allowed * size, kernel);
    }

    /// [`check`](Self::check) of a kernel whose outputs have parts in each other's errors: relative to the largest sum.
    pub(super) fn check_together(&self, allowed: f64, kernel: impl Fn(Job<'_>, &Output<'_>, Part)) {
        self.check_near(|_, largest| allowed * largest, kernel);
    }

    /// With the error allowed by an output's sum of sizes and by the largest.
    fn check_near(&self, allowed: impl Fn(f64, f64) -> f64, kernel: impl Fn(Job<'_>, &Output<'_>, Part)) {
        let items = self.layer.items;
        let whole = self.run(0..items, 1, &kernel);
        let expected = self.expected();
        assert_eq!(whole.len(), expected.len());
        let largest = expected.iter().fold(0.0, |most: f64, [_, size]| most.max(*size));
        for (at, (found, [value, size])) in whole.iter().zip(&expected).enumerate() {
            let (error, allowed) = ((f64::from(*found) - value).abs(), allowed(*size, largest));
            assert!(
                error <= allowed,
                "output {at}: {found}, not {value} ± {allowed:e}"
            );
        }
        assert_eq!(
            bits(&self.run(0..items, 3, &kernel)),
            bits(&whole),
            "in three parts"
        );
        let single = (0..items).flat_map(|item| self.run(item..item + 1, 1, &kernel));
        assert_eq!(bits(&single.collect::<Vec<_>>()), bits(&whole), "item by item");
    }

    /// Each output, and the sum of the sizes of what it is a sum of.
    pub(super) fn expected(&self) -> Vec<[f64; 2]> {
        let mut all = Vec::new();
        for at in 0..self.layer.items * self.to.pixels() {
            let (column, row) = (at % self.to.width, at / self.to.width % self.to.height);
            for o in 0..self.layer.out {
                let sum = |row, column| self.sum(at / self.to.pixels(), [row, column], o);
                let [mut value, mut size] = if self.layer.pooled {
                    let corners = [(0, 0), (0, 1), (1, 0), (1, 1)];
                    let sums = corners.map(|(y, x)| sum(2 * row + y, 2 * column + x));
                    sums.iter()
                        .copied()
                        .fold([f64::MIN, 0.0], |a, b| [a[0].max(b[0]), a[1].max(b[1])])
                } else {
                    sum(row, column)
                };
                if self.layer.residual {
                    let more = f64::from(self.residual[at * self.layer.out + o]);
                    (value, size) = (value + more, size + more.abs());
                }
                all.push([applied(self.layer.function, value), size]);
            }
        }
        all
    }

    fn sum(&self, item: usize, place: [usize; 2], o: usize) -> [f64; 2] {
        let [height, width, channels] = self.layer.size;
        let Windows {
            kernel,
            stride,
            padding,
            dilation,
        } = self.layer.windows;
        let own = channels / self.layer.groups;
        let first = o / (self.layer.out / self.layer.groups) * own;
        let bias = f64::from(self.bias[o]);
        let mut sum = [bias, bias.abs()];
        for tap in 0..kernel[0] * kernel[1] {
            let step = [tap / kernel[1], tap % kernel[1]];
            let [y, x] = [0, 1].map(|axis| {
                (place[axis] * stride[axis] + step[axis] * dilation[axis]).wrapping_sub(padding[axis])
            });
            if y >= height || x >= width {
                continue;
            }
            for i in 0..own {
                let value = self.values[((item * height + y) * width + x) * channels + first + i];
                let weight = self.weight[(o * own + i) * kernel[0] * kernel[1] + tap];
                let product = f64::from(value) * f64::from(weight);
                sum = [sum[0] + product, sum[1] + product.abs()];
            }
        }
        sum
    }
}

fn applied(function: Option<Activation>, x: f64) -> f64 {
    match function {
        None => x,
        Some(Activation::Relu) => x.max(0.0),
        Some(Activation::Relu6) => x.clamp(0.0, 6.0),
        Some(Activation::Silu) => x / (1.0 + (-x).exp()),
        Some(other) => panic!("no reference for {other:?}"),
    }
}

/// `items` of packed numbers as `map` lays them out, behind one number.
fn laid_out(isa: Isa, values: &[f32], map: Map, items: std::ops::Range<usize>) -> Aligned {
    let mut all = Aligned::zeros(1 + map.reach(items.len(), isa.padded(map.channels)));
    all.fill(PADDING);
    let values = &values[items.start * map.pixels() * map.channels..];
    let pixels = values.chunks_exact(map.channels).take(items.len() * map.pixels());
    for (pixel, from) in pixels.enumerate() {
        all[1 + pixel * map.stride..][..map.channels].copy_from_slice(from);
    }
    all
}

/// For comparing without regard to what equals what.
pub(super) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Xorshift (Marsaglia 2003).
struct Random(u64);

impl Random {
    /// Numbers between −1 and 1.
    fn numbers(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.number()).collect()
    }

    fn number(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / 8_388_608.0 - 1.0
    }
}
