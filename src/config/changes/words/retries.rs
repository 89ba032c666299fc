//! Retries, in words.

use super::{Leaf, duration, rate};
use crate::config::model::Retries;

pub(super) fn retry_leaves(retries: Option<&Retries>) -> Vec<Leaf> {
    const OFF: &str = "off";
    let (mut all, mut share, mut least, mut first, mut longest) = (None, None, None, None, None);
    if let Some(Retries { attempts, budget, floor, backoff, max_wait }) = retries {
        (all, share, least) = (Some(attempts), Some(format!("{budget} %")), Some(rate(*floor)));
        (first, longest) = (Some(duration(*backoff)), Some(duration(*max_wait)));
    }
    vec![
        Leaf::option("retries.attempts", OFF, all),
        Leaf::option("retries.budget", OFF, share),
        Leaf::option("retries.floor", OFF, least),
        Leaf::option("retries.backoff", OFF, first),
        Leaf::option("retries.max_wait", OFF, longest),
    ]
}
