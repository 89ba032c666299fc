//! What belongs to a question, for a route's cache.

use serde_json::{Value as Json, json};

use super::http_words::{named, unknown_word};
use crate::config::{
    model::CacheKey,
    read::{Complaint, Word, words},
};

impl Word for CacheKey {
    const EXPECTED: &'static str = "`header:NAME`, `cookie:NAME`, `query:NAME`, `client` or `client_ip`";

    fn parse(text: &str) -> Result<Self, Complaint> {
        match text.split_once(':') {
            None => match text {
                "client" => Ok(Self::Client),
                "client_ip" => Ok(Self::ClientIp),
                "host" | "path" | "version" | "query" => {
                    Err(Complaint::new(format!("`{text}` belongs to the key always")).help("take it out"))
                }
                _ => Err(unknown_word(text, &["client", "client_ip"])),
            },
            Some(pair) => named(pair, Self::Header, Self::Cookie, Self::Query),
        }
    }

    fn form() -> Json {
        json!({ "pattern": "^(client|client_ip|header:.+|cookie:.+|query:.+)$" })
    }
}

words!(CacheKey);
