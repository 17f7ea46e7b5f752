//! The filter language of Okta's lists: SCIM expressions (RFC 7644 §3.4.2.2) without `[ ]`.

use std::borrow::Cow;
use std::cmp::Ordering;

/// Expressions that are nested deeper are refused.
const DEPTH_MAX: usize = 32;

/// A parsed expression.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expression {
    Compare { attribute: String, operator: Operator, value: String },
    Present(String),
    And(Box<Expression>, Box<Expression>),
    Or(Box<Expression>, Box<Expression>),
    Not(Box<Expression>),
}

/// How an attribute is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    Contains,
    StartsWith,
    EndsWith,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

impl Operator {
    fn named(word: &str) -> Option<Self> {
        Some(match word.to_ascii_lowercase().as_str() {
            "eq" => Self::Equal,
            "ne" => Self::NotEqual,
            "co" => Self::Contains,
            "sw" => Self::StartsWith,
            "ew" => Self::EndsWith,
            "gt" => Self::Greater,
            "ge" => Self::GreaterOrEqual,
            "lt" => Self::Less,
            "le" => Self::LessOrEqual,
            _ => return None,
        })
    }

    fn holds(self, found: &str, value: &str) -> bool {
        match self {
            Self::Equal => found == value,
            Self::NotEqual => found != value,
            Self::Contains => found.contains(value),
            Self::StartsWith => found.starts_with(value),
            Self::EndsWith => found.ends_with(value),
            Self::Greater => order(found, value).is_gt(),
            Self::GreaterOrEqual => order(found, value).is_ge(),
            Self::Less => order(found, value).is_lt(),
            Self::LessOrEqual => order(found, value).is_le(),
        }
    }
}

/// Times are ordered as times in any written form, everything else as text.
fn order(one: &str, other: &str) -> Ordering {
    match (one.parse::<jiff::Timestamp>(), other.parse::<jiff::Timestamp>()) {
        (Ok(one), Ok(other)) => one.cmp(&other),
        _ => one.cmp(other),
    }
}

/// The attributes on which an expression is evaluated.
pub(super) trait Attributes {
    /// Every value of `attribute`: none, one, or several if it belongs to the elements of a list.
    fn values(&self, attribute: &str) -> Vec<Cow<'_, str>>;

    /// Returns whether comparisons of `attribute` ignore case.
    fn ignores_case(&self, attribute: &str) -> bool;
}

