//! The schema and the parser know the same keys.

use serde_json::Value;

use super::schema;
use crate::config::{Sources, parse};

/// Every table of the schema, with the TOML keys that lead to it and the names that it lists.
fn tables(schema: &Value, path: &str, found: &mut Vec<(String, Vec<String>)>) {
    if let Some(properties) = schema["properties"].as_object() {
        found.push((path.to_owned(), properties.keys().cloned().collect()));
        for (key, schema) in properties {
            let below = format!("{path}.{key}");
            tables(schema, below.trim_start_matches('.'), found);
        }
    }
    // The user's own names, and the entries of a list.
    tables_below(&schema["additionalProperties"], &format!("{path}.x"), found);
    tables_below(&schema["items"], &format!("{path}[]"), found);
    for (nth, one) in schema["anyOf"].as_array().into_iter().flatten().enumerate() {
        // The second kind of a route's limit is known by its key.
        let path = match path.rsplit('.').next() {
            Some("limits[]") if nth == 1 => format!("{path}use"),
            // So is a certificate that is ordered.
            Some("tls[]") if nth == 1 => format!("{path}acme"),
            _ => path.to_owned(),
        };
        tables(one, &path, found);
    }
}

fn tables_below(schema: &Value, path: &str, found: &mut Vec<(String, Vec<String>)>) {
    if schema.is_object() {
        tables(schema, path, found);
    }
}

/// The keys that the parser expects in a table: those that it names when it finds another.
fn expected(path: &str) -> Vec<String> {
    const STRANGER: &str = "qqqqqqqqqqqqqqqq";
    let text = if let Some(list) = path.strip_suffix("[]use") {
        format!("{list} = [{{ use = \"l\", {STRANGER} = 1 }}]\n")
    } else if let Some(list) = path.strip_suffix("[]acme.acme") {
        format!("{list} = [{{ acme = {{ {STRANGER} = 1 }} }}]\n")
    } else if let Some(list) = path.strip_suffix("[]acme") {
        format!("{list} = [{{ acme = {{}}, {STRANGER} = 1 }}]\n")
    } else if let Some(list) = path.strip_suffix("[]") {
        format!("{list} = [{{ {STRANGER} = 1 }}]\n")
    } else if path.is_empty() {
        format!("{STRANGER} = 1\n")
    } else {
        format!("[{path}]\n{STRANGER} = 1\n")
    };
    let report = parse(&Sources::new([("gatepost.toml", &text)])).expect_err("an unknown key");
    let problem = report
        .problems()
        .iter()
        .find(|problem| problem.message == format!("unknown key `{STRANGER}`"))
        .unwrap_or_else(|| panic!("{path}: {report}"));
    let label = problem.label.as_deref().unwrap_or_default();
    let names = label.split('`').skip(1).step_by(2).map(str::to_owned);
    names.collect()
}

#[test]
fn each_table_has_the_keys_that_the_parser_knows() {
    let mut found = Vec::new();
    tables(&schema(), "", &mut found);
    assert_eq!(found.len(), 73, "all tables were walked");
    for (path, mut names) in found {
        let mut known = expected(&path);
        names.sort();
        known.sort();
        assert_eq!(names, known, "[{path}]");
    }
}

#[test]
fn each_key_has_a_word_for_editors_and_none_is_open() {
    fn walk(schema: &Value, path: &str) {
        for (key, schema) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{key}");
            let about = schema["description"].as_str().unwrap_or_default();
            assert!(!about.is_empty(), "{path} has no description");
            walk(schema, &path);
        }
        if schema["properties"].is_object() {
            assert_eq!(schema["additionalProperties"], false, "{path} is open");
        }
        for below in ["additionalProperties", "items"] {
            if schema[below].is_object() {
                walk(&schema[below], path);
            }
        }
        for one in schema["anyOf"].as_array().into_iter().flatten() {
            walk(one, path);
        }
    }
    walk(&schema(), "");
}

/// Where the schema says which form a text has, the parser takes the examples of the same form.
#[test]
fn its_forms_hold_for_the_good_config() {
    let good: Value = toml::from_str(include_str!("../../../tests/it/good.toml")).expect("TOML");
    holds(&schema(), &good, "");
}

fn holds(schema: &Value, value: &Value, path: &str) {
    if let Err(why) = fits(schema, value, path) {
        panic!("{why}");
    }
}

/// As much of JSON Schema as ours uses.
fn fits(schema: &Value, value: &Value, path: &str) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("{path}: {what}: {value}"));
    if let Some(any) = schema["anyOf"].as_array() {
        let mut tried = any.iter().map(|schema| fits(schema, value, path));
        return match tried.find(Result::is_ok) {
            Some(_) => Ok(()),
            None => wrong("none of the forms"),
        };
    }
    if schema.get("const").is_some_and(|one| one != value) {
        return wrong("not the word");
    }
    if schema["enum"].as_array().is_some_and(|all| !all.contains(value)) {
        return wrong("not in the list");
    }
    let of_type = match schema["type"].as_str() {
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64(),
        Some("number") => value.is_number(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        _ => true,
    };
    if !of_type {
        return wrong("wrong type");
    }
    if let (Some(pattern), Some(text)) = (schema["pattern"].as_str(), value.as_str()) {
        let pattern = regex::Regex::new(pattern).expect("a pattern");
        if !pattern.is_match(text) {
            return wrong("not of the form");
        }
    }
    for entry in value.as_array().into_iter().flatten() {
        fits(&schema["items"], entry, path)?;
    }
    for (key, value) in value.as_object().into_iter().flatten() {
        let path = format!("{path}.{key}");
        match (&schema["properties"][key], &schema["additionalProperties"]) {
            (known @ Value::Object(_), _) | (_, known @ Value::Object(_)) => {
                fits(known, value, &path)?;
            }
            _ => return Err(format!("{path}: not in the schema")),
        }
    }
    Ok(())
}
