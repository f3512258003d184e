//! What the integration tests stand on, as far as the targets need it.

#[path = "../../tests/it/support/cells.rs"]
pub mod cells;
#[path = "../../tests/it/support/corpus.rs"]
pub mod corpus;
#[path = "../../tests/it/support/hostile.rs"]
pub mod hostile;
#[path = "../../tests/it/support/json.rs"]
pub mod json;
#[path = "../../tests/it/support/needs.rs"]
pub mod needs;
#[path = "../../tests/it/support/oracle.rs"]
pub mod oracle;
#[path = "../../tests/it/support/wire.rs"]
pub mod wire;
