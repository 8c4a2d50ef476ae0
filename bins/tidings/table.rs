//! Columns as wide as what stands in them.

use crate::paint::Paint;

/// A table for a terminal: a head, and rows of as many cells.
pub(crate) struct Table {
    head: Vec<&'static str>,
    /// Columns of numbers, which end at the same place.
    right: &'static [usize],
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(head: &[&'static str], right: &'static [usize]) -> Self {
        Self {
            head: head.to_vec(),
            right,
            rows: Vec::new(),
        }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub(crate) fn render(&self, paint: Paint) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            let widest = cells.map(|cell| cell.chars().count()).max();
            widest.unwrap_or(0).max(self.head[column].chars().count())
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let cells = cells
                .zip(&widths)
                .enumerate()
                .map(|(column, (cell, width))| {
                    if self.right.contains(&column) {
                        format!("{cell:>width$}")
                    } else {
                        format!("{cell:<width$}")
                    }
                });
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        let head = line(&mut self.head.iter().copied());
        let mut out = format!("{}\n", paint.bold(&head));
        for row in &self.rows {
            out.push_str(&line(&mut row.iter().map(String::as_str)));
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_stands_in_them() {
        let mut table = Table::new(&["QUEUE", "WAITING", "OLDEST"], &[1]);
        table.row(["chunks", "1,200", "3 s"].map(str::to_owned));
        table.row(["deliver.email", "0", ""].map(str::to_owned));
        let expected = "\
QUEUE          WAITING  OLDEST
chunks           1,200  3 s
deliver.email        0
";
        assert_eq!(table.render(Paint::never()), expected);
    }
}
