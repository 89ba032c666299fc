//! What a route answers out of memory, as it is written: `cache` and `fallback`.

use super::{
    model::CacheKey,
    raw_handling::Status,
    read::table,
    source::At,
    words::{FilePath, MediaType, PatienceOrNone, Size, Text},
};

table! {
    struct Fallback {
        /// Default: the failure's own.
        status: Status,
        /// The body's text.
        body: Text,
        /// A file with the body, of at most 1 MiB.
        file: FilePath,
        /// Default: by the file's ending; of a text, `text/plain; charset=utf-8`.
        content_type: MediaType,
    }
}

table! {
    struct Cache {
        /// How long an answer is kept for others who ask the same; `0s`: only those who ask meanwhile share it.
        ttl: PatienceOrNone [required],
        /// What belongs to the question beside host, path and query: `header:NAME`, `cookie:NAME`, `client`, `client_ip`; with `query:NAME`, only these of the query.
        key: Vec<At<CacheKey>>,
        /// The largest body that is kept. Default `1MiB`.
        max_body: Size,
        /// What all answers of the route may take together. Default `64MiB`.
        max_size: Size,
        /// How long an answer may stand in, once `ttl` is over, where the function fails. Default `0s`.
        stale_if_error: PatienceOrNone,
        /// How long a request waits for the answer to another that asked the same. Default `5s`.
        wait: PatienceOrNone,
    }
}
