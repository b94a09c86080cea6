//! The OAuth face in process: the router, a real engine behind it, an identity provider in the test's hands.

#[cfg(test)]
#[path = "token_exchange/clients.rs"]
mod clients;
#[cfg(test)]
#[path = "token_exchange/exchanges.rs"]
mod exchanges;
#[cfg(test)]
#[path = "token_exchange/face.rs"]
mod face;
#[cfg(test)]
#[expect(dead_code, reason = "each test crate uses its own part")]
mod harness;
#[cfg(test)]
#[path = "token_exchange/offline.rs"]
mod offline;
#[cfg(test)]
#[path = "token_exchange/tokens.rs"]
mod tokens;
