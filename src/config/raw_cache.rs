//! What a route answers out of memory, as it is written: `cache` and `fallback`.

use super::{
    raw_handling::Status,
    read::table,
    words::{FilePath, MediaType, Text},
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
