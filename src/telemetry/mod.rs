//! What a running calve says of itself: logs on stderr, metrics, health and status over HTTP.
//!
//! Nothing here is global but the log: [`Metrics`] and [`Board`] are values that the daemon makes once and passes on.

pub mod board;
pub mod http;
pub mod logging;
pub mod metrics;
pub mod progress;

pub use board::{Board, TopicState};
pub use metrics::Metrics;
pub use progress::Progress;
