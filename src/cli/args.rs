//! Command-line arguments: every command, its options and its help.

use std::path::PathBuf;

use clap::builder::{StringValueParser, TypedValueParser};
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum, ValueHint};

use crate::domain::Timestamp;
use crate::domain::address::unwrap_mailbox;

/// Denies in Auth0 the users that Okta has deactivated, and allows them again once Okta reactivates them.
#[derive(Debug, Parser)]
#[command(
    name = "okta-auth0-sync",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 110,
    after_help = "Exit codes: 0 success, 1 something failed or needs an operator, 64 wrong usage, 75 the state is in use \
                  by another process, 78 invalid configuration."
)]
pub struct Cli {
    /// Configuration file [default: $OKTA_AUTH0_SYNC_CONFIG, else /etc/okta-auth0-sync/config.toml, else ./config.toml]
    // The environment variable is read with the configuration, not here, because an empty one counts as unset.
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,

    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Sync Okta to Auth0 continuously, until stopped
    #[command(after_help = "Example:\n  okta-auth0-sync --config /etc/okta-auth0-sync/config.toml run")]
    Run,

    /// Make one pass: read the System Log to its end, then process every due user
    #[command(after_help = "Example:\n  okta-auth0-sync sync --dry-run     show what a pass would write")]
    Sync(SyncArgs),

    /// Compare both tenants and repair drift
    #[command(after_help = "Example:\n  okta-auth0-sync reconcile --since 30days --dry-run")]
    Reconcile(ReconcileArgs),

    /// Show the full history of one user, with the reasons
    #[command(after_help = "Examples:\n  okta-auth0-sync user ann@example.com --live\n  \
                            okta-auth0-sync user 00ud384zryL1GFAg30h7 --sync")]
    User(UserArgs),

    /// Check configuration, credentials, scopes, roles, clock and Action, with a remedy for each problem
    #[command(after_help = "Example:\n  okta-auth0-sync check --offline    check configuration and state only")]
    Check(CheckArgs),

    /// Show the current state and what needs an operator, whether or not the daemon is running
    #[command(after_help = "Example:\n  okta-auth0-sync status --check     exit code 1 if an operator is needed")]
    Status(StatusArgs),

    /// List recorded events and their outcomes
    #[command(after_help = "Example:\n  okta-auth0-sync events --state pending --limit 20")]
    Events(EventsArgs),

    /// Retry users whose last look failed
    #[command(after_help = "Example:\n  okta-auth0-sync retry --failed")]
    Retry(RetryArgs),

    /// Approve held users, after showing what each approval does
    #[command(after_help = "Examples:\n  okta-auth0-sync approve ann@example.com\n  \
                            okta-auth0-sync approve --all    deny the users that the guard holds")]
    Approve(ApproveArgs),

    /// Manage the Auth0 Action that denies logins
    #[command(after_help = "Example:\n  okta-auth0-sync action deploy --dry-run")]
    Action {
        /// The subcommand.
        #[command(subcommand)]
        command: ActionCommand,
    },

    /// Export and verify the audit trail: every decision, when and why
    #[command(after_help = "Example:\n  okta-auth0-sync audit export --since 90days --format csv > evidence.csv")]
    Audit {
        /// The subcommand.
        #[command(subcommand)]
        command: AuditCommand,
    },

    /// Delete the personal data stored about one user; marks in Auth0 stay
    #[command(after_help = "Example:\n  okta-auth0-sync forget ann@example.com --yes")]
    Forget(ForgetArgs),

    /// Remove all marks of okta-auth0-sync from Auth0, before uninstalling
    #[command(after_help = "Example:\n  okta-auth0-sync purge --dry-run")]
    Purge(PurgeArgs),

    /// Write a verified backup of the state
    #[command(after_help = "Example:\n  okta-auth0-sync backup /var/backups/okta-auth0-sync.db")]
    Backup(BackupArgs),

    /// Run a scripted demo on embedded tenants; needs no accounts and no configuration
    #[cfg(feature = "sandbox")]
    #[command(after_help = "Example:\n  okta-auth0-sync demo")]
    Demo,

    /// Serve embedded Okta and Auth0 tenants on loopback for your own experiments
    #[cfg(feature = "sandbox")]
    #[command(after_help = "Example:\n  okta-auth0-sync sandbox --okta-port 8081 --auth0-port 8082")]
    Sandbox(SandboxArgs),

    /// Print shell completions
    #[command(after_help = "Example:\n  okta-auth0-sync completions bash > /etc/bash_completion.d/okta-auth0-sync")]
    Completions(CompletionsArgs),

