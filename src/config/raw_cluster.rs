//! `[cluster]` as it is written.

use super::{
    model::RedisUrl,
    read::table,
    secret::SecretRef,
    words::{FilePath, KeyPrefix, MemberName, Text},
};

table! {
    struct Cluster {
        /// The Redis or Valkey that all members share: `redis://10.0.0.9:6379`, `rediss://` for TLS, `/2` for database 2.
        redis: RedisUrl [required],
        /// Whom to log in as there. Default: its default user.
        username: Text,
        /// The password of that user.
        password: SecretRef,
        /// The authorities that vouch for a `rediss://` server. Default: the system's.
        ca: FilePath,
        /// What all keys there begin with; members with the same share. Default `gatepost`.
        prefix: KeyPrefix,
        /// What this member is called. Default: the host's name.
        member: MemberName,
    }
}
