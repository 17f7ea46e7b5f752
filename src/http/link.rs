//! Parses the `Link` header (RFC 8288) as far as paging needs it: the target of one relation.
//!
//! Okta sends several header lines, and its targets contain filters with `,` and `;` (Okta docs: Core Okta API,
//! "Pagination"), so splitting at commas does not work.

use reqwest::header::{HeaderMap, LINK};

/// Longer `Link` header lines are ignored.
const LINE_BYTES_MAX: usize = 16 << 10;

/// Returns the first target with the relation `rel` (case-insensitive), unresolved: it may be relative.
pub fn target<'a>(headers: &'a HeaderMap, rel: &str) -> Option<&'a str> {
    headers
        .get_all(LINK)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .filter(|line| line.len() <= LINE_BYTES_MAX)
        .find_map(|line| in_line(line, rel))
}

fn in_line<'a>(line: &'a str, rel: &str) -> Option<&'a str> {
    let mut rest = line;
    while let Some((_, after)) = rest.split_once('<') {
        let (target, parameters) = after.split_once('>')?;
        let end = outside_quotes(parameters, ',').next().unwrap_or(parameters.len());
        if relations(&parameters[..end])
            .is_some_and(|all| all.split_whitespace().any(|one| one.eq_ignore_ascii_case(rel)))
        {
            return Some(target);
        }
        rest = &parameters[end..];
    }
    None
}

/// Returns the value of the first `rel` parameter; others are ignored (RFC 8288 §3.3).
fn relations(parameters: &str) -> Option<&str> {
    let mut start = 0;
    let ends = outside_quotes(parameters, ';').chain(std::iter::once(parameters.len()));
    for end in ends {
        let parameter = &parameters[start..end];
        start = (end + 1).min(parameters.len());
        if let Some((name, value)) = parameter.split_once('=')
            && name.trim().eq_ignore_ascii_case("rel")
        {
            return Some(value.trim().trim_matches('"'));
        }
    }
    None
}

/// The positions of `separator` (ASCII) outside quoted strings.
fn outside_quotes(text: &str, separator: char) -> impl Iterator<Item = usize> {
    let (mut quoted, mut escaped) = (false, false);
    text.char_indices().filter_map(move |(at, c)| {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if c == separator && !quoted => return Some(at),
            _ => {}
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use reqwest::header::HeaderValue;

    use super::*;

    fn headers(lines: &[&str]) -> HeaderMap {
        lines.iter().map(|line| (LINK, HeaderValue::from_str(line).unwrap())).collect()
    }

    #[test]
    fn finds_next_in_all_header_forms() {
        let next = "https://a.okta.com/api/v1/logs?after=1_1";
        for lines in [
            // Okta sends one header line for each link.
            vec![
                "<https://a.okta.com/api/v1/logs>; rel=\"self\"",
                "<https://a.okta.com/api/v1/logs?after=1_1>; rel=\"next\"",
            ],
            vec!["<x>; rel=self, <https://a.okta.com/api/v1/logs?after=1_1>; rel=next"],
            vec!["<https://a.okta.com/api/v1/logs?after=1_1>;title=\"a, <b>; rel=\\\"prev\\\"\";REL=\"start NEXT\""],
            vec!["<https://a.okta.com/api/v1/logs?after=1_1>;rel=\"next\"; rel=\"prev\",<y>"],
        ] {
            assert_eq!(target(&headers(&lines), "next"), Some(next), "{lines:?}");
        }
    }

    #[test]
    fn separators_inside_the_target_do_not_split_it() {
        let lines = headers(&["</api/v1/logs?filter=a,b;c&after=1>; rel=\"next\""]);
        assert_eq!(target(&lines, "next"), Some("/api/v1/logs?filter=a,b;c&after=1"));
    }

    #[test]
    fn ignores_links_without_rel_next() {
        for line in [
            "",
            "<x",
            "<x>",
            "<x>; rel",
            "<x>; rel=\"nextish\"",
            "<x>; title=\"rel=next\"",
            "rel=next",
            "<x>;rel=self, <y",
        ] {
            assert_eq!(target(&headers(&[line]), "next"), None, "{line}");
        }
        let long = format!("<{}>; rel=next", "x".repeat(LINE_BYTES_MAX));
        assert_eq!(target(&headers(&[&long]), "next"), None, "bounded");
    }

    proptest! {
        #[test]
        fn arbitrary_text_does_not_panic(line in "[ -~]{0,200}") {
            target(&headers(&[&line]), "next");
        }

        #[test]
        fn generated_links_are_parsed(path in "[a-z0-9?=&,;%/\"_.-]{1,80}") {
            let line = format!("<first>; rel=\"self\", <{path}>; rel=\"next\"");
            let headers = headers(&[&line]);
            prop_assert_eq!(target(&headers, "next"), Some(path.as_str()));
        }
    }
}