impl Expression {
    /// Parses an expression.
    ///
    /// # Errors
    /// A short description of what is wrong.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut parser = Parser { tokens: tokens(text)?, at: 0 };
        let expression = parser.either(0)?;
        match parser.next() {
            None => Ok(expression),
            Some(extra) => Err(format!("unexpected {extra:?}")),
        }
    }

    /// Evaluates the expression.
    pub(super) fn holds(&self, of: &impl Attributes) -> bool {
        match self {
            Self::And(one, other) => one.holds(of) && other.holds(of),
            Self::Or(one, other) => one.holds(of) || other.holds(of),
            Self::Not(inner) => !inner.holds(of),
            Self::Present(attribute) => !of.values(attribute).is_empty(),
            Self::Compare { attribute, operator, value } => {
                let values = of.values(attribute);
                if of.ignores_case(attribute) {
                    let value = value.to_lowercase();
                    return values.iter().any(|found| operator.holds(&found.to_lowercase(), &value));
                }
                values.iter().any(|found| operator.holds(found, value))
            }
        }
    }

    /// Every attribute in the expression with its operator (`None` for `pr`).
    pub(super) fn mentions(&self) -> Vec<(&str, Option<Operator>)> {
        match self {
            Self::And(one, other) | Self::Or(one, other) => {
                let mut all = one.mentions();
                all.extend(other.mentions());
                all
            }
            Self::Not(inner) => inner.mentions(),
            Self::Present(attribute) => vec![(attribute, None)],
            Self::Compare { attribute, operator, .. } => vec![(attribute, Some(*operator))],
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Open,
    Close,
    Word(String),
    Text(String),
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(&next) = rest.peek() {
        match next {
            '(' | ')' => {
                rest.next();
                tokens.push(if next == '(' { Token::Open } else { Token::Close });
            }
            '"' => {
                rest.next();
                tokens.push(Token::Text(quoted(&mut rest)?));
            }
            _ if next.is_whitespace() => {
                rest.next();
            }
            _ => {
                let mut word = String::new();
                while let Some(letter) = rest.next_if(|c| !c.is_whitespace() && !"()\"".contains(*c)) {
                    word.push(letter);
                }
                tokens.push(Token::Word(word));
            }
        }
    }
    Ok(tokens)
}

/// The rest of a quoted string with JSON escapes.
fn quoted(rest: &mut impl Iterator<Item = char>) -> Result<String, String> {
    let mut raw = String::from('"');
    let mut escaped = false;
    for letter in rest.by_ref() {
        raw.push(letter);
        match letter {
            '"' if !escaped => return serde_json::from_str(&raw).map_err(|_| format!("bad text {raw}")),
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    Err("a text is not closed".to_owned())
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }

    fn takes(&mut self, keyword: &str) -> bool {
        let found = matches!(self.tokens.get(self.at), Some(Token::Word(word)) if word.eq_ignore_ascii_case(keyword));
        self.at += usize::from(found);
        found
    }

    fn either(&mut self, depth: usize) -> Result<Expression, String> {
        let mut left = self.both(depth)?;
        while self.takes("or") {
            left = Expression::Or(Box::new(left), Box::new(self.both(depth)?));
        }
        Ok(left)
    }

    fn both(&mut self, depth: usize) -> Result<Expression, String> {
        let mut left = self.one(depth)?;
        while self.takes("and") {
            left = Expression::And(Box::new(left), Box::new(self.one(depth)?));
        }
        Ok(left)
    }

    fn one(&mut self, depth: usize) -> Result<Expression, String> {
        if depth > DEPTH_MAX {
            return Err("nested too deeply".to_owned());
        }
        if self.takes("not") {
            return Ok(Expression::Not(Box::new(self.one(depth + 1)?)));
        }
        match self.next() {
            Some(Token::Open) => {
                let inner = self.either(depth + 1)?;
                match self.next() {
                    Some(Token::Close) => Ok(inner),
                    _ => Err("a parenthesis is not closed".to_owned()),
                }
            }
            Some(Token::Word(attribute)) => self.comparison(attribute),
            other => Err(format!("expected an attribute, found {other:?}")),
        }
    }

    fn comparison(&mut self, attribute: String) -> Result<Expression, String> {
        if self.takes("pr") {
            return Ok(Expression::Present(attribute));
        }
        let operator = match self.next() {
            Some(Token::Word(word)) => Operator::named(&word).ok_or_else(|| format!("{word} is not an operator"))?,
            other => return Err(format!("expected an operator, found {other:?}")),
        };
        let value = match self.next() {
            Some(Token::Text(text)) => text,
            // true, false, null and numbers are not quoted.
            Some(Token::Word(word)) if serde_json::from_str::<serde_json::Value>(&word).is_ok() => word,
            other => return Err(format!("expected a value, found {other:?}")),
        };
        Ok(Expression::Compare { attribute, operator, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Ann;

    impl Attributes for Ann {
        fn values(&self, attribute: &str) -> Vec<Cow<'_, str>> {
            match attribute {
                "id" => vec!["00u1".into()],
                "status" => vec!["ACTIVE".into()],
                "profile.email" => vec!["Ann@Example.com".into()],
                "lastUpdated" => vec!["2026-01-02T03:04:05.000Z".into()],
                "target.id" => vec!["00u1".into(), "0oa2".into()],
                _ => Vec::new(),
            }
        }

        fn ignores_case(&self, attribute: &str) -> bool {
            attribute.starts_with("profile.")
        }
    }

    #[test]
    fn expressions_are_evaluated() {
        for (text, holds) in [
            (r#"id eq "00u1""#, true),
            (r#"id ne "00u1""#, false),
            (r#"status eq "active""#, false),
            (r#"profile.email eq "ANN@example.COM""#, true),
            (r#"profile.email sw "ann@" and status eq "ACTIVE""#, true),
            (r#"profile.email co "example""#, true),
            (r#"profile.email ew ".org" or id pr"#, true),
            (r#"lastUpdated gt "2026-01-02T03:04:04Z""#, true),
            (r#"lastUpdated lt "2026-01-02T04:04:06+01:00""#, true),
            (r#"lastUpdated ge "2026-01-02T03:04:05Z" and lastUpdated le "2026-01-02T03:04:05Z""#, true),
            (r#"target.id eq "0oa2""#, true),
            (r"not (id pr)", false),
            (r"not id pr or status pr", true),
            (r#"(id eq "x" or id eq "00u1") and (status pr)"#, true),
            (r#"id eq "x" or id eq "00u1" and status eq "x""#, false),
            (r"nickname pr", false),
            (r"nickname eq true", false),
        ] {
            assert_eq!(Expression::parse(text).unwrap().holds(&Ann), holds, "{text}");
        }
    }

    #[test]
    fn texts_have_the_escapes_of_json() {
        let parsed = Expression::parse(r#"a eq "x\"y\\z\u0041 (b) or""#).unwrap();
        let expected =
            Expression::Compare { attribute: "a".into(), operator: Operator::Equal, value: r#"x"y\zA (b) or"#.into() };
        assert_eq!(parsed, expected);
    }

    #[test]
    fn invalid_expressions_are_refused() {
        let deep = format!("{}id pr{}", "(".repeat(100), ")".repeat(100));
        for text in [
            "",
            "id",
            "id eq",
            "id eq x",
            "id like \"x\"",
            "(id pr",
            "id pr)",
            "id eq \"x",
            "id pr and",
            "\"x\" pr",
            &deep,
        ] {
            assert!(Expression::parse(text).is_err(), "{text}");
        }
    }
}
