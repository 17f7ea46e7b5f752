//! Groups of the system.

use std::path::Path;

use super::files;

const FILE: &str = "/etc/group";
const LENGTH_MAX: u64 = 16 * 1024 * 1024;

/// The number of a group. A group of a directory service is not in the file, and can be given by its number.
///
/// # Errors
/// When the file has no such group.
pub(super) fn id_of(name: &str) -> Result<u32, String> {
    if let Ok(id) = name.parse() {
        return Ok(id);
    }
    let text = files::open(Path::new(FILE)).map_err(|error| format!("{FILE}: {error}"));
    let text = text.and_then(|file| files::read_text(file, LENGTH_MAX).map_err(|error| format!("{FILE} {error}")))?;
    in_text(&text, name).ok_or_else(|| {
        format!("{FILE} has no group `{}`: create it, or set the number of the group", name.escape_debug())
    })
}

fn in_text(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_by_name_or_number() {
        let text = "root:x:0:\nwww-data:x:33:ann,bob\n+nis\n:x:9:\nbroken:x\n";
        for (name, expected) in [("www-data", Some(33)), ("root", Some(0)), ("ann", None), ("broken", None)] {
            assert_eq!(in_text(text, name), expected, "{name}");
        }
        assert_eq!(id_of("4711"), Ok(4711));
        assert!(id_of("no-such-group").unwrap_err().contains("has no group `no-such-group`"));
    }
}
