//! A function's mirror, in words.

use super::{Leaf, duration, size};
use crate::config::model::{Function, Mirror};

pub(super) fn mirror_leaves(function: &Function) -> Vec<Leaf> {
    let of = function.mirror.as_deref();
    let leaf = |key, words: fn(&Function, &Mirror) -> String| {
        Leaf::option(key, "no mirror", of.map(|mirror| words(function, mirror)))
    };
    vec![
        leaf("mirror.version", |function, mirror| function.versions[mirror.version.index()].name.to_string()),
        leaf("mirror.share", |_, mirror| format!("{} %", mirror.share)),
        leaf("mirror.methods", |_, mirror| {
            mirror.methods.iter().map(http::Method::as_str).collect::<Vec<_>>().join(", ")
        }),
        leaf("mirror.concurrency", |_, mirror| mirror.concurrency.to_string()),
        leaf("mirror.timeout", |_, mirror| duration(mirror.timeout)),
        leaf("mirror.max_body", |_, mirror| size(mirror.max_body as u64)),
    ]
}
