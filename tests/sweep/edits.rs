//! An operator, his editors and his configuration management edit definitions at random, good and bad ones, and whoever
//! applies them is killed at random moments. When all is quiet every box is what a model says: it runs or does not, by
//! the definition that is in force, and it is another process than before only if it had to be.

mod model;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crate::guest::{must, sh, write};
use crate::random::Random;
use model::{Asked, Found, Kind, State, States, Text};

const BOXES: u64 = 12;

/// Most edits until it is looked.
const BURST: u64 = 60;

/// So long it may take until all is quiet.
const SETTLE: Duration = Duration::from_secs(120);

const DIRECTORY: &str = "/etc/boxd";

/// Its definition is the last that is edited, so what has been applied with it is all.
const MARKER: &str = "marker";

/// What stands in a file of this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Base {
    Text { kind: Kind, life: u32, words: u32 },
    Mask,
    Broken(Broken),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    Key,
    Unclosed,
    Bytes,
    Dangling,
    Directory,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DropIn {
    Words(u32),
    Broken,
}

/// How a file comes to have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    InPlace,
    Renamed,
    /// The old file is put aside, and a new one is written.
    Backup,
}

/// The files of a box.
#[derive(Debug, Clone, Copy, Default)]
struct Files {
    base: Option<Base>,
    drop_in: Option<DropIn>,
}

impl Files {
    fn found(&self) -> Found {
        match (self.base, self.drop_in) {
            (None | Some(Base::Mask), _) => Found::Nothing,
            (Some(Base::Broken(_)), _) | (_, Some(DropIn::Broken)) => Found::Broken,
            (Some(Base::Text { kind, life, words }), drop_in) => Found::Text(Text {
                kind,
                life,
                words,
                drop_in: drop_in.map(|drop_in| match drop_in {
                    DropIn::Words(words) => words,
                    DropIn::Broken => unreachable!("matched above"),
                }),
            }),
        }
    }
}

/// A file that somebody is still writing.
struct Half {
    name: usize,
    file: File,
    base: Base,
    rest: String,
    left: u64,
}

/// What is seen of a box.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Seen {
    state: String,
    pid: Option<i64>,
    life: Option<u32>,
    described: Option<u32>,
    held: bool,
}

struct Bench {
    random: Random,
    /// The last number that was given to a definition.
    given: u32,
    files: Vec<Files>,
    states: Vec<States>,
    seen: Vec<Seen>,
    halves: Vec<Half>,
    /// Since it was looked the last time.
    log: Vec<String>,
    kills: usize,
}

pub fn run(options: &[&str]) -> ExitCode {
    let number = |index: usize| options.get(index).and_then(|text| text.parse::<u64>().ok());
    let wanted = number(0).unwrap_or(1000);
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let seed = number(1).unwrap_or(now.as_nanos() as u64) | 1;
    println!("{wanted} edits of {BOXES} boxes, seed {seed}");
    write(
        "/etc/systemd/system/boxd.service.d/soon.conf",
        "[Service]\nRestartSec=100ms\n",
    );
    must("systemctl daemon-reload; systemctl start boxd");
    let mut bench = Bench {
        random: Random::new(seed),
        given: 0,
        files: vec![Files::default(); BOXES as usize],
        states: vec![States::none(); BOXES as usize],
        seen: vec![Seen::default(); BOXES as usize],
        halves: Vec::new(),
        log: Vec::new(),
        kills: 0,
    };
    let begun = Instant::now();
    let (mut edits, mut bursts, mut kills) = (0, 0, 0);
    while edits < wanted {
        let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let now = (1 + bench.random.below(BURST)).min(wanted - edits);
        let result = bench
            .burst(now, bursts)
            .and_then(|()| bench.look(since))
            .and_then(|()| bench.operate());
        if let Err(what) = result {
            println!("{}", bench.log.join("\n"));
            println!(
                "{}",
                sh(&format!(
                    "journalctl --sync; journalctl --no-pager -o short-precise --since=@{:.3} -u boxd.service \
                     -u 'box@*' | tail -n 400; boxctl history | head -n 20; boxctl list; ls -la {DIRECTORY}",
                    since.as_secs_f64()
                ))
                .out
            );
            println!("FAILED after {edits} edits in burst {bursts}, seed {seed}: {what}");
            return ExitCode::FAILURE;
        }
        (edits, bursts, kills) = (edits + now, bursts + 1, kills + bench.kills);
        bench.log.clear();
    }
    if let Err(what) = bench.end() {
        println!("FAILED at the end, seed {seed}: {what}");
        return ExitCode::FAILURE;
    }
    println!(
        "edits: ok, {edits} in {bursts} bursts, with {kills} kills, in {} s",
        begun.elapsed().as_secs()
    );
    ExitCode::SUCCESS
}

