//! What changed of the way out.

use super::{
    Changes, Named,
    words::{egress_leaves, egress_listener_leaves, egress_rule_leaves, egress_source_leaves},
};
use crate::config::{
    Config,
    model::{Egress, EgressRule, Source},
};

impl Changes {
    pub(super) fn egress(&mut self, (old_config, old): (&Config, &Egress), (new_config, new): (&Config, &Egress)) {
        self.leaves("egress.", egress_leaves(old), egress_leaves(new));
        self.tables("egress listener", &old.listeners, &new.listeners, |out, subject, o, n| {
            out.leaves(subject, egress_listener_leaves(o), egress_listener_leaves(n));
        });
        self.tables("egress source", &old.sources, &new.sources, |out, subject, o, n| {
            out.leaves(subject, egress_source_leaves(o), egress_source_leaves(n));
        });
        self.tables("egress rule", &old.rules, &new.rules, |out, subject, o, n| {
            out.leaves(subject, egress_rule_leaves(old_config, o), egress_rule_leaves(new_config, n));
        });
    }
}

impl Named for Source {
    fn name(&self) -> &str {
        &self.name
    }
}

impl Named for EgressRule {
    fn name(&self) -> &str {
        &self.name
    }
}
