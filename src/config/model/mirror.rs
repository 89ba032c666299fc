//! `mirror = { … }` of a function: copies of requests, to try a version without callers.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use http::Method;

use super::{Share, VersionId};

/// `mirror = { version = "v42", share = 10, methods = ["GET"], concurrency = 10, timeout = "10s", max_body = "64KiB" }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// Who gets the copies.
    pub version: VersionId,
    /// Of the requests with such a method that go to other versions. Above zero.
    pub share: Share,
    pub methods: Arc<[Method]>,
    /// Copies under way at a time, of all workers.
    pub concurrency: NonZeroU32,
    /// The whole of a copy's call.
    pub timeout: Duration,
    /// In bytes.
    pub max_body: usize,
}

impl Mirror {
    /// What is safe (RFC 9110 §9.2.1): a function may be asked twice.
    pub const SAFE: [Method; 3] = [Method::GET, Method::HEAD, Method::OPTIONS];
    pub const CONCURRENCY: u32 = 10;
    pub const TIMEOUT: Duration = Duration::from_secs(10);
    pub const MAX_BODY: u64 = 64 << 10;
    /// The most that `max_body` can be: `concurrency` times as much is kept at the most.
    pub const LARGEST: u64 = 16 << 20;
}
