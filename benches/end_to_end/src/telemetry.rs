//! Of the daemon's telemetry, what its source counts.

#[path = "../../../src/telemetry/metrics.rs"]
pub mod metrics;
