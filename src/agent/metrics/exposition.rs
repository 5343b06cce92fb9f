//! Metrics as text, by the names and rules of OpenMetrics 1.0.
//!
//! Everything is read when it is asked for, so nothing is kept of boxes that have gone. A label's value is the name of
//! a box, which needs no escaping anywhere.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeMetric,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::facts::{Facts, Seen};
use crate::cgroup::pressure::{Share, Stall};
use crate::health;

/// OpenMetrics.
///
/// # Errors
///
/// A figure that cannot be written: none that the kernel tells.
pub fn openmetrics(facts: Facts) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(facts));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

/// The same in the older text format of Prometheus, in which a counter's family has the name of its samples.
pub fn older(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    let mut lines = openmetrics.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(comment) = line.strip_prefix("# ") else {
            text.push_str(line);
            text.push('\n');
            continue;
        };
        // HELP comes first, and what kind it is stands on the line after it.
        let Some((name, help)) = comment
            .strip_prefix("HELP ")
            .and_then(|rest| rest.split_once(' '))
        else {
            continue;
        };
        let kind = lines
            .next_if(|next| next.starts_with("# TYPE "))
            .and_then(|next| next.rsplit_once(' '));
        let (suffix, kind) = match kind {
            Some((_, "counter")) => ("_total", "counter"),
            Some((_, "info")) => ("_info", "gauge"),
            Some((_, kind)) => ("", kind),
            None => ("", "untyped"),
        };
        text.push_str(&format!(
            "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}\n"
        ));
    }
    text
}

/// The shape of a family: its name without the unit, help for people, and its unit.
type Shape<'a> = (&'a str, &'a str, Option<Unit>);

impl Collector for Facts {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let info = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        let help = "The boxd that tells this";
        info.encode(encoder.encode_descriptor("boxd_build", help, None, MetricType::Info)?)?;
        let help = "Boxes of which it cannot be seen what runs: boxctl status says why";
        let unseen =
            encoder.encode_descriptor("boxd_unseen_boxes", help, None, MetricType::Gauge)?;
        ConstGauge::new(self.unseen as u64).encode(unseen)?;

        let help = "Whether the box is ready, and not about to stop";
        self.gauge(encoder, ("boxd_box_up", help, None), |seen| {
            Some(u64::from(seen.up))
        })?;
        let help =
            "Whether the last probes did not all fail; absent until the first one has counted";
        self.gauge(
            encoder,
            ("boxd_box_healthy", help, None),
            |seen| match seen.health? {
                health::State::Starting => None,
                health::State::Healthy => Some(1_u64),
                health::State::Unhealthy => Some(0),
            },
        )?;
        let help = "Restarts by systemd since the box was last started by somebody";
        self.counter(encoder, ("boxd_box_restarts", help, None), |seen| {
            seen.restarts
        })?;
        let help = "When the box was started, since the epoch";
        let shape = ("boxd_box_start_time", help, Some(Unit::Seconds));
        self.gauge(encoder, shape, |seen| {
            Some(seconds(seen.stats.as_ref()?.started))
        })?;
        let help = "From the begin of the start until the box was ready";
        let shape = ("boxd_box_start_duration", help, Some(Unit::Seconds));
        self.gauge(encoder, shape, |seen| seen.start_duration.map(seconds))?;
        let help = "Output of this run that was dropped for being more than the definition allows";
        let shape = ("boxd_box_output_dropped", help, Some(Unit::Bytes));
        self.counter(encoder, shape, |seen| seen.output_dropped)?;

