//! Flame graphs: stacks as `perf script` prints them, merged into a tree, and drawn as SVG. A frame is as wide as the
//! share of samples in which it was on the stack; what called it is below it, and its name is in its title.
//!
//! The crate inferno draws more, under a licence (CDDL) that this project doesn't let in.

use std::collections::BTreeMap;

/// In pixels.
const WIDTH: f64 = 1200.0;
const ROW: f64 = 17.0;
const MARGIN: f64 = 10.0;
/// The room for the title.
const HEAD: f64 = 40.0;
/// The width of a letter, about.
const LETTER: f64 = 6.6;
/// Frames that are narrower aren't drawn.
const NARROWEST: f64 = 0.3;

/// Frames that were called from one frame, by name.
#[derive(Debug, Default)]
pub(crate) struct Flame {
    n_samples: u64,
    calls: BTreeMap<String, Flame>,
}

impl Flame {
    /// Reads what `perf script` has printed: for each sample a line of its own, then its frames from the innermost on,
    /// then an empty line.
    pub(crate) fn of_script(text: &str) -> Flame {
        let mut flame = Flame::default();
        for sample in text.split("\n\n") {
            let mut lines = sample.lines().filter(|line| !line.is_empty());
            let Some(head) = lines.next() else { continue };
            let thread = head.split_whitespace().next().unwrap_or("?");
            let frames: Vec<_> = lines.map(frame).collect();
            if !frames.is_empty() {
                flame.add([thread].into_iter().chain(frames.into_iter().rev()));
            }
        }
        flame
    }

    fn add<'a>(&mut self, frames: impl Iterator<Item = &'a str>) {
        self.n_samples += 1;
        let mut place = self;
        for frame in frames {
            place = place.calls.entry(frame.to_owned()).or_default();
            place.n_samples += 1;
        }
    }

    /// How many samples there are.
    pub(crate) fn n_samples(&self) -> u64 {
        self.n_samples
    }

    /// The graph.
    pub(crate) fn svg(&self, title: &str) -> String {
        let height = HEAD + (self.depth() as f64) * ROW + MARGIN;
        let mut text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
             viewBox=\"0 0 {WIDTH} {height}\" font-family=\"monospace\" font-size=\"11\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#fffdf5\"/>\n\
             <text x=\"{MARGIN}\" y=\"24\" font-size=\"15\">{}</text>\n",
            escaped(title)
        );
        let scale = (WIDTH - 2.0 * MARGIN) / self.n_samples.max(1) as f64;
        self.draw_calls(&mut text, MARGIN, height - MARGIN - ROW, scale, self.n_samples);
        text + "</svg>\n"
    }

    fn draw_calls(&self, text: &mut String, mut x: f64, y: f64, scale: f64, all: u64) {
        for (name, call) in &self.calls {
            let width = call.n_samples as f64 * scale;
            if width >= NARROWEST {
                let share = 100.0 * call.n_samples as f64 / all as f64;
                let n_letters = (width / LETTER) as usize;
                let label: String = match n_letters {
                    0..3 => String::new(),
                    n if n < name.chars().count() => name.chars().take(n - 2).chain("..".chars()).collect(),
                    _ => name.clone(),
                };
                text.push_str(&format!(
                    "<g><title>{} ({share:.1} %, {} samples)</title>\
                     <rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{}\" fill=\"{}\" stroke=\"#fffdf5\"/>\
                     <text x=\"{:.1}\" y=\"{:.1}\">{}</text></g>\n",
                    escaped(name),
                    call.n_samples,
                    ROW - 1.0,
                    colour(name),
                    x + 2.0,
                    y + 12.0,
                    escaped(&label)
                ));
                call.draw_calls(text, x, y - ROW, scale, all);
            }
            x += width;
        }
    }

    /// How many frames are above one another at most.
    fn depth(&self) -> usize {
        self.calls.values().map(|call| 1 + call.depth()).max().unwrap_or(0)
    }
}

/// The name in a line of a frame: `  3e065 <hello::Hello as …>::run+0xe5 (/memfd:libhello.so (deleted))`.
fn frame(line: &str) -> &str {
    let name = line.trim().split_once(' ').map_or("", |(_, name)| name);
    let name = name.rfind(" (").map_or(name, |at| name[..at].trim_end_matches(" (deleted)"));
    let name = name.rsplit_once(" (/").map_or(name, |(name, _)| name);
    let name = name.rsplit_once("+0x").map_or(name, |(name, _)| name);
    if name.is_empty() { "[unknown]" } else { name }
}

/// A warm colour that is always the same for a name.
fn colour(name: &str) -> String {
    let sum = name.bytes().fold(7u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    format!("rgb({},{},{})", 205 + sum % 50, 90 + (sum >> 8) % 120, 40 + (sum >> 16) % 40)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "effe-run-0 12 1.5: 1 cpu-clock:\n\
        \t    97997 a::write+0x57 (/memfd:libhello.so (deleted))\n\
        \t    3e065 <hello::Hello as effe_abi::lambda::Lambda>::run+0xe5 (/memfd:libhello.so (deleted))\n\n\
        effe-run-0 12 1.6: 1 cpu-clock:\n\
        \t    3e065 <hello::Hello as effe_abi::lambda::Lambda>::run+0xe5 (/memfd:libhello.so (deleted))\n\n\
        effe 11 1.7: 1 cpu-clock:\n\
        \t    ffff [unknown] ([kernel.kallsyms])\n\n";

    #[test]
    fn stacks_with_a_common_beginning_are_one_frame_there() {
        let flame = Flame::of_script(SCRIPT);
        let run = &flame.calls["effe-run-0"].calls["<hello::Hello as effe_abi::lambda::Lambda>::run"];
        assert_eq!((flame.n_samples(), run.n_samples, run.calls["a::write"].n_samples), (3, 2, 1));
        assert_eq!(flame.calls["effe"].calls["[unknown]"].n_samples, 1);
        let svg = flame.svg("hello & more");
        assert!(svg.contains("hello &amp; more") && svg.contains("&lt;hello::Hello as"), "{svg}");
        assert!(svg.contains("(66.7 %, 2 samples)"), "{svg}");
    }

    #[test]
    fn any_text_at_all_makes_a_graph() {
        bolero::check!().with_type::<String>().for_each(|text| {
            assert!(Flame::of_script(text).svg(text).ends_with("</svg>\n"));
        });
    }
}
