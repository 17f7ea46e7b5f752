//! Opens the files that configure the program: only regular files, which no other user can change.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Opens a regular file to read it. Does not wait for a FIFO or a device.
///
/// # Errors
/// When the file cannot be opened, or is of another kind.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_file() {
        return Ok(file);
    }
    let what = if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a FIFO"
    } else {
        "a device or socket"
    };
    Err(io::Error::other(format!("it is not a file but {what}")))
}

/// How other users can change the file, and what prevents it; `None` if they cannot. Root is trusted.
///
/// The rule is OpenSSH's for its configuration. Like Debian's OpenSSH it permits write access for the owner's private
/// group, which has the number of its user.
pub(super) fn exposure(path: &Path, metadata: &Metadata) -> Option<String> {
    let us = rustix::process::geteuid().as_raw();
    let (mode, owner) = (metadata.mode() & 0o7777, metadata.uid());
    let path = path.display();
    if owner != 0 && owner != us {
        return Some(format!(
            "belongs to another user (uid {owner}), who could change it: it must belong to root or to the user who runs \
             the program (uid {us}): chown root '{path}'"
        ));
    }
    let by_group = mode & 0o020 != 0 && metadata.gid() != owner;
    (mode & 0o002 != 0 || by_group)
        .then(|| format!("can be written by other users (mode {mode:04o}): chmod go-w '{path}'"))
}

/// Reads text of at most `length_max` bytes.
///
/// # Errors
/// When the file cannot be read, is longer, or is not text in UTF-8. The message never contains the text.
pub(super) fn read_text(file: File, length_max: u64) -> Result<String, String> {
    let mut bytes = Vec::new();
    file.take(length_max + 1).read_to_end(&mut bytes).map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > length_max {
        return Err(format!("is larger than {} KiB", length_max / 1024));
    }
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err("is UTF-16: save it as UTF-8".to_owned());
    }
    if bytes.starts_with(&[0x30, 0x82]) {
        return Err("is binary (DER or PKCS#12): convert it to PEM, for example with `openssl pkey -inform DER -in FILE` for a \
                    key, or `openssl x509 -inform DER -in FILE` for a certificate"
            .to_owned());
    }
    if bytes.contains(&0) {
        return Err("contains NUL bytes, as UTF-16 and binary files do: save it as UTF-8 text".to_owned());
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("is not UTF-8 in line {line}: save it as UTF-8")
    })
}
