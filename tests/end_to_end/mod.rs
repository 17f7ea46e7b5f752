//! The whole program from end to end: the real binary as a separate process, between the stand-ins of both tenants.
//!
//! The tests check what the tenants hold afterwards, who can log in, and which calls came in; what the program says about
//! itself is never enough.

mod alerts;
mod backlog;
mod canaries;
mod crashes;
mod golden;
mod hostility;
mod kills;
mod recorded;
mod refusals;
mod timing;
