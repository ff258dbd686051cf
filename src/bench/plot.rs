//! Latency over time, drawn in text.

use std::fmt;

use super::report::Moment;

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A row of bars for each figure, and what the lowest and the highest bar stand for. Latencies on a scale where each
/// step is a factor, since stalls are many times what is usual; counts from zero.
pub(super) fn draw(f: &mut fmt::Formatter<'_>, moments: &[Moment]) -> fmt::Result {
    let Some(first) = moments.first() else { return Ok(()) };
    writeln!(f, "over time, {} s each", first.secs)?;
    let latency = |of: fn(&Moment) -> u64| moments.iter().map(|moment| of(moment) as f64 / 1000.0).collect::<Vec<_>>();
    let count = |of: fn(&Moment) -> u64| {
        moments.iter().map(|moment| of(moment) as f64 / moment.secs as f64).collect::<Vec<_>>()
    };
    row(f, "p99 ms", &latency(|moment| moment.p99_micros), Scale::Factors)?;
    row(f, "p50 ms", &latency(|moment| moment.p50_micros), Scale::Factors)?;
    row(f, "right/s", &count(|moment| moment.answered), Scale::Even)?;
    if moments.iter().any(|moment| moment.refused > 0) {
        row(f, "refused/s", &count(|moment| moment.refused), Scale::Even)?;
    }
    if moments.iter().any(|moment| moment.failed > 0) {
        row(f, "errors/s", &count(|moment| moment.failed), Scale::Even)?;
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Scale {
    Even,
    Factors,
}

fn row(f: &mut fmt::Formatter<'_>, name: &str, values: &[f64], scale: Scale) -> fmt::Result {
    let (least, most) =
        values.iter().fold((f64::INFINITY, 0f64), |(least, most), value| (least.min(*value), most.max(*value)));
    let bars: String = values.iter().map(|value| bar(*value, most, scale)).collect();
    let digits = if most < 100.0 { 2 } else { 0 };
    writeln!(f, "{name:<9} {bars}  {least:.digits$} to {most:.digits$}")
}

/// Of factors, each bar is twice the one before it.
fn bar(value: f64, most: f64, scale: Scale) -> char {
    if value <= 0.0 || most <= 0.0 {
        return ' ';
    }
    let top = BARS.len() as f64;
    let height = match scale {
        Scale::Even => value / most * top,
        Scale::Factors => top + (value / most).log2(),
    };
    BARS[(height.ceil().max(1.0) as usize - 1).min(BARS.len() - 1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Drawn(Vec<Moment>);

    impl fmt::Display for Drawn {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            draw(f, &self.0)
        }
    }

    #[test]
    fn a_stall_stands_out_and_silence_is_empty() {
        let moment = |from_secs, answered, p99_micros| Moment {
            from_secs,
            secs: 1,
            answered,
            p50_micros: 1000,
            p99_micros,
            refused: 0,
            failed: 0,
        };
        let drawn = Drawn(vec![moment(0, 100, 2000), moment(1, 0, 0), moment(2, 50, 64_000)]).to_string();
        assert_eq!(
            drawn,
            "over time, 1 s each\n\
             p99 ms    ▃ █  0.00 to 64.00\n\
             p50 ms    ███  1.00 to 1.00\n\
             right/s   █ ▄  0 to 100\n"
        );
    }
}
