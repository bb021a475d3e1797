//! `vmctl`: what a person says to `vmms`.
#![forbid(unsafe_code)]

mod connection;
mod console;
mod options;
mod show;

use std::io::{self, ErrorKind, Read, Write};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{CommandFactory, Parser};
use vmms_proto::{ChildInfo, ChildState, Reply, Request};

use connection::Connection;
use options::{Command, Options};

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(code) => code,
        Err(error) => {
            if options.json {
                let text = format!("{error:#}");
                let value = serde_json::json!({ "error": text });
                let _ = put(io::stdout(), &format!("{value}\n"));
            } else {
                let _ = put(io::stderr(), &format!("vmctl: {error:#}\n"));
            }
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<ExitCode> {
    if let Command::Completion { shell } = options.command {
        let mut command = Options::command();
        clap_complete::generate(shell, &mut command, "vmctl", &mut io::stdout());
        return Ok(ExitCode::SUCCESS);
    }
    let mut connection = Connection::open(&options.socket)?;
    match &options.command {
        Command::Console { name } => {
            connection.console(name)?;
            console::relay(&connection, name)?;
        }
        Command::Start { children, attach } => {
            let names = children.names(&mut connection, is_startable)?;
            each(&mut connection, options, names, |name| Request::Start {
                name,
            })?;
            if *attach && let [name] = &children.name[..] {
                connection.console(name)?;
                console::relay(&connection, name)?;
            }
        }
        Command::Stop { children, seconds } => {
            let names = children.names(&mut connection, is_alive)?;
            let seconds = *seconds;
            each(&mut connection, options, names, |name| Request::Stop {
                name,
                seconds,
            })?;
        }
        Command::Kill { children } => {
            let names = children.names(&mut connection, is_alive)?;
            each(&mut connection, options, names, |name| Request::Kill {
                name,
            })?;
        }
        Command::Create { file } => {
            let text = match file.as_os_str() == "-" {
                true => {
                    let mut text = String::new();
                    io::stdin().read_to_string(&mut text)?;
                    text
                }
                false => std::fs::read_to_string(file)
                    .with_context(|| format!("reading {}", file.display()))?,
            };
            print(options, connection.ask(&Request::Create { text })?)?;
        }
        command => {
            let request = request(command)?;
            print(options, connection.ask(&request)?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The one request of a simple command.
fn request(command: &Command) -> Result<Request> {
    Ok(match command.clone() {
        Command::List => Request::List,
        Command::Show { name } => Request::Show { name },
        Command::Delete { name } => Request::Delete { name },
        Command::Pause { name } => Request::Pause { name },
        Command::Resume { name } => Request::Resume { name },
        Command::ResizeDisk { name, lun } => Request::ResizeDisk { name, lun },
        Command::Logs { name, lines } => Request::Logs { name, lines },
        other => bail!("{other:?} is no simple command"),
    })
}

/// Asks the same for all of them, at the same time: one that takes long does not keep the others.
fn each(
    first: &mut Connection,
    options: &Options,
    names: Vec<String>,
    request: impl Fn(String) -> Request + Sync,
) -> Result<()> {
    if let [name] = &names[..] {
        return print(options, first.ask(&request(name.clone()))?);
    }
    let results: Vec<(String, Result<Reply>)> = std::thread::scope(|scope| {
        let request = &request;
        let threads: Vec<_> = names
            .into_iter()
            .map(|name| {
                let wish = request(name.clone());
                let asked = scope.spawn(move || Connection::open(&options.socket)?.ask(&wish));
                (name, asked)
            })
            .collect();
        threads
            .into_iter()
            .map(|(name, thread)| {
                let result = thread.join();
                (name, result.unwrap_or_else(|_| bail!("its thread died")))
            })
            .collect()
    });
    let failed: Vec<String> = results
        .into_iter()
        .filter_map(|(name, result)| Some(format!("{name}: {:#}", result.err()?)))
        .collect();
    if !failed.is_empty() {
        bail!("{}", failed.join("\n"));
    }
    print(options, Reply::Done)
}

fn print(options: &Options, reply: Reply) -> Result<()> {
    if options.json {
        let value = match &reply {
            Reply::Done | Reply::Console => serde_json::json!({}),
            Reply::Children(children) => match (&options.command, &children[..]) {
                (Command::Show { .. }, [child]) => serde_json::to_value(child)?,
                _ => serde_json::to_value(children)?,
            },
            Reply::Text(text) => serde_json::json!({ "text": text }),
            Reply::Error(text) => bail!("{text}"),
        };
        return Ok(put(io::stdout(), &format!("{value}\n"))?);
    }
    let text = match reply {
        Reply::Done | Reply::Console => String::new(),
        Reply::Children(children) => match (&options.command, &children[..]) {
            (Command::Show { .. }, [child]) => show::one(child),
            _ => show::table(&children),
        },
        Reply::Text(text) if text.is_empty() => text,
        Reply::Text(text) => text + "\n",
        Reply::Error(text) => bail!("{text}"),
    };
    Ok(put(io::stdout(), &text)?)
}

/// Writes `text`, of which somebody may read only the beginning, as `head` does. `println!` would panic.
fn put(mut to: impl Write, text: &str) -> io::Result<()> {
    match to.write_all(text.as_bytes()).and_then(|()| to.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

fn is_startable(child: &ChildInfo) -> bool {
    child.state == ChildState::Stopped && child.autostart
}

fn is_alive(child: &ChildInfo) -> bool {
    child.state != ChildState::Stopped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebody_may_read_only_the_beginning() {
        let (mut reader, writer) = io::pipe().unwrap();
        put(writer.try_clone().unwrap(), "web\n").unwrap();
        let mut first = [0; 3];
        reader.read_exact(&mut first).unwrap();
        drop(reader);
        put(writer, "more").unwrap();
    }
}
