//! Tables: etcdctl's, drawn in a grid, and ours, in plain columns.

/// etcdctl's grid: titles centred, cells to the right.
pub(crate) fn grid(titles: &[&str], rows: &[Vec<String>]) -> String {
    let widths = widths(titles, rows);
    let rule: String = widths.iter().map(|width| format!("+{}", "-".repeat(width + 2))).collect();
    let rule = format!("{rule}+\n");
    let mut out = rule.clone();
    for (title, width) in titles.iter().zip(&widths) {
        // `^` leaves the odd blank on the right, as the original does.
        out.push_str(&format!("| {title:^width$} "));
    }
    out.push_str("|\n");
    out.push_str(&rule);
    for row in rows {
        for (cell, width) in row.iter().zip(&widths) {
            out.push_str(&format!("| {cell:>width$} "));
        }
        out.push_str("|\n");
    }
    out.push_str(&rule);
    out
}

/// Which side of its column a cell keeps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// For names.
    Left,
    /// For numbers, so that their digits line up.
    Right,
}

/// Plain columns two blanks apart, nothing behind the last cell.
pub(crate) fn columns(titles: &[(&str, Side)], rows: &[Vec<String>]) -> String {
    let names: Vec<&str> = titles.iter().map(|(name, _)| *name).collect();
    let widths = widths(&names, rows);
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells
            .zip(titles.iter().zip(&widths))
            .map(|(cell, ((_, side), &width))| match side {
                Side::Left => format!("{cell:<width$}"),
                Side::Right => format!("{cell:>width$}"),
            })
            .collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    let mut out = line(&mut names.iter().copied());
    for row in rows {
        out.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    out
}

/// A table before it is drawn, for a terminal or for a page.
pub(crate) struct Table {
    titles: Vec<(&'static str, Side)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Numbers under all titles, but for names `left`.
    pub(crate) fn new(titles: &[&'static str], left: &[&str], rows: Vec<Vec<String>>) -> Self {
        let side = |title| if left.contains(title) { Side::Left } else { Side::Right };
        Self { titles: titles.iter().map(|title| (*title, side(title))).collect(), rows }
    }

    /// In plain columns.
    pub(crate) fn text(&self) -> String {
        columns(&self.titles, &self.rows)
    }

    /// In Markdown, as GitHub and others draw it. Cells hold no vertical bars.
    pub(crate) fn markdown(&self) -> String {
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
        };
        let rule = |side| if side == Side::Left { "---|" } else { "---:|" };
        let rule: String = self.titles.iter().map(|(_, side)| rule(*side)).collect();
        let mut out = line(&mut self.titles.iter().map(|(name, _)| *name));
        out.push_str(&format!("|{rule}\n"));
        self.rows.iter().for_each(|row| out.push_str(&line(&mut row.iter().map(String::as_str))));
        out
    }
}

/// What a cell shows: a dash where there is nothing.
pub(crate) fn or_dash<T>(value: Option<T>, shown: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), shown)
}

fn widths(titles: &[&str], rows: &[Vec<String>]) -> Vec<usize> {
    let mut widths: Vec<usize> = titles.iter().map(|title| title.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    widths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_as_etcdctl_draws_it() {
        let rows = [vec!["127.0.0.1:1".to_owned(), "true".to_owned(), "1.7ms".to_owned(), String::new()]];
        assert_eq!(
            grid(&["ENDPOINT", "HEALTH", "TOOK", "ERROR"], &rows),
            "\
+-------------+--------+-------+-------+
|  ENDPOINT   | HEALTH | TOOK  | ERROR |
+-------------+--------+-------+-------+
| 127.0.0.1:1 |   true | 1.7ms |       |
+-------------+--------+-------+-------+
"
        );
    }

    #[test]
    fn a_grid_without_rows_still_has_all_its_rules() {
        assert_eq!(grid(&["ID"], &[]), "+----+\n| ID |\n+----+\n+----+\n");
    }

    #[test]
    fn columns_line_up_and_end_with_the_last_cell() {
        let rows = [vec!["n1".to_owned(), "7".to_owned()], vec!["node2".to_owned(), "1842".to_owned()]];
        assert_eq!(
            columns(&[("NAME", Side::Left), ("SLOT", Side::Right)], &rows),
            "NAME   SLOT\nn1        7\nnode2  1842\n"
        );
    }

    #[test]
    fn a_table_is_the_same_for_a_terminal_and_a_page() {
        let table = Table::new(&["NAME", "SLOT"], &["NAME"], vec![vec!["n1".to_owned(), "7".to_owned()]]);
        assert_eq!(table.markdown(), "| NAME | SLOT |\n|---|---:|\n| n1 | 7 |\n");
        assert_eq!(table.text(), "NAME  SLOT\nn1       7\n");
        assert_eq!([Some(7), None].map(|cell| or_dash(cell, |slot| slot.to_string())), ["7", "-"]);
    }
}
