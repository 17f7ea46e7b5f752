//! The language of `GET /api/v2/users?q=…`: the part of Lucene's that Auth0 documents ("User search query syntax").

use serde_json::Value;

/// Queries that are nested deeper are refused.
const DEPTH_MAX: usize = 32;
/// Fields whose values are compared without regard to case; metadata is compared as it is.
const IGNORING_CASE: [&str; 9] =
    ["email", "name", "nickname", "given_name", "family_name", "username", "phone_number", "email.raw", "name.raw"];
/// The fields that the index covers. `email` is that of the primary identity. Whether the address of a linked identity is
/// compared without regard to case is not documented: here it is compared as it is.
const IDENTIFIERS: [&str; 3] = ["email", "identities.profileData.email", "identities.user_id"];
/// The fields that a term without a field searches.
const DEFAULT_FIELDS: [&str; 5] = ["email", "name", "nickname", "given_name", "family_name"];

/// A parsed query.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Query {
    Everything,
    Term { field: Option<String>, value: String, prefix: bool },
    Range { field: String, from: Bound, to: Bound },
    Exists(String),
    And(Box<Query>, Box<Query>),
    Or(Box<Query>, Box<Query>),
    Not(Box<Query>),
}

/// One end of a range; `None` is open.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Bound {
    value: Option<String>,
    inclusive: bool,
}

impl Query {
    /// Parses a query.
    ///
    /// # Errors
    /// A short description of what is wrong.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() || text.trim() == "*" {
            return Ok(Self::Everything);
        }
        let mut parser = Parser { tokens: tokens(text)?, at: 0 };
        let query = parser.either(0)?;
        match parser.peek() {
            None => Ok(query),
            Some(extra) => Err(format!("unexpected {extra:?}")),
        }
    }

    /// Returns whether the query matches this user.
    pub(super) fn finds(&self, user: &Value) -> bool {
        match self {
            Self::Everything => true,
            Self::And(one, other) => one.finds(user) && other.finds(user),
            Self::Or(one, other) => one.finds(user) || other.finds(user),
            Self::Not(inner) => !inner.finds(user),
            Self::Exists(field) => !values(user, field).is_empty(),
            Self::Range { field, from, to } => values(user, field).iter().any(|value| within(value, from, to)),
            Self::Term { field: Some(field), value, prefix } => matches(user, field, value, *prefix),
            Self::Term { field: None, value, prefix } => {
                DEFAULT_FIELDS.iter().any(|field| matches(user, field, value, *prefix))
            }
        }
    }

    /// A set of addresses and identities' ids, one of which every matching user has; `None` if the query does not determine
    /// one.
    pub(super) fn identifiers(&self) -> Option<Vec<&str>> {
        match self {
            Self::Term { field: Some(field), value, prefix: false } if IDENTIFIERS.contains(&field.as_str()) => {
                Some(vec![value])
            }
            Self::And(one, other) => one.identifiers().or_else(|| other.identifiers()),
            Self::Or(one, other) => Some([one.identifiers()?, other.identifiers()?].concat()),
            _ => None,
        }
    }

    /// The exact value of `field` that every matching user has; `None` if the query does not determine it.
    pub(super) fn required(&self, wanted: &str) -> Option<&str> {
        match self {
            Self::Term { field: Some(field), value, prefix: false } if field == wanted => Some(value),
            Self::And(one, other) => one.required(wanted).or_else(|| other.required(wanted)),
            _ => None,
        }
    }
}

fn matches(user: &Value, field: &str, value: &str, prefix: bool) -> bool {
    let ignoring_case = IGNORING_CASE.contains(&field);
    let fold = |text: &str| if ignoring_case { text.to_lowercase() } else { text.to_owned() };
    let value = fold(value);
    values(user, field)
        .iter()
        .map(|found| fold(found))
        .any(|found| if prefix { found.starts_with(&value) } else { found == value })
}

fn within(value: &str, from: &Bound, to: &Bound) -> bool {
    let order = |one: &str, other: &str| match (one.parse::<f64>(), other.parse::<f64>()) {
        (Ok(one), Ok(other)) => one.total_cmp(&other),
        _ => one.cmp(other),
    };
    let above = from.value.as_deref().is_none_or(|from_value| {
        let order = order(value, from_value);
        order.is_gt() || from.inclusive && order.is_eq()
    });
    let below = to.value.as_deref().is_none_or(|to_value| {
        let order = order(value, to_value);
        order.is_lt() || to.inclusive && order.is_eq()
    });
    above && below
}

