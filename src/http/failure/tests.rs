//! All statuses, documented and recorded bodies, and arbitrary input.

use proptest::prelude::*;
use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue};

use super::*;

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn of(remote: Remote, status: u16, body: &str) -> Failure {
    let status = StatusCode::from_u16(status).unwrap();
    let remedy = match remote {
        Remote::Okta => crate::okta::remedy::remedy,
        Remote::Auth0 => crate::auth0::remedy::remedy,
    };
    Failure::of_answer(remote, "GET /x", status, &HeaderMap::new(), body.as_bytes(), now()).with_remedy(remedy)
}

/// All statuses as ranges of one kind.
const STATUSES: &str = "\
100-399 malformed answer
400-400 rejected
401-401 unauthorized
402-402 rejected
403-403 forbidden
404-404 not found
405-406 rejected
407-407 unreachable
408-408 timed out
409-409 rejected
410-410 not found
411-420 rejected
421-421 server error
422-424 rejected
425-425 server error
426-428 rejected
429-429 rate limited
430-499 rejected
500-503 server error
504-504 timed out
505-599 server error
";

#[test]
fn every_status_has_its_kind() {
    for remote in [Remote::Okta, Remote::Auth0] {
        let mut runs: Vec<(u16, u16, Kind)> = Vec::new();
        for status in 100..=599 {
            let kind = of(remote, status, "").kind;
            match runs.last_mut() {
                Some((_, last, known)) if *known == kind => *last = status,
                _ => runs.push((status, status, kind)),
            }
        }
        let text: String =
            runs.iter().map(|(first, last, kind)| format!("{first}-{last} {}\n", kind.as_str())).collect();
        assert_eq!(text, STATUSES, "{remote}");
    }
}

/// All transport failures: what the server does, and the kind that results.
const TRANSPORTS: &str = "\
no listener: unreachable, remedy
no TLS: unreachable, remedy
closed before the response: unreachable, remedy
not HTTP: unreachable, remedy
truncated headers: unreachable, remedy
truncated body: unreachable, remedy
truncated chunk: unreachable, remedy
no response in time: timed out, remedy
stalled body: timed out, remedy
bad compression: malformed answer
body over the limit: answer too large
";

#[tokio::test]
async fn every_transport_error_has_its_kind() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use crate::domain::ManualClock;
    use crate::http::{Call, Http, HttpOptions, Limits};

    /// What the server does: nothing, or writes this text and then disconnects or not.
    enum Plays {
        Nothing,
        Writes(&'static str, bool),
    }
    use Plays::{Nothing, Writes};

    const BAD_GZIP: &str =
        "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 20\r\n\r\nthis is not gzip: no";
    let cases = [
        ("no listener", "http", Nothing),
        ("no TLS", "https", Writes("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n", true)),
        ("closed before the response", "http", Writes("", true)),
        ("not HTTP", "http", Writes("SSH-2.0-OpenSSH_9.9\r\n\r\n", true)),
        ("truncated headers", "http", Writes("HTTP/1.1 200 OK\r\ncontent-le", true)),
        ("truncated body", "http", Writes("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n[", true)),
        ("truncated chunk", "http", Writes("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n[", true)),
        ("no response in time", "http", Writes("", false)),
        ("stalled body", "http", Writes("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n[", false)),
        ("bad compression", "http", Writes(BAD_GZIP, true)),
        (
            "body over the limit",
            "http",
            Writes("HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n01234567890123456789", true),
        ),
    ];
    let http = Http::new(&HttpOptions { user_agent: "test".to_owned(), ..HttpOptions::default() }).unwrap();
    let clock = ManualClock::new(now());
    let mut texts = [String::new(), String::new()];
    for (name, scheme, plays) in cases {
        let stays = matches!(plays, Writes(_, false));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{scheme}://{}/canary", listener.local_addr().unwrap());
        let server = match plays {
            Nothing => {
                drop(listener);
                tokio::spawn(std::future::pending())
            }
            Writes(text, hangs_up) => tokio::spawn(async move {
                let mut kept = Vec::new();
                while let Ok((mut stream, _)) = listener.accept().await {
                    let mut request = [0; 4096];
                    let _ = stream.read(&mut request).await;
                    let _ = stream.write_all(text.as_bytes()).await;
                    if !hangs_up {
                        kept.push(stream);
                    }
                }
            }),
        };
        // The server never sends more, so a short timeout is enough.
        let timeout = if stays { Duration::from_millis(50) } else { Limits::PLAIN.timeout };
        for (remote, text) in [Remote::Okta, Remote::Auth0].into_iter().zip(&mut texts) {
            let limits = Limits { timeout, body_bytes_max: 10 };
            let call = Call { limits, ..Call::plain(remote, "GET /x") };
            let failure = http.send(call, http.client().get(&url), None, &clock).await.unwrap_err();
            assert_eq!(failure.remote, remote);
            assert!(!failure.to_string().contains("canary"), "{failure}");
            let remedy = if failure.remedy.is_some() { ", remedy" } else { "" };
            text.push_str(&format!("{name}: {}{remedy}\n", failure.kind.as_str()));
        }
        server.abort();
    }
    for text in texts {
        assert_eq!(text, TRANSPORTS);
    }
}

