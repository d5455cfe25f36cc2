use std::process::exit;

use crate::Scale;

const HELP: &str = "\
Measures contenders side by side and prints a table.

Usage: cargo bench --bench NAME -- [OPTIONS] [FILTER]...

  FILTER       only workloads whose name contains it; several: any of them
  --rounds N   how often everything is measured (1 to 100000)
  --quick      one round of a hundredth of the work: shows that it runs, measures nothing
  --help       this";

/// What the command line of a benchmark may say.
#[derive(Debug)]
pub struct Options {
    pub(crate) rounds: usize,
    pub(crate) scale: Scale,
    pub(crate) filters: Vec<String>,
}

impl Options {
    /// Reads the command line; on `--help`, and with status 2 on what it does not understand, it
    /// ends the process.
    #[must_use]
    pub fn from_args(default_rounds: usize) -> Self {
        match Self::parse(std::env::args().skip(1), default_rounds) {
            Ok(Some(options)) => options,
            Ok(None) => {
                println!("{HELP}");
                exit(0)
            }
            Err(wrong) => {
                eprintln!("error: {wrong} (--help says what there is)");
                exit(2)
            }
        }
    }

    /// `None`: help is wanted.
    fn parse(
        args: impl Iterator<Item = String>,
        default_rounds: usize,
    ) -> Result<Option<Self>, String> {
        let mut options = Self { rounds: default_rounds, scale: Scale::Full, filters: Vec::new() };
        let mut rounds = None;
        let mut args = args;
        while let Some(arg) = args.next() {
            match arg.as_str() {
                // Cargo adds it.
                "--bench" => {}
                "--help" | "-h" => return Ok(None),
                "--quick" => options.scale = Scale::Quick,
                "--rounds" => {
                    let given = args.next().unwrap_or_default();
                    let number = given.parse().ok().filter(|n| (1..=100_000).contains(n));
                    rounds = Some(number.ok_or_else(|| {
                        format!("--rounds wants a number from 1 to 100000, not {given:?}")
                    })?);
                }
                flag if flag.starts_with('-') => return Err(format!("unknown option {flag:?}")),
                _ => options.filters.push(arg),
            }
        }
        let quick = options.scale == Scale::Quick;
        options.rounds = rounds.unwrap_or(if quick { 1 } else { default_rounds });
        Ok(Some(options))
    }

    pub(crate) fn chooses(&self, name: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| name.contains(filter))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Option<Options>, String> {
        Options::parse(args.iter().map(ToString::to_string), 31)
    }

    #[test]
    fn reads_what_it_knows_and_refuses_the_rest() {
        let options = parse(&["--bench", "cancel", "--rounds", "5", "queue"]).unwrap().unwrap();
        assert_eq!((options.rounds, options.scale), (5, Scale::Full));
        assert!(options.chooses("one cancelled") && options.chooses("queue one"));
        assert!(!options.chooses("try_acquire"));

        assert_eq!(parse(&[]).unwrap().unwrap().rounds, 31);
        assert_eq!(parse(&["--quick"]).unwrap().unwrap().rounds, 1);
        assert_eq!(parse(&["--rounds", "7", "--quick"]).unwrap().unwrap().rounds, 7);
        assert!(parse(&["--help"]).unwrap().is_none());
        for bad in [&["--rounds"][..], &["--rounds", "0"], &["--rounds", "x"], &["--what"]] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
