//! What a probe asks for.

use serde_json::{Value as Json, json};

use crate::config::read::{Complaint, Word, words};

/// Path and query, as they are sent.
#[derive(Debug, Clone)]
pub(in crate::config) struct ProbePath(pub(in crate::config) String);

const LONGEST: usize = 1024;

impl Word for ProbePath {
    const EXPECTED: &'static str = "a path such as `/health` or `/health?deep=1`";

    fn parse(text: &str) -> Result<Self, Complaint> {
        let shown = text.escape_debug();
        if !text.starts_with('/') {
            return Err(Complaint::new(format!("`{shown}` does not begin with `/`")));
        }
        // RFC 3986 §3.5: a fragment is never sent.
        if let Some(bad) = text.chars().find(|c| !c.is_ascii_graphic() || "#\"<>\\^`{|}".contains(*c)) {
            return Err(Complaint::new(format!("`{shown}` has a `{}`", bad.escape_debug()))
                .help("write it percent-encoded, as it is sent"));
        }
        if text.len() > LONGEST {
            return Err(Complaint::new(format!("a path of {} bytes: at most {LONGEST}", text.len())));
        }
        Ok(Self(text.to_owned()))
    }

    fn form() -> Json {
        json!({ "pattern": "^/[!-~]*$", "maxLength": LONGEST })
    }
}

words!(ProbePath);