    /// Print the manual page, or write the pages of all commands
    #[command(
        after_help = "Examples:\n  okta-auth0-sync man | man -l -\n  okta-auth0-sync man --dir /usr/share/man/man1"
    )]
    Man(ManArgs),
}

/// `sync`
#[derive(Debug, Args)]
pub struct SyncArgs {
    /// Show what would be written; write nothing anywhere
    #[arg(long)]
    pub dry_run: bool,
}

/// `reconcile`
#[derive(Debug, Args)]
pub struct ReconcileArgs {
    /// Only users whose status changed within this time, or since this RFC 3339 time [default: 90days]
    #[arg(long, value_name = "TIME", conflicts_with = "all", value_parser = Since::parse)]
    pub since: Option<Since>,

    /// All users that may have to be denied, whenever their status changed, and all users in the state
    #[arg(long)]
    pub all: bool,

    /// Show what would be written; write nothing anywhere
    #[arg(long)]
    pub dry_run: bool,
}

/// `user`
#[derive(Debug, Args)]
pub struct UserArgs {
    /// E-mail address, login or Okta id (00u…)
    #[arg(value_parser = who())]
    pub who: String,

    /// Also read both tenants now
    #[arg(long)]
    pub live: bool,

    /// Process the user now: read, decide, apply
    #[arg(long)]
    pub sync: bool,

    /// With --sync: show what would be written; write nothing anywhere
    #[arg(long, requires = "sync")]
    pub dry_run: bool,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `check`
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Check configuration and state, without the network
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

    /// Exit with 1 if an operator is needed
    #[arg(long)]
    pub check: bool,
}

/// Which events `events` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EventState {
    /// Not processed yet.
    Pending,
    /// Processed.
    Settled,
    /// Irrelevant to denials.
    Ignored,
    /// Unreadable; kept for an operator.
    Quarantined,
}

/// `events`
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Only events in this state
    #[arg(long, value_enum)]
    pub state: Option<EventState>,

    /// Maximum number of events, newest first
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub limit: u32,

    /// Print one JSON object per line
    #[arg(long)]
    pub json: bool,
}

/// `retry`
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("users").required(true).args(["who", "failed"]))]
pub struct RetryArgs {
    /// E-mail address, login or Okta id (00u…)
    #[arg(value_parser = who())]
    pub who: Option<String>,

    /// All failed users
    #[arg(long)]
    pub failed: bool,
}

/// `approve`
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("users").required(true).args(["who", "all"]))]
pub struct ApproveArgs {
    /// E-mail address, login or Okta id (00u…)
    #[arg(value_parser = who())]
    pub who: Vec<String>,

    /// All users that the guard holds; name users that are held for other reasons
    #[arg(long)]
    pub all: bool,

    /// Why you approve, for the audit trail
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,

    /// Do not prompt for confirmation
    #[arg(long)]
    pub yes: bool,
}

/// `action …`
#[derive(Debug, Subcommand)]
pub enum ActionCommand {
    /// Print the Action's code, for pasting into the dashboard
    #[command(after_help = "Example:\n  okta-auth0-sync action show > action.js")]
    Show,

    /// Create or update the Action, deploy it and bind it first; keeps other bindings
    #[command(after_help = "Example:\n  okta-auth0-sync action deploy --yes")]
    Deploy(DeployArgs),

    /// Check that the Action exists and is deployed, up to date and bound
    #[command(after_help = "Example:\n  okta-auth0-sync action check")]
    Check,
}

/// `action deploy`
#[derive(Debug, Args)]
pub struct DeployArgs {
    /// Do not prompt for confirmation
    #[arg(long, conflicts_with = "dry_run")]
    pub yes: bool,

    /// Show what would change; change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `audit …`
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Print all decisions, oldest first; in CSV, cells that look like formulas get a leading apostrophe
    #[command(after_help = "Example:\n  okta-auth0-sync audit export --since 2026-01-01T00:00:00Z --format jsonl")]
    Export(ExportArgs),

    /// Verify that no decision was changed or removed after it was written
    #[command(after_help = "Example:\n  okta-auth0-sync audit verify")]
    Verify,
}

/// Output format of `audit export`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// Comma-separated values with a header line (RFC 4180).
    Csv,
    /// One JSON object per line.
    Jsonl,
}

/// `audit export`
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Only decisions within this time, or since this RFC 3339 time [default: all]
    #[arg(long, value_name = "TIME", value_parser = Since::parse)]
    pub since: Option<Since>,

    /// Output format
    #[arg(long, value_enum, default_value_t = ExportFormat::Csv)]
    pub format: ExportFormat,
}

/// `forget`
#[derive(Debug, Args)]
pub struct ForgetArgs {
    /// E-mail address, login or Okta id (00u…)
    #[arg(value_parser = who())]
    pub who: String,