/// Every scalar at the dotted path `field`, through lists on the way.
fn values(user: &Value, field: &str) -> Vec<String> {
    fn collect(value: &Value, path: &str, found: &mut Vec<String>) {
        match value {
            Value::Array(elements) => elements.iter().for_each(|element| collect(element, path, found)),
            Value::Object(fields) => {
                let (name, rest) = path.split_once('.').unwrap_or((path, ""));
                if let Some(inner) = fields.get(name) {
                    collect(inner, rest, found);
                }
            }
            Value::Null => {}
            _ if !path.is_empty() => {}
            Value::String(text) => found.push(text.clone()),
            Value::Bool(_) | Value::Number(_) => found.push(value.to_string()),
        }
    }
    let mut found = Vec::new();
    collect(user, field.strip_suffix(".raw").unwrap_or(field), &mut found);
    found
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Open,
    Close,
    And,
    Or,
    Not,
    /// A field with its colon.
    Field(String),
    /// A word, and whether it ended in `*`.
    Word(String, bool),
    Text(String),
    /// `[` or `{`, the text between, `]` or `}`.
    Range {
        inclusive_from: bool,
        inside: String,
        inclusive_to: bool,
    },
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(next) = rest.next() {
        match next {
            '(' => tokens.push(Token::Open),
            ')' => tokens.push(Token::Close),
            '-' | '!' => tokens.push(Token::Not),
            // `+` means AND; alone it changes nothing.
            '+' => {}
            '"' => tokens.push(Token::Text(quoted(&mut rest)?)),
            '[' | '{' => {
                let mut inside = String::new();
                let close = loop {
                    match rest.next() {
                        Some(close @ (']' | '}')) => break close,
                        Some(letter) => inside.push(letter),
                        None => return Err("a range is not closed".to_owned()),
                    }
                };
                tokens.push(Token::Range { inclusive_from: next == '[', inside, inclusive_to: close == ']' });
            }
            _ if next.is_whitespace() => {}
            _ => tokens.push(word(next, &mut rest)?),
        }
    }
    Ok(tokens)
}

type Letters<'a> = std::iter::Peekable<std::str::Chars<'a>>;

fn quoted(rest: &mut Letters<'_>) -> Result<String, String> {
    let mut text = String::new();
    loop {
        match rest.next() {
            Some('"') => return Ok(text),
            Some('\\') => text.push(rest.next().ok_or("a text ends in a backslash")?),
            Some(letter) => text.push(letter),
            None => return Err("a text is not closed".to_owned()),
        }
    }
}

