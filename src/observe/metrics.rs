//! wip
/// wip
#[derive(Debug)]
pub struct Metrics;