fn name(number: usize) -> String {
    format!("edited-{number}")
}

fn path(number: usize) -> PathBuf {
    Path::new(DIRECTORY).join(format!("{}.toml", name(number)))
}

fn drop_in_path(number: usize) -> PathBuf {
    path(number).with_extension("toml.d").join("50.toml")
}

/// The text, and how much of it is a definition by itself, by which nothing may ever run.
fn text(kind: Kind, life: u32, words: u32) -> (String, usize) {
    let (script, more) = match kind {
        Kind::Good => ("exec sleep infinity", ""),
        Kind::Failing => ("exit 7", "ready.when = 'notify'\n"),
        Kind::Impossible => (
            "exec sleep infinity",
            "mount = [{ bind = '/srv/not-there', at = '/it' }]\n",
        ),
    };
    let first = format!(
        "command = ['/bin/sh', '-c', 'echo \"life ${{LIFE:-half}}\"; {script}']\nstart-at-boot = true\n\
         restart = {{ policy = 'no', limit-interval = 0 }}\n{more}"
    );
    let rest = format!("description = 'words {words}'\nenvironment = {{ LIFE = '{life}' }}\n");
    (format!("{first}{rest}"), first.len())
}

fn bytes(base: Base) -> Vec<u8> {
    match base {
        Base::Text { kind, life, words } => text(kind, life, words).0.into_bytes(),
        Base::Mask | Base::Broken(Broken::Dangling | Broken::Directory) => Vec::new(),
        Base::Broken(Broken::Key) => b"comand = ['/bin/true']\n".to_vec(),
        Base::Broken(Broken::Unclosed) => b"command = ['/bin/true\n".to_vec(),
        Base::Broken(Broken::Bytes) => b"command = ['/bin/tr\xffue']\n".to_vec(),
    }
}

/// Nothing that can be renamed over, or written into.
fn clear(path: &Path) {
    if path.is_symlink() {
        fs::remove_file(path).expect("a link is removed");
    } else if path.is_dir() {
        fs::remove_dir(path).expect("a directory is removed");
    }
}

fn put(number: usize, base: Base, way: Way) {
    let path = path(number);
    clear(&path);
    match (base, way) {
        (Base::Broken(Broken::Dangling), _) => {
            let _ = fs::remove_file(&path);
            symlink("/srv/not-there", &path).expect("a link is made");
        }
        (Base::Mask, Way::Backup) => {
            let _ = fs::remove_file(&path);
            symlink("/dev/null", &path).expect("a link is made");
        }
        (Base::Broken(Broken::Directory), _) => {
            let _ = fs::remove_file(&path);
            fs::create_dir(&path).expect("a directory is made");
        }
        (base, Way::InPlace) => fs::write(&path, bytes(base)).expect("written"),
        (base, Way::Renamed) => {
            let new = Path::new(DIRECTORY).join(format!(".{}.new", name(number)));
            fs::write(&new, bytes(base)).expect("written");
            fs::rename(&new, &path).expect("renamed");
        }
        (base, Way::Backup) => {
            let backup = path.with_extension("toml~");
            let _ = fs::rename(&path, &backup);
            fs::write(&path, bytes(base)).expect("written");
            let _ = fs::remove_file(&backup);
        }
    }
}

impl Bench {
    fn give(&mut self) -> u32 {
        self.given += 1;
        self.given
    }

