//! Tables in plain text.

use serde_json::Value;

/// Rows of cells under headings: words to the left, numbers to the right.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new<const N: usize>(headings: [&str; N]) -> Table {
        Table { rows: vec![headings.map(String::from).to_vec()] }
    }

    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }

    /// A list of objects, one per row, by heading.
    pub fn to_json(&self) -> Value {
        let object = |row: &Vec<String>| {
            self.rows[0].iter().zip(row).map(|(k, v)| (k.clone(), v.clone().into())).collect::<serde_json::Map<_, _>>()
        };
        self.rows[1..].iter().map(object).collect()
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.rows[0].len();
        let width = |c: usize| self.rows.iter().map(|r| r[c].chars().count()).max().unwrap_or(0);
        let numeric = |c: usize| {
            let number = |cell: &String| cell.is_empty() || cell.starts_with(|x: char| x.is_ascii_digit());
            self.rows.len() > 1 && self.rows[1..].iter().all(|r| number(&r[c]))
        };
        for row in &self.rows {
            let mut line = String::new();
            for (c, cell) in row.iter().enumerate() {
                let gap = if c + 1 < columns { "  " } else { "" };
                line += &match numeric(c) {
                    true => format!("{cell:>width$}{gap}", width = width(c)),
                    false => format!("{cell:width$}{gap}", width = width(c)),
                };
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}
