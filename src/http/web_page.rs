//! Recognizes web pages: what a login page, a firewall or a captive portal sends instead of the API's response.

use reqwest::header::{CONTENT_TYPE, HeaderMap};

use crate::domain::escape::escape_bounded;

/// Longer titles are truncated, in characters.
const TITLE_CHARS_MAX: usize = 80;

/// What an operator can do about it.
pub(super) const REMEDY: &str = "is the URL right, and is a proxy, a firewall or a login page in between?";

/// Describes the page with its title; `None`: it is not one.
pub(super) fn describe(headers: &HeaderMap, body: &[u8]) -> Option<String> {
    let says_html = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("text/html"));
    let text = String::from_utf8_lossy(body.get(..body.len().min(16 * 1024)).unwrap_or_default());
    let lower = text.trim_start().to_ascii_lowercase();
    let looks_html = lower.starts_with("<!doctype html") || lower.starts_with("<html");
    if !looks_html && (!says_html || lower.starts_with(['{', '['])) {
        return None;
    }
    let title =
        title(&text).map_or_else(String::new, |title| format!(" (\"{}\")", escape_bounded(&title, TITLE_CHARS_MAX)));
    Some(format!("the response is a web page{title}, not the API's"))
}

fn title(text: &str) -> Option<String> {
    // ASCII case changes no byte positions.
    let lower = text.to_ascii_lowercase();
    let start = lower.find("<title")?;
    let start = start + lower.get(start..)?.find('>')? + 1;
    let end = start + lower.get(start..)?.find("</title")?;
    let title = text.get(start..end)?.split_whitespace().collect::<Vec<_>>().join(" ");
    (!title.is_empty()).then_some(title)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_told_from_json() {
        let html: HeaderMap = [(CONTENT_TYPE, "text/html; charset=utf-8".parse().unwrap())].into_iter().collect();
        let none = HeaderMap::new();
        for (headers, body, expected) in [
            (&html, "", Some("the response is a web page, not the API's")),
            (
                &none,
                "<!DOCTYPE html><TITLE>\n Just a moment… </title>",
                Some("the response is a web page (\"Just a moment…\"), not the API's"),
            ),
            (
                &none,
                " <html><title>a\u{1b}b</title>",
                Some("the response is a web page (\"a\\u{1b}b\"), not the API's"),
            ),
            (&html, "{\"error\":\"x\"}", None),
            (&none, "upstream connect error", None),
        ] {
            assert_eq!(describe(headers, body.as_bytes()).as_deref(), expected, "{body}");
        }
    }
}
