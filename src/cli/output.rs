//! Results on stdout: tables for people, JSON with stable keys for scripts.

use std::io::Write as _;

use serde::Serialize;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    #[default]
    Text,
    Json,
}

impl Output {
    /// Prints a result in the chosen form; `text` is only made when it is wanted, and ends in a line break.
    pub fn print<T: Serialize>(self, result: &T, text: impl FnOnce() -> String) -> anyhow::Result<()> {
        let text = match self {
            Output::Text => text(),
            Output::Json => serde_json::to_string_pretty(result)? + "\n",
        };
        print(&text)
    }
}

/// Writes to stdout as it is. A reader that went away is an error that [`super::main`] knows.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    Ok(())
}

/// A table as text: columns as wide as they must be, numbers to the right.
#[derive(Debug)]
pub struct Grid {
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Grid {
    pub fn new(head: &[&'static str]) -> Self {
        Grid { head: head.to_vec(), rows: Vec::new() }
    }

    /// A row with as many cells as the head; an empty cell shows as a dash.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells.into_iter().map(|cell| if cell.is_empty() { "-".to_string() } else { cell }).collect());
    }

    pub fn render(&self) -> String {
        let width_of = |text: &str| text.chars().count();
        let cells = |i: usize| self.rows.iter().filter_map(move |row| row.get(i));
        let columns: Vec<(usize, bool)> = (self.head.iter().enumerate())
            .map(|(i, head)| {
                let width = cells(i).map(|cell| width_of(cell)).max().unwrap_or(0).max(width_of(head));
                let mut numbers = cells(i).filter(|cell| *cell != "-").peekable();
                let right = numbers.peek().is_some()
                    && numbers.all(|cell| {
                        cell.starts_with(|c: char| c.is_ascii_digit() || c == '-')
                            && cell.replace(',', "").parse::<f64>().is_ok()
                    });
                (width, right)
            })
            .collect();
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let mut line = String::new();
            for (cell, (width, right)) in cells.zip(&columns) {
                let pad = " ".repeat(width.saturating_sub(width_of(cell)));
                let (before, after) = if *right { (pad.as_str(), "") } else { ("", pad.as_str()) };
                line += &format!("{before}{cell}{after}  ");
            }
            line.trim_end().to_string() + "\n"
        };
        let mut text = line(&mut self.head.iter().copied());
        for row in &self.rows {
            text += &line(&mut row.iter().map(String::as_str));
        }
        text
    }
}

/// `1,234,567`, for people.
pub fn thousands(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if number < 0 { format!("-{text}") } else { text }
}

/// `12s`, `3m 20s`, `2h 5m`, `4d 3h`: the two largest units.
pub fn ago(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_lines_up() {
        let mut grid = Grid::new(&["TOPIC", "LAG", "STATE"]);
        grid.row(vec!["orders".into(), thousands(1_234_567), "running".into()]);
        grid.row(vec!["größe".into(), thousands(7), String::new()]);
        assert_eq!(grid.render(), "TOPIC         LAG  STATE\norders  1,234,567  running\ngröße           7  -\n");
        assert_eq!(thousands(-1000), "-1,000");
        assert_eq!([ago(5.9), ago(200.0), ago(7500.0), ago(90_000.0)], ["5s", "3m 20s", "2h 5m", "1d 1h"]);
    }
}
