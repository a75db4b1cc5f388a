//! Columns for people: as wide as their widest cell, two spaces apart, nothing at the ends of lines.

/// A table under construction.
#[derive(Clone, Debug)]
pub struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    #[must_use]
    pub fn new(header: &[&'static str]) -> Self {
        Self { header: header.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; an empty cell is shown as `-`.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(
            cells.into_iter().map(|cell| if cell.is_empty() { "-".to_owned() } else { cell }).collect(),
        );
    }

    /// Leaves out columns that say the same in every row, and would only make lines longer.
    #[must_use]
    pub fn without_constant(mut self, columns: &[&str]) -> Self {
        for name in columns {
            let Some(index) = self.header.iter().position(|column| column == name) else { continue };
            let mut values = self.rows.iter().map(|row| row.get(index));
            let first = values.next();
            if values.all(|value| Some(value) == first) {
                self.header.remove(index);
                for row in &mut self.rows {
                    row.remove(index);
                }
            }
        }
        self
    }

    /// The text; `none` when there are no rows.
    #[must_use]
    pub fn render(&self, none: &str) -> String {
        if self.rows.is_empty() {
            return format!("{none}\n");
        }
        let header: Vec<String> = self.header.iter().map(|&name| name.to_owned()).collect();
        let lines: Vec<&Vec<String>> = std::iter::once(&header).chain(&self.rows).collect();
        let widths: Vec<usize> = (0..header.len())
            .map(|column| {
                lines
                    .iter()
                    .filter_map(|line| line.get(column))
                    .map(|cell| cell.chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let mut text = String::new();
        for line in lines {
            let padded: Vec<String> =
                line.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
            text.push_str(padded.join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["A", "LONG", "C"]);
        table.row(["1".into(), "2".into(), "3".into()]);
        table.row(["wide ümlaut".into(), String::new(), "x".into()]);
        assert_eq!(
            table.render("none"),
            "A            LONG  C\n1            2     3\nwide ümlaut  -     x\n"
        );
    }

    #[test]
    fn no_rows_say_so() {
        assert_eq!(Table::new(&["A"]).render("no peers"), "no peers\n");
    }

    #[test]
    fn a_column_that_says_nothing_is_left_out() {
        let mut table = Table::new(&["I", "A"]);
        table.row(["dmvpn0".into(), "1".into()]);
        table.row(["dmvpn0".into(), "2".into()]);
        assert_eq!(table.clone().without_constant(&["I"]).render(""), "A\n1\n2\n");
        table.row(["dmvpn1".into(), "3".into()]);
        assert!(table.without_constant(&["I"]).render("").starts_with("I       A\n"));
    }
}
