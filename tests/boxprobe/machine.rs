//! The machine around the boxes: runs the probe in boxd's and in the others', all on the same root, each as it is
//! when told nothing.

use std::ffi::CStr;
use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::symlink;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::guest::{must, printed, sh, write};
use crate::process;
use crate::report::Report;

/// A key of the host's root.
pub const CANARY_KEY: &CStr = c"boxprobe-canary";

/// Where the probe reads what it is to do.
const ERRAND: &str = "/etc/boxprobe";

/// What the probe is told.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Errand {
    /// Where the report goes; to the standard output if it is nowhere.
    pub report: Option<String>,
    /// An abstract socket of the host.
    pub abstract_name: String,
    /// A port of the host's loopback.
    pub port: u16,
}

impl Errand {
    /// Of the box this process is in; without one, nothing of a host is known.
    pub fn read() -> Self {
        match fs::read_to_string(ERRAND) {
            Ok(text) => serde_json::from_str(&text).expect("an errand"),
            Err(_) => Errand::default(),
        }
    }
}

/// Who runs the probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Runtime {
    App,
    System,
    Podman,
    Crun,
    Nspawn,
    NspawnUnit,
}

impl Runtime {
    pub const ALL: [Self; 6] = [
        Runtime::App,
        Runtime::System,
        Runtime::Podman,
        Runtime::Crun,
        Runtime::Nspawn,
        Runtime::NspawnUnit,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Runtime::App => "app",
            Runtime::System => "system",
            Runtime::Podman => "podman",
            Runtime::Crun => "crun",
            Runtime::Nspawn => "nspawn",
            Runtime::NspawnUnit => "nspawn@",
        }
    }
}

/// What is the host's, for boxes to be compared with and to look for.
pub struct Host {
    /// Kind to link.
    pub namespaces: std::collections::BTreeMap<String, String>,
    errand: Errand,
    /// They listen as long as they are open.
    _listeners: (UnixListener, TcpListener),
}

impl Host {
    pub fn prepare() -> Self {
        let abstract_name = "boxprobe-canary".to_owned();
        let address = SocketAddr::from_abstract_name(&abstract_name).expect("a name for a socket");
        let unix = UnixListener::bind_addr(&address).expect("an abstract socket");
        let tcp = TcpListener::bind(("127.0.0.1", 0)).expect("a port of the loopback");
        let port = tcp.local_addr().expect("its port").port();
        let key = CANARY_KEY.to_str().expect("plain text");
        must(&format!(
            "keyctl add user {key} secret @u && keyctl link @u @s"
        ));
        if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
            || !must("cat /sys/fs/cgroup/cgroup.controllers").contains("pids")
        {
            // A limit of tasks is podman's default, and an error where the controller is missing.
            write(
                "/etc/containers/containers.conf",
                "[containers]\npids_limit=0\n",
            );
        }
        let mut gaps = crate::report::Gaps::default();
        Host {
            namespaces: process::namespaces(&mut gaps),
            errand: Errand {
                report: None,
                abstract_name,
                port,
            },
            _listeners: (unix, tcp),
        }
    }

    /// Runs the probe there.
    pub fn report_of(&self, runtime: Runtime) -> Report {
        let text = match runtime {
            Runtime::App | Runtime::System => self.boxd(runtime.name()),
            Runtime::Podman => {
                let root = self.root("/srv/probe-podman", None);
                output(
                    "podman",
                    &["run", "--rm", "--network=none", "--rootfs", root, PROBE],
                )
            }
            Runtime::Crun => self.crun(),
            Runtime::Nspawn => {
                let root = self.root("/srv/probe-nspawn", None);
                let root = format!("--directory={root}");
                output("systemd-nspawn", &["--quiet", "--pipe", &root, PROBE])
            }
            Runtime::NspawnUnit => self.nspawn_unit(),
        };
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{}: {error}: {text}", runtime.name()))
    }

    fn boxd(&self, profile: &str) -> String {
        let name = format!("probe-{profile}");
        let root = format!("/srv/{name}");
        self.root(&root, None);
        write(
            &format!("/etc/boxd/{name}.toml"),
            &format!(
                "command = ['{PROBE}']\nprofile = '{profile}'\n[root]\ndirectory = '{root}'\n"
            ),
        );
        // Until it has ended, and that must be a success.
        must(&format!("systemctl start --wait box@{name}"));
        printed(&name).concat()
    }

    /// `crun spec` writes crun's defaults; only what is run, and where, is put in.
    fn crun(&self) -> String {
        let root = self.root("/srv/probe-crun/rootfs", None);
        must("cd /srv/probe-crun && rm -f config.json && crun spec");
        let path = "/srv/probe-crun/config.json";
        let text = fs::read_to_string(path).expect("crun has written its defaults");
        let mut spec: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        spec["process"]["terminal"] = false.into();
        spec["process"]["args"] = serde_json::json!([PROBE]);
        spec["root"]["path"] = root.into();
        write(path, &spec.to_string());
        output("crun", &["run", "--bundle=/srv/probe-crun", "probe"])
    }

    /// The unit as it is shipped, which boots what lies in `/var/lib/machines`: here the probe is the init.
    fn nspawn_unit(&self) -> String {
        let root = self.root("/var/lib/machines/probe", Some("/report"));
        // An init that ends by itself is none that systemd knows, so the unit fails; what counts is the report.
        sh("systemctl start --wait systemd-nspawn@probe");
        let report = Path::new(root).join("report");
        fs::read_to_string(report).expect("a report")
    }

    /// Makes a root that holds the probe, its errand, and what the others want to see in a root.
    fn root<'a>(&self, root: &'a str, report: Option<&str>) -> &'a str {
        let path = Path::new(root);
        for folder in [
            "etc", "usr/bin", "usr/lib", "usr/sbin", "proc", "sys", "dev", "run", "tmp", "root",
            "var",
        ] {
            fs::create_dir_all(path.join(folder)).expect("a folder can be made");
        }
        for merged in ["bin", "lib", "sbin"] {
            symlink(format!("usr/{merged}"), path.join(merged)).expect("a link can be made");
        }
        let probe = path.join(PROBE.trim_start_matches('/'));
        fs::copy("/proc/self/exe", &probe).expect("the probe can be copied");
        symlink(PROBE, path.join("usr/sbin/init")).expect("a link can be made");
        write(&format!("{root}/usr/lib/os-release"), "ID=probe\n");
        symlink("../usr/lib/os-release", path.join("etc/os-release")).expect("a link can be made");
        write(
            &format!("{root}/etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\n",
        );
        write(&format!("{root}/etc/group"), "root:x:0:\n");
        let errand = Errand {
            report: report.map(str::to_owned),
            ..self.errand.clone()
        };
        let errand = serde_json::to_string(&errand).expect("JSON");
        write(&format!("{root}{ERRAND}"), &errand);
        root
    }
}

/// Where the probe lies in its root.
const PROBE: &str = "/usr/bin/boxprobe";

/// What a command prints that must succeed, its lines put together again.
fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).lines().collect()
}
