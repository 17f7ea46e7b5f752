//! What can be typed: every command, its options and its help.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum, ValueHint};

use crate::domain::Timestamp;

/// Denies in Auth0 the people that Okta has deactivated, and lets them in again when Okta does.
#[derive(Debug, Parser)]
#[command(
    name = "okta-auth0-sync",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 110,
    after_help = "Exit codes: 0 done, 1 something failed or needs a person, 64 wrong usage, 75 the state is in use by \
                  another process, 78 wrong configuration."
)]
pub struct Cli {
    /// Configuration file [default: /etc/okta-auth0-sync/config.toml, else ./config.toml]
    // The variable is read with the configuration, not here: an empty one means none.
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Keep Auth0 in step with Okta until told to stop
    #[command(after_help = "Example:\n  okta-auth0-sync --config /etc/okta-auth0-sync/config.toml run")]
    Run,

    /// Make one whole pass: read the log to its end, look at everybody who is due
    #[command(after_help = "Example:\n  okta-auth0-sync sync --dry-run     what a pass would write, writing nothing")]
    Sync(SyncArgs),

    /// Compare Okta with Auth0 and repair what differs
    #[command(after_help = "Example:\n  okta-auth0-sync reconcile --since 30days --dry-run")]
    Reconcile(ReconcileArgs),

    /// Tell the whole story of one person, and why
    #[command(after_help = "Examples:\n  okta-auth0-sync user ann@example.com --live\n  \
                            okta-auth0-sync user 00ud384zryL1GFAg30h7 --sync")]
    User(UserArgs),

    /// Check configuration, credentials, scopes, roles, clock and Action: each passes, warns or fails, with a remedy
    #[command(
        after_help = "Example:\n  okta-auth0-sync check --offline    the configuration alone, without network or state"
    )]
    Check(CheckArgs),

    /// Show how things stand, from the state alone: works whether or not the daemon runs
    #[command(after_help = "Example:\n  okta-auth0-sync status --check     exit code 1 if a person is needed")]
    Status(StatusArgs),

    /// Show the recorded events and how each ended
    #[command(after_help = "Example:\n  okta-auth0-sync events --state pending --limit 20")]
    Events(EventsArgs),

    /// Look again at people whose look failed
    #[command(after_help = "Example:\n  okta-auth0-sync retry --failed")]
    Retry(RetryArgs),

    /// Let held people through; each is looked at anew
    #[command(after_help = "Example:\n  okta-auth0-sync approve ann@example.com")]
    Approve(ApproveArgs),

    /// The Auth0 Action that denies logins
    #[command(after_help = "Example:\n  okta-auth0-sync action deploy --dry-run")]
    Action {
        /// What to do with it.
        #[command(subcommand)]
        command: ActionCommand,
    },

    /// The evidence: what was decided, when and why
    #[command(after_help = "Example:\n  okta-auth0-sync audit export --since 90days --format csv > evidence.csv")]
    Audit {
        /// What to do with it.
        #[command(subcommand)]
        command: AuditCommand,
    },

    /// Delete what is stored of one person; marks in Auth0 stay
    #[command(after_help = "Example:\n  okta-auth0-sync forget ann@example.com --yes")]
    Forget(ForgetArgs),

    /// Lift every mark of ours from Auth0, before uninstalling
    #[command(after_help = "Example:\n  okta-auth0-sync purge --dry-run")]
    Purge(PurgeArgs),

    /// Write a verified copy of the state
    #[command(after_help = "Example:\n  okta-auth0-sync backup /var/backups/okta-auth0-sync.db")]
    Backup(BackupArgs),

    /// Play the whole story on embedded tenants: no account and no configuration needed
    #[cfg(feature = "sandbox")]
    #[command(after_help = "Example:\n  okta-auth0-sync demo")]
    Demo,

    /// Serve embedded Okta and Auth0 tenants on loopback for your own experiments
    #[cfg(feature = "sandbox")]
    #[command(after_help = "Example:\n  okta-auth0-sync sandbox --okta-port 8081 --auth0-port 8082")]
    Sandbox(SandboxArgs),

    /// Print the completions of a shell
    #[command(after_help = "Example:\n  okta-auth0-sync completions bash > /etc/bash_completion.d/okta-auth0-sync")]
    Completions(CompletionsArgs),

    /// Print the manual page, or write those of all commands
    #[command(
        after_help = "Examples:\n  okta-auth0-sync man | man -l -\n  okta-auth0-sync man --dir /usr/share/man/man1"
    )]
    Man(ManArgs),
}