/// Documented and recorded bodies: status, body, kind, code, and a part of the remedy.
#[test]
fn documented_errors_are_classified() {
    use Remote::{Auth0, Okta};
    let cases = [
        (
            Okta,
            401,
            r#"{"errorCode":"E0000011","errorSummary":"Invalid token provided","errorCauses":[]}"#,
            Kind::Unauthorized,
            "E0000011",
            "30 days",
        ),
        (
            Okta,
            403,
            r#"{"errorCode":"E0000006","errorSummary":"You do not have permission"}"#,
            Kind::Forbidden,
            "E0000006",
            "role",
        ),
        (Okta, 404, r#"{"errorCode":"E0000007","errorSummary":"Not found"}"#, Kind::NotFound, "E0000007", ""),
        (
            Okta,
            429,
            r#"{"errorCode":"E0000047","errorSummary":"API call exceeded rate limit"}"#,
            Kind::RateLimited,
            "E0000047",
            "",
        ),
        // A slow query, with the code that otherwise means an invalid filter.
        (
            Okta,
            500,
            r#"{"errorCode":"E0000053","errorSummary":"Sorry, there's been an error"}"#,
            Kind::Server,
            "E0000053",
            "",
        ),
        (
            Okta,
            400,
            r#"{"error":"invalid_dpop_proof","error_description":"The DPoP proof JWT header is missing."}"#,
            Kind::Unauthorized,
            "invalid_dpop_proof",
            "okta.oauth.dpop",
        ),
        (
            Okta,
            401,
            r#"{"error":"invalid_client","error_description":"The client_assertion token has already been used"}"#,
            Kind::Unauthorized,
            "invalid_client",
            "repeated the request",
        ),
        (
            Okta,
            400,
            r#"{"error":"invalid_client","error_description":"The key is unknown"}"#,
            Kind::Unauthorized,
            "invalid_client",
            "key_id",
        ),
        (
            Okta,
            400,
            r#"{"error":"invalid_scope","error_description":"not granted"}"#,
            Kind::Forbidden,
            "invalid_scope",
            "okta.logs.read",
        ),
        (
            Okta,
            400,
            r#"{"error":"access_denied","error_description":"Policy evaluation failed"}"#,
            Kind::Forbidden,
            "access_denied",
            "network zone",
        ),
        (
            Auth0,
            401,
            r#"{"error":"access_denied","error_description":"Unauthorized"}"#,
            Kind::Unauthorized,
            "access_denied",
            "client_id",
        ),
        (
            Auth0,
            403,
            r#"{"error":"access_denied","error_description":"Client is not authorized to access \"https://t/api/v2/\". You need to create a \"client-grant\""}"#,
            Kind::Forbidden,
            "access_denied",
            "authorize the application",
        ),
        (
            Auth0,
            429,
            r#"{"error":"too_many_requests","error_description":"Client quota exceeded"}"#,
            Kind::RateLimited,
            "too_many_requests",
            "quota",
        ),
        (
            Auth0,
            401,
            r#"{"statusCode":401,"error":"Unauthorized","message":"Bad audience: https://x/"}"#,
            Kind::Unauthorized,
            "",
            "auth0.audience",
        ),
        (
            Auth0,
            400,
            r#"{"statusCode":400,"error":"Bad Request","message":"Bad HTTP authentication header format","errorCode":"Bearer"}"#,
            Kind::Unauthorized,
            "Bearer",
            "check",
        ),
        (
            Auth0,
            400,
            r#"{"statusCode":400,"error":"Bad Request","message":"Payload validation error","errorCode":"invalid_body"}"#,
            Kind::Rejected,
            "invalid_body",
            "",
        ),
        (
            Auth0,
            403,
            r#"{"statusCode":403,"error":"Forbidden","message":"Insufficient scope, expected any of: read:users","errorCode":"insufficient_scope"}"#,
            Kind::Forbidden,
            "insufficient_scope",
            "scopes: read:users",
        ),
        (
            Auth0,
            403,
            r#"{"statusCode":403,"error":"Forbidden","message":"Please upgrade your subscription","errorCode":"insufficient_scope"}"#,
            Kind::Forbidden,
            "insufficient_scope",
            "plan",
        ),
        (
            Auth0,
            403,
            r#"{"statusCode":403,"error":"Forbidden","message":"This feature …","errorCode":"insufficient_entitlement"}"#,
            Kind::Forbidden,
            "insufficient_entitlement",
            "plan",
        ),
        (
            Auth0,
            404,
            r#"{"statusCode":404,"error":"Not Found","message":"The user does not exist.","errorCode":"inexistent_user"}"#,
            Kind::NotFound,
            "inexistent_user",
            "",
        ),
        (
            Auth0,
            429,
            r#"{"statusCode":429,"error":"Too Many Requests","message":"Global limit has been reached","errorCode":"too_many_requests"}"#,
            Kind::RateLimited,
            "too_many_requests",
            "",
        ),
    ];
    for (remote, status, body, kind, code, remedy) in cases {
        let failure = of(remote, status, body);
        assert_eq!(failure.kind, kind, "{body}");
        assert_eq!(failure.code.as_deref().unwrap_or_default(), code, "{body}");
        let text = failure.remedy.clone().unwrap_or_default();
        assert!(if remedy.is_empty() { text.is_empty() } else { text.contains(remedy) }, "{body}: {text:?}");
        assert_eq!(failure.to_string().lines().count(), 1);
    }
}

#[test]
fn display_is_one_line_with_remedy() {
    let mut headers = HeaderMap::new();
    headers.insert("x-okta-request-id", HeaderValue::from_static("X0f5RrZD9OSTRQFRMU-oqAAAB1Y"));
    let body = br#"{"errorCode":"E0000006","errorSummary":"No.\n\u001b[31m","errorCauses":[{"errorSummary":"Why"}]}"#;
    let failure = Failure::of_answer(Remote::Okta, "GET /x", StatusCode::FORBIDDEN, &headers, body, now())
        .with_remedy(crate::okta::remedy::remedy);
    assert_eq!(
        failure.to_string(),
        "Okta GET /x: forbidden (403 E0000006): No.\\n\\u{1b}[31m; Why — give the credential an administrator role \
         that may read users and the System Log (least standard role: Read-only Administrator); a granted scope alone \
         is not enough [request X0f5RrZD9OSTRQFRMU-oqAAAB1Y]"
    );
}

#[test]
fn most_specific_request_id_header_wins() {
    let named = |pairs: &[(&'static str, &'static str)]| {
        let headers = pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect::<HeaderMap>();
        request_id(&headers)
    };
    // Auth0's Management API, its authorization server, and only a proxy.
    let (ray, auth0) = (("cf-ray", "7e2e6a80b99c392d-KUL"), ("ot-baggage-auth0-request-id", "7e2e6a80b99c392d"));
    assert_eq!(named(&[ray, auth0]).as_deref(), Some("7e2e6a80b99c392d"));
    assert_eq!(
        named(&[ray, auth0, ("x-auth0-requestid", "4ad55daa560e468bdfe1")]).as_deref(),
        Some("4ad55daa560e468bdfe1")
    );
    assert_eq!(named(&[ray]).as_deref(), Some("7e2e6a80b99c392d-KUL"));
    assert_eq!(named(&[("date", "Thu, 27 Aug 2020 18:19:50 GMT")]), None);
}

#[test]
fn retry_after_uses_the_remotes_clock() {
    let headers = |pairs: &[(&'static str, &'static str)]| -> HeaderMap {
        let date = ("date", "Thu, 27 Aug 2020 18:19:50 GMT");
        pairs
            .iter()
            .chain([&date])
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    };
    for (pairs, expected) in [
        (&[("x-rate-limit-reset", "1598552424")][..], Some(34)),
        (&[("x-ratelimit-reset", "1598552391"), ("retry-after", "9")][..], Some(9)),
        (&[][..], None),
    ] {
        let failure =
            Failure::of_answer(Remote::Okta, "GET /x", StatusCode::TOO_MANY_REQUESTS, &headers(pairs), b"", now());
        assert_eq!(failure.retry_after, expected.map(Duration::from_secs), "{pairs:?}");
    }
    let other = headers(&[("retry-after", "9")]);
    let failure = Failure::of_answer(Remote::Okta, "GET /x", StatusCode::FORBIDDEN, &other, b"", now());
    assert_eq!(failure.retry_after, None, "only for rate limits");
}

proptest! {
    #[test]
    fn arbitrary_bodies_yield_bounded_messages(body: Vec<u8>, status in 100_u16..600) {
        let status = StatusCode::from_u16(status).unwrap();
        let failure = Failure::of_answer(Remote::Auth0, "GET /x", status, &HeaderMap::new(), &body, now());
        prop_assert!(failure.message.chars().count() <= 501 * 10);
        prop_assert!(!failure.to_string().chars().any(char::is_control));
    }

    #[test]
    fn messages_are_bounded(text in "\\PC{0,2000}") {
        let body = serde_json::json!({ "message": text }).to_string();
        prop_assert!(of(Remote::Auth0, 400, &body).message.chars().count() <= 501 * 10);
    }
}

#[test]
fn deep_nesting_does_not_overflow() {
    let deep = format!("{{\"errorCauses\":{}", "[".repeat(200_000));
    assert_eq!(of(Remote::Okta, 500, &deep).kind, Kind::Server);
}

#[test]
fn web_page_is_not_the_api() {
    let html: HeaderMap = [(CONTENT_TYPE, "text/html".parse().unwrap())].into_iter().collect();
    let body = b"<html><head><title>Access Denied</title></head><body>canary</body></html>";
    for status in [StatusCode::FORBIDDEN, StatusCode::NOT_FOUND, StatusCode::SERVICE_UNAVAILABLE] {
        let failure = Failure::of_answer(Remote::Okta, "GET /x", status, &html, body, now())
            .with_remedy(crate::okta::remedy::remedy)
            .to_string();
        assert!(failure.contains("the response is a web page (\"Access Denied\"), not the API's"), "{failure}");
        assert!(failure.contains("is the URL right") && !failure.contains("role"), "{failure}");
        assert!(failure.contains(status.as_str()) && !failure.contains("canary"), "{failure}");
    }
}

#[test]
fn service_app_is_not_told_about_api_tokens() {
    use crate::okta::remedy::{of_service_app, remedy};
    for code in ["E0000011", "E0000005"] {
        let of = |remedy: remedy::Remedy| remedy(Kind::Unauthorized, Some(code), "Invalid token provided").unwrap();
        assert!(of(remedy).contains("API token") && !of(of_service_app).contains("API token"), "{code}");
    }
}

#[test]
fn network_remedies_name_what_is_in_between() {
    let direct = Route::default();
    let proxy = Route { proxy: Some("http://proxy:3128 (HTTPS_PROXY)".to_owned()), ca_file: None };
    let roots = Route { proxy: None, ca_file: Some("/etc/roots.pem".to_owned()) };
    let untrusted = "invalid peer certificate: UnknownIssuer";
    for (message, route, expected) in [
        ("error connecting: tunnel error: unsuccessful", &proxy, "the proxy http://proxy:3128 (HTTPS_PROXY) refused"),
        ("tunnel error: proxy authorization required", &proxy, "requires credentials"),
        ("dns error: failed to lookup address", &proxy, "the name of the proxy http://proxy:3128"),
        ("dns error: failed to lookup address", &direct, "check the url and this machine's name resolution"),
        (untrusted, &direct, "set [tls] ca_file to the PEM file"),
        (untrusted, &proxy, "if the proxy http://proxy:3128 (HTTPS_PROXY) is in between"),
        (untrusted, &roots, "/etc/roots.pem ([tls] ca_file)"),
        ("invalid peer certificate: certificate not valid for name", &direct, "for another host"),
        ("invalid peer certificate: Expired", &direct, "check this machine's clock"),
        ("connection refused", &direct, "check the network; behind a proxy, set HTTPS_PROXY"),
    ] {
        let remedy = remedy::of_transport(Kind::Unreachable, message, route).unwrap();
        assert!(remedy.contains(expected), "{message}: {remedy}");
    }
}
