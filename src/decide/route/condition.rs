//! What a route asks of a request beside host and path.

use std::cmp::Reverse;

use http::{HeaderName, Method};

use crate::{
    config::model::{HeaderCondition, ListenerId, QueryCondition, Route},
    decide::{Facts, path::hex},
};

#[derive(Debug)]
pub(super) struct Conditions {
    listeners: Option<Box<[ListenerId]>>,
    /// With HEAD where GET is.
    methods: Option<Box<[Method]>>,
    names_head: bool,
    headers: Box<[HeaderCondition]>,
    query: Box<[QueryCondition]>,
    priority: i32,
}

/// The first condition that does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failed<'c> {
    Listener,
    Header(&'c HeaderName),
    Query(&'c str),
    /// Looked at last: where this is the answer, everything else holds.
    Method,
}

impl Conditions {
    pub(super) fn of(route: &Route) -> Self {
        let mut methods = route.methods.clone();
        let names_head = methods.as_ref().is_some_and(|methods| methods.contains(&Method::HEAD));
        // RFC 9110 §9.3.2: HEAD is GET without the content; §9.1: whoever serves one serves the other.
        if let Some(methods) = methods.as_mut().filter(|m| !names_head && m.contains(&Method::GET)) {
            methods.push(Method::HEAD);
        }
        Self {
            listeners: route.listeners.as_deref().map(Into::into),
            methods: methods.map(Into::into),
            names_head,
            headers: route.headers.as_slice().into(),
            query: route.query.as_slice().into(),
            priority: route.priority,
        }
    }

    /// Orders routes with the same host and path, the best first. A listener makes no route more specific. Of those that
    /// are alike otherwise, one that names HEAD comes before one that has it by its GET.
    pub(super) fn rank(&self) -> (Reverse<usize>, Reverse<i32>, Reverse<bool>) {
        (Reverse(self.count()), Reverse(self.priority), Reverse(self.names_head))
    }

    pub(super) fn count(&self) -> usize {
        usize::from(self.methods.is_some()) + self.headers.len() + self.query.len()
    }

    pub(super) fn priority(&self) -> i32 {
        self.priority
    }

    pub(super) fn names_head(&self) -> bool {
        self.names_head
    }

    pub(super) fn methods(&self) -> &[Method] {
        self.methods.as_deref().unwrap_or_default()
    }

    pub(super) fn check(&self, facts: &Facts<'_>) -> Result<(), Failed<'_>> {
        if let Some(listeners) = &self.listeners
            && !listeners.contains(&facts.listener)
        {
            return Err(Failed::Listener);
        }
        if let Some(missed) = self.headers.iter().find(|c| !header_holds(c, facts)) {
            return Err(Failed::Header(&missed.name));
        }
        if let Some(missed) = self.query.iter().find(|c| !query_holds(c, facts)) {
            return Err(Failed::Query(&missed.name));
        }
        match &self.methods {
            Some(methods) if !methods.contains(facts.method) => Err(Failed::Method),
            _ => Ok(()),
        }
    }
}

/// Any field line of that name will do.
fn header_holds(condition: &HeaderCondition, facts: &Facts<'_>) -> bool {
    match &condition.value {
        None => facts.headers.contains_key(&condition.name),
        Some(value) => (facts.headers.get_all(&condition.name).iter()).any(|line| line.as_bytes() == value.as_bytes()),
    }
}

/// Any pair with that key will do.
fn query_holds(condition: &QueryCondition, facts: &Facts<'_>) -> bool {
    let pairs = facts.query.unwrap_or_default().split('&');
    pairs.filter(|pair| !pair.is_empty()).any(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        is_decoded(key, &condition.name) && condition.value.as_ref().is_none_or(|v| is_decoded(value, v))
    })
}

/// Whether `written`, as a form sends it (`+` is a space; what is no escape stands for itself), means `meant`.
fn is_decoded(written: &str, meant: &str) -> bool {
    let mut meant = meant.bytes();
    let mut written = written.as_bytes();
    while let [byte, rest @ ..] = written {
        written = rest;
        let byte = match (*byte, rest) {
            (b'+', _) => b' ',
            (b'%', [high, low, rest @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => {
                    written = rest;
                    high << 4 | low
                }
                _ => b'%',
            },
            (byte, _) => byte,
        };
        if meant.next() != Some(byte) {
            return false;
        }
    }
    meant.next().is_none()
}
