//! Denies the right users and only those: each decision rule, against both stand-ins over real HTTP, with a manual clock.

mod account_events;
mod accounts;
mod addresses;
mod departures;
mod directory;
mod disagreement;
mod evidence;
mod forgotten;
mod guard;
mod history;
mod linked;
mod marks;
mod memory;
mod model;
mod orgs;
mod oversized;
mod property;
mod reconcile;
mod searches;
mod sessions;
mod statuses;
mod table;
mod trouble;
mod upheavals;
mod weeks;