        let help = "CPU time of this run";
        let shape = ("boxd_box_cpu", help, Some(Unit::Seconds));
        self.counter(encoder, shape, |seen| seen.stats.as_ref()?.cpu.map(seconds))?;
        let help = "CPU time the box may use in a second";
        self.gauge(encoder, ("boxd_box_cpu_limit_cores", help, None), |seen| {
            seen.stats.as_ref()?.limits.cpu.map(seconds)
        })?;
        let help = "Memory in use";
        let shape = ("boxd_box_memory", help, Some(Unit::Bytes));
        self.gauge(encoder, shape, |seen| seen.stats.as_ref()?.memory)?;
        let help = "Most memory that was in use in this run";
        let shape = ("boxd_box_memory_peak", help, Some(Unit::Bytes));
        self.gauge(encoder, shape, |seen| seen.stats.as_ref()?.memory_peak)?;
        let help = "Memory the box may use";
        let shape = ("boxd_box_memory_limit", help, Some(Unit::Bytes));
        self.gauge(encoder, shape, |seen| seen.stats.as_ref()?.limits.memory)?;
        let help = "Swap in use";
        let shape = ("boxd_box_swap", help, Some(Unit::Bytes));
        self.gauge(encoder, shape, |seen| seen.stats.as_ref()?.swap)?;
        let help = "Processes of this run that the kernel killed for want of memory";
        self.counter(encoder, ("boxd_box_oom_kills", help, None), |seen| {
            seen.stats.as_ref()?.oom_kills
        })?;
        let help = "Processes and threads";
        self.gauge(encoder, ("boxd_box_tasks", help, None), |seen| {
            seen.stats.as_ref()?.tasks
        })?;
        let help = "Processes and threads the box may have";
        self.gauge(encoder, ("boxd_box_tasks_limit", help, None), |seen| {
            seen.stats.as_ref()?.limits.tasks
        })?;
        let help = "Read from block devices in this run";
        let shape = ("boxd_box_io_read", help, Some(Unit::Bytes));
        self.counter(encoder, shape, |seen| seen.stats.as_ref()?.io_read)?;
        let help = "Written to block devices in this run";
        let shape = ("boxd_box_io_written", help, Some(Unit::Bytes));
        self.counter(encoder, shape, |seen| seen.stats.as_ref()?.io_written)?;

        for (resource, of) in RESOURCES {
            let name = format!("boxd_box_pressure_{resource}_waiting");
            let help = format!("Time in which at least one process waited for {resource}");
            let shape = (name.as_str(), help.as_str(), Some(Unit::Seconds));
            self.counter(encoder, shape, |seen| {
                of(seen).map(|stall| total(stall.some))
            })?;
            let name = format!("boxd_box_pressure_{resource}_stalled");
            let help = format!("Time in which all processes waited for {resource}");
            let shape = (name.as_str(), help.as_str(), Some(Unit::Seconds));
            self.counter(encoder, shape, |seen| of(seen)?.full.map(total))?;
        }
        Ok(())
    }
}

type Waits = fn(&Seen) -> Option<Stall>;

/// What a box may wait for. The names are those of node_exporter's `node_pressure_…`.
const RESOURCES: [(&str, Waits); 3] = [
    ("cpu", |seen| seen.stats.as_ref()?.pressure.cpu),
    ("memory", |seen| seen.stats.as_ref()?.pressure.memory),
    ("io", |seen| seen.stats.as_ref()?.pressure.io),
];

impl Facts {
    fn counter<N: EncodeCounterValue>(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        shape: Shape<'_>,
        value: impl Fn(&Seen) -> Option<N>,
    ) -> fmt::Result {
        let metric = |seen: &Seen| value(seen).map(ConstCounter::new);
        self.family(encoder, shape, MetricType::Counter, metric)
    }

    fn gauge<N: EncodeGaugeValue>(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        shape: Shape<'_>,
        value: impl Fn(&Seen) -> Option<N>,
    ) -> fmt::Result {
        let metric = |seen: &Seen| value(seen).map(ConstGauge::new);
        self.family(encoder, shape, MetricType::Gauge, metric)
    }

    /// A figure of every box that has it.
    fn family<M: EncodeMetric>(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        (name, help, unit): Shape<'_>,
        kind: MetricType,
        metric: impl Fn(&Seen) -> Option<M>,
    ) -> fmt::Result {
        let mut family = encoder.encode_descriptor(name, help, unit.as_ref(), kind)?;
        for seen in &self.boxes {
            if let Some(metric) = metric(seen) {
                let label = [("box", seen.name.as_str())];
                metric.encode(family.encode_family(&label)?)?;
            }
        }
        Ok(())
    }
}

fn total(share: Share) -> f64 {
    seconds(share.total)
}

fn seconds(microseconds: u64) -> f64 {
    microseconds as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::metrics::facts::tests::all_there_is;

    const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/agent/metrics/golden");

    /// Of a box with everything, one that is starting, and one that failed.
    #[test]
    fn metrics_are_written_by_the_rules_of_both_formats() {
        let openmetrics = openmetrics(all_there_is()).expect("written");
        let older = older(&openmetrics);
        for (file, text) in [("openmetrics", &openmetrics), ("older", &older)] {
            let path = format!("{GOLDEN}/{file}");
            if std::env::var_os("BOXD_BLESS").is_some() {
                std::fs::write(&path, text).expect("written");
            }
            let golden = std::fs::read_to_string(&path).unwrap_or_default();
            assert_eq!(*text, golden, "{path}; BOXD_BLESS=1 writes it anew");
        }
    }
}
