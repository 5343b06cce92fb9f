//! The keys of `[security]`, devices and credentials, as the box and the host see them.

use crate::guest::{
    define_script, inside, must, pid, printed, refused, sh, start, start_refused, stop, wait_for,
    wait_for_line, write,
};

/// What a definition asks for is what the first process has, and what enters later has the same.
#[test]
fn limits_settings_and_masks_are_the_definitions() {
    // A machine in a container may lack CAP_SYS_RESOURCE, and then cannot raise a limit.
    let capabilities = must("sed -n 's/^CapEff:[[:space:]]*//p' /proc/self/status");
    let capabilities = u64::from_str_radix(&capabilities, 16).expect("a number");
    let (locked, kibibytes) = if capabilities >> 24 & 1 == 1 {
        ("1G", "1048576")
    } else {
        ("1M", "1024")
    };
    define_script(
        "walls",
        "ulimit -Sn; ulimit -Hn; ulimit -Hl; exec sleep infinity",
        &format!(
            "user = 'daemon'
[[mount]]
tmpfs = '1M'
at = '/srv/secret'
[security]
sysctls = {{ 'net.core.somaxconn' = 77, 'kernel.domainname' = 'example.org' }}
rlimits = {{ nofile = '64:128', memlock = '{locked}' }}
mask = ['/proc/uptime', '/srv/secret']
unmask = ['/proc/interrupts']
read-only-paths = ['/var/tmp']
keyring = true"
        ),
    );
    start("walls");
    wait_for("limits of the first process", || {
        printed("walls").join(" ") == format!("64 128 {kibibytes}")
    });
    assert_eq!(
        inside("walls", "sh -c 'ulimit -Sn; ulimit -Hl'"),
        format!("64\n{kibibytes}")
    );
    assert_eq!(
        inside(
            "walls",
            "cat /proc/sys/net/core/somaxconn /proc/sys/kernel/domainname"
        ),
        "77\nexample.org"
    );
    assert_ne!(must("cat /proc/sys/kernel/domainname"), "example.org");
    // Nothing below 1024 is kept from a user of the box, and nothing of the host's settings changed for it.
    inside(
        "walls",
        "python3 -c 'import socket; socket.create_server((\"127.0.0.1\", 80))'",
    );
    assert_eq!(inside("walls", "cat /proc/uptime"), "");
    assert_eq!(inside("walls", "ls -A /srv/secret"), "");
    refused("boxctl exec -u root walls -- touch /srv/secret/x");
    refused("boxctl exec -u root walls -- touch /var/tmp/x");
    assert!(inside("walls", "cat /proc/interrupts").contains("CPU0"));
    let keyctl = "keyctl add user name value @s >/dev/null && keyctl list @s";
    if sh("command -v keyctl").status == 0 {
        assert!(inside("walls", &format!("sh -c '{keyctl}'")).contains("name"));
    }
    stop("walls");

    // Root of a box that may mount cannot take away what is mounted for it.
    define_script(
        "walls",
        "exec sleep infinity",
        "[security]\ncapabilities = ['+SYS_ADMIN']\nmask = ['/proc/uptime']",
    );
    start("walls");
    inside("walls", "mount -t tmpfs tmpfs /home");
    for command in [
        "umount /proc/uptime",
        "mount -t proc proc /home",
        "mount -o remount,bind,rw /sys",
        "mount -o remount,bind,rw /sys/fs/cgroup",
        "umount /dev/null",
    ] {
        refused(&format!("boxctl exec walls -- {command}"));
    }
    stop("walls");

    // A label is what the kernel says it is, or the box does not run.
    let enabled = sh("cat /sys/module/apparmor/parameters/enabled").out == "Y";
    if enabled {
        define_script(
            "walls",
            "exec sleep infinity",
            "[security]\napparmor = 'unconfined'",
        );
        start("walls");
        assert_eq!(inside("walls", "cat /proc/self/attr/current"), "unconfined");
        stop("walls");
    }
    define_script(
        "walls",
        "exec sleep infinity",
        "[security]\napparmor = 'absent'",
    );
    let said = start_refused("walls");
    assert!(
        said.contains("security.apparmor: this host does not run AppArmor")
            || said.contains("has no profile \"absent\"")
            || said.contains("cannot run the box under AppArmor profile \"absent\""),
        "{said}"
    );
}

