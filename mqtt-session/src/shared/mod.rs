//! What both roles need: each rule stands here once.

pub(crate) mod alias;
pub(crate) mod framer;
pub(crate) mod ids;
pub(crate) mod keep_alive;
pub(crate) mod ledger;
pub(crate) mod received;
pub(crate) mod rules;
pub(crate) mod segments;
pub(crate) mod window;
