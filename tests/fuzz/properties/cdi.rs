//! Specifications of the Container Device Interface: what a device gets is what its own and its kind's edits say, by
//! paths that lead where they seem to.

use std::path::{Component, Path};

use boxd::host::cdi::{Edits, find};
use serde_json::Value;

use super::input::{assert_plain, texts};

/// Specifications, with bytes 0xFF between them; asked for are their devices and one that is not there.
pub fn cdi(data: &[u8]) {
    let texts: Vec<_> = texts(data)
        .into_iter()
        .take(4)
        .enumerate()
        .map(|(index, text)| (format!("/etc/cdi/{index}.json").into(), Ok(text)))
        .collect();
    let mut names = vec!["vendor.com/class=absent".to_owned()];
    for (_, text) in &texts {
        let json: Value = text
            .as_ref()
            .map(|text: &String| serde_json::from_str(text).unwrap_or_default())
            .unwrap_or_default();
        let devices = json["devices"].as_array().into_iter().flatten();
        names.extend(
            devices
                .filter_map(|device| {
                    Some(format!(
                        "{}={}",
                        json["kind"].as_str()?,
                        device["name"].as_str()?
                    ))
                })
                .take(16),
        );
    }
    let asked: Vec<&str> = names.iter().map(String::as_str).collect();
    let found = find(&asked, &texts);
    for name in asked {
        match &found[name] {
            Ok(edits) => harmless(edits),
            Err(why) => assert_plain(why),
        }
    }
}

fn harmless(edits: &Edits) {
    for (name, value) in &edits.environment {
        let strange = |character: char| character == '=' || character.is_control();
        assert!(!name.is_empty() && !name.contains(strange), "{name:?}");
        assert!(!value.contains('\0'));
    }
    for shown in edits.hooks.iter().chain(&edits.unknown) {
        assert!(!shown.contains(char::is_control), "{shown:?}");
    }
    for node in &edits.nodes {
        leads_where_it_seems_to(&node.path);
        leads_where_it_seems_to(&node.at);
        assert_eq!(node.mode & !0o777, 0);
        let access = node.access.to_string();
        assert!(
            ["r", "w", "m", "rw", "rm", "wm", "rwm"].contains(&&*access),
            "{access}"
        );
    }
    for mount in &edits.mounts {
        leads_where_it_seems_to(&mount.path);
        leads_where_it_seems_to(&mount.at);
    }
}

fn leads_where_it_seems_to(path: &Path) {
    let mut parts = path.components();
    assert_eq!(parts.next(), Some(Component::RootDir), "{path:?}");
    let normal = parts.all(|part| matches!(part, Component::Normal(_)));
    assert!(
        normal && !path.to_string_lossy().contains(char::is_control),
        "{path:?}"
    );
}
