//! The command line.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use vmms_proto::{ChildInfo, Reply, Request, SOCKET};

use crate::connection::Connection;

/// Starts, stops and shows child partitions of Verdigris.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Options {
    /// Print JSON: what was asked for, or {"error": TEXT}.
    #[arg(long, global = true)]
    pub json: bool,
    /// Socket of vmms.
    #[arg(long, global = true, default_value = SOCKET)]
    pub socket: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Show all children, one a line.
    List,
    /// Show all about one child.
    Show {
        /// Its name.
        name: String,
    },
    /// Add a child from a description in TOML.
    Create {
        /// The description; - for standard input.
        file: PathBuf,
    },
    /// Remove a stopped child's description; its disks stay.
    Delete {
        /// Its name.
        name: String,
    },
    /// Start children; done when their VPs run.
    Start {
        #[command(flatten)]
        children: Children,
        /// Attach to the console of the one that was started.
        #[arg(long, short = 'c', conflicts_with = "all")]
        attach: bool,
    },
    /// Stop children: press the power button, and switch off what has not gone by itself in time.
    Stop {
        #[command(flatten)]
        children: Children,
        /// Seconds to wait before it is switched off, its disks flushed; 0: do not press the button
        /// [default: stop_seconds of its description].
        #[arg(long, short = 't')]
        seconds: Option<u32>,
    },
    /// Switch children off at once.
    Kill {
        #[command(flatten)]
        children: Children,
    },
    /// Stop a child's VPs.
    Pause {
        /// Its name.
        name: String,
    },
    /// Let a paused child go on.
    Resume {
        /// Its name.
        name: String,
    },
    /// Tell a child that the file of a disk has another size.
    ResizeDisk {
        /// Its name.
        name: String,
        /// Number of the disk, from 0.
        lun: u8,
    },
    /// Attach to a child's console; Ctrl-] leaves it.
    Console {
        /// Its name.
        name: String,
    },
    /// Show what happened to a child, and what its worker said.
    Logs {
        /// Its name.
        name: String,
        /// How many of the last lines.
        #[arg(long, short = 'n', default_value_t = 100)]
        lines: u32,
    },
    /// Print a script that completes commands: source <(vmctl completion bash).
    Completion {
        /// The shell.
        shell: Shell,
    },
}

/// Which children.
#[derive(Args, Clone, Debug)]
pub struct Children {
    /// Their names.
    #[arg(required_unless_present = "all")]
    pub name: Vec<String>,
    /// All that are not stopped; for start, those that start with the system.
    #[arg(long, conflicts_with = "name")]
    pub all: bool,
}

impl Children {
    /// Their names; of all, those that `is_meant`.
    pub fn names(
        &self,
        connection: &mut Connection,
        is_meant: fn(&ChildInfo) -> bool,
    ) -> Result<Vec<String>> {
        if !self.all {
            return Ok(self.name.clone());
        }
        let Reply::Children(children) = connection.ask(&Request::List)? else {
            bail!("vmms does not list its children");
        };
        let meant = children.into_iter().filter(is_meant);
        Ok(meant.map(|child| child.name).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
        for line in [
            "vmctl list --json",
            "vmctl start web -c",
            "vmctl start --all",
            "vmctl stop a b -t 0",
            "vmctl completion bash",
        ] {
            Options::try_parse_from(line.split(' ')).unwrap();
        }
        for line in [
            "vmctl",
            "vmctl start",
            "vmctl kill web --all",
            "vmctl logs web -n x",
        ] {
            assert!(Options::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
