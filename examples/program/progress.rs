//! Progress bars, on a terminal only.

use std::fmt::Write;

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

/// A bar for `total` things, or a count of them if it is not known how many there are. It is narrower
/// than a terminal usually is: where a line is wrapped, as after a resize, a part of it would stay.
pub fn bar(total: Option<u64>, of: &str) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (
            ProgressBar::new(total),
            format!("{{bar:20}} {{human_pos}}/{{human_len}} {of}, {{rate}}, {{eta}}"),
        ),
        None => (ProgressBar::new_spinner(), format!("{{spinner}} {{human_pos}} {of}, {{rate}}")),
    };
    let style = ProgressStyle::with_template(&template).expect("a template that indicatif knows");
    bar.with_style(style.with_key("rate", |state: &ProgressState, text: &mut dyn Write| {
        let _ = write!(text, "{}", rate(state.per_sec()));
    }))
}

fn rate(per_second: f64) -> String {
    if per_second < 10.0 { format!("{per_second:.1}/s") } else { format!("{per_second:.0}/s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_has_no_more_digits_than_it_is_worth() {
        assert_eq!([0.25, 4_269.254_5].map(rate), ["0.2/s", "4269/s"]);
    }
}
