//! A plan as text: for people, and for the golden tests.

use std::fmt::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::{
    Content, Credential, Health, Label, Limit, MountFlags, MountStep, Node, NodeKind, OnFailure,
    Output, Plan, Probe, ProcessLimit, ResourceLimit, Secret, Socket, Sysctl, Upper, What,
};
use crate::definition::{Group, ReadyWhen, ReloadHow, User};

/// Everything the plan decides, a line each.
pub fn print(plan: &Plan) -> String {
    let mut text = String::new();
    write_plan(&mut text, plan).expect("writing to a string does not fail");
    text
}

fn write_plan(out: &mut String, plan: &Plan) -> fmt::Result {
    writeln!(out, "box {}: {:?}", plan.name, plan.description)?;
    let profile = plan.profile.name();
    line(out, "profile", profile)?;

    let payload = &plan.payload;
    section(out, "payload")?;
    command(out, &payload.command)?;
    line(out, "user", user(&payload.user))?;
    if !payload.groups.is_empty() {
        let groups: Vec<String> = payload.groups.iter().map(group).collect();
        line(out, "groups", groups.join(" "))?;
    }
    line(out, "working directory", path(&payload.working_directory))?;
    line(out, "hostname", &payload.hostname)?;
    if plan.tty {
        line(out, "terminal", "its own, of 80 columns and 24 rows")?;
    }
    for (key, value) in &payload.environment {
        line(out, "environment", format!("{key}={value:?}"))?;
    }
    for file in &payload.environment_files {
        let optional = if file.optional { ", if there" } else { "" };
        line(
            out,
            "environment file",
            format!("{}{optional}", path(&file.path)),
        )?;
    }

    section(out, "separation")?;
    let mut namespaces = vec!["mount", "pid", "uts", "ipc", "net", "cgroup"];
    namespaces.extend(plan.namespaces.user.then_some("user"));
    namespaces.extend(plan.namespaces.time.then_some("time"));
    line(out, "namespaces", namespaces.join(" "))?;
    match plan.ids {
        Some(ids) => line(
            out,
            "ids",
            format!("0-65535 are {}-{} of the host", ids.base, ids.last()),
        )?,
        None => line(out, "ids", "the host's")?,
    }
    line(
        out,
        "capabilities",
        plan.privileges.capabilities.to_string(),
    )?;
    let no_new_privileges = if plan.privileges.no_new_privileges {
        "cannot be gained"
    } else {
        "can be gained by set-user-ID programs"
    };
    line(out, "privileges", no_new_privileges)?;

    match &plan.privileges.seccomp {
        Some(policy) => line(out, "system calls", policy.to_string())?,
        None => line(out, "system calls", "all")?,
    }

    for label in &plan.privileges.labels {
        match label {
            Label::AppArmor(name) => line(out, "AppArmor profile", name)?,
            Label::Selinux(name) => line(out, "SELinux label", name)?,
        }
    }
    for limit in &plan.privileges.resource_limits {
        line(out, "process limit", process_limit(limit))?;
    }
    for sysctl in &plan.sysctls {
        let Sysctl {
            path,
            value,
            optional,
        } = sysctl;
        let optional = if *optional { ", if there" } else { "" };
        line(out, "kernel setting", format!("{path} = {value}{optional}"))?;
    }

    section(out, "root")?;
    for step in &plan.mounts {
        writeln!(out, "  {}", mount(step))?;
    }
    if plan.closing.shared {
        writeln!(out, "  all of it is shared with mount namespaces inside")?;
    }
    if plan.closing.locked {
        writeln!(out, "  none of it can be unmounted or changed from inside")?;
    }

    if !plan.sockets.is_empty() {
        section(out, "sockets")?;
        for unit in &plan.sockets {
            socket(out, unit)?;
        }
        if let Some(idle) = plan.idle_stop {
            line(out, "idle", format!("stopped after {}", time(idle)))?;
        }
    }

    section(out, "scope")?;
    line(
        out,
        "unit",
        format!("{} in {}", plan.scope.unit, plan.scope.slice),
    )?;
    line(out, "description", format!("{:?}", plan.scope.description))?;
    if let Some(before) = &plan.scope.before {
        line(out, "stops after", before)?;
    }
    for limit in &plan.scope.limits {
        line(
            out,
            "limit",
            format!("{}{}", limit.property(), value(limit)),
        )?;
    }
    for rule in &plan.scope.devices {
        line(
            out,
            "device",
            format!("{} {}", rule.property(), rule.access),
        )?;
    }

    if plan.machine.is_none() {
        line(out, "machine", "unknown to systemd-machined")?;
    }

    section(out, "life")?;
    let when = match plan.ready.when {
        ReadyWhen::Started => "started",
        ReadyWhen::Notify => "notify",
        ReadyWhen::Healthy => "healthy",
    };
    line(
        out,
        "ready",
        format!("when {when}, within {}", time(plan.ready.timeout)),
    )?;
    if let Some(notify) = &plan.notify {
        line(out, "speaks", format!("through {}", path(&notify.socket)))?;
    }
    if let Some(timeout) = plan.watchdog {
        line(out, "watchdog", format!("every {}", time(timeout)))?;
    }
    if let Some(reload) = &plan.reload {
        let how = match &reload.how {
            ReloadHow::Signal(number) => signal(*number),
            ReloadHow::Command(words) => format!("{words:?}"),
        };
        let until = if reload.notify {
            ", until it says that it is ready"
        } else {
            ""
        };
        line(out, "reload", format!("by {how}{until}"))?;
    }
    if !plan.stop_command.is_empty() {
        let words: Vec<String> = plan
            .stop_command
            .iter()
            .map(|word| format!("{word:?}"))
            .collect();
        line(out, "stop first", words.join(" "))?;
    }
    line(
        out,
        "stop",
        format!(
            "{}, then SIGKILL after {}",
            signal(plan.stop.signal),
            time(plan.stop.timeout)
        ),
    )?;
    output(out, &plan.output)?;
    let mut restart = plan.restart.policy.as_str().to_owned();
    if let Some(delay) = plan.restart.delay {
        restart += &format!(", after {}", time(delay));
    }
    if let Some(burst) = plan.restart.limit_burst {
        restart += &format!(", at most {burst} starts");
    }
    if let Some(interval) = plan.restart.limit_interval {
        restart += &format!(", counted over {}", time(interval));
    }
    line(out, "restart", restart)?;
    if let Some(health) = &plan.health {
        write_health(out, health)?;
    }

    if !plan.remarks.is_empty() {
        section(out, "remarks")?;
        for remark in &plan.remarks {
            writeln!(out, "  {remark}")?;
        }
    }
    Ok(())
}

