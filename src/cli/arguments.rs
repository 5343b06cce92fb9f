//! The command line as clap reads it. The texts here are what `--help` prints; boxctl(1) says the same at length.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueHint};

use super::terminal::Color;

/// `boxctl`.
#[derive(Debug, Parser)]
#[command(
    name = "boxctl",
    version,
    about = "Run and look after boxes: containers that are systemd units",
    after_help = "\
A box is described by /etc/boxd/NAME.toml and run by systemd as box@NAME.service:

  boxctl run /usr/lib/boxd/hello.toml   try a definition in the foreground
  boxctl check                          say what is wrong with any definition
  boxctl start web                      as `systemctl start box@web`, and say why if it fails
  boxctl status                         all boxes; `boxctl status web` for one
  boxctl logs -f web                    what it writes
  boxctl shell web                      look around in it

Start a box with the host: write `start-at-boot = true` into its definition.",
    max_term_width = 100,
    disable_help_subcommand = true
)]
pub struct Arguments {
    /// When to use colours: auto, always or never; NO_COLOR turns them off too
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "WHEN",
        default_value_t,
        hide_possible_values = true
    )]
    pub color: Color,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// One command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a box in the foreground, until it ends or Ctrl-C stops it
    #[command(after_help = "\
The box gets the namespaces, limits and privileges it has as a unit; its output comes here, and its exit \
status becomes that of boxctl (128+n when signal n ended it). Works without systemd too, on a cgroup of its own. \
Sockets of the definition are opened before the box begins, and passed to it as systemd would.

  boxctl run ./web.toml     a definition anywhere
  boxctl run web            the installed definition of that name, with its drop-ins")]
    Run {
        /// A file (with a `/`, or ending in .toml) or the name of a box
        #[arg(value_name = "FILE|NAME")]
        source: String,
    },
    /// Write a commented definition to begin with
    #[command(after_help = "\
The file is /etc/boxd/NAME.toml. A box that is there already is not touched.

  boxctl new web
  boxctl new web -- /usr/sbin/nginx -g 'daemon off;'
  boxctl new --root /srv/web --description 'Shop front' web")]
    New {
        /// A directory with a root file system; the host's /usr if not given
        #[arg(long, value_name = "DIRECTORY", value_hint = ValueHint::DirPath)]
        root: Option<PathBuf>,
        /// One line for people
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
        /// The name of the box
        #[arg(value_name = "NEW-NAME")]
        name: String,
        /// The program that runs in it, and its arguments
        #[arg(last = true, value_name = "CMD")]
        command: Vec<String>,
    },
    /// Change a definition in an editor, which is checked before it counts
    #[command(after_help = "\
The editor is that of $SYSTEMD_EDITOR, $VISUAL or $EDITOR. It gets a copy; what it wrote is put in the place of the \
definition only if it has no errors, and else kept aside. A definition of a package is not changed: its copy in \
/etc/boxd hides it.

  boxctl edit web
  boxctl edit --drop-in web           only what differs: /etc/boxd/web.toml.d/50-local.toml
  boxctl edit --drop-in=60-debug web")]
    Edit {
        /// Write a drop-in beside the definition instead
        #[arg(
            long,
            value_name = "FILE",
            num_args = 0..=1,
            require_equals = true,
            default_missing_value = super::edit::DROP_IN
        )]
        drop_in: Option<String>,
        /// The box
        name: String,
    },
    /// Set keys of a box: at once if it runs, and for its next starts
    #[command(after_help = "\
