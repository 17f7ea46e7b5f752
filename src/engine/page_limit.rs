//! The size of the next page: smaller after a page that could not be read whole, larger again after good ones.

/// Good pages of one size before the next size is tried. With one good page only, every other request would fail behind a
/// proxy that always cuts large bodies.
const GOOD_BEFORE_GROWTH: u8 = 4;

/// How many entries to request per page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageLimit {
    limit: u16,
    min: u16,
    max: u16,
    good: u8,
}

impl PageLimit {
    /// Begins with the largest page. Pages smaller than `min` are not requested.
    pub(super) const fn between(min: u16, max: u16) -> Self {
        Self { limit: max, min, max, good: 0 }
    }

    /// The limit of the next request.
    pub(super) const fn get(self) -> u16 {
        self.limit
    }

    /// Halves the limit. Returns `false` if it was the smallest already.
    pub(super) fn shrink(&mut self) -> bool {
        let before = self.limit;
        *self = Self { limit: (before / 2).max(self.min), good: 0, ..*self };
        self.limit < before
    }

    /// Notes a page that was read whole. Returns the new limit if it grew.
    pub(super) fn note_good(&mut self) -> Option<u16> {
        if self.limit == self.max {
            return None;
        }
        self.good += 1;
        if self.good < GOOD_BEFORE_GROWTH {
            return None;
        }
        *self = Self { limit: self.limit.saturating_mul(2).min(self.max), good: 0, ..*self };
        Some(self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shrinks_to_the_smallest_and_grows_back() {
        let mut limit = PageLimit::between(10, 1000);
        let mut seen = vec![limit.get()];
        while limit.shrink() {
            seen.push(limit.get());
        }
        assert_eq!(seen, [1000, 500, 250, 125, 62, 31, 15, 10]);
        let mut grown = Vec::new();
        for _ in 0..40 {
            grown.extend(limit.note_good());
        }
        assert_eq!(grown, [20, 40, 80, 160, 320, 640, 1000]);
    }

    #[test]
    fn failure_starts_the_count_again() {
        let mut limit = PageLimit::between(10, 1000);
        limit.shrink();
        for _ in 0..10 {
            for _ in 0..GOOD_BEFORE_GROWTH - 1 {
                assert_eq!(limit.note_good(), None);
            }
            limit.shrink();
        }
        assert_eq!(limit.get(), 10);
    }
}
