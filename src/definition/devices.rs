//! `[[device]]` and `[credentials]`: what of the host's the box has besides files.

use std::collections::BTreeMap;

use super::diagnostics::Problem;
use super::section::{Item, Section};
use super::values::{BOX_PATH, HOST_PATH, mode};
use super::{Credential, Device, DeviceAccess, DeviceSource};

const ACCESS: &str = "expected letters out of \"rwm\", each once, as in \"rw\"";

const CDI: &str = "expected a device of the Container Device Interface, as in \"vendor.com/gpu=0\"";

const NAME: &str = "expected a name of letters, digits, \"-\", \"_\" and \".\", as in \"tls-key\"";

/// Longest name of a credential; file names have no more.
const NAME_MAX: usize = 255;

/// All that a device's node lets do is what its access letters let.
const MODE: u32 = 0o666;

pub(super) fn devices(whole: &mut Section<'_>) -> Vec<Device> {
    whole
        .read("device", |item| {
            let expected = "expected tables, each written below a line [[device]]";
            item.list(expected, |item| {
                device(Section::element(
                    "device",
                    "[[device]]",
                    item.at,
                    item.problems,
                )?)
            })
        })
        .unwrap_or_default()
}

fn device(mut section: Section<'_>) -> Option<Device> {
    let places = |section: &Section<'_>, key| section.place_of(key);
    let (path_at, cdi_at) = (places(&section, "path"), places(&section, "cdi"));
    let of_a_path = ["at", "access", "mode"].map(|key| (key, section.place_of(key)));
    let path = section.read("path", |item| item.path(HOST_PATH));
    let at = section.read("at", |item| item.path(BOX_PATH));
    let access = section.read("access", |item| {
        item.parsed(ACCESS, |text| {
            DeviceAccess::parse(text).ok_or_else(|| ACCESS.to_owned())
        })
    });
    let mode = section.read("mode", mode);
    let cdi = section.read("cdi", |item| {
        item.parsed(CDI, |text| {
            if is_cdi_name(text) {
                Ok(text.to_owned())
            } else {
                Err(CDI.to_owned())
            }
        })
    });
    let optional = section.read("optional", |item| item.boolean());
    let sensitive = section.read("sensitive", |item| item.boolean());
    let problems = section.problems();
    match (&path_at, &cdi_at) {
        (None, None) => problems.report(Problem::absent(
            section.place(),
            "a device without `path`",
            "say which: `path = \"/dev/fuse\"` or `cdi = \"vendor.com/gpu=0\"`",
        )),
        (Some(path), Some(cdi)) => problems.report(
            Problem::at(cdi, "a device named twice", "expected either path or cdi")
                .related(path, "given here already"),
        ),
        (None, Some(_)) => {
            for (key, place) in of_a_path {
                if let Some(place) = place {
                    problems.report(Problem::at(
                        &place,
                        format!("`device.{key}` does not go with `cdi`"),
                        "the device's own specification says that",
                    ));
                }
            }
        }
        (Some(_), None) => {}
    }
    section.finish();
    let source = match (path, cdi) {
        (Some(path), _) => DeviceSource::Path {
            path,
            at,
            access: access.unwrap_or(DeviceAccess {
                read: true,
                write: true,
                mknod: false,
            }),
            mode: mode.unwrap_or(MODE),
        },
        (None, Some(name)) => DeviceSource::Cdi(name),
        (None, None) => return None,
    };
    Some(Device {
        source,
        optional: optional.unwrap_or_default(),
        sensitive: sensitive.unwrap_or_default(),
    })
}

/// `vendor/class=name`, each of the characters the specification has for it.
fn is_cdi_name(text: &str) -> bool {
    let part = |text: &str, more: &str| {
        text.starts_with(|first: char| first.is_ascii_alphanumeric())
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    text.len() < 256
        && text.split_once('=').is_some_and(|(kind, name)| {
            part(name, "-_.:")
                && kind
                    .split_once('/')
                    .is_some_and(|(vendor, class)| part(vendor, "-_.") && part(class, "-_."))
        })
}

pub(super) fn credentials(whole: &mut Section<'_>) -> BTreeMap<String, Credential> {
    whole
        .read("credentials", |item| {
            item.map(
                "expected a table, as in { tls-key = { file = \"/etc/credstore/tls-key\" } }",
                |key| {
                    key.parsed(NAME, |text| {
                        let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
                        if text.chars().all(good)
                            && !text.starts_with('.')
                            && text.len() <= NAME_MAX
                        {
                            Ok(text.to_owned())
                        } else {
                            Err(NAME.to_owned())
                        }
                    })
                },
                credential,
            )
        })
        .unwrap_or_default()
}

fn credential(item: Item<'_>) -> Option<Credential> {
    let mut section =
        Section::element("credentials", "[credentials.NAME]", item.at, item.problems)?;
    let file = section.read_placed("file", |item| item.path(HOST_PATH));
    let encrypted = section.read_placed("encrypted", |item| item.path(HOST_PATH));
    let either = "expected either file or encrypted";
    match (&file, &encrypted) {
        (Some((_, first)), Some((_, second))) => section.problems().report(
            Problem::at(second, "a credential from two files", either)
                .related(first, "given here already"),
        ),
        (None, None) if section.place_of("file").is_none() => {
            section.problems().report(Problem::at(
                &item.at.place,
                format!("`{}` comes from nowhere", item.key),
                "expected { file = \"/path\" } or { encrypted = \"/path\" }",
            ));
        }
        _ => {}
    }
    section.finish();
    match (file, encrypted) {
        (Some((path, _)), _) => Some(Credential::File(path)),
        (None, Some((path, _))) => Some(Credential::Encrypted(path)),
        (None, None) => None,
    }
}

impl DeviceAccess {
    /// Letters as systemd has them; none for what says nothing or something else.
    pub fn parse(text: &str) -> Option<DeviceAccess> {
        let access = DeviceAccess {
            read: text.contains('r'),
            write: text.contains('w'),
            mknod: text.contains('m'),
        };
        (access.to_string().len() == text.len() && !text.is_empty()).then_some(access)
    }
}

impl std::fmt::Display for DeviceAccess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (there, letter) in [(self.read, "r"), (self.write, "w"), (self.mknod, "m")] {
            if there {
                f.write_str(letter)?;
            }
        }
        Ok(())
    }
}
