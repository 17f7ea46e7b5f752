//! Secrets: typed in place, or in a file of their own.
//!
//! A secret is found when the configuration is read, but read only when it is used: a command that looks at the state
//! alone works for somebody who may not read the secrets.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::problem::Problem;
use super::value::require_private_transport;

/// The largest file that is taken for a secret, in bytes. An RSA key of 16,384 bits has 13 KiB.
const LENGTH_MAX: u64 = 64 * 1024;

/// Bits of a file's mode that let others than its owner read or change it.
const OTHERS: u32 = 0o066;

/// What a secret is for, and so what it may look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Goes into an HTTP header: visible ASCII only.
    Token,
    /// Any text.
    Password,
    /// PEM or JWK.
    PrivateKey,
    /// An address that itself is the credential.
    Address,
}

/// Where a secret is.
#[derive(Clone, Debug)]
enum Source {
    Inline(SecretString),
    /// The first that exists.
    File(Vec<Place>),
}

/// One place where the file of a secret may be.
#[derive(Clone, Debug)]
struct Place {
    path: PathBuf,
    /// In the credentials directory: systemd (or whoever set it up) sees to who may read it.
    guarded: bool,
}

/// A secret that has been configured.
#[derive(Clone)]
pub struct Secret {
    /// The key or environment variable that gives it, such as `okta.api_token_file`.
    subject: String,
    kind: Kind,
    source: Source,
}

impl Secret {
    pub(super) fn inline(subject: String, kind: Kind, value: SecretString) -> Self {
        Self { subject, kind, source: Source::Inline(value) }
    }

    /// `file` as it was typed: a bare name is looked for among the credentials of systemd and in `credentials/` below
    /// `base`; any other path is taken from `base`.
    pub(super) fn in_file(
        subject: String,
        kind: Kind,
        file: &Path,
        base: &Path,
        credentials_directory: Option<&Path>,
    ) -> Self {
        let bare = file.file_name().is_some_and(|name| name == file.as_os_str());
        let places = if bare {
            let guarded = credentials_directory.map(|directory| Place { path: directory.join(file), guarded: true });
            let beside = Place { path: base.join("credentials").join(file), guarded: false };
            guarded.into_iter().chain([beside]).collect()
        } else {
            let path = base.join(file);
            let guarded = credentials_directory.is_some_and(|directory| path.starts_with(directory));
            vec![Place { path, guarded }]
        };
        Self { subject, kind, source: Source::File(places) }
    }

    /// Reads it, now.
    ///
    /// # Errors
    /// When the file is missing, unreadable, readable by others (outside `$CREDENTIALS_DIRECTORY`), empty, larger than
    /// 64 KiB or no text, or when the secret cannot be what it is meant for. The text never holds the secret.
    pub fn read(&self) -> Result<SecretString, Problem> {
        let value = match &self.source {
            Source::Inline(value) => value.clone(),
            Source::File(places) => self.read_file(places)?,
        };
        match self.fault(value.expose_secret()) {
            Some(fault) => Err(self.problem(fault)),
            None => Ok(value),
        }
    }

    /// Where it comes from, for people: the key, and the file if it is in one. Never the secret itself.
    pub fn origin(&self) -> String {
        match &self.source {
            Source::Inline(_) => self.subject.clone(),
            Source::File(places) => {
                let found = places.iter().find(|place| place.path.exists()).or(places.first());
                match found {
                    Some(place) => format!("{}: {}", self.subject, place.path.display()),
                    None => self.subject.clone(),
                }
            }
        }
    }

    fn problem(&self, message: impl Into<String>) -> Problem {
        Problem::new(&self.subject, message)
    }

    fn read_file(&self, places: &[Place]) -> Result<SecretString, Problem> {
        for place in places {
            let path = place.path.display();
            let file = match File::open(&place.path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                // Whether there is one is not for the service to see: systemd is to hand it over.
                Err(error) if !place.guarded && places.len() > 1 => {
                    return Err(self.problem(format!(
                        "no such credential was handed over, and {path} cannot be read from here ({error}): as root, put \
                         the secret into that file; a name of your own also needs its LoadCredential= in the unit"
                    )));
                }
                Err(error) => {
                    return Err(self.problem(format!("cannot read {path}: {error}; let the service's user read it")));
                }
            };
            let metadata = file.metadata().map_err(|error| self.problem(format!("cannot read {path}: {error}")))?;
            if !metadata.is_file() {
                return Err(self.problem(format!("{path} is no file")));
            }
            let mode = metadata.permissions().mode() & 0o777;
            if !place.guarded && mode & OTHERS != 0 {
                return Err(self.problem(format!(
                    "{path} can be read or changed by others (mode {mode:04o}): chmod 600 '{path}', or hand it over by \
                     LoadCredential="
                )));
            }
            let mut text = String::new();
            file.take(LENGTH_MAX + 1)
                .read_to_string(&mut text)
                .map_err(|error| self.problem(format!("cannot read {path}: {error}")))?;
            if text.len() as u64 > LENGTH_MAX {
                return Err(self.problem(format!("{path} is larger than {} KiB: no secret is", LENGTH_MAX / 1024)));
            }
            text.truncate(text.trim_end_matches(['\n', '\r']).len());
            // Units hand over an empty credential in place of a file that does not exist (SetCredential=).
            if place.guarded && places.len() > 1 && text.is_empty() {
                continue;
            }
            return Ok(SecretString::from(text));
        }
        let tried: Vec<String> = places.iter().map(|place| place.path.display().to_string()).collect();
        Err(self.problem(format!("there is no file {}", tried.join(" nor "))))
    }

    /// Why this text cannot be the secret.
    fn fault(&self, text: &str) -> Option<String> {
        if text.trim().is_empty() {
            return Some("is empty".to_owned());
        }
        match self.kind {
            Kind::Password => None,
            Kind::Token => (!text.bytes().all(|b| b.is_ascii_graphic()))
                .then(|| "holds white space or other signs that no token has".to_owned()),
            Kind::PrivateKey => {
                let start = text.trim_start();
                let pem = start.starts_with("-----BEGIN") && start.contains("PRIVATE KEY-----");
                (!pem && !start.starts_with('{'))
                    .then(|| "is no private key in PEM (-----BEGIN … PRIVATE KEY-----) or JWK ({…}) form".to_owned())
            }
            Kind::Address => match Url::parse(text.trim()) {
                Ok(url) => require_private_transport(&url).err(),
                Err(error) => Some(format!("is not an address ({error})")),
            },
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.origin())
    }
}