fn word(first: char, rest: &mut Letters<'_>) -> Result<Token, String> {
    let mut word = String::new();
    let mut next = Some(first);
    while let Some(letter) = next {
        match letter {
            '\\' => word.push(rest.next().ok_or("a word ends in a backslash")?),
            '*' => {
                return match rest.peek() {
                    None => Ok(Token::Word(word, true)),
                    Some(end) if end.is_whitespace() || *end == ')' => Ok(Token::Word(word, true)),
                    Some(_) => Err("a wildcard is allowed only at the end of a word".to_owned()),
                };
            }
            ':' if word.is_empty() => return Err("a colon without a field".to_owned()),
            ':' => return Ok(Token::Field(word)),
            letter => word.push(letter),
        }
        next = rest.next_if(|c| !c.is_whitespace() && !"()[]{}\"".contains(*c));
    }
    Ok(match word.as_str() {
        "AND" | "&&" => Token::And,
        "OR" | "||" => Token::Or,
        "NOT" => Token::Not,
        _ => Token::Word(word, false),
    })
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.peek().cloned();
        self.at += 1;
        token
    }

    fn takes(&mut self, token: &Token) -> bool {
        let found = self.peek() == Some(token);
        self.at += usize::from(found);
        found
    }

    fn either(&mut self, depth: usize) -> Result<Query, String> {
        let mut left = self.both(depth)?;
        // Terms without an operator between them are alternatives: Lucene's default.
        while self.takes(&Token::Or) || !matches!(self.peek(), None | Some(Token::Close)) {
            left = Query::Or(Box::new(left), Box::new(self.both(depth)?));
        }
        Ok(left)
    }

    fn both(&mut self, depth: usize) -> Result<Query, String> {
        let mut left = self.one(depth)?;
        while self.takes(&Token::And) {
            left = Query::And(Box::new(left), Box::new(self.one(depth)?));
        }
        Ok(left)
    }

    fn one(&mut self, depth: usize) -> Result<Query, String> {
        if depth > DEPTH_MAX {
            return Err("nested too deeply".to_owned());
        }
        match self.next() {
            Some(Token::Not) => Ok(Query::Not(Box::new(self.one(depth + 1)?))),
            Some(Token::Open) => {
                let inner = self.either(depth + 1)?;
                if self.takes(&Token::Close) { Ok(inner) } else { Err("a parenthesis is not closed".to_owned()) }
            }
            Some(Token::Field(field)) => self.value(field, depth),
            Some(Token::Text(value)) => Ok(Query::Term { field: None, value, prefix: false }),
            Some(Token::Word(value, prefix)) => Ok(Query::Term { field: None, value, prefix }),
            other => Err(format!("expected a term, found {other:?}")),
        }
    }

    fn value(&mut self, field: String, depth: usize) -> Result<Query, String> {
        match self.next() {
            Some(Token::Word(exists, false)) if field == "_exists_" => Ok(Query::Exists(exists)),
            Some(Token::Word(word, true)) if word.is_empty() => Ok(Query::Exists(field)),
            Some(Token::Word(value, prefix)) => Ok(Query::Term { field: Some(field), value, prefix }),
            Some(Token::Text(value)) => Ok(Query::Term { field: Some(field), value, prefix: false }),
            Some(Token::Range { inclusive_from, inside, inclusive_to }) => {
                let (from, to) = inside.split_once(" TO ").ok_or("a range is [from TO to]")?;
                let bound = |text: &str, inclusive| Bound {
                    value: Some(text.trim().trim_matches('"').to_owned()).filter(|text| text != "*"),
                    inclusive,
                };
                Ok(Query::Range { field, from: bound(from, inclusive_from), to: bound(to, inclusive_to) })
            }
            Some(Token::Open) => self.alternatives(&field, depth + 1),
            other => Err(format!("expected a value of {field}, found {other:?}")),
        }
    }

    /// `field:("a" OR "b")`.
    fn alternatives(&mut self, field: &str, depth: usize) -> Result<Query, String> {
        let mut found = self.value(field.to_owned(), depth)?;
        loop {
            if self.takes(&Token::Close) {
                return Ok(found);
            }
            let both = self.takes(&Token::And);
            if !both {
                self.takes(&Token::Or);
            }
            let next = Box::new(self.value(field.to_owned(), depth)?);
            found = if both { Query::And(Box::new(found), next) } else { Query::Or(Box::new(found), next) };
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn queries_match_the_right_users() {
        let ann = json!({
            "user_id": "auth0|1", "email": "Ann@Example.com", "blocked": true, "logins_count": 7,
            "identities": [{ "connection": "google-oauth2" }, { "connection": "Users", "profileData": { "email": "b@x" } }],
            "app_metadata": { "okta_sync": { "deactivated": "true" } }, "name": "Ann Lee",
        });
        for (query, found) in [
            ("", true),
            ("*", true),
            (r#"email:"ann@example.COM""#, true),
            (r#"email:"ann@example.org""#, false),
            ("email:ann@example.com", true),
            ("email:ann*", true),
            ("user_id:\"AUTH0|1\"", false),
            (r"user_id:auth0\|1", true),
            (r#"identities.connection:"Users""#, true),
            (r#"identities.connection:"users""#, false),
            (r#"identities.profileData.email:"b@x""#, true),
            ("blocked:true", true),
            ("blocked:false", false),
            (r#"app_metadata.okta_sync.deactivated:"true""#, true),
            (r#"app_metadata.okta_sync.deactivated:"TRUE""#, false),
            ("_exists_:app_metadata.okta_sync.deactivated", true),
            ("_exists_:nickname", false),
            ("app_metadata.okta_sync.deactivated:*", true),
            ("logins_count:[1 TO 7]", true),
            ("logins_count:{7 TO *]", false),
            ("NOT blocked:true", false),
            ("-blocked:false AND email:ann*", true),
            ("blocked:false OR (email:ann* AND name:\"ann lee\")", true),
            ("blocked:false email:ann*", true),
            (r#"user_id:("auth0|0" OR "auth0|1")"#, true),
            ("\"ann lee\"", true),
        ] {
            assert_eq!(Query::parse(query).unwrap().finds(&ann), found, "{query}");
        }
    }

    #[test]
    fn malformed_queries_are_refused() {
        let deep = format!("{}a:b{}", "(".repeat(100), ")".repeat(100));
        for query in ["email:", ":x", "email:\"x", "(a:b", "a:b)", "a:[1 TO", "a:[1]", "a AND", "a:b*c", &deep] {
            assert!(Query::parse(query).is_err(), "{query}");
        }
    }

    #[test]
    fn required_value_of_query_is_found() {
        let query = Query::parse(r#"blocked:true AND email:"a@b""#).unwrap();
        assert_eq!(query.required("email"), Some("a@b"));
        assert_eq!(Query::parse(r#"blocked:true OR email:"a@b""#).unwrap().required("email"), None);
        assert_eq!(Query::parse("email:a*").unwrap().required("email"), None);
    }
}
