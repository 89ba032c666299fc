//! JSON objects as the rows of a table.

use std::borrow::Cow;

use serde_json::Value;

use super::term::clean;

/// The header line and a line for each of `rows`; a key that a row lacks is `-` there.
pub(super) fn of(rows: &[Value]) -> Vec<String> {
    let mut columns: Vec<&str> = Vec::new();
    for key in rows.iter().filter_map(Value::as_object).flat_map(|row| row.keys()) {
        if !columns.contains(&key.as_str()) {
            columns.push(key);
        }
    }
    let mut lines = vec![columns.iter().map(|&column| column.to_owned()).collect::<Vec<_>>()];
    lines.extend(
        rows.iter()
            .map(|row| columns.iter().map(|&column| row.get(column).map_or_else(|| "-".to_owned(), cell)).collect()),
    );
    aligned(&lines)
}

/// Cells in columns, two blanks between them, none at a line's end. What a cell holds stays in its line.
pub(super) fn aligned(lines: &[Vec<String>]) -> Vec<String> {
    let lines: Vec<Vec<_>> = lines.iter().map(|line| line.iter().map(|cell| clean(cell)).collect()).collect();
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|i| lines.iter().filter_map(|line| line.get(i)).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    let padded = |line: &Vec<Cow<'_, str>>| {
        let cells: Vec<_> = line.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    lines.iter().map(padded).collect()
}

/// A value in one line.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => {
            fields.iter().map(|(key, value)| format!("{key}={}", cell(value))).collect::<Vec<_>>().join(" ")
        }
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_line_up_and_nested_values_stay_in_their_cell() {
        let rows =
            [json!({ "name": "a", "share": { "v1": 95, "v2": 5 } }), json!({ "name": "long", "tags": ["x", "y"] })];
        let expected = "\
name  share       tags
a     v1=95 v2=5  -
long  -           x, y";
        assert_eq!(of(&rows).join("\n"), expected);
        let rows = [json!({ "name": "a\nb\u{1b}[2J" })];
        assert_eq!(of(&rows).join("|"), "name|a\\u000ab\\u001b[2J");
    }
}
