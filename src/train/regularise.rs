//! What keeps weights and gradients small: L1 and L2 penalties, and the clip of a gradient's norm.

/// Adds the gradient of λ₁·Σ|w| + λ₂/2·Σw² to `gradient`; |w| has gradient 0 at 0.
pub fn add_penalties(gradient: &mut [f32], weights: &[f32], l1: f32, l2: f32) {
    for (g, &w) in gradient.iter_mut().zip(weights) {
        let sign = if w == 0.0 { 0.0 } else { w.signum() };
        *g += l1 * sign + l2 * w;
    }
}

/// Scales all gradients so that their common Euclidean norm is at most `max_norm`; returns the norm before.
pub fn clip(gradients: &mut [Vec<f32>], max_norm: f64) -> f64 {
    let square = |gradient: &Vec<f32>| gradient.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>();
    let norm = gradients.iter().map(square).sum::<f64>().sqrt();
    if norm > max_norm {
        let scale = (max_norm / norm) as f32;
        gradients.iter_mut().flatten().for_each(|g| *g *= scale);
    }
    norm
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn penalties_add_their_gradients() {
        let check = |l1, l2, expected: [f32; 3]| {
            let mut gradient = [1.0, 1.0, 1.0];
            add_penalties(&mut gradient, &[-2.0, 0.0, 4.0], l1, l2);
            assert_eq!(gradient, expected);
        };
        check(0.5, 0.0, [0.5, 1.0, 1.5]);
        check(0.0, 0.25, [0.5, 1.0, 2.0]);
        check(0.5, 0.25, [0.0, 1.0, 2.5]);
    }

    #[test]
    fn only_a_longer_gradient_is_clipped() {
        let mut gradients = vec![vec![3.0], vec![0.0, 4.0]];
        assert_eq!(clip(&mut gradients, 5.0), 5.0);
        assert_eq!(gradients, [vec![3.0], vec![0.0, 4.0]]);
        assert_eq!(clip(&mut gradients, 2.5), 5.0);
        assert_eq!(gradients, [vec![1.5], vec![0.0, 2.0]]);
    }
}
