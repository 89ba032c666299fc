//! The JSON Schema of the file, for editors: made from the same tables that the parser reads by.

use serde_json::{Value, json};

use super::{
    raw, raw_cluster, raw_ramp,
    read::{Read, Table},
};

/// The JSON Schema (2020-12) of a config file.
pub fn schema() -> Value {
    fn named<T: Table>(about: &str) -> Value {
        json!({
            "type": "object",
            "description": about,
            "additionalProperties": <T as Table>::schema(),
        })
    }
    fn single<T: Table>(about: &str) -> Value {
        let mut schema = <T as Table>::schema();
        schema["description"] = json!(about);
        schema
    }
    let mut networks = <raw::Networks as Read>::schema();
    networks["description"] = json!("Networks and addresses.");
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "gatepost",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "include": {
                "type": "array",
                "items": { "type": "string", "minLength": 1 },
                "description": "Globs of further files, from the main file's folder. Main file only.",
            },
            "server": single::<raw::Server>("The process. Main file only."),
            "admin": single::<raw::Admin>("Health, metrics and calls for the operator. Main file only."),
            "log": single::<raw::Log>("The access log. Main file only."),
            "networks": {
                "type": "object",
                "description": "Named lists of networks, used as `@name`.",
                "additionalProperties": networks,
            },
            "listener": named::<raw::Listener>("Where callers come in."),
            "client": named::<raw::Client>("Who may call."),
            "function": named::<raw::Function>("A function, its versions and their weights."),
            "route": named::<raw::Route>("Which requests go to which function."),
            "limit": named::<raw::Limit>("A limit that several routes share."),
            "egress": single::<crate::config::raw_egress::Egress>("The way out: who may go where, and from which address."),
            "credential": named::<raw::Credential>("What calls to functions are signed with."),
            "freeze": single::<raw_ramp::Freeze>("When no ramp moves."),
            "cluster": single::<raw_cluster::Cluster>("What several gateposts share. Main file only."),
        },
    })
}

#[cfg(test)]
mod tests;
