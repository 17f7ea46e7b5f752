//! A receiver for messages such as alarms.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::lock;

/// How many messages are kept: the newest.
const KEPT_MAX: usize = 1000;

/// The received messages. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Inbox(Arc<Mutex<VecDeque<Value>>>);

impl Inbox {
    pub(super) fn put(&self, message: Value) {
        let mut messages = lock(&self.0);
        if messages.len() == KEPT_MAX {
            messages.pop_front();
        }
        messages.push_back(message);
    }

    /// Oldest first.
    pub(super) fn messages(&self) -> Vec<Value> {
        lock(&self.0).iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_messages_are_kept_in_their_order() {
        let inbox = Inbox::default();
        for number in 0..=KEPT_MAX {
            inbox.put(number.into());
        }
        let messages = inbox.messages();
        assert_eq!((messages.len(), &messages[0], &messages[KEPT_MAX - 1]), (KEPT_MAX, &1.into(), &KEPT_MAX.into()));
    }
}
