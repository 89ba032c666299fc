//! Who goes next: by criticality, and of the same one who came first. Pure.
//!
//! Each lane is for itself: who waits for a full version stands in nobody else's way.

use std::collections::BTreeMap;

use crate::config::model::Criticality;

/// Those who wait. Everything here takes time by the logarithm of their number, and memory by their number.
#[derive(Debug)]
pub(super) struct Queue<T> {
    /// By lane, then criticality, then number.
    lanes: Vec<[BTreeMap<u64, T>; 3]>,
    len: usize,
    next: u64,
}

/// A place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    lane: usize,
    criticality: Criticality,
    number: u64,
}

impl Ticket {
    pub(super) fn lane(self) -> usize {
        self.lane
    }
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        Self { lanes: Vec::new(), len: 0, next: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn lane_is_empty(&self, lane: usize) -> bool {
        self.lanes.get(lane).is_none_or(|classes| classes.iter().all(BTreeMap::is_empty))
    }

    /// The end of its lane and criticality; what stands there is made of its ticket.
    pub(super) fn push(&mut self, lane: usize, criticality: Criticality, value: T) -> Ticket {
        if self.lanes.len() <= lane {
            self.lanes.resize_with(lane + 1, Default::default);
        }
        let number = self.next;
        self.next += 1;
        self.len += 1;
        if let Some(classes) = self.lanes.get_mut(lane) {
            classes[criticality as usize].insert(number, value);
        }
        Ticket { lane, criticality, number }
    }

    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<T> {
        let classes = self.lanes.get_mut(ticket.lane)?;
        let value = classes[ticket.criticality as usize].remove(&ticket.number)?;
        self.len -= 1;
        Some(value)
    }

    /// Who goes next, of the lanes that have room.
    pub(super) fn first(&self, has_room: impl Fn(usize) -> bool) -> Option<Ticket> {
        Criticality::ALL.into_iter().find_map(|criticality| {
            let firsts = self.lanes.iter().enumerate().filter_map(|(lane, classes)| {
                let (number, _) = classes[criticality as usize].first_key_value()?;
                Some(Ticket { lane, criticality, number: *number })
            });
            firsts.filter(|ticket| has_room(ticket.lane)).min_by_key(|ticket| ticket.number)
        })
    }

    /// Who has to go for one that is more critical: of the least critical the youngest.
    pub(super) fn last_below(&self, criticality: Criticality) -> Option<Ticket> {
        Criticality::ALL.into_iter().rev().take_while(|lower| *lower > criticality).find_map(|criticality| {
            let lasts = self.lanes.iter().enumerate().filter_map(|(lane, classes)| {
                let (number, _) = classes[criticality as usize].last_key_value()?;
                Some(Ticket { lane, criticality, number: *number })
            });
            lasts.max_by_key(|ticket| ticket.number)
        })
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