    /// Another text, mostly one that differs from this in what can be changed while a box runs.
    fn another(&mut self, now: Option<Base>) -> Base {
        let number = self.give();
        match (self.random.below(100), now) {
            (0..35, Some(Base::Text { kind, life, .. })) => Base::Text {
                kind,
                life,
                words: number,
            },
            (0..70, _) => Base::Text {
                kind: Kind::Good,
                life: number,
                words: number,
            },
            (70..80, _) => Base::Text {
                kind: Kind::Failing,
                life: number,
                words: number,
            },
            (80..86, _) => Base::Text {
                kind: Kind::Impossible,
                life: number,
                words: number,
            },
            (86..90, _) => Base::Mask,
            _ => Base::Broken(self.random.one(&[
                Broken::Key,
                Broken::Unclosed,
                Broken::Bytes,
                Broken::Dangling,
                Broken::Directory,
            ])),
        }
    }

    /// Edits, with kills meanwhile, and waits until all has been applied.
    fn burst(&mut self, edits: u64, burst: u64) -> Result<(), String> {
        let last = history().first().map_or(0, |generation| generation.number);
        let moments: Vec<u64> = (0..self.random.below(4))
            .map(|_| self.random.below(1500))
            .collect();
        self.kills = moments.len();
        self.log.push(format!("kills after {moments:?} ms each"));
        let killer = thread::spawn(move || {
            for moment in moments {
                thread::sleep(Duration::from_millis(moment));
                let _ = sh("systemctl kill --kill-whom=main --signal=KILL boxd");
            }
        });
        for _ in 0..edits {
            self.edit();
            let pause = match self.random.percent(3) {
                true => self.random.below(1000),
                false => self.random.below(30),
            };
            thread::sleep(Duration::from_millis(pause));
        }
        while let Some(half) = self.halves.pop() {
            self.finish(half);
        }
        let marker = Path::new(DIRECTORY).join(".marker");
        let text = format!("command = ['/bin/true']\ndescription = '{burst}'\n");
        fs::write(&marker, text).expect("written");
        fs::rename(&marker, format!("{DIRECTORY}/{MARKER}.toml")).expect("renamed");
        killer.join().expect("all are killed");
        let begun = Instant::now();
        loop {
            let generations = history();
            let seen = generations
                .iter()
                .any(|generation| generation.number > last && generation.marked);
            if seen && generations[0].state != "applying" {
                return Ok(());
            }
            if begun.elapsed() > SETTLE {
                return Err(format!(
                    "not applied: {generations:?}; {}",
                    sh("systemctl show -p StatusText boxd").out
                ));
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn edit(&mut self) {
        for half in &mut self.halves {
            half.left -= 1;
        }
        while let Some(done) = self.halves.iter().position(|half| half.left == 0) {
            let half = self.halves.swap_remove(done);
            self.finish(half);
        }
        let free: Vec<usize> = (0..BOXES as usize)
            .filter(|number| self.halves.iter().all(|half| half.name != *number))
            .collect();
        if free.len() < 2 {
            return;
        }
        let number = self.random.one(&free);
        let base = self.files[number].base;
        match self.random.below(100) {
            0..55 => {
                let base = self.another(base);
                let way = self.random.one(&[Way::InPlace, Way::Renamed, Way::Backup]);
                self.log.push(format!("{}: {base:?} {way:?}", name(number)));
                put(number, base, way);
                self.files[number].base = Some(base);
                self.edited(number);
            }
            55..65 => {
                self.log.push(format!("{}: removed", name(number)));
                clear(&path(number));
                let _ = fs::remove_file(path(number));
                self.files[number].base = None;
                self.edited(number);
            }
            65..73 => {
                let to = self.random.one(&free);
                if to == number || base.is_none() {
                    return;
                }
                self.log
                    .push(format!("{}: renamed to {}", name(number), name(to)));
                clear(&path(to));
                if path(number).is_dir() {
                    let _ = fs::remove_file(path(to));
                }
                fs::rename(path(number), path(to)).expect("renamed");
                self.files[to].base = self.files[number].base.take();
                self.edited(number);
                self.edited(to);
            }
            73..85 => self.edit_drop_in(number),
            85..97 => self.begin(number),
            _ => self.replace_directory(),
        }
    }

    fn edit_drop_in(&mut self, number: usize) {
        let drop_in = match self.random.below(10) {
            0..6 => Some(DropIn::Words(self.give())),
            6 => Some(DropIn::Broken),
            _ => None,
        };
        self.log
            .push(format!("{}: drop-in {drop_in:?}", name(number)));
        let path = drop_in_path(number);
        let directory = path.parent().expect("a directory");
        let text = match drop_in {
            Some(DropIn::Words(words)) => format!("description = 'words {words}'\n"),
            Some(DropIn::Broken) => "description = 5\n".to_owned(),
            None => String::new(),
        };
        match drop_in {
            Some(_) => {
                fs::create_dir_all(directory).expect("a directory is made");
                fs::write(&path, text).expect("written");
            }
            None => {
                let _ = fs::remove_dir_all(directory);
            }
        }
        self.files[number].drop_in = drop_in;
        self.edited(number);
    }

    /// Half of a file is written.
    fn begin(&mut self, number: usize) {
        let (life, words) = (self.give(), self.given);
        let kind = Kind::Good;
        let (text, half) = text(kind, life, words);
        let left = 1 + self.random.below(12);
        self.log.push(format!(
            "{}: half of life {life}, for {left} edits",
            name(number)
        ));
        clear(&path(number));
        let mut file = File::create(path(number)).expect("made");
        file.write_all(&text.as_bytes()[..half]).expect("written");
        self.halves.push(Half {
            name: number,
            file,
            base: Base::Text { kind, life, words },
            rest: text[half..].to_owned(),
            left,
        });
    }

    fn finish(&mut self, mut half: Half) {
        self.log.push(format!("{}: the rest", name(half.name)));
        half.file.write_all(half.rest.as_bytes()).expect("written");
        drop(half.file);
        self.files[half.name].base = Some(half.base);
        self.edited(half.name);
    }

    /// By another one with the same files: what is open to write to would be lost.
    fn replace_directory(&mut self) {
        if !self.halves.is_empty() {
            return;
        }
        self.log.push("the directory is replaced".to_owned());
        must(&format!("cp -a {DIRECTORY} {DIRECTORY}.new"));
        fs::rename(DIRECTORY, format!("{DIRECTORY}.old")).expect("renamed");
        thread::sleep(Duration::from_millis(self.random.below(600)));
        for states in &mut self.states {
            states.edited(Found::Unreachable);
        }
        fs::rename(format!("{DIRECTORY}.new"), DIRECTORY).expect("renamed");
        must(&format!("rm -rf {DIRECTORY}.old"));
        for number in 0..BOXES as usize {
            self.edited(number);
        }
    }

    fn edited(&mut self, number: usize) {
        let found = self.files[number].found();
        self.states[number].edited(found);
    }

    /// Compares what is with what may be, when all has been applied.
    fn look(&mut self, since: Duration) -> Result<(), String> {
        for number in 0..BOXES as usize {
            let found = self.files[number].found();
            self.states[number] =
                self.states[number].each(|state| state.applied(found, Asked::ByChange));
        }
        self.compare()?;
        let halves = sh(&format!(
            "journalctl --sync; journalctl --no-pager -q -o cat --since=@{:.3} -u 'box@edited-*' | grep -c 'life half'",
            since.as_secs_f64()
        ));
        // Without anybody who applies them a box that is restarted starts by its files as they are.
        if self.kills == 0 && halves.out != "0" {
            return Err(format!("{} boxes ran by half a definition", halves.out));
        }
        Ok(())
    }

    fn compare(&mut self) -> Result<(), String> {
        let seen = observe();
        for (number, now) in seen.into_iter().enumerate() {
            let before = self.seen[number].pid;
            let fits = |state: &&State| {
                let runs = state
                    .runs
                    .map(|text| (Some(text.life), Some(text.described())));
                let is = now.pid.map(|_| (now.life, now.described));
                let touched = before != now.pid;
                runs == is
                    && state.is_held() == now.held
                    && (runs.is_none() || state.touched == touched)
            };
            let states = &self.states[number].0;
            let left: Vec<State> = states.iter().filter(fits).copied().collect();
            if left.is_empty() {
                let states: Vec<String> =
                    states.iter().map(|state| format!("  {state:?}")).collect();
                return Err(format!(
                    "{} is {now:?}, was pid {before:?}, and may be\n{}",
                    name(number),
                    states.join("\n")
                ));
            }
            let left = left.into_iter().map(|state| State {
                touched: false,
                ..state
            });
            self.states[number] = States(left.collect());
            self.seen[number] = now;
        }
        Ok(())
    }

    /// What an operator may do besides.
    fn operate(&mut self) -> Result<(), String> {
        let number = self.random.below(BOXES) as usize;
        let unit = format!("box@{}", name(number));
        let states = &self.states[number];
        let in_force = |state: &State| state.in_force().is_some();
        match self.random.below(6) {
            0 => {
                self.log.push("boxctl apply".to_owned());
                let _ = sh("boxctl apply");
                for number in 0..BOXES as usize {
                    let found = self.files[number].found();
                    let applied = |state: &State| state.applied(found, Asked::ByPerson);
                    self.states[number] = self.states[number].each(applied);
                }
            }
            1 | 2 if states.0.iter().all(in_force) => {
                self.log.push(format!("systemctl restart {unit}"));
                let _ = sh(&format!("systemctl restart {unit}"));
                self.states[number] = states.each(State::restarted);
            }
            3 if self.seen[number].pid.is_some() => {
                self.log.push(format!("systemctl stop {unit}"));
                must(&format!("systemctl stop {unit}"));
                self.states[number] = states.each(State::stopped);
            }
            _ => return Ok(()),
        }
        self.compare()
    }

    /// Without definitions there is no box.
    fn end(&mut self) -> Result<(), String> {
        for number in 0..BOXES as usize {
            clear(&path(number));
            let _ = fs::remove_file(path(number));
            self.files[number].base = None;
        }
        self.burst(0, u64::MAX)?;
        for number in 0..BOXES as usize {
            self.states[number] =
                self.states[number].each(|state| state.applied(Found::Nothing, Asked::ByChange));
        }
        self.compare()?;
        match must("find /sys/fs/cgroup -name 'box-edited-*'").as_str() {
            "" => Ok(()),
            left => Err(format!("left: {left}")),
        }
    }
}

#[derive(Debug)]
struct Generation {
    number: u64,
    state: String,
    marked: bool,
}

/// The newest first.
fn history() -> Vec<Generation> {
    let json: serde_json::Value =
        serde_json::from_str(&must("boxctl history --json")).expect("JSON");
    let generations = json.as_array().expect("a list").iter();
    generations
        .map(|generation| Generation {
            number: generation["number"].as_u64().expect("a number"),
            state: generation["state"].as_str().expect("a word").to_owned(),
            marked: !generation["changed"][MARKER].is_null(),
        })
        .collect()
}

fn observe() -> Vec<Seen> {
    let report: serde_json::Value =
        serde_json::from_str(&must("boxctl status --json")).expect("JSON");
    let mut known: BTreeMap<String, Seen> = BTreeMap::new();
    for status in report["boxes"].as_array().expect("a list") {
        let pid = status["payload"]["pid"].as_i64();
        let seen = Seen {
            state: status["state"].as_str().unwrap_or_default().to_owned(),
            pid,
            life: pid.and_then(life),
            described: None,
            held: !status["definition"]["held"].is_null(),
        };
        known.insert(status["name"].as_str().unwrap_or_default().to_owned(), seen);
    }
    (0..BOXES as usize)
        .map(|number| {
            let name = name(number);
            let mut seen = known.remove(&name).unwrap_or_default();
            if seen.pid.is_some() {
                let words = must(&format!(
                    "systemctl show --value -p Description box-{name}.scope"
                ));
                seen.described = words
                    .strip_prefix("words ")
                    .and_then(|words| words.parse().ok());
            }
            seen
        })
        .collect()
}

fn life(pid: i64) -> Option<u32> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let life = environment
        .split(|byte| *byte == 0)
        .find_map(|variable| variable.strip_prefix(b"LIFE="))?;
    str::from_utf8(life).ok()?.parse().ok()
}
