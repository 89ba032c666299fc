//! Connections to mirrors: made once a config has a mirror, for they cost a little, and loading the system's certificates more.

use super::Service;
use crate::config::Config;

impl Service {
    /// Makes what the mirrors of `config` need, where that is not there yet.
    pub(super) fn connect_mirrors(&mut self, config: &Config) -> Result<(), String> {
        let wanted = config.functions.iter().any(|function| function.mirror.is_some()).then_some(self.roots);
        if wanted > self.mirrors_trust {
            self.workers.renew_mirrors(self.roots)?;
            self.mirrors_trust = wanted;
        }
        Ok(())
    }
}