/// A device is what the definition says it is, and no more may be done with it than its letters say: for root of the
/// box, and when systemd has read its units anew.
#[test]
fn devices_are_those_of_the_definition_with_its_letters() {
    must(
        "printf canary > /srv/disk; truncate -s 1M /srv/disk; test -b /dev/loop0 || modprobe loop",
    );
    let disk = must("losetup --find --show /srv/disk");
    write(
        "/etc/cdi/acme.json",
        r#"{"cdiVersion": "0.6.0", "kind": "acme.com/gpu",
            "containerEdits": {"env": ["ACME=yes"], "mounts": [
                {"hostPath": "/srv/acme", "containerPath": "/opt/acme", "options": ["ro", "bind"]}]},
            "devices": [
                {"name": "0", "containerEdits": {"deviceNodes": [{"path": "/dev/acme0", "hostPath": "/dev/full"}],
                    "additionalGIDs": [44]}},
                {"name": "1", "containerEdits": {"hooks": [{"hookName": "createRuntime", "path": "/bin/touch"}]}}]}"#,
    );
    write("/srv/acme/library", "of a vendor");
    define_script(
        "gpu",
        "exec sleep infinity",
        &format!(
            "[[device]]
path = '{disk}'
at = '/dev/shown/disk'
access = 'r'
mode = '0640'
sensitive = true
[[device]]
path = '/dev/missing'
optional = true
[[device]]
cdi = 'acme.com/gpu=0'"
        ),
    );
    start("gpu");
    let holds = || {
        assert_eq!(inside("gpu", "head -c 6 /dev/shown/disk"), "canary");
        // The letter is the kernel's to hold, not the node's.
        let said = refused(
            "boxctl exec gpu -- sh -c 'chmod 600 /dev/shown/disk; echo x > /dev/shown/disk'",
        );
        assert!(said.contains("not permitted"), "{said}");
        refused("boxctl exec -u daemon gpu -- head -c 6 /dev/shown/disk");
        let full = refused("boxctl exec -u daemon gpu -- dd if=/dev/zero of=/dev/acme0 count=1");
        assert!(full.contains("No space left"), "{full}");
    };
    holds();
    must("systemctl daemon-reload");
    holds();
    let judged: serde_json::Value =
        serde_json::from_str(&must("boxctl security --json gpu")).expect("JSON");
    assert!(judged["score"].as_u64() > Some(5), "{judged}");
    let page = must("boxctl security gpu");
    for part in [
        "as it runs",
        "a loop device of the host",
        "Docker",
        "nspawn@",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert_eq!(inside("gpu", "stat -c '%u %g %t:%T' /dev/acme0"), "0 0 1:7");
    assert_eq!(
        inside("gpu", "sh -c 'echo $ACME; cat /opt/acme/library; id -G'"),
        "yes\nof a vendor0 44"
    );
    refused("boxctl exec gpu -- touch /opt/acme/x");
    stop("gpu");
    assert_eq!(must(&format!("head -c 6 {disk}")), "canary");
    must(&format!("losetup -d {disk}"));

    for (device, reason) in [
        ("path = '/dev/missing'", "there is no device /dev/missing"),
        ("path = '/srv/disk'", "/srv/disk is no device"),
        ("path = '/srv/acme'", "there is no device in /srv/acme"),
        ("path = '/dev/kmsg'", "is the log of the host's kernel"),
        ("cdi = 'acme.com/gpu=1'", "wants /bin/touch to be run"),
        (
            "cdi = 'acme.com/gpu=2'",
            "there are acme.com/gpu=0, acme.com/gpu=1",
        ),
    ] {
        define_script("gpu", "true", &format!("[[device]]\n{device}"));
        let said = refused("boxctl plan gpu");
        assert!(said.contains(reason), "{said}");
    }
}

/// A secret is in the box, for its user, in memory; and nowhere else: not in what boxd prints, keeps or logs.
#[test]
fn credentials_are_files_of_the_boxs_user_and_nothing_else() {
    must(
        "umask 077; printf plain-s3cret > /srv/token
        printf sealed-s3cret | systemd-creds encrypt --with-key=host --name=tls-key - /srv/tls-key",
    );
    define_script(
        "vault",
        "cat $CREDENTIALS_DIRECTORY/token | wc -c; exec sleep infinity",
        "user = 'daemon'
[credentials]
token = { file = '/srv/token' }
tls-key = { encrypted = '/srv/tls-key' }",
    );
    start("vault");
    wait_for_line("vault", "12");
    let see = "sh -c 'cd $CREDENTIALS_DIRECTORY && cat token tls-key && stat -c \"%a %U\" . token tls-key'";
    assert_eq!(
        inside("vault", see),
        "plain-s3cretsealed-s3cret500 daemon\n400 daemon\n400 daemon"
    );
    // Not for another user, and not to be changed by anybody.
    refused("boxctl exec -u nobody vault -- cat /run/host/credentials/token");
    refused("boxctl exec -u root vault -- sh -c 'echo x > /run/host/credentials/new'");
    refused("boxctl exec -u root vault -- rm -f /run/host/credentials/token");
    let kind = inside("vault", "stat -f -c %T /run/host/credentials");
    assert_eq!(kind, "ramfs");
    for place in [
        "boxctl plan vault",
        "boxctl plan --json vault",
        "boxctl status --json vault",
        "journalctl --no-pager -o export",
        "systemctl show box@vault box-vault.scope",
        &format!("tr '\\0' '\\n' < /proc/{}/environ", pid("vault")),
        "grep -r . /run/boxd /var/lib/boxd /run/systemd/transient",
        "cat /proc/self/mountinfo; cat $(systemctl show --value -p MainPID box@vault | sed 's,.*,/proc/&/environ,')",
    ] {
        let ran = sh(place);
        assert!(
            !ran.out.contains("s3cret") && !ran.err.contains("s3cret"),
            "{place} tells it: {} {}",
            ran.out,
            ran.err
        );
    }
    stop("vault");

    // What is not of this name, or too much, keeps the box from starting, with a sentence.
    define_script(
        "vault",
        "exec sleep infinity",
        "[credentials]\nother = { encrypted = '/srv/tls-key' }",
    );
    let said = start_refused("vault");
    assert!(
        said.contains("cannot decrypt the credential other"),
        "{said}"
    );
    must("head -c 1048577 /dev/zero > /srv/token; chmod 644 /srv/token");
    define_script(
        "vault",
        "exec sleep infinity",
        "[credentials]\ntoken = { file = '/srv/token' }",
    );
    let said = start_refused("vault");
    assert!(said.contains("more than 1048576 bytes"), "{said}");
    assert!(said.contains("others than root can read it"), "{said}");
}