/// `sync`
#[derive(Debug, Args)]
pub struct SyncArgs {
    /// Write nothing anywhere: say what would be written
    #[arg(long)]
    pub dry_run: bool,
}

/// `reconcile`
#[derive(Debug, Args)]
pub struct ReconcileArgs {
    /// Only people whose status changed within this time, or since this RFC 3339 time [default: 90days]
    #[arg(long, value_name = "TIME", conflicts_with = "all", value_parser = Since::parse)]
    pub since: Option<Since>,

    /// Everybody who may be denied, however long ago, and everybody we know
    #[arg(long)]
    pub all: bool,

    /// Write nothing anywhere: say what would be written
    #[arg(long)]
    pub dry_run: bool,
}

/// `user`
#[derive(Debug, Args)]
pub struct UserArgs {
    /// E-mail address, login or Okta id (00u…)
    pub who: String,

    /// Also ask Okta and Auth0 now
    #[arg(long)]
    pub live: bool,

    /// Look at them now, and do what follows
    #[arg(long)]
    pub sync: bool,

    /// With --sync: write nothing anywhere, say what would be written
    #[arg(long, requires = "sync")]
    pub dry_run: bool,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `check`
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The configuration alone: neither network nor state
    #[arg(long)]
    pub offline: bool,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `status`
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,

    /// Exit with 1 if a person is needed
    #[arg(long)]
    pub check: bool,
}

/// Which events `events` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EventState {
    /// Not yet dealt with.
    Pending,
    /// Dealt with.
    Settled,
    /// Nothing follows from them.
    Ignored,
    /// Unreadable: kept for a person.
    Quarantined,
}

/// `events`
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Only events in this state
    #[arg(long, value_enum)]
    pub state: Option<EventState>,

    /// At most so many, the newest first
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub limit: u32,

    /// Print one JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// `retry`
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("whom").required(true).args(["who", "failed"]))]
pub struct RetryArgs {
    /// E-mail address, login or Okta id (00u…)
    pub who: Option<String>,

    /// Everybody who failed
    #[arg(long)]
    pub failed: bool,
}

/// `approve`
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("whom").required(true).args(["who", "all"]))]
pub struct ApproveArgs {
    /// E-mail address, login or Okta id (00u…)
    pub who: Option<String>,

    /// Everybody who is held
    #[arg(long)]
    pub all: bool,
}

/// `action …`
#[derive(Debug, Subcommand)]
pub enum ActionCommand {
    /// Print the Action's code, for pasting into the dashboard
    #[command(after_help = "Example:\n  okta-auth0-sync action show > action.js")]
    Show,

    /// Create or update the Action, deploy it and bind it first; other bindings are kept
    #[command(after_help = "Example:\n  okta-auth0-sync action deploy --yes")]
    Deploy(DeployArgs),

    /// Is the Action there, deployed, up to date and bound?
    #[command(after_help = "Example:\n  okta-auth0-sync action check")]
    Check,
}

/// `action deploy`
#[derive(Debug, Args)]
pub struct DeployArgs {
    /// Do not ask
    #[arg(long, conflicts_with = "dry_run")]
    pub yes: bool,

    /// Change nothing: say what would be changed
    #[arg(long)]
    pub dry_run: bool,
}

/// `audit …`
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Print the decisions, oldest first; in CSV, what a spreadsheet would take for a formula stands behind an apostrophe
    #[command(after_help = "Example:\n  okta-auth0-sync audit export --since 2026-01-01T00:00:00Z --format jsonl")]
    Export(ExportArgs),

    /// Check that no decision was changed or removed since it was written
    #[command(after_help = "Example:\n  okta-auth0-sync audit verify")]
    Verify,
}

