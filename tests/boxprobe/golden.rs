//! Goldens: lines that a report must, may and must never have.
//!
//! `*` stands for any characters. A line beginning with `?` may be missing, for what not every kernel or machine has;
//! one with `!` must not be there, and is looked at first. What no line allows is an error, so that whatever a box
//! comes to have, somebody has looked at it.

use std::collections::HashSet;

/// What is wrong with these lines.
pub fn differences(golden: &str, lines: &[String]) -> Vec<String> {
    let mut exact = HashSet::new();
    let (mut never, mut patterns, mut wanted) = (Vec::new(), Vec::new(), Vec::new());
    for rule in golden.lines() {
        if rule.is_empty() || rule.starts_with('#') {
            continue;
        }
        if let Some(pattern) = rule.strip_prefix("! ") {
            never.push(pattern);
            continue;
        }
        let pattern = rule.strip_prefix("? ").unwrap_or(rule);
        if pattern == rule {
            wanted.push(rule);
        }
        if pattern.contains('*') {
            patterns.push(pattern);
        } else {
            exact.insert(pattern);
        }
    }
    let mut wrong = Vec::new();
    let mut seen = HashSet::new();
    for line in lines {
        let line = line.as_str();
        if never.iter().any(|pattern| matches(pattern, line)) {
            wrong.push(format!("must never be: {line}"));
        } else if exact.contains(line) {
            seen.insert(line);
        } else {
            let mut allowed = false;
            for pattern in &patterns {
                if matches(pattern, line) {
                    seen.insert(pattern);
                    allowed = true;
                }
            }
            if !allowed {
                wrong.push(format!("is new: {line}"));
            }
        }
    }
    wrong.extend(
        wanted
            .iter()
            .filter(|rule| !seen.contains(*rule))
            .map(|rule| format!("is missing: {rule}")),
    );
    wrong
}

fn matches(pattern: &str, line: &str) -> bool {
    let Some((first, after)) = pattern.split_once('*') else {
        return pattern == line;
    };
    let Some(mut rest) = line.strip_prefix(first) else {
        return false;
    };
    let mut parts = after.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}
