//! The cluster, in words.

use super::{Leaf, secret};
use crate::config::model::Cluster;

pub(in crate::config::changes) fn cluster_leaves(cluster: Option<&Cluster>) -> Vec<Leaf> {
    let none = "no cluster";
    // Taken apart so that a new field does not compile until it has words here.
    let of = cluster.map(|Cluster { redis, username, password, ca, prefix, member }| {
        (redis, username.as_deref(), password.as_ref(), ca.as_ref(), prefix, member.as_deref())
    });
    vec![
        Leaf::option("redis", none, of.map(|of| of.0)),
        Leaf::option("username", none, of.map(|of| of.1.unwrap_or("the default"))),
        Leaf::option("password", none, of.map(|of| of.2.map_or_else(|| "none".to_owned(), secret))),
        Leaf::option(
            "ca",
            none,
            of.map(|of| of.3.map_or_else(|| "the system's".to_owned(), |ca| ca.display().to_string())),
        ),
        Leaf::option("prefix", none, of.map(|of| of.4)),
        Leaf::option("member", none, of.map(|of| of.5.unwrap_or("the host's name"))),
    ]
}
