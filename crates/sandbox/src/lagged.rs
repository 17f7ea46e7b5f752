//! A value that a search index sees later than a read by id does.

use std::time::Duration;

/// A value and its recent former values.
#[derive(Clone, Debug)]
pub(super) struct Lagged<T> {
    current: Option<T>,
    /// Former values and until when (monotonic time) each was current, oldest first; only those that the lag
    /// still makes visible.
    former: Vec<(Duration, Option<T>)>,
}

impl<T: Clone> Lagged<T> {
    /// A value that exists from `now` on.
    pub(super) fn born(value: T, now: Duration, lag: Duration) -> Self {
        let former = if lag.is_zero() { Vec::new() } else { vec![(now, None)] };
        Self { current: Some(value), former }
    }

    /// The current value.
    pub(super) fn current(&self) -> Option<&T> {
        self.current.as_ref()
    }

    /// The value, to change or remove it. The former value stays visible to the index for `lag`.
    pub(super) fn change(&mut self, now: Duration, lag: Duration) -> &mut Option<T> {
        if !lag.is_zero() {
            self.former.retain(|(until, _)| now.saturating_sub(*until) < lag);
            self.former.push((now, self.current.clone()));
        }
        &mut self.current
    }

    /// The value that an index with this `lag` sees at `now`.
    pub(super) fn indexed(&self, now: Duration, lag: Duration) -> Option<&T> {
        let seen = self.former.iter().find(|(until, _)| now.saturating_sub(*until) < lag);
        seen.map_or(self.current.as_ref(), |(_, former)| former.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_sees_the_value_of_a_lag_ago() {
        let s = Duration::from_secs;
        let lag = s(2);
        let mut value = Lagged::born("a", s(10), lag);
        assert_eq!(value.current(), Some(&"a"));
        assert_eq!(value.indexed(s(11), lag), None);
        assert_eq!(value.indexed(s(12), lag), Some(&"a"));
        *value.change(s(12), lag) = Some("b");
        *value.change(s(13), lag) = None;
        assert_eq!(value.current(), None);
        assert_eq!(value.indexed(s(13), lag), Some(&"a"));
        assert_eq!(value.indexed(s(14), lag), Some(&"b"));
        assert_eq!(value.indexed(s(15), lag), None);
    }

    #[test]
    fn without_a_lag_nothing_is_kept() {
        let mut value = Lagged::born(1, Duration::ZERO, Duration::ZERO);
        *value.change(Duration::from_secs(1), Duration::ZERO) = Some(2);
        assert!(value.former.is_empty());
        assert_eq!(value.indexed(Duration::from_secs(1), Duration::ZERO), Some(&2));
    }
}
