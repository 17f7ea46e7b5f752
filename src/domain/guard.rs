//! The guard's limit on first denials.

use std::fmt;
use std::str::FromStr;

/// How many users may be denied for the first time within a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DenialsMax {
    /// This many users.
    Users(u64),
    /// A share of the known users, in hundredths of a percent.
    Share(u32),
}

impl DenialsMax {
    /// The limit in users, when this many are known. A share of some users is at least one user.
    pub fn of(self, known: u64) -> u64 {
        match self {
            Self::Users(users) => users,
            Self::Share(share) => known.saturating_mul(share.into()).div_ceil(10_000),
        }
    }
}

impl From<u64> for DenialsMax {
    fn from(users: u64) -> Self {
        Self::Users(users)
    }
}

impl FromStr for DenialsMax {
    type Err = ();

    /// Parses `200` and `2.5%`.
    fn from_str(text: &str) -> Result<Self, ()> {
        let Some(percent) = text.trim().strip_suffix('%') else {
            return text.trim().parse().map(Self::Users).map_err(|_| ());
        };
        let (whole, fraction) = percent.trim().split_once('.').unwrap_or((percent.trim(), ""));
        let is_number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || fraction.len() > 2 || !is_number(whole) || !is_number(fraction) {
            return Err(());
        }
        let share: u32 = format!("{whole}{fraction:0<2}").parse().map_err(|_| ())?;
        if (1..=10_000).contains(&share) { Ok(Self::Share(share)) } else { Err(()) }
    }
}

impl fmt::Display for DenialsMax {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Users(users) => write!(f, "{users}"),
            Self::Share(share) if share % 100 == 0 => write!(f, "{}%", share / 100),
            Self::Share(share) => {
                write!(f, "{}.{}%", share / 100, format!("{:02}", share % 100).trim_end_matches('0'))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_numbers_or_percentages() {
        for (text, limit) in [
            ("200", DenialsMax::Users(200)),
            ("0", DenialsMax::Users(0)),
            ("2%", DenialsMax::Share(200)),
            (" 0.25 % ", DenialsMax::Share(25)),
            ("100%", DenialsMax::Share(10_000)),
        ] {
            assert_eq!(text.parse(), Ok(limit), "{text}");
        }
        for text in ["", "%", "0%", "101%", "2.555%", "two", "-1%", "-1", ".5%", "2.x%"] {
            assert_eq!(text.parse::<DenialsMax>(), Err(()), "{text}");
        }
        assert_eq!([200, 25, 250].map(|share| DenialsMax::Share(share).to_string()), ["2%", "0.25%", "2.5%"]);
    }

    #[test]
    fn share_is_rounded_up() {
        let two_percent = DenialsMax::Share(200);
        assert_eq!([0, 1, 50, 51, 10_000].map(|known| two_percent.of(known)), [0, 1, 1, 2, 200]);
        assert_eq!(DenialsMax::Users(7).of(0), 7);
    }
}