fn write_health(out: &mut String, health: &Health) -> fmt::Result {
    section(out, "health")?;
    let addresses = |addresses: &[SocketAddr]| {
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        addresses.join(" or ")
    };
    match &health.probe {
        Probe::Command(words) => command(out, words)?,
        Probe::Tcp(to) => line(out, "connect", addresses(to))?,
        Probe::Http {
            addresses: to,
            host,
            target,
            status,
            body,
        } => {
            line(out, "connect", addresses(to))?;
            line(out, "get", format!("{target} of {host}"))?;
            let ranges: Vec<String> = status
                .iter()
                .map(|(first, last)| match first == last {
                    true => first.to_string(),
                    false => format!("{first}-{last}"),
                })
                .collect();
            line(out, "status", ranges.join(","))?;
            if let Some(body) = body {
                line(out, "body", format!("contains {body:?}"))?;
            }
        }
    }
    let rules = &health.rules;
    line(
        out,
        "probe",
        format!(
            "every {}, failed after {}",
            time(rules.interval),
            time(rules.timeout)
        ),
    )?;
    if !rules.start_period.is_zero() {
        line(
            out,
            "while starting",
            format!(
                "every {} for at most {}, failures do not count",
                time(rules.start_interval),
                time(rules.start_period)
            ),
        )?;
    }
    let then = match rules.on_failure {
        OnFailure::Report => "is reported",
        OnFailure::Restart => "is restarted",
        OnFailure::Stop => "is stopped for good",
    };
    let failures = match rules.retries {
        1 => "1 failure".to_owned(),
        number => format!("{number} failures in a row"),
    };
    line(out, "unhealthy", format!("after {failures}: {then}"))
}

fn section(out: &mut String, title: &str) -> fmt::Result {
    writeln!(out, "\n{title}")
}

fn line(out: &mut String, key: &str, value: impl AsRef<str>) -> fmt::Result {
    writeln!(out, "  {key:<17} {}", value.as_ref())
}

/// Words in quotes; one that has lines is shown as such, so that a script can be read.
fn command(out: &mut String, words: &[String]) -> fmt::Result {
    let mut rest = words;
    let mut key = "command";
    while !rest.is_empty() {
        let of_one_line = rest.iter().take_while(|word| !word.contains('\n')).count();
        let (plain, others) = rest.split_at(of_one_line);
        let plain: Vec<String> = plain.iter().map(|word| format!("{word:?}")).collect();
        if !plain.is_empty() {
            line(out, key, plain.join(" "))?;
            key = "";
        }
        rest = others;
        if let Some((script, others)) = others.split_first() {
            for text in script.split('\n') {
                line(out, key, format!("| {}", visible(text)).trim_end())?;
                key = "";
            }
            rest = others;
        }
    }
    Ok(())
}

