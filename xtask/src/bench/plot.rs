// SPDX-License-Identifier: MIT OR Apache-2.0
//! Curves as an SVG image.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// The image, and the part of it where curves are, in pixels.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 56.0;

/// Told apart by eyes of all kinds (Okabe and Ito, 2008), and by the marks when there are more curves than colours.
const COLOURS: [&str; 8] =
    ["#000000", "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999"];

/// How values become places along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// In proportion, from 0, with a mark at every whole number.
    Linear,
    /// By their logarithm, with a mark at every second power of two.
    Doublings,
    /// By their logarithm, with a mark at every power of ten.
    Decades,
}

/// A curve.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

impl Series {
    /// A curve for each key that has points, in the order of the keys, each from left to right.
    pub(super) fn collect<K: Ord + Display>(
        points: impl Iterator<Item = (K, Option<(f64, f64)>)>,
    ) -> Vec<Self> {
        let mut curves = BTreeMap::<K, Vec<_>>::new();
        for (key, point) in points {
            if let Some(point) = point {
                curves.entry(key).or_default().push(point);
            }
        }
        let curve = |(key, mut points): (K, Vec<(f64, f64)>)| {
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            Self { name: key.to_string(), points }
        };
        curves.into_iter().map(curve).collect()
    }
}

/// Curves with their axes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plot {
    title: String,
    x: Axis,
    y: Axis,
    series: Vec<Series>,
}

#[derive(Clone, Debug, PartialEq)]
struct Axis {
    label: String,
    scale: Scale,
    /// What is at its two ends.
    range: (f64, f64),
}

impl Axis {
    fn new(label: &str, scale: Scale, values: impl Iterator<Item = f64>) -> Self {
        let (min, max) = values
            .fold((f64::INFINITY, 0.0_f64), |(min, max), value| (min.min(value), max.max(value)));
        let base = match scale {
            Scale::Linear => None,
            Scale::Doublings => Some(4.0_f64),
            Scale::Decades => Some(10.0),
        };
        let range = match base {
            None => (0.0, max.ceil() + 0.5),
            Some(base) => {
                let power = |value: f64, round: fn(f64) -> f64| base.powf(round(value.log(base)));
                (power(min, f64::floor), power(max * 1.001, f64::ceil))
            }
        };
        Self { label: label.to_owned(), scale, range }
    }

    /// Where a value is, from 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let (low, high) = self.range;
        match self.scale {
            Scale::Linear => (value - low) / (high - low),
            Scale::Doublings | Scale::Decades => (value / low).ln() / (high / low).ln(),
        }
    }

    fn marks(&self) -> Vec<f64> {
        let (low, high) = self.range;
        let next = |value: &f64| match self.scale {
            Scale::Linear => value + 1.0,
            Scale::Doublings => value * 4.0,
            Scale::Decades => value * 10.0,
        };
        std::iter::successors(Some(low), |value| Some(next(value)))
            .take_while(|value| *value <= high * 1.000_001)
            .collect()
    }

    fn name(&self, value: f64) -> String {
        let units: &[(f64, &str)] = match self.scale {
            Scale::Linear | Scale::Doublings => &[(1_048_576.0, "Mi"), (1024.0, "Ki")],
            Scale::Decades => &[(1e9, "G"), (1e6, "M"), (1e3, "k")],
        };
        match units.iter().find(|(size, _)| value >= size * 0.999) {
            Some((size, unit)) => format!("{:.0} {unit}", value / size),
            // A power of ten below 1 shows as it is, without what the last bit adds.
            None => format!("{}", (value * 1e6).round() / 1e6),
        }
    }
}

impl Plot {
    /// Of the points with positive coordinates, as logarithms want; `None` if there are none.
    pub(super) fn new(
        title: &str,
        x: (&str, Scale),
        y: (&str, Scale),
        mut series: Vec<Series>,
    ) -> Option<Self> {
        for one in &mut series {
            one.points.retain(|&(x, y)| x > 0.0 && y > 0.0 && x.is_finite() && y.is_finite());
        }
        series.retain(|one| !one.points.is_empty());
        if series.is_empty() {
            return None;
        }
        let points = || series.iter().flat_map(|one| &one.points);
        let x = Axis::new(x.0, x.1, points().map(|point| point.0));
        let y = Axis::new(y.0, y.1, points().map(|point| point.1));
        Some(Self { title: title.to_owned(), x, y, series })
    }

    fn horizontal(&self, value: f64) -> f64 {
        LEFT + self.x.place(value) * (WIDTH - LEFT - RIGHT)
    }

    fn vertical(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.y.place(value) * (HEIGHT - TOP - BOTTOM)
    }