    /// Do not prompt for confirmation
    #[arg(long)]
    pub yes: bool,
}

/// `purge`
#[derive(Debug, Args)]
pub struct PurgeArgs {
    /// Show which marks would be removed; change nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Do not prompt for confirmation
    #[arg(long, conflicts_with = "dry_run")]
    pub yes: bool,
}

/// `backup`
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// Target file; must not exist yet
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
}

/// `sandbox`
#[cfg(feature = "sandbox")]
#[derive(Debug, Args)]
pub struct SandboxArgs {
    /// Port of the Okta org; 0 picks a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub okta_port: u16,

    /// Port of the Auth0 tenant; 0 picks a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub auth0_port: u16,

    /// Active users in both tenants at the start
    ///
    /// Of every hundred, one has an account with an upper-case address, and one shares the address with a user who
    /// stays active.
    #[arg(long = "people", value_name = "COUNT", default_value_t = 0)]
    pub users: usize,

    /// Number of these users that are deactivated at the start
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub leavers: usize,

    /// Number of unrelated entries in the System Log before that
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub history: usize,

    /// Delay of every response
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub latency: Option<std::time::Duration>,

    /// Burst size of Auth0's rate limit [default: 50]
    #[arg(long, value_name = "COUNT", requires = "auth0_per_second", value_parser = clap::value_parser!(u32).range(1..))]
    pub auth0_burst: Option<u32>,

    /// Refill rate of Auth0's rate limit [default: 16]
    #[arg(long, value_name = "COUNT", requires = "auth0_burst", value_parser = clap::value_parser!(u32).range(1..))]
    pub auth0_per_second: Option<u32>,

    /// Disable the rate limits of both tenants
    #[arg(long, conflicts_with = "auth0_burst")]
    pub unlimited: bool,

    /// Start without the Action, to practice `action deploy`
    #[arg(long)]
    pub no_action: bool,
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
    /// Write one page per command into this directory, which must exist
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub dir: Option<PathBuf>,
}

/// A user as typed or pasted. Whether it exists is for the command to find out.
fn who() -> impl TypedValueParser<Value = String> {
    StringValueParser::new().map(|text| unwrap_mailbox(&text).to_owned())
}

/// A point in time in the past, as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// A time span before now: `90days`.
    Ago(std::time::Duration),
    /// An absolute time: `2026-01-01T00:00:00Z`.
    At(Timestamp),
}

impl Since {
    fn parse(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text)
            .map(Self::Ago)
            .or_else(|_| crate::domain::clock::parse_timestamp(text).map(Self::At))
            .map_err(|_| {
                "expected a time span such as \"90days\" or a time such as \"2026-01-01T00:00:00Z\"".to_owned()
            })
    }

    /// Resolves to a timestamp.
    pub fn resolve(self, now: Timestamp) -> Timestamp {
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
    fn definition_is_valid() {
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
    fn who_may_be_pasted_from_a_mail() {
        for line in [
            "user 'Ann <Ann@example.com>'",
            "user '\"Lee, Ann\" <Ann@example.com>'",
            "user '  <Ann@example.com> '",
            "user mailto:Ann@example.com",
            "user Ann@example.com",
            "retry 'Ann <Ann@example.com>'",
            "approve 'Ann <Ann@example.com>'",
            "forget 'Ann <Ann@example.com>'",
        ] {
            let words = shell_words(line);
            let cli = Cli::try_parse_from(std::iter::once("okta-auth0-sync".to_owned()).chain(words)).unwrap();
            let who = match cli.command {
                Command::User(arguments) => arguments.who,
                Command::Retry(arguments) => arguments.who.unwrap(),
                Command::Approve(arguments) => arguments.who[0].clone(),
                Command::Forget(arguments) => arguments.who,
                other => panic!("{other:?}"),
            };
            assert_eq!(who, "Ann@example.com", "{line}");
        }
    }

    /// The command and its one argument, which may be quoted.
    fn shell_words(line: &str) -> Vec<String> {
        let (command, who) = line.split_once(' ').unwrap();
        vec![command.to_owned(), who.trim_matches('\'').to_owned()]
    }

    #[test]
    fn since_is_a_span_or_a_time() {
        let now: Timestamp = "2026-11-23T00:00:00Z".parse().unwrap();
        assert_eq!(Since::parse("2days").unwrap().resolve(now).to_string(), "2026-11-21T00:00:00Z");
        assert_eq!(Since::parse("2026-01-01T00:00:00Z").unwrap().resolve(now).to_string(), "2026-01-01T00:00:00Z");
        assert!(Since::parse("yesterday").unwrap_err().contains("90days"));
    }
}
