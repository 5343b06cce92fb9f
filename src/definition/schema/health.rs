//! `[health]` as data.

use schemars::JsonSchema;

use super::{Argument, Endpoint, Statuses, Time, Url};

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(extend("oneOf" = [
    { "required": ["command"] },
    { "required": ["tcp"] },
    { "required": ["http"] },
]))]
pub(super) struct Health {
    /// A program of the box and its arguments, run inside it as `boxctl exec` does: healthy if it exits with status
    /// 0. What it left behind ends with it. Default: none; one of this, `tcp` and `http` is written.
    #[schemars(length(min = 1))]
    command: Option<Vec<Argument>>,
    /// An address inside the box, by number or as localhost, with a port: healthy if a connection is accepted. What a
    /// `[[socket]]` listens at is the host's, and cannot be reached so.
    /// Default: none.
    tcp: Option<Endpoint>,
    /// A URL at such an address, without TLS: healthy if the answer is as `http-status` and `http-body` say.
    /// Redirections are not followed. Default: none.
    http: Option<Url>,
    /// Good status codes, numbers and ranges. Default: `200-399`.
    http_status: Option<Statuses>,
    /// A text that the first 64 KiB of the answer's body contain. Default: any body.
    #[schemars(length(min = 1, max = 1024))]
    http_body: Option<Argument>,
    /// From the end of a probe to the next. Default: `30s`.
    interval: Option<Time>,
    /// How long a probe may take. Default: `10s`.
    timeout: Option<Time>,
    /// So many failures in a row make the box unhealthy; one success makes it healthy. Default: `3`.
    #[schemars(range(min = 1, max = 1000))]
    retries: Option<u32>,
    /// For how long after the start of the box failures do not count, until a probe has succeeded. Default: `30s`;
    /// what the start may take when the box is ready once healthy.
    start_period: Option<Time>,
    /// From the end of a probe to the next during `start-period`, until one has succeeded. Default: `1s`.
    start_interval: Option<Time>,
    /// What becomes of an unhealthy box: "report" says it, "restart" stops it and has it started again, "stop" stops
    /// it for good, the two last whatever `restart.policy` is. Default: `report`.
    on_failure: Option<OnFailure>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
pub(super) enum OnFailure {
    Report,
    Restart,
    Stop,
}