    /// The image.
    pub(super) fn svg(&self) -> String {
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        );
        let (middle, centre) = ((LEFT + WIDTH - RIGHT) / 2.0, (TOP + HEIGHT - BOTTOM) / 2.0);
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        // Writing to a string cannot fail.
        let mut text = |x: f64, y: f64, attributes: &str, text: &str| {
            let text = escaped(text);
            let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" {attributes}>{text}</text>");
        };
        text(middle, 22.0, "text-anchor=\"middle\" font-size=\"15\"", &self.title);
        text(middle, HEIGHT - 14.0, "text-anchor=\"middle\"", &self.x.label);
        let turned = format!("text-anchor=\"middle\" transform=\"rotate(-90 18 {centre:.1})\"");
        text(18.0, centre, &turned, &self.y.label);
        for value in self.x.marks() {
            let x = self.horizontal(value);
            text(x, bottom + 18.0, "text-anchor=\"middle\"", &self.x.name(value));
        }
        for value in self.y.marks() {
            let y = self.vertical(value) + 4.0;
            text(LEFT - 8.0, y, "text-anchor=\"end\"", &self.y.name(value));
        }
        let mut line = |from: (f64, f64), to: (f64, f64)| {
            let ((x1, y1), (x2, y2)) = (from, to);
            let _ = writeln!(
                svg,
                "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"#dddddd\"/>"
            );
        };
        for value in self.x.marks() {
            line((self.horizontal(value), TOP), (self.horizontal(value), bottom));
        }
        for value in self.y.marks() {
            line((LEFT, self.vertical(value)), (right, self.vertical(value)));
        }
        for (number, series) in self.series.iter().enumerate() {
            self.curve(&mut svg, number, series);
        }
        svg + "</svg>\n"
    }

    fn curve(&self, svg: &mut String, number: usize, series: &Series) {
        let colour = COLOURS[number % COLOURS.len()];
        let dashes = if number < COLOURS.len() { "none" } else { "5 3" };
        let places: Vec<_> =
            series.points.iter().map(|&(x, y)| (self.horizontal(x), self.vertical(y))).collect();
        let path: Vec<_> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let (path, name) = (path.join(" "), escaped(&series.name));
        let (left, row) = (WIDTH - RIGHT + 14.0, TOP + 8.0 + 20.0 * number as f64);
        // Writing to a string cannot fail.
        let _ = writeln!(
            svg,
            "<polyline points=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dashes}\"/>\n\
             <line x1=\"{left}\" y1=\"{row}\" x2=\"{}\" y2=\"{row}\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dashes}\"/>\n\
             <text x=\"{}\" y=\"{}\">{name}</text>",
            left + 22.0,
            left + 28.0,
            row + 4.0
        );
        for (x, y) in places {
            let _ =
                writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
        }
    }
}

/// Writes those images that there are into a directory, and returns where.
pub(super) fn save<const N: usize>(
    directory: &Path,
    plots: [(&str, Option<Plot>); N],
) -> Result<Vec<String>> {
    fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
    let mut paths = Vec::new();
    for (name, plot) in plots {
        let Some(plot) = plot else { continue };
        let path = directory.join(name);
        fs::write(&path, plot.svg()).with_context(|| format!("writing {}", path.display()))?;
        paths.push(path.display().to_string());
    }
    Ok(paths)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot() -> Plot {
        let series =
            |name: &str, points: &[(f64, f64)]| Series { name: name.into(), points: points.into() };
        let all = vec![
            series("a & <b>", &[(1.0, 50.0), (1024.0, 900.0), (1_048_576.0, 20_000.0)]),
            series("empty", &[(0.0, 1.0), (1.0, f64::NAN)]),
        ];
        Plot::new("Copies", ("bytes", Scale::Doublings), ("MB/s", Scale::Decades), all).unwrap()
    }

    #[test]
    fn values_are_placed_by_their_axis() {
        let plot = plot();
        assert_eq!(plot.y.range, (10.0, 100_000.0));
        assert!((plot.x.place(1024.0) - 0.5 / 1.1).abs() < 0.06);
        assert!((plot.y.place(1000.0) - 0.5).abs() < 1e-9);
        let linear = Axis::new("pairs", Scale::Linear, [1.0, 4.0].into_iter());
        assert_eq!(linear.marks(), [0.0, 1.0, 2.0, 3.0, 4.0]);
        assert_eq!((linear.place(0.0), linear.place(4.5)), (0.0, 1.0));
        assert_eq!(plot.x.name(65_536.0), "64 Ki");
        assert_eq!(plot.y.name(0.1), "0.1");
    }

    #[test]
    fn the_image_is_well_formed() {
        let svg = plot().svg();
        let mut open = Vec::new();
        let mut rest = svg.as_str();
        while let Some(start) = rest.find('<') {
            let end = start + rest[start..].find('>').expect("a tag ends");
            let tag = &rest[start + 1..end];
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            assert!(!rest[..start].contains('>'), "a stray > before {tag}");
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name));
            } else if !tag.ends_with('/') {
                open.push(tag.split(' ').next().unwrap());
            }
            rest = &rest[end + 1..];
        }
        assert!(open.is_empty(), "{open:?}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
        assert!(svg.contains("a &amp; &lt;b&gt;") && !svg.contains("empty"));
        assert_eq!(svg.matches("<circle").count(), 3);
    }

    #[test]
    fn nothing_is_no_plot() {
        let (x, y) = (("x", Scale::Linear), ("y", Scale::Linear));
        assert_eq!(Plot::new("t", x, y, Vec::new()), None);
    }
}
