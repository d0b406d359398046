// SPDX-License-Identifier: MIT OR Apache-2.0
//! Samples as a few numbers.

use serde::Serialize;

/// How samples are distributed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) quartile_1: f64,
    pub(super) quartile_3: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Spread {
    /// Of at least one sample.
    pub(super) fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (first, last) = (*sorted.first()?, *sorted.last()?);
        // Linear interpolation between the samples next to the place.
        let at = |part: f64| {
            let place = part * (sorted.len() - 1) as f64;
            let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
            below + (above - below) * place.fract()
        };
        let [quartile_1, median, quartile_3] = [at(0.25), at(0.5), at(0.75)];
        Some(Self { median, quartile_1, quartile_3, min: first, max: last })
    }

    /// Half of what lies between the quartiles, as a part of the median.
    pub(super) fn relative(&self) -> f64 {
        (self.quartile_3 - self.quartile_1) / 2.0 / self.median
    }

    /// Nanoseconds as microseconds, and by how much they vary.
    pub(super) fn microseconds(&self) -> String {
        format!("{:.1} µs ±{:.0}%", self.median / 1e3, 100.0 * self.relative())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_are_of_the_samples() {
        let spread = Spread::of(&[4.0, 1.0, 3.0, 2.0, 5.0]).unwrap();
        let Spread { median, quartile_1, quartile_3, min, max } = spread;
        assert_eq!([median, quartile_1, quartile_3, min, max], [3.0, 2.0, 4.0, 1.0, 5.0]);
        assert!((spread.relative() - 1.0 / 3.0).abs() < 1e-9);
        assert_eq!(Spread::of(&[1.0, 2.0]).unwrap().median, 1.5);
        assert_eq!(Spread::of(&[]), None);
    }
}
