//! A strict reader of OpenMetrics text, as far as it is used here: what it does not know, it refuses.

use std::collections::{BTreeMap, BTreeSet};

/// A family: its type, and its samples by name and labels.
#[derive(Debug)]
pub(crate) struct Family {
    pub(crate) kind: String,
    pub(crate) samples: BTreeMap<(String, BTreeMap<String, String>), f64>,
}

fn is_name(name: &str) -> bool {
    let mut signs = name.chars();
    signs.next().is_some_and(|first| first.is_ascii_lowercase())
        && signs.all(|sign| sign.is_ascii_lowercase() || sign.is_ascii_digit() || sign == '_')
}

fn labels(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for part in text.split("\",") {
        let (name, value) = part.split_once("=\"").unwrap_or_else(|| panic!("no label: {text}"));
        let value = value.strip_suffix('"').unwrap_or(value);
        assert!(is_name(name) && !value.contains(['"', '\\', '\n']), "{text}");
        assert!(found.insert(name.to_owned(), value.to_owned()).is_none(), "label twice: {text}");
    }
    found
}

/// Reads all of it, and panics on anything that a scraper might trip over.
pub(crate) fn parse(text: &str) -> BTreeMap<String, Family> {
    let body = text.strip_suffix("# EOF\n").unwrap();
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut helped = BTreeSet::new();
    let mut current = String::new();
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(is_name(name) && !help.is_empty(), "{line}");
            assert!(helped.insert(name.to_owned()), "two families of one name: {line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(helped.contains(name) && ["counter", "gauge", "histogram", "info"].contains(&kind), "{line}");
            let family = Family { kind: kind.to_owned(), samples: BTreeMap::new() };
            assert!(families.insert(name.to_owned(), family).is_none(), "{line}");
            name.clone_into(&mut current);
        } else if let Some(rest) = line.strip_prefix("# UNIT ") {
            let (name, unit) = rest.split_once(' ').unwrap();
            assert!(name == current && name.ends_with(&format!("_{unit}")), "{line}");
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
            let (name, labels) = match series.split_once('{') {
                Some((name, rest)) => (name, labels(rest.strip_suffix('}').unwrap())),
                None => (series, BTreeMap::new()),
            };
            let family = families.get_mut(&current).unwrap_or_else(|| panic!("before its type: {line}"));
            let suffix = name.strip_prefix(&current).unwrap_or_else(|| panic!("not of {current}: {line}"));
            let allowed: &[&str] = match family.kind.as_str() {
                "counter" => &["_total"],
                "gauge" => &[""],
                "histogram" => &["_bucket", "_sum", "_count"],
                _ => &["_info"],
            };
            assert!(is_name(name) && allowed.contains(&suffix), "{line}");
            assert!(family.kind == "gauge" || value >= 0.0, "{line}");
            assert!(family.samples.insert((name.to_owned(), labels), value).is_none(), "series twice: {line}");
        }
    }
    for (name, family) in &families {
        if family.kind == "histogram" {
            check_histogram(name, family);
        }
    }
    families
}

fn check_histogram(name: &str, family: &Family) {
    let mut buckets: Vec<(f64, f64)> = family
        .samples
        .iter()
        .filter(|((sample, _), _)| *sample == format!("{name}_bucket"))
        .map(|((_, labels), count)| {
            let bound = &labels["le"];
            (if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap() }, *count)
        })
        .collect();
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    assert!(buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{name}: buckets are cumulative");
    let last = buckets.last().unwrap();
    assert_eq!(last.0, f64::INFINITY, "{name}");
    assert_eq!(last.1, family.samples[&(format!("{name}_count"), BTreeMap::new())], "{name}");
}

#[test]
fn metrics_parser_rejects_invalid_text() {
    let good = "# HELP a b\n# TYPE a counter\na_total{x=\"1\"} 1\n# EOF\n";
    assert_eq!(parse(good)["a"].samples.len(), 1);
    for (from, to) in [
        ("# EOF\n", ""),
        ("# TYPE a counter\n", ""),
        ("# HELP a b\n", ""),
        ("a_total{", "a{"),
        ("a_total{", "b_total{"),
        (" 1\n", " one\n"),
        ("a_total{x=\"1\"} 1\n", "a_total{x=\"1\"} 1\na_total{x=\"1\"} 2\n"),
        ("{x=\"1\"}", "{x=1}"),
        ("counter", "speed"),
    ] {
        let bad = good.replace(from, to);
        assert!(std::panic::catch_unwind(|| parse(&bad)).is_err(), "{bad}");
    }
    let histogram =
        "# HELP h b\n# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_bucket{le=\"+Inf\"} 1\nh_count 1\nh_sum 0\n# EOF\n";
    assert!(std::panic::catch_unwind(|| parse(histogram)).is_err());
}
