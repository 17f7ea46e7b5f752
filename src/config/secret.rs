//! Secrets: inline, or in a separate file.
//!
//! A secret file is read only when the secret is used, so a command that needs just the state works for an operator
//! without access to the secrets.

use std::fmt;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::files;
use super::problem::Problem;
use super::value::require_private_transport;

/// The largest secret file that is read, in bytes. An RSA key of 16,384 bits has 13 KiB.
const LENGTH_MAX: u64 = 64 * 1024;

/// Mode bits that let group or others read or write the file.
const OTHERS: u32 = 0o066;

/// What a secret is for; determines its valid form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Goes into an HTTP header: visible ASCII only.
    Token,
    /// Any text.
    Password,
    /// PEM or JWK.
    PrivateKey,
    /// A URL that contains the credential.
    Address,
}

/// Where a secret comes from.
#[derive(Clone, Debug)]
enum Source {
    Inline(SecretString),
    /// The first file that exists.
    File(Vec<Candidate>),
}

/// One path at which the secret file may exist.
#[derive(Clone, Debug)]
struct Candidate {
    path: PathBuf,
    /// In the credentials directory, whose permissions systemd manages.
    guarded: bool,
}

/// A configured secret.
#[derive(Clone)]
pub struct Secret {
    /// The key or environment variable that sets it, such as `okta.api_token_file`.
    subject: String,
    kind: Kind,
    source: Source,
}

impl Secret {
    pub(super) fn inline(subject: String, kind: Kind, value: SecretString) -> Self {
        Self { subject, kind, source: Source::Inline(value) }
    }

    /// `file` as typed: a bare name is looked up in systemd's credentials directory and in `credentials/` below `base`;
    /// any other path is resolved against `base`.
    pub(super) fn in_file(
        subject: String,
        kind: Kind,
        file: &Path,
        base: &Path,
        credentials_directory: Option<&Path>,
    ) -> Self {
        let bare = file.file_name().is_some_and(|name| name == file.as_os_str());
        let candidates = if bare {
            let guarded =
                credentials_directory.map(|directory| Candidate { path: directory.join(file), guarded: true });
            let beside = Candidate { path: base.join("credentials").join(file), guarded: false };
            guarded.into_iter().chain([beside]).collect()
        } else {
            let path = base.join(file);
            let guarded = credentials_directory.is_some_and(|directory| path.starts_with(directory));
            vec![Candidate { path, guarded }]
        };
        Self { subject, kind, source: Source::File(candidates) }
    }

    /// Reads the secret.
    ///
    /// # Errors
    /// When the file is missing, unreadable, readable or writable by others (outside `$CREDENTIALS_DIRECTORY`), empty,
    /// larger than 64 KiB or not UTF-8, or when the secret has the wrong form. The message never contains the secret.
    pub fn read(&self) -> Result<SecretString, Problem> {
        let (value, place) = match &self.source {
            Source::Inline(value) => (value.clone(), String::new()),
            Source::File(candidates) => {
                let (value, path) = self.read_file(candidates)?;
                (value, format!("{} ", path.display()))
            }
        };
        match self.fault(value.expose_secret()) {
            Some(fault) => Err(self.problem(format!("{place}{fault}"))),
            None => Ok(value),
        }
    }

    /// What looks wrong about a secret that can be read, such as quotes around it. Any text can be a password, so this is not
    /// an error; the message never contains the secret.
    pub fn oddity(&self) -> Option<Problem> {
        let value = self.read().ok()?;
        match self.kind {
            Kind::Password => wrapping(value.expose_secret()).map(|oddity| self.problem(oddity)),
            Kind::Token | Kind::PrivateKey | Kind::Address => None,
        }
    }

    /// Where it comes from, for messages: the key, and the file if there is one. Never the secret itself.
    pub fn origin(&self) -> String {
        match &self.source {
            Source::Inline(_) => self.subject.clone(),
            Source::File(candidates) => {
                let found = candidates.iter().find(|candidate| candidate.path.exists()).or(candidates.first());
                match found {
                    Some(candidate) => format!("{}: {}", self.subject, candidate.path.display()),
                    None => self.subject.clone(),
                }
            }
        }
    }

    fn problem(&self, message: impl Into<String>) -> Problem {
        Problem::new(&self.subject, message)
    }

