//! Why a box is as it is, in one line: for a table that has no room for more.

use super::{HealthState, State, Status};

impl Status {
    /// What it waits for, why it ended, why it cannot be started, or which probe fails with what answer; none if there is
    /// nothing to be said. What came out of a box may hold any character.
    pub fn why(&self) -> Option<String> {
        let unit = self.unit.as_ref();
        let says = || unit.and_then(|unit| unit.status_text.clone());
        let lines = |text: &str| {
            let line = text.lines().next().unwrap_or_default();
            line.strip_prefix("error: ").unwrap_or(line).to_owned()
        };
        match self.state {
            State::Broken => self.definition.problem.as_deref().map(lines),
            State::Failed => self.end().or_else(|| self.result()),
            State::Starting => match unit.map(|unit| &*unit.waits_for) {
                Some([]) | None => says(),
                Some(units) => Some(format!("waits for {}", units.join(", "))),
            },
            State::Restarting => {
                let why = self.end().or_else(|| self.result());
                Some(match why {
                    Some(why) => format!("starts again; {why}"),
                    None => "starts again".to_owned(),
                })
            }
            State::Reloading | State::Stopping => says(),
            State::Running | State::Paused => self.trouble(),
            State::Stopped | State::Masked => None,
        }
    }

    /// What is not well with a box that runs.
    fn trouble(&self) -> Option<String> {
        if let Some(health) = &self.health
            && health.state == HealthState::Unhealthy
        {
            let said = health.probes.last().map(|probe| {
                let line = probe.output.lines().next_back().unwrap_or_default();
                match line {
                    "" => format!(": {}", probe.answer.as_str()),
                    line => format!(": {line}"),
                }
            });
            return Some(format!("unhealthy{}", said.unwrap_or_default()));
        }
        if self.definition.problem.is_some() {
            return Some("runs on; its definition has errors".to_owned());
        }
        self.definition
            .newer
            .then(|| "runs on as it was; its definition is newer".to_owned())
    }

    /// How the last run ended, where the journal knows.
    fn end(&self) -> Option<String> {
        let end = self.last_end.as_ref()?;
        let same = match self.unit.as_ref().and_then(|unit| unit.invocation.as_ref()) {
            Some(invocation) => end.invocation.as_ref() == Some(invocation),
            None => false,
        };
        same.then(|| format!("{}: {}", end.result, end.sentence))
    }

    /// The same by what systemd knows.
    fn result(&self) -> Option<String> {
        let unit = self.unit.as_ref()?;
        match &*unit.result {
            "success" | "" => None,
            "start-limit-hit" => Some(
                "start-limit-hit: started too often; systemctl reset-failed lets it start"
                    .to_owned(),
            ),
            result => Some(match unit.status_text.as_deref() {
                Some(text) if !text.is_empty() => format!("{result}: {text}"),
                _ if unit.exit_code == libc::CLD_EXITED => {
                    format!("{result}: exited with status {}", unit.exit_status)
                }
                _ => result.to_owned(),
            }),
        }
    }
}