/// How `audit export` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// Comma-separated values with a head line (RFC 4180).
    Csv,
    /// One JSON object a line.
    Jsonl,
}

/// `audit export`
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Only decisions within this time, or since this RFC 3339 time [default: all]
    #[arg(long, value_name = "TIME", value_parser = Since::parse)]
    pub since: Option<Since>,

    /// The form
    #[arg(long, value_enum, default_value_t = ExportFormat::Csv)]
    pub format: ExportFormat,
}

/// `forget`
#[derive(Debug, Args)]
pub struct ForgetArgs {
    /// E-mail address, login or Okta id (00u…)
    pub who: String,

    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// `purge`
#[derive(Debug, Args)]
pub struct PurgeArgs {
    /// Change nothing: say whose marks would be lifted
    #[arg(long)]
    pub dry_run: bool,

    /// Do not ask
    #[arg(long, conflicts_with = "dry_run")]
    pub yes: bool,
}

/// `backup`
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// Where to write it; must not exist
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
}

/// `sandbox`
#[cfg(feature = "sandbox")]
#[derive(Debug, Args)]
pub struct SandboxArgs {
    /// Port of the Okta org; 0: any free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub okta_port: u16,

    /// Port of the Auth0 tenant; 0: any free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub auth0_port: u16,

    /// Active people in both tenants at the start
    ///
    /// Of each hundred, one has an account whose address is in capitals, and one shares the address with somebody who stays.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub people: usize,

    /// How many of them are deactivated at the start
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub leavers: usize,

    /// How many other entries stand in the log before
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub history: usize,

    /// Every answer takes so long
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub latency: Option<std::time::Duration>,

    /// Requests that Auth0 takes at once [default: 50]
    #[arg(long, value_name = "COUNT", requires = "auth0_per_second", value_parser = clap::value_parser!(u32).range(1..))]
    pub auth0_burst: Option<u32>,

    /// Requests that Auth0 takes each second beyond those [default: 16]
    #[arg(long, value_name = "COUNT", requires = "auth0_burst", value_parser = clap::value_parser!(u32).range(1..))]
    pub auth0_per_second: Option<u32>,

    /// Neither tenant limits the rate
    #[arg(long, conflicts_with = "auth0_burst")]
    pub unlimited: bool,
}

/// `completions`
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// `man`
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Write one page a command into this directory, which must exist
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub dir: Option<PathBuf>,
}

/// A moment in the past, as it was typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// So long ago: `90days`.
    Ago(std::time::Duration),
    /// Then: `2026-01-01T00:00:00Z`.
    At(Timestamp),
}

impl Since {
    fn parse(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text)
            .map(Self::Ago)
            .or_else(|_| crate::domain::clock::parse_timestamp(text).map(Self::At))
            .map_err(|_| "write a time span such as \"90days\" or a time such as \"2026-01-01T00:00:00Z\"".to_owned())
    }

    /// The moment meant, at `now`.
    pub fn moment(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Ago(span) => crate::domain::clock::sub(now, span),
            Self::At(at) => at,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_help_with_an_example() {
        fn visit(command: &clap::Command, path: &str) {
            let groups = command.has_subcommands();
            for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
                let path = format!("{path} {}", sub.get_name());
                assert!(sub.get_about().is_some(), "{path} has no help");
                let example = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(example.contains("Example"), "{path} has no example");
                assert!(
                    example.contains(&format!("okta-auth0-sync{}", path.trim_end())) || path == " run",
                    "{path}: {example}"
                );
                visit(sub, &path);
            }
            assert!(groups || command.get_subcommands().count() == 0);
        }
        visit(&Cli::command(), "");
    }

    #[test]
    fn since_is_a_span_or_a_time() {
        let now: Timestamp = "2026-11-23T00:00:00Z".parse().unwrap();
        assert_eq!(Since::parse("2days").unwrap().moment(now).to_string(), "2026-11-21T00:00:00Z");
        assert_eq!(Since::parse("2026-01-01T00:00:00Z").unwrap().moment(now).to_string(), "2026-01-01T00:00:00Z");
        assert!(Since::parse("yesterday").unwrap_err().contains("90days"));
    }
}