    fn read_file<'a>(&self, candidates: &'a [Candidate]) -> Result<(SecretString, &'a Path), Problem> {
        for candidate in candidates {
            let path = candidate.path.display();
            let file = match files::open(&candidate.path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                // Under the unit the service cannot read this folder; systemd must pass the credential.
                Err(error) if !candidate.guarded && candidates.len() > 1 => {
                    return Err(self.problem(format!(
                        "systemd did not pass this credential, and {path} cannot be read by the service ({error}): as root, \
                         put the secret into that file; a custom name also needs a LoadCredential= in the unit"
                    )));
                }
                Err(error) => {
                    return Err(
                        self.problem(format!("cannot read {path}: {error}; make it readable for the service's user"))
                    );
                }
            };
            let metadata = file.metadata().map_err(|error| self.problem(format!("cannot read {path}: {error}")))?;
            let mode = metadata.permissions().mode() & 0o777;
            if !candidate.guarded && mode & OTHERS != 0 {
                return Err(self.problem(format!(
                    "{path} can be read or written by other users (mode {mode:04o}): chmod 600 '{path}', or pass it with \
                     LoadCredential="
                )));
            }
            if let Some(exposure) = files::exposure(&candidate.path, &metadata).filter(|_| !candidate.guarded) {
                return Err(self.problem(format!("{path} {exposure}")));
            }
            let mut text =
                files::read_text(file, LENGTH_MAX).map_err(|message| self.problem(format!("{path} {message}")))?;
            text.truncate(text.trim_end_matches(['\n', '\r']).len());
            // The unit passes an empty credential if the file does not exist (SetCredential=).
            if candidate.guarded && candidates.len() > 1 && text.is_empty() {
                continue;
            }
            return Ok((SecretString::from(text), &candidate.path));
        }
        let tried: Vec<String> = candidates.iter().map(|candidate| candidate.path.display().to_string()).collect();
        Err(self.problem(format!("file not found: {}", tried.join(" or "))))
    }

    /// Why `text` is not valid as this secret.
    fn fault(&self, text: &str) -> Option<String> {
        if text.trim().is_empty() {
            return Some("is empty".to_owned());
        }
        if text.contains('\0') {
            return Some("contains NUL characters: save it as UTF-8 text".to_owned());
        }
        if text.contains('\u{feff}') && self.kind != Kind::PrivateKey {
            return Some("contains a byte order mark (BOM): save it as UTF-8 without one".to_owned());
        }
        match self.kind {
            Kind::Password => None,
            // Its parser says what is wrong with a key.
            Kind::PrivateKey => {
                let is_json = text.trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n', '"', '\'']).starts_with('{');
                (!is_json && !text.contains("-----BEGIN ")).then(|| {
                    "is not a private key in PEM or JWK ({…}) form; the lines -----BEGIN … PRIVATE KEY----- and -----END …----- are \
                     part of a PEM"
                        .to_owned()
                })
            }
            Kind::Token => wrapping(text).or_else(|| {
                (!text.bytes().all(|b| b.is_ascii_graphic()))
                    .then(|| "contains white space or other characters that a token cannot have".to_owned())
            }),
            Kind::Address => match Url::parse(text.trim()) {
                Ok(url) => require_private_transport(&url).err(),
                Err(error) => Some(format!("is not a URL ({error}): write it whole, with https:// before it")),
            },
        }
    }
}

/// What surrounds the secret, as pasted with it.
fn wrapping(text: &str) -> Option<String> {
    if text.contains("-----BEGIN ") {
        return Some("is a key or certificate in PEM form: give a private key with private_key_file".to_owned());
    }
    let is_quoted = |quote: char| text.len() > 1 && text.starts_with(quote) && text.ends_with(quote);
    if is_quoted('"') || is_quoted('\'') || is_quoted('`') {
        return Some("has quotes around it: remove them, since only a TOML file needs quotes".to_owned());
    }
    if text.trim() != text {
        return Some("has blanks around it: remove them".to_owned());
    }
    if let Some(scheme) = ["SSWS ", "Bearer ", "Basic "].into_iter().find(|scheme| text.starts_with(scheme)) {
        return Some(format!(
            "begins with `{}`, which belongs to the HTTP header and not to the secret: remove it",
            scheme.trim_end()
        ));
    }
    let (name, _) = text.split_once(['=', ':'])?;
    let name = name.trim().to_ascii_lowercase();
    let is_name = ["token", "secret", "key", "password"].iter().any(|end| name.ends_with(end));
    is_name
        .then(|| "looks like a line of a configuration file: keep only the secret itself, without its name".to_owned())
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.origin())
    }
}
