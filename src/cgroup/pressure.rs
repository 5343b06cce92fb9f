//! Pressure stall information of a cgroup: for how much of the time its processes waited for want of something; psi.rst
//! of the kernel's documentation.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::read_if_there;

/// What the processes of a cgroup wait for; a part the kernel does not tell is absent.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Pressure {
    /// A processor.
    pub cpu: Option<Stall>,
    /// Memory: for the most part, that what was taken from them is read again.
    pub memory: Option<Stall>,
    /// Block devices.
    pub io: Option<Stall>,
}

/// How much of the time is lost.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Stall {
    /// At least one process waits.
    pub some: Share,
    /// All of them wait that have something to do. The kernel has counted it for processors only since Linux 5.13.
    pub full: Option<Share>,
}

/// A share of the time, in percent, over three spans; and all of it.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Share {
    /// Over the last ten seconds.
    pub avg10: f64,
    /// Over the last minute.
    pub avg60: f64,
    /// Over the last five minutes.
    pub avg300: f64,
    /// Microseconds so far.
    pub total: u64,
}

/// What the cgroup waits for now. Where the kernel does not count it, or somebody has switched it off for the cgroup,
/// nothing is told.
pub fn pressure(cgroup: &Path) -> Pressure {
    let read = |file: &str| {
        let text = read_if_there(&cgroup.join(file)).ok().flatten()?;
        parse(&text)
    };
    Pressure {
        cpu: read("cpu.pressure"),
        memory: read("memory.pressure"),
        io: read("io.pressure"),
    }
}

fn parse(text: &str) -> Option<Stall> {
    let line = |kind: &str| {
        let line = text
            .lines()
            .find(|line| line.split(' ').next() == Some(kind))?;
        let number = |key: &str| {
            line.split(' ')
                .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
        };
        Some(Share {
            avg10: number("avg10")?.parse().ok()?,
            avg60: number("avg60")?.parse().ok()?,
            avg300: number("avg300")?.parse().ok()?,
            total: number("total")?.parse().ok()?,
        })
    };
    Some(Stall {
        some: line("some")?,
        full: line("full"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lines_are_read() {
        let text = "some avg10=1.50 avg60=0.25 avg300=0.00 total=4711\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=9\n";
        let stall = parse(text).expect("a stall");
        assert_eq!(
            (stall.some.avg10, stall.some.avg60, stall.some.total),
            (1.5, 0.25, 4711)
        );
        assert_eq!(stall.full.map(|full| full.total), Some(9));
        let (some, _) = text.split_once('\n').expect("two lines");
        assert_eq!(parse(some).expect("a stall").full, None);
        assert_eq!(parse("some avg10=x avg60=0 avg300=0 total=0"), None);
        assert_eq!(parse(""), None);
    }
}
