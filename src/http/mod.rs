//! Shared by the clients of both remotes: the HTTP client with bounded bodies, the classification of responses, signing,
//! and pacing by the remotes' rate-limit headers.
//!
//! Nothing here retries or waits, except for [`pacing::Pacer::acquire`]. A call ends in an [`Answer`] or in a [`Failure`]
//! with a [`Kind`]; the engine decides what follows.

pub mod assertion;
mod client;
mod connections;
pub mod endpoint;
pub mod failure;
pub mod headers;
pub mod jws;
pub(crate) mod lenient;
pub mod link;
pub mod pacing;
#[cfg(test)]
pub(crate) mod playback;
mod redact;
pub mod remedy;
pub mod remote_time;
mod stream;
pub mod token;
mod web_page;

pub use client::{Answer, Call, Http, HttpError, HttpOptions, Limits};
pub use connections::{ProxyOptions, Timeouts};
pub use endpoint::Endpoint;
pub use failure::{Failure, Kind, Remote};
pub use pacing::{Bucket, Pacer, Permit, Priority};
pub use remedy::Route;
pub use remote_time::Deviation;
pub use stream::StreamBody;