Limits, the description, the restart policy and all else that `boxctl apply` changes without a restart. A key of \
[resources] is written with its table or without, any other with it, as in restart.policy; `boxctl explain` says what \
each means. The definition with the new values is checked like any other before anything is changed. They are written \
to the drop-in /etc/boxd/NAME.toml.d/90-set.toml, with --runtime to \
/run/boxd/definitions/NAME.toml.d/95-set-runtime.toml, which counts more and is gone with the next boot. KEY= takes a \
setting out of it again; the definition's own value holds then.

  boxctl set web memory=1G
  boxctl set web cpu=1.5 tasks=512 io-write./dev/vda=20M
  boxctl set --runtime web memory=infinity restart.policy=no
  boxctl set web memory=              as the definition says")]
    Set {
        /// Only until the next boot
        #[arg(long)]
        runtime: bool,
        /// The box
        name: String,
        /// Keys and their values
        #[arg(required = true, value_name = "KEY=VALUE")]
        settings: Vec<String>,
    },
    /// Have boxes start with the host
    #[command(after_help = "\
That is start-at-boot of the definition; where that says otherwise, a drop-in 90-start-at-boot.toml is laid over it. \
For a box with sockets these listen from the start of the host on.

  boxctl enable web
  boxctl enable --now web db")]
    Enable {
        /// Start them at once, too
        #[arg(long)]
        now: bool,
        /// Boxes
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Have boxes not start with the host
    #[command(after_help = "\
They can be started by hand, by what requires them, and while their sockets listen by a connection.

  boxctl disable --now web")]
    Disable {
        /// Stop them at once, too
        #[arg(long)]
        now: bool,
        /// Boxes
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Say everything that is wrong with definitions
    #[command(after_help = "\
Without files, every definition in /etc/boxd, /run/boxd/definitions and /usr/lib/boxd is checked, with its \
drop-ins. The exit status is 1 if any is wrong.

  boxctl check && systemctl daemon-reload
  boxctl check web          with its drop-ins
  boxctl check web.toml     before it is installed")]
    Check {
        /// Files (with a `/`, or ending in .toml) or names of boxes
        #[arg(value_name = "FILE|NAME")]
        files: Vec<PathBuf>,
    },
    /// Print what would be done to run a box, or to apply all definitions, and do nothing
    #[command(after_help = "\
Of a box, every default, path, id and limit as it is decided on this host: mounts in their order, privileges, \
limits. Without a name, which boxes `boxctl apply` would start, stop, restart or change while they run, and the \
keys that are the reason.

  boxctl plan
  boxctl plan web
  diff <(boxctl plan web) <(boxctl plan ./web.toml)")]
    Plan {
        /// A file (with a `/`, or ending in .toml) or the name of a box
        #[arg(value_name = "NAME|FILE")]
        source: Option<String>,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Say what a key of a definition does, and where a box has its value from
    #[command(after_help = "\
Without a key all are explained. A key is written with its table, or without if that is clear; a table stands for all \
its keys. The words of Quadlet, systemd-nspawn and Docker for it are told too, and lead to the key that is meant.

  boxctl explain memory
  boxctl explain [restart]
  boxctl explain resources.memory web   which file and line box web has it from, and what was replaced")]
    Explain {
        /// A key or a table
        #[arg(value_name = "KEY")]
        key: Option<String>,
        /// A box
        #[arg(value_name = "NAME")]
        name: Option<String>,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Make every box as its definition says
    #[command(after_help = "\
New boxes that start with the host are started, those without a definition stopped. A change of limits, the \
description, the restart policy and the like holds for a running box at once; any other restarts it, in the order \
of `after` and `requires`. A box that does not become ready is put back to its last good definition. A definition \
with problems is left out, and its box keeps its last good one. Each set of definitions that is applied is a \
generation, see `boxctl history`.

  boxctl apply --dry-run    as `boxctl plan`
  boxctl apply")]
    Apply {
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// List the generations: the sets of definitions that were applied
    History {
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what generations say differently, key by key
    #[command(after_help = "\
Without numbers, what the files say otherwise than the generation in force; with one, otherwise than that \
generation; with two, what the second says otherwise than the first.

  boxctl diff
  boxctl diff 11 12")]
    Diff {
        /// A generation
        #[arg(value_name = "GEN")]
        from: Option<u64>,
        /// Another one
        #[arg(value_name = "GEN")]
        to: Option<u64>,
    },
    /// Apply an earlier generation again, whatever the files say
    #[command(after_help = "\
The files are left as they are. Each box keeps the definition it is rolled back to, also when it is started anew, \
until its files say something else than now, or `boxctl apply` takes them as they are.

  boxctl rollback           to the generation before the one in force
  boxctl rollback 11")]
    Rollback {
        /// The generation
        #[arg(value_name = "GEN")]
        generation: Option<u64>,
    },
    /// Show how far a box is open, beside Docker, Podman and systemd-nspawn
    #[command(after_help = "\
A running box is judged as it was started, every other as it would be. Each wall counts points as far as it is open, \
and all of them 100; the defaults of the others are counted by the same rule. What the definition gives beyond the \
box's profile is listed with what it opens.

  boxctl security web
  boxctl security --json ./web.toml")]
    Security {
        /// A file (with a `/`, or ending in .toml) or the name of a box
        #[arg(value_name = "NAME|FILE")]
        source: String,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Start boxes, and wait until they are ready
    Start(Names),
    /// Stop boxes, and wait until nothing of them is left
    Stop(Names),
    /// Stop and start boxes; one whose definition is wrong keeps running
    Restart(Names),
    /// Ask boxes to read their configuration anew
    Reload(Names),
    /// Let all processes of boxes stand still
    #[command(after_help = "\
They keep their memory, files and connections, and get no CPU until `boxctl resume`. A paused box can be \
stopped and killed.")]
    Pause(Names),
    /// Let paused boxes go on
    Resume(Names),
    /// Wait until boxes have ended, and say how
    #[command(after_help = "\
Prints the exit status of each box, in the order given: that of its first process, 128+n when signal n ended it, \
and 0 if it stopped as it was asked to. The exit status is the first of these that is not 0, and 125 if a box \
cannot be waited for. A box that does not run has ended: it is told how.

  boxctl start job && boxctl wait job")]
    Wait(Names),
    /// Send a signal to boxes: to the first process, or to all
    #[command(after_help = "\
Examples:
  boxctl kill -s HUP web    make nginx read its configuration anew
  boxctl kill -s KILL web   end it at once; its restart policy decides what follows
  boxctl kill -s USR1 --all web")]
    Kill {
        /// To all processes of the box, those of `boxctl exec` too
        #[arg(short, long)]
        all: bool,
        /// Which signal: a name or a number
        #[arg(short, long, value_name = "SIGNAL", default_value = "SIGTERM", value_parser = signal)]
        signal: i32,
        /// Boxes
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Show all boxes as a table, or the given ones in full
    #[command(after_help = "\
Examples:
  boxctl status             a line for each box: those that run, failed, are broken or at rest
  boxctl status web         what `systemctl status` shows, and what only boxd knows
  boxctl status --json      the same for programs; the format is stable

The exit status is 0; with names it is 3 if one of them does not run, and 1 if one is not known.")]
    Status {
        /// Boxes; all if none is given
        #[arg(value_name = "NAME")]
        names: Vec<String>,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
        /// How many of the last lines a box wrote are shown with it
        #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
        lines: u32,
    },
    /// Show all that is known of a box
    #[command(after_help = "\
What `boxctl status` shows, then every value of its files with file and line, its processes, and what was done \
to run it, or would be.

  boxctl inspect web
  boxctl inspect --json web | jq .plan.mounts")]
    Inspect {
        /// The box
        name: String,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what running boxes use: CPU, memory, IO, tasks, and what they wait for
    #[command(after_help = "\
CPU, READ and WRITTEN are counted from the start of the box. WAITS is for how much of the last ten seconds something \
in the box stood still for want of a processor, of memory, or of a disk. A part the host does not count shows as `-`.

  boxctl stats
  boxctl stats --json web db     the format is stable; bytes, and microseconds of CPU")]
    Stats {
        /// Boxes; all that run if none is given
        #[arg(value_name = "NAME")]
        names: Vec<String>,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Watch what running boxes use
    #[command(after_help = "\
A line for each box, and graphs of the one that is chosen. q leaves, the arrows choose, and c, m, i, t, p and n put \
first who uses most CPU, memory, IO or tasks, who waits most, or go by name.

  boxctl top
  boxctl top --interval 5")]
    Top {
        /// Seconds between two looks
        #[arg(short, long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
        interval: std::time::Duration,
    },
    /// Say what of this host is missing or risky for boxes, and what to do about it
    #[command(after_help = "\
The exit status is 1 if something is missing that boxes need, and 0 else.

  boxctl doctor
  boxctl doctor --json | jq '.checks[] | select(.verdict == \"risk\")'")]
    Doctor {
        /// Show what is good too
        #[arg(short, long)]
        all: bool,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show which boxes are defined, and where
    List {
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what a box writes: journalctl -u box@NAME
    #[command(after_help = "\
Examples:
  boxctl logs web           everything, from its first byte
  boxctl logs -f web        the last lines, and what comes
  boxctl logs -n 50 --since '1 hour ago' web")]
    Logs {
        /// Go on showing what comes
        #[arg(short, long)]
        follow: bool,
        /// Only the last lines
        #[arg(short = 'n', long, value_name = "N")]
        lines: Option<u32>,
        /// Only what is newer, in the words of systemd.time(7)
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
        /// The box
        name: String,
    },
    /// Show what happens to boxes, as it happens
    #[command(after_help = "\
Starts, ends, changes of health, kills for want of memory, restarts and the like, from the journal; Ctrl-C ends it. \
journalctl -x explains each at length.

  boxctl events
  boxctl events --since today --no-follow web
  boxctl events --json | jq 'select(.event == \"oom-kill\").name'")]
    Events {
        /// Print an object of JSON a line
        #[arg(long)]
        json: bool,
        /// Begin with what is newer, in the words of systemd.time(7)
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
        /// End with what there is, by default since the host was booted
        #[arg(long)]
        no_follow: bool,
        /// Boxes; all if none is given
        #[arg(value_name = "NAME")]
        names: Vec<String>,
    },
    /// Run a command in a running box
    #[command(after_help = "\
The command is in all namespaces of the box and in its cgroup, with its limits, user, environment and reduced \
privileges. On a terminal it gets a terminal of its own in the box; without one, give -i to pass on standard \
input. The exit status is the command's (128+n when signal n ended it); 127 if there is no such command, 126 if \
it cannot be executed, and 125 if the box cannot be entered.

  boxctl exec web -- nginx -t
  boxctl exec -u root web -- apt-get update
  tar c site | boxctl exec -i web -- tar x -C /var/www")]
    Exec {
        /// As whom: a name or UID[:GID] of the box; the box's own user if not given
        #[arg(short, long, value_name = "USER")]
        user: Option<String>,
        /// Give the command a terminal even if boxctl has none
        #[arg(short, long)]
        terminal: bool,
        /// Pass on standard input
        #[arg(short, long)]
        interactive: bool,
        /// In which directory of the box; the box's own if not given
        #[arg(short, long, value_name = "DIRECTORY")]
        working_directory: Option<PathBuf>,
        /// The box
        name: String,
        /// The command and its arguments
        #[arg(trailing_var_arg = true, required = true, value_name = "CMD")]
        command: Vec<std::ffi::OsString>,
    },
    /// Open a shell in a running box
    #[command(after_help = "\
The shell is that of the user in the box's /etc/passwd, or else bash or sh, whichever the box has.

  boxctl shell web
  boxctl shell -u root web")]
    Shell {
        /// As whom: a name or UID[:GID] of the box; the box's own user if not given
        #[arg(short, long, value_name = "USER")]
        user: Option<String>,
        /// The box
        name: String,
    },
    /// Connect this terminal to that of a box with `tty = true`
    #[command(after_help = "\
Shows the last part of what the box has shown, and what comes; what is typed goes to the box. The box keeps its \
terminal when you detach, and takes the size of your window. Several can be attached at once, and all see and type the \
same. A terminal of their own have `boxctl exec -t` and `boxctl shell`.

The exit status is 0 after detaching, that of the box if it ends meanwhile (255 if that is not known), 128+n when \
signal n ended boxctl, and 125 if there is nothing to attach to.

  boxctl attach game
  boxctl attach --detach-keys ctrl-p,ctrl-q game")]
    Attach {
        /// Keys that detach when typed within a second, with commas between them: ctrl-X or a character; or none
        #[arg(long, value_name = "KEYS", default_value = "ctrl-],ctrl-],ctrl-]")]
        detach_keys: crate::attach::Keys,
        /// The box
        name: String,
    },
    /// Say what may stand in the place of the last of these words: for the completions of shells
    #[command(hide = true)]
    Complete {
        /// What follows `boxctl` on the command line, the word at the cursor last
        #[arg(last = true, num_args = 0.., value_name = "WORD")]
        words: Vec<String>,
    },
    /// Print the JSON Schema of definitions, for editors
    #[command(after_help = "\
Examples:
  boxctl schema > box.schema.json

An editor with a TOML language server then completes and checks a definition that begins with
  #:schema ./box.schema.json")]
    Schema,
}

/// One or several boxes.
#[derive(Debug, Args)]
pub struct Names {
    /// Boxes
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
}

/// A pause that neither keeps a processor busy nor looks like a screen that hangs.
fn interval(text: &str) -> Result<std::time::Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => {
            Ok(std::time::Duration::from_secs_f64(seconds))
        }
        _ => Err("expected seconds from 0.1 to 3600".to_owned()),
    }
}

/// A signal by number or by name, with or without `SIG`.
fn signal(text: &str) -> Result<i32, String> {
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=libc::SIGRTMAX()).contains(&number) {
            Ok(number)
        } else {
            Err(format!("there is no signal {number}"))
        };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = name.strip_prefix("RTMIN+") {
        return offset
            .parse::<i32>()
            .ok()
            .map(|offset| libc::SIGRTMIN() + offset)
            .filter(|number| (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(number))
            .ok_or_else(|| format!("there is no signal {text}"));
    }
    format!("SIG{name}")
        .parse::<nix::sys::signal::Signal>()
        .map(|signal| signal as i32)
        .map_err(|_| format!("there is no signal {text}; signal(7) lists them"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn what_follows_the_box_is_the_commands_own() {
        let parsed = Arguments::try_parse_from([
            "boxctl", "exec", "-u", "0:0", "web", "--", "ls", "-u", "--",
        ])
        .expect("it parses");
        let Command::Exec {
            user,
            name,
            command,
            ..
        } = parsed.command
        else {
            panic!("another command");
        };
        assert_eq!((user.as_deref(), name.as_str()), (Some("0:0"), "web"));
        assert_eq!(command, ["ls", "-u", "--"]);
        let parsed = Arguments::try_parse_from(["boxctl", "exec", "web", "-i", "ls", "-u", "-la"])
            .expect("it parses");
        assert!(matches!(
            parsed.command,
            Command::Exec { user: None, interactive: true, command, .. } if command == ["ls", "-u", "-la"]
        ));
        assert!(Arguments::try_parse_from(["boxctl", "exec", "web"]).is_err());
    }

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in [
            ("HUP", 1),
            ("sighup", 1),
            ("9", 9),
            ("SIGRTMIN+3", libc::SIGRTMIN() + 3),
        ] {
            assert_eq!(signal(text), Ok(number), "{text}");
        }
        for bad in ["", "0", "65", "-1", "SIGFOO", "RTMIN+99"] {
            assert!(signal(bad).is_err(), "{bad}");
        }
    }
}