/// Without anything that would move the cursor.
fn visible(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' => "    ".to_owned(),
            c if c.is_control() => c.escape_debug().to_string(),
            c => c.to_string(),
        })
        .collect()
}

/// As it is, unless something in it would mislead the eye.
fn path(path: &Path) -> String {
    match path.to_str() {
        Some(text) if !text.contains(|c: char| c.is_control() || c.is_whitespace()) => {
            text.to_owned()
        }
        _ => format!("{path:?}"),
    }
}

fn user(user: &User) -> String {
    match user {
        User::Name(name) => format!("{name:?}"),
        User::Id { uid, gid: None } => format!("{uid}"),
        User::Id {
            uid,
            gid: Some(gid),
        } => format!("{uid}:{gid}"),
    }
}

fn group(group: &Group) -> String {
    match group {
        Group::Name(name) => format!("{name:?}"),
        Group::Id(gid) => gid.to_string(),
    }
}

fn secret(secret: &Secret) -> String {
    let Secret { name, source } = secret;
    match source {
        Credential::File(from) => format!("{name} of {}", path(from)),
        Credential::Encrypted(from) => format!("{name} of the encrypted {}", path(from)),
    }
}

fn process_limit(limit: &ProcessLimit) -> String {
    let value = |value: u64| match value {
        ResourceLimit::INFINITY => "infinity".to_owned(),
        value if limit.resource.is_size() => bytes(value),
        value => value.to_string(),
    };
    let hard = match limit.hard {
        Some(hard) if hard == limit.soft => String::new(),
        Some(hard) => format!(":{}", value(hard)),
        None => ", and as much as the service may".to_owned(),
    };
    let at_most = if limit.at_most {
        ", or what the service has"
    } else {
        ""
    };
    let (name, soft) = (limit.resource.name(), value(limit.soft));
    format!("{name} {soft}{hard}{at_most}")
}

fn mount(step: &MountStep) -> String {
    let mut text = format!("{:<30} {}", path(&step.at), what(&step.what));
    let flags = flags(step.flags);
    if !flags.is_empty() {
        text += &format!(" [{flags}]");
    }
    text
}

fn what(what: &What) -> String {
    match what {
        What::Tree {
            path: from,
            recursive,
            idmap,
        } => format!(
            "{} of the host{}{}",
            path(from),
            if *recursive {
                ", with mounts below"
            } else {
                ""
            },
            if *idmap { ", owners shifted" } else { "" },
        ),
        What::Overlay {
            lower,
            idmap,
            upper,
        } => format!(
            "{} of the host{}, writes to {}",
            path(lower),
            if *idmap { ", owners shifted" } else { "" },
            match upper {
                Upper::Memory { size, inodes } => {
                    format!("memory: {} in {inodes} files", bytes(*size))
                }
                Upper::Directory { path: to } => path(to),
            }
        ),
        What::Tmpfs { size, inodes, mode } => {
            format!("tmpfs, {} in {inodes} files, mode {mode:04o}", bytes(*size))
        }
        What::Proc => "proc".to_owned(),
        What::Sysfs => "sysfs".to_owned(),
        What::Devpts => "devpts".to_owned(),
        What::Console => "the terminal".to_owned(),
        What::Mqueue => "mqueue".to_owned(),
        What::Cgroup => "cgroup2".to_owned(),
        What::Directory { mode } => format!("directory, mode {mode:04o}"),
        What::File { mode, content } => match content {
            Content::Text(text) => format!("file, mode {mode:04o}: {text:?}"),
            Content::CopyOf(from) => format!("file, mode {mode:04o}: copy of {}", path(from)),
        },
        What::Symlink { target } => format!("-> {}", path(target)),
        What::Remount => "what is mounted there".to_owned(),
        What::Rebind => "what is there, if anything".to_owned(),
        What::Mask => "hidden, if there".to_owned(),
        What::Device { node, mode } => {
            let kind = match node.kind {
                NodeKind::Character => "character",
                NodeKind::Block => "block",
            };
            let Node { major, minor, .. } = node;
            format!("{kind} device {major}:{minor} of the host, mode {mode:04o}")
        }
        What::Credentials { secrets } => {
            let secrets: Vec<String> = secrets.iter().map(secret).collect();
            format!("credentials, never swapped: {}", secrets.join(", "))
        }
        What::Store { path: at } => format!("{} of the host, kept", path(at)),
    }
}

