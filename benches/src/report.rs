use std::fmt;

use crate::{OURS, Quartiles, Scale, Target, Workload};

/// What was measured; displayed, it is a table in Markdown.
pub struct Report {
    title: String,
    rounds: usize,
    scale: Scale,
    rows: Vec<Row>,
}

struct Row {
    name: String,
    target: Option<Target>,
    /// In the order of the workload: ours first.
    columns: Vec<Column>,
}

struct Column {
    name: String,
    rival: bool,
    /// Nanoseconds per operation, by round.
    nanos: Vec<f64>,
}

impl Report {
    pub(crate) fn new(title: String, rounds: usize, scale: Scale, workloads: &[Workload]) -> Self {
        let rows = workloads.iter().map(|workload| Row {
            name: workload.name.clone(),
            target: workload
                .target
                .as_ref()
                .map(|target| Target { times: target.times, whom: target.whom.clone() }),
            columns: workload
                .contenders
                .iter()
                .map(|contender| Column {
                    name: contender.name.clone(),
                    rival: contender.rival,
                    nanos: Vec::with_capacity(rounds),
                })
                .collect(),
        });
        Self { title, rounds, scale, rows: rows.collect() }
    }

    pub(crate) fn note(&mut self, row: usize, column: usize, nanos: f64) {
        self.rows[row].columns[column].nanos.push(nanos);
    }

    /// Everybody's name, in the order of appearance.
    fn names(&self) -> Vec<&str> {
        let mut names = vec![OURS];
        for column in self.rows.iter().flat_map(|row| &row.columns) {
            if !names.contains(&column.name.as_str()) {
                names.push(&column.name);
            }
        }
        names
    }
}

impl Row {
    /// Quartiles of ours / theirs, round by round.
    fn ratio(&self, theirs: &Column) -> Quartiles {
        let ours = &self.columns[0].nanos;
        Quartiles::of(ours.iter().zip(&theirs.nanos).map(|(ours, theirs)| ours / theirs).collect())
    }

    /// The rival against whom ours does worst, which is the best of them.
    fn best_rival(&self) -> Option<(&Column, Quartiles)> {
        self.columns[1..]
            .iter()
            .filter(|column| column.rival)
            .map(|column| (column, self.ratio(column)))
            .max_by(|(_, one), (_, other)| one.median.total_cmp(&other.median))
    }

    fn meets_target(&self) -> Option<bool> {
        let target = self.target.as_ref()?;
        // Judged as it is shown, to the second decimal.
        self.best_rival().map(|(_, ratio)| (ratio.median * 100.0).round() <= target.times * 100.0)
    }

    fn cell(&self, name: &str) -> String {
        let Some(column) = self.columns.iter().find(|column| column.name == name) else {
            return String::new();
        };
        let nanos = Nanos(Quartiles::of(column.nanos.clone()).median);
        let ratio = self.ratio(column).median;
        match () {
            () if name == OURS => format!("**{nanos}**"),
            () if column.rival => format!("{nanos} ({ratio:.2})"),
            () => format!("*{nanos} ({ratio:.2})*"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.names();
        writeln!(f, "## {}\n", self.title)?;
        writeln!(
            f,
            "Nanoseconds per operation, the median of {} round(s); in brackets ours / theirs, the \
             median of the ratios within a round.\nThe target is measured against the best of \
             those in upright type; its ratio comes with the lower and the upper quartile.\n",
            self.rounds
        )?;
        if self.scale == Scale::Quick {
            writeln!(f, "**Quick: this shows that everything runs, and measures nothing.**\n")?;
        }
        writeln!(f, "| workload | {} | at most | measured | |", names.join(" | "))?;
        writeln!(f, "| --- |{} --- | --- | --- |", " ---: |".repeat(names.len()))?;
        for row in &self.rows {
            write!(f, "| {} |", row.name)?;
            for name in &names {
                write!(f, " {} |", row.cell(name))?;
            }
            match &row.target {
                Some(target) => write!(f, " {:.2} x {} |", target.times, target.whom)?,
                None => write!(f, " |")?,
            }
            match row.best_rival() {
                Some((rival, ratio)) => write!(f, " {ratio} x {} |", rival.name)?,
                None => write!(f, " |")?,
            }
            match row.meets_target() {
                Some(true) => writeln!(f, " met |")?,
                Some(false) => writeln!(f, " **missed** |")?,
                None => writeln!(f, " |")?,
            }
        }
        let judged: Vec<bool> = self.rows.iter().filter_map(Row::meets_target).collect();
        let met = judged.iter().filter(|&&met| met).count();
        write!(f, "\n{met} of {} targets met.", judged.len())
    }
}

/// With as many digits as a run can give.
struct Nanos(f64);

impl fmt::Display for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = if self.0 < 100.0 { 1 } else { 0 };
        write!(f, "{:.decimals$}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(times: f64) -> Row {
        let column = |name: &str, rival, nanos: &[f64]| Column {
            name: name.to_owned(),
            rival,
            nanos: nanos.to_vec(),
        };
        Row {
            name: "work".to_owned(),
            target: Some(Target { times, whom: "the best".to_owned() }),
            columns: vec![
                column(OURS, true, &[10.0, 40.0, 10.0]),
                column("slow", true, &[20.0, 40.0, 20.0]),
                column("quick", true, &[8.0, 20.0, 8.0]),
                column("cheat", false, &[1.0, 1.0, 1.0]),
            ],
        }
    }

    #[test]
    fn the_target_is_judged_against_the_best_rival_by_the_ratios_within_a_round() {
        let (rival, ratio) = row(1.0).best_rival().map(|(c, r)| (c.name.clone(), r)).unwrap();
        assert_eq!((rival.as_str(), ratio.median), ("quick", 1.25));
        assert_eq!(row(1.25).meets_target(), Some(true));
        assert_eq!(row(1.24).meets_target(), Some(false));
        assert_eq!(row(1.0).cell("slow"), "20.0 (0.50)");
    }
}
