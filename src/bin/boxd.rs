//! `boxd run NAME`, `boxd reload NAME`, `boxd clean NAME`: what the units call; `boxd probe NAME`: what supervisors
//! call.

use std::error::Error;
use std::io::Write as _;
use std::process::ExitCode;

use boxd::agent;
use boxd::bus;
use boxd::clean::{self, Ending, Outcome};
use boxd::journal::{self, chain};
use boxd::name::Name;
use boxd::probe;
use boxd::reload;
use boxd::run;
use boxd::stop;
use boxd::sys;
use boxd::systemd::notify;
use clap::{Parser, Subcommand};

/// What box@.service calls. Boxes are looked after with systemctl and boxctl.
#[derive(Parser)]
#[command(name = "boxd", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a box and become its supervisor: ExecStart= of box@NAME.service
    Run {
        /// The box
        name: Name,
    },
    /// Apply definitions as they are edited: ExecStart= of boxd.service
    Agent,
    /// Ask a running box once how it is, as [health] of its definition says: called by its supervisor
    ///
    /// Exit status: 0 if it is well, 1 if not, 2 if it did not answer in time, 3 if it could not be asked.
    Probe {
        /// The box
        name: Name,
    },
    /// Have a box read its configuration anew: ExecReload= of box@NAME.service, where its definition has [reload]
    Reload {
        /// The box
        name: Name,
    },
    /// Run the stop command of a box in it: ExecStop= of box@NAME.service, where its definition has one
    Stop {
        /// The box
        name: Name,
    },
    /// End and remove what is left of a box: ExecStopPost= of box@NAME.service
    Clean {
        /// The box
        name: Name,
        /// Only what an earlier try has left undone
        #[arg(long)]
        again: bool,
        /// Only if its service is at rest: box-clean@NAME.service
        #[arg(long, conflicts_with = "again")]
        orphan: bool,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run { name } => {
            journal::init("boxd", &name);
            let Err(error) = run::run(&name);
            let sentence = chain(&error);
            if error.is_called_off() {
                tracing::info!("the start of box {name} was called off: {sentence}");
                // As systemd is about to end it: that is no failure.
                sys::end_by_sigterm();
            }
            say(&error, &sentence);
            // The unit fails whether it hears why or not.
            let _ = notify::status(sentence.lines().next().unwrap_or_default());
            if error.leaves_the_box() {
                // An exit status would be the box's end; systemd answers this one with another attempt.
                std::process::abort();
            }
            ExitCode::from(error.status())
        }
        Command::Agent => {
            journal::init_for_all("boxd");
            // Applying does not depend on it.
            let bus = bus::serve();
            if let Err(error) = &bus {
                tracing::error!("cannot serve {} on the system bus: {error}", bus::NAME);
            }
            agent::service::run(&|| {
                if let Ok(bus) = &bus {
                    bus.look_again();
                }
            })
        }
        Command::Reload { name } => {
            journal::init("boxd", &name);
            exit_code(reload::reload(&name))
        }
        Command::Probe { name } => ExitCode::from(probe::run(&name)),
        Command::Stop { name } => {
            journal::init("boxd", &name);
            exit_code(stop::run(&name))
        }
        Command::Clean {
            name,
            again,
            orphan,
        } => {
            journal::init("boxd", &name);
            let ending = Ending::from_environment();
            let outcome = match (again, orphan) {
                (_, true) => clean::clean_orphan(&name),
                (true, false) => clean::clean_again(&name, &ending),
                (false, false) => clean::clean(&name, &ending),
            };
            if let Ok(Outcome::Left) = outcome {
                tracing::warn!(
                    "the supervisor of box {name} is gone; the box runs on for the next one"
                );
            }
            exit_code(outcome)
        }
    }
}

fn exit_code<T>(result: Result<T, impl Error>) -> ExitCode {
    match result {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn say(error: &run::Error, sentence: &str) {
    match error {
        // Then the socket to the journal is gone as well.
        run::Error::Supervisor { .. } | run::Error::Heir { .. } => {
            let _ = writeln!(std::io::stderr(), "boxd: {sentence}");
        }
        _ => tracing::error!("{sentence}"),
    }
}