fn flags(flags: MountFlags) -> String {
    let names = [
        (flags.read_only, "read-only"),
        (flags.nosuid, "nosuid"),
        (flags.nodev, "nodev"),
        (flags.noexec, "noexec"),
        (flags.recursive, "recursive"),
    ];
    let set: Vec<&str> = names
        .into_iter()
        .filter_map(|(set, name)| set.then_some(name))
        .collect();
    set.join(" ")
}

fn value(limit: &Limit) -> String {
    match limit {
        Limit::MemoryMax(size) | Limit::MemoryHigh(size) | Limit::MemorySwapMax(size) => {
            bytes(*size)
        }
        Limit::CpuQuotaPerSec(microseconds) => {
            format!("{}.{:02}%", microseconds / 10_000, microseconds / 100 % 100)
        }
        Limit::AllowedCpus(cpus) => Limit::cpu_list(cpus.iter().copied()),
        Limit::CpuWeight(number) | Limit::TasksMax(number) | Limit::IoWeight(number) => {
            number.to_string()
        }
        Limit::IoReadBandwidthMax(device, size) | Limit::IoWriteBandwidthMax(device, size) => {
            format!("{} {}", path(device), bytes(*size))
        }
        Limit::IoReadIopsMax(device, number) | Limit::IoWriteIopsMax(device, number) => {
            format!("{} {number}", path(device))
        }
    }
}

fn socket(out: &mut String, socket: &Socket) -> fmt::Result {
    line(
        out,
        "unit",
        format!("{}, passed as {:?}", socket.unit, socket.name),
    )?;
    for listen in &socket.listen {
        let kind = listen.kind.key();
        let address = path(Path::new(&listen.address.to_string()));
        line(out, kind, address)?;
    }
    let options = socket.options.written();
    if !options.is_empty() {
        let options: Vec<String> = options
            .into_iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        line(out, "options", options.join(" "))?;
    }
    Ok(())
}

/// In the largest unit that leaves no rest, as systemd reads it.
/// What differs from the usual.
fn output(out: &mut String, output: &Output) -> fmt::Result {
    let default = Output::default();
    let mut priority = |stream: &str, priority: u8, usual: u8| match priority == usual {
        true => Ok(()),
        false => line(out, stream, format!("priority {priority}")),
    };
    priority("stdout", output.stdout_priority, default.stdout_priority)?;
    priority("stderr", output.stderr_priority, default.stderr_priority)?;
    if !output.priority_prefix {
        line(out, "lines", "name no priority of their own")?;
    }
    if output.line_max != default.line_max {
        line(
            out,
            "lines",
            format!("up to {} are whole", bytes(output.line_max)),
        )?;
    }
    if let Some(rate) = &output.rate {
        let lines = rate.lines.map(|lines| format!("{lines} lines"));
        let size = rate.bytes.map(bytes);
        let most: Vec<String> = lines.into_iter().chain(size).collect();
        line(
            out,
            "output",
            format!("at most {} in {}", most.join(" and "), time(rate.interval)),
        )?;
    }
    Ok(())
}

fn bytes(size: u64) -> String {
    [("T", 40), ("G", 30), ("M", 20), ("K", 10)]
        .into_iter()
        .find(|(_, shift)| size != 0 && size.is_multiple_of(1 << shift))
        .map_or_else(
            || size.to_string(),
            |(unit, shift)| format!("{}{unit}", size >> shift),
        )
}

fn time(duration: Duration) -> String {
    format!("{duration:?}")
}

fn signal(number: i32) -> String {
    match nix::sys::signal::Signal::try_from(number) {
        Ok(signal) => signal.as_str().to_owned(),
        Err(_) if number >= libc::SIGRTMIN() => format!("SIGRTMIN+{}", number - libc::SIGRTMIN()),
        Err(_) => format!("signal {number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_systemd_writes_them() {
        assert_eq!(bytes(512 << 20), "512M");
        assert_eq!(bytes(1000), "1000");
        assert_eq!(bytes(0), "0");
        assert_eq!(value(&Limit::CpuQuotaPerSec(1_500_000)), "150.00%");
        assert_eq!(signal(15), "SIGTERM");
        assert_eq!(signal(libc::SIGRTMIN() + 3), "SIGRTMIN+3");
    }

    #[test]
    fn a_path_that_could_mislead_is_quoted() {
        assert_eq!(path(Path::new("/a/b")), "/a/b");
        assert_eq!(path(Path::new("/a\nb")), "\"/a\\nb\"");
    }
}
